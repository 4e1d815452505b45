"""The bytes of a source: compression, encoding, and reading by position."""

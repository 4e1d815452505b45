"""A job's files on the local disk: its checkpoint, and files that are written atomically."""

"""JSON Lines: one record a line."""

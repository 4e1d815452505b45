"""The way of a chunk: read, judge, transform, store."""

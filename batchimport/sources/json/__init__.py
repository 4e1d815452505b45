"""JSON documents: arrays of records, and records one after the other."""

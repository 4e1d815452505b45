"""What the SQL destinations share: the ledger and its statements."""

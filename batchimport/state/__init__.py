"""What a job keeps on the local disk: a mirror of the ledger, and files that are whole or not there."""

"""What runs the chunks of a job: this process (`local`) or Temporal's workers (`temporal`)."""

OWNED_BY_TEMPORAL = "temporal|"
"""A job's owner in the ledger begins with this if it is a workflow, not a process."""

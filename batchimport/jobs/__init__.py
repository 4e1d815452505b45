"""How a job begins, is found again, and ends."""

"""Pure decisions, and what is told about them: no clock, file or driver of their own."""

"""Pure decisions and the events that report them: no clock, file or driver of their own."""

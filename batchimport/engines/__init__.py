"""Who runs the chunks."""

"""One instrument at a time: strategies run bar by bar, swept over their parameters, searched."""

"""A training as a command and its page."""

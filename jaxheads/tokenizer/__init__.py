"""Text to token ids and back, from every kind of file."""

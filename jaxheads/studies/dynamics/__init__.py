"""A training: the same scores at every checkpoint, and what they say of its course."""

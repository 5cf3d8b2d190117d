"""A task as a vector: made of heads, and added to prompts."""

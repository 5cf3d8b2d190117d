"""Scores of heads, one a file, each with its definition, chance level and ceiling."""

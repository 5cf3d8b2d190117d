"""Attention on the first token of prompts: a whole study, as one is added."""

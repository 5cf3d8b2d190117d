"""Heads that stand in for each other."""

"""Sweeps over prompts and subsets: planned, fitted to memory, run in chunks."""

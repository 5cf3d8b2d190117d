"""Attention heads and in-context learning, in plain JAX."""

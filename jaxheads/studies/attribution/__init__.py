"""Estimates of every head's effect by gradients, beside exact effects."""

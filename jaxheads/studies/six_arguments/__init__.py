"""Olsson et al.'s six arguments, asked of finished training runs."""

"""The gain from running text with heads replaced."""

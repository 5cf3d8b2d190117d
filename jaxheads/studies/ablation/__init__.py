"""Few-shot accuracy with heads replaced."""

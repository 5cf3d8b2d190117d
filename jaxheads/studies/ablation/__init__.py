"""Few-shot accuracy and token loss with heads replaced."""

"""Sources of weights (GGUF, hub folder, the default model) into checked params."""

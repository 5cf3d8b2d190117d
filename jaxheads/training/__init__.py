"""Training small models from scratch: data, objectives, the loop, its checkpoints."""

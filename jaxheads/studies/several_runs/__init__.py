"""Several runs on one page: models, sizes, checkpoints or seeds."""

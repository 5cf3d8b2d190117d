"""In-context learning: tasks, prompts, metrics and the texts of the loss study."""

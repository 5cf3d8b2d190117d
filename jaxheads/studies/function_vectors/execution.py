"""The prompts under which a function vector is put to work."""

PROMPTS = ("clean", "shuffled", "zero_shot")

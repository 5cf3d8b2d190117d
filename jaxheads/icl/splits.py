"""Names of files that hold a part of a task, such as ``antonym_val``."""

SPLITS = ("_train", "_val", "_valid", "_test")


def stem(name: str) -> str:
    """A task's name without that of a split: "antonym_val" to "antonym"."""
    for split in SPLITS:
        name = name.removesuffix(split)
    return name

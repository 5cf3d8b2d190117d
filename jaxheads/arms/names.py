"""How tables and charts name what is compared."""

import re

from jaxheads.report import words

_TITLES = {
    "all": "all targets",
    "copyable": "targets that a copy gives",
    "copying_block": "copies of random tokens",
    "copied": "copies of random tokens",
    "not_copyable": "targets that no copy gives",
    "answer": "answers, 1 pair or more before",
    "answer_0": "answers, no pair before",
    "answer_1": "answers, 1 pair before",
    "text": "text",
    "plain": "neither copy nor answer",
    "repetition": "repetition, last token",
    "repetition_whole": "repetition, all tokens",
    "early": "early targets",
    "late": "late targets",
}
_CURVES = ("token_loss_difference", "prefix_top", "prefix_first", "induction_heads")
_WITHOUT = "_non_extractive"


_PAIRS = re.compile(r"answer_(\d+)_(\d+)")


def place(name: str) -> tuple[int, int, str]:
    """What groups of targets are sorted by: as above, and by the pairs before."""
    pairs = _PAIRS.fullmatch(name)
    known = [*_TITLES, *_CURVES]
    listed = "answer_1" if pairs else name.removesuffix(_WITHOUT)
    at = known.index(listed) if listed in known else len(known)
    return at, int(pairs[1]) if pairs else 0, name


def title(name: str) -> str:
    """An effect in words, such as "answers, 2 to 3 pairs before"."""
    if name.endswith("_loss"):
        return f"loss, {title(name.removesuffix('_loss'))}"
    if name.endswith(_WITHOUT):
        return f"{title(name.removesuffix(_WITHOUT))}, no copies"
    pairs = _PAIRS.fullmatch(name)
    if pairs:
        return f"answers, {pairs[1]} to {pairs[2]} pairs before"
    return _TITLES.get(name) or words.curve(name)

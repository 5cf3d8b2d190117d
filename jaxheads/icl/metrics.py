r"""Scoring of generated answers by token F1, in two styles.

"yin2025" is the reference study's code, kept with two quirks: (1) the answer is the
first match of ``([\w. ]+)[\nQ]*``, so it ends at the first hyphen, apostrophe or
comma ("quick-witted" is read as "quick") and may begin after line breaks; (2) an
answer that is itself an article, such as the letter "A", becomes empty and scores 0
whatever was generated. "fixed" has neither: the answer is the first line, and articles
are taken out only where something else remains.

Source: Yin & Steinhardt 2025 (arXiv 2502.14010), code repository; normalisation after
Rajpurkar et al. 2016 (arXiv 1606.05250), evaluation script.
"""

import re
import string
from collections import Counter
from collections.abc import Sequence

import numpy as np

from jaxheads.errors import UserError

STYLES = ("fixed", "yin2025")
_ARTICLES = ("a", "an", "the")
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)


def parse_answer(text: str, style: str = "fixed") -> str:
    r"""Cut the answer out of a generated text.

    Args:
        text: What the model generated after the prompt.
        style: "fixed": the first line, stripped. "yin2025": the first match of
            ``([\w. ]+)[\nQ]*``, as it stands, or nothing.

    Returns:
        The answer.

    Raises:
        UserError: The style is unknown.
    """
    _check(style)
    if style == "fixed":
        return text.partition("\n")[0].strip()
    match = re.search(r"([\w. ]+)[\nQ]*", text)
    return match.group(1) if match else ""


def normalise(text: str, style: str = "fixed") -> str:
    """Lower the case, drop ASCII punctuation and articles, and mend white space.

    Args:
        text: An answer.
        style: "yin2025" drops every article; "fixed" keeps them where nothing else
            would remain.

    Returns:
        Words, one space between them.

    Raises:
        UserError: The style is unknown.
    """
    _check(style)
    words = text.lower().translate(_NO_PUNCTUATION).split()
    rest = [word for word in words if word not in _ARTICLES]
    return " ".join(words if style == "fixed" and not rest else rest)


def token_f1(generated: str, answer: str, style: str = "fixed") -> float:
    """Compare a generated text with the right answer, word by word.

    F1 = 2 c / (p + a), with p words generated, a words in the answer and c words in
    common (as multisets); 0 where c = 0.

    Args:
        generated: What the model generated after the prompt.
        answer: The right answer.
        style: "fixed" or "yin2025" (see the module).

    Returns:
        F1, from 0 to 1. In style "fixed", an answer of punctuation alone is compared
        as it stands.

    Raises:
        UserError: The style is unknown.
    """
    parsed = parse_answer(generated, style)
    given, wanted = (normalise(text, style).split() for text in (parsed, answer))
    if style == "fixed" and not wanted:
        return float(parsed == answer.strip())
    common = sum((Counter(given) & Counter(wanted)).values())
    return 2 * common / (len(given) + len(wanted)) if common else 0.0


def f1_scores(
    generated: Sequence[str], answers: Sequence[str], style: str = "fixed"
) -> np.ndarray:
    """Score a batch of generated texts.

    Args:
        generated: Generated texts, B of them.
        answers: Right answers, B of them.
        style: "fixed" or "yin2025".

    Returns:
        F1 of each, float32 [B].

    Raises:
        UserError: The style is unknown.
        ValueError: The two lengths differ.
    """
    _check(style)
    pairs = zip(generated, answers, strict=True)
    return np.array([token_f1(g, a, style) for g, a in pairs], np.float32)


def _check(style: str) -> None:
    if style not in STYLES:
        raise UserError(
            f"the style of scoring is one of {', '.join(STYLES)}, not {style!r}."
        )

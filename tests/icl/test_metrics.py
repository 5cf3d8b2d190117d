"""Token F1, with values worked by hand, in both styles."""

import numpy as np
import pytest

from jaxheads.errors import UserError
from jaxheads.icl.metrics import f1_scores, normalise, parse_answer, token_f1


@pytest.mark.parametrize(
    "generated, answer, fixed, yin",
    [
        (" Paris\n\nQ: Italy", "Paris", 1, 1),
        (" paris.", "Paris", 1, 1),
        # 2 words generated, 3 wanted, 2 in common: 2 * 2 / 5.
        (" Saudi Arabia\n", "Kingdom Saudi Arabia", 0.8, 0.8),
        # 3 generated, 1 wanted, 1 in common: 2 / 4.
        (" red red blue", "red", 0.5, 0.5),
        (" Rome", "Paris", 0, 0),
        (" The Hague", "Hague", 1, 1),
        # An article alone: the reference code cannot score it.
        (" A\n\nQ:", "A", 1, 0),
        (" a", "A", 1, 0),
        (" B", "A", 0, 0),
        (" A", "B", 0, 0),
        # The reference expression stops at a hyphen or an apostrophe.
        (" quick-witted\n", "quick-witted", 1, 0),
        (" St. John's\n", "St. John's", 1, 0.5),
        (" red, green", "red green", 1, 2 / 3),
        # It also steps over line breaks that come first.
        ("\n\nParis", "Paris", 0, 1),
        ("", "Paris", 0, 0),
        ("?!", "Paris", 0, 0),
        (" ?", "?", 1, 0),
        (" !", "?", 0, 0),
        (" schließen", "schließen", 1, 1),
    ],
)
def test_values_worked_by_hand(generated, answer, fixed, yin):
    assert token_f1(generated, answer) == pytest.approx(fixed)
    assert token_f1(generated, answer, "yin2025") == pytest.approx(yin)


@pytest.mark.parametrize(
    "text, fixed, yin",
    [
        (" Paris\n\nQ: x", "Paris", " Paris"),
        (" well-known\n", "well-known", " well"),
        ("\nParis", "", "Paris"),
        ("--", "--", ""),
    ],
)
def test_parsing(text, fixed, yin):
    assert parse_answer(text) == fixed
    assert parse_answer(text, "yin2025") == yin


@pytest.mark.parametrize(
    "text, fixed, yin",
    [
        ("The  Cat, a dog!", "cat dog", "cat dog"),
        ("An", "an", ""),
        ("the A", "the a", ""),
        ("atheist", "atheist", "atheist"),
    ],
)
def test_normalisation(text, fixed, yin):
    assert normalise(text) == fixed
    assert normalise(text, "yin2025") == yin


def test_batches_are_scored_one_by_one():
    scores = f1_scores([" Paris", " red red blue", " A"], ["Paris", "red", "A"])
    assert scores.dtype == np.float32
    np.testing.assert_array_equal(scores, np.array([1, 0.5, 1], np.float32))
    assert f1_scores([], []).shape == (0,)
    with pytest.raises(ValueError, match="longer"):
        f1_scores(["a"], ["a", "b"])


@pytest.mark.parametrize("score", [token_f1, parse_answer, normalise, f1_scores])
def test_unknown_styles_are_refused(score):
    texts = {f1_scores: ([], []), token_f1: ("a", "b")}.get(score, ("a",))
    with pytest.raises(UserError, match="fixed, yin2025, not 'squad'"):
        score(*texts, style="squad")

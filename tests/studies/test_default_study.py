"""What is known of the default model, found again by a small study of it."""

import numpy as np
import pytest

from jaxheads.scores.config import ScoresConfig
from jaxheads.studies.ablation.config import AblationConfig
from jaxheads.studies.config import StudyConfig
from jaxheads.studies.run import run_study
from jaxheads.weights.model import load

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    config = StudyConfig(
        scores=ScoresConfig(
            tasks=("present-past", "singular-plural", "capitalize"),
            clean_prompts=8,
            corrupted_prompts=8,
            sequences=8,
            documents=4,
        ),
        ablation=AblationConfig(
            tasks=("capitalize_first_letter", "choose_middle_of_3", "person-sport"),
            prompts=10,
            fractions=(0.05,),
            keep_only=(),
        ),
    )
    out = tmp_path_factory.mktemp("default") / "run"
    return run_study(load(), config, out, parts=("scores", "ablation"))


@pytest.mark.parametrize(
    ("score", "head", "least"),
    [("function_vector", (20, 5), 0.1), ("induction", (18, 6), 0.85)],
)
def test_the_leading_heads_are_found(run, score, head, least):
    values = run.arrays[f"score/{score}"]
    assert np.unravel_index(values.argmax(), values.shape) == head
    assert values[head] > least


def test_function_vector_heads_carry_few_shot_learning(run):
    accuracy = run.arrays["ablation/first_token"].mean(axis=(1, 2))
    by_set: dict[tuple, list[float]] = {}
    for told, value in zip(run.result["ablation"]["sets"], accuracy, strict=True):
        by_set.setdefault((told["ranking"], told["mode"]), []).append(float(value))
    (clean,), (replaced,) = by_set["none", "clean"], by_set["function_vector", "top"]
    assert clean > 0.3
    assert replaced < 0.5 * clean
    assert replaced < min(by_set["random", "uniform"])

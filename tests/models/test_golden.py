"""Every variant of every family against what transformers gave for it (golden files).

One variant a family is compared in all respects; the others in their float32 results,
and in the rest by the slow tests. ``make parity`` compares with transformers itself, on
longer sequences.
"""

import json
from pathlib import Path

import numpy as np
import pytest
from reference_case import (
    BFLOAT16,
    FLOAT64,
    HEADS,
    LOGITS,
    PATTERNS,
    Case,
    ablated_distances,
    bfloat16_error,
    continued,
    distance,
    float32_distances,
    float64_logits,
)
from safetensors.numpy import save_file

from jaxheads.weights.model import Model, load

GOLDEN = sorted((Path(__file__).parents[1] / "golden").glob("*.npz"))
IN_ALL_RESPECTS = ("llama-gqa", "gpt2", "gpt_neox")

golden = pytest.mark.parametrize("golden", GOLDEN, ids=lambda path: path.stem)
golden_or_slow = pytest.mark.parametrize(
    "golden",
    [
        pytest.param(
            path, marks=() if path.stem in IN_ALL_RESPECTS else pytest.mark.slow
        )
        for path in GOLDEN
    ],
    ids=lambda path: path.stem,
)


pytestmark = pytest.mark.usefixtures("quick_compilation")


def opened(path: Path, folder: Path) -> tuple[Model, Case]:
    """A golden file's case, and its model loaded from a folder in hub layout."""
    case, tensors = Case.read(path)
    (folder / "config.json").write_text(case.config, encoding="utf-8")
    save_file(tensors, folder / "model.safetensors")
    return load(folder), case


def test_there_is_a_golden_file_of_every_family():
    kinds = {json.loads(Case.read(path)[0].config)["model_type"] for path in GOLDEN}
    llamas = {"llama", "mistral", "qwen2", "qwen3", "olmo2", "gemma2"}
    assert kinds == llamas | {"gpt_neox", "gpt2"}


@golden
def test_float32_results_are_transformers(golden, tmp_path):
    model, case = opened(golden, tmp_path)
    distances = float32_distances(model, case)
    assert distances["logits"] <= LOGITS
    assert distances["heads"] <= HEADS
    assert distances["patterns"] <= PATTERNS


@golden_or_slow
def test_other_precisions_are_no_further_than_transformers(golden, tmp_path):
    model, case = opened(golden, tmp_path)
    exact = float64_logits(model, case)
    assert distance(case.at(exact), case.logits64) <= FLOAT64
    error = bfloat16_error(model, case, exact)
    assert error <= BFLOAT16 * case.bfloat16_error


@golden_or_slow
def test_ablated_logits_are_those_of_a_hook(golden, tmp_path):
    distances = ablated_distances(*opened(golden, tmp_path))
    for kind, largest in distances.items():
        assert largest <= LOGITS, kind


@golden_or_slow
def test_greedy_continuations_are_identical(golden, tmp_path):
    model, case = opened(golden, tmp_path)
    assert case.continued.shape == (50, 8)
    np.testing.assert_array_equal(continued(model, case), case.continued)

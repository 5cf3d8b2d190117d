"""Every variant of every family against transformers itself: ``make parity``."""

# pyright: reportMissingImports=false

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from measure import draw, measure
from reference import random_model, run, save
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
from safetensors.numpy import load_file
from variants import CHANGES, VARIANTS

from jaxheads.errors import UserError
from jaxheads.weights.model import Model, load

pytestmark = pytest.mark.parity

LENGTH = 64
FULL_LENGTHS = (64, 37, 1, 20)
PROMPTS = 50
FAMILIES = sorted({variant.settings["model_type"] for variant in VARIANTS.values()})


@dataclasses.dataclass(frozen=True)
class Compared:
    """A variant, what transformers gave for it, and jaxheads' model of its folder."""

    name: str
    folder: Path
    case: Case
    model: Model


def grouped(names: list[str]) -> list:
    """Parameters that pytest-xdist keeps on one worker, each with its own group."""
    return [pytest.param(name, marks=pytest.mark.xdist_group(name)) for name in names]


@pytest.fixture(scope="module", autouse=True)
def quiet() -> None:
    torch.set_num_threads(1)
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()


@pytest.fixture(scope="module", params=grouped(list(VARIANTS)))
def compared(request, tmp_path_factory) -> Iterator[Compared]:
    """Each variant in turn, as transformers saves it and jaxheads loads it."""
    model = random_model(VARIANTS[request.param])
    folder = save(model, tmp_path_factory.mktemp(request.param))
    inputs = draw(model.config, LENGTH, FULL_LENGTHS, PROMPTS)
    case = measure(model, folder, inputs)
    yield Compared(request.param, folder, case, load(folder))


def test_float32_results_are_transformers(compared, record_property):
    distances = float32_distances(compared.model, compared.case)
    cells = {name: f"{value:.1e}" for name, value in distances.items()}
    cells["their float32 noise"] = " ".join(f"{n:.0e}" for n in compared.case.noise)
    record_property(compared.name, cells)
    assert distances["logits"] <= LOGITS
    assert distances["heads"] <= HEADS
    assert distances["patterns"] <= PATTERNS


def test_the_logits_are_large_and_rounding_is_seen_in_them(compared):
    assert np.abs(compared.case.logits).max() > 6
    assert compared.case.noise[0] > LOGITS / 20


@pytest.mark.parametrize(("name", "change"), CHANGES, ids=str)
def test_the_comparison_sees_every_setting(name, change):
    """Transformers itself, the same weights under a changed setting."""
    variant = VARIANTS[name]
    settings = {**variant.settings, **change}
    if "rope_parameters" in change:
        settings["rope_parameters"] = {
            **variant.settings["rope_parameters"],
            **change["rope_parameters"],
        }
    tokens = np.random.default_rng(2).integers(0, 37, (2, LENGTH))
    lengths = np.array([LENGTH, LENGTH])
    logits = run(random_model(variant), tokens, lengths).logits
    changed = dataclasses.replace(variant, settings=settings)
    others = run(random_model(changed), tokens, lengths).logits
    assert distance(logits, others) > 10 * LOGITS


def test_float64_shrinks_the_difference_by_four_orders(compared, record_property):
    exact = compared.case.at(float64_logits(compared.model, compared.case))
    largest = distance(exact, compared.case.logits64)
    record_property(compared.name, {"float64": f"{largest:.1e}"})
    assert largest <= FLOAT64


def test_bfloat16_is_no_further_from_exact_than_transformers(compared, record_property):
    case = compared.case
    error = bfloat16_error(compared.model, case, float64_logits(compared.model, case))
    cells = {"bfloat16": f"{error:.4f}", "theirs": f"{case.bfloat16_error:.4f}"}
    record_property(compared.name, cells)
    assert error <= BFLOAT16 * case.bfloat16_error


def test_ablated_logits_are_those_of_a_hook(compared, record_property):
    distances = ablated_distances(compared.model, compared.case)
    record_property(compared.name, {"ablated": f"{max(distances.values()):.1e}"})
    for kind, largest in distances.items():
        assert largest <= LOGITS, kind


def test_greedy_continuations_are_identical(compared):
    ours, theirs = continued(compared.model, compared.case), compared.case.continued
    assert theirs.shape == (PROMPTS, 8)
    np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("family", FAMILIES)
def test_all_ways_to_store_weights_give_the_same_params(family, tmp_path):
    model = random_model(first_of(family))
    save(model, tmp_path / "whole")
    expected = load(tmp_path / "whole").provenance.params_sha256

    model.save_pretrained(tmp_path / "sharded", max_shard_size="20KB")
    assert len(list((tmp_path / "sharded").glob("*.safetensors"))) > 1
    assert load(tmp_path / "sharded").provenance.params_sha256 == expected

    tensors = {
        name: torch.tensor(values)
        for name, values in load_file(tmp_path / "whole/model.safetensors").items()
    }
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch/config.json").write_bytes(
        (tmp_path / "whole/config.json").read_bytes()
    )
    torch.save(tensors, tmp_path / "torch/pytorch_model.bin")
    assert load(tmp_path / "torch").provenance.params_sha256 == expected


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("family", FAMILIES)
def test_narrow_weights_are_read_as_transformers_reads_them(family, dtype, tmp_path):
    model = random_model(first_of(family)).to(getattr(torch, dtype))
    save(model, tmp_path / "narrow")
    save(model.float(), tmp_path / "wide")
    narrow, wide = load(tmp_path / "narrow"), load(tmp_path / "wide")
    assert narrow.provenance.params_sha256 == wide.provenance.params_sha256


@pytest.mark.parametrize("name", list(VARIANTS))
def test_a_bare_model_loads_if_its_unembedding_is_tied(name, tmp_path):
    model = random_model(VARIANTS[name])
    save(model, tmp_path / "whole")
    save(model.base_model, tmp_path / "bare")
    assert not any("lm_head" in key for key in load_file(first_file(tmp_path / "bare")))
    if model.config.tie_word_embeddings:
        bare, whole = load(tmp_path / "bare"), load(tmp_path / "whole")
        assert bare.provenance.params_sha256 == whole.provenance.params_sha256
    else:
        with pytest.raises(
            UserError, match=r"(lm_head|embed_out)\.weight.* is missing"
        ):
            load(tmp_path / "bare")


def first_of(family: str):
    """The first variant of a model type."""
    variants = VARIANTS.values()
    return next(v for v in variants if v.settings["model_type"] == family)


def first_file(folder: Path) -> Path:
    """The one safetensors file of a folder."""
    (path,) = folder.glob("*.safetensors")
    return path


def test_the_goldens_are_of_these_variants():
    golden = Path(__file__).parents[1] / "golden"
    assert {path.stem for path in golden.glob("*.npz")} == set(VARIANTS)
    for path in golden.glob("*.npz"):
        config = json.loads(Case.read(path)[0].config)
        settings = VARIANTS[path.stem].settings
        assert config["model_type"] == settings["model_type"]
        assert config["transformers_version"] == transformers.__version__

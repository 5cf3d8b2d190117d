"""Training runs opened again: the same models, data and probes."""

import dataclasses

import jax
import numpy as np
import pytest

import jaxheads as jh
from jaxheads import runs
from jaxheads.errors import UserError
from jaxheads.models import toy
from jaxheads.training.config import EvidenceConfig, TrainConfig
from jaxheads.training.data.automata import Family
from jaxheads.training.data.languages import RegularLanguages
from jaxheads.training.data.repeats import RepeatedTokens
from jaxheads.training.loop import train
from jaxheads.training.measures import make_evidence
from jaxheads.training.trained import open_all, open_trained

pytestmark = pytest.mark.usefixtures("quick_compilation")

MODEL = toy.Config(1, 16, 2, 8, 10, 12)
SOURCE = RepeatedTokens(10, 12, shortest_period=3, longest_period=5)
CONFIG = TrainConfig(
    steps=4, batch_size=4, seeds=2, seed=3, eval_every=4, checkpoints=("2",)
)
EVIDENCE = EvidenceConfig(
    evidence_samples=8, probe_period=3, probe_repeats=2, repetitions=4
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A training of two seeds."""
    folder = tmp_path_factory.mktemp("trained") / "run"
    train(
        CONFIG, MODEL, SOURCE, folder, evidence=make_evidence(EVIDENCE, MODEL, SOURCE)
    )
    return folder


def test_a_run_is_opened_as_it_was_made(folder):
    trained = open_trained(folder)
    assert (trained.config, trained.model_config) == (CONFIG, MODEL)
    assert trained.source == SOURCE and trained.held_out is None
    assert (trained.seeds, trained.steps) == ((3, 4), (0, 2, 4))
    np.testing.assert_array_equal(trained.eval_steps, [0, 4])


def test_its_params_are_those_of_its_seeds(folder):
    trained = open_trained(folder)
    params = trained.params(2)
    alone = jh.load(folder / "checkpoints" / "seed_4" / "step_00000002").params
    jax.tree.map(
        lambda both, one: np.testing.assert_array_equal(both[1], one), params, alone
    )


def test_its_evidence_measures_again_what_was_measured(folder):
    trained = open_trained(folder)
    again = trained.evidence().measure(trained.params(4))
    for name in ("prefix_matching", "icl_score", "token_losses"):
        values = trained.evaluated(name)
        assert values is not None
        np.testing.assert_allclose(again[name], values[-1], atol=2e-6)
    assert trained.evaluated("nothing") is None


def test_languages_come_back_with_their_automata(tmp_path):
    source = RegularLanguages(
        20,
        Family(symbols=4, fewest_letters=3, most_letters=4, training=5, test=2),
        longest=5,
        fewest_strings=2,
        most_strings=3,
    )
    config = dataclasses.replace(CONFIG, seeds=1, steps=1, eval_every=0)
    held_out = dataclasses.replace(source, split="test")
    model = toy.Config(1, 8, 2, 4, source.vocab_size, 20)
    train(config, model, source, tmp_path / "run", held_out=held_out)
    trained = open_trained(tmp_path / "run")
    assert (trained.source, trained.held_out) == (source, held_out)


def test_a_step_without_a_model_is_refused(folder):
    with pytest.raises(UserError, match="step 3, but has those of 0, 2, 4"):
        open_trained(folder).params(3)


def test_runs_given_twice_are_refused(folder):
    with pytest.raises(UserError, match="stands twice"):
        open_all([folder, folder.parent / "." / "run"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"source": "Nothing"}, "store.json"),
        ({"sha256": "0"}, "other data"),
        ({"longest_period": 0}, "longest_period"),
    ],
)
def test_other_data_are_refused(folder, tmp_path, change, message):
    run = runs.load(folder)
    run.result["model"]["data"] |= change
    runs.write_run(tmp_path, run.result, run.arrays)
    with pytest.raises(UserError, match=message):
        open_trained(tmp_path)

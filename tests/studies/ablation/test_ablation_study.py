"""The ablation study's options, against whole forwards: exclusions, zero-shot."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from jaxheads import runs
from jaxheads.engine import sweeps
from jaxheads.engine.chunks import distinct, whole_chunks
from jaxheads.errors import UserError
from jaxheads.heads import count_of, top
from jaxheads.heads.sets import SetPlan
from jaxheads.icl.metrics import token_f1
from jaxheads.icl.prompts import build_prompts
from jaxheads.icl.tasks import load_task
from jaxheads.models.ablation import Ablation
from jaxheads.models.forward import forward
from jaxheads.scores.config import ScoresConfig
from jaxheads.studies.ablation.config import AblationConfig
from jaxheads.studies.config import StudyConfig
from jaxheads.studies.run import run_study
from jaxheads.weights.model import load

STUDY = StudyConfig(
    scores=ScoresConfig(
        tasks=("antonym",),
        clean_prompts=3,
        corrupted_prompts=2,
        sequences=2,
        sequence_length=5,
        documents=2,
        document_length=8,
    ),
    ablation=AblationConfig(
        tasks=("synonym", "present-past"),
        prompts=3,
        fractions=(0.1, 0.4),
        exclusion=0.2,
        exclusions=(0.0, 0.3),
        zero_shot=True,
        keep_only=(0.2,),
        draws=1,
        max_new_tokens=2,
    ),
    shots=2,
)
PARTS = ("scores", "ablation")

pytestmark = pytest.mark.usefixtures("quick_compilation")


@pytest.fixture(scope="module")
def model(model_folder):
    return load(model_folder)


@pytest.fixture(scope="module")
def made(model, tmp_path_factory):
    """A run, and how many sets of each task were to be run."""
    given = []

    def spy(replaced, chunk):
        given.append(len(replaced))
        return whole_chunks(replaced, chunk)

    patch = pytest.MonkeyPatch()
    patch.setattr(sweeps, "whole_chunks", spy)
    out = tmp_path_factory.mktemp("ablation") / "run"
    run = run_study(model, STUDY, out, parts=PARTS)
    patch.undo()
    return run, given


@pytest.fixture(scope="module")
def run(made):
    return made[0]


SETS = SetPlan(
    ("induction", "function_vector"), (0.1, 0.4), 0.05, (0.2,), 2, ("induction",), 3
)


def test_further_thresholds_change_no_other_set():
    rng = np.random.default_rng(2)
    scores = {name: rng.normal(size=(5, 8)) for name in SETS.rankings}
    before = SETS.build(scores)
    after = dataclasses.replace(SETS, exclusions=(0.0, 0.2)).build(scores)
    for (told, heads), (also, same) in zip(before, after, strict=False):
        assert told == also and (heads == same).all()
    others = after[len(before) :]
    assert len(others) == 2 * 2 * 2
    other = {"function_vector": "induction", "induction": "function_vector"}
    for told, heads in [*others, *before]:
        assert ("exclusion" in told) == told["mode"].startswith("exclusion")
        if "exclusion" in told:
            share = told["exclusion"]
            dropped = top(scores[other[told["ranking"]]], count_of(share, 40))
            assert not (heads & dropped).any() and heads.sum() == told["count"]
            count = count_of(told["fraction"], 40)
            assert (heads == top(scores[told["ranking"]], count, dropped)).all()
    plain = {(t["ranking"], t["fraction"]): h for t, h in before if t["mode"] == "top"}
    for told, heads in others[:4]:  # at 0 nothing is dropped
        assert told["exclusion"] == 0
        assert (heads == plain[told["ranking"], told["fraction"]]).all()
    names = [told["name"] for told, _ in after]
    assert len(set(names)) == len(names)


def test_one_ranking_excludes_nothing():
    alone = dataclasses.replace(SETS, rankings=("induction",), exclusions=(0.1,))
    modes = {told["mode"] for told, _ in alone.build({"induction": np.eye(8)})}
    assert "top" in modes and not any(mode.startswith("excl") for mode in modes)


def test_different_sets_are_found_and_put_back():
    rng = np.random.default_rng(0)
    kinds = rng.random((4, 3, 5)) > 0.5
    replaced = kinds[[2, 0, 2, 3, 0, 2, 1]]
    first, place = distinct(replaced)
    assert first.tolist() == [0, 1, 3, 6]
    assert (replaced[first][place] == replaced).all()
    filled = whole_chunks(replaced[first], 3)
    assert len(filled) == 6 and (filled[:4] == replaced[first]).all()
    assert (filled[4:] == replaced[6]).all()
    assert whole_chunks(filled, 3) is not None and len(whole_chunks(filled, 3)) == 6


def test_a_set_of_several_descriptions_is_run_once(made):
    run, given = made
    replaced = run.arrays["ablation/replaced"]
    different = len({heads.tobytes() for heads in replaced})
    assert different < len(replaced) and run.result["ablation"]["sets_run"] == different
    assert given == [different] * 4  # two tasks, with and without demonstrations
    for name in ("first_token", "f1", "zero_shot/first_token", "zero_shot/f1"):
        values = run.arrays[f"ablation/{name}"]
        for n, heads in enumerate(replaced):
            same = (replaced == heads).all(axis=(1, 2))
            assert (values[same] == values[n]).all()


def naive_answer(model, tokens, length, replaced, fill, new_tokens):
    """Greedy answer of one prompt by whole forwards, ablated from its last position."""
    ids = list(tokens[:length])
    for _ in range(new_tokens):
        where = np.arange(len(ids))[None] >= length - 1
        change = Ablation(jnp.asarray(1.0 - replaced), fill, jnp.asarray(where))
        out = forward(model.params, jnp.asarray([ids]), model.config, ablation=change)
        ids.append(int(out.logits[0, -1].argmax()))
    return ids[length:]


def test_zero_shot_answers_are_those_of_whole_forwards(run, model):
    """The same queries and sets, no demonstrations, the few-shot prompts' fill."""
    fill = run.arrays["fv/mean_heads"]
    for e, name in enumerate(run.result["evaluation_tasks"]):
        prompts = build_prompts(load_task(name), 3, 2, 0)
        start = f"prompts/evaluation_zero_shot/{name}"
        tokens, lengths = run.arrays[start], run.arrays[f"{start}/lengths"]
        for b, prompt in enumerate(prompts):
            text = model.tokenizer.decode(tokens[b, : lengths[b]])
            assert text == f"Q: {prompt.query}\nA:"
        targets = run.arrays[f"{start}/targets"]
        np.testing.assert_array_equal(
            targets, run.arrays[f"prompts/evaluation/{name}/targets"]
        )
        for n in (0, 3, len(run.arrays["ablation/replaced"]) - 1):
            replaced = run.arrays["ablation/replaced"][n]
            b = (n + e) % 3
            made = naive_answer(model, tokens[b], lengths[b], replaced, fill, 2)
            right = run.arrays["ablation/zero_shot/first_token"][n, e, b]
            assert right == (made[0] == targets[b])
            expected = token_f1(model.tokenizer.decode(made), prompts[b].answer)
            found = run.arrays["ablation/zero_shot/f1"][n, e, b]
            np.testing.assert_allclose(found, expected)


def test_few_shot_answers_do_not_depend_on_the_options(run, model, tmp_path):
    plain = dataclasses.replace(
        STUDY,
        ablation=dataclasses.replace(STUDY.ablation, exclusions=(), zero_shot=False),
    )
    other = run_study(
        model, plain, tmp_path / "plain", parts=("ablation",), ranking=run
    )
    count = len(other.arrays["ablation/replaced"])
    for name in ("replaced", "first_token", "f1"):
        np.testing.assert_array_equal(
            other.arrays[f"ablation/{name}"], run.arrays[f"ablation/{name}"][:count]
        )
    rows = [
        next(row for row in each.result["plan"]["rows"] if row["part"] == "ablation")
        for each in (run, other)
    ]
    # Without demonstrations prompts are shorter, but there are as many.
    assert rows[1]["forwards"] < rows[0]["forwards"]
    per_set = [
        row["forwards"] / len(each.arrays["ablation/replaced"])
        for row, each in zip(rows, (run, other), strict=True)
    ]
    assert 1.9 < per_set[0] / per_set[1] < 2.1


def test_zero_shot_units_are_kept_when_it_stops(run, model, tmp_path, monkeypatch):
    done = []

    def stops(self, name, compute):
        if len(done) == 3:
            raise KeyboardInterrupt
        done.append(name)
        return keep(self, name, compute)

    keep = runs.RunFolder.unit
    monkeypatch.setattr(runs.RunFolder, "unit", stops)
    out = tmp_path / "stopped"
    with pytest.raises(KeyboardInterrupt):
        run_study(model, STUDY, out, parts=("ablation",), ranking=run)
    assert done[2] == "ablation-zero-shot-synonym"
    monkeypatch.setattr(runs.RunFolder, "unit", keep)
    again = run_study(model, STUDY, out, parts=("ablation",), ranking=run)
    for name in run.arrays:
        if name.startswith("ablation/"):
            np.testing.assert_array_equal(again.arrays[name], run.arrays[name])


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"exclusions": (0.1, 1.5)}, "between 0 and 1, not 1.5"),
        ({"exclusions": (0.1, 0.1)}, "different shares"),
        ({"exclusions": (0.02,)}, "none of them that of --ablation.exclusion, 0.02"),
        ({"value": "resample", "tasks": ("synonym",)}, "has synonym alone: give two"),
    ],
)
def test_options_that_make_no_sense_are_refused(change, sentence):
    with pytest.raises(UserError, match=sentence):
        StudyConfig(ablation=AblationConfig(**change))

"""A value that is not finite is told where it is, and is never written."""

import dataclasses

import numpy as np
import pytest

from jaxheads import runs
from jaxheads.errors import UserError
from jaxheads.heads import parse_heads
from jaxheads.runs import finite
from jaxheads.scores.config import ScoresConfig
from jaxheads.studies.ablation import study as few_shot
from jaxheads.studies.ablation.config import AblationConfig
from jaxheads.studies.config import StudyConfig
from jaxheads.studies.inputs import prepare
from jaxheads.studies.job import Given, Job
from jaxheads.studies.scores import study as head_scores
from jaxheads.weights.model import load

NAN = float("nan")


def folder(tmp_path, dtype="float32", study="scores"):
    return runs.RunFolder(tmp_path / "run", study, {}, {"dtype": dtype})


def with_nan(*at, shape=(3, 4, 5), value: float = NAN):
    values = np.zeros(shape, np.float32)
    values[at] = value
    return values


@pytest.mark.parametrize(
    ("dtype", "advice"),
    [
        ("float16", "give --dtype bfloat16 or float32"),
        ("bfloat16", "give --dtype float32"),
        ("float32", "`jaxheads doctor` says which weights"),
    ],
)
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_unit_names_the_first_value_that_is_not_finite(
    tmp_path, dtype, advice, value
):
    run, wrong = folder(tmp_path, dtype), with_nan(1, 2, 3, value=value)
    wrong[2] = value
    with pytest.raises(UserError) as error:
        run.unit("scores-antonym", lambda: {"effects": wrong}, {"effects": "LHB"})
    assert (
        f"effects of scores-antonym must be finite, but is {value} at layer 1, head 2, "
        "prompt 3, the first of 21 in 60" in str(error.value)
    )
    assert advice in str(error.value)
    # Nothing is there of it, and the run goes on with units that are whole.
    assert not run.has("scores-antonym")
    assert folder(tmp_path, dtype).unit(
        "scores-antonym", lambda: {"effects": np.ones(1)}
    )


def test_a_unit_of_an_earlier_try_is_refused_alike(tmp_path, monkeypatch):
    run = folder(tmp_path)
    with monkeypatch.context() as earlier:
        earlier.setattr(run, "check", lambda *_: None)
        run.unit("a", lambda: {"effects": with_nan(0, 1, 2)})
    with pytest.raises(UserError, match="layer 0, head 1, prompt 2"):
        run.unit("a", dict, "LHB")


@pytest.mark.parametrize(
    ("name", "dims", "at", "where"),
    [
        ("score/induction", ["L", "H", "K"], (2, 1, 0), "layer 2, head 1, element 0"),
        ("fv/effects", ["A", "L", "H"], (1, 2, 3), "task capitalize, layer 2, head 3"),
        ("ablation/f1", ["N", "E", "B"], (2, 1, 4), "set top 2, task person, prompt 4"),
        ("token_loss/x", ["M", "B", "P"], (0, 1, 2), "set 0, document 1, position 2"),
        ("evaluation/x", ["E", "N", "H"], (1, 2, 3), "evaluation 1, seed 2, head 3"),
        ("prompts/odd", [], (0, 0, 1), "index (0, 0, 1)"),
    ],
)
def test_a_result_is_not_written_with_one(tmp_path, name, dims, at, where):
    run = folder(tmp_path)
    run.unit("a", lambda: {"x": np.ones(2)})
    result = {
        "scoring_tasks": ["antonym", "capitalize", "synonym"],
        "evaluation_tasks": ["country", "person", "place", "word"],
        "ablation": {"sets": [{"name": f"top {n}"} for n in range(3)]},
        "arrays": {name: {"dims": dims, "unit": ""}},
    }
    with pytest.raises(UserError) as error:
        run.finish(result, {name: with_nan(*at)})
    assert f"{name} of the result must be finite, but is nan at {where}" in str(
        error.value
    )
    assert sorted(each.name for each in run.path.iterdir()) == ["run.json", "units"]
    assert folder(tmp_path).has("a")


def test_what_may_be_unknown_is_told_with_its_reason(tmp_path):
    arrays = {"score/x_se": with_nan(0), "score/x": np.zeros((3, 4, 5))}
    told = {name: {"dims": ["L", "H", "B"], "unit": ""} for name in arrays}
    run = folder(tmp_path).finish({"arrays": told}, arrays)
    assert (
        run.result["arrays"]["score/x_se"]["nan"] == "one sample has no standard error"
    )
    assert "nan" not in run.result["arrays"]["score/x"]
    with pytest.raises(UserError, match=r"score/x_se .* is inf"):
        folder(tmp_path / "other").finish(
            {"arrays": told}, {"score/x_se": with_nan(0, value=np.inf)}
        )


def test_a_number_of_the_result_is_named(tmp_path):
    with pytest.raises(UserError, match=r"^rates\[1\]\.low of the result .* is nan"):
        folder(tmp_path).finish({"rates": [1.0, {"low": float("nan")}]}, {})
    assert not (tmp_path / "run" / "result.json").exists()


def test_whole_numbers_and_finite_floats_pass():
    for values in (np.arange(3), np.ones(2) > 0, np.ones((2, 2)), np.array(3.0)):
        assert finite.first(values) is None


@pytest.fixture(scope="module")
def prepared(model_folder):
    config = StudyConfig(
        scores=ScoresConfig(
            tasks=("antonym",), clean_prompts=3, corrupted_prompts=3, sequences=3,
            sequence_length=12, documents=2, document_length=20,
        ),
        ablation=AblationConfig(tasks=("synonym",), prompts=2, max_new_tokens=2),
        shots=2,
    )  # fmt: skip
    model = load(model_folder)
    return model, prepare(model, config, ("scores", "ablation"))


def test_scores_stop_at_the_first_unit(prepared, tmp_path, quick_compilation):
    model, inputs = prepared
    wq = model.params.layers.wq.at[1, 3, 4].set(np.nan)
    params = model.params.replace(layers=model.params.layers.replace(wq=wq))
    run = folder(tmp_path)
    with pytest.raises(
        UserError, match=r"of scores-attention .* layer 1, head 4, prom"
    ):
        job = Job(
            *(params, model.config, None, Given({}, None), run, 10**9),
            lambda flops: None,
        )
        head_scores.run(inputs.inputs["scores"], job)
    assert not list((run.path / "units").iterdir())


def test_an_ablation_stops_where_only_a_set_overflows(
    prepared, tmp_path, quick_compilation
):
    """Answers are tokens, which cannot be NaN; they are told all the same."""
    model, inputs = prepared
    sets = []
    for n, names in enumerate((["0.1"], ["1.4", "2.0"])):
        heads = parse_heads(names, (3, 6))
        told = {"name": str(n), "ranking": "", "mode": "chosen", "count": len(names)}
        sets.append((told, heads))
    fill = np.zeros((3, 6, 10), np.float32)
    fill[1, 4] = 3e38  # its part of the stream is infinite
    run = folder(tmp_path, "float16")
    # No set by a ranking: the empty one, and these.
    asked = dataclasses.replace(
        inputs.inputs["ablation"].settings,
        **dict(rankings=(), fractions=(), keep_only=(), draws=0, matched_to=()),
    )
    own = dataclasses.replace(inputs.inputs["ablation"], settings=asked, own=sets)
    given = Given({"function_vector": np.zeros((3, 6))}, fill)
    job = Job(
        *(model.params, model.config, model.tokenizer, given, run, 10**9),
        lambda flops: None,
    )
    with pytest.raises(UserError) as error:
        few_shot.run(own, job)
    assert "logits of ablation-synonym must be finite" in str(error.value)
    assert "at set 2, prompt 0, new token 0" in str(error.value)
    assert "float32" in str(error.value) and not list((run.path / "units").iterdir())

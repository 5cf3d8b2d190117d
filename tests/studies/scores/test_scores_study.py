"""Further scores in the score study, end to end on a tiny model."""

import dataclasses
import io
import json

import numpy as np
import pytest
from rich.console import Console

from jaxheads.cli.tables import print_run
from jaxheads.errors import UserError
from jaxheads.scores.config import ScoresConfig
from jaxheads.scores.registry import EXTRA_SCORES, USUAL_SCORES
from jaxheads.studies import page as sections
from jaxheads.studies.ablation.config import AblationConfig
from jaxheads.studies.config import StudyConfig
from jaxheads.studies.inputs import prepare
from jaxheads.studies.run import run_study
from jaxheads.weights.model import load

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("quick_compilation")]

SMALL = StudyConfig(
    scores=ScoresConfig(
        tasks=("antonym", "capitalize"),
        clean_prompts=3,
        corrupted_prompts=2,
        sequences=2,
        sequence_length=10,
        documents=2,
        document_length=20,
        names=tuple(EXTRA_SCORES),
        probe_sequences=2,
        needles=2,
        haystack_length=20,
        entities=2,
        relation_texts=3,
    ),
    ablation=AblationConfig(
        tasks=("synonym", "present-past"),
        prompts=2,
        rankings=("retrieval", "token_copying"),
        matched_to=("copying",),
        fractions=(0.2,),
        keep_only=(),
        draws=1,
        max_new_tokens=1,
    ),
    shots=2,
    bos=True,
)


@pytest.fixture(scope="module")
def model(model_folder):
    return load(model_folder)


@pytest.fixture(scope="module")
def run(model, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "study"
    return run_study(model, SMALL, out, parts=("scores",))


def test_every_score_is_there_with_its_meaning(run):
    assert list(run.result["scores"]) == [*USUAL_SCORES, *_in_order(run)]
    assert set(run.result["scores"]) == {*USUAL_SCORES, *EXTRA_SCORES}
    for name, told in run.result["scores"].items():
        assert told["definition"] and told["source"] and told["unit"]
        assert told["ceiling"] is None or told["chance"] < told["ceiling"]
        mean = run.arrays[f"score/{name}"]
        assert mean.shape == (3, 6) and np.isfinite(mean).all()
        assert run.result["arrays"][f"score/{name}"]["unit"] == told["unit"]
    assert len(run.result["arrays"]) == len(run.arrays)
    for name, array in run.arrays.items():
        assert array.ndim == len(run.result["arrays"][name]["dims"]), name
    json.dumps(run.result, allow_nan=False)


def _in_order(run):
    return [name for name in run.result["scores"] if name in EXTRA_SCORES]


def test_report_and_tables_show_every_score(run):
    printed = io.StringIO()
    print_run(run, Console(file=printed, markup=False, width=120))
    page = repr(sections.collect(run))
    for heading in ("retrieval (teacher-forced)", "QK trace", "relation index"):
        assert heading in printed.getvalue()
    for heading in ("Retrieval score, teacher-forced", "QK trace", "Relation index"):
        assert heading in page
    assert "nan" not in printed.getvalue()


def test_the_plan_counts_the_further_scores(run, model):
    def flops(*names):
        scores = dataclasses.replace(SMALL.scores, names=names)
        config = dataclasses.replace(SMALL, scores=scores)
        prepared = prepare(model, config, ("scores",))
        assert prepared.inputs["scores"] is not None
        return prepared.inputs["scores"].cost(model.config).flops

    usual = flops()
    assert flops("duplicate_token", "induction_value_weighted") == usual
    for name in set(EXTRA_SCORES) - {"duplicate_token", "induction_value_weighted"}:
        assert flops(name) > usual
    assert len(list((run.path / "units").glob("*"))) == 0


def test_the_memory_budget_changes_no_score(model):
    names = ("prefix_matching", "relation_index")
    scores = dataclasses.replace(SMALL.scores, names=names)
    config = dataclasses.replace(SMALL, scores=scores)
    prepared = prepare(model, config, ("scores",)).inputs["scores"]
    assert len(prepared.parts) == 2
    for part in prepared.parts:
        chunks, made = [], []
        for budget in (1, 10**9):
            fits = part.fits(model.params, model.config, budget)
            chunks.append(fits[0].chunk)
            made.append(part.measure(model.params, model.config, budget, {}))
        assert chunks[0] == 1 < chunks[1]
        for name, values in made[0].items():
            np.testing.assert_allclose(values, made[1][name], atol=1e-5)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (dict(names=("retrieval",)), "'token_copying' is not: add it to --scores.name"),
        (dict(haystack_length=500), "context"),
        (dict(entities=9000), "9000 entities"),
    ],
)
def test_scores_that_cannot_be_made_are_one_sentence(model, tmp_path, change, sentence):
    scores = dataclasses.replace(SMALL.scores, **change)
    config = dataclasses.replace(SMALL, scores=scores)
    with pytest.raises(UserError, match=sentence):
        run_study(model, config, tmp_path / "x", parts=("scores", "ablation"))


def test_sets_are_made_by_any_score_that_the_ranking_has(run, model, tmp_path):
    out = tmp_path / "there"
    made = run_study(model, SMALL, out, parts=("ablation",), ranking=run)
    sets = made.result["ablation"]["sets"]
    named = {"none", "random", "retrieval", "token_copying"}
    assert {told["ranking"] for told in sets} == named
    assert "copying" in {told["matched_to"] for told in sets}
    result = run.result | {"scores": {"induction": {}, "retrieval": {}}}
    poor = dataclasses.replace(run, result=result)
    with pytest.raises(UserError, match=r"'token_copying' is not: .* has induction"):
        run_study(model, SMALL, tmp_path / "x", parts=("ablation",), ranking=poor)


def test_an_unknown_score_is_refused_by_name():
    with pytest.raises(UserError, match="not 'kopying'"):
        StudyConfig(scores=ScoresConfig(names=("kopying",)))

"""Scores as they are registered, and one that lives outside of the package."""

import math

import numpy as np
import pytest
from rich.console import Console

from jaxheads.cli.run import run as run_command
from jaxheads.cli.tables import print_run
from jaxheads.report import words
from jaxheads.runs import load as load_run
from jaxheads.scores import registry
from jaxheads.scores.config import ScoresConfig
from jaxheads.scores.registry import EXTRA_SCORES, USUAL_SCORES, Score
from jaxheads.studies.config import StudyConfig
from jaxheads.studies.run import run_study
from jaxheads.weights.model import load

NAMES = (*USUAL_SCORES, *EXTRA_SCORES)


@pytest.mark.parametrize("name", NAMES)
def test_a_score_keeps_the_contract(name):
    file = registry.load(name)
    (told,) = [
        one for one in file.described(ScoresConfig(), shots=3) if one.name == name
    ]
    assert told.definition and told.unit and told.source
    # Of a score of a run's own texts the chance level is theirs.
    assert math.isnan(told.chance) or told.chance < told.ceiling
    if name in EXTRA_SCORES:
        needed = ("edges", "head_scores") if EXTRA_SCORES[name].on_probe else ("parts",)
        assert all(callable(getattr(file, one)) for one in needed)


def test_every_score_has_one_short_name_and_one_heading_of_its_own():
    for named in (words.short, words.title):
        assert len({named(name) for name in NAMES}) == len(NAMES)


@pytest.mark.usefixtures("quick_compilation")
def test_a_score_of_ones_own_is_a_file_and_a_line(
    model_folder, tmp_path, monkeypatch, capsys
):
    line = Score("toy_score", "output", "Norm of the output")
    monkeypatch.setitem(EXTRA_SCORES, "output_norm", line)
    scores = ScoresConfig(
        tasks=("antonym",),
        clean_prompts=2,
        corrupted_prompts=2,
        sequences=2,
        sequence_length=6,
        documents=2,
        document_length=10,
        names=("output_norm",),
    )
    model, out = load(model_folder), tmp_path / "run"
    run_study(model, StudyConfig(scores=scores, shots=2), out, parts=("scores",))
    run = load_run(out)
    norms = np.linalg.norm(np.asarray(model.params.layers.wo), axis=(-2, -1))
    np.testing.assert_allclose(run.arrays["score/output_norm"], norms, rtol=1e-6)
    assert run.result["scores"]["output_norm"]["ceiling"] is None
    run_command(["report", str(out)])
    page = (out / "report.html").read_text()
    assert "Norm of the output" in page and "Frobenius norm of the head" in page
    print_run(run, Console(width=120))
    assert " output " in capsys.readouterr().out

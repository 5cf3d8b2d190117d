"""A study that lives outside of the package, registered by one line."""

import numpy as np
import pytest
from model_folder import write_tiny_llama
from sink_study import study
from sink_study.config import SinkConfig

from jaxheads.cli.options import commands, parse
from jaxheads.cli.run import run as run_command
from jaxheads.errors import UserError
from jaxheads.models.forward import forward
from jaxheads.report.layout import Topic
from jaxheads.runs import load as load_run
from jaxheads.studies import registry
from jaxheads.studies.config import StudyConfig
from jaxheads.studies.page import collect
from jaxheads.studies.run import run_study
from jaxheads.weights.model import load


@pytest.fixture(autouse=True)
def registered(monkeypatch):
    monkeypatch.setitem(registry.STUDIES, "sink", "sink_study")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_tiny_llama(tmp_path_factory.mktemp("model") / "tiny")


def test_it_runs_and_stands_in_plan_receipt_and_page(folder, tmp_path):
    model = load(folder)
    config = StudyConfig(sink=SinkConfig(prompts=3), shots=2)
    run = run_study(model, config, tmp_path / "run", parts=("sink",))
    (row,) = run.result["plan"]["rows"]
    assert row["part"] == "sink" and row["forwards"] == 3 and row["programs"]
    assert run.result["arrays"]["sink/share"] == {
        "dims": ["A", "L", "H", "B"],
        "unit": "share of attention",
    }
    assert run.result["config"]["sink"]["prompts"] == 3
    assert not {"scores", "ablation"} & set(run.result["config"])
    tokens = run.arrays["prompts/sink/antonym"]
    lengths = run.arrays["prompts/sink/antonym/lengths"]
    for at, (row, length) in enumerate(zip(tokens, lengths, strict=True)):
        seen = forward(
            model.params, row[None, :length], model.config, capture=("patterns",)
        )
        expected = np.asarray(seen.patterns)[:, 0, :, -1, 0]
        np.testing.assert_allclose(
            run.arrays["sink/share"][0, ..., at], expected, atol=1e-6
        )
    page = collect(run)
    assert [one.anchor for one in page.sections if one.anchor == "sink"]
    assert "of their attention" in page.verdict


def test_it_is_a_command_with_its_own_options(folder, tmp_path, capsys):
    assert "sink" in commands()
    assert parse(["sink", "--sink.prompts=7"]).sink.prompts == 7
    out = tmp_path / "run"
    run_command(["sink", str(folder), "--shots=2", "--sink.prompts=2", f"-o={out}"])
    assert "first token 0." in capsys.readouterr().out
    assert load_run(out).arrays["sink/share"].shape[-1] == 2
    assert "The first token" in (out / "report.html").read_text()
    with pytest.raises(UserError, match=r"--sink.prompts must be 2 or more, but is 1"):
        parse(["sink", "--sink.prompts=1"]).config()


@pytest.mark.parametrize(
    ("told", "message"),
    [
        ({}, "ARRAYS of no study tells what sink/share is"),
        (
            {"sink/share": ("A L H", "share")},
            r"sink/share has shape \(1, .* says A L H",
        ),
    ],
)
def test_arrays_that_are_not_told_are_named(told, message, folder, tmp_path):
    config = StudyConfig(sink=SinkConfig(prompts=2), shots=2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(study, "ARRAYS", told)
        with pytest.raises(RuntimeError, match=message):
            run_study(load(folder), config, tmp_path / "run", parts=("sink",))


def test_a_value_that_is_no_number_is_found_in_its_own_task(folder, tmp_path):
    config = StudyConfig(sink=SinkConfig(tasks=("synonym",), prompts=2), shots=2)
    plain = study.Result.arrays

    def broken(result):
        share = np.array(plain(result)["sink/share"])
        share[0, 1, 2, 0] = np.nan
        return {"sink/share": share}

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(study.Result, "arrays", broken)
        with pytest.raises(UserError, match=r"at task synonym, layer 1, head 2"):
            run_study(load(folder), config, tmp_path / "run", parts=("sink",))


def test_a_page_without_scores_says_nothing_of_a_ranking(folder, tmp_path, monkeypatch):
    monkeypatch.setattr("sink_study.page.topic", lambda *given: Topic())
    config = StudyConfig(sink=SinkConfig(prompts=2), shots=2)
    run = run_study(load(folder), config, tmp_path / "run", parts=("sink",))
    assert collect(run).verdict == ""


@pytest.mark.parametrize("name", sorted(registry.of_models()))
def test_a_study_of_a_model_keeps_the_contract(name):
    module, config = registry.load(name, "study"), registry.of_models()[name]
    assert callable(module.prepare) and callable(module.run)
    assert all(len(told) == 2 for told in module.ARRAYS.values())
    for method in ("tokens", "cost", "fits"):
        assert callable(getattr(module.Inputs, method))
    for method in ("check", "ranked_by"):
        assert callable(getattr(config, method))
    assert {config.needs_scores, config.shuffles_labels} <= {True, False}
    assert registry.load(name, "config").COMMANDS
    assert callable(registry.load(name, "page").topic)
    assert callable(registry.load(name, "terminal").lines)


def test_a_study_that_nobody_knows_is_refused():
    with pytest.raises(TypeError, match=r"takes shots, seed, .* sink, not 'sinks'"):
        StudyConfig(sinks=SinkConfig())

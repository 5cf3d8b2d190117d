"""A study that lives outside of the package, registered by one line."""

import numpy as np
import pytest
from model_folder import write_tiny_llama
from sink_study.config import SinkConfig

from jaxheads.cli.options import commands, parse
from jaxheads.cli.run import run as run_command
from jaxheads.errors import UserError
from jaxheads.models.forward import forward
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


def test_a_study_that_nobody_knows_is_refused():
    with pytest.raises(TypeError, match=r"takes shots, seed, .* sink, not 'sinks'"):
        StudyConfig(sinks=SinkConfig())

"""The protocols by name: their numbers, their deviations, and the command line."""

import dataclasses
import subprocess
import sys
from typing import get_args

import numpy as np
import pytest
from test_cli import SMALL, jaxheads

from jaxheads import runs
from jaxheads.cli.options import parse
from jaxheads.icl.task_names import TemplateName
from jaxheads.icl.tasks import load_tasks
from jaxheads.icl.templates import TEMPLATES
from jaxheads.studies.ablation.study import Inputs
from jaxheads.studies.config import StudyConfig
from jaxheads.studies.function_vectors.config import ExecutionConfig
from jaxheads.studies.job import Given
from jaxheads.studies.options import DEFAULT_PROTOCOL
from jaxheads.studies.protocols import DEVIATIONS, MEANING, PROTOCOLS, value_of

TEXT, CODE = PROTOCOLS["yin2025"], PROTOCOLS["yin2025-code"]


@pytest.mark.parametrize("deviation", DEVIATIONS, ids=lambda one: one.name)
def test_a_deviation_is_what_the_two_protocols_do(deviation):
    assert value_of(TEXT, deviation.switch) == deviation.text_value
    assert value_of(CODE, deviation.switch) == deviation.code_value
    assert deviation.section and deviation.effect


def test_every_switch_in_which_the_two_differ_is_told():
    """But the name, and the amounts of what the code has not."""
    told = {deviation.switch for deviation in DEVIATIONS}
    amounts = {
        "protocol",
        "ablation.exclusions_at",
        "ablation.draws_elsewhere",
        "token_loss.draws_elsewhere",
        "token_loss.fill_documents",
        "token_loss.side_by_side",
        "execution.prompts",
        "execution.clean_prompts",
        "execution.sizes",
        "execution.random_sets",
    }
    differ = set()
    for name, one in TEXT.options().items():
        other = CODE.options()[name]
        if not dataclasses.is_dataclass(one):
            differ |= {name} if one != other else set()
            continue
        for inner in dataclasses.fields(one):
            if getattr(one, inner.name) != getattr(other, inner.name):
                differ.add(f"{name}.{inner.name}")
    assert differ - amounts <= told
    same = {one.switch for one in DEVIATIONS if one.text_value == one.code_value}
    assert told - same <= differ


def test_the_papers_numbers_stand_in_the_protocols():
    for config in (TEXT, CODE):
        assert (len(config.scores.tasks), len(config.ablation.tasks)) == (29, 19)
        assert len(config.execution.tasks) == 41 and config.shots == 10
        assert config.scores.clean_prompts == config.scores.corrupted_prompts == 100
        assert config.scores.sequences == 1000 and config.scores.sequence_length == 50
        assert config.ablation.prompts == 100 and config.ablation.max_new_tokens == 5
        for part in (config.ablation, config.token_loss):
            assert part.fractions == (0.01, 0.03, 0.05, 0.07, 0.09, 0.15, 0.2)
            assert part.rankings == ("function_vector", "induction_yin")
            assert part.exclusion == 0.02
    assert {config.protocol for config in PROTOCOLS.values()} == set(PROTOCOLS)
    assert set(MEANING) == set(PROTOCOLS) and DEFAULT_PROTOCOL in PROTOCOLS


def test_the_code_excludes_none_of_48_heads():
    rng = np.random.default_rng(0)
    scores = {name: rng.normal(size=(6, 8)) for name in TEXT.ablation.rankings}

    def sets(config):
        inputs = Inputs({}, {}, config.ablation, config.seed)
        return {told["name"]: heads for told, heads in inputs.sets(Given(scores, None))}

    text, code = sets(TEXT), sets(CODE)
    with_all = "function_vector 0.2"
    without = f"{with_all} without top induction_yin"
    assert (code[without] == code[with_all]).all()
    best = np.unravel_index(scores["induction_yin"].argmax(), (6, 8))
    assert not text[without][best]
    other = "function_vector {} without top 0.05 induction_yin"
    assert other.format(0.05) in text and other.format(0.2) not in text


def test_quick_is_the_default_study():
    quick = dataclasses.replace(
        PROTOCOLS["quick"], protocol=None, execution=ExecutionConfig()
    )
    assert quick == StudyConfig()
    assert PROTOCOLS["quick"].execution.tasks == ()


@pytest.mark.parametrize("name", PROTOCOLS)
def test_all_tasks_of_a_protocol_are_built_in(name):
    config = PROTOCOLS[name]
    asked = (*config.scores.tasks, *config.ablation.tasks, *config.execution.tasks)
    tasks = load_tasks(tuple(dict.fromkeys(asked)), min_items=config.shots + 1)
    for task in tasks:
        assert task.source.startswith("built-in")


def test_the_templates_are_those_of_the_config():
    assert tuple(TEMPLATES) == get_args(TemplateName)


@pytest.mark.parametrize(
    "written", [["--protocol", "todd2024"], ["--protocol=todd2024"]]
)
def test_the_protocol_gives_the_defaults_and_options_override_it(written):
    command = parse(["score", "x", *written, "--scores.clean-prompts", "7"])
    config, todd = command.config(), PROTOCOLS["todd2024"]
    assert config.protocol == "todd2024" and config.bos is True
    assert config.scores == dataclasses.replace(todd.scores, clean_prompts=7)
    assert parse(["study"]).config() == PROTOCOLS["quick"]
    whole = parse(["study", *written]).config()
    assert whole == todd


def test_help_shows_the_protocols_numbers():
    command = [sys.executable, "-m", "jaxheads", "score", "--protocol=yin2025", "-h"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0 and "(default: 1000)" in done.stdout
    assert "yin2025-code" in done.stdout


@pytest.mark.parametrize("written", [["--protocol", "yin"], ["--protocol=yin"]])
def test_an_unknown_protocol_is_one_sentence(written, capfd):
    code, said, error = jaxheads(capfd, "study", *written)
    assert code == 2 and not said and "Traceback" not in error
    assert "'yin'" in error and all(name in error for name in PROTOCOLS)


def test_the_table_of_protocols_is_printed(capfd):
    code, said, _ = jaxheads(capfd, "protocols")
    assert code == 0
    assert all(name in said for name in PROTOCOLS)
    for deviation in DEVIATIONS:
        assert f"--{deviation.switch.replace('_', '-')}" in said


@pytest.mark.slow
def test_a_run_states_its_protocol(model_folder, capfd, tmp_path):
    out = tmp_path / "run"
    options = [*SMALL, "--protocol=yin2025-code", "--bos=False", "--out", out]
    code, _, error = jaxheads(capfd, "score", model_folder, *options)
    assert code == 0, error
    run = runs.load(out)
    told = run.result["config"]
    assert told["protocol"] == "yin2025-code" and told["drawing"] == "published"
    assert told["scores"]["probe_tokens"] == "retokenized"
    assert told["scores"]["tasks"] == ["antonym"] and "ablation" not in told

"""The pages of docs/: those made of records are up to date, and commands parse."""

import re
import shlex
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest

import jaxheads
from jaxheads.cli.options import parse
from jaxheads.studies import registry

DOCS = Path(__file__).parents[1] / "docs"
WITH_COMMANDS = [DOCS / "first_hour.md", *sorted((DOCS / "studies").glob("*.md"))]


def test_pages_made_of_records_are_up_to_date():
    spec = spec_from_file_location("generate", DOCS / "generate.py")
    assert spec and spec.loader
    generate = module_from_spec(spec)
    spec.loader.exec_module(generate)
    for name, text in generate.pages().items():
        there = (generate.FOLDER / name).read_text(encoding="utf-8")
        assert there == text, f"{name} is stale: run python docs/generate.py"


def test_the_reference_has_every_public_name_and_every_studys_config():
    listed = {
        name: re.findall(
            r"^::: .*\.(\w+)$", (DOCS / "reference" / name).read_text(), re.M
        )
        for name in ("models.md", "studies.md")
    }
    assert sorted(listed["models.md"]) == sorted(jaxheads.__all__)
    configs = {kind.__name__ for kind in registry.of_models().values()}
    assert configs <= {*listed["studies.md"]}


@pytest.mark.parametrize("page", WITH_COMMANDS, ids=lambda page: page.stem)
def test_commands_and_their_options_exist(page: Path):
    lines = re.findall(
        r"^jaxheads (.*)", page.read_text(encoding="utf-8"), re.MULTILINE
    )
    assert lines
    for line in lines:
        parse(shlex.split(line, comments=True))


def test_the_script_of_the_first_hour_runs(model_folder, tmp_path, monkeypatch, capsys):
    (code,) = re.findall(
        r"```python\n(.*?)```", (DOCS / "first_hour.md").read_text(), re.DOTALL
    )
    monkeypatch.chdir(tmp_path)
    exec(code.replace("smollm2-135m-instruct", str(model_folder)), {})
    assert "function_vector: head" in capsys.readouterr().out

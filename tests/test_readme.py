"""The README's example runs as it is printed."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

README = Path(__file__).parents[1] / "README.md"
DOCS = README.parent / "docs"
PAGES = [README, *sorted(DOCS.rglob("*.md"))]


@pytest.mark.slow
def test_the_readmes_python_runs():
    (code,) = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (accuracy,) = re.findall(r"accuracy (\d\.\d\d)", done.stdout)
    assert 0.1 < float(accuracy) < 0.6


def test_every_command_it_names_exists():
    from jaxheads.cli.options import commands

    def named(page: Path) -> set[str]:
        return set(re.findall(r"^jaxheads ([a-z-]+)", page.read_text(), re.MULTILINE))

    assert set().union(*map(named, PAGES)) <= set(commands())
    assert named(DOCS / "commands.md") == set(commands())


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_page_names_and_links_what_is_there(page: Path):
    text = page.read_text(encoding="utf-8")
    for path in re.findall(r"`((?:models|jaxheads|tests|benchmarks)/[\w/.]*)`", text):
        assert (README.parent / path).exists(), path
    for link in re.findall(r"\]\((?!https?:)([^)#]+)", text):
        assert (page.parent / link).exists(), link

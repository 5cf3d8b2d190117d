"""The README's example runs as it is printed."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

README = Path(__file__).parents[1] / "README.md"


@pytest.mark.slow
def test_the_readmes_python_runs():
    (code,) = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (accuracy,) = re.findall(r"accuracy (\d\.\d\d)", done.stdout)
    assert 0.1 < float(accuracy) < 0.6


def test_every_command_it_names_exists():
    from jaxheads.cli.options import COMMANDS

    named = re.findall(r"^jaxheads ([a-z-]+)", README.read_text(), re.MULTILINE)
    assert set(named) == set(COMMANDS)


def test_the_map_names_what_is_there():
    for path in re.findall(
        r"`((?:models|jaxheads|tests|benchmarks)/[\w/.]*)`", README.read_text()
    ):
        assert (README.parent / path).exists(), path

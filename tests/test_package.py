"""The package as installed: import names, laziness, the models folder."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import jaxheads

ROOT = Path(jaxheads.__file__).parents[1]


def python(code: str, **kwargs) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, **kwargs
    )


def test_every_public_name_is_there():
    for name in jaxheads.__all__:
        assert getattr(jaxheads, name).__doc__
    assert set(jaxheads.__all__) <= set(dir(jaxheads))
    with pytest.raises(AttributeError, match="no attribute 'lode'"):
        _ = jaxheads.lode


@pytest.mark.parametrize("slow", ["jax", "scipy"])
def test_importing_jaxheads_imports_nothing_slow(slow: str):
    code = f"import jaxheads, sys; assert {slow!r} not in sys.modules"
    assert python(code).returncode == 0


def test_the_statistics_import_scipy_when_they_are_asked():
    code = "import jaxheads.statistics.paired_tests, jaxheads.studies.claims, sys"
    assert python(f"{code}; assert 'scipy.stats' not in sys.modules").returncode == 0


def test_the_command_lines_help_imports_no_jax():
    code = (
        "import sys; from jaxheads.__main__ import main\n"
        "try: main(['study', '--help'])\n"
        "except SystemExit as e: assert not e.code\n"
        "assert not {'jax', 'scipy'} & sys.modules.keys()"
    )
    assert python(code).returncode == 0


@pytest.mark.skipif(not (ROOT / "models").is_dir(), reason="not a checkout")
def test_plain_models_is_refused_with_the_right_name():
    done = python("import models", cwd=ROOT)
    assert done.returncode != 0
    assert "from jaxheads import models" in done.stderr


def test_models_import_nothing_else_of_jaxheads():
    for path in (ROOT / "jaxheads" / "models").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom):
                module = node.module or ""
                assert not module.startswith("jaxheads") or module.startswith(
                    "jaxheads.models"
                ), f"{path.name} imports {module}"


def test_only_the_entry_and_the_studies_config_are_known_to_the_command_line():
    """Light imports only, so that help is quick."""
    tree = ast.parse((ROOT / "jaxheads" / "cli" / "run.py").read_text())
    at_top = {node.module for node in tree.body if isinstance(node, ast.ImportFrom)}
    ours = {name for name in at_top if name and name.startswith("jaxheads")}
    assert ours == {
        "jaxheads",  # stops
        "jaxheads.cli.options",
        "jaxheads.errors",
        "jaxheads.studies",  # registry
        "jaxheads.studies.options",
    }


@pytest.mark.slow
@pytest.mark.parametrize(
    "module",
    [
        "cli.tables",
        "studies.doctor",
        "heads.rankings",
        *(
            f"studies.{part}.command"
            for part in ("train", "dynamics", "six_arguments", "compare_runs")
        ),
    ],
)
def test_what_commands_print_needs_no_package_of_the_page(module):
    code = (
        "import sys; sys.modules.update(altair=None, vl_convert=None, jinja2=None); "
        f"import jaxheads.{module}, jaxheads.report.page"
    )
    done = python(code)
    assert done.returncode == 0, done.stderr

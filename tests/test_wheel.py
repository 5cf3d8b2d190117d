"""The wheel without extras, as a person has it who installs the package alone."""

import os
import subprocess
import sys
import venv
from pathlib import Path

import pytest
from test_cli import ABLATION, SMALL, TOKEN_LOSS

from jaxheads import runs

pytestmark = pytest.mark.slow

TRAIN = ["train", "--steps=4", "--seeds=2", "--eval-every=2", "--evidence-samples=8"]


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    """The command of an environment with the wheel and what it must bring."""
    folder = tmp_path_factory.mktemp("wheel")
    root = Path(__file__).parents[1]
    build = [sys.executable, "-m", "build", "--wheel", "--outdir", folder, root]
    subprocess.run(build, check=True, capture_output=True)
    venv.create(folder / "venv", with_pip=True)
    (wheel,) = folder.glob("*.whl")
    pip = [folder / "venv/bin/python", "-m", "pip", "install", "--quiet", wheel]
    subprocess.run(pip, check=True, capture_output=True)
    return folder / "venv/bin/jaxheads"


def test_every_command_ends_without_the_page_and_says_how_to_make_it(
    installed, model_folder, tmp_path
):
    def run(*arguments, code=0, page=True):
        done = subprocess.run(
            [installed, *map(str, arguments)],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env={k: v for k, v in os.environ.items() if k != "PYTHONPATH"},
        )
        assert done.returncode == code, done.stderr
        assert "Traceback" not in done.stderr
        if code == 0 and page:
            first, last = done.stderr.splitlines()[0], done.stderr.splitlines()[-1]
            assert "no page will be made: it needs altair" in first
            assert "no page: it needs altair" in last and "jaxheads report" in last
        return done

    whole = [*SMALL, *ABLATION, *TOKEN_LOSS]
    run("study", model_folder, *whole, "-o", "study")
    assert set(runs.load(tmp_path / "study").result["wall_s"]) >= {"scores", "ablation"}
    ranked = [model_folder, "--shots=3", "--ranking", "study"]
    run("ablate", *ranked, *ABLATION, "-o", "ablate")
    run("token-loss", *ranked, *TOKEN_LOSS, "-o", "loss")
    tasks = ["--execution.tasks=capitalize", "--execution.prompts=2"]
    run("execution", *ranked, *tasks, "-o", "execution")
    tasks = ["--redundancy.tasks=capitalize", "--redundancy.prompts=4"]
    run("redundancy", *ranked, *tasks, "-o", "redundancy")
    tasks = ["--attribution.tasks=antonym", "--attribution.clean-prompts=2"]
    run("attribution", model_folder, "--shots=3", *tasks, "-o", "attribution")
    run(*TRAIN, "-o", "vanilla")
    run(*TRAIN, "--objective=hapax", "-o", "hapax")
    run("evidence", "vanilla", "hapax")
    run("compare-runs", "vanilla", "hapax", "-o", "compared")
    run("convert", model_folder, "store", page=False)
    (tmp_path / "steps").mkdir()
    (tmp_path / "store").rename(tmp_path / "steps/step1")
    run("dynamics", "steps", *SMALL, "--ablation.tasks=synonym", "-o", "dynamics")
    run("compare", "study", "--score-b=induction", page=False)
    run("export", "study", "ranking.json", page=False)
    for name in ("models", "tasks", "protocols", "--version"):
        run(name, page=False)
    run("inspect", model_folder, page=False)
    for refused in (["report", "study"], ["score", model_folder, "--figures=svg"]):
        done = run(*refused, code=2)
        assert "pip install 'jaxheads[report]'" in done.stderr

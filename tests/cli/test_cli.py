"""The command line, end to end and on users' mistakes."""

import errno
import json
import os
import re
import subprocess
import sys

import pytest

from jaxheads import runs
from jaxheads.__main__ import main

pytestmark = pytest.mark.usefixtures("quick_compilation")

SMALL = [
    "--shots=3",
    "--scores.tasks=antonym",
    "--scores.clean-prompts=3",
    "--scores.corrupted-prompts=2",
    "--scores.sequences=2",
    "--scores.sequence-length=8",
    "--scores.documents=2",
    "--scores.document-length=12",
]
ABLATION = [
    "--ablation.tasks=synonym",
    "--ablation.prompts=2",
    "--ablation.fractions=0.2",
    "--ablation.keep-only=0.2",
    "--ablation.draws=1",
    "--ablation.max-new-tokens=2",
]
TOKEN_LOSS = [
    "--token-loss.documents=2",
    "--token-loss.fill-documents=1",
    "--token-loss.positions",
    "5",
    "15",
    "--token-loss.window=1",
    "--token-loss.draws=1",
]


def jaxheads(capfd, *arguments) -> tuple[int, str, str]:
    """Run in this process: exit code, stdout, stderr."""
    code = 0
    try:
        main([str(argument) for argument in arguments])
    except SystemExit as stop:
        code = int(stop.code or 0)
    return code, *capfd.readouterr()


@pytest.fixture(scope="module")
def finished(model_folder, tmp_path_factory):
    """A whole study by the command line, in a process of its own."""
    out = tmp_path_factory.mktemp("cli") / "run"
    command = [sys.executable, "-m", "jaxheads", "study", str(model_folder)]
    command += [*SMALL, *ABLATION, *TOKEN_LOSS, "--out", str(out)]
    environment = os.environ | {"JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}  # as here
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    return out, done


def test_a_study_writes_a_run_and_a_report_and_prints_tables(finished):
    out, done = finished
    assert sorted(os.listdir(out)) == [
        "arrays.npz", "claims.json", "report.html", "result.json",
    ]  # fmt: skip
    for said in ("top heads", "few-shot accuracy", "loss at token 5 minus at token 15"):
        assert said in done.stdout
    for said in ("plan", "FLOPs", "100%", "report"):
        assert said in done.stderr


def test_the_report_is_made_again_without_a_model(finished, capfd):
    out, _ = finished
    page = (out / "report.html").read_bytes()
    (out / "report.html").unlink()
    code, _, said = jaxheads(capfd, "report", out)
    assert code == 0 and "report.html" in said
    assert (out / "report.html").read_bytes() == page


@pytest.mark.slow
def test_parts_take_a_ranking_and_agree_with_the_study(
    finished, model_folder, capfd, tmp_path
):
    out, _ = finished
    whole = runs.load(out)
    for command, options, array in (
        ("ablate", ABLATION, "ablation/f1"),
        ("token-loss", TOKEN_LOSS, "token_loss/loss"),
    ):
        part = tmp_path / command
        arguments = [command, model_folder, "--shots=3", *options]
        code, said, _ = jaxheads(capfd, *arguments, "--ranking", out, "-o", part)
        assert code == 0 and "top heads" in said
        assert (runs.load(part).arrays[array] == whole.arrays[array]).all()
    code, _, _ = jaxheads(capfd, "score", model_folder, *SMALL, "-o", tmp_path / "s")
    assert code == 0
    scored = runs.load(tmp_path / "s")
    assert set(scored.result["wall_s"]) == {"scores"}
    name = "score/function_vector"
    assert (scored.arrays[name] == whole.arrays[name]).all()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["study", "no/such/folder/x"], "no/such/folder/x"),
        (["study", "/no/such.gguf"], "such.gguf"),
        (["report", "/no/run"], "result.json"),
        (["ablate", "{model}", "--ranking", "/no/run"], "result.json"),
        (["study", "{model}", "--shots", "-1"], "--shots"),
        (["score", "{model}", "--scores.tasks", "antonim"], "antonym"),
        (["score", "{model}", "--tasks", "/no/tasks"], "/no/tasks"),
        (["study", "{model}", "--text", "/no/text.txt"], "/no/text.txt"),
        (["score", "{model}", "--memory-gb", "0"], "--memory-gb"),
        (["score", "{model}", "--shots", "100"], "antonym|context"),
        (
            ["ablate", "{model}", *SMALL, *ABLATION, "--ablation.heads", "9.0"],
            "head 9.0 is out of range",
        ),
    ],
)
def test_a_mistake_is_one_sentence_and_exit_code_2(
    arguments, sentence, model_folder, capfd, tmp_path
):
    arguments = [part.format(model=model_folder) for part in arguments]
    out = [] if arguments[0] == "report" else ["--out", tmp_path / "out"]
    code, said, error = jaxheads(capfd, *arguments, *out)
    assert code == 2
    lines = [line for line in error.splitlines() if line.startswith("jaxheads: ")]
    assert len(lines) == 1 and not said
    assert "Traceback" not in error

    assert re.search(sentence, lines[0])
    assert not (tmp_path / "out").exists()


def test_a_broken_task_file_is_one_sentence(model_folder, capfd, tmp_path):
    tasks = tmp_path / "tasks"
    tasks.mkdir()
    (tasks / "broken.json").write_text('[{"input": "a", "output": "b"},')
    few = [{"input": str(i), "output": "x"} for i in range(3)]
    (tasks / "few.json").write_text(json.dumps(few))
    for task, sentence in (("broken", "broken.json"), ("few", "3 items")):
        arguments = ["score", model_folder, *SMALL, "--tasks", tasks]
        code, _, error = jaxheads(capfd, *arguments, f"--scores.tasks={task}")
        assert code == 2 and sentence in error


def test_a_run_folder_of_another_config_is_refused(finished, model_folder, capfd):
    out, _ = finished
    before = (out / "result.json").read_bytes()
    arguments = ["study", model_folder, *SMALL, *ABLATION, *TOKEN_LOSS]
    code, _, error = jaxheads(capfd, *arguments, "--seed=5", "--out", out)
    assert code == 2
    assert "config.seed: 0 there, 5 asked for" in error and "another --out" in error
    assert (out / "result.json").read_bytes() == before


@pytest.mark.slow
def test_a_full_disk_is_one_sentence(model_folder, capfd, tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device", "arrays.npz")

    # The only way to fill a disk in a test without one to fill.
    monkeypatch.setattr("numpy.savez_compressed", full)
    arguments = ["score", model_folder, *SMALL, "--out", tmp_path / "run"]
    code, _, error = jaxheads(capfd, *arguments)
    assert code == 2 and "disk is full" in error and "goes on" in error
    left = [path.name for path in (tmp_path / "run").rglob("*") if path.is_file()]
    assert left == ["run.json"]
    monkeypatch.undo()
    code, _, _ = jaxheads(capfd, *arguments)
    assert code == 0


def test_an_interrupt_says_how_to_go_on(model_folder, capfd, tmp_path, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("jaxheads.studies.scores.study._task", interrupted)
    code, _, error = jaxheads(
        capfd, "score", model_folder, *SMALL, "--out", tmp_path / "run"
    )
    assert code == 130 and "goes on where it stopped" in error

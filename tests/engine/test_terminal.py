"""What the command line says where there is no terminal, no UTF-8, no platform."""

import io
import os
import re
import subprocess
import sys
import time

import pytest
from rich.console import Console
from test_cli import SMALL, jaxheads

from jaxheads.engine import progress


def in_a_process(*arguments, **environment) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "jaxheads", *map(os.fspath, arguments)],
        capture_output=True,
        env=os.environ | environment,
    )


@pytest.mark.slow
@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "utf-8"])
@pytest.mark.parametrize("command", ["--help", "tasks", "protocols", "models"])
def test_every_encoding_is_written(command, encoding):
    done = in_a_process(command, PYTHONIOENCODING=encoding)
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.decode(encoding)


@pytest.mark.slow
def test_a_study_ends_well_in_ascii_and_in_a_folder_with_brackets(
    model_folder, tmp_path
):
    out = tmp_path / "run[draft]"
    done = in_a_process(
        "score", model_folder, *SMALL, "-o", out, PYTHONIOENCODING="ascii"
    )
    assert done.returncode == 0, done.stderr
    assert b"+-" in done.stdout and (out / "report.html").is_file()
    assert f"run     {out}".encode() in done.stderr


def test_the_version_is_that_of_the_package():
    done = in_a_process("--version")
    assert re.fullmatch(rb"jaxheads \d+\.\d+\.\d+\n", done.stdout)


@pytest.mark.skipif(os.name != "posix", reason="the words are a shell's")
@pytest.mark.parametrize(
    ("words", "code"),
    [
        ("models >&-", 0),  # closed before the start
        ("--version >/dev/full", 2),
        ("--version | exec <&-", 1),  # nobody reads on
        ("models | exec <&-", 0),  # nor is anything lost: a page may follow
    ],
)
def test_output_that_nobody_can_read_is_no_traceback(words, code):
    command, _, end = words.partition(" ")
    script = f"{{ {sys.executable} -m jaxheads {command}; echo $? >&2; }} {end}"
    said = subprocess.run(script, shell=True, capture_output=True).stderr.decode()
    assert said.endswith(f"{code}\n") and said.count("\n") == 1 + (code == 2), said


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["score", "{model}", "-o", "gs://bucket/run"], "gs:/bucket/run is an address"),
        (["train", "-o", "s3://bucket/run"], "s3:/bucket/run is an address"),
        (["report", "gs://bucket/run"], "is an address"),
        (["score", "{model}", "--tasks", "https://host/tasks"], "is an address"),
        (["score", "{model}", "-o", b"a\xff"], r"UTF-8, but 'a\udcff'"),
    ],
)
def test_a_path_that_no_run_can_have_is_told_first(
    arguments, sentence, model_folder, tmp_path, monkeypatch, capfd
):
    monkeypatch.chdir(tmp_path)
    arguments = [
        os.fsdecode(word)
        if isinstance(word, bytes)
        else word.format(model=model_folder)
        for word in arguments
    ]
    code, said, error = jaxheads(capfd, *arguments)
    assert (code, said) == (2, "") and sentence in error
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("command", ["score", "convert", "train"])
def test_a_platform_that_is_not_there_is_one_sentence(command, model_folder, tmp_path):
    source = [] if command == "train" else [model_folder]
    out = [tmp_path / "out"] if command == "convert" else ["-o", tmp_path / "out"]
    done = in_a_process(command, *source, *out, JAX_PLATFORMS="cuda")
    assert done.returncode == 2 and b"Traceback" not in done.stderr
    assert b"start on the platform cuda, but cannot" in done.stderr


def test_without_a_terminal_lines_tell_how_far_it_is(monkeypatch, caplog):
    monkeypatch.setattr(progress, "EVERY", 0.02)
    caplog.set_level("INFO", logger="jaxheads")
    console = Console(file=io.StringIO())
    with progress.bars(console, 10) as bars:
        waiting = bars.add_task("later", total=60, start=False)
        task = bars.add_task("[run]", total=40)
        time.sleep(0.1)
        assert "0 % done, time left not known yet: [run]" in caplog.text
        bars.advance(task, 30)
        time.sleep(0.1)
        assert re.search(r"30 % done, about \d+ s left: \[run\]", caplog.text)
        assert "later" not in caplog.text
        bars.update(waiting, visible=False)
    told = len(caplog.records)
    time.sleep(0.1)
    assert len(caplog.records) == told


def test_on_a_terminal_bars_are_enough(monkeypatch, caplog):
    monkeypatch.setattr(progress, "EVERY", 0.02)
    caplog.set_level("INFO", logger="jaxheads")
    console = Console(file=io.StringIO(), force_terminal=True)
    with progress.bars(console, 10) as bars:
        bars.add_task("run", total=40)
        time.sleep(0.1)
    assert not caplog.records


@pytest.mark.slow
def test_quiet_says_the_result_alone_and_verbose_every_unit(
    model_folder, tmp_path, capfd
):
    arguments = ["score", model_folder, *SMALL]
    code, said, error = jaxheads(capfd, *arguments, "--quiet", "-o", tmp_path / "q")
    assert (code, error) == (0, "") and "top heads" in said
    code, _, error = jaxheads(capfd, *arguments, "--verbose", "-o", tmp_path / "v")
    assert code == 0 and re.search(r"\d\d:\d\d:\d\d \S+: \d+\.\d\d s", error)
    assert "loading" in error

"""Stops: taken at a safe place, a second one at once; one process a folder."""

import os
import re
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from synthetic_run import write_run
from test_cli import SMALL, jaxheads

from jaxheads import runs, stops
from jaxheads.errors import UserError
from jaxheads.runs.locks import LOCK, alone
from jaxheads.runs.unfinished import whole_folder

pytestmark = pytest.mark.usefixtures("quick_compilation")

PROCESS = """
import sys, time
import jaxheads.cli.run
from jaxheads import stops
from jaxheads.__main__ import main

def asks():
    for _ in range(600):
        time.sleep(0.05)
        stops.check()

def run(arguments):
    print("there", flush=True)
    try:
        {work}
    finally:
        print("left", flush=True)

jaxheads.cli.run.run = run
main()
print("went on", flush=True)
"""


def run_process(work: str, *signals: int) -> tuple[int, float, str, str]:
    """Exit code, seconds after the last signal, what was printed and what was said."""
    command, pipe = [sys.executable, "-c", PROCESS.format(work=work)], subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True) as process:
        assert process.stdout is not None and process.stderr is not None
        assert process.stdout.readline() == "there\n"
        start = 0.0
        for number in signals:
            process.send_signal(number)
            start = time.monotonic()
            time.sleep(0.3)
        printed, said = process.stdout.read(), process.stderr.read()
        process.wait()
    return process.returncode, time.monotonic() - start, printed, said


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)]
)
@pytest.mark.parametrize(
    "work",
    [
        "asks()",
        "stops.patiently(lambda: time.sleep(60))",  # a slow download
    ],
)
def test_a_signal_is_one_line_and_its_code(work, number, code):
    found, seconds, printed, said = run_process(work, number)
    assert found == code and seconds < 20
    assert printed == "left\n"  # what was open has been closed
    assert said == f"jaxheads: interrupted: {stops.GOES_ON}\n"


def test_ctrl_c_before_anything_is_imported_is_no_traceback():
    work = """
import os, signal, sys
from jaxheads.__main__ import main
class Stop:
    find_spec = lambda *_: os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Stop)
main()
"""
    ended = subprocess.run([sys.executable, "-c", work], capture_output=True)
    assert (ended.returncode, ended.stderr) == (130, b"")


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="the system has none")
def test_the_end_of_the_terminal_is_a_stop_unless_it_is_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)  # nohup may run the tests
    try:
        found, _, printed, said = run_process("asks()", signal.SIGHUP, signal.SIGHUP)
        assert found == 129 and printed == "left\n" and "interrupted" in said
        signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup hands it on
        found, _, _, _ = run_process("time.sleep(0.4)", signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)
    assert found == 0


def test_a_signal_in_the_last_moment_counts():
    work = "stops.os.kill(stops.os.getpid(), stops.signal.SIGTERM)"
    found, _, printed, said = run_process(work)
    assert found == 143 and printed == "left\n" and "interrupted" in said


@pytest.mark.slow
@pytest.mark.parametrize("command", ["convert", "train"])
def test_weights_that_the_disk_does_not_take_are_one_sentence(
    command, model_folder, tmp_path
):
    pytest.importorskip("resource")  # of POSIX
    out = str(tmp_path / "out")
    tiny = ["--layers=1", "--width=16", "--heads=2", "--steps=2", "--no-evidence"]
    words = {"convert": [str(model_folder), out], "train": [*tiny, "--out", out]}
    work = (
        "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (8192, 8192)); "
        "from jaxheads.__main__ import main; main()"
    )
    command = [sys.executable, "-Bc", work, command, *words[command]]
    ended = subprocess.run(command, capture_output=True, text=True)
    assert ended.returncode == 2 and "Traceback" not in ended.stderr
    assert "free some" in ended.stderr.splitlines()[-1]


@pytest.mark.parametrize("last", [signal.SIGINT, signal.SIGTERM])
def test_a_second_signal_ends_at_once(last):
    found, seconds, printed, _ = run_process("time.sleep(50)", signal.SIGINT, last)
    assert found == 128 + last and seconds < 20 and printed == ""


def test_a_stop_that_waits_says_so():
    found, _, _, said = run_process("time.sleep(4)", signal.SIGTERM)
    assert found == 143
    assert said.startswith("jaxheads: stopping at the next safe place")
    assert said.count("\n") == 2


def test_a_mistake_that_a_stop_made_is_a_stop():
    work = (
        "stops.os.kill(stops.os.getpid(), stops.signal.SIGINT); "
        "raise jaxheads.errors.UserError('pip was interrupted')"
    )
    found, _, _, said = run_process(work)
    assert found == 130 and "pip" not in said


def test_only_the_main_thread_of_who_listens_stops():
    stops.check()  # nobody listens
    with stops.listening():
        stops.stop_after(1e-12)
        assert stops.code() == 130
        with pytest.raises(stops.Stopped, match="goes on where it stopped"):
            stops.check()
        with ThreadPoolExecutor(1) as pool:  # writes on beside the main thread
            pool.submit(stops.check).result()
    stops.check()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.slow
def test_stop_after_some_hours(model_folder, capfd, tmp_path):
    arguments = ["score", model_folder, *SMALL, "--out", tmp_path / "run"]
    code, _, error = jaxheads(capfd, *arguments, "--stop-after=1e-6")
    assert code == 130 and "goes on where it stopped" in error
    for hours in ("0", "-1", "nan", "inf"):
        code, _, error = jaxheads(capfd, *arguments, f"--stop-after={hours}")
        assert code == 2 and "--stop-after must be hours above 0" in error
    code, _, _ = jaxheads(capfd, *arguments, "--stop-after=100")
    assert code == 0


def test_a_second_process_is_told_who_is_at_work(model_folder, capfd, tmp_path):
    arguments = ["score", model_folder, *SMALL, "--out", tmp_path / "run"]
    (tmp_path / "run").mkdir()
    with alone(tmp_path / "run", "--out"):
        code, _, error = jaxheads(capfd, *arguments)
    assert code == 2
    assert f"another is at work in it (process {os.getpid()} on " in error
    assert len(re.findall("^jaxheads: ", error, re.M)) == 1


@pytest.mark.slow
def test_convert_and_report_tell_who_is_at_work(model_folder, capfd, tmp_path):
    with whole_folder(tmp_path / "store"):
        code, _, error = jaxheads(capfd, "convert", model_folder, tmp_path / "store")
    assert code == 2 and f"{tmp_path / 'store'} must be written by one" in error
    run = write_run(tmp_path / "run")
    for folder, name, *out in (
        (run.path, LOCK),
        (tmp_path / "pages", ".a.html.lock", "--out", tmp_path / "pages" / "a.html"),
    ):
        folder.mkdir(exist_ok=True)
        with alone(folder, "--out", name):
            code, _, error = jaxheads(capfd, "report", run.path, *out)
        assert code == 2 and f"{folder} must be written by one process" in error
        assert len(re.findall("^jaxheads: ", error, re.M)) == 1
        assert not (folder / name).exists()
    code, _, _ = jaxheads(capfd, "report", run.path, "--out", tmp_path / "pages/a.html")
    assert code == 0 and [one.name for one in (tmp_path / "pages").glob("*.html")]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("imported", ["jaxheads.stops", "jaxheads.errors"])
def test_a_signal_while_the_command_is_imported_is_silent(number, imported):
    code = f"""
import os, sys
class Finder:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name == {imported!r}:
            os.kill(os.getpid(), {int(number)})
sys.meta_path.insert(0, Finder)
sys.argv = ["jaxheads", "models"]
from jaxheads.__main__ import main
main()
"""
    made = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert made.returncode == 128 + number
    assert not made.stdout and not made.stderr


def test_a_lock_of_a_dead_process_keeps_nobody_out(tmp_path):
    (tmp_path / LOCK).write_text("999999 elsewhere")
    with (
        alone(tmp_path, "--out"),
        pytest.raises(UserError, match="one process"),
        runs.RunFolder(tmp_path, "study", {}, {}),
    ):
        pytest.fail("two have the lock")
    assert not (tmp_path / LOCK).exists()

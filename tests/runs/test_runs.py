"""Run folders: units, resuming, receipts, and refusing what is not theirs."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

from jaxheads import runs
from jaxheads.errors import UserError

CONFIG = {"seed": 0, "fractions": [0.1, 0.2], "ablation": {"prompts": 3}}
MODEL = {"params_sha256": "abc"}
FINISHED = ("arrays.npz", "result.json")


def open_run(path, **changes):
    return runs.RunFolder(path, "study", CONFIG | changes, MODEL)


def finish(folder, **arrays):
    return folder.finish({"wall_s": {"scores": 1.5}}, arrays)


def test_a_unit_is_computed_once(tmp_path):
    calls = []

    def compute():
        calls.append(1)
        return {"x": np.arange(3)}

    for _ in range(2):  # the second folder is another try of the same command
        unit = open_run(tmp_path / "run").unit("a/b c", compute)
        np.testing.assert_array_equal(unit["x"], np.arange(3))
        assert unit["seconds"] >= 0
    assert len(calls) == 1
    assert open_run(tmp_path / "run").has("a/b c")


def test_a_unit_that_fails_leaves_nothing(tmp_path):
    folder = open_run(tmp_path / "run")

    def fail():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        folder.unit("a", fail)
    assert not folder.has("a")
    assert not list((tmp_path / "run" / "units").iterdir())


def test_a_unit_of_another_name_run_or_content_is_made_again(tmp_path):
    run = open_run(tmp_path / "run")
    path = run.path / "units" / "a.npz"
    other = open_run(tmp_path / "other", seed=9)
    for one in (run, other):
        one.unit("b", lambda: {"x": np.ones(2)})
    for source in (run.path / "units" / "b.npz", other.path / "units" / "b.npz"):
        path.write_bytes(source.read_bytes())
        assert run.stored("a") is None and not path.exists()
    runs.write_arrays(path, {"x": np.ones(2)})
    assert run.stored("a") is None and not path.exists()


def test_a_folder_in_the_place_of_a_unit_is_a_sentence(tmp_path):
    run = open_run(tmp_path / "run")
    (run.path / "units" / "a.npz").mkdir()
    with pytest.raises(UserError, match=r"a\.npz must be a file, but is a folder"):
        run.unit("a", lambda: {"x": np.ones(2)})


def test_a_damaged_unit_is_made_again(tmp_path):
    folder = open_run(tmp_path / "run")
    folder.unit("a", lambda: {"x": np.ones(2)})
    (tmp_path / "run" / "units" / "a.npz").write_bytes(b"PK half")
    np.testing.assert_array_equal(
        folder.unit("a", lambda: {"x": np.zeros(2)})["x"], np.zeros(2)
    )


def test_a_finished_run_round_trips(tmp_path):
    folder = open_run(tmp_path / "run")
    folder.unit("a", lambda: {"x": np.ones(2)})
    arrays = {"score/x": np.linspace(0, 1, 6).reshape(2, 3), "mask": np.eye(2) > 0}
    finish(folder, **arrays)
    run = runs.load(tmp_path / "run")
    assert sorted(os.listdir(run.path)) == ["arrays.npz", "result.json"]
    assert run.result["config"] == CONFIG and run.result["schema"] == 1
    for name, array in arrays.items():
        np.testing.assert_array_equal(run.arrays[name], array)
        assert run.arrays[name].dtype == array.dtype
    assert open_run(tmp_path / "run").finished


def test_the_same_arrays_are_the_same_bytes(tmp_path):
    for name in ("a.npz", "b.npz"):
        runs.write_arrays(tmp_path / name, {"y": np.ones(3), "x": np.arange(2)})
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()


@pytest.mark.parametrize("finished", [False, True])
def test_a_folder_of_another_config_is_refused_and_kept(tmp_path, finished):
    folder = open_run(tmp_path / "run")
    if finished:
        finish(folder, x=np.ones(1))
    before = {path: path.read_bytes() for path in folder.path.rglob("*.json")}
    message = r"config.ablation.prompts: 3 there, 4 asked for.*another --out"
    with pytest.raises(UserError, match=message):
        open_run(tmp_path / "run", ablation={"prompts": 4})
    assert {path: path.read_bytes() for path in folder.path.rglob("*.json")} == before


def test_a_folder_with_other_things_is_refused(tmp_path):
    (tmp_path / "thesis.txt").write_text("precious")
    with pytest.raises(UserError, match="other files"):
        open_run(tmp_path)
    with pytest.raises(UserError, match="is a file"):
        open_run(tmp_path / "thesis.txt")
    assert os.listdir(tmp_path) == ["thesis.txt"]


def damage(path, name, content):
    (path / name).write_bytes(content)


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (lambda path: (path / "arrays.npz").unlink(), "damaged"),
        (lambda path: damage(path, "arrays.npz", b"PK"), "damaged"),
        (lambda path: damage(path, "result.json", b"[]"), "another schema"),
        (lambda path: damage(path, "result.json", b"{"), "damaged"),
        (lambda path: damage(path, "result.json", b'{"schema": 99}'), "another schema"),
        (lambda path: (path / "result.json").unlink(), "should be a run's folder"),
    ],
)
def test_a_spoilt_run_is_one_sentence(tmp_path, spoil, sentence):
    run = finish(open_run(tmp_path / "run"), x=np.ones(1))
    spoil(run.path)
    with pytest.raises(UserError, match=sentence):
        runs.load(run.path)


def test_arrays_of_another_run_are_refused(tmp_path):
    one = finish(open_run(tmp_path / "one"), x=np.ones(1))
    other = finish(open_run(tmp_path / "two", seed=1), x=np.zeros(1))
    (one.path / "arrays.npz").write_bytes((other.path / "arrays.npz").read_bytes())
    with pytest.raises(UserError, match=r"arrays.npz is not this run's"):
        runs.load(one.path)
    told = json.loads((other.path / "result.json").read_text())
    told["wall_s"]["scores"] = 2.5
    runs.write_json(other.path / "result.json", told)
    with pytest.raises(UserError, match=r"result.json is not what was written"):
        runs.load(other.path)
    del told["sha256"]
    runs.write_json(other.path / "result.json", told)
    with pytest.raises(UserError, match="damaged"):
        runs.load(other.path)


def test_any_damage_to_a_unit_is_made_again_and_to_a_run_a_sentence(tmp_path):
    arrays = {"x": np.arange(40.0).reshape(5, 8), "y": np.arange(3) > 1}
    folder = open_run(tmp_path / "run")
    folder.unit("a", lambda: arrays)
    path = folder.path / "units" / "a.npz"
    whole, rng = path.read_bytes(), np.random.default_rng(0)
    done = finish(open_run(tmp_path / "done"), **arrays).path
    finished = {name: (done / name).read_bytes() for name in FINISHED}
    for n in range(400):
        spoilt = bytearray(whole)
        spoilt[rng.integers(len(spoilt))] ^= 1 << rng.integers(8)
        path.write_bytes(spoilt if n % 4 else whole[: rng.integers(len(whole))])
        found = folder.unit("a", lambda: arrays)  # read with no error, or made again
        for name, values in arrays.items():
            np.testing.assert_array_equal(found[name], values)
        name = FINISHED[n % 2]
        spoilt = bytearray(finished[name])
        spoilt[rng.integers(len(spoilt))] ^= 1 << rng.integers(8)
        (done / name).write_bytes(spoilt)
        with pytest.raises(UserError):
            runs.load(done)
        (done / name).write_bytes(finished[name])
    runs.load(done)


@pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="takes two users")
def test_what_may_not_be_read_is_said_as_such(tmp_path):
    """Another user's file is neither damaged nor to be deleted."""
    path = finish(open_run(tmp_path / "run"), x=np.ones(1)).path
    for parent in (*list(tmp_path.parents)[:3], tmp_path, path):
        if parent != tmp_path.parents[-1]:
            os.chmod(parent, 0o755)
    os.chmod(path / "arrays.npz", 0o600)
    code = (
        "import os, sys; from jaxheads import runs; from jaxheads.errors import *\n"
        "os.setuid(65534)\n"
        f"try: runs.load({str(path)!r})\nexcept UserError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "must be readable" in done.stdout and "Permission denied" in done.stdout
    assert "delete" not in done.stdout


def test_a_start_that_broke_off_is_gone_on_with(tmp_path):
    (tmp_path / "units").mkdir()
    (tmp_path / ".run.json.999999.partial").write_text("{")
    (tmp_path / ".lock").touch()
    open_run(tmp_path)
    assert sorted(os.listdir(tmp_path)) == [".lock", "run.json", "units"]
    (tmp_path / "run.json").unlink()
    (tmp_path / "units" / "mine.txt").touch()
    with pytest.raises(UserError, match="other files"):
        open_run(tmp_path)


def test_a_finished_folder_is_tidied_when_it_is_opened(tmp_path):
    path = finish(open_run(tmp_path / "run"), x=np.ones(1)).path
    living = f".report.html.{os.getpid()}.partial"
    for how in (runs.load, lambda path: open_run(path).__enter__()):
        (path / "units").mkdir()
        (path / "units" / "a.npz").touch()
        for name in ("run.json", ".arrays.npz.999999.partial", ".lock", living):
            (path / name).touch()
        how(path)
        assert sorted(os.listdir(path)) == sorted([*FINISHED, living])


def test_an_unfinished_run_says_how_to_go_on(tmp_path):
    open_run(tmp_path / "run")
    with pytest.raises(UserError, match="give its command again"):
        runs.load(tmp_path / "run")


def test_nothing_half_written_when_the_disk_is_full(tmp_path):
    path = tmp_path / "result.json"
    runs.write_json(path, {"old": True})
    with pytest.raises(ValueError, match="JSON"):
        runs.write_json(path, {"new": float("nan")})  # refused while writing
    assert json.loads(path.read_text()) == {"old": True}
    assert os.listdir(tmp_path) == ["result.json"]


def test_loading_needs_numpy_only(tmp_path):
    finish(open_run(tmp_path / "run"), x=np.ones(1))
    code = (
        "import sys; from jaxheads import runs; "
        f"runs.load({str(tmp_path / 'run')!r}); assert 'jax' not in sys.modules"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_a_run_that_pages_can_no_longer_read_is_one_sentence(tmp_path):
    with runs.RunFolder(tmp_path / "run", "dynamics", CONFIG, MODEL) as folder:
        folder.finish({}, {})
    path = tmp_path / "run" / "result.json"
    told = json.loads(path.read_text())
    assert told["schema"] == 2
    path.write_text(json.dumps(told | {"schema": 1}))
    with pytest.raises(UserError, match=r"another schema than 2.*with a new --out"):
        runs.load(tmp_path / "run")

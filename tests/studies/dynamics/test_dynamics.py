"""Checkpoints scored one after the other: numbers, receipts, resuming, the hub."""

import dataclasses
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from families import random_params
from hub_server import HubServer, Repository, commit_of
from model_folder import write_folder

from jaxheads import runs
from jaxheads.__main__ import main
from jaxheads.errors import UserError
from jaxheads.models import llama
from jaxheads.scores import function_vector
from jaxheads.scores.config import ScoresConfig
from jaxheads.studies.ablation.config import AblationConfig
from jaxheads.studies.config import StudyConfig
from jaxheads.studies.dynamics import run as dynamics
from jaxheads.studies.dynamics.run import run_dynamics, tokens_sha256
from jaxheads.studies.dynamics.series import open_series
from jaxheads.studies.run import run_study
from jaxheads.weights.model import load

pytestmark = pytest.mark.slow  # it compiles several whole studies

SMALL = StudyConfig(
    scores=ScoresConfig(
        tasks=("antonym", "capitalize"),
        clean_prompts=3,
        corrupted_prompts=3,
        sequences=4,
        sequence_length=8,
        documents=2,
        document_length=12,
    ),
    ablation=AblationConfig(
        tasks=("synonym",),
        prompts=3,
        fractions=(),
        keep_only=(),
        draws=0,
        matched_to=(),
        max_new_tokens=2,
    ),
    shots=2,
)
CONFIG = llama.Config(3, 22, 6, 2, 10, 34, 600, 512, tied=True)
STEPS = {0: 11, 8: 12, 64: 13, 512: 12, 1000: 14}
"""Steps, and the seeds of their weights: 8 and 512 are the same."""


def write_checkpoint(folder: Path, seed: int, tokenizer: Path) -> Path:
    folder.mkdir(parents=True)
    write_folder(folder, CONFIG, random_params(CONFIG, seed))
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(tokenizer / name, folder / name)
    return folder


@pytest.fixture(scope="module")
def series(model_folder, tmp_path_factory) -> Path:
    """Checkpoints by name of all kinds, among folders that are none."""
    root = tmp_path_factory.mktemp("training")
    for step, name in zip(
        STEPS,
        ("step0", "checkpoint-8", "checkpoints/step_00000064", "step512", "1000"),
        strict=True,
    ):
        write_checkpoint(root / name, STEPS[step], model_folder)
    (root / "logs-7").mkdir()
    (root / "config.json").write_text("{}")
    return root


@pytest.fixture(scope="module")
def compilations() -> list[tuple[int, int]]:
    """After each step of ``run``: programs compiled so far, and the cache of one."""
    return []


@pytest.fixture(scope="module")
def run(series, tmp_path_factory, quick_compilation, compilations) -> runs.Run:
    compiled = []
    effects: Any = function_vector.effects

    def listen(event: str, *_, **__) -> None:
        if event == "/jax/core/compile/backend_compile_duration":
            compiled.append(event)

    def done(*_) -> None:
        compilations.append((len(compiled), effects._cache_size()))

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        return run_dynamics(
            series,
            SMALL,
            tmp_path_factory.mktemp("runs") / "dynamics",
            progress=dynamics.StepProgress(done=done),
        )
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)


def arrays_of(run: runs.Run) -> dict[str, bytes]:
    return {name: array.tobytes() for name, array in run.arrays.items()}


def test_every_step_holds_what_a_study_of_it_gives(run, series, tmp_path):
    assert run.arrays["dynamics/step"].tolist() == list(STEPS)
    told = run.result["dynamics"]["steps"]
    assert [step["step"] for step in told] == list(STEPS)
    alone = run_study(
        load(series / "checkpoints" / "step_00000064"),
        SMALL,
        tmp_path / "alone",
        parts=("scores", "ablation"),
    )
    step = runs.load(run.path / told[2]["folder"])
    for name, array in alone.arrays.items():
        np.testing.assert_allclose(step.arrays[name], array, atol=2e-5, err_msg=name)
        if name.startswith("score/"):
            np.testing.assert_array_equal(
                run.arrays[f"dynamics/{name}"][2], step.arrays[name]
            )
    assert run.arrays["dynamics/f1"].shape == (5, 1, 3)
    np.testing.assert_array_equal(
        run.arrays["dynamics/first_token"][2], step.arrays["ablation/first_token"][0]
    )


def test_the_receipt_names_every_checkpoint(run, series):
    result = run.result
    assert result["study"] == "dynamics" and result["versions"]["jaxheads"]
    assert result["config"]["scores"]["tasks"] == ["antonym", "capitalize"]
    for told in result["dynamics"]["steps"]:
        weights = load(told["source"]).provenance.params_sha256
        assert told["params_sha256"] == weights and told["seconds"] > 0
    sizes = {"U": 5, "L": 3, "H": 6, "A": 2, "E": 1, "B": 3, "W": 3}
    for name, array in run.arrays.items():
        dims = result["arrays"][name]["dims"]
        assert list(array.shape) == [sizes[letter] for letter in dims]


def test_all_steps_are_given_the_same_tokens(run):
    seen = set()
    for told in run.result["dynamics"]["steps"]:
        arrays = runs.load(run.path / told["folder"]).arrays
        assert tokens_sha256(arrays) == told["tokens_sha256"]
        prompts = {k: v.tobytes() for k, v in arrays.items() if k.startswith("prompts")}
        seen.add(tuple(sorted(prompts.items())))
    assert len(seen) == 1 and len(next(iter(seen))) > 5


def test_equal_weights_and_what_is_no_model_are_flagged(run):
    flags = {flag["kind"]: flag for flag in run.result["dynamics"]["flags"]}
    assert flags["identical"]["text"] == "step 8 and step 512 hold the same weights"
    assert flags["identical"]["steps"] == [8, 512]
    assert "logs-7" in flags["no model"]["text"]
    assert set(flags) == {"identical", "no model"}


def test_one_compilation_serves_all_steps(run, compilations):
    assert len(compilations) == 5
    compiled, cached = compilations[0]
    assert compiled > 5 and cached > 0
    assert compilations == [(compiled, cached)] * 5


def test_a_finished_run_is_read_and_takes_more_steps(run, series, tmp_path):
    ran = []
    progress = dynamics.StepProgress(done=lambda step, seconds: ran.append(step))
    out = tmp_path / "run"
    first = run_dynamics(series, SMALL, out, steps=(8, 1000), progress=progress)
    before = os.stat(out / "result.json").st_mtime_ns
    again = run_dynamics(series, SMALL, out, steps=(1000,), progress=progress)
    assert arrays_of(again) == arrays_of(first) and ran == [8, 1000]
    assert os.stat(out / "result.json").st_mtime_ns == before
    whole = run_dynamics(series, SMALL, out, progress=progress)
    assert ran == [8, 1000, 0, 64, 512]
    assert (out / "arrays.npz").read_bytes() == (run.path / "arrays.npz").read_bytes()
    assert whole.result["fingerprint"] == run.result["fingerprint"]


CHILD = """
import sys
from jaxheads.studies.dynamics.run import run_dynamics
from test_dynamics import SMALL
run_dynamics(sys.argv[1], SMALL, sys.argv[2])
"""


def test_killed_at_any_moment_it_ends_with_the_same_bytes(run, series, tmp_path):
    out = tmp_path / "killed"
    command = [sys.executable, "-c", CHILD, str(series), str(out)]
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([os.getcwd(), *sys.path]),
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "true",
        # Each try compiles what the first one did.
        "JAX_COMPILATION_CACHE_DIR": str(tmp_path / "compiled"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "0",
    }
    for pattern, number in (("step0/units/*", 2), ("*/checkpoint.json", 3)):
        process = subprocess.Popen(command, env=environment)
        while process.poll() is None:
            if len(list((out / "steps").glob(pattern))) >= number:
                process.send_signal(signal.SIGKILL)
                break
            time.sleep(0.01)
        process.wait()
        with pytest.raises(UserError, match="has not finished"):
            runs.load(out)
    subprocess.run(command, env=environment, check=True)
    assert (out / "arrays.npz").read_bytes() == (run.path / "arrays.npz").read_bytes()
    again = runs.load(out)
    assert again.result["dynamics"]["flags"] == run.result["dynamics"]["flags"]
    assert again.result["dynamics"]["emergence"] == run.result["dynamics"]["emergence"]


def test_steps_that_do_not_exist_are_named(run, series, tmp_path):
    with pytest.raises(UserError, match=r"step 7, 9: it has 0, 8, 64, 512, 1000"):
        run_dynamics(series, SMALL, tmp_path / "x", steps=(7, 8, 9))
    assert not (tmp_path / "x").exists()
    out = tmp_path / "skipped"
    shutil.copytree(run.path, out)
    # Without the absolute path of another folder nothing is run again.
    skipped = run_dynamics(series, SMALL, out, steps=(8, 9), missing="skip")
    assert skipped.result["dynamics"]["missing"] == [9]
    texts = [flag["text"] for flag in skipped.result["dynamics"]["flags"]]
    assert "there is no checkpoint of step 9: left out" in texts
    assert arrays_of(skipped) == arrays_of(run)
    with pytest.raises(UserError, match="step 9"):
        run_dynamics(series, SMALL, out, steps=(9,), missing="skip")


def test_weights_that_changed_since_are_refused(run, model_folder, series, tmp_path):
    copy, out = tmp_path / "training", tmp_path / "run"
    shutil.copytree(series, copy)
    first = run_dynamics(copy, SMALL, out, steps=(8, 64))
    # Written again with the same content: read, and found to be the same.
    shutil.rmtree(copy / "checkpoint-8")
    write_checkpoint(copy / "checkpoint-8", STEPS[8], model_folder)
    again = run_dynamics(copy, SMALL, out, steps=(8, 64))
    assert arrays_of(again) == arrays_of(first)
    shutil.rmtree(copy / "checkpoint-8")
    write_checkpoint(copy / "checkpoint-8", 99, model_folder)
    with pytest.raises(UserError, match=r"step 8 must hold the weights.*delete"):
        run_dynamics(copy, SMALL, out, steps=(8, 64))


def test_another_tokenizer_or_size_is_refused(model_folder, tmp_path):
    root = tmp_path / "training"
    write_checkpoint(root / "step1", 1, model_folder)
    write_checkpoint(root / "step2", 2, model_folder)
    settings = root / "step2" / "tokenizer.json"
    told = json.loads(settings.read_text())
    vocab = told["model"]["vocab"]
    vocab["a"], vocab["b"] = vocab["b"], vocab["a"]
    settings.write_text(json.dumps(told))
    with pytest.raises(UserError, match="step 2 reads the prompts otherwise"):
        run_dynamics(root, SMALL, tmp_path / "out")
    write_checkpoint(root / "step3", 2, model_folder)
    other = dataclasses.replace(CONFIG, mlp_width=38, num_layers=2)
    write_folder(root / "step3", other, random_params(other))
    with pytest.raises(UserError, match="step 3 has num layers 2 and step 1 3"):
        run_dynamics(root, SMALL, tmp_path / "out", steps=(1, 3))


@pytest.mark.parametrize(
    ("names", "sentence"),
    [
        (("step8", "step_0008"), "both of step 8"),
        ((), "sub-folder with a model for each step"),
        (("step8.unfinished-31", ".step9"), "sub-folder with a model"),
    ],
)
def test_folders_that_are_no_series_are_one_sentence(names, sentence, tmp_path):
    for name in names:
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text("{}")
    with pytest.raises(UserError, match=sentence):
        open_series(tmp_path)


@pytest.mark.parametrize(
    ("source", "pattern", "sentence"),
    [
        ("smollm2-135m-instruct", "step{step}", "jaxheads study"),
        ("no/such/folder", "step{step}", "neither"),
        ("EleutherAI/pythia-70m-deduped", "step", "where the step stands"),
        ("EleutherAI/pythia-70m-deduped", "step{x}", "where the step stands"),
    ],
)
def test_sources_without_checkpoints_are_one_sentence(source, pattern, sentence):
    with pytest.raises(UserError, match=sentence):
        open_series(source, pattern)


def test_a_preset_knows_its_checkpoints_without_the_hub():
    series = open_series("pythia-70m-deduped")
    chosen, _ = series.choose(())
    assert [one.step for one in chosen] == [
        1,
        64,
        256,
        1000,
        4000,
        16000,
        64000,
        143000,
    ]
    assert chosen[3].revision == "step1000"
    with pytest.raises(UserError, match=r"step 1500: it has 0, 1, 2.*154 in all"):
        series.choose((1000, 1500))


def test_tasks_that_do_not_exist_are_told_before_anything_is_loaded(series, tmp_path):
    wrong = dataclasses.replace(SMALL, scores=ScoresConfig(tasks=("antonim",)))
    with pytest.raises(UserError, match="antonym"):
        run_dynamics(series, wrong, tmp_path / "out")
    assert not (tmp_path / "out").exists()


OPTIONS = [
    "--shots=2",
    *("--scores.tasks", "antonym", "capitalize"),
    "--scores.clean-prompts=3",
    "--scores.corrupted-prompts=3",
    "--scores.sequences=4",
    "--scores.sequence-length=8",
    "--scores.documents=2",
    "--scores.document-length=12",
    "--ablation.tasks=synonym",
    "--ablation.prompts=3",
    "--ablation.max-new-tokens=2",
]


def test_the_command_goes_on_after_an_interrupt_and_tells_what_it_found(
    run, series, tmp_path, capfd, monkeypatch
):
    pytest.importorskip("vl_convert")
    out = tmp_path / "run"
    command = ["dynamics", str(series), *OPTIONS, "--out", str(out)]
    load_step = dynamics.load

    def interrupted(source, *arguments):
        if "step512" in str(source):
            raise KeyboardInterrupt
        return load_step(source, *arguments)

    monkeypatch.setattr("jaxheads.studies.dynamics.run.load", interrupted)
    with pytest.raises(SystemExit) as stop:
        main(command)
    assert stop.value.code == 130
    assert "goes on where it stopped" in capfd.readouterr().err
    monkeypatch.undo()
    main(command)
    said, told = capfd.readouterr()
    assert "mean scores of their top 2 %" in said and "Step 8 and step 512" in said
    assert "3 steps there already" in told and "2 steps of" in told
    made = runs.load(out)
    assert made.result["config"]["ablation"] == run.result["config"]["ablation"]
    assert arrays_of(made) == arrays_of(run)
    page = out / "report.html"
    assert "When the scores emerge" in page.read_text(encoding="utf-8")
    main(["report", str(out / "steps" / "step64")])
    assert (out / "steps" / "step64" / "report.html").is_file()


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--revision=step8"], "--steps and --revision-pattern instead of"),
        (["--steps=7"], "no checkpoint of step 7: it has 0, 8, 64, 512, 1000"),
        (["--steps=-7"], "0 or more"),
        (["--scores.tasks=antonim"], "antonym"),
    ],
)
def test_a_mistake_is_one_sentence_and_exit_code_2(
    options, sentence, series, tmp_path, capfd
):
    with pytest.raises(SystemExit) as stop:
        main(["dynamics", str(series), *options, "--out", str(tmp_path / "out")])
    said = capfd.readouterr().err.splitlines()
    assert stop.value.code == 2 and re.search(sentence, said[-1])
    assert len([line for line in said if line.startswith("jaxheads: ")]) == 1
    assert not (tmp_path / "out").exists()


HUB_CHILD = """
import gc, json, sys
import jax
from jaxheads.studies.dynamics import series as checkpoint_series
from jaxheads.studies.dynamics.run import run_dynamics
from jaxheads.errors import UserError
from jaxheads.weights.hub import fetch_from_hub
from test_dynamics import SMALL

source, out = "owner/tiny", sys.argv[1]
fetch_from_hub(source, "step8")
told = {"before": checkpoint_series.cached_files(source)}
alive = []

def live(*_):
    gc.collect()
    alive.append(sum(array.nbytes for array in jax.live_arrays()))

from jaxheads.studies.dynamics.run import StepProgress
progress = StepProgress(loading=live)
run = run_dynamics(
    source, SMALL, out, steps=(8, 64, 1000), delete=True, progress=progress
)
told["after"] = checkpoint_series.cached_files(source)
told["part"] = run.result["dynamics"]
told["alive"] = alive
for name, options in {
    "absent": dict(steps=(8, 9)),
    "skipped": dict(steps=(8, 9), missing="skip"),
}.items():
    try:
        run = run_dynamics(source, SMALL, out, **options)
        told[name] = run.result["dynamics"]["missing"]
    except UserError as error:
        told[name] = str(error)
try:
    chosen, _ = checkpoint_series.open_series(source, "s*p{step}").choose((8, 64))
    told["wild"] = [one.revision for one in chosen]
except UserError as error:
    told["wild"] = str(error)
print(json.dumps(told))
"""


@pytest.mark.parametrize("tells_refs", [True, False])
def test_revisions_of_the_hub_are_fetched_one_by_one_and_deleted(
    run, series, tmp_path, tells_refs
):
    folders = {
        "step8": "checkpoint-8", "step64": "checkpoints/step_00000064",
        "step1000": "1000", "main": "step0",
    }  # fmt: skip
    revisions = {name: series / folder for name, folder in folders.items()}
    out = tmp_path / "run"
    with HubServer({"owner/tiny": Repository(revisions)}) as hub:
        hub.tells_refs = tells_refs
        environment = {k: v for k, v in os.environ.items() if not k.startswith("HF_")}
        environment |= {
            "HF_HOME": str(tmp_path / "home"),
            "HF_ENDPOINT": hub.url,
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "JAX_DISABLE_MOST_OPTIMIZATIONS": "true",
            "PYTHONPATH": os.pathsep.join([os.getcwd(), *sys.path]),
        }
        done = subprocess.run(
            [sys.executable, "-c", HUB_CHILD, str(out)],
            env=environment,
            capture_output=True,
            text=True,
        )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    # What was there stays, and nothing else: not even the main branch's.
    assert told["before"] and told["after"] == told["before"]
    steps = told["part"]["steps"]
    assert [one["commit"] for one in steps] == [
        commit_of(name) for name in ("step8", "step64", "step1000")
    ]
    (flag,) = told["part"]["flags"]
    assert flag["kind"] == "main differs" and "step 1000" in flag["text"]
    weights = [load(folder).provenance.params_sha256 for folder in revisions.values()]
    assert [one["params_sha256"] for one in steps] == weights[:3]
    assert told["part"]["main"]["params_sha256"] == weights[3]
    # One checkpoint at a time: nothing is left of one when the next is loaded.
    assert len(told["alive"]) == 3 and max(told["alive"]) < 1e5
    sentence = "has no checkpoint of step 9" if tells_refs else "no such revision"
    assert sentence in told["absent"]
    assert told["skipped"] == [9]
    wild = ["step8", "step64"]
    assert told["wild"] == wild if tells_refs else "needs the hub's" in told["wild"]
    made = runs.load(out)
    for name in ("score/induction", "score/function_vector", "first_token"):
        ours, theirs = made.arrays[f"dynamics/{name}"], run.arrays[f"dynamics/{name}"]
        np.testing.assert_allclose(ours, theirs[[1, 2, 4]], atol=1e-6)

"""Training runs: what they leave, and that a stop at any moment changes nothing."""

import dataclasses
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from browser import check_page
from families import assert_close

import jaxheads as jh
from jaxheads import runs, stops
from jaxheads.engine.devices import make_mesh
from jaxheads.errors import UserError
from jaxheads.models import toy
from jaxheads.runs.locks import alone
from jaxheads.studies.report import render
from jaxheads.studies.train import figures as training
from jaxheads.training.checkpoints import Place
from jaxheads.training.config import TrainConfig
from jaxheads.training.data.repeats import RepeatedTokens
from jaxheads.training.data.windows import EVALUATION_STREAM
from jaxheads.training.loop import train
from jaxheads.training.schedule import (
    NAMES,
    Curves,
    evidence_moves,
    fixed_steps,
    loss_moves,
    sound_rows,
)
from jaxheads.training.state import init_state, place_batch, stack
from jaxheads.training.step import make_evaluation, make_step
from jaxheads.training.trained import open_trained

pytestmark = pytest.mark.usefixtures("quick_compilation")

MODEL = toy.Config(1, 16, 2, 8, 10, 12, shifted=True)
SOURCE = RepeatedTokens(10, 12, shortest_period=3, longest_period=5)
CONFIG = TrainConfig(
    objective="hapax",
    steps=12,
    batch_size=4,
    warmup=2,
    learning_rate=0.01,
    seeds=2,
    eval_every=4,
    eval_batches=2,
    checkpoints=("3",),
    dense_every=2,
    dense_by="jump",
    dense_change=0.5,
    resume_every=5,
)


def jump(step, params):
    """Evidence that moves once, between steps 4 and 8."""
    return {
        "jump": np.array([step > 4, 0.0]),
        "size": np.asarray(params.layers.wq).std(axis=(0, 1, 3)),
    }


def start(out, config=CONFIG, **more):
    """The run of this file."""
    options: Any = {"evidence": jump} | more
    return train(config, MODEL, SOURCE, out, **options)


@pytest.fixture(scope="module")
def whole(tmp_path_factory, quick_compilation):
    """A run that nothing stopped, and what it told."""
    told = []
    report = lambda step, row: told.append((step, row))
    return start(tmp_path_factory.mktemp("train") / "run", report=report), told


def same_arrays(one, other):
    """Every array, bit for bit."""
    assert set(one) == set(other)
    for name, values in one.items():
        assert values.dtype == other[name].dtype
        np.testing.assert_array_equal(values, other[name], err_msg=name)


def test_a_run_has_a_page(whole):
    run = whole[0]
    page = render(run)
    assert "Loss while training" in page and "objective hapax" in page
    drawn = training.losses(run)
    assert [one.name for one in drawn] == [
        "train-loss",
        "train-all_loss",
        "train-dropped",
    ]
    rows = [row for row in drawn[0].data or () if row["seed"] == "1"]
    values = [row["Loss over kept targets (nats)"] for row in rows]
    np.testing.assert_allclose(values, run.arrays["train/loss"][:, 1], rtol=1e-5)


@pytest.mark.slow
def test_the_browser_draws_every_chart(whole, browser):
    check_page(browser, render(whole[0]))


def test_a_run_has_its_curves_evaluations_and_receipt(whole):
    run, told = whole
    arrays, result = run.arrays, run.result
    for name in ("loss", "all_loss", "dropped", "gradient_norm"):
        assert arrays[f"train/{name}"].shape == (12, 2)
    assert (arrays["train/dropped"] > 0).all()
    assert (arrays["train/dropped"] < 1).all()
    rates = [CONFIG.learning_rate_at(step) for step in range(12)]
    np.testing.assert_array_equal(arrays["train/learning_rate"], rates)
    np.testing.assert_array_equal(arrays["evaluation/step"], [0, 4, 8, 12])
    np.testing.assert_array_equal(arrays["evaluation/jump"][:, 1, 0], [0, 0, 1, 1])
    assert arrays["evaluation/loss"].shape == (4, 2)
    assert result["study"] == "train" and result["config"]["objective"] == "hapax"
    assert result["train"]["seeds"] == [0, 1]
    assert result["train"]["tokens_a_seed"] == 12 * 4 * 12
    assert result["model"]["data"]["source"] == "RepeatedTokens"
    assert set(result["arrays"]) == set(arrays)
    for name, described in result["arrays"].items():
        assert len(described["dims"]) == arrays[name].ndim
    assert told[-1][0] == 12
    np.testing.assert_allclose(told[-1][1]["loss"], arrays["train/loss"][-1])
    names = sorted(path.name for path in run.path.iterdir())
    assert names == ["arrays.npz", "checkpoints", "result.json"]


def test_it_computes_what_its_parts_do(whole):
    run, _ = whole
    step, evaluate = make_step(CONFIG, MODEL), make_evaluation(CONFIG, MODEL)
    state = init_state(CONFIG, MODEL)
    for index in range(4):
        batch = stack([SOURCE.batch(index, 4, stream=seed) for seed in (0, 1)])
        state, metrics = step(state, place_batch(batch, CONFIG, None))
        np.testing.assert_array_equal(metrics.loss, run.arrays["train/loss"][index])
    held_out = []
    for index in range(2):
        batch = stack([SOURCE.batch(index, 4, stream=EVALUATION_STREAM)] * 2)
        held_out.append(evaluate(state.params, place_batch(batch, CONFIG, None)).loss)
    assert_close(run.arrays["evaluation/loss"][1], np.mean(held_out, axis=0))
    size = np.asarray(state.params.layers.wq[1]).std(axis=(0, 1, 3))
    assert_close(run.arrays["evaluation/size"][1, 1], size)


def test_its_checkpoints_are_models(whole):
    run, _ = whole
    # 3 was asked for; the evidence jumps at 8 and stands still from 12 on.
    np.testing.assert_array_equal(run.arrays["train/checkpoints"], [0, 3, 8, 10, 12])
    listed = run.result["train"]["checkpoints"]["1"]
    assert listed[1] == "checkpoints/seed_1/step_00000003"
    first = jh.load(run.path / listed[0])
    initial = init_state(CONFIG, MODEL).params
    for leaf, wanted in zip(
        jax.tree.leaves(first.params), jax.tree.leaves(initial), strict=True
    ):
        np.testing.assert_array_equal(leaf, wanted[1])
    assert first.config == MODEL
    last = jh.load(run.path / listed[-1])
    assert last.provenance.revision == "step_00000012"
    size = np.asarray(last.params.layers.wq).std(axis=(0, 1, 3))
    assert_close(size, run.arrays["evaluation/size"][-1, 1])
    out = jh.forward(last.params, jnp.zeros((1, 5), jnp.int32), last.config)
    assert np.isfinite(out.logits).all()


def test_a_finished_run_is_read_and_another_config_refused(whole):
    run, _ = whole
    again = start(run.path, report=lambda *_: pytest.fail("it trained again"))
    same_arrays(again.arrays, run.arrays)
    other = dataclasses.replace(CONFIG, learning_rate=0.02)
    with pytest.raises(UserError, match=r"config.learning_rate: 0.01 there, 0.02"):
        start(run.path, other)


@pytest.mark.parametrize("damaged", [False, True])
def test_a_stopped_run_goes_on_bit_for_bit(whole, tmp_path, damaged):
    signals = [signal.SIGTERM if damaged else signal.SIGINT]  # a second stops at once

    def stop(step, params):
        if step == 8 and signals:
            signal.raise_signal(signals.pop())
        return jump(step, params)

    out = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt, match="step 8 of 12 is saved"):
        start(out, evidence=stop)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    place = Place(out, (0, 1))
    assert place.state_steps() == [5, 8]
    with pytest.raises(UserError, match="has not finished"):
        runs.load(out)
    assert not (out / ".lock").exists()
    with (out / "curves.jsonl").open("a") as file:
        file.write('{"step": 9, "lo')  # cut off
    if damaged:
        for path in (place.states / "step_00000008" / "arrays").rglob("*"):
            if path.is_file() and path.stat().st_size > 500:
                path.write_bytes(path.read_bytes()[:-100])
        with pytest.warns(UserWarning, match="step_00000008"):
            run = start(out)
    else:
        run = start(out)
    same_arrays(run.arrays, whole[0].arrays)
    assert {p.name for p in out.iterdir()} == {p.name for p in whole[0].path.iterdir()}


def stopped(out, at=8, config=CONFIG):
    """A run that has stopped after so many steps."""

    def stop(step, params):
        if step == at:
            signal.raise_signal(signal.SIGTERM)
        return jump(step, params)

    with pytest.raises(stops.Stopped, match=f"step {at} of 12 is saved"):
        start(out, config, evidence=stop)


def flip(path):
    spoilt = bytearray(path.read_bytes())
    spoilt[len(spoilt) // 2] ^= 4
    path.write_bytes(spoilt)


ALL = dataclasses.replace(CONFIG, checkpoints=("every=4",))


@pytest.mark.slow
@pytest.mark.parametrize("lose", [lambda path: path.unlink(), flip])
def test_a_lost_evaluation_is_measured_again_from_the_models(whole, tmp_path, lose):
    stopped(tmp_path / "run", config=ALL)
    lose(tmp_path / "run" / "units" / "evaluation_00000004.npz")
    run = start(tmp_path / "run", ALL)
    wanted = dict(whole[0].arrays)
    del wanted["train/checkpoints"]
    same_arrays({name: run.arrays[name] for name in wanted}, wanted)


def test_a_lost_evaluation_is_trained_again_from_an_earlier_state(whole, tmp_path):
    config = dataclasses.replace(CONFIG, resume_every=4, dense_every=0)
    stopped(tmp_path / "run", config=config)
    assert Place(tmp_path / "run", (0, 1)).state_steps() == [4, 8]
    (tmp_path / "run" / "units" / "evaluation_00000004.npz").unlink()
    run = start(tmp_path / "run", config)
    for name in ("train/loss", "evaluation/loss", "evaluation/size"):
        np.testing.assert_array_equal(run.arrays[name], whole[0].arrays[name])


def test_an_evaluation_lost_for_good_is_said_before_training_on(tmp_path):
    config = dataclasses.replace(CONFIG, dense_every=0)
    stopped(tmp_path / "run", config=config)
    (tmp_path / "run" / "units" / "evaluation_00000004.npz").unlink()
    with pytest.raises(UserError, match=r"evaluation_00000004.npz must hold .*step 4"):
        start(tmp_path / "run", config, report=lambda *_: pytest.fail("it trained"))


@pytest.mark.slow
@pytest.mark.parametrize(
    "spoil",
    [{"step": 5}, {"seconds": -1.0}, {"sha256": 3}, {"fingerprint": ""}],
)
def test_a_state_that_says_nonsense_is_not_gone_on_from(whole, tmp_path, spoil):
    stopped(tmp_path / "run")
    path = tmp_path / "run" / "state" / "step_00000008" / "state.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | spoil))
    with pytest.warns(UserWarning, match=r"state.json must tell the step"):
        run = start(tmp_path / "run")
    same_arrays(run.arrays, whole[0].arrays)


@pytest.mark.slow
@pytest.mark.parametrize(
    "row",
    [
        "[]",
        "3",
        '{"step": 6}',
        '{"step": 7, "loss": [1, 2], "all_loss": [1, 2], "dropped": [0, 0]}',
        '{"step": 6, "loss": "x", "all_loss": 1, "dropped": 1, "gradient_norm": {}}',
        "\xff",
    ],
)
def test_curves_of_wrong_types_count_as_lost(whole, tmp_path, row):
    """The run goes back to the state before; without one it says so."""
    stopped(tmp_path / "run")
    path = tmp_path / "run" / "curves.jsonl"
    rows = path.read_text().splitlines()
    rows[5] = row
    path.write_text("\n".join(rows) + "\n", encoding="latin-1")
    same_arrays(start(tmp_path / "run").arrays, whole[0].arrays)


def test_a_number_that_no_float_can_be_ends_the_sound_rows(tmp_path):
    row = {key: [1.0, 2.0] for key in NAMES} | {"step": 1, "learning_rate": 0.1}
    huge = row | {"step": 2, "loss": [10**400, 1]}
    Curves(tmp_path / "curves.jsonl", [row, huge])
    assert sound_rows(tmp_path / "curves.jsonl", 2) == [row]


def test_a_digit_that_changed_ends_the_sound_rows(tmp_path):
    rows = [
        {key: [1.0, 2.0] for key in NAMES} | {"step": n, "learning_rate": 0.1}
        for n in (1, 2)
    ]
    path = tmp_path / "curves.jsonl"
    Curves(path, rows)
    assert sound_rows(path, 2) == rows
    path.write_text("1.5".join(path.read_text().rsplit("1.0", 1)))
    assert sound_rows(path, 2) == rows[:1]


def test_curves_that_no_state_reaches_are_said(tmp_path):
    stopped(tmp_path / "run")
    path = tmp_path / "run" / "curves.jsonl"
    path.write_text(path.read_text().split("\n", 1)[0])
    with pytest.raises(UserError, match="must have the curves of 5 steps, but has 1"):
        start(tmp_path / "run")


def test_models_that_were_removed_are_said(whole, tmp_path):
    stopped(tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "checkpoints" / "seed_1" / "step_00000003")
    with pytest.warns(UserWarning, match=r"had models of step 3, .*removed since"):
        run = start(tmp_path / "run")
    wanted = whole[0].arrays["train/checkpoints"].tolist()
    assert run.arrays["train/checkpoints"].tolist() == [s for s in wanted if s != 3]
    shutil.rmtree(tmp_path / "run" / "checkpoints" / "seed_0" / "step_00000000")
    with pytest.warns(UserWarning, match=r"had models of step 0, .*removed since"):
        assert 0 not in open_trained(tmp_path / "run").steps


def test_a_stop_within_an_evaluation_saves_the_step(whole, tmp_path):
    def stop(step, params):
        if step == 8:
            signal.raise_signal(signal.SIGTERM)
            stops.check()  # as the parts of an evidence do
        return jump(step, params)

    with pytest.raises(stops.Stopped, match="step 8 of 12 is saved"):
        start(tmp_path / "run", evidence=stop)
    assert not (tmp_path / "run" / "units" / "evaluation_00000008.npz").exists()
    assert Place(tmp_path / "run", (0, 1)).state_steps() == [5, 8]
    same_arrays(start(tmp_path / "run").arrays, whole[0].arrays)


KILLED = """
import sys, test_training_loop as here
here.start(sys.argv[1], here.LONG, evidence=None)
"""
LONG = dataclasses.replace(
    CONFIG, steps=400, dense_every=0, checkpoints=("every=40",), resume_every=20
)


@pytest.mark.slow
def test_a_killed_run_goes_on_bit_for_bit(tmp_path):
    wanted = start(tmp_path / "whole", LONG, evidence=None)
    out = tmp_path / "killed"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    environment["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "1"
    environment["JAX_DEFAULT_MATMUL_PRECISION"] = "highest"
    command = [sys.executable, "-c", KILLED, str(out)]
    process = subprocess.Popen(command, env=environment)
    states = Place(out, (0, 1))
    while not states.state_steps() or states.state_steps()[-1] < 60:
        assert process.poll() is None, "it ended before it could be killed"
        time.sleep(0.02)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    assert 0 < states.state_steps()[-1] < 400
    same_arrays(start(out, LONG, evidence=None).arrays, wanted.arrays)
    left = [path for path in out.rglob("*") if "unfinished" in path.name]
    assert not left


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path):
    config = dataclasses.replace(
        CONFIG, learning_rate=1e38, clip=0.0, eval_every=0, dense_every=0, warmup=0
    )
    config = dataclasses.replace(config, checkpoints=("powers",))
    said = r"must stay finite, but is (nan|inf) at step \d+ of seed \d .*step_0000000"
    with pytest.raises(UserError, match=said) as error:
        start(tmp_path / "run", config)
    step = int(str(error.value).split("at step ")[1].split()[0])
    kept = Place(tmp_path / "run", (0, 1)).model_steps()
    assert kept and max(kept) < step
    params = jh.load(tmp_path / f"run/checkpoints/seed_0/step_{kept[-1]:08d}").params
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(params))
    rows = (tmp_path / "run" / "curves.jsonl").read_text().splitlines()
    assert [json.loads(row)["step"] for row in rows] == list(range(1, step))


# Orbax' own threads and coroutines are left as they were when a write fails.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_full_disk_leaves_the_checkpoint_before(whole, tmp_path):
    out, limits = tmp_path / "run", resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill(step, params):
        if step == 8:  # from here on no file may grow beyond this
            resource.setrlimit(resource.RLIMIT_FSIZE, (4000, limits[1]))
        return jump(step, params)

    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        with pytest.raises((UserError, OSError)):
            start(out, evidence=fill)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, before)
    place = Place(out, (0, 1))
    assert place.state_steps() and place.state_steps()[-1] < 12
    assert jh.load(place.model(0, 3)).config == MODEL
    same_arrays(start(out).arrays, whole[0].arrays)


def test_one_process_at_a_time_writes_into_a_folder(tmp_path):
    with (
        alone(tmp_path, "--out"),
        pytest.raises(UserError, match="another is at work"),
        alone(tmp_path, "--out"),
    ):
        pytest.fail("two have the lock")
    with alone(tmp_path, "--out"):
        assert os.listdir(tmp_path) == [".lock"]
    assert not os.listdir(tmp_path)


def test_curves_come_back_to_the_last_bit_and_without_later_rows(tmp_path):
    path = tmp_path / "curves.jsonl"
    rng = np.random.default_rng(0)
    rows: list[dict] = [
        {name: rng.normal(size=2).astype(np.float32).tolist() for name in NAMES}
        | {"step": i, "learning_rate": 0.1}
        for i in range(1, 6)
    ]
    curves = Curves(path, [])
    curves.append(rows[:3])
    curves.append(rows[3:])
    assert sound_rows(path, 2) == rows
    again = Curves(path, sound_rows(path, 2)[:4])
    assert again.rows == rows[:4] and again.last == 4
    np.testing.assert_array_equal(
        again.values("loss", last=2), [row["loss"] for row in rows[2:4]]
    )
    assert len(path.read_text().splitlines()) == 4


@pytest.mark.parametrize(
    ("given", "steps", "wanted"),
    [
        ((), 10, (0, 10)),
        (("powers",), 10, (0, 1, 2, 4, 8, 10)),
        (("powers",), 8, (0, 1, 2, 4, 8)),
        (("every=4", "5"), 10, (0, 4, 5, 8, 10)),
        (("3", "3", "99"), 10, (0, 3, 10)),
    ],
)
def test_steps_of_checkpoints(given, steps, wanted):
    assert fixed_steps(given, steps) == wanted


@pytest.mark.parametrize("word", ["every=0", "every=", "often", "-3", "1.5", ""])
def test_steps_that_cannot_be_read_are_refused(word):
    with pytest.raises(UserError, match="--checkpoints takes"):
        fixed_steps([word], 10)


def test_what_moves_fast():
    falling = np.array([[5.0, 5], [5, 5], [5, 4.2], [5, 4.2]])
    assert loss_moves(falling, 2, 0.75) and not loss_moves(falling, 2, 0.85)
    assert not loss_moves(falling[:3], 2, 0.1)  # two whole windows are needed
    records = np.array([[0.1, 0.2], [0.1, 0.9], [0.1, 0.9]])
    assert evidence_moves(records[:2], 0.7) and not evidence_moves(records, 0.7)
    assert not evidence_moves(records[:1], 0.0)


@pytest.mark.slow
def test_the_watched_loss_makes_checkpoints_dense_and_the_latest_stay(tmp_path):
    config = dataclasses.replace(
        CONFIG,
        seeds=1,
        seed=3,
        dense_by="loss",
        dense_window=2,
        dense_every=1,
        dense_change=0.05,
        eval_every=0,
        keep_last=4,
    )
    run = start(tmp_path / "run", config)
    losses = run.arrays["train/loss"]
    moving = [step for step in range(4, 13) if loss_moves(losses[:step], 2, 0.05)]
    assert 2 < len(moving) < 9
    wanted = sorted({0, 3, 12, *moving})[-4:]
    np.testing.assert_array_equal(run.arrays["train/checkpoints"], wanted)
    names = sorted(path.name for path in (run.path / "checkpoints").iterdir())
    assert names == [f"step_{step:08d}" for step in wanted]
    assert run.result["train"]["checkpoints"] == {
        "3": [f"checkpoints/{name}" for name in names]
    }
    assert "evaluation/step" not in run.arrays


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"steps": 0}, "--steps must be 1 or more"),
        ({"accumulate": 3}, "--accumulate must divide"),
        ({"learning_rate": 0.0}, "--learning-rate must be above 0"),
        ({"beta2": 1.0}, "--beta2 must be"),
        ({"threshold": 1.0}, "--threshold"),
        ({"checkpoints": ("never",)}, "--checkpoints"),
        ({"z_loss": float("nan")}, "--z-loss"),
    ],
)
def test_choices_that_make_no_sense_are_refused(change, sentence, tmp_path):
    with pytest.raises(UserError, match=sentence):
        start(tmp_path / "run", dataclasses.replace(CONFIG, **change))
    assert not (tmp_path / "run").exists()


def test_what_does_not_fit_is_refused(tmp_path):
    small = dataclasses.replace(MODEL, vocab_size=9)
    with pytest.raises(UserError, match="9 and the data 10"):
        train(CONFIG, small, SOURCE, tmp_path / "run")
    short = dataclasses.replace(MODEL, context_length=8)
    with pytest.raises(UserError, match=r"12 tokens .* context of 8"):
        train(CONFIG, short, SOURCE, tmp_path / "run")
    with pytest.raises(UserError, match="--seeds must be a multiple of the 4"):
        start(tmp_path / "run", mesh=make_mesh("4"))
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_run_on_a_mesh_agrees_and_goes_on(whole, tmp_path):
    signals = [signal.SIGINT]

    def stop(step, params):
        if step == 8 and signals:
            signal.raise_signal(signals.pop())
        return jump(step, params)

    mesh = make_mesh("2x2")
    with pytest.raises(KeyboardInterrupt):
        start(tmp_path / "run", mesh=mesh, evidence=stop)
    run = start(tmp_path / "run", mesh=mesh)
    for name, values in whole[0].arrays.items():
        np.testing.assert_allclose(run.arrays[name], values, atol=2e-3, err_msg=name)

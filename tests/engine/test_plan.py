"""What a run will cost: told before it starts, and true."""

import dataclasses
import logging
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from families import CONFIGS, Tiny
from rich.console import Console
from test_study import SMALL

from jaxheads.engine import plan, sweeps
from jaxheads.engine.memory import Fit, Program, program_bytes
from jaxheads.errors import UserError
from jaxheads.models.last_position import prefill_program
from jaxheads.studies import run as study
from jaxheads.studies.run import StudyBars, run_study
from jaxheads.weights.model import load

pytestmark = pytest.mark.usefixtures("quick_compilation")


@pytest.mark.parametrize("name", ["llama-gqa", "gemma2", "gpt_neox", "toy-smeared"])
def test_bytes_from_shapes_are_no_less_than_the_compiler_says(name):
    tiny, rows, length = Tiny(CONFIGS[name]), 16, 48
    shape = jax.ShapeDtypeStruct
    program = Program(
        "prompts",
        prefill_program,
        tiny.params,
        lambda count: (
            shape((count, length), np.int32),
            shape((count,), np.int32),
            tiny.config,
            (),
        ),
        rows,
        rows,
        flops=1.0,
    )
    told = rows * plan.sequence(tiny.config, length).bytes
    weights = sum(leaf.nbytes for leaf in jax.tree.leaves(tiny.params))
    needed = program_bytes(program, rows)
    assert needed <= told + weights and told <= 3 * needed


def test_new_tokens_may_be_counted_by_numpy(tiny_gqa):
    prompts = np.asarray(tiny_gqa.tokens), np.asarray(tiny_gqa.lengths)
    new: Any = np.int64(2)
    sweep = sweeps.continuations(*prompts, tiny_gqa.config, None, new)
    _, swept = sweep.fit(tiny_gqa.params, 3, 10**9)
    assert swept.chunk == 3


@pytest.fixture(scope="module")
def model(model_folder):
    return load(model_folder)


@pytest.mark.slow
def test_a_plan_that_cannot_fit_says_so_before_it_starts(model, tmp_path):
    said = r"(need|needs) 0\.\d+ MB .* but 0\.00 MB is there: give fewer --shots"
    with pytest.raises(UserError, match=said):
        run_study(model, SMALL, tmp_path / "x", parts=("scores",), memory_gb=1e-6)
    assert not (tmp_path / "x").exists()


@pytest.mark.slow
def test_a_planned_run_compiles_nothing_else(model, tmp_path, caplog, monkeypatch):
    planned, fit = [], study.fitted

    def fitted(*arguments):
        parts = fit(*arguments)
        planned.append((len(caplog.records), parts))
        return parts

    monkeypatch.setattr(study, "fitted", fitted)
    names = ("resample", "mean_by_position", "zero")
    config = dataclasses.replace(
        SMALL, token_loss=dataclasses.replace(SMALL.token_loss, values=names)
    )
    jax.clear_caches()
    with jax.log_compiles(), caplog.at_level(logging.WARNING):
        run_study(model, config, tmp_path / "run", memory_gb=8e-4)
    ((before, parts),) = planned
    compiled = [
        re.search(r"Finished XLA compilation of jit\((\w+)\)", record.getMessage())
        for record in caplog.records[before:]
    ]
    # Fills are small and made one by one, and the model is checked on a few prompts;
    # the work itself was compiled to be planned.
    small = {"captured", "_sums", "_largest", "_observe"}
    assert {match[1] for match in compiled if match} <= small
    assert all(part.bytes <= 8e5 for part in parts.values())
    chunks = [fitted.chunk for part in parts.values() for fitted in part.fits]
    assert max(chunks) > 1


@jax.jit
def powers(params, rows):
    """Something that takes time in proportion to its rows."""
    return jax.lax.fori_loop(0, 200, lambda _, x: jnp.tanh(x @ params), rows)


def part(items: int, chunk: int, flops: float) -> plan.Part:
    program = Program(
        "powers",
        powers,
        np.ones((64, 64), np.float32),
        lambda count: (jax.ShapeDtypeStruct((count, 64), np.float32),),
        items,
        chunk,
        flops,
    )
    return plan.Part(plan.Cost(flops=items * flops), (Fit(program, chunk, 1),))


def test_expected_seconds_are_those_of_short_runs_times_the_calls():
    flops = 2.0 * 200 * 64 * 64
    # The third is too long for a trial: it is expected to be as efficient as the rest.
    parts = {
        "few": part(64, 64, flops),
        "many": part(6400, 64, flops),
        "long": part(64, 64, 1e12),
    }
    told = plan.calibrated(parts, rate=1e10)
    few, many, long = (told[name].seconds for name in parts)
    assert few and many and long
    assert 20 < many / few < 500  # 100 times the calls, on a noisy machine
    rate = (64 + 6400) * flops / (few + many)
    np.testing.assert_allclose(long, 64e12 / rate, rtol=1e-6)
    receipt = told["many"].receipt()
    assert receipt["expected_s"] == many
    assert receipt["programs"] == [{"program": "powers", "chunk": 64, "bytes": 1}]
    assert "expected_s" not in parts["many"].receipt()


def test_the_plan_is_printed_with_its_time():
    console = Console(record=True, markup=False, width=100)
    parts = {
        "token_loss": dataclasses.replace(part(640, 64, 1e9), seconds=380.0),
        "scores": dataclasses.replace(part(9, 3, 1e9), seconds=20.4),
    }
    with StudyBars(console) as bars:
        bars.progress.planned(parts)
    said = console.export_text()
    assert "plan: 7 min, by short runs" in said
    assert re.search(r"token loss .* 64 .* 6 min", said)
    assert re.search(r"scores .* 3 .* 20 s", said)

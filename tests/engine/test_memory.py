"""The memory that there is, and chunks that stay within it."""

import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxheads.engine import memory
from jaxheads.engine.memory import Fit, Program, fit
from jaxheads.errors import UserError

HERE = Path(__file__).parents[1]


@jax.jit
def grams(params, rows):
    """Largest eigenvalue, nearly, of each row's outer product: [B, D] -> [B]."""
    outer = rows[:, :, None] * rows[:, None, :] + params[None]  # [B, D, D]
    return jnp.linalg.matrix_power(outer, 8).max((1, 2))


def program(items: int, most: int = 64, width: int = 32) -> Program:
    return Program(
        f"{width}-wide rows",
        grams,
        np.ones((width, width), np.float32),
        lambda count: (jax.ShapeDtypeStruct((count, width), np.float32),),
        items,
        most,
        flops=2.0 * width**3,
    )


def test_a_program_needs_what_it_makes_and_is_given_but_not_the_params():
    square, rows = np.ones((32, 32), np.float32), np.ones((8, 32), np.float32)
    stats = grams.lower(square, rows).compile().memory_analysis()
    assert stats is not None
    needed = memory.program_bytes(program(8), 8)
    counted = stats.temp_size_in_bytes + stats.output_size_in_bytes + rows.nbytes
    # The CPU's library multiplies in memory that the compiler does not count.
    assert needed >= max(counted, 3 * 8 * square.nbytes)
    assert needed < counted + 6 * 8 * square.nbytes


def test_the_chunk_is_as_large_as_the_budget_allows():
    whole = fit(program(50), 10**9)
    assert (whole.chunk, whole.calls) == (50, 1)
    half = fit(program(50), whole.bytes // 2)
    assert half.bytes <= whole.bytes // 2
    assert 50 / 4 <= half.chunk <= 25 and half.calls == -(-50 // half.chunk)
    assert fit(program(50, most=20), 10**9).chunk == 17  # three equal chunks
    least = fit(program(50), 1)
    assert least.chunk == 1 and least.bytes > 1


def test_what_cannot_fit_is_refused_with_what_it_needs():
    fits = [fit(program(5), 10**9), Fit(program(3), 1, 4 * 10**9)]
    memory.refuse_what_cannot_fit(fits, 5 * 10**9, "give less")
    said = r"32-wide rows need 4.00 GB .* 1 at a time, but 2.00 GB .*: give less, or"
    with pytest.raises(UserError, match=said):
        memory.refuse_what_cannot_fit(fits, 2 * 10**9, "give less")


def test_the_budget_is_what_the_user_says_else_a_share_of_what_is_free():
    assert memory.budget_bytes(1.5) == 1_500_000_000
    for wrong in (0, -1, float("nan")):
        with pytest.raises(UserError, match="--memory-gb must be positive"):
            memory.budget_bytes(wrong)
    eight = memory.budget_bytes()  # virtual devices share one memory
    one = memory.budget_bytes(params=jnp.zeros(2))
    assert 0 < eight <= memory.CPU_MOST / 8 and one <= memory.CPU_MOST
    assert one < memory.free_main_memory()


LIMITED = """
import resource, sys
resource.setrlimit(resource.RLIMIT_AS, (3 * 10**9, 3 * 10**9))
from jaxheads.engine.memory import free_main_memory
print(free_main_memory())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="limits are read off /proc")
def test_a_limit_of_the_process_counts():
    done = subprocess.run(
        [sys.executable, "-c", LIMITED], capture_output=True, text=True, check=True
    )
    assert 0 < float(done.stdout) < 3e9


PEAK = """
import resource, sys, threading, time
from pathlib import Path
import jax, numpy as np
from jaxheads.engine import sweeps as engine
from jaxheads.models import llama
from jaxheads.models.parameters import init_params

config = llama.Config(4, 256, 8, 8, 32, 512, 30000, 1024, tied=True)
params = init_params(llama.abstract(config), jax.random.key(0))
tokens = np.ones((4, 256), np.int32)
replaced = np.random.default_rng(0).random((16, 4, 8)) < 0.3
at = np.arange(1, 256, 2)
budget = int(sys.argv[1])
sweep = lambda rows: engine.token_predictions(tokens[rows], config, None, at)
rows, (shared, swept) = engine.fit_rows(
    sweep, len(tokens), params, len(replaced), budget
)

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()

start, peak, done = resident(), 0, threading.Event()

def watch():
    global peak
    while not done.wait(0.002):
        peak = max(peak, resident())

thread = threading.Thread(target=watch)
thread.start()
engine.losses_under_subsets(
    params, tokens[:rows], config, replaced, None, at, chunk=swept.chunk
)
done.set()
thread.join()
print(rows, swept.chunk, max(shared.bytes, swept.bytes), peak - start)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="memory is read off /proc")
@pytest.mark.parametrize("megabytes", [60, 130])
def test_a_sweep_stays_within_a_small_budget(megabytes):
    done = subprocess.run(
        [sys.executable, "-c", PEAK, str(megabytes * 10**6)],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"PYTHONPATH": str(HERE.parent), "XLA_FLAGS": ""},
    )
    rows, chunk, planned, grown = map(int, done.stdout.split())
    print(rows, chunk, planned, grown)
    assert 0.2 * megabytes * 10**6 < planned <= megabytes * 10**6
    # Numpy results and the allocator's slack come on top.
    results = 16 * rows * 128 * 4
    assert grown < planned + results + 40e6

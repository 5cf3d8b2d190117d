"""Strict JAX settings for every test, and small random models."""

import os
import signal
from pathlib import Path

os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
)
os.environ.setdefault("JAX_PLATFORMS", "cpu")
# What one test, worker, child or run has compiled, the others read.
os.environ.setdefault(
    "JAX_COMPILATION_CACHE_DIR",
    str(Path(__file__).parents[1] / ".pytest_cache" / "compiled"),
)
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"

from collections.abc import Iterator

import jax
import pytest
from browser import CHROMIUM, Browser
from families import CONFIGS, LLAMAS, Tiny
from model_folder import write_tiny_llama

jax.config.update("jax_numpy_rank_promotion", "raise")
if (
    signal.getsignal(signal.SIGINT) is signal.SIG_IGN
):  # so a job in the background has it
    signal.signal(signal.SIGINT, signal.default_int_handler)
jax.config.update("jax_default_matmul_precision", "highest")


def pytest_configure(config):
    """Drop what a killed process may have written half of, which ends with a page."""
    if not hasattr(config, "workerinput"):
        for path in Path(os.environ["JAX_COMPILATION_CACHE_DIR"]).glob("*-cache"):
            if path.stat().st_size % 4096 == 0:
                path.unlink(missing_ok=True)


@pytest.fixture(params=LLAMAS, scope="session")
def tiny(request) -> Tiny:
    """Each tiny Llama in turn."""
    return Tiny(CONFIGS[request.param])


@pytest.fixture(scope="session")
def tiny_gqa() -> Tiny:
    """The tiny Llama with grouped queries and a tied unembedding."""
    return Tiny(CONFIGS["llama-gqa"])


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory) -> Path:
    """A tiny random Llama in hub layout, with a tokenizer trained on the tasks."""
    return write_tiny_llama(tmp_path_factory.mktemp("tiny-llama"))


@pytest.fixture(scope="session")
def browser(tmp_path_factory) -> Iterator[Browser]:
    """Chromium, started once; tests that need it are skipped where there is none."""
    if CHROMIUM is None:
        pytest.skip("needs chromium")
    started = Browser(tmp_path_factory.mktemp("browser"))
    yield started
    started.close()


@pytest.fixture(scope="module")
def quick_compilation():
    """Compile many small programs with fewer optimisations: twice as fast.

    What was compiled one way is not mixed with the other: results equal to the last bit
    are not to be expected between the two.
    """
    name = "jax_disable_most_optimizations"
    before = jax.config.read(name)
    jax.clear_caches()
    jax.config.update(name, True)
    yield
    jax.config.update(name, before)
    jax.clear_caches()

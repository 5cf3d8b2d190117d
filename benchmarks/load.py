"""How fast a 2.4 GB safetensors folder loads, against reading its bytes alone.

    python benchmarks/load.py       # make bench-load; 2.4 GB in the temporary folder

Pairs of a plain read and a load, both with the files out of the system's cache (where
the system has posix_fadvise): shared disks change their rate from minute to minute.
"""

import argparse
import json
import multiprocessing
import os
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
from safetensors.numpy import save_file

import jaxheads as jh
from jaxheads.models import llama
from jaxheads.models.parameters import init_params
from jaxheads.weights.convert import from_params

CONFIG = llama.Config(10, 2048, 16, 8, 128, 5632, 32000, 2048)
SETTINGS = {
    "model_type": "llama",
    "num_hidden_layers": CONFIG.num_layers,
    "hidden_size": CONFIG.width,
    "num_attention_heads": CONFIG.num_heads,
    "num_key_value_heads": CONFIG.num_kv_heads,
    "head_dim": CONFIG.head_dim,
    "intermediate_size": CONFIG.mlp_width,
    "vocab_size": CONFIG.vocab_size,
}


def write_model(folder: Path) -> list[Path]:
    """A random Llama in float32, in two shards with an index."""
    params = init_params(llama.abstract(CONFIG), jax.random.key(0))
    tensors = from_params(params, llama, CONFIG, "hf")
    weight_map = {}
    for shard in (1, 2):
        file = folder / f"model-{shard:05d}-of-00002.safetensors"
        names = list(tensors)[shard - 1 :: 2]
        save_file({name: tensors[name] for name in names}, file)
        weight_map |= dict.fromkeys(names, file.name)
    (folder / "config.json").write_text(json.dumps(SETTINGS))
    index = json.dumps({"weight_map": weight_map})
    (folder / "model.safetensors.index.json").write_text(index)
    return sorted(folder.glob("*.safetensors"))


def read_only(files: list[Path]) -> None:
    """Read every byte into one small buffer."""
    buffer = bytearray(8 * 2**20)
    for file in files:
        with open(file, "rb", buffering=0) as opened:
            while opened.readinto(buffer):
                pass


def seconds_cold(run: Callable[[], object], files: list[Path]) -> float:
    """Wall time of a run that finds the files out of the cache."""
    if hasattr(os, "posix_fadvise"):
        for file in files:
            with open(file, "rb") as opened:
                os.fsync(opened.fileno())
                os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def resident_bytes() -> int:
    """Memory of this process, mapped pages of files included (Linux)."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def peak_memory(folder: Path, dtype: str) -> float:
    """Most memory above the start's while a model loads, over the params' bytes."""
    jax.device_put(np.zeros(1))  # what jax itself needs
    start, peak, done = resident_bytes(), 0, threading.Event()

    def watch() -> None:
        nonlocal peak
        while not done.wait(0.005):
            peak = max(peak, resident_bytes())

    thread = threading.Thread(target=watch)
    thread.start()
    params = jh.load(folder, dtype=dtype).params
    done.set()
    thread.join()
    return (peak - start) / sum(leaf.nbytes for leaf in jax.tree.leaves(params))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=7)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        files = write_model(folder)
        size = sum(file.stat().st_size for file in files)
        load = lambda: jh.load(folder)
        load()  # the first touch of memory is the machine's matter
        shares, rates = [], []
        for _ in range(arguments.pairs):
            plain = seconds_cold(lambda: read_only(files), files)
            loaded = seconds_cold(load, files)
            rates.append(size / plain / 1e9)
            shares.append(plain / loaded)
            print(f"read {rates[-1]:.2f} GB/s, loaded {size / loaded / 1e9:.2f} GB/s")
        print(f"disk, median            {statistics.median(rates):.2f} GB/s")
        print(f"load's share, median    {statistics.median(shares):.2f}   aim 0.70")
        # In new processes: this one keeps what it freed.
        with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
            for dtype in ("float32", "bfloat16"):
                peak = pool.apply(peak_memory, (folder, dtype))
                print(f"peak over params, {dtype:9} {peak:.2f}   below 1.3")


if __name__ == "__main__":
    main()

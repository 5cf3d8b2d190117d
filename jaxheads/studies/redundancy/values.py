"""The value of prompts under subsets of heads, asked for again and again.

``engine.metric_under_subsets`` answers one batch of subsets; a search asks for many
small batches of the same prompts. Here the prompts' prefixes stay in memory between
them, what is done is kept in the run folder, and few shapes are compiled.
"""

import functools
import hashlib
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxheads.engine import plan, sweeps
from jaxheads.engine.chunks import chunks
from jaxheads.engine.devices import data_parts, gather, mesh_of, replicate, split
from jaxheads.icl.prompts import Batch
from jaxheads.models.ablation import Ablation
from jaxheads.models.forward import Prefix, forward, prefill
from jaxheads.models.metrics import Metric, probability
from jaxheads.runs import Arrays, RunFolder
from jaxheads.studies.redundancy.shapley import Memo

PROMPTS_AT_ONCE = 16
UNIT_CHUNKS = 4  # that are kept together: what a kill costs
PROMPT_MULTIPLE = 64  # a group of prompts is padded to one of few lengths


def right_token(logits: jax.Array, targets: jax.Array) -> jax.Array:
    """1 where the likeliest token is the target, else 0: [..., V], [...] -> [...].

    NaN where the largest logit is not finite.
    """
    right = (logits.argmax(axis=-1) == targets).astype(logits.dtype)
    return jnp.where(jnp.isfinite(logits.max(axis=-1)), right, jnp.nan)


METRICS: dict[str, Metric] = {"probability": probability, "accuracy": right_token}


@functools.partial(jax.jit, static_argnames="metric")
def _whole(params, tokens, lengths, targets, where, replaced, fill, config, metric):
    """The same by a whole forward without one set, bool [L, H]: [B]."""
    ablation = Ablation.of(replaced, fill=fill, where=where)
    out = forward(
        params, tokens, config, lengths=lengths, ablation=ablation, logits="last"
    )
    return metric(out.logits, targets)


class SubsetValues:
    """Values [N, B] of prompts under subsets bool [N, L, H], True where replaced.

    Args:
        name: of its units in the run folder.
        params: of the family of ``config``.
        config: of the model.
        batch: B prompts.
        fill: [L, H, K], what replaces a head at the last position; None: zeros.
        metric: (logits [B, V], targets [B]) -> [B].
        folder: where finished batches are kept.
        budget_bytes: memory for activations and prefixes. Where the prefixes do not
            fit half of it, they are made anew for each batch of subsets.
        advance: told the FLOPs that are done.

    Attributes:
        batch: the prompts.
        prefill_s: seconds of the prefixes, compiling included.
        subsets_s: seconds of the subsets, compiling included.
    """

    def __init__(
        self,
        name: str,
        params,
        config,
        batch: Batch,
        fill: np.ndarray | None,
        metric: Metric,
        folder: RunFolder,
        budget_bytes: int,
        advance,
    ):
        self.batch, self.prefill_s, self.subsets_s = batch, 0.0, 0.0
        self._name, self._folder, self._advance = name, folder, advance
        self._params, self._config, self._mesh = params, config, mesh_of(params)
        self._fill = replicate(fill, self._mesh)
        self._metric = metric
        count, length = batch.tokens.shape
        self._cost = plan.sequence(config, length)
        at_once = int(np.clip(budget_bytes // (2 * self._cost.bytes), 1, count))
        order = np.argsort(batch.lengths, kind="stable")
        self._groups = [
            order[index] for index in chunks(count, min(at_once, PROMPTS_AT_ONCE))
        ]
        self._chunk = sweeps.subset_chunk(
            config, len(self._groups[0]), 1, budget_bytes // 2
        )
        held = sum(self._prefix_bytes(group) for group in self._groups)
        self._fits = 2 * held <= budget_bytes
        self._prefixes: dict[int, Prefix] = {}

    def changes(self) -> np.ndarray:
        """The largest change that replacing each head makes to its output: [L, H]."""

        def compute() -> Arrays:
            parts = []
            for number in range(len(self._groups)):
                heads = gather(self._prefix(number).heads).astype(np.float32)
                fill = 0 if self._fill is None else gather(self._fill)[:, None]
                parts.append(np.abs(heads - fill).max(axis=(1, 3)))
            return {"changes": np.max(parts, axis=0)}

        unit = self._folder.unit(f"{self._name}-changes", compute, "LH")
        self._advance(self._cost.flops * len(self.batch.tokens))
        self.prefill_s += unit["seconds"].item()
        return unit["changes"]

    def __call__(self, replaced: np.ndarray) -> np.ndarray:
        """Values float32 [N, B]; what an earlier try has run is read."""
        block = UNIT_CHUNKS * self._chunk
        parts = [
            self._unit(np.asarray(replaced[start : start + block], bool))
            for start in range(0, len(replaced), block)
        ]
        return np.concatenate(parts)

    def _unit(self, replaced: np.ndarray) -> np.ndarray:
        digest = hashlib.sha256(f"{replaced.shape}".encode())
        digest.update(np.packbits(replaced).tobytes())
        name = f"{self._name}-{digest.hexdigest()[:24]}"
        if self._folder.has(name):
            self._advance(self._step() * len(replaced) * len(self.batch.tokens))
        unit = self._folder.unit(name, lambda: {"values": self._run(replaced)}, "NB")
        self.subsets_s += unit["seconds"].item()
        return unit["values"]

    def release(self) -> None:
        """Forget the prefixes."""
        self._prefixes.clear()

    def whole_forwards(self, replaced: np.ndarray, prompts: int) -> Arrays:
        """Time whole forwards of prompts of middling length under one subset.

        Args:
            replaced: bool [L, H].
            prompts: how many, at most; they run together.

        Returns:
            index int [b], which prompts; values [b], what ``__call__`` should give;
            each, seconds a prompt, the best of two runs after the first.
        """

        def compute() -> Arrays:
            index = np.unique(self._groups[len(self._groups) // 2])[:prompts]
            tokens, lengths = self._padded(index)
            where = np.arange(tokens.shape[1])[None] == lengths[:, None] - 1
            targets = self.batch.targets[index]
            given = replicate((tokens, lengths, targets, where, replaced), self._mesh)
            values, seconds = np.zeros(0), []
            for _ in range(3):
                start = time.perf_counter()
                made = _whole(
                    self._params, *given, self._fill, self._config, self._metric
                )
                values = gather(made)
                seconds.append(time.perf_counter() - start)
            each = min(seconds[1:]) / len(index)
            return {"index": index, "values": values, "each": each}

        return self._folder.unit(f"{self._name}-whole-forwards", compute)

    def _run(self, replaced: np.ndarray) -> np.ndarray:
        count = len(replaced)
        out = np.zeros((count, len(self.batch.tokens)), np.float32)
        size = 4
        while size < min(count, self._chunk):  # few sizes, few compiles
            size *= 4
        parts = data_parts(self._mesh)
        size = -(-min(size, self._chunk) // parts) * parts
        for number, group in enumerate(self._groups):
            prefix = self._prefix(number)
            targets = replicate(self.batch.targets[group], self._mesh)
            for start in range(0, count, size):
                index = np.minimum(np.arange(start, start + size), count - 1)
                made = sweeps.metric_subsets(
                    self._params,
                    prefix,
                    split(Ablation.of(replaced[index]).keep, self._mesh),
                    self._fill,
                    targets,
                    self._config,
                    self._metric,
                )
                out[index[:, None], group[None]] = gather(made)
                real = min(size, count - start) * len(group)
                self._advance(self._step() * real)
        return out

    def _step(self) -> float:
        return plan.step(self._config, self.batch.tokens.shape[1]).flops

    def _padded(self, index: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Tokens of some prompts, padded to the longest of them, and their lengths."""
        lengths = self.batch.lengths[index]
        longest = -(-int(lengths.max()) // PROMPT_MULTIPLE) * PROMPT_MULTIPLE
        return self.batch.tokens[index, :longest], lengths

    def _prefix_bytes(self, index: np.ndarray) -> int:
        made = jax.eval_shape(prefill, self._params, *self._padded(index), self._config)
        return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(made))

    def _prefix(self, number: int) -> Prefix:
        """Of one group of prompts."""
        if number in self._prefixes:
            return self._prefixes[number]
        given = self._padded(self._groups[number])
        tokens, lengths = replicate(given, self._mesh)
        prefix = prefill(self._params, tokens, lengths, self._config)
        if self._fits:
            self._prefixes[number] = prefix
        return prefix


def describe_work(
    measured: list[tuple[SubsetValues, Memo]], timed: Arrays, none: np.ndarray
) -> dict[str, Any]:
    """What was run and how long it took, beside whole forwards, ready for JSON.

    Args:
        measured: evaluators with what was asked of them.
        timed: of ``SubsetValues.whole_forwards``, with the whole universe replaced.
        none: [B], the same values by the engine.
    """
    prompts = [len(values.batch.tokens) for values, _ in measured]
    runs = [
        memo.evaluated * count
        for (_, memo), count in zip(measured, prompts, strict=True)
    ]
    prefill_s = sum(values.prefill_s for values, _ in measured)
    subsets_s = sum(values.subsets_s for values, _ in measured)
    each = timed["each"].item()
    prefill_tokens = sum(int(values.batch.lengths.sum()) for values, _ in measured)
    mean_length = sum(
        count * float(values.batch.lengths.mean())
        for (values, _), count in zip(measured, runs, strict=True)
    )
    difference = np.abs(timed["values"] - none[timed["index"]]).max()
    return {
        "subsets_asked": sum(memo.asked for _, memo in measured),
        "subsets_run": sum(memo.evaluated for _, memo in measured),
        "prompts": sum(prompts),
        "subset_prompts": sum(runs),
        "tokens": prefill_tokens + sum(runs),
        "whole_forward_tokens": round(mean_length),
        "prefill_s": prefill_s,
        "subsets_s": subsets_s,
        "whole_forward_s": each,
        "whole_forwards_s": each * sum(runs),
        "times_faster": each * sum(runs) / (prefill_s + subsets_s),
        "forwards_timed": len(timed["index"]),
        "largest_difference": float(difference),
    }

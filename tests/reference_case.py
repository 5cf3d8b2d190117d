"""What transformers gave for a model, and how far jaxheads is from it.

A case is made by ``parity/reference.py`` with transformers, or read from a golden file.
"""

import dataclasses
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxheads.models.ablation import Ablation
from jaxheads.models.forward import forward, generate, last_token_logits, prefill
from jaxheads.weights.model import Model

LOGITS = 5e-5
"""Allowed distance of float32 logits, the largest of all; of ablated ones too."""
HEADS = 5e-5
PATTERNS = 2e-5
FLOAT64 = 1e-9
"""Allowed distance of float64 logits: four orders below float32's."""
BFLOAT16 = 1.05
"""Allowed error of bfloat16 logits, in units of transformers' own (root mean square
over all logits, against float64)."""


@dataclasses.dataclass(frozen=True)
class Inputs:
    """What models are run on, and how results are laid out.

    The first rows are compared in full; the other rows are prompts for ``generate`` and
    count for the bfloat16 error. Results stand one after the other for every real
    position X of the full rows, and patterns for every pair Y of a position and one
    that it may look at.

    Attributes:
        tokens: int [B, T], right padded.
        lengths: int [B].
        full: how many rows are compared in full.
        keep: bool [L, H] of all ablations; False is replaced.
        fill: [L, H, K], what replaces heads where it is not zeros.
        where: bool [B, T] of the ablation at some positions.
    """

    tokens: np.ndarray
    lengths: np.ndarray
    full: int
    keep: np.ndarray
    fill: np.ndarray
    where: np.ndarray

    @property
    def real(self) -> np.ndarray:
        """Which positions are no padding: bool [B, T]."""
        return np.arange(self.tokens.shape[1])[None] < self.lengths[:, None]

    def at(self, values: np.ndarray) -> np.ndarray:
        """Values [B, T, ...] at the real positions of the full rows: [X, ...]."""
        return values[: self.full][self.real[: self.full]]

    def heads_at(self, heads: np.ndarray) -> np.ndarray:
        """Heads [L, B, T, H, K] in the layout of ``heads``."""
        return self.at(heads.transpose(1, 2, 0, 3, 4))

    def patterns_at(self, patterns: np.ndarray) -> np.ndarray:
        """Patterns [L, B, H, T, S] in the layout of ``patterns``."""
        causal = np.tri(self.tokens.shape[1], dtype=bool)
        pairs = self.real[:, :, None] & causal[None]  # [B, T, S]
        return patterns.transpose(1, 3, 4, 0, 2)[: self.full][pairs[: self.full]]

    def error(self, logits: np.ndarray, exact: np.ndarray) -> float:
        """Root mean square difference of logits [B, T, V], all rows."""
        squares = (logits.astype(np.float64) - exact)[self.real] ** 2
        return float(np.sqrt(squares.mean()))


@dataclasses.dataclass(frozen=True)
class Case(Inputs):
    """Inputs and what transformers made of them.

    Attributes:
        config: config.json, as transformers wrote it.
        logits: float32 [X, V].
        logits64: float64 [X, V].
        heads: z [X, L, H, K].
        patterns: [Y, L, H].
        zeros_everywhere: logits [X, V], heads replaced by zeros at every position.
        fill_somewhere: logits [X, V], heads replaced by ``fill`` at ``where``.
        zeros_last: logits [full, V], by zeros at the last position.
        fill_last: logits [full, V], by ``fill`` at the last position.
        continued: int [B - full, M], greedy.
        bfloat16_error: of transformers' own bfloat16 logits, see ``error``.
        noise: transformers' float32 against its float64: largest difference of logits,
            heads, patterns.
    """

    config: str
    logits: np.ndarray
    logits64: np.ndarray
    heads: np.ndarray
    patterns: np.ndarray
    zeros_everywhere: np.ndarray
    fill_somewhere: np.ndarray
    zeros_last: np.ndarray
    fill_last: np.ndarray
    continued: np.ndarray
    bfloat16_error: float
    noise: np.ndarray

    @classmethod
    def read(cls, path: Path) -> tuple["Case", dict[str, np.ndarray]]:
        """Read a golden file: the case, and the model's tensors by name, float32."""
        with np.load(path) as arrays:
            fields = [field.name for field in dataclasses.fields(cls)]
            held: dict[str, Any] = {name: arrays[name] for name in fields}
            for name in ("config", "full", "bfloat16_error"):
                held[name] = held[name].item()
            tensors = {
                name.removeprefix("tensor "): arrays[name].astype(np.float32)
                for name in arrays
                if name.startswith("tensor ")
            }
        return cls(**held), tensors

    def write(self, path: Path, tensors: dict[str, np.ndarray]) -> None:
        """Write a golden file; the tensors must be float16 numbers."""
        halves = {name: values.astype(np.float16) for name, values in tensors.items()}
        for name, values in tensors.items():
            np.testing.assert_array_equal(halves[name], values, err_msg=name)
        named = {f"tensor {name}": values for name, values in halves.items()}
        arrays = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        np.savez_compressed(path, **arrays, **named)  # type: ignore[arg-type]


def float32_distances(model: Model, case: Case) -> dict[str, float]:
    """Largest differences of logits, heads and patterns."""
    out = forward(
        model.params,
        jnp.asarray(case.tokens),
        model.config,
        lengths=jnp.asarray(case.lengths),
        capture=("heads", "patterns"),
    )
    assert out.heads is not None and out.patterns is not None
    return {
        "logits": distance(case.at(np.asarray(out.logits)), case.logits),
        "heads": distance(case.heads_at(np.asarray(out.heads)), case.heads),
        "patterns": distance(case.patterns_at(np.asarray(out.patterns)), case.patterns),
    }


def float64_logits(model: Model, case: Case) -> np.ndarray:
    """Logits [B, T, V] with every number in float64."""
    with jax.enable_x64(True):
        params = jax.tree.map(lambda leaf: leaf.astype(jnp.float64), model.params)
        logits = forward(params, jnp.asarray(case.tokens), model.config).logits
        assert logits.dtype == jnp.float64
        return np.asarray(logits)


def bfloat16_error(model: Model, case: Case, exact: np.ndarray) -> float:
    """Root mean square error of bfloat16 logits against exact ones, over all rows."""
    params = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), model.params)
    logits = forward(params, jnp.asarray(case.tokens), model.config).logits
    return case.error(np.asarray(logits), exact)


def ablated_distances(model: Model, case: Case) -> dict[str, float]:
    """Largest differences of logits under ablations of every kind."""
    tokens, lengths = jnp.asarray(case.tokens), jnp.asarray(case.lengths)
    keep, fill = jnp.asarray(case.keep, jnp.float32), jnp.asarray(case.fill)
    params, config = model.params, model.config

    def everywhere(fill, where):
        ablation = Ablation(keep, fill, where)
        return case.at(
            np.asarray(forward(params, tokens, config, ablation=ablation).logits)
        )

    def at_last(fill):
        logits = last_token_logits(params, prefix, config, Ablation(keep, fill))
        return np.asarray(logits)[: case.full]

    prefix = prefill(params, tokens, lengths, config)
    pairs = {
        "zeros_everywhere": everywhere(None, None),
        "fill_somewhere": everywhere(fill, jnp.asarray(case.where)),
        "zeros_last": at_last(None),
        "fill_last": at_last(fill),
    }
    return {name: distance(ours, getattr(case, name)) for name, ours in pairs.items()}


def continued(model: Model, case: Case) -> np.ndarray:
    """Greedy continuations [prompts, M] of the rows after the full ones."""
    tokens, lengths = jnp.asarray(case.tokens), jnp.asarray(case.lengths)
    prefix = prefill(model.params, tokens, lengths, model.config)
    new = generate(model.params, prefix, model.config, case.continued.shape[1])
    return np.asarray(new)[case.full :]


def distance(ours: np.ndarray, theirs: np.ndarray) -> float:
    """The largest absolute difference of two arrays of one shape."""
    assert ours.shape == theirs.shape, (ours.shape, theirs.shape)
    return float(np.abs(ours - theirs).max())

"""One run of a function over many prompts: its price, its memory and the run itself."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from jaxheads.engine import plan
from jaxheads.engine.chunks import over_prompts
from jaxheads.engine.devices import mesh_of, replicate, split
from jaxheads.engine.memory import Fit, Program, fit, shapes
from jaxheads.icl.prompts import Batch
from jaxheads.models.forward import prefill


def positions_at_once(prompts: bool) -> int:
    """Positions that run at once, beyond which nothing is gained.

    A processor's caches lose more then than its matrix products gain; an accelerator
    wants more of them.

    Args:
        prompts: whole prompts, else last positions of subsets.
    """
    if jax.default_backend() == "cpu":
        return 2048 if prompts else 1024
    return 16384 if prompts else 65536


@dataclasses.dataclass(frozen=True, eq=False)
class Pass:
    """A jitted function of many prompts, a chunk at a time.

    ``test_plan.py`` checks that a planned run compiles nothing but what ``fit`` saw.

    Attributes:
        name: for the plan.
        function: of params, prompts and others, to arrays with an axis of prompts.
        prompts: arrays [B, ...].
        others: arguments that all prompts share; ``jax.ShapeDtypeStruct`` in a plan,
            where an array is not there yet.
        cost: of a prompt.
        keywords: static arguments.
        positions: that a prompt runs at once; None: as many as its first array has.
        axis: of the prompts in what the function gives.
    """

    name: str
    function: Any
    prompts: tuple[np.ndarray, ...]
    others: tuple
    cost: plan.Cost
    keywords: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    positions: int | None = None
    axis: int = -1

    def fit(self, params, budget_bytes: int, times: int = 1) -> Fit:
        """The program at the chunk that the memory allows.

        Args:
            params: of the model.
            budget_bytes: on a device.
            times: how often a study does this, for the plan.
        """
        mesh = mesh_of(params)
        others = replicate(shapes(self.others), mesh)
        program = Program(
            self.name,
            self.function,
            params,
            lambda count: (*split(shapes(self.prompts, count), mesh), *others),
            len(self.prompts[0]),
            max(
                1,
                positions_at_once(True) // (self.positions or self.prompts[0].shape[1]),
            ),
            self.cost.flops,
            times,
            self.keywords,
        )
        return fit(program, budget_bytes)

    def run(self, params, budget_bytes: int) -> Any:
        """What the function gives, of all prompts: arrays [..., B], B at ``axis``."""
        return self.in_chunks(params, self.fit(params, budget_bytes).chunk)

    def in_chunks(self, params, chunk: int) -> Any:
        """The same, with so many prompts at once."""
        made = over_prompts(
            self.function,
            params,
            self.prompts,
            self.others,
            chunk=chunk,
            **self.keywords,
        )
        count = len(self.prompts[0])

        def join(*parts: np.ndarray) -> np.ndarray:  # the last may repeat its last
            before = (slice(None),) * (self.axis % parts[0].ndim)
            return np.concatenate(parts, self.axis)[*before, :count]

        return jax.tree.map(join, *made)


@jax.jit
def last_heads(params, tokens: jax.Array, lengths: jax.Array, config) -> jax.Array:
    """Per-head outputs at the last position of prompts: [L, B, H, K]."""
    return prefill(params, tokens, lengths, config).heads


def of_last_heads(batch: Batch, config) -> Pass:
    """``last_heads`` of prompts: [L, B, H, K]."""
    length = batch.tokens.shape[1]
    return Pass(
        f"head outputs of {length}-token prompts",
        last_heads,
        (batch.tokens, batch.lengths),
        (config,),
        plan.sequence(config, length),
        axis=1,
    )

"""Prompts of the attribution study, its programs and what they cost."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from jaxheads.engine import plan
from jaxheads.engine.memory import Fit
from jaxheads.engine.passes import Pass
from jaxheads.engine.sweeps import Sweep, answers, fit_rows
from jaxheads.icl.prompts import Batch, named_tokens
from jaxheads.models.forward import prefill
from jaxheads.models.metrics import Metric, log_probability, probability
from jaxheads.runs import Arrays
from jaxheads.studies.attribution.config import AttributionConfig
from jaxheads.studies.attribution.gradients import (
    at_last_position,
    dropped_gradients,
    repatched,
)
from jaxheads.studies.job import Given

METRICS: dict[str, Metric] = {
    "probability": probability,
    "log_probability": log_probability,
}


def site_of(method: str) -> str:
    """What a method replaces: head outputs, "z", or queries, "q"."""
    return "q" if method == "query" else "z"


def is_signed(method: str) -> bool:
    """Whether a method's estimates have a sign, or are sizes."""
    return method != "graddrop"


@jax.jit
def last_values(params, tokens: jax.Array, lengths: jax.Array, config) -> dict:
    """Head outputs "z" and queries "q" at prompts' last positions: [B, L, H, K]."""
    prefix = prefill(params, tokens, lengths, config)
    return {"z": prefix.heads.swapaxes(0, 1), "q": prefix.queries.swapaxes(0, 1)}


@functools.partial(jax.jit, static_argnames=("method", "metric", "steps"))
def estimates(
    params,
    tokens: jax.Array,
    lengths: jax.Array,
    targets: jax.Array,
    fill: jax.Array,
    config,
    *,
    method: str,
    metric: Metric = probability,
    steps: int = 8,
) -> jax.Array:
    """Estimated effects of setting each head, alone, to a fill at the last position.

    Args:
        params: of the family of ``config``.
        tokens: int [B, T], right padded.
        lengths: int [B].
        targets: int [B].
        fill: [L, H, K], of head outputs, or of queries for "query".
        config: of the model; static.
        method: out of ``AttributionMethod``; static.
        metric: (logits [..., V], targets [...]) -> [...]; static.
        steps: of "integrated"; static.

    Returns:
        [L, H, B], in the metric's unit; sizes for "graddrop".
    """
    prefix = prefill(params, tokens, lengths, config)
    if method == "graddrop":
        return dropped_gradients(params, prefix, fill, targets, config, metric=metric)
    if method == "query":
        fill = repatched(params, tokens, lengths, config, fill, "q")
    return at_last_position(
        params,
        prefix,
        fill,
        targets,
        config,
        metric=metric,
        point="clean" if method == "query" else method,  # type: ignore[arg-type]
        steps=steps,
    )


@dataclasses.dataclass(frozen=True)
class Inputs:
    """Prompts by task, and what is asked of them.

    Attributes:
        clean: clean prompts, whose means are patched in.
        corrupted: prompts with shuffled labels, padded like the clean ones.
        settings: what is asked.
        seed: of the samples that are verified.
        queries: by task, int [B] of the corrupted prompts: those with one number ask
            one query; empty: not known, and not in the run.
    """

    clean: dict[str, Batch]
    corrupted: dict[str, Batch]
    settings: AttributionConfig
    seed: int
    queries: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)

    def tokens(self) -> Arrays:
        """Everything that is fed to the model."""
        clean = named_tokens("attribution_clean", self.clean)
        return clean | named_tokens("attribution_corrupted", self.corrupted)

    def cost(self, config, given: Given | None = None) -> plan.Cost:
        """What ``run`` will cost."""
        del given
        total = plan.Cost()
        for task in self.clean:
            total += self.fill_cost(config, task)
            for method in self.settings.methods:
                total += self.estimate_cost(config, method, task)
                total += self.exact_cost(config, task)
        return total

    def fill_cost(self, config, task: str) -> plan.Cost:
        """Clean prompts, once for all methods."""
        count, length = self.clean[task].tokens.shape
        return plan.sequence(config, length) * count

    def estimate_cost(self, config, method: str, task: str) -> plan.Cost:
        """Prompts, and last positions there and back.

        Only activations have gradients, so that the way back costs what the way there
        does.
        """
        count, length = self.corrupted[task].tokens.shape
        whole = plan.sequence(config, length) * (1 + (method == "query"))
        both_ways = plan.step(config, length) * (2 * self.passes(config, method))
        return (whole + both_ways) * count

    def exact_cost(self, config, task: str) -> plan.Cost:
        """Prompts, and one last position for each verified head and for none."""
        count, length = self.corrupted[task].tokens.shape
        steps = plan.step(config, length) * (1 + sum(self.verified(config)))
        return (plan.sequence(config, length) + steps) * count

    def passes(self, config, method: str) -> int:
        """Forwards of the last position of a prompt, each with its backward."""
        several = {"integrated": self.settings.steps, "graddrop": config.num_layers}
        return several.get(method, 1)

    def verified(self, config) -> tuple[int, int]:
        """Heads in the top and in the sample that are verified.

        In a model with fewer heads than were asked for it is all of them, with as
        large a part of them in the top.
        """
        heads = config.num_layers * config.num_heads
        top, sample = self.settings.top_k, self.settings.sample
        if top + sample > heads:
            top = max(1, heads * top // (top + sample))
            sample = heads - top
        return top, sample

    def tokens_run(self, config, method: str) -> dict[str, float]:
        """Tokens through all layers, ready for JSON; padding not counted.

        The exact sweep over all heads starts each at its own layer, and counts by the
        share of the layers that it runs.
        """
        prompts = sum(len(batch.tokens) for batch in self.corrupted.values())
        whole = sum(int(batch.lengths.sum()) for batch in self.corrupted.values())
        backward = prompts * self.passes(config, method)
        heads = config.num_layers * config.num_heads
        sweep = heads * (config.num_layers + 1) / (2 * config.num_layers)
        return {
            "forward": whole * (1 + (method == "query")) + backward,
            "backward": backward,
            "verification": whole + prompts * (1 + sum(self.verified(config))),
            "exact_sweep": whole + prompts * sweep,
        }

    def fits(self, params, config, given: Given | None, budget_bytes: int) -> list[Fit]:
        """What ``run`` will call, the same programs for tasks of one length."""
        del given
        lengths = [batch.tokens.shape[1] for batch in self.clean.values()]
        tasks = dict(zip(lengths, self.clean, strict=True))
        found, subsets = [], 1 + sum(self.verified(config))
        for length, task in tasks.items():
            times = lengths.count(length)
            fill, methods = _fill_shape(config), self.settings.methods
            batch = self.corrupted[task]
            passes = [self.clean_values(config, task)]
            passes += [self.estimate(config, each, task, fill) for each in methods]
            found += [each.fit(params, budget_bytes, times) for each in passes]
            sites = [site_of(method) for method in methods]
            for site in dict.fromkeys(sites):
                sweep, rows = self.exact(config, site, task, fill), len(batch.tokens)
                calls = times * sites.count(site)
                found += fit_rows(sweep, rows, params, subsets, budget_bytes, calls)[1]
        return found

    def clean_values(self, config, task: str) -> Pass:
        """Head outputs and queries of a task's clean prompts."""
        batch = self.clean[task]
        length = batch.tokens.shape[1]
        return Pass(
            f"head outputs and queries of {length}-token prompts",
            last_values,
            (batch.tokens, batch.lengths),
            (config,),
            plan.sequence(config, length),
            axis=0,
        )

    def estimate(self, config, method: str, task: str, fill: Any) -> Pass:
        """Estimates by one method on a task's prompts."""
        batch = self.corrupted[task]
        count, length = batch.tokens.shape
        return Pass(
            f"estimates ({method}) on {length}-token prompts",
            estimates,
            arrays(batch),
            (fill, config),
            self.estimate_cost(config, method, task) * (1 / count),
            self.keywords(method),
        )

    def exact(self, config, site: str, task: str, fill: Any) -> Callable[[Any], Sweep]:
        """What verifies heads on some of a task's prompts, by a slice or indices."""
        metric = METRICS[self.settings.metric]
        given = lambda rows: arrays(self.corrupted[task], rows)
        return lambda rows: answers(*given(rows), config, fill, metric, site)

    def keywords(self, method: str) -> dict[str, Any]:
        """Static arguments of ``estimates``."""
        return {
            "method": method,
            "metric": METRICS[self.settings.metric],
            "steps": self.settings.steps if method == "integrated" else 1,
        }


def _fill_shape(config) -> jax.ShapeDtypeStruct:
    shape = (config.num_layers, config.num_heads, config.head_dim)
    return jax.ShapeDtypeStruct(shape, np.float32)


def arrays(
    batch: Batch, rows: slice | np.ndarray = slice(None)
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Tokens, lengths and targets of some prompts."""
    return batch.tokens[rows], batch.lengths[rows], batch.targets[rows]

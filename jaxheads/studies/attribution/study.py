"""Effects of all heads estimated from gradients, with exact ones beside them.

Question: on prompts with shuffled labels, by how much would each head restore the right
answer if it were set to its mean on clean prompts? Gradients answer for all heads at
once, roughly; each method's top heads and a random sample of the others are run
exactly, always, so that a reader sees how far to trust it.

Here, at the last position, the exact sweep over all heads is nearly as cheap: it shares
the prompt with every head (``jaxheads.models.patching``), and the prompt is most of the
cost. Take the function-vector score where it will do. This study says how good the
estimates are, for where no such sweep exists and for models with very many heads. The
result counts the tokens of both.

In a script::

    import jaxheads as jh
    from jaxheads.studies.attribution.config import AttributionConfig
    from jaxheads.studies.config import StudyConfig
    from jaxheads.studies.run import run_study

    model = jh.load("smollm2-135m-instruct")
    asked = AttributionConfig(tasks=("antonym",), methods=("clean", "query"))
    config = StudyConfig(attribution=asked)
    run = run_study(model, config, "runs/attribution", parts=("attribution",))
    print(run.result["attribution"]["methods"]["clean"]["rank_agreement"])
    estimate, exact = (run.arrays[f"attribution/{n}"] for n in ("clean", "clean_exact"))

Source: Nanda 2023 (attribution patching); Kramár et al. 2024 (AtP*); the prompts are
those of Todd et al. 2024, section 2.3.
"""

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np

from jaxheads.engine.sweeps import run_rows
from jaxheads.errors import UserError
from jaxheads.icl.prompts import by_task
from jaxheads.runs import Arrays
from jaxheads.statistics.units import mean_and_error
from jaxheads.studies.attribution.config import AttributionConfig
from jaxheads.studies.attribution.inputs import (
    Inputs,
    is_signed,
    site_of,
)
from jaxheads.studies.attribution.verification import Verified, verify
from jaxheads.studies.context import Context
from jaxheads.studies.job import Job

ARRAYS = {
    "attribution/queries": ("A B", ""),
    "attribution/*_top": ("L H", "true: verified"),
    "attribution/*_sample": ("L H", "true: verified"),
    "attribution/*": ("L H", "the metric's"),
}
"""Dims and unit of what a run gets, see ``receipt``."""
ADVICE = "give fewer --shots"
"""What makes the smallest step smaller."""
UNITS = {"probability": "probability", "log_probability": "nats"}


@dataclasses.dataclass(frozen=True, eq=False)
class Estimated:
    """One method's estimates, verified.

    Attributes:
        verified: estimates of all heads and exact effects of some, [L, H], each the
            mean over prompts, then tasks; of sizes for a method without a sign.
        error: float [L, H], standard error of the estimates over queries, tasks fixed.
        exact_error: float [L, H], of the exact effects; NaN where not verified.
        tokens: see ``Inputs.tokens_run``.
        estimate_s: seconds of the estimates, compiling included.
        exact_s: seconds of the exact effects of the verified heads.
    """

    verified: Verified
    error: np.ndarray
    exact_error: np.ndarray
    tokens: dict[str, float]
    estimate_s: float
    exact_s: float


@dataclasses.dataclass(frozen=True)
class Result:
    """Estimates by every method.

    Attributes:
        estimated: by method.
        settings: what was asked.
        queries: int [A, B], which query each prompt asks; None: not known.
        fill_s: seconds of the means that are patched in.
    """

    estimated: dict[str, Estimated]
    settings: AttributionConfig
    queries: np.ndarray | None
    fill_s: float

    @property
    def seconds(self) -> float:
        """Wall time, earlier tries included."""
        parts = self.estimated.values()
        return self.fill_s + sum(one.estimate_s + one.exact_s for one in parts)

    def arrays(self) -> Arrays:
        """Named arrays for the run folder, [L, H] each."""
        named: Arrays = {}
        if self.queries is not None:
            named["attribution/queries"] = self.queries
        for method, one in self.estimated.items():
            name, found = f"attribution/{method}", one.verified
            named[name] = found.estimate.astype(np.float32)
            named[f"{name}_se"] = one.error.astype(np.float32)
            named[f"{name}_exact"] = found.exact.astype(np.float32)
            named[f"{name}_exact_se"] = one.exact_error.astype(np.float32)
            named[f"{name}_top"], named[f"{name}_sample"] = found.top, found.sample
        return named

    def describe(self) -> dict[str, Any]:
        """Everything but the arrays, ready for JSON."""
        settings = self.settings
        told = {
            "metric": settings.metric,
            "unit": UNITS[settings.metric],
            "value": "mean",
            "positions": "last",
            "tasks": list(settings.tasks),
            "prompts": settings.corrupted_prompts,
            "sign": "positive: setting the head to its clean mean raises the metric",
            "fill_s": self.fill_s,
            "methods": {
                method: one.verified.describe()
                | {
                    "site": site_of(method),
                    "signed": is_signed(method),
                    "top_k": int(one.verified.top.sum()),
                    "sample": int(one.verified.sample.sum()),
                    "all_verified": not np.isnan(one.verified.exact).any(),
                    "worst_miss_estimate": float(
                        one.verified.estimate[one.verified.worst_miss_head]
                    ),
                    "tokens": one.tokens,
                    "estimate_s": one.estimate_s,
                    "exact_s": one.exact_s,
                }
                for method, one in self.estimated.items()
            },
        }
        return {"attribution": told}


def prepare(context: Context) -> Inputs:
    """Clean and shuffled prompts of every task."""
    chosen, dims = context.config.attribution, context.model.config
    if "graddrop" in chosen.methods and dims.num_layers < 2:
        raise UserError(
            "--attribution.methods graddrop leaves out one layer of several, but "
            "this model has one: drop it"
        )
    clean, corrupted, queries = context.clean_and_corrupted(chosen)
    queries = {task: queries[task]["corrupted"] for task in clean}
    seed = context.config.seed
    return Inputs(clean, corrupted, chosen, seed, queries)


def run(inputs: Inputs, job: Job) -> Result:
    """Estimate every head's effect by each method, and verify it exactly.

    A unit is a method's estimates, or its exact effects, on a task.

    Raises:
        UserError: replacing heads changes nothing.
    """
    study = _Study(inputs, job)
    estimated = {method: study.method(method) for method in inputs.settings.methods}
    return Result(estimated, inputs.settings, study.queries, study.fill_s)


class _Study:
    """Runs units of the study; the arguments are those of ``run``."""

    def __init__(self, inputs: Inputs, job: Job):
        self._inputs, self._params, self._config = inputs, job.params, job.config
        self._folder, self._budget, self._advance = job.folder, job.budget, job.advance
        self.queries = by_task(inputs.queries, inputs.corrupted)
        self._fills, self.fill_s = {}, 0.0
        for task in inputs.clean:
            unit = job.folder.unit(
                f"attribution-fill-{task}", lambda task=task: self._means(task), "LHK"
            )
            self._fills[task] = unit
            self.fill_s += unit["seconds"].item()
            job.advance(inputs.fill_cost(job.config, task).flops)

    def method(self, method: str) -> Estimated:
        """Estimates by one method, verified."""
        inputs, config, signed = self._inputs, self._config, is_signed(method)
        units = list(self._units(method, "estimate", None))
        estimate, error = self._over_tasks([unit["effects"] for unit in units])
        exact_error = np.full(estimate.shape, np.nan)
        exact_s = 0.0

        def effects(replaced: np.ndarray) -> np.ndarray:
            nonlocal exact_s
            samples = []
            for unit in self._units(method, "exact", replaced):
                found = unit["effects"][:, None]  # [N, 1, B]
                samples.append(found if signed else np.abs(found))
                exact_s += unit["seconds"].item()
            mean, spread = self._over_tasks(samples)
            exact_error[replaced.any(axis=0)] = spread[:, 0]
            return mean[:, 0]

        verified = verify(
            estimate, effects, *inputs.verified(config), inputs.seed, signed=signed
        )
        if not np.nan_to_num(verified.exact).any():
            raise UserError(
                f"replacing heads at {site_of(method)!r} by their means changes no "
                "answer: give more --attribution.clean-prompts, or other tasks"
            )
        return Estimated(
            verified,
            error,
            exact_error,
            inputs.tokens_run(config, method),
            float(sum(unit["seconds"] for unit in units)),
            exact_s,
        )

    def _over_tasks(self, samples: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """Mean over prompts [..., B], then tasks, and its standard error."""
        return mean_and_error(np.stack(samples, axis=-2), self.queries)

    def _units(
        self, method: str, kind: str, replaced: np.ndarray | None
    ) -> Iterator[Arrays]:
        for task in self._inputs.corrupted:

            def compute(task=task) -> Arrays:
                if replaced is None:
                    return {"effects": self._estimates(method, task)}
                return {"effects": self._exact(method, task, replaced)}

            yield self._folder.unit(
                f"attribution-{kind}-{method}-{task}",
                compute,
                "LHB" if replaced is None else "NB",
            )
            inputs, config = self._inputs, self._config
            cost = (
                inputs.estimate_cost(config, method, task)
                if replaced is None
                else inputs.exact_cost(config, task)
            )
            self._advance(cost.flops)

    def _means(self, task: str) -> Arrays:
        """Mean head outputs "z" and queries "q" of clean prompts: [L, H, K]."""
        values = self._inputs.clean_values(self._config, task)
        made = values.run(self._params, self._budget)
        return {site: made[site].astype(np.float32).mean(axis=0) for site in ("z", "q")}

    def _estimates(self, method: str, task: str) -> np.ndarray:
        """Estimated effects [L, H, B] on a task's prompts."""
        fill = self._fills[task][site_of(method)]
        made = self._inputs.estimate(self._config, method, task, fill)
        return made.run(self._params, self._budget)

    def _exact(self, method: str, task: str, replaced: np.ndarray) -> np.ndarray:
        """Exact effects [N, B] of heads, each alone, on a task's prompts."""
        site = site_of(method)
        fill = self._fills[task][site]
        sweep = self._inputs.exact(self._config, site, task, fill)
        subsets = np.concatenate([np.zeros((1, *replaced.shape[1:]), bool), replaced])
        count = len(self._inputs.corrupted[task].tokens)
        values = run_rows(sweep, count, self._params, subsets, self._budget)
        return values[1:] - values[0]

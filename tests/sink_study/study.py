"""How much of its attention at the end of a prompt does a head give the first token?"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxheads.engine import plan
from jaxheads.engine.memory import Fit
from jaxheads.engine.passes import Pass
from jaxheads.icl.prompts import Batch, named_tokens
from jaxheads.models.forward import forward
from jaxheads.runs import Arrays
from jaxheads.studies.context import Context
from jaxheads.studies.job import Given, Job

ARRAYS = {"sink/share": ("A L H B", "share of attention")}
ADVICE = "give fewer --shots"


@jax.jit
def shares(params, tokens, lengths, config):
    """Attention on the first token at prompts' last positions: [L, H, B]."""
    seen = forward(params, tokens, config, lengths=lengths, capture=("patterns",))
    patterns = jnp.asarray(seen.patterns)  # [L, B, H, T, S]
    rows = jnp.arange(len(tokens))
    return patterns[:, rows, :, lengths - 1, 0].transpose(1, 2, 0)


@dataclasses.dataclass(frozen=True)
class Inputs:
    """Prompts by task."""

    prompts: dict[str, Batch]

    def tokens(self) -> Arrays:
        return named_tokens("sink", self.prompts)

    def cost(self, config, given: Given) -> plan.Cost:
        total = plan.Cost()
        for batch in self.prompts.values():
            count, length = batch.tokens.shape
            total += plan.sequence(config, length) * count
        return total

    def shares(self, config, task: str) -> Pass:
        batch = self.prompts[task]
        length = batch.tokens.shape[1]
        return Pass(
            f"attention of {length}-token prompts",
            shares,
            (batch.tokens, batch.lengths),
            (config,),
            plan.sequence(config, length),
        )

    def fits(self, params, config, given: Given, budget_bytes: int) -> list[Fit]:
        made = [self.shares(config, task) for task in self.prompts]
        return [each.fit(params, budget_bytes) for each in made]


@dataclasses.dataclass(frozen=True)
class Result:
    """Shares of attention, [A, L, H, B]."""

    tasks: tuple[str, ...]
    share: np.ndarray
    seconds: float

    def arrays(self) -> Arrays:
        return {"sink/share": self.share}

    def describe(self) -> dict[str, Any]:
        return {"sink": {"mean": float(self.share.mean()), "tasks": list(self.tasks)}}


def prepare(context: Context) -> Inputs:
    asked = context.config.sink
    made = {
        task.name: context.encode_prompts(context.draw(task, asked.prompts))
        for task in context.load(asked.tasks)
    }
    return Inputs(made)


def run(inputs: Inputs, job: Job) -> Result:
    units = []
    for task in inputs.prompts:

        def measure(task=task) -> Arrays:
            each = inputs.shares(job.config, task)
            return {"share": each.run(job.params, job.budget)}

        units.append(job.folder.unit(f"sink-{task}", measure, "LHB"))
        job.advance(inputs.cost(job.config, job.given).flops / len(inputs.prompts))
    share = np.stack([unit["share"] for unit in units])
    return Result(
        (*inputs.prompts,), share, float(sum(unit["seconds"] for unit in units))
    )

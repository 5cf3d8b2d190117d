"""How much of its attention at the end of a prompt does a head give the first token?"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxheads.engine import plan, programs
from jaxheads.engine.chunks import over_prompts
from jaxheads.engine.memory import Fit, Program, fit
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

    def program(self, params, config, task: str) -> Program:
        batch = self.prompts[task]
        length = batch.tokens.shape[1]
        return programs.over_prompts(
            f"attention of {length}-token prompts",
            shares,
            params,
            (batch.tokens, batch.lengths),
            (config,),
            plan.sequence(config, length),
            length,
        )

    def fits(self, params, config, given: Given, budget_bytes: int) -> list[Fit]:
        made = [self.program(params, config, task) for task in self.prompts]
        return [fit(program, budget_bytes) for program in made]


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
    for task, batch in inputs.prompts.items():
        program = inputs.program(job.params, job.config, task)

        def measure(batch=batch, program=program) -> Arrays:
            given = (batch.tokens, batch.lengths)
            chunk = fit(program, job.budget).chunk
            made = over_prompts(shares, job.params, given, (job.config,), chunk=chunk)
            return {"share": np.concatenate(made, -1)[..., : len(batch.tokens)]}

        units.append(job.folder.unit(f"sink-{task}", measure, "LHB"))
        job.advance(inputs.cost(job.config, job.given).flops / len(inputs.prompts))
    share = np.stack([unit["share"] for unit in units])
    return Result(
        (*inputs.prompts,), share, float(sum(unit["seconds"] for unit in units))
    )

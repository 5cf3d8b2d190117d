"""What chosen heads do together: interactions, smallest sets, Shapley values.

Question: do the heads at the top of a ranking do the same work, need each other, or add
up? All three answers rest on the few-shot value of prompts under many subsets of heads,
replaced at the last position: a subset costs one token a prompt, and one that several
answers ask for runs once. What that came to, beside whole forwards, stands in the
result.

Greedy sets are chosen on one half of each task's items and measured again on the other:
the best of many sets on some prompts is partly luck.
"""

import dataclasses
from typing import Any

import numpy as np

from jaxheads.engine import plan
from jaxheads.engine.memory import Fit
from jaxheads.errors import UserError
from jaxheads.heads.sets import largest_changes
from jaxheads.icl.prompts import Batch, Prompt, named_tokens, query_numbers
from jaxheads.runs import Arrays
from jaxheads.runs.finite import plain
from jaxheads.studies.context import Context, check_disjoint
from jaxheads.studies.job import Given, Job
from jaxheads.studies.redundancy import greedy, shapley as redundancy
from jaxheads.studies.redundancy.config import RedundancyConfig
from jaxheads.studies.redundancy.greedy import Found, Path, Scale
from jaxheads.studies.redundancy.shapley import Interactions, Memo, Shapley, Universe
from jaxheads.studies.redundancy.values import METRICS, SubsetValues, describe_work

PATHS = {"backward": greedy.greedy_backward, "forward": greedy.greedy_forward}


ARRAYS = {
    "redundancy/heads": ("C P", "layer and head"),
    "redundancy/interaction*": ("C C", "the metric's"),
    "redundancy/shapley_samples": ("R C", "the metric's"),
    "redundancy/shapley*": ("C", "the metric's"),
    "redundancy/effect*": ("C", "the metric's"),
    "redundancy/*queries": ("E S", ""),
    "redundancy/clean": ("B", "the metric's"),
    "redundancy/floor": ("B", "the metric's"),
    **{
        f"redundancy/{name}": (f"{steps}{dims}", unit)
        for path, steps in (("backward", "I"), ("forward", "J"))
        for name, dims, unit in (
            (f"{path}_replaced", " L H", "true: replaced"),
            (f"{path}_share*", "", "share of the clean value"),
            (f"{path}_held_out_share*", "", "share of the clean value"),
            (f"{path}_*", " B", "the metric's"),
        )
    },
}
"""Dims and unit of what a run gets, see ``receipt``."""


@dataclasses.dataclass(frozen=True)
class Inputs:
    """Prompts of the evaluation tasks.

    Attributes:
        prompts: of all tasks, one after another, as many each.
        held_out: others, of items that ``prompts`` do not have.
        settings: what is asked of them.
        seed: of the permutations.
        queries: int [E, B / E] of ``prompts``, those of a task with one number ask one
            query; None: each prompt asks its own, and all are one task's.
        held_out_queries: of ``held_out``.
    """

    prompts: Batch
    held_out: Batch
    settings: RedundancyConfig
    seed: int
    queries: np.ndarray | None = None
    held_out_queries: np.ndarray | None = None

    def tokens(self) -> Arrays:
        """Everything that is fed to the model."""
        kinds = {"selection": self.prompts, "held_out": self.held_out}
        return named_tokens("redundancy", kinds)

    def fits(self, params, config, given: Given | None, budget_bytes: int) -> list[Fit]:
        """No programs in advance: which subsets run is not known."""
        del params, config, given, budget_bytes
        return []

    def cost(self, config, given: Given | None = None) -> plan.Cost:
        """What ``run`` will cost, at most: greedy searches may end early."""
        del given
        total = plan.Cost()
        for batch, subsets in (
            (self.prompts, self._most_subsets(config)),
            (self.held_out, 2 + 2 * self._greedy_heads(config)),
        ):
            count, length = batch.tokens.shape
            total += plan.sequence(config, length) * count
            total += plan.step(config, length) * (count * subsets)
        return total + plan.sequence(config, length) * (3 * FORWARDS)

    def _greedy_heads(self, config) -> int:
        if self.settings.universe == "all":
            return config.num_layers * config.num_heads
        return self._heads()

    def _heads(self) -> int:
        return len(self.settings.heads) or self.settings.top

    def _most_subsets(self, config) -> int:
        """Different subsets at most, over all answers."""
        c, u = self._heads(), self._greedy_heads(config)
        orders = self.settings.permutations * (1 + self.settings.antithetic)
        common = 2 + orders * (c - 1) + c * (c + 1) // 2
        searched = u * (u + 1)
        if self.settings.universe == "all":
            return min(common, 2**c) + searched
        return min(common + searched, 2**c + 1)


FORWARDS = 8
"""Prompts whose whole forward is timed."""


@dataclasses.dataclass(frozen=True)
class Result:
    """All answers.

    Attributes:
        universe: the chosen heads.
        shapley: their Shapley values.
        pairs: their interactions.
        found: greedy searches by name, "backward" and "forward".
        changes: [C], largest change that replacing each head makes to its output.
        settings: what was asked.
        work: subsets, tokens and seconds, ready for JSON.
        seconds: wall time, earlier tries included.
    """

    universe: Universe
    shapley: Shapley
    pairs: Interactions
    found: dict[str, Found]
    changes: list[float]
    settings: RedundancyConfig
    work: dict[str, Any]
    seconds: float

    def arrays(self) -> Arrays:
        """Named arrays for the run folder."""
        first = next(iter(self.found.values()))
        named = {
            "heads": self.universe.heads,
            "clean": first.scale.clean,
            "floor": first.scale.floor,
            "effect": self.pairs.effect,
            "effect_se": self.pairs.effect_error,
            "interaction": self.pairs.pair,
            "interaction_se": self.pairs.pair_error,
            "shapley": self.shapley.value,
            "shapley_se": self.shapley.error,
            "shapley_prompt_se": self.shapley.prompt_error,
            "shapley_samples": self.shapley.samples,
        }
        for name, found in self.found.items():
            named[f"{name}_replaced"] = found.universe.replaced(found.path.kept)
            named[f"{name}_value"] = found.path.values
            named[f"{name}_held_out"] = found.held_out
            named[f"{name}_share"] = found.path.share
            named[f"{name}_share_se"] = found.share_error
            held_out, error = found.held_out_share
            named[f"{name}_held_out_share"] = held_out
            named[f"{name}_held_out_share_se"] = error
        for kind in ("queries", "held_out_queries"):
            if (numbers := getattr(first, kind)) is not None:
                named[kind] = numbers
        return {
            f"redundancy/{name}": array.astype(np.float32)
            if array.dtype.kind == "f"
            else array
            for name, array in named.items()
        }

    def describe(self) -> dict[str, Any]:
        """Everything but the arrays, ready for JSON."""
        settings, shapley = self.settings, self.shapley
        told = {
            "metric": settings.metric,
            "value": settings.value,
            "positions": "last",
            "tasks": list(settings.tasks),
            "prompts": settings.prompts,
            "heads": self.universe.names,
            "chosen_by": "name" if settings.heads else settings.ranking_by,
            "others": settings.others,
            "universe": settings.universe,
            "share": settings.share,
            "share_of": settings.share_of,
            "sign": redundancy.SIGN,
            "largest_change": self.changes,
            "permutations": len(shapley.samples),
            "antithetic": settings.antithetic,
            "all": plain(shapley.all.mean()),
            "none": plain(shapley.none.mean()),
            "work": self.work,
        } | {name: found.describe() for name, found in self.found.items()}
        return {"redundancy": told}


def prepare(context: Context) -> Inputs:
    """Prompts to choose sets by, and others to measure them on."""
    chosen, dims = context.config.redundancy, context.model.config
    made_with = context.scoring_tasks()
    check_disjoint(made_with, chosen.tasks, "--redundancy.tasks")
    shape = (dims.num_layers, dims.num_heads)
    redundancy.choose_heads(shape, chosen.heads, np.zeros(shape), chosen.top)
    # Two halves of the items: sets are chosen on one and measured on the other.
    halves: dict[str, list[Prompt]] = {"first": [], "second": []}
    queries: dict[str, list[np.ndarray]] = {"first": [], "second": []}
    for task in context.load(chosen.tasks):
        context.require_telling([task.name], "--redundancy.tasks")
        for pool, made in halves.items():
            drawn = context.draw(
                task,
                chosen.prompts,
                pool=pool,
                no_label_overlap=context.config.no_label_overlap,
            )
            made += drawn
            queries[pool].append(query_numbers(drawn))
    return Inputs(
        context.encode_prompts(halves["first"]),
        context.encode_prompts(halves["second"]),
        chosen,
        context.config.seed,
        np.stack(queries["first"]),
        np.stack(queries["second"]),
    )


def run(inputs: Inputs, job: Job) -> Result:
    """Measure how the chosen heads work together; each batch of subsets is a unit.

    Raises:
        UserError: one head, a clean value of 0, or replacing a chosen head changes
            nothing.
    """
    params, config, advance = job.params, job.config, job.advance
    settings = inputs.settings
    done = 0.0

    def count(flops: float) -> None:
        nonlocal done
        done += flops
        advance(flops)

    def values_of(name: str, batch: Batch) -> SubsetValues:
        return SubsetValues(
            f"redundancy-{name}",
            params,
            config,
            batch,
            job.given.mean_heads if settings.value == "mean" else None,
            METRICS[settings.metric],
            job.folder,
            job.budget,
            count,
        )

    shape = (config.num_layers, config.num_heads)
    ranking = job.given.rankings[settings.ranking_by]
    chosen = redundancy.choose_heads(shape, settings.heads, ranking, settings.top)
    universe = Universe(chosen, shape, settings.others)
    searched = universe
    if settings.universe == "all":
        searched = Universe(np.argwhere(np.ones(shape, bool)), shape, settings.others)
    measured = values_of("selection", inputs.prompts)
    changes = _changes(universe, measured.changes())
    memo = Memo(measured)
    scale = _scale(memo, searched, settings)
    # First, because of few heads it asks for every subset: the rest is known then.
    shares = redundancy.shapley(
        memo,
        universe,
        settings.permutations,
        inputs.seed,
        antithetic=settings.antithetic,
        queries=inputs.queries,
    )
    pairs = redundancy.interactions(memo, universe, inputs.queries)
    paths = {
        name: search(memo, searched, settings.share, scale)
        for name, search in PATHS.items()
    }
    none = universe.replaced(np.zeros((1, len(chosen)), bool))
    timed = measured.whole_forwards(none[0], FORWARDS)
    measured.release()
    held = values_of("held-out", inputs.held_out)
    held.changes()  # its prefixes, timed
    held_memo = Memo(held)
    found = _held_out(held_memo, searched, inputs, scale, paths)
    work = describe_work([(measured, memo), (held, held_memo)], timed, shares.none)
    advance(max(0.0, inputs.cost(config).flops - done))
    return Result(
        universe,
        shares,
        pairs,
        found,
        changes,
        settings,
        work,
        work["prefill_s"] + work["subsets_s"] + timed["seconds"].item(),
    )


def _changes(universe: Universe, changes: np.ndarray) -> list[float]:
    """The largest change of each chosen head; an error where there is none."""
    singles = np.zeros((len(universe), *universe.shape), bool)
    singles[np.arange(len(universe)), universe.heads[:, 0], universe.heads[:, 1]] = True
    named = [
        ({"name": name, "count": 1}, single)
        for name, single in zip(universe.names, singles, strict=True)
    ]
    return largest_changes(named, changes, "at the last position")


def _scale(evaluate, universe: Universe, settings: RedundancyConfig) -> Scale:
    """What a share is: of the clean value, or of its gain over none of the universe."""
    nothing = np.zeros((1, *universe.shape), bool)
    none = universe.replaced(np.zeros((1, len(universe)), bool))
    clean, floor = evaluate(np.concatenate([nothing, none]))
    return Scale(clean, floor if settings.share_of == "gain" else np.zeros_like(floor))


def _held_out(
    evaluate: Memo,
    universe: Universe,
    inputs: Inputs,
    scale: Scale,
    paths: dict[str, Path],
) -> dict[str, Found]:
    """The sets of the searches once more, on prompts that they were not chosen by."""
    kept = np.concatenate([path.kept for path in paths.values()])
    values = evaluate(universe.replaced(kept))
    try:
        other = _scale(evaluate, universe, inputs.settings)
    except UserError:
        other = None  # few prompts may all be wrong; the values stand all the same
    ends = np.cumsum([len(path.kept) for path in paths.values()])[:-1]
    asked = (inputs.queries, inputs.held_out_queries)
    return {
        name: Found(universe, path, scale, part, other, *asked)
        for (name, path), part in zip(
            paths.items(), np.split(values, ends), strict=True
        )
    }

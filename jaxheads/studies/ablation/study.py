"""Which heads few-shot answers need: accuracy while sets of heads are replaced.

Question: how far does few-shot accuracy fall when the top heads of a ranking are
replaced at the last position by their mean, against random heads, and how much is left
when only they are kept? Without demonstrations the same queries show what the model
answers by itself. Source: Yin & Steinhardt 2025, section 4.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from operator import add
from typing import Any

import jax
import numpy as np

from jaxheads.engine import fills, plan
from jaxheads.engine.chunks import distinct, part_of_fill
from jaxheads.engine.devices import gather
from jaxheads.engine.memory import Fit
from jaxheads.engine.passes import of_last_heads
from jaxheads.engine.sweeps import Sweep, continuations, fit_rows, run_rows
from jaxheads.errors import UserError
from jaxheads.heads import head_names, parse_heads
from jaxheads.heads.set_files import read_sets
from jaxheads.heads.sets import (
    Described,
    SetPlan,
    chosen_set,
    largest_changes,
)
from jaxheads.icl.encoding import decode_answers
from jaxheads.icl.metrics import f1_scores
from jaxheads.icl.prompts import Batch, by_task, named_tokens, query_numbers
from jaxheads.runs import Arrays
from jaxheads.studies.ablation.config import AblationConfig
from jaxheads.studies.context import Context, check_disjoint
from jaxheads.studies.job import Given, Job
from jaxheads.weights.model import Model

ARRAYS = {
    "ablation/replaced": ("N L H", "true: replaced"),
    "ablation/queries": ("E B", ""),
    "ablation/*first_token": ("N E B", "1: right"),
    "ablation/*f1": ("N E B", "token F1"),
}
"""Dims and unit of what a run gets, see ``receipt``."""
ADVICE = "give fewer --shots or --ablation.max-new-tokens"
"""What makes the smallest step smaller."""


def chosen_sets(model: Model, asked: AblationConfig) -> list[Described]:
    """The user's own sets: the file's, then the one by heads.

    Raises:
        UserError: a head that the model has not, or a file of another model.
    """
    shape = (model.config.num_layers, model.config.num_heads)
    sets = []
    if asked.sets is not None:
        named = read_sets(asked.sets, shape, model.provenance.params_sha256)
        sets += [chosen_set(name, heads) for name, heads in named.items()]
    if asked.heads:
        own = parse_heads(asked.heads, shape)
        sets.append(chosen_set(" ".join(asked.heads), own))
    return sets


@dataclasses.dataclass(frozen=True)
class Inputs:
    """Prompts of the evaluation tasks.

    Attributes:
        prompts: by task.
        answers: whole answers, by task; empty where answers are one token.
        settings: what is asked of them.
        seed: of random sets, and of outputs that are drawn.
        zero_shot: the same queries without demonstrations, by task; empty: not asked.
        queries: by task, int [B]: prompts with one number ask one query; empty: not
            known, and not in the run.
        own: the user's own sets, run besides those by rankings.
    """

    prompts: dict[str, Batch]
    answers: dict[str, list[str]]
    settings: AblationConfig
    seed: int
    zero_shot: Mapping[str, Batch] = dataclasses.field(default_factory=dict)
    queries: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)
    own: Sequence[Described] = ()

    @property
    def resamples(self) -> bool:
        """Whether heads are replaced by their outputs on prompts of the next task."""
        return self.settings.value == "resample"

    def sets(self, given: Given) -> list[Described]:
        """Every set that is run: those by rankings, then the user's own."""
        asked = self.settings
        made = SetPlan(
            asked.rankings,
            asked.fractions,
            asked.exclusion,
            asked.keep_only,
            asked.draws,
            asked.matched_to,
            self.seed,
            asked.exclusions,
            asked.exclusions_at,
            asked.exclusion_least,
            asked.draws_elsewhere,
        )
        return [*made.build(given.rankings), *self.own]

    def fill(self, given: Given) -> Any:
        """What replaces heads in every task; None: zeros, or made for each task."""
        if self.settings.value not in ("mean", "shuffled_mean"):
            return None
        mean = given.mean_heads
        if self.settings.value == "mean" or isinstance(mean, jax.ShapeDtypeStruct):
            return mean
        return fills.shuffled(np.random.default_rng([self.seed, 7]), mean)

    def stated(self) -> dict[str, Any]:
        """Options as a run's folder states them: sets, not the path of their file."""
        if self.settings.sets is None:
            return {}
        return {
            "sets": [
                {"name": described["name"], "heads": head_names(heads)}
                for described, heads in self.own
            ]
        }

    def tokens(self) -> Arrays:
        """Everything that is fed to the model."""
        named = named_tokens("evaluation", self.prompts)
        return named | named_tokens("evaluation_zero_shot", self.zero_shot)

    def cost(self, config, given: Given) -> plan.Cost:
        """What ``run`` will cost, if no two sets are the same."""
        sets, total = len(self.sets(given)), plan.Cost()
        for batch in self._batches():
            total += self._task_cost(config, batch, sets)
        return total

    def _batches(self) -> list[Batch]:
        return [*self.prompts.values(), *self.zero_shot.values()]

    def fits(self, params, config, given: Given, budget_bytes: int) -> list[Fit]:
        """What ``run`` will call, the same programs for prompts of one length."""
        sets, fill = len(self.sets(given)), self.fill(given)
        lengths = [batch.tokens.shape[1] for batch in self._batches()]
        by_length = dict(zip(lengths, self._batches(), strict=True))
        fits = []
        for length, batch in by_length.items():
            if self.resamples:
                shape = (config.num_layers, len(batch.tokens), 1)
                shape += (config.num_heads, config.head_dim)
                fill = jax.ShapeDtypeStruct(shape, np.float32)
                fits.append(of_last_heads(batch, config).fit(params, budget_bytes))
            sweep, count = self.sweep(config, batch, fill), len(batch.tokens)
            times = lengths.count(length)
            fits += fit_rows(sweep, count, params, sets, budget_bytes, times)[1]
        return fits

    def sweep(self, config, batch: Batch, fill) -> Callable[[Any], Sweep]:
        """Of some of the prompts, by a slice or indices."""
        return lambda rows: continuations(
            batch.tokens[rows],
            batch.lengths[rows],
            config,
            part_of_fill(fill, rows),
            self.settings.max_new_tokens,
        )

    def _task_cost(self, config, batch: Batch, sets: int) -> plan.Cost:
        count, length = batch.tokens.shape
        times = count * sets * self.settings.max_new_tokens
        steps = plan.step(config, length) * times
        passes = 1 + self.resamples  # other prompts' outputs
        return plan.sequence(config, length) * (passes * count) + steps


@dataclasses.dataclass(frozen=True)
class Answers:
    """How right the answers to one kind of prompts are, under every set.

    Attributes:
        first_token: float32 0/1 [N, E, B], whether the first token is right; which it
            is, see ``jaxheads.icl.answers``.
        f1: float32 [N, E, B], token F1 of the whole answer, what stands in the prompt
            of it included, up to the end of the text; None: there is no text.
        changes: float [L, H], largest change of each head if it is replaced.
        seconds: wall time, earlier tries included.
    """

    first_token: np.ndarray
    f1: np.ndarray | None
    changes: np.ndarray
    seconds: float


@dataclasses.dataclass(frozen=True)
class Result:
    """Answers under every set.

    Attributes:
        tasks: E.
        settings: what was asked.
        sets: descriptions, each with its largest change.
        replaced: bool [N, L, H].
        runs: how many different sets there are, which is how many were run.
        few_shot: after demonstrations.
        zero_shot: without them, or None.
        queries: int [E, B], of both: prompts of a task with one number ask one query;
            None: not known.
    """

    tasks: tuple[str, ...]
    settings: AblationConfig
    sets: list[dict]
    replaced: np.ndarray
    runs: int
    few_shot: Answers
    zero_shot: Answers | None
    queries: np.ndarray | None = None

    @property
    def seconds(self) -> float:
        """Wall time, earlier tries included."""
        return self.few_shot.seconds + (self.zero_shot.seconds if self.zero_shot else 0)

    def arrays(self) -> Arrays:
        """Named arrays for the run folder."""
        named = {
            "ablation/replaced": self.replaced,
            "ablation/first_token": self.few_shot.first_token,
        }
        if self.queries is not None:
            named["ablation/queries"] = self.queries
        if self.few_shot.f1 is not None:
            named["ablation/f1"] = self.few_shot.f1
        if self.zero_shot:
            named["ablation/zero_shot/first_token"] = self.zero_shot.first_token
            if self.zero_shot.f1 is not None:
                named["ablation/zero_shot/f1"] = self.zero_shot.f1
        return named

    def describe(self) -> dict[str, Any]:
        """Everything but the arrays, ready for JSON."""
        asked = self.settings
        told = {
            "value": asked.value,
            "positions": "last",
            "fractions": list(asked.fractions),
            "zero_shot": asked.zero_shot,
            "sets": self.sets,
            "sets_run": self.runs,
            "metrics": ["first_token"] + ["f1"] * (self.few_shot.f1 is not None),
            "f1_style": asked.f1_style,
        }
        return {"evaluation_tasks": list(self.tasks), "ablation": told}


def prepare(context: Context) -> Inputs:
    """Prompts of the evaluation tasks, and the user's own sets of heads."""
    chosen, ranking = context.config.ablation, context.ranking
    if ranking is not None:
        shared = set(ranking.result["scoring_tasks"]) & set(chosen.tasks)
        if shared:
            raise UserError(
                "scoring and evaluation tasks must be disjoint, but the ranking in "
                f"{ranking.path} was made with {', '.join(sorted(shared))}: drop them "
                "from --ablation.tasks"
            )
    own = chosen_sets(context.model, chosen)
    prompts, answers, zero_shot, queries = {}, {}, {}, {}
    tasks = context.load(chosen.tasks)
    drawn = context.evaluation_prompts(tasks, chosen.prompts)
    for task, made in zip(tasks, drawn, strict=True):
        prompts[task.name] = context.encode_prompts(made, chosen.max_new_tokens)
        answers[task.name] = [prompt.answer for prompt in made]
        queries[task.name] = query_numbers(made)
        if chosen.zero_shot:
            alone = [context.without_shots(prompt) for prompt in made]
            zero_shot[task.name] = context.encode_prompts(alone, chosen.max_new_tokens)
    if ranking is None:
        scored = context.built_in(context.config.scores.tasks)
        evaluated = context.built_in(chosen.tasks)
        check_disjoint(scored, evaluated, "--ablation.tasks")
    seed = context.config.seed
    return Inputs(prompts, answers, chosen, seed, zero_shot, queries, own)


def run(inputs: Inputs, job: Job) -> Result:
    """Answer every prompt under every set of heads.

    Raises:
        UserError: a non-empty set changes nothing.
    """
    sets = inputs.sets(job.given)
    replaced = np.stack([heads for _, heads in sets])
    few_shot = _answers(inputs, inputs.prompts, "ablation", replaced, job)
    zero_shot = None
    if inputs.zero_shot:
        kind = "ablation-zero-shot"
        zero_shot = _answers(inputs, inputs.zero_shot, kind, replaced, job)
        largest_changes(sets, zero_shot.changes, "at the last position, zero-shot")
    largest = largest_changes(sets, few_shot.changes, "at the last position")
    return Result(
        tasks=(*inputs.prompts,),
        settings=inputs.settings,
        sets=[
            described | {"largest_change": change}
            for (described, _), change in zip(sets, largest, strict=True)
        ],
        replaced=replaced,
        runs=len(distinct(replaced)[0]),
        few_shot=few_shot,
        zero_shot=zero_shot,
        queries=by_task(inputs.queries, inputs.prompts),
    )


def _answers(
    inputs: Inputs,
    prompts: Mapping[str, Batch],
    unit_name: str,
    replaced: np.ndarray,
    job: Job,
) -> Answers:
    """Answer all tasks' prompts of one kind, a unit a task."""
    tokenizer, folder, advance = job.tokenizer, job.folder, job.advance
    fill = inputs.fill(job.given)
    units, correct, f1 = [], [], []
    for task, batch in prompts.items():
        cost = inputs._task_cost(job.config, batch, len(replaced)).flops

        def compute(task=task, batch=batch, cost=cost) -> Arrays:
            own = _resampled(inputs, task, job) if inputs.resamples else fill
            told = lambda share: advance(cost * share)
            made = _task(inputs, batch, replaced, own, job, told)
            # Tokens cannot be NaN: -1 stands for logits that are not finite.
            unread = np.where(made["tokens"] < 0, np.float32(np.nan), 0)
            axes = {"logits": ("N", "B", "new token"), "changes": "LH"}
            folder.check({"logits": unread, **made}, axes, f"{unit_name}-{task}")
            return made

        if folder.has(f"{unit_name}-{task}"):
            advance(cost)
        unit = folder.unit(f"{unit_name}-{task}", compute)
        units.append(unit)
        correct.append(unit["tokens"][..., 0] == batch.targets[None])  # [N, B]
        if tokenizer is None:
            continue
        answers, begun = inputs.answers[task], batch.begun()
        f1.append(
            [
                f1_scores(
                    decode_answers(map(add, begun, row), tokenizer),
                    answers,
                    inputs.settings.f1_style,
                )
                for row in unit["tokens"].tolist()
            ]
        )
    return Answers(
        np.stack(correct, axis=1).astype(np.float32),
        np.stack(f1, axis=1).astype(np.float32) if f1 else None,
        np.max([unit["changes"] for unit in units], axis=0),
        float(sum(unit["seconds"] for unit in units)),
    )


def _task(inputs: Inputs, batch: Batch, replaced, fill, job: Job, advance) -> Arrays:
    """Answers [N, B, M] of one task, and each head's largest change [L, H].

    ``advance`` is told shares of the task that are done.
    """
    changes = []

    def look(rows, prefix) -> None:
        own = part_of_fill(fill, rows)
        changes.append(_largest_change(gather(prefix.heads), own))

    sweep, count = inputs.sweep(job.config, batch, fill), len(batch.tokens)
    tokens = run_rows(sweep, count, job.params, replaced, job.budget, advance, look)
    return {"tokens": tokens, "changes": np.max(changes, axis=0)}


def _largest_change(heads: np.ndarray, fill: np.ndarray | None) -> np.ndarray:
    """Of head outputs [L, B, H, K], by being replaced: [L, H]."""
    if fill is not None:
        heads = heads - (fill[:, None] if fill.ndim == 3 else fill[:, :, 0])
    return np.abs(heads).max(axis=(1, 3))


def _resampled(inputs: Inputs, task: str, job: Job) -> np.ndarray:
    """Outputs on prompts of the next task, one for each prompt: [L, B, 1, H, K]."""
    names = list(inputs.prompts)
    index = names.index(task)
    other = inputs.prompts[names[(index + 1) % len(names)]]
    heads = of_last_heads(other, job.config).run(job.params, job.budget)
    heads = heads.astype(np.float32, copy=False)  # as the plan has it
    rng = np.random.default_rng([inputs.seed, 8, index])
    count = len(inputs.prompts[task].tokens)
    return heads[:, rng.integers(0, len(other.tokens), count)][:, :, None]

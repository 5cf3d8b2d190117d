"""Do function vectors carry out their tasks? Accuracy with them added to prompts.

Question: a task's function vector is what the top heads of a ranking add to the stream
on average at the end of the task's clean prompts. Added to prompts that do not show
the task (labels shuffled, or no demonstrations), does it bring the right answers, where
vectors of as many random heads do not? At which layer, and with how many heads?

The vector's prompts and the evaluated ones share no item. The output projection's bias
is no head's, and is left out of the vector; ``bias="each_head"`` adds it once for each
head, as the published code does.

Source: Todd et al. 2024, section 3; Yin & Steinhardt 2025, appendix A.6.
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxheads.engine.devices import gather, mesh_of, replicate
from jaxheads.engine.passes import of_last_heads
from jaxheads.errors import UserError
from jaxheads.heads import head_names
from jaxheads.heads.sets import Described
from jaxheads.icl.prompts import query_numbers, unchanged_share
from jaxheads.runs import Arrays
from jaxheads.studies.context import QUERY_MULTIPLE, Context
from jaxheads.studies.function_vectors.config import ExecutionConfig
from jaxheads.studies.function_vectors.inputs import KINDS, PROMPTS, Inputs
from jaxheads.studies.function_vectors.vectors import (
    Answers,
    answer_rows,
    function_vector,
    read_out,
)
from jaxheads.studies.job import Job
from jaxheads.tokenizer.tokenizer import Tokenizer

ARRAYS = {
    "execution/vectors": ("U W D", "residual stream"),
    "execution/heads": ("W L H", "true: in the vector"),
    "execution/layers": ("X", "layer"),
    "execution/queries": ("U B", ""),
    **{
        f"execution/{what}/*{condition}": (dims, unit)
        for what, unit in (("right", "true: right"), ("probability", "probability"))
        for condition, dims in (
            ("_vector", "U X B"),
            ("_random", "U Y X B"),
            ("_random_sizes", "U Y Z B"),
            ("_sizes", "U Z B"),
            ("", "U B"),
        )
    },
}
"""Dims and unit of what a run gets, see ``receipt``."""
ADVICE = "give fewer --shots"
"""What makes the smallest step smaller."""


@dataclasses.dataclass(frozen=True)
class Result:
    """Answers under every condition: U tasks, B prompts, X layers, Y draws, Z sizes.

    Attributes:
        answers: by condition. "clean", "shuffled", "zero_shot": [U, B], without a
            vector. Of the latter two, with "_vector" behind: with the task's function
            vector at each layer, [U, X, B]; "_random": with those of random heads,
            [U, Y, X, B]; "_sizes" and "_random_sizes": of each size at one layer,
            [U, Z, B] and [U, Y, Z, B].
        vectors: float32 [U, W, D], of every set.
        sets: W of them, see ``Inputs.sets``.
        layers: X.
        layer: of the sizes.
        counts: heads of each size, Z.
        queries: int [U, B]: a task's prompts with one number ask one query.
        read_outs: by task, ready for JSON.
        inputs: what was asked.
        seconds: wall time, earlier tries included.
    """

    answers: dict[str, Answers]
    vectors: np.ndarray
    sets: list[Described]
    layers: list[int]
    layer: int
    counts: list[int]
    queries: np.ndarray
    read_outs: dict[str, dict[str, Any]]
    inputs: Inputs
    seconds: float

    def arrays(self) -> Arrays:
        """Named arrays for the run folder."""
        named: Arrays = {
            "execution/vectors": self.vectors,
            "execution/heads": np.stack([heads for _, heads in self.sets]),
            "execution/layers": np.array(self.layers, np.int32),
            "execution/queries": self.queries,
        }
        for name, found in self.answers.items():
            named[f"execution/right/{name}"] = found.right
            named[f"execution/probability/{name}"] = found.probability
        return named

    def describe(self) -> dict[str, Any]:
        """Everything but the arrays, ready for JSON."""
        asked: ExecutionConfig = self.inputs.settings
        answered = self.answers["clean"].right.sum(axis=1)
        told = {
            "tasks": list(asked.tasks),
            "prompts": asked.prompts,
            "items": self.inputs.items,
            "mean": asked.mean,
            "mean_prompts": asked.clean_prompts if asked.mean == "task" else None,
            "ranking_by": asked.ranking_by,
            "bias": asked.bias,
            "place": asked.place,
            "positions": "last",
            "count": self.sets[0][0]["count"],
            "heads": head_names(self.sets[0][1]),
            "random_sets": asked.random_sets,
            "layer": self.layer,
            "counts": self.counts,
            "sets": [told for told, _ in self.sets],
            "by_task": {
                task: {
                    "answered": int(answered[at]),
                    "queries": len(np.unique(self.queries[at])),
                }
                | self.read_outs[task]
                for at, task in enumerate(asked.tasks)
            },
        }
        return {"execution": told}


def prepare(context: Context) -> Inputs:
    """Prompts of every task and kind, and those that its vector is made of."""
    chosen = context.config.execution
    if not chosen.tasks:
        raise UserError("--execution.tasks is empty: name one task or more")
    overlap = {"no_label_overlap": context.config.no_label_overlap}
    own = chosen.clean_prompts if chosen.mean == "task" else 0
    vector, conditions, queries = {}, {}, {}
    for task in context.load(chosen.tasks):
        draw = functools.partial(context.draw, task, **overlap)
        clean = draw(chosen.prompts, pool="second")
        shuffled = draw(chosen.prompts, pool="second", corrupt="permutation")
        alone = [context.without_shots(prompt) for prompt in clean]
        # Together, so that all with demonstrations are padded to one length.
        made = context.encode_prompts([*clean, *shuffled, *draw(own, pool="first")])
        kinds = (
            made.part(slice(len(clean))),
            made.part(slice(len(clean), 2 * len(clean))),
            context.encode_prompts(alone, multiple=QUERY_MULTIPLE),
        )
        conditions[task.name] = dict(zip(PROMPTS, kinds, strict=True))
        if own:
            vector[task.name] = made.part(slice(2 * len(clean), None))
        queries[task.name] = query_numbers(clean)
        context.tasks[task.name]["unchanged_share"] = unchanged_share(shuffled)
    context.require_telling(queries, "--execution.tasks")
    return Inputs(vector, conditions, queries, chosen, context.config.seed)


def run(inputs: Inputs, job: Job) -> Result:
    """Add the vectors of every task to its prompts, and see what is answered.

    Heads are chosen by a ranking of the job, and its mean heads make the vectors where
    the task's own do not. A task is a unit.

    Raises:
        UserError: a vector is zero.
    """
    params, config, tokenizer = job.params, job.config, job.tokenizer
    assert tokenizer is not None  # it made the inputs
    ranking = job.given.rankings[inputs.settings.ranking_by]
    sets = inputs.sets(config, ranking)
    heads = np.stack([chosen for _, chosen in sets])
    runner = _Runner(inputs, params, config, heads, job.given.mean_heads, job.budget)
    units = []
    for task in inputs.conditions:
        unit = job.folder.unit(
            f"execution-{task}",
            lambda task=task: runner.task(task),
            {"vectors": "WD"},
        )
        units.append(unit)
        job.advance(inputs.task_cost(config, task).flops)
    vectors = np.stack([unit["vectors"] for unit in units])
    if not np.linalg.norm(vectors, axis=-1).all():
        raise UserError(
            "a function vector is zero, and adding it would change nothing: give other "
            "heads or tasks"
        )
    return Result(
        answers=_conditions(inputs, config, units),
        vectors=vectors,
        sets=sets,
        layers=inputs.layers(config),
        layer=config.num_layers // 3,
        counts=inputs.size_counts(config),
        queries=np.stack([inputs.queries[task] for task in inputs.conditions]),
        read_outs=_read_outs(params, config, tokenizer, inputs, vectors[:, 0]),
        inputs=inputs,
        seconds=float(sum(unit["seconds"] for unit in units)),
    )


class _Runner:
    """Runs a task; the arguments are those of ``run``."""

    def __init__(self, inputs: Inputs, params, config, heads, mean_heads, budget_bytes):
        self._inputs, self._params, self._config = inputs, params, config
        self._heads, self._mean, self._budget = heads, mean_heads, budget_bytes
        self._chunks: dict[tuple, int] = {}

    def task(self, task: str) -> Arrays:
        """Vectors [W, D] of a task, and answers of its prompts by kind."""
        unit: Arrays = {"vectors": self._vectors(task)}
        for kind, batch in self._inputs.conditions[task].items():
            rows = self._inputs.rows(
                self._config, kind, batch, self._budget, unit["vectors"]
            )
            plain, steered = answer_rows(
                self._params, self._config, batch, rows, self._chunk(kind, batch)
            )
            for name in Answers._fields:
                unit[f"{kind}/plain/{name}"] = getattr(plain, name)
                unit[f"{kind}/steered/{name}"] = getattr(steered, name)
        return unit

    def _vectors(self, task: str) -> np.ndarray:
        mesh, mean = mesh_of(self._params), self._mean
        if task in self._inputs.vector_prompts:
            batch = self._inputs.vector_prompts[task]
            heads = of_last_heads(batch, self._config)
            each = heads.in_chunks(self._params, self._chunk("vector", batch))
            mean = each.mean(axis=1, dtype=np.float32)
        mean, heads = replicate((mean, self._heads), mesh)
        bias = self._inputs.settings.bias
        make = lambda chosen: function_vector(
            self._params, mean, chosen, self._config, bias
        )
        return np.asarray(gather(jax.vmap(make)(jnp.asarray(heads))), np.float32)

    def _chunk(self, kind: str, batch) -> int:
        """Prompts that run at once; the same for all batches of one shape."""
        key = (kind, batch.tokens.shape)
        if key not in self._chunks:
            self._chunks[key] = self._inputs.fit(
                self._params, self._config, kind, batch, self._budget
            ).chunk
        return self._chunks[key]


def _conditions(inputs: Inputs, config, units: list[Arrays]) -> dict[str, Answers]:
    """Answers by condition, out of those of all runs in turn."""
    stack = lambda name: Answers(
        *(
            np.stack([unit[f"{name}/{field}"] for unit in units])
            for field in Answers._fields
        )
    )
    found = {"clean": stack("clean/plain")}
    draws, layers = 1 + inputs.settings.random_sets, inputs.layers(config)
    counts, wanted = inputs.counts(config), inputs.size_counts(config)
    places = [counts.index(count) for count in wanted]
    at = layers.index(config.num_layers // 3)
    for kind in KINDS:
        swept, sized = [], []
        for part in stack(f"{kind}/steered"):  # [U, R, B]
            tasks, _, prompts = part.shape
            many = draws * len(layers)
            swept.append(part[:, :many].reshape(tasks, draws, len(layers), prompts))
            others = part[:, many:].reshape(tasks, -1, draws, prompts)
            sizes = np.concatenate([swept[-1][:, None, :, at], others], axis=1)
            sized.append(sizes[:, places].swapaxes(1, 2))  # [U, 1 + Y, Z, B]
        pick = lambda parts, index: Answers(*(part[:, index] for part in parts))
        found[kind] = stack(f"{kind}/plain")
        found[f"{kind}_vector"] = pick(swept, 0)
        found[f"{kind}_sizes"] = pick(sized, 0)
        if draws > 1:
            found[f"{kind}_random"] = pick(swept, slice(1, None))
            found[f"{kind}_random_sizes"] = pick(sized, slice(1, None))
    return found


def _read_outs(
    params, config, tokenizer: Tokenizer, inputs: Inputs, vectors: np.ndarray
) -> dict[str, dict[str, Any]]:
    """Tokens that each task's vector [U, D] speaks for, whole and beside the others'.

    Vectors of all tasks share a large part; what is left without their mean names the
    task.
    """
    shown = {"read_out": vectors}
    if len(vectors) > 1 and inputs.settings.mean == "task":
        shown["read_out_apart"] = vectors - vectors.mean(axis=0)
    told: dict[str, dict[str, Any]] = {task: {} for task in inputs.conditions}
    for name, each in shown.items():
        count = min(inputs.settings.read_out, config.vocab_size)
        each = replicate(np.asarray(each, np.float32), mesh_of(params))
        ids, logits = gather(read_out(params, each, config, count))
        for at, task in enumerate(told):
            told[task][name] = [
                {"token": tokenizer.decode([id]), "id": id, "logit": round(logit, 4)}
                for id, logit in zip(ids[at].tolist(), logits[at].tolist(), strict=True)
            ]
    return told

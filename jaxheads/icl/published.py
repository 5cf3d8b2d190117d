r"""Prompts drawn as the reference study's code draws them, item for item.

Given the reference's task files and its seed, the prompts are the same texts (but for
``<|endoftext|>`` in front, which is a token here: BOS). What that takes:

- A file's items stay as they are: duplicates, answers with spaces around them, empty
  answers. A column of numbers is read as numbers, a list of answers is shown as Python
  writes a list, and its first entry is the right one.
- The items are split twice at one share with one seed: into ``train``, which gives
  demonstrations, and the rest; and the rest into ``test``, unused here, and ``valid``,
  which gives queries. Share 0.3 and seed 0 to score heads, 0.9 and 32 to evaluate.
- One stream of random numbers serves all tasks in their order, and the clean prompts of
  a task before its corrupted ones. So prompts depend on the tasks before and on how
  many are drawn of each: the first 16 of 100 prompts are those of a list of 16 for the
  first task's clean prompts alone (when scoring), or for the first task (when
  evaluating).
- To score heads, a query is drawn anew for each prompt; to evaluate, prompt i asks item
  i of ``valid``. The code stops where ``valid`` has no item i; so does this.

Random token ids, which the reference's code takes from torch, are not reproduced.

Source: Yin & Steinhardt 2025 (arXiv 2502.14010), code repository.
"""

import dataclasses
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxheads.errors import UserError
from jaxheads.icl.prompts import Prompt
from jaxheads.icl.tasks import Task
from jaxheads.icl.templates import Template

BUILT_IN = "built-in"


@dataclasses.dataclass(frozen=True)
class Split:
    """How items are split.

    Attributes:
        share: of the items that are not for demonstrations, and of those that are for
            queries.
        seed: of both permutations.
    """

    share: float
    seed: int


SCORING = Split(0.3, 0)
EVALUATION = Split(0.9, 32)


@dataclasses.dataclass(frozen=True)
class Item:
    """An item of a task file.

    Attributes:
        given: the input.
        shown: the answer as demonstrations show it.
        answer: the right answer, stripped.
    """

    given: str
    shown: str
    answer: str


def split_indices(count: int, split: Split) -> tuple[np.ndarray, np.ndarray]:
    """Which of ``count`` items are demonstrations ("train"), and which queries.

    A permutation's first ``ceil(share * count)`` items are set apart, the others are
    for demonstrations; and the same again among those set apart.

    Returns:
        Indices of the demonstrations and of the queries ("valid"), each in the order in
        which they are drawn from.

    Source: scikit-learn, ``train_test_split`` with a test share and a seed.
    """
    demonstrations, rest = _once(np.arange(count), split)
    _, queries = _once(rest, split)
    return demonstrations, queries


def _once(indices: np.ndarray, split: Split) -> tuple[np.ndarray, np.ndarray]:
    apart = math.ceil(split.share * len(indices))
    order = indices[np.random.RandomState(split.seed).permutation(len(indices))]
    return order[apart:], order[:apart]


def scoring_prompts(
    tasks: Sequence[Task],
    clean: int,
    corrupted: int,
    shots: int,
    seed: int,
    template: Template | None = None,
) -> list[tuple[list[Prompt], list[Prompt]]]:
    """Clean prompts and prompts with permuted labels of each task, to score heads.

    Args:
        tasks: in the order in which they are drawn.
        clean: prompts a task.
        corrupted: prompts a task.
        shots: demonstrations a prompt.
        seed: of the one stream of random numbers; the reference's is 42.
        template: how a prompt is written; None: the reference's.

    Returns:
        The two kinds of each task.

    Raises:
        UserError: a task has too few items.
    """
    rng, template = np.random.RandomState(seed), template or Template()
    return [
        (
            _scoring(task, rng, clean, shots, template, shuffled=False),
            _scoring(task, rng, corrupted, shots, template, shuffled=True),
        )
        for task in tasks
    ]


def evaluation_prompts(
    tasks: Sequence[Task],
    count: int,
    shots: int,
    seed: int,
    template: Template | None = None,
) -> list[list[Prompt]]:
    """Clean prompts of each task, to evaluate: prompt i asks the i-th query.

    Args:
        tasks: in the order in which they are drawn.
        count: prompts a task.
        shots: demonstrations a prompt.
        seed: of the one stream of random numbers; the reference's is 42.
        template: how a prompt is written; None: the reference's.

    Raises:
        UserError: a task has too few items.
    """
    rng, template = np.random.RandomState(seed), template or Template()
    drawn = []
    for task in tasks:
        shown, queries = _pools(task, EVALUATION, shots)
        answers = answers_of(task)
        if count > len(queries):
            raise UserError(
                f"task {task.name} has {len(queries)} queries when its items are split "
                f"as the published code does, {count} are asked for, one a prompt: ask "
                "for fewer, or draw with --drawing jaxheads"
            )
        drawn.append(
            [
                _prompt(query, _shots(shown, rng, shots), template, answers)
                for query in queries[:count]
            ]
        )
    return drawn


def _scoring(
    task: Task,
    rng: np.random.RandomState,
    count: int,
    shots: int,
    template: Template,
    shuffled: bool,
) -> list[Prompt]:
    """Prompts of one task, demonstrations first, then the query, then the labels."""
    shown, queries = _pools(task, SCORING, shots)
    prompts, answers = [], answers_of(task)
    for _ in range(count):
        clean = _shots(shown, rng, shots)
        query = queries[rng.choice(len(queries), 1, replace=False)[0]]
        order = rng.permutation(shots) if shuffled else np.arange(shots)
        prompts.append(_prompt(query, clean, template, answers, order))
    return prompts


def _pools(task: Task, split: Split, shots: int) -> tuple[list[Item], list[Item]]:
    items = items_of(task)
    demonstrations, queries = split_indices(len(items), split)
    if len(demonstrations) < max(shots, 1) or not len(queries):
        raise UserError(
            f"task {task.name} has {len(items)} items, of which {len(demonstrations)} "
            "are for demonstrations when they are split as the published code does, "
            f"{shots} are needed: ask for fewer shots, leave the task out, or draw "
            "with --drawing jaxheads"
        )
    return [items[i] for i in demonstrations], [items[i] for i in queries]


def _shots(items: list[Item], rng: np.random.RandomState, shots: int) -> list[Item]:
    return [items[i] for i in rng.choice(len(items), shots, replace=False)]


def _prompt(
    query: Item,
    clean: list[Item],
    template: Template,
    answers: tuple[str, ...],
    order: np.ndarray | None = None,
) -> Prompt:
    pairs = tuple((item.given, item.shown) for item in clean)
    shown = pairs
    if order is not None:
        shown = tuple((pairs[i][0], pairs[j][1]) for i, j in enumerate(order))
    text = template.write(shown, query.given)
    return Prompt(text, query.answer, query.given, shown, pairs, template, answers)


def items_of(task: Task) -> list[Item]:
    """A task's items as its file has them; those of a built-in task as they are."""
    if task.source.startswith(BUILT_IN):
        pairs = zip(task.inputs, task.outputs, strict=True)
        return [Item(given, answer, answer) for given, answer in pairs]
    read = json.loads(Path(task.source).read_text(encoding="utf-8-sig"))
    inputs = _column([item["input"] for item in read])
    outputs = _column([item["output"] for item in read])
    return [
        Item(
            str(given),
            str(output),
            str(output[0] if isinstance(output, list) else output).strip(),
        )
        for given, output in zip(inputs, outputs, strict=True)
    ]


def answers_of(task: Task) -> tuple[str, ...]:
    """All right answers of a task's items, each once."""
    return tuple(dict.fromkeys(item.answer for item in items_of(task)))


def _column(values: list[Any]) -> list[Any]:
    """A column in which every entry is a number, written or meant, as numbers."""
    try:
        numbers = [float(value) for value in values]
    except (TypeError, ValueError):
        return values
    if all(number.is_integer() for number in numbers):
        return [int(number) for number in numbers]
    return numbers

"""Few-shot prompts: drawn from a task, corrupted, and turned into padded tokens.

Let B be the number of prompts and T the padded length.
"""

import math
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from jaxheads.errors import UserError
from jaxheads.icl.answers import Answers
from jaxheads.icl.encoding import Tokenizer, encode_text
from jaxheads.icl.tasks import Task
from jaxheads.icl.templates import TEMPLATES, Template

# Each use of randomness has a number of its own, so that none shifts another.
_POOL, _SPLIT, _QUERIES, _DEMONSTRATIONS, _LABELS = range(5)
_QUERY_SHARE = 0.3
CORRUPTIONS = ("permutation", "derangement")
POOLS = ("all", "first", "second")


@dataclass(frozen=True)
class Prompt:
    """One few-shot prompt.

    Attributes:
        text: The prompt; ends where the answer begins.
        answer: The query's right answer, without a leading space.
        query: The query's input.
        shots: The demonstrations as the text shows them.
        clean_shots: The same demonstrations with their own labels.
        template: How the text is written.
        answers: All answers of the task, this one among them: what they share is no
            answer (see ``jaxheads.icl.answers``). Empty: this one alone is known.
    """

    text: str
    answer: str
    query: str
    shots: tuple[tuple[str, str], ...]
    clean_shots: tuple[tuple[str, str], ...]
    template: Template = TEMPLATES["qa"]
    answers: tuple[str, ...] = ()


@dataclass(frozen=True)
class Batch:
    """Prompts as tokens.

    Attributes:
        tokens: Ids, padded on the right with 0, int32 [B, T].
        lengths: Tokens of each prompt, int32 [B].
        targets: The token of each answer that follows the prompt, int32 [B].
        shared: How many of a prompt's last tokens begin its answer, because all answers
            of its task begin with them, int32 [B]; None: no prompt has such tokens.
    """

    tokens: np.ndarray
    lengths: np.ndarray
    targets: np.ndarray
    shared: np.ndarray | None = None

    def part(self, rows: slice | np.ndarray) -> "Batch":
        """Some of the prompts, at the same padded length."""
        shared = None if self.shared is None else self.shared[rows]
        tokens, lengths = self.tokens[rows], self.lengths[rows]
        return Batch(tokens, lengths, self.targets[rows], shared)

    def begun(self) -> list[list[int]]:
        """The ids of each answer that stand in its prompt already, [B] lists."""
        shared = np.zeros_like(self.lengths) if self.shared is None else self.shared
        rows = zip(self.tokens.tolist(), self.lengths, shared, strict=True)
        return [row[length - count : length] for row, length, count in rows]


def build_prompts(
    task: Task,
    count: int,
    shots: int,
    seed: int,
    *,
    pool: str = "all",
    corrupt: str | None = None,
    template: Template | None = None,
    no_label_overlap: bool = False,
) -> list[Prompt]:
    """Draw few-shot prompts from a task.

    The rule, for a task of n distinct inputs (an input's first answer counts):

    - The items are split once per task and seed into queries, 30 % of n (at least
      one, at most n - shots), and demonstrations, the rest. No item is ever both.
    - Prompt i takes query i of a random order of the queries; when they are used up,
      a new random order begins, and the prompts differ by their demonstrations.
    - Its demonstrations are drawn without replacement, for each prompt anew.
    - Every draw depends on the seed, the task's name, its purpose and i alone. So the
      first prompts of a longer list are the shorter list, tasks do not touch each
      other, and clean and corrupted prompts of one seed differ in labels only.

    ``corrupt`` says which demonstration's label stands at which place. "permutation"
    draws uniformly from all permutations, the identity included. "derangement" draws
    uniformly from those that leave no label in its own place; where two demonstrations
    have equal labels, one may still show its right answer (``unchanged_share`` counts
    that).

    ``no_label_overlap`` is a control for copying: no demonstration of a prompt has the
    query's answer as its label. All other draws stay; a prompt for whose answer no
    label had to be left out is the one without the control.

    Args:
        task: The task.
        count: Number of prompts, B.
        shots: Demonstrations a prompt.
        seed: Seed, 0 or more.
        pool: "all" items, or the "first" or "second" of two halves that are disjoint
            whatever the seeds (for two studies of one task).
        corrupt: None, "permutation" (the papers') or "derangement".
        template: How a prompt is written; None means ``Template()``.
        no_label_overlap: Leave out demonstrations labelled with the query's answer.

    Returns:
        The prompts.

    Raises:
        UserError: The task is too small, or an argument is out of range.

    Source: Todd et al. 2024 (arXiv 2310.15213), section 2.2; Yin & Steinhardt 2025
    (arXiv 2502.14010), section 2; no label overlap: Sahin et al. 2025 (arXiv
    2511.05743).
    """
    _check(count, shots, seed, pool, corrupt)
    template = template or Template()
    items = _items(task, pool)
    if len(items) < shots + 1:
        where = "" if pool == "all" else f" in its {pool} half"
        raise UserError(
            f"task {task.name} has {len(items)} items with different inputs{where}, "
            f"{shots + 1} are needed for {shots} shots and a query: ask for fewer "
            "shots or leave it out."
        )
    name = zlib.crc32(task.name.encode())

    def generator(stage: int, index: int = 0) -> np.random.Generator:
        return np.random.default_rng([seed, name, stage, index])

    order = generator(_SPLIT).permutation(len(items))
    cut = min(max(1, round(_QUERY_SHARE * len(items))), len(items) - shots)
    queries, demonstrations = order[:cut], order[cut:]
    answers = task.answers
    prompts = []
    for index in range(count):
        turn, place = divmod(index, cut)
        query, answer = items[generator(_QUERIES, turn).permutation(queries)[place]]
        allowed = demonstrations
        if no_label_overlap:
            others = [items[item][1] != answer for item in demonstrations]
            allowed = demonstrations[np.array(others, bool)]
            _check_allowed(task, len(allowed), shots, answer)
        drawn = generator(_DEMONSTRATIONS, index).choice(allowed, shots, False)
        clean = tuple(items[item] for item in drawn)
        shown = _corrupted(clean, corrupt, generator(_LABELS, index))
        text = template.write(shown, query)
        prompts.append(Prompt(text, answer, query, shown, clean, template, answers))
    return prompts


def unchanged_share(prompts: Sequence[Prompt]) -> float:
    """Give the share of demonstrations that show their own label, from 0 to 1.

    Args:
        prompts: Prompts with at least one demonstration in all.

    Returns:
        The share, over all demonstrations of all prompts; 1 for clean prompts, and
        nan when there is no demonstration.
    """
    same = [
        shown == clean
        for prompt in prompts
        for shown, clean in zip(prompt.shots, prompt.clean_shots, strict=True)
    ]
    return sum(same) / len(same) if same else math.nan


def query_numbers(prompts: Sequence[Prompt]) -> np.ndarray:
    """Number the queries that prompts ask, int32 [B]: equal numbers, one query.

    What several prompts say of one query is no more independent than its answers are:
    intervals and tests count queries (``statistics.units``).

    Args:
        prompts: Prompts of one task, B of them.
    """
    asked = [prompt.query for prompt in prompts]
    return np.unique(asked, return_inverse=True)[1].astype(np.int32)


def by_task(
    queries: Mapping[str, np.ndarray], tasks: Iterable[str]
) -> np.ndarray | None:
    """Stack the query numbers of tasks, int32 [E, B]; None where they are not known.

    Args:
        queries: By task, of ``query_numbers``; empty: not known.
        tasks: In the order that is wanted.
    """
    return np.stack([queries[task] for task in tasks]) if queries else None


def named_tokens(kind: str, prompts: Mapping[str, Batch]) -> dict[str, np.ndarray]:
    """Arrays of prompts as a run keeps them: "prompts/KIND/TASK", and what belongs."""
    named = {}
    for task, batch in prompts.items():
        named[f"prompts/{kind}/{task}"] = batch.tokens
        named[f"prompts/{kind}/{task}/lengths"] = batch.lengths
        named[f"prompts/{kind}/{task}/targets"] = batch.targets
    return named


def encode_prompts(
    prompts: Sequence[Prompt],
    tokenizer: Tokenizer,
    *,
    bos: bool,
    max_length: int | None = None,
    multiple: int = 32,
    targets: str = "informative",
) -> Batch:
    """Turn prompts into right-padded tokens, up to the token that tells the answer.

    A prompt's ids are those of its text, then those with which all answers of its task
    begin; its target is the id that follows in the ids of prompt and answer together.
    Where the tokenizer merges across the border, the answer's ids are those of the
    answer with its leading space. See ``jaxheads.icl.answers``.

    Args:
        prompts: Prompts, B of them; of several tasks, if need be.
        tokenizer: The model's tokenizer.
        bos: Whether each prompt begins with the tokenizer's BOS token.
        max_length: Longest prompt allowed, in tokens: the model's context.
        multiple: T is the longest prompt, rounded up to this, and no more than
            ``max_length``: few shapes, few compiles.
        targets: "informative", as above; "published": the first token of the answer,
            though all answers may begin with it.

    Returns:
        The batch.

    Raises:
        UserError: There is no prompt; a prompt is too long; ``bos`` is asked of a
            tokenizer without one, or of a text that already begins with it.
        ValueError: A prompt's answer is not among its ``answers``.
    """
    if not prompts:
        raise UserError("at least one prompt is needed, there is none: ask for more.")
    if multiple < 1:
        raise UserError(f"the padding multiple must be 1 or more, not {multiple}.")
    rows, wanted, shared = [], [], []
    for ids, answer, count in encode_answers(prompts, tokenizer, bos, targets):
        rows.append([*ids, *answer[:count]])
        wanted.append(answer[count])
        shared.append(count)
    longest = max(range(len(rows)), key=lambda row: len(rows[row]))
    if max_length is not None and len(rows[longest]) > max_length:
        raise UserError(
            f"prompt {longest + 1} ({len(prompts[longest].shots)} shots) has "
            f"{len(rows[longest])} tokens, the model's context holds {max_length}: ask "
            "for fewer shots or leave out tasks with long items."
        )
    width = -(-len(rows[longest]) // multiple) * multiple
    tokens = np.zeros((len(rows), min(width, max_length or width)), np.int32)
    for row, ids in enumerate(rows):
        tokens[row, : len(ids)] = ids
    lengths = [len(ids) for ids in rows]
    return Batch(tokens, *(np.array(x, np.int32) for x in (lengths, wanted, shared)))


def encode_answers(
    prompts: Sequence[Prompt],
    tokenizer: Tokenizer,
    bos: bool,
    targets: str = "informative",
) -> Iterator[tuple[list[int], list[int], int]]:
    """Turn prompts and their right answers into ids, one after the other.

    Args:
        prompts: Prompts, of several tasks if need be.
        tokenizer: The model's tokenizer.
        bos: Whether each prompt begins with the tokenizer's BOS token.
        targets: As for ``encode_prompts``.

    Yields:
        Ids of the text; those of the answer as it goes on from it, all of them; and how
        many of these all answers of the task begin with, so that they tell nothing.

    Raises:
        UserError: An answer has no token, or as ``encode_text``.
        ValueError: A prompt's answer is not among its ``answers``.
    """
    of_task: dict[tuple, Answers] = {}
    for prompt in prompts:
        answers = prompt.answers or (prompt.answer,)
        key = (answers, prompt.template)
        if key not in of_task:
            of_task[key] = Answers(answers, prompt.template, tokenizer, targets)
        if prompt.answer not in answers:
            raise ValueError(
                f"the answer {prompt.answer!r} to {prompt.query!r} must be among the "
                f"{len(answers)} answers of its prompt's task, it is not"
            )
        ids = encode_text(prompt.text, tokenizer, bos)
        own = ids[1:] if bos else ids
        found = of_task[key]
        yield ids, found.after(prompt.text, own, prompt.answer), len(found.shared)


def _check(count: int, shots: int, seed: int, pool: str, corrupt: str | None) -> None:
    for name, value in (("count", count), ("shots", shots), ("seed", seed)):
        if value < 0:
            raise UserError(f"{name} must be 0 or more, not {value}.")
    if pool not in POOLS:
        raise UserError(f"the pool is one of {', '.join(POOLS)}, not {pool!r}.")
    if corrupt not in (None, *CORRUPTIONS):
        raise UserError(
            f"the corruption is none or one of {', '.join(CORRUPTIONS)}, not "
            f"{corrupt!r}."
        )
    if corrupt == "derangement" and shots == 1:
        raise UserError(
            "a derangement needs two shots or more, there is one: ask for more shots "
            "or for a permutation."
        )


def _check_allowed(task: Task, allowed: int, shots: int, answer: str) -> None:
    if allowed < shots:
        raise UserError(
            f"task {task.name} has {allowed} demonstrations with a label other than "
            f"the answer {answer!r}, {shots} are needed without label overlap: ask for "
            "fewer shots, allow the overlap or leave the task out."
        )


def _items(task: Task, pool: str) -> list[tuple[str, str]]:
    """List the distinct items of a pool; its halves depend on the task's name alone."""
    items: dict[str, str] = {}
    for given, wanted in zip(task.inputs, task.outputs, strict=True):
        items.setdefault(given, wanted)
    pairs = list(items.items())
    if pool == "all":
        return pairs
    rng = np.random.default_rng([zlib.crc32(task.name.encode()), _POOL])
    order = rng.permutation(len(pairs))
    half = len(pairs) // 2
    return [pairs[i] for i in (order[:half] if pool == "first" else order[half:])]


def label_order(
    count: int, corrupt: str | None, rng: np.random.Generator
) -> np.ndarray:
    """Which demonstration's label stands at which place; see ``build_prompts``.

    Args:
        count: Demonstrations; 2 or more for a derangement.
        corrupt: None, "permutation" or "derangement".
        rng: Of the draw.

    Returns:
        A permutation of 0 to ``count`` - 1, int [count].
    """
    places = np.arange(count)
    if corrupt is None:
        return places
    order = rng.permutation(places)
    # Rejection keeps the draw uniform over derangements; e tries on average.
    while corrupt == "derangement" and np.any(order == places):
        order = rng.permutation(places)
    return order


def _corrupted(
    clean: tuple[tuple[str, str], ...], corrupt: str | None, rng: np.random.Generator
) -> tuple[tuple[str, str], ...]:
    """Move the labels of the demonstrations among themselves."""
    order = label_order(len(clean), corrupt, rng)
    return tuple((clean[i][0], clean[j][1]) for i, j in enumerate(order))

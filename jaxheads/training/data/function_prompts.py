"""Few-shot prompts of a function mixture's own tasks, as token ids.

Each function of the family is a task. A prompt is a function block of the source, right
after BOS if there is one, cut before its last answer::

    BOS x_1 f(x_1) ... x_n f(x_n) x_q

As in the source no input comes twice, so that the answer f(x_q) stands nowhere in the
prompt. A corrupted prompt has the answers of its demonstrations moved among themselves.
"""

import zlib
from typing import Literal

import numpy as np

from jaxheads.errors import UserError
from jaxheads.icl.prompts import CORRUPTIONS, Batch, label_order
from jaxheads.training.data.function_mixture import FunctionMixture

# Each use of randomness has a number of its own, so that none shifts another.
_INPUTS, _LABELS = range(2)
PURPOSES = ("scoring", "evaluation")


def task_names(source: FunctionMixture) -> tuple[str, ...]:
    """The functions in the family's order: "shift-1", ..., "table-1", ..."""
    shifts = [f"shift-{step}" for step in range(1, source.shifts + 1)]
    return (*shifts, *(f"table-{i}" for i in range(1, source.tables + 1)))


def most_shots(source: FunctionMixture, context_length: int) -> int:
    """How many demonstrations and a query fit into a window and the model's context."""
    length = min(source.sequence_length, context_length) - source.bos
    return min(source.inputs - 1, (length - 1) // 2)


def draw_prompts(
    source: FunctionMixture,
    task: str,
    count: int,
    shots: int,
    seed: int,
    *,
    corrupt: str | None = None,
    purpose: Literal["scoring", "evaluation"] = "scoring",
) -> Batch:
    """Draw prompts of one function.

    Every draw depends on the seed, the task, the purpose and the prompt's number alone:
    clean and corrupted prompts of one purpose differ in their labels only.

    Args:
        source: of the functions.
        task: one of ``task_names``.
        count: prompts, B.
        shots: demonstrations, n.
        seed: 0 or more.
        corrupt: None, "permutation" (uniform over all, the identity included) or
            "derangement" of the demonstrations' answers.
        purpose: other prompts for each.

    Returns:
        Tokens [B, T] with T = BOS + 2 n + 1, all of one length; the targets are the
        right answers.

    Raises:
        UserError: an unknown task or corruption, or more demonstrations than inputs.
    """
    names = task_names(source)
    if task not in names:
        raise UserError(
            f"a task of the function mixture is one of {', '.join(names)}, not {task!r}"
        )
    if corrupt not in (None, *CORRUPTIONS) or (corrupt == "derangement" and shots < 2):
        raise UserError(
            "labels are moved by a permutation, or by a derangement of 2 or more, not "
            f"by {corrupt!r} of {shots}: give another"
        )
    if not 0 <= shots < source.inputs:
        raise UserError(
            f"demonstrations and a query must be different ones of the "
            f"{source.inputs} inputs, but there are {shots} and 1: ask for fewer shots"
        )
    function = source.functions[names.index(task)]
    key = [seed, zlib.crc32(f"function mixture {task}".encode())]
    rows, targets = [], []
    for index in range(count):
        stage = [*key, PURPOSES.index(purpose), index]
        rng = np.random.default_rng([*stage, _INPUTS])
        *shown, query = rng.choice(source.inputs, shots + 1, replace=False)
        shown = np.array(shown, int)
        order = label_order(shots, corrupt, np.random.default_rng([*stage, _LABELS]))
        answers = function[shown[order]] + source.inputs
        pairs = np.stack([shown, answers], axis=1).ravel()
        begin = [source.vocab_size - 1] if source.bos else []
        rows.append([*begin, *pairs, query])
        targets.append(function[query] + source.inputs)
    tokens = np.array(rows, np.int32)
    lengths = np.full(count, tokens.shape[1], np.int32)
    return Batch(tokens, lengths, np.array(targets, np.int32))


def unchanged_share(clean: Batch, corrupted: Batch, source: FunctionMixture) -> float:
    """Share of demonstrations of corrupted prompts that show their own answer."""
    answers = (slice(None), slice(int(source.bos) + 1, None, 2))
    return float((clean.tokens[answers] == corrupted.tokens[answers]).mean())

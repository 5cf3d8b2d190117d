"""Few-shot tasks of a model in training on text, the same prompts throughout a run.

Prompts are those of ``jaxheads.icl``, drawn once. A model that is trained on short
windows may have no room for all demonstrations: each task gets as many as its prompts
have room for, one at least.
"""

import dataclasses
import hashlib
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxheads.engine.chunks import over_prompts
from jaxheads.errors import UserError
from jaxheads.icl.prompts import build_prompts, encode_answers
from jaxheads.icl.tasks import load_tasks
from jaxheads.models.forward import forward
from jaxheads.tokenizer.tokenizer import Tokenizer
from jaxheads.training.probes import BUDGET_BYTES
from jaxheads.training.step import over_runs

ALL = "all"
"""In place of names: every built-in task."""
_MULTIPLE = 16  # lengths are rounded up to this
Row = tuple[list[int], list[int], int]
"""Ids of a prompt, of its answer, and how many of these say nothing of it."""


@dataclasses.dataclass(frozen=True, eq=False)
class FewShot:
    """Prompts with their answers, A tasks of B each; from ``draw_fewshot``.

    Attributes:
        tasks: names, A.
        shots: demonstrations of each task's prompts.
        left_out: tasks out of all that have no room for a demonstration.
        bos: whether prompts begin with BOS.
        tokens: prompts and answers without the last token, padded with 0, int32
            [A, B, T].
        at: positions whose next tokens are the answer's, int32 [A, B, P].
        answers: the answers' tokens, padded with 0, int32 [A, B, P].
        scored: what of them is no padding, bool [A, B, P].
        shared: how many of an answer's first tokens all answers of its task begin with
            (see ``jaxheads.icl.answers``): the next one tells it, int32 [A, B].
    """

    tasks: tuple[str, ...]
    shots: tuple[int, ...]
    left_out: tuple[str, ...]
    bos: bool
    tokens: np.ndarray
    at: np.ndarray
    answers: np.ndarray
    scored: np.ndarray
    shared: np.ndarray

    def describe(self) -> dict[str, Any]:
        """What is asked, ready for JSON."""
        content = (self.tokens, self.at, self.answers, self.shared)
        sha256 = hashlib.sha256(b"".join(x.astype("<i4").tobytes() for x in content))
        return {
            "tasks": list(self.tasks),
            "shots": list(self.shots),
            "left_out": list(self.left_out),
            "bos": self.bos,
            "shared_tokens": self.shared[:, 0].tolist(),  # how many
            "sha256": sha256.hexdigest(),
        }


def draw_fewshot(
    names: Sequence[str],
    tokenizer: Tokenizer,
    *,
    bos: bool,
    max_length: int,
    shots: int = 10,
    prompts: int = 16,
    seed: int = 0,
) -> FewShot:
    """Draw the prompts of named tasks.

    Args:
        names: as ``jaxheads tasks`` lists them, or "all" alone for every built-in one.
        tokenizer: of the training text.
        bos: whether prompts begin with its BOS.
        max_length: tokens of a prompt with its answer, at most.
        shots: demonstrations; a task whose prompts have no room for them, or that has
            too few items, gets as many as there is room for.
        prompts: of each task, B.
        seed: of the draws.

    Raises:
        UserError: an unknown task or one twice; a named task, or all of them, without
            room for one demonstration.
    """
    every = tuple(names) == (ALL,)
    if len(set(names)) < len(names) or (ALL in names and not every):
        raise UserError(
            "--evidence-tasks takes different tasks, or all alone, not "
            f"{' '.join(names)!r}: name each once"
        )
    made: dict[str, tuple[int, list[Row]]] = {}
    left_out = []
    for task in load_tasks(None if every else names):
        for count in range(min(shots, len(set(task.inputs)) - 1), 0, -1):
            drawn = build_prompts(task, prompts, count, seed)
            rows = list(encode_answers(drawn, tokenizer, bos))
            if max(len(ids) + len(answer) for ids, answer, _ in rows) <= max_length:
                made[task.name] = (count, rows)
                break
        else:
            left_out.append(task.name)
    if left_out and (not every or not made):
        raise UserError(
            f"prompts of one demonstration must fit the {max_length} tokens of a "
            f"window, but those of {', '.join(left_out[:5])} do not: train on longer "
            "windows, or leave these tasks out of --evidence-tasks"
        )
    shown = tuple(count for count, _ in made.values())
    arrays = _arrays([rows for _, rows in made.values()], max_length)
    return FewShot(tuple(made), shown, tuple(left_out), bos, *arrays)


def _arrays(made: list[list[Row]], max_length: int) -> tuple[np.ndarray, ...]:
    """Tokens, positions, answers, what of them counts and what is shared, padded."""
    rows = [row for task in made for row in task]
    longest = max(len(prompt) + len(answer) - 1 for prompt, answer, _ in rows)
    length = min(-(-longest // _MULTIPLE) * _MULTIPLE, max_length)
    width = max(len(answer) for _, answer, _ in rows)
    tokens = np.zeros((len(rows), length), np.int32)
    at, answers = np.zeros((2, len(rows), width), np.int32)
    scored = np.zeros((len(rows), width), bool)
    for row, (prompt, answer, _) in enumerate(rows):
        ids = [*prompt, *answer[:-1]]
        tokens[row, : len(ids)] = ids
        at[row, : len(answer)] = np.arange(len(prompt) - 1, len(ids))
        answers[row, : len(answer)] = answer
        scored[row, : len(answer)] = True
    shape = (len(made), len(made[0]))
    arrays = (x.reshape(*shape, -1) for x in (tokens, at, answers, scored))
    shared = np.array([count for *_, count in rows], np.int32).reshape(shape)
    return (*arrays, shared)


def fewshot_figures(params: Any, few: FewShot, config: Any) -> dict[str, np.ndarray]:
    """How well models answer, by task.

    - "fewshot_accuracy": share of prompts after which the answer's first token is the
      likeliest one; after those tokens that all answers of the task begin with;
    - "fewshot_log_probability": log-probability of the whole answer, the sum over all
      its tokens, mean over prompts; nats.

    Args:
        params: leaves [N, ...].
        few: from ``draw_fewshot``.
        config: of the model.

    Returns:
        float32 [N, A] by name.

    Source: Yin & Steinhardt 2025, section 2 (first-token accuracy).
    """
    tasks, count, length = few.tokens.shape
    runs, width = jax.tree.leaves(params)[0].shape[0], few.at.shape[2]
    wide = 8 * config.width + 2 * config.mlp_width + 2 * config.num_heads * length
    each = 4 * runs * (length * wide + 3 * width * config.vocab_size)
    arrays = (few.tokens, few.at, few.answers, few.shared)
    rows = tuple(x.reshape(tasks * count, -1) for x in arrays)
    parts = over_prompts(
        _answered, params, rows, (config,), chunk=max(1, BUDGET_BYTES // each)
    )
    right, given = (
        np.concatenate(each, axis=-1)[..., : tasks * count]
        for each in zip(*parts, strict=True)
    )  # [N, A B], [N, P, A B]
    given = np.where(few.scored.reshape(tasks * count, -1).T, given, 0.0)
    shape = (runs, tasks, count)
    return {
        "fewshot_accuracy": right.reshape(shape).mean(axis=2, dtype=np.float32),
        "fewshot_log_probability": given.sum(axis=1, dtype=np.float64)
        .reshape(shape)
        .mean(axis=2)
        .astype(np.float32),
    }


@jax.jit
def _answered(params, tokens, at, answers, shared, config):
    """Whether first tokens are right, [N, B]; log-probabilities [N, P, B]."""

    def of_run(one):
        logits = forward(one, tokens, config, logits=at).logits.astype(jnp.float32)
        given = jax.nn.log_softmax(logits, axis=-1)
        own = jnp.take_along_axis(given, answers[:, :, None], axis=-1)[:, :, 0]
        right = jnp.argmax(logits, axis=-1) == answers
        return jnp.take_along_axis(right, shared, axis=1)[:, 0], own.T

    return over_runs(of_run)(params)

"""Function vectors put to work: one task's prompts, under the papers' conditions.

For instance, with a task's function vector and those of as many random heads::

    prompts = build_conditions(task, 100, 10, 0, model.tokenizer, bos=False)
    run = execute(params, config, prompts, vector, random, layers=range(layers))
    run.accuracy("answered")["zero_shot_vector"].mean  # [A], by layer
"""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from jaxheads.errors import UserError
from jaxheads.icl.encoding import Tokenizer
from jaxheads.icl.prompts import Batch, build_prompts, encode_prompts
from jaxheads.icl.tasks import Task
from jaxheads.icl.templates import Template
from jaxheads.statistics.units import mean_and_error
from jaxheads.studies.function_vectors.vectors import Answers, answered_with

PROMPTS = ("clean", "shuffled", "zero_shot")
AMONG = ("all", "answered")


def build_conditions(
    task: Task,
    count: int,
    shots: int,
    seed: int,
    tokenizer: Tokenizer,
    *,
    bos: bool,
    pool: str = "all",
    corrupt: str = "permutation",
    template: Template | None = None,
    max_length: int | None = None,
    targets: str = "informative",
) -> dict[str, Batch]:
    """The same queries after clean demonstrations, shuffled ones, and none.

    Args:
        task: the task.
        count: queries, B.
        shots: demonstrations of the clean and the shuffled prompts.
        seed: of all draws.
        tokenizer: of the model.
        bos: whether prompts begin with the BOS token.
        pool: as for ``build_prompts``; the vector's own prompts take the other half.
        corrupt: "permutation" (the papers') or "derangement".
        template: how prompts are written; None: ``Template()``.
        max_length: the model's context, in tokens.
        targets: as for ``encode_prompts``.

    Returns:
        A batch for each of ``PROMPTS``; all end with the same tokens of an answer.

    Raises:
        UserError: as ``build_prompts`` and ``encode_prompts`` do.
    """
    template = template or Template()
    build = functools.partial(
        build_prompts, task, count, shots, seed, pool=pool, template=template
    )
    clean = build()
    bare = [
        dataclasses.replace(
            prompt, text=template.write((), prompt.query), shots=(), clean_shots=()
        )
        for prompt in clean
    ]
    of = {"clean": clean, "shuffled": build(corrupt=corrupt), "zero_shot": bare}
    return {
        name: encode_prompts(
            of[name], tokenizer, bos=bos, max_length=max_length, targets=targets
        )
        for name in PROMPTS
    }


class Accuracy(NamedTuple):
    """A share of right answers; chance is near 0, the ceiling is 1.

    Attributes:
        mean: float [] or [A], by layer, over prompts (and over the vectors of random
            heads); nan without prompts.
        standard_error: the same shape, over queries, the vectors of random heads fixed;
            nan with fewer than two.
        prompts: how many.
    """

    mean: np.ndarray
    standard_error: np.ndarray
    prompts: int


@dataclasses.dataclass(frozen=True)
class Execution:
    """What one task's prompts were answered, with its function vector and without.

    Attributes:
        layers: int [A], where the vector was added, one run each.
        place: "leaving" or "entering" the layer.
        correct: whether the most likely first token was the right one. "clean",
            "shuffled", "zero_shot": bool [B], without a vector; "shuffled_vector",
            "zero_shot_vector": [A, B]; "shuffled_random", "zero_shot_random": with
            the vectors of random heads, [R, A, B].
        probability: of the right first token, the same shapes.
    """

    layers: np.ndarray
    place: str
    correct: dict[str, np.ndarray]
    probability: dict[str, np.ndarray]

    def accuracy(
        self, among: str = "all", queries: np.ndarray | None = None
    ) -> dict[str, Accuracy]:
        """Top-1 accuracy of the first answer token, by condition.

        Args:
            among: "all" prompts; or "answered": those answered right with clean
                demonstrations (the papers' filter, under which clean is 1).
            queries: int [B], of ``icl.prompts.query_numbers``: prompts with one number
                ask one query; None: each prompt asks its own.
        """
        if among not in AMONG:
            raise UserError(f"the accuracy is among one of {AMONG}, not {among!r}.")
        clean = self.correct["clean"]
        kept = np.ones_like(clean) if among == "all" else clean
        out = {}
        for name, correct in self.correct.items():
            samples = correct[..., kept].astype(np.float64)
            samples = samples.mean(axis=0) if samples.ndim == 3 else samples
            nothing = np.full(samples.shape[:-1], np.nan)
            mean, error = nothing, nothing
            if kept.any():
                asked = None if queries is None else queries[None, kept]
                mean, error = mean_and_error(samples[..., None, :], asked)
            out[name] = Accuracy(mean, error, int(kept.sum()))
        return out


def execute(
    params,
    config,
    prompts: Mapping[str, Batch],
    vector: np.ndarray,
    random: np.ndarray | None = None,
    *,
    layers: Sequence[int] | None = None,
    place: str = "leaving",
    chunk: int = 8,
    budget_bytes: int = 2**30,
) -> Execution:
    """Run a task's function vector on prompts that do not show the task.

    Args:
        params: of the family of ``config``.
        config: of the model.
        prompts: a batch for each of ``PROMPTS``, of the same B queries in one order.
        vector: float [D], of the task.
        random: float [R, D], of as many random heads; None: no control.
        layers: where to add the vector, one run each; None: L // 3 alone.
        place: "leaving" (the published code's) or "entering" the layer.
        chunk: prompts that run at once.
        budget_bytes: for the activations and logits of runs that go at once.

    Returns:
        Execution: right or wrong, and how probable, for each prompt.

    Raises:
        UserError: batches whose right answers differ, an unknown layer or place.

    Source: Yin & Steinhardt 2025, appendix A.6; Todd et al. 2024, section 3.1.
    """
    for name in PROMPTS:
        if not np.array_equal(prompts[name].targets, prompts["clean"].targets):
            raise UserError(
                f"the {name} and the clean prompts must have the same answers in one "
                "order, but they differ: build them from one seed."
            )
    layers = [config.num_layers // 3] if layers is None else layers
    random = np.zeros((0, config.width)) if random is None else np.asarray(random)
    vectors = np.concatenate([np.asarray(vector)[None], random])
    run = functools.partial(
        answered_with,
        params,
        config,
        layers=layers,
        place=place,
        chunk=chunk,
        budget_bytes=budget_bytes,
    )
    answers = {"clean": run(prompts["clean"], vectors[:0])[0]}
    for name in PROMPTS[1:]:
        plain, steered = run(prompts[name], vectors)
        answers |= {name: plain, f"{name}_vector": _part(steered, 0)}
        if len(random):
            answers[f"{name}_random"] = _part(steered, slice(1, None))
    return Execution(
        np.array(layers, np.int32),
        place,
        {name: each.right for name, each in answers.items()},
        {name: each.probability for name, each in answers.items()},
    )


def _part(answers: Answers, index) -> Answers:
    return Answers(*(part[index] for part in answers))

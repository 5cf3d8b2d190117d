"""The inputs of a study out of a training's own tokens, where there is no tokenizer.

A function mixture has tasks in token space: each of its functions is one. So the scores
of a text model are computed on prompts of these (``training.data.function_prompts``),
on its text tokens repeated, and on its held-out windows.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxheads.errors import UserError
from jaxheads.icl.prompts import Batch
from jaxheads.scores import induction
from jaxheads.scores.config import ScoresConfig
from jaxheads.scores.part import Asked, parts
from jaxheads.studies.ablation import study as few_shot
from jaxheads.studies.config import StudyConfig
from jaxheads.studies.inputs import Prepared
from jaxheads.studies.scores import study
from jaxheads.training.data.function_mixture import (
    FunctionMixture,
    draw_prompts,
    most_shots,
    task_names,
    unchanged_share,
)
from jaxheads.training.data.windows import EVALUATION_STREAM, Source
from jaxheads.training.probes import probe_ids

_OTHER = "_test"
"""After the name of a task: other prompts of it, on which answers are counted."""
_TEXT_OPTIONS = {
    "tasks": ("--tasks", None),
    "text": ("--text", None),
    "drawing": ("--drawing", "jaxheads"),
    "targets": ("--targets", "informative"),
    "template": ("--template", "qa"),
}
"""Options about text, by field: their names, and what they are if left out."""


def own_config(
    config: StudyConfig, source: FunctionMixture, context_length: int
) -> StudyConfig:
    """A config as it holds of a function mixture: its tasks, and sizes that fit.

    Tasks of text in ``scores.tasks``, as every protocol has them, stand for all of the
    family's functions; its own may be named instead. Few-shot accuracy is of the same
    ones on other prompts ("shift-1_test"), and answers are one token. The usual length
    of the induction probe stands for the longest period of the source's copying blocks:
    heads that look no further back than training asks for would not show on a longer
    one, which may be asked for all the same. Where ``shots``, that probe or the
    documents are longer than a window or the model's context, they are shortened to
    what fits.

    Args:
        config: as asked for.
        source: of training.
        context_length: of the model.

    Raises:
        UserError: an option about text, tasks of which only some are the source's, or
            no room for two demonstrations.
    """
    for name, (option, usual) in _TEXT_OPTIONS.items():
        if getattr(config, name) != usual:
            raise UserError(
                f"{option} is about text, but this training is on token ids of a "
                "function mixture: leave it out"
            )
    if config.scores.probe_tokens != "ids":
        raise UserError(
            "--scores.probe-tokens must be ids where there is no tokenizer, but is "
            f"{config.scores.probe_tokens}: leave it out"
        )
    if config.bos not in (None, source.bos):
        raise UserError(
            f"--bos must be as in training, {source.bos}, but is {config.bos}: leave "
            "it out"
        )
    shots = min(config.shots, most_shots(source, context_length))
    if shots < 2:
        raise UserError(
            "prompts must have room for 2 demonstrations and a query, but a window of "
            f"{source.sequence_length} tokens, {source.inputs} inputs and --shots "
            f"{config.shots} give {shots}: train on longer windows or give more shots"
        )
    room = min(source.sequence_length, context_length) - source.bos
    scores = dataclasses.replace(
        config.scores,
        tasks=_chosen(config.scores.tasks, source),
        sequence_length=min(
            _probe_length(config, source), room // 2, source.text_tokens
        ),
        document_length=min(config.scores.document_length, room),
    )
    answered = dataclasses.replace(
        config.ablation,
        tasks=tuple(f"{task}{_OTHER}" for task in scores.tasks),
        max_new_tokens=1,
    )
    return dataclasses.replace(
        config, scores=scores, ablation=answered, shots=shots, bos=source.bos
    )


def _probe_length(config: StudyConfig, source: FunctionMixture) -> int:
    """Random tokens before they repeat."""
    asked = config.scores.sequence_length
    usual = asked == ScoresConfig().sequence_length
    return max(2, source.longest_period) if usual else asked


def _chosen(asked: Sequence[str], source: FunctionMixture) -> tuple[str, ...]:
    names = task_names(source)
    own = [name for name in asked if name in names]
    if own and len(own) < len(asked):
        other = next(name for name in asked if name not in names)
        raise UserError(
            f"--scores.tasks of this training are of {', '.join(names)}, but {other!r} "
            "is none: leave it out"
        )
    return tuple(own) or names


def prepare_tokens(
    config: StudyConfig,
    source: FunctionMixture,
    context_length: int,
    parts: Sequence[str],
) -> Prepared:
    """Make every input of a study on a function mixture.

    Args:
        config: from ``own_config``.
        source: of training.
        context_length: of the model.
        parts: "scores", and "ablation" for few-shot accuracy.

    Raises:
        UserError: a score that needs text, or a probe that does not fit.
    """
    maker = _Maker(config, source, context_length)
    inputs: dict[str, Any] = {"scores": maker.scores()}
    if "ablation" in parts:
        inputs["ablation"] = maker.evaluation()
    return Prepared(inputs, maker.tasks, source.bos)


class _Maker:
    """Makes the inputs of each part; what ``score_inputs`` makes probes from."""

    def __init__(self, config: StudyConfig, source: FunctionMixture, context: int):
        self.config, self.source, self.context = config, source, context
        self.seed = config.seed
        ids, self.bos_id = probe_ids(source)
        self.vocabulary: Sequence[int] = ids.tolist()
        self.tasks: dict[str, dict[str, Any]] = {}

    def encode(self, text: str) -> list[int]:
        """Refuse text."""
        raise UserError(
            f"--scores.names has a score that needs text such as {text[:20]!r}, but "
            "this training is on token ids: leave it out"
        )

    def straw(self, length: int, count: int) -> np.ndarray:
        """Held-out windows without BOS, int32 [count, length]."""
        windows = self.source.batch(0, count, stream=EVALUATION_STREAM)
        begin = int(self.source.bos)
        return windows.tokens[:, begin : begin + length]

    def scores(self) -> study.Inputs:
        chosen, bos = self.config.scores, self.source.bos
        clean, corrupted = {}, {}
        for task in chosen.tasks:
            clean[task], corrupted[task] = self._clean_and_corrupted(task)
        windows = self.source.batch(0, chosen.documents, stream=EVALUATION_STREAM)
        made = study.Inputs(
            clean,
            corrupted,
            induction.probe(
                chosen.sequences,
                chosen.sequence_length,
                self.vocabulary,
                self.bos_id,
                self.seed,
            ),
            chosen.sequence_length,
            bos,
            windows.tokens[:, : chosen.document_length + bos],
            "held-out windows of the function mixture",
            self.config.shots,
            chosen.names,
            parts(Asked(chosen, self, clean, self.config.shots)),
        )
        for part in made.parts:
            for name, ids in part.tokens.items():
                if ids.ndim == 2 and ids.shape[1] > self.context:
                    raise UserError(
                        f"{name} has sequences of {ids.shape[1]} tokens, but the "
                        f"model's context is {self.context}: leave that score out"
                    )
        return made

    def _clean_and_corrupted(self, task: str) -> tuple[Batch, Batch]:
        chosen = self.config.scores
        clean = self._draw(task, chosen.clean_prompts)
        count = chosen.corrupted_prompts
        corrupted = self._draw(task, count, corrupt=chosen.corrupt)
        same = self._draw(task, count)
        self.tasks[task] = {
            "kind": "abstractive",
            "items": self.source.inputs,
            "source": "function mixture",
            "unchanged_share": unchanged_share(same, corrupted, self.source),
        }
        return clean, corrupted

    def evaluation(self) -> few_shot.Inputs:
        chosen = self.config.ablation
        prompts, alone = {}, {}
        for task in chosen.tasks:
            made = self._draw(
                task.removesuffix(_OTHER), chosen.prompts, purpose="evaluation"
            )
            prompts[task] = made
            if chosen.zero_shot:
                alone[task] = _queries(made, self.source.bos)
        return few_shot.Inputs(prompts, {}, chosen, self.config.seed, alone)

    def _draw(self, task: str, count: int, **keywords: Any) -> Batch:
        shots, seed = self.config.shots, self.config.seed
        return draw_prompts(self.source, task, count, shots, seed, **keywords)


def _queries(prompts: Batch, bos: bool) -> Batch:
    """The same queries without demonstrations."""
    kept = [0, -1] if bos else [-1]
    lengths = np.full(len(prompts.tokens), len(kept), np.int32)
    return Batch(prompts.tokens[:, kept], lengths, prompts.targets)


def require_tasks(source: Source, name: str) -> FunctionMixture:
    """The source, if it has tasks in token space.

    Args:
        source: of training.
        name: of the run, for the error.

    Raises:
        UserError: it has none.
    """
    if isinstance(source, FunctionMixture):
        return source
    raise UserError(
        "function-vector scores need tasks, which text and function-mixture have, but "
        f"{name} was trained on {type(source).__name__}, which has none: train on one "
        "of the two (`jaxheads report` shows the induction scores of this run)"
    )

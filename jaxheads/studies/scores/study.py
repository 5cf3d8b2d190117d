"""Which heads score high: function vector, induction, previous token, and others.

Question: how much does each head's output on a task restore the answer, and how much
does each head attend as an induction head would? Source: Yin & Steinhardt 2025,
section 3; Todd et al. 2024, section 2; Olsson et al. 2022. `scores.registry` has
the scores that are computed when asked for.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from jaxheads.engine import plan
from jaxheads.engine.memory import Fit
from jaxheads.engine.passes import Pass, of_last_heads
from jaxheads.heads import HeadScores
from jaxheads.icl.prompts import Batch, by_task, named_tokens
from jaxheads.runs import Arrays
from jaxheads.scores import (
    attention,
    function_vector,
    induction,
    induction_text,
    previous_token,
    registry,
)
from jaxheads.scores.part import Asked, Part, parts
from jaxheads.studies.context import Context
from jaxheads.studies.job import Given, Job

ARRAYS = {
    "score/*": ("L H", "the score's"),
    "fv/effects_by_prompt": ("A L H B", "probability"),
    "fv/effects": ("A L H", "probability"),
    "fv/mean_heads": ("L H K", "activation"),
    "fv/queries": ("A B", ""),
}
"""Dims and unit of what a run gets, see ``receipt``."""
ADVICE = (
    "give fewer --shots, a shorter --scores.sequence-length or a shorter "
    "--scores.document-length"
)
"""What makes the smallest step smaller."""


@dataclasses.dataclass(frozen=True)
class Inputs:
    """Token arrays of the study.

    Attributes:
        clean: clean prompts, by task.
        corrupted: prompts with shuffled labels, by task, padded like the clean ones.
        probe: random tokens repeated once, int32 [B, T].
        probe_length: tokens before they repeat.
        probe_bos: whether the probe begins with BOS.
        documents: int32 [B, T].
        text: what the documents are.
        shots: demonstrations a prompt.
        names: scores that are computed besides the usual ones.
        parts: what computes those of them that need probes of their own.
        probe_lengths: of a probe that went through text, int32 [B]; None: of a probe of
            token ids, which all have one length.
        queries: by task, int [B] of the corrupted prompts: those with one number ask
            one query; empty: not known, and not in the run.
    """

    clean: dict[str, Batch]
    corrupted: dict[str, Batch]
    probe: np.ndarray
    probe_length: int
    probe_bos: bool
    documents: np.ndarray
    text: str
    shots: int
    names: tuple[str, ...] = ()
    parts: tuple[Part, ...] = ()
    probe_lengths: np.ndarray | None = None
    queries: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)

    def tokens(self) -> Arrays:
        """Everything that is fed to the model."""
        named = named_tokens("clean", self.clean)
        named |= named_tokens("corrupted", self.corrupted)
        named["prompts/induction"] = self.probe
        if self.probe_lengths is not None:
            named["prompts/induction/lengths"] = self.probe_lengths
        named["prompts/previous_token"] = self.documents
        for part in self.parts:
            named |= part.tokens
        return named

    def cost(self, config, given: Given | None = None) -> plan.Cost:
        """What ``run`` will cost."""
        del given
        total = self._attention_cost(config)
        for task in self.clean:
            total += self._task_cost(config, task)
        for part in self.parts:
            total += part.cost(config)
        return total

    def fits(self, params, config, given: Given | None, budget_bytes: int) -> list[Fit]:
        """What ``run`` will call, the same programs for tasks of one length."""
        del given
        lengths = [batch.tokens.shape[1] for batch in self.clean.values()]
        tasks = dict(zip(lengths, self.clean, strict=True))
        fill = jax.ShapeDtypeStruct(
            (config.num_layers, config.num_heads, config.head_dim), np.float32
        )
        fits = [each.fit(params, budget_bytes) for each in self.passes(config)]
        for length, task in tasks.items():
            heads = of_last_heads(self.clean[task], config)
            for each in (heads, self._effects(config, task, fill)):
                fits.append(each.fit(params, budget_bytes, lengths.count(length)))
        for part in self.parts:
            fits += part.fits(params, config, budget_bytes)
        return fits

    def passes(self, config) -> list[Pass]:
        """Those that look at attention: over the probe, then over the documents."""
        previous = {"previous_token": previous_token.edges(self.documents.shape[1])}
        on_documents = attention.of_edges(self.documents, config, previous)
        if self.probe_lengths is not None:
            lengths = self.probe_lengths
            return [on_documents, induction_text.reading(self.probe, lengths, config)]
        length, bos = self.probe_length, self.probe_bos
        edges = {"induction": induction.edges(length, bos)}
        others = self.on_probe()
        edges |= {name: file.edges(length, bos) for name, file in others.items()}
        weighted = tuple(name for name, file in others.items() if file.VALUE_WEIGHTED)
        return [attention.of_edges(self.probe, config, edges, weighted), on_documents]

    def on_probe(self) -> dict[str, Any]:
        """Files of the further scores on the induction probe, by name."""
        return {
            name: registry.load(name)
            for name, score in registry.EXTRA_SCORES.items()
            if score.on_probe and name in self.names
        }

    def _effects(self, config, task: str, mean_heads: Any) -> Pass:
        """Effects of all heads on a task's corrupted prompts."""
        corrupted = self.corrupted[task]
        length = corrupted.tokens.shape[1]
        return Pass(
            f"effects of all heads on {length}-token prompts",
            function_vector.effects,
            (corrupted.tokens, corrupted.lengths, corrupted.targets),
            (mean_heads, config),
            plan.sequence(config, length) + plan.every_head(config, length),
            positions=length + config.num_layers * config.num_heads,
        )

    def _attention_cost(self, config) -> plan.Cost:
        total = plan.sequence(config, self.probe.shape[1], 0) * len(self.probe)
        documents = plan.sequence(config, self.documents.shape[1], 0)
        return total + documents * len(self.documents)

    def _task_cost(self, config, task: str) -> plan.Cost:
        clean, corrupted = self.clean[task], self.corrupted[task]
        length = clean.tokens.shape[1]
        prompts = len(clean.tokens) + len(corrupted.tokens)
        patched = plan.every_head(config, length) * len(corrupted.tokens)
        return plan.sequence(config, length) * prompts + patched


@dataclasses.dataclass(frozen=True)
class Result:
    """Scores of every head.

    Attributes:
        scores: "function_vector", "induction", "induction_yin", "previous_token", then
            those that were asked for.
        tasks: that heads are scored by, A.
        mean_heads: [L, H, K], mean head output at the last position of clean prompts,
            over prompts, then tasks: the ablation value.
        effects: [A, L, H, B], effect by task and prompt, probability.
        queries: int [A, B], which query each prompt asks; None: not known.
        seconds: wall time of the parts, earlier tries included.
    """

    scores: dict[str, HeadScores]
    tasks: tuple[str, ...]
    mean_heads: np.ndarray
    effects: np.ndarray
    queries: np.ndarray | None
    seconds: float

    def describe(self) -> dict[str, Any]:
        """What the scores mean, ready for JSON; a ceiling that is infinite is None."""
        means = {
            name: {
                key: None if isinstance(value, float) and math.isinf(value) else value
                for key, value in score.describe().items()
            }
            for name, score in self.scores.items()
        }
        return {"scores": means, "scoring_tasks": list(self.tasks)}

    def arrays(self) -> Arrays:
        """Named arrays for the run folder."""
        named: Arrays = {}
        for name, score in self.scores.items():
            named[f"score/{name}"] = score.mean.astype(np.float32)
            named[f"score/{name}_se"] = score.standard_error.astype(np.float32)
        named["fv/mean_heads"] = self.mean_heads
        named["fv/effects"] = self.effects.mean(axis=-1).astype(np.float32)
        named["fv/effects_by_prompt"] = self.effects.astype(np.float32)
        if self.queries is not None:
            named["fv/queries"] = self.queries
        return named


def prepare(context: Context) -> Inputs:
    """Prompts, probes and documents that heads are scored on."""
    chosen = context.config.scores
    begin = int(context.bos)
    lengths = {
        "sequence-length": 2 * chosen.sequence_length + begin,
        "document-length": chosen.document_length + begin,
    }
    for name in chosen.names:
        if option := getattr(registry.load(name), "LENGTH_OPTION", None):
            asked = getattr(chosen, option.replace("-", "_"))
            lengths[option] = asked + begin
    for name, length in lengths.items():  # before anything so long is made
        context.require_room(length, f"--scores.{name}")
    clean, corrupted, queries = context.clean_and_corrupted(chosen)
    asked = {task: queries[task]["clean"] for task in clean}
    queries = {task: queries[task]["corrupted"] for task in clean}
    probe, lengths = _induction_probe(context)
    context.require_room(probe.shape[1], "--scores.sequence-length")
    documents, text = context.documents(
        chosen.document_length + context.bos, chosen.documents
    )
    return Inputs(
        clean,
        corrupted,
        probe,
        chosen.sequence_length,
        context.bos,
        documents,
        text,
        context.config.shots,
        chosen.names,
        _more_scores(context, clean, asked),
        lengths,
        queries,
    )


def _induction_probe(context: Context) -> tuple[np.ndarray, np.ndarray | None]:
    """Random tokens, repeated; and their lengths, if they went through text."""
    chosen = context.config.scores
    count, length = chosen.sequences, chosen.sequence_length
    if chosen.probe_tokens == "retokenized":
        return induction_text.probe(
            count,
            length,
            context.vocabulary,
            context.tokenizer.decode,
            context.encode,
            context.bos_id,
            context.seed,
        )
    made = induction.probe(
        count, length, context.vocabulary, context.bos_id, context.seed
    )
    return made, None


def _more_scores(
    context: Context, clean: dict[str, Batch], queries: dict[str, np.ndarray]
) -> tuple[Part, ...]:
    """What computes the further scores that are asked for."""
    chosen = context.config.scores
    made = parts(Asked(chosen, context, clean, context.config.shots, queries))
    for part in made:
        for name, ids in part.tokens.items():
            if ids.ndim == 2:
                context.require_room(ids.shape[1], f"what {name} is made of")
    return made


def run(inputs: Inputs, job: Job) -> Result:
    """Score every head."""
    params, config, folder = job.params, job.config, job.folder
    budget_bytes, advance = job.budget, job.advance
    seen = folder.unit(
        "scores-attention",
        lambda: {
            name: shares.astype(np.float32)
            for each in inputs.passes(config)
            for name, shares in each.run(params, budget_bytes).items()
        },
        "LHB",
    )
    tasks = len(inputs.clean)
    advance(inputs._attention_cost(config).flops)
    units = []
    for task in inputs.clean:
        units.append(
            folder.unit(
                f"scores-{task}",
                lambda task=task: _task(inputs, task, params, config, budget_bytes),
                {"effects": "LHB", "mean_heads": "LHK"},
            )
        )
        advance(inputs._task_cost(config, task).flops)
    samples = np.stack([unit["effects"] for unit in units])  # [A, L, H, B]
    length, bos = inputs.probe_length, inputs.probe_bos
    queries = by_task(inputs.queries, inputs.corrupted)
    scores = [
        function_vector.head_scores(samples, inputs.shots, tasks, queries),
        *_induction(inputs, seen),
        previous_token.head_scores(
            seen["previous_token"], inputs.documents.shape[1], inputs.text
        ),
    ]
    for name, file in inputs.on_probe().items():
        scores.append(file.head_scores(seen[name], length, bos))
    mean_heads = np.mean([unit["mean_heads"] for unit in units], axis=0)
    known = {score.name: score for score in scores}
    for part in inputs.parts:
        unit = folder.unit(
            f"scores-{part.name}",
            lambda part=part: part.measure(params, config, budget_bytes, known),
            "LHB",
        )
        units.append(unit)
        advance(part.cost(config).flops)
        scores += part.scores(unit)
    return Result(
        scores={score.name: score for score in scores},
        tasks=(*inputs.clean,),
        mean_heads=mean_heads,
        effects=samples,
        queries=queries,
        seconds=float(sum(unit["seconds"] for unit in [seen, *units])),
    )


def _induction(inputs: Inputs, seen: Arrays) -> list[HeadScores]:
    """The induction scores, by both ways to divide the attention on targets."""
    if inputs.probe_lengths is not None:
        read = inputs.probe, inputs.probe_lengths
        names = induction_text.NAMES
        return [induction_text.head_scores(seen[name], name, *read) for name in names]
    length, bos = inputs.probe_length, inputs.probe_bos
    return [
        induction.head_scores(seen["induction"], length, bos, way)
        for way in induction.DEFINITIONS
    ]


def _task(inputs: Inputs, task: str, params, config, budget_bytes: int) -> Arrays:
    """One task's mean head outputs [L, H, K] and effects on its prompts [L, H, B]."""
    heads = of_last_heads(inputs.clean[task], config).run(params, budget_bytes)
    mean_heads = heads.astype(np.float32).mean(axis=1)
    effects = inputs._effects(config, task, mean_heads).run(params, budget_bytes)
    return {"mean_heads": mean_heads, "effects": effects}

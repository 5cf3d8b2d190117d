"""Which heads score high: function vector, induction, previous token.

Question: how much does each head's output on a task restore the answer, and how much
does each head attend as an induction head would? Source: Yin & Steinhardt 2025,
section 3; Todd et al. 2024, section 2; Olsson et al. 2022.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from jaxheads import engine, plan
from jaxheads.heads import HeadScores
from jaxheads.icl.prompts import Batch
from jaxheads.runs import Arrays, RunFolder
from jaxheads.scores import attention, function_vector, induction, previous_token


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
    """

    clean: dict[str, Batch]
    corrupted: dict[str, Batch]
    probe: np.ndarray
    probe_length: int
    probe_bos: bool
    documents: np.ndarray
    text: str
    shots: int

    def cost(self, config) -> plan.Cost:
        """What ``run`` will cost."""
        total = plan.sequence(config, self.probe.shape[1], 0) * len(self.probe)
        total += plan.sequence(config, self.documents.shape[1], 0) * len(self.documents)
        for task in self.clean:
            total += self._task_cost(config, task)
        return total

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
        scores: "function_vector", "induction", "induction_yin", "previous_token".
        mean_heads: [L, H, K], mean head output at the last position of clean prompts,
            over prompts, then tasks: the ablation value.
        effects: [A, L, H], mean effect by task, probability.
        seconds: wall time of the parts, earlier tries included.
    """

    scores: dict[str, HeadScores]
    mean_heads: np.ndarray
    effects: np.ndarray
    seconds: float

    def arrays(self) -> Arrays:
        """Named arrays for the run folder."""
        named: Arrays = {}
        for name, score in self.scores.items():
            named[f"score/{name}"] = score.mean.astype(np.float32)
            named[f"score/{name}_se"] = score.standard_error.astype(np.float32)
        named["fv/mean_heads"] = self.mean_heads
        named["fv/effects"] = self.effects.astype(np.float32)
        return named


def run(
    inputs: Inputs, params, config, folder: RunFolder, budget_bytes: int, advance
) -> Result:
    """Score every head.

    Args:
        inputs: from the study's configuration.
        params: of the family of ``config``.
        config: of the model.
        folder: where finished units are kept.
        budget_bytes: memory for activations.
        advance: told the FLOPs that are done.
    """
    seen = folder.unit(
        "scores-attention",
        lambda: _attention(inputs, params, config, budget_bytes),
    )
    tasks = len(inputs.clean)
    advance(
        inputs.cost(config).flops
        - sum(inputs._task_cost(config, task).flops for task in inputs.clean)
    )
    units = []
    for task in inputs.clean:
        units.append(
            folder.unit(
                f"scores-{task}",
                lambda task=task: _task(inputs, task, params, config, budget_bytes),
            )
        )
        advance(inputs._task_cost(config, task).flops)
    samples = np.stack([unit["effects"] for unit in units])  # [A, L, H, B]
    length, bos = inputs.probe_length, inputs.probe_bos
    scores = [
        function_vector.head_scores(samples, inputs.shots, tasks),
        induction.head_scores(seen["induction"], length, bos, "olsson"),
        induction.head_scores(seen["induction"], length, bos, "yin"),
        previous_token.head_scores(
            seen["previous_token"], inputs.documents.shape[1], inputs.text
        ),
    ]
    return Result(
        scores={score.name: score for score in scores},
        mean_heads=np.mean([unit["mean_heads"] for unit in units], axis=0),
        effects=samples.mean(axis=-1),
        seconds=float(sum(unit["seconds"] for unit in [seen, *units])),
    )


def _attention(inputs: Inputs, params, config, budget_bytes: int) -> Arrays:
    """Per-sequence attention scores, [L, H, B] each."""

    def shares(tokens: np.ndarray, edges: np.ndarray) -> np.ndarray:
        length = tokens.shape[1]
        patterns = 4 * config.num_layers * config.num_heads * length**2
        chunk = int(np.clip(budget_bytes // (2 * patterns), 1, 16))
        return attention.attention_shares(params, tokens, config, edges, chunk)

    return {
        "induction": shares(
            inputs.probe, induction.edges(inputs.probe_length, inputs.probe_bos)
        ),
        "previous_token": shares(
            inputs.documents, previous_token.edges(inputs.documents.shape[1])
        ),
    }


def _task(inputs: Inputs, task: str, params, config, budget_bytes: int) -> Arrays:
    """One task's mean head outputs [L, H, K] and effects on its prompts [L, H, B]."""
    clean, corrupted = inputs.clean[task], inputs.corrupted[task]
    length = clean.tokens.shape[1]
    whole = plan.sequence(config, length).bytes
    heads = [
        np.asarray(
            function_vector.last_heads(
                params, clean.tokens[index], clean.lengths[index], config
            ),
            np.float32,
        )
        for index in _prompt_chunks(len(clean.tokens), whole, budget_bytes)
    ]
    outputs = np.concatenate(heads, axis=1)[:, : len(clean.tokens)]  # [L, B, H, K]
    mean_heads = outputs.mean(axis=1)
    each = whole + plan.every_head(config, length).bytes
    effects = [
        np.asarray(
            function_vector.effects(
                params,
                corrupted.tokens[index],
                corrupted.lengths[index],
                corrupted.targets[index],
                mean_heads,
                config,
            )
        )
        for index in _prompt_chunks(len(corrupted.tokens), each, budget_bytes)
    ]
    effects = np.concatenate(effects, axis=-1)[..., : len(corrupted.tokens)]
    return {"mean_heads": mean_heads, "effects": effects}


def _prompt_chunks(count: int, each: float, budget: int) -> Sequence[np.ndarray]:
    """Index arrays of equal length; only the last repeats an index, at its end."""
    return list(engine.chunks(count, int(np.clip(budget // each, 1, 16))))

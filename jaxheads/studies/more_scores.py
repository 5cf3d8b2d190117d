"""Parts of the score study that run on probes, on prompts, or on weights alone."""

import dataclasses
from collections.abc import Mapping
from itertools import groupby

import numpy as np

from jaxheads import plan
from jaxheads.heads import HeadScores
from jaxheads.icl.prompts import Batch, by_task
from jaxheads.memory import Fit
from jaxheads.runs import Arrays
from jaxheads.scores import (
    attention,
    copying,
    copying_circuit,
    direct_logit,
    prefix_matching,
    qk_trace,
)
from jaxheads.studies.score_parts import Known, Pass


@dataclasses.dataclass(frozen=True, eq=False)
class PrefixMatching:
    """Prefix matching by definitions that share a probe.

    Attributes:
        definitions: out of ``prefix_matching.DEFINITIONS``, of one probe.
        probe: int32 [B, T].
        bos: whether it begins with BOS.
    """

    definitions: tuple[prefix_matching.Definition, ...]
    probe: np.ndarray
    bos: bool

    @property
    def name(self) -> str:
        """The first definition's name."""
        return self.definitions[0].name

    def tokens(self) -> Arrays:
        """The probe."""
        return {f"prompts/{self.name}": self.probe}

    def cost(self, config) -> plan.Cost:
        """One pass of each sequence."""
        return plan.sequence(config, self.probe.shape[1], 0) * len(self.probe)

    def _pass(self, config) -> Pass:
        length = self.probe.shape[1]
        edges = {
            each.name: prefix_matching.edges(each, self.bos)
            for each in self.definitions
        }
        return Pass(
            f"attention patterns of {length}-token sequences",
            attention.attention_share,
            (self.probe,),
            (config, edges),
            plan.sequence(config, length, 0),
        )

    def fits(self, params, config, budget_bytes: int) -> list[Fit]:
        """The pass."""
        return [self._pass(config).fit(params, budget_bytes)]

    def measure(self, params, config, budget_bytes: int, known: Known) -> Arrays:
        """Shares [L, H, B] by definition, from one pass."""
        return self._pass(config).run(params, budget_bytes)

    def scores(self, measured: Arrays) -> list[HeadScores]:
        """One score a definition."""
        return [
            prefix_matching.head_scores(measured[each.name], each, self.bos)
            for each in self.definitions
        ]


@dataclasses.dataclass(frozen=True, eq=False)
class Copying:
    """Copying of random tokens that are attended to.

    Attributes:
        probe: int32 [B, T].
        bos: whether it begins with BOS.
    """

    probe: np.ndarray
    bos: bool
    name: str = "copying"

    def tokens(self) -> Arrays:
        """The probe."""
        return {"prompts/copying": self.probe}

    def cost(self, config) -> plan.Cost:
        """One pass of each sequence."""
        return plan.sequence(config, self.probe.shape[1]) * len(self.probe)

    def _pass(self, config) -> Pass:
        length = self.probe.shape[1]
        return Pass(
            f"copying of {length}-token sequences",
            copying.copied,
            (self.probe,),
            (config, np.asarray(self.bos)),
            plan.sequence(config, length),
        )

    def fits(self, params, config, budget_bytes: int) -> list[Fit]:
        """The pass."""
        return [self._pass(config).fit(params, budget_bytes)]

    def measure(self, params, config, budget_bytes: int, known: Known) -> Arrays:
        """Scores [L, H, B] by sequence."""
        return {"copied": self._pass(config).run(params, budget_bytes)}

    def scores(self, measured: Arrays) -> list[HeadScores]:
        """The one score."""
        length = self.probe.shape[1] - self.bos
        return [copying.head_scores(measured["copied"], length, self.bos)]


@dataclasses.dataclass(frozen=True)
class Circuits:
    """Scores read off the weights alone.

    Attributes:
        asked: out of "copying_circuit", "qk_trace" and "qk_positivity".
    """

    asked: tuple[str, ...]
    name: str = "circuits"

    def tokens(self) -> Arrays:
        """Nothing is fed to the model."""
        return {}

    def cost(self, config) -> plan.Cost:
        """Products over the vocabulary, no forward."""
        flops = 2.0 * config.vocab_size * config.width**2 * len(self.asked)
        return plan.Cost(flops=flops, bytes=8.0 * config.width**2)

    def fits(self, params, config, budget_bytes: int) -> list[Fit]:
        """Small products of weights need no plan."""
        return []

    def measure(self, params, config, budget_bytes: int, known: Known) -> Arrays:
        """Circuits [L, H, K, K]."""
        measured: Arrays = {}
        if "copying_circuit" in self.asked:
            measured["ov"] = copying_circuit.copying_circuits(params, config)
        if {"qk_trace", "qk_positivity"} & set(self.asked):
            weights = known["previous_token"].mean
            measured["qk"] = qk_trace.matching_circuits(params, config, weights)
        return measured

    def scores(self, measured: Arrays) -> list[HeadScores]:
        """One score a name."""
        made = []
        for name in self.asked:
            if name == "copying_circuit":
                made.append(copying_circuit.head_scores(measured["ov"]))
            else:
                definition = name.removeprefix("qk_")
                made.append(qk_trace.head_scores(measured["qk"], definition))
        return made


@dataclasses.dataclass(frozen=True, eq=False)
class DirectLogit:
    """Direct logit attribution on the clean prompts of the scoring tasks.

    Attributes:
        prompts: by task.
        shots: demonstrations a prompt.
        queries: by task, int [B]: prompts with one number ask one query; empty: not
            known, each asks its own.
    """

    prompts: Mapping[str, Batch]
    shots: int
    queries: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)
    name: str = "direct_logit"

    def tokens(self) -> Arrays:
        """The function-vector score's clean prompts, which are listed there."""
        return {}

    def cost(self, config) -> plan.Cost:
        """One pass of each prompt."""
        total = plan.Cost()
        for batch in self.prompts.values():
            total += plan.sequence(config, batch.tokens.shape[1]) * len(batch.tokens)
        return total

    def _passes(self, config) -> list[Pass]:
        """One a prompt length: those of several tasks together."""
        passes = []
        for length, some in groupby(self._by_length, self._length):
            some = [self.prompts[task] for task in some]
            passes.append(
                Pass(
                    f"direct logit effects on {length}-token prompts",
                    direct_logit.effects,
                    (
                        np.concatenate([batch.tokens for batch in some]),
                        np.concatenate([batch.lengths for batch in some]),
                        np.concatenate([batch.targets for batch in some]),
                    ),
                    (config,),
                    plan.sequence(config, length),
                )
            )
        return passes

    def fits(self, params, config, budget_bytes: int) -> list[Fit]:
        """The passes."""
        return [each.fit(params, budget_bytes) for each in self._passes(config)]

    def measure(self, params, config, budget_bytes: int, known: Known) -> Arrays:
        """Effects [L, H, B] over the prompts of all tasks."""
        parts = [each.run(params, budget_bytes) for each in self._passes(config)]
        return {"effects": np.concatenate(parts, axis=-1)}

    def scores(self, measured: Arrays) -> list[HeadScores]:
        """The one score."""
        prompts = f"{self.shots}-shot prompts of {len(self.prompts)} tasks"
        queries = by_task(self.queries, self._by_length)
        effects = measured["effects"]
        return [direct_logit.head_scores(effects, prompts, False, queries)]

    @property
    def _by_length(self) -> list[str]:
        """The tasks in the order of the effects."""
        return sorted(self.prompts, key=self._length)

    def _length(self, task: str) -> int:
        return self.prompts[task].tokens.shape[1]

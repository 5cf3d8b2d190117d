"""Prompts of the execution study, its vectors' heads, its programs and their cost."""

import dataclasses

import numpy as np

from jaxheads.engine import plan
from jaxheads.engine.memory import Fit
from jaxheads.engine.passes import of_last_heads, positions_at_once
from jaxheads.engine.sweeps import subset_chunk
from jaxheads.heads import count_of, top, uniform
from jaxheads.heads.sets import Described
from jaxheads.icl.prompts import Batch, named_tokens
from jaxheads.runs import Arrays
from jaxheads.studies.function_vectors.config import ExecutionConfig
from jaxheads.studies.function_vectors.vectors import Rows, answers_of_rows, starts_of
from jaxheads.studies.job import Given

PROMPTS = ("clean", "shuffled", "zero_shot")
"""Of a task: the same queries after clean demonstrations, shuffled ones, and none."""
KINDS = ("shuffled", "zero_shot")
"""Of prompts that vectors are added to."""


@dataclasses.dataclass(frozen=True)
class Inputs:
    """Prompts by task, and what is asked of them.

    Attributes:
        vector_prompts: clean prompts, whose mean head outputs make the vectors; none
            where the means of the scoring tasks do.
        conditions: by task: a batch for each of ``execution.PROMPTS``, of the
            same B queries in one order.
        queries: by task, int [B]: prompts with one number ask one query.
        settings: what is asked.
        seed: of the random heads.
    """

    vector_prompts: dict[str, Batch]
    conditions: dict[str, dict[str, Batch]]
    queries: dict[str, np.ndarray]
    settings: ExecutionConfig
    seed: int

    @property
    def items(self) -> str:
        """Which of a task's items are which, in words."""
        said = "queries and demonstrations: the second half of each task's items"
        own = "the first half" if self.vector_prompts else "those of the scoring tasks"
        return f"{said}; vectors: {own}"

    def tokens(self) -> Arrays:
        """Everything that is fed to the model."""
        named = named_tokens("execution/vector", self.vector_prompts)
        for kind in PROMPTS:
            of_kind = {task: made[kind] for task, made in self.conditions.items()}
            named |= named_tokens(f"execution/{kind}", of_kind)
        return named

    def cost(self, config, given: Given | None = None) -> plan.Cost:
        """What ``run`` will cost."""
        del given
        total = plan.Cost()
        for task in self.conditions:
            total += self.task_cost(config, task)
        return total

    def task_cost(self, config, task: str) -> plan.Cost:
        """Whole prompts of every kind, and the layers that follow each addition."""
        total = plan.Cost()
        batches = list(self.conditions[task].values())
        if task in self.vector_prompts:
            batches.append(self.vector_prompts[task])
        for batch in batches:
            count, length = batch.tokens.shape
            total += plan.sequence(config, length) * count
        for kind in KINDS:
            total += self._rows_cost(config, self.conditions[task][kind])
        return total

    def _rows_cost(self, config, batch: Batch) -> plan.Cost:
        """Of all vectors at all layers, from the layer on that each is added at."""
        count, length = batch.tokens.shape
        after = config.num_layers - self.starts(config)
        layers = float(after.sum())
        flops = layers * plan.layer_flops(config, length)
        flops += len(after) * plan.unembed_flops(config)
        return plan.Cost(len(after), layers / config.num_layers, flops) * count

    def fits(self, params, config, given: Given | None, budget_bytes: int) -> list[Fit]:
        """What ``run`` will call, the same programs for prompts of one length."""
        del given
        found = []
        for kind, batches in self._batches().items():
            lengths = [batch.tokens.shape[1] for batch in batches]
            for length, batch in dict(zip(lengths, batches, strict=True)).items():
                times = lengths.count(length)
                found.append(self.fit(params, config, kind, batch, budget_bytes, times))
        return found

    def _batches(self) -> dict[str, list[Batch]]:
        named = {"vector": list(self.vector_prompts.values())}
        for kind in ("clean", *KINDS):
            named[kind] = [prompts[kind] for prompts in self.conditions.values()]
        return named

    def fit(
        self, params, config, kind: str, batch: Batch, budget_bytes: int, times=1
    ) -> Fit:
        """The program for a batch of a kind, at the chunk that memory allows."""
        if kind == "vector":
            return of_last_heads(batch, config).fit(params, budget_bytes, times)
        count, length = batch.tokens.shape
        rows = self.rows(config, kind, batch, budget_bytes)
        answered = answers_of_rows(config, batch, rows)
        cost = answered.cost
        if kind in KINDS:
            cost += self._rows_cost(config, batch) * (1 / count)
        vectors = f" under {len(self.starts(config))} vectors" if kind in KINDS else ""
        name = f"{kind.replace('_', '-')} {length}-token prompts{vectors}"
        priced = dataclasses.replace(answered, name=name, cost=cost)
        return priced.fit(params, budget_bytes, times)

    def rows(
        self,
        config,
        kind: str,
        batch: Batch,
        budget_bytes: int,
        vectors: np.ndarray | None = None,
    ) -> Rows:
        """The vectors of a batch's runs, in chunks: none of clean prompts.

        Args:
            config: of the model.
            kind: of prompts.
            batch: of them.
            budget_bytes: memory for activations.
            vectors: float [W, D], of every set; None: zeros.
        """
        count, length = batch.tokens.shape
        sets, starts = self.set_of_row(config), self.starts(config)
        if kind not in KINDS:
            sets, starts = sets[:0], starts[:0]
        if vectors is None:
            vectors = np.zeros((1 + max(self.set_of_row(config)), config.width))
        together = min(count, max(1, positions_at_once(True) // length))
        at_once = subset_chunk(config, together, 1, budget_bytes // 2)
        # A chunk goes on from the first layer of its rows: many chunks waste less.
        return Rows(vectors[sets], starts, min(at_once, ROWS_AT_ONCE))

    def counts(self, config) -> list[int]:
        """Heads of a vector: of ``size``, then of the other sizes that differ."""
        return _counts((self.settings.size, *self.settings.sizes), config)

    def size_counts(self, config) -> list[int]:
        """Heads of the vectors of each of ``sizes``."""
        return _counts(self.settings.sizes, config)

    def layers(self, config) -> list[int]:
        """Where vectors are added, in turn."""
        if self.settings.layers == "all":
            return list(range(config.num_layers))
        return [config.num_layers // 3]

    def set_of_row(self, config) -> np.ndarray:
        """Which set's vector a run adds: int [R]."""
        return self._rows(config)[0]

    def starts(self, config) -> np.ndarray:
        """At which layer's input it does: int [R], see ``starts_of``."""
        return starts_of(config, self._rows(config)[1].tolist(), self.settings.place)

    def _rows(self, config) -> tuple[np.ndarray, np.ndarray]:
        """Sets and layers of all runs: those of ``size`` at every layer come first."""
        layers, draws = self.layers(config), 1 + self.settings.random_sets
        others = draws * (len(self.counts(config)) - 1)
        sets = [
            *np.repeat(np.arange(draws), len(layers)),
            *range(draws, draws + others),
        ]
        at = [*np.tile(layers, draws), *[config.num_layers // 3] * others]
        return np.array(sets, np.int32), np.array(at, np.int32)

    def sets(self, config, ranking: np.ndarray) -> list[Described]:
        """The heads of every vector: of each size the top ones, then random ones.

        Args:
            config: of the model.
            ranking: [L, H].

        Returns:
            W pairs of a description and bool [L, H].
        """
        made = []
        for count in self.counts(config):
            share = count / ranking.size
            name = f"top {count} by {self.settings.ranking_by}"
            told = {"name": name, "kind": "top", "count": count, "share": share}
            made.append((told, top(ranking, count)))
            for draw in range(self.settings.random_sets):
                rng = np.random.default_rng([self.seed, 11, draw, count])
                told = {"name": f"random {count} #{draw}", "kind": "random"}
                told |= {"count": count, "share": share, "draw": draw}
                made.append((told, uniform(rng, ranking.shape, count)))
        return made


ROWS_AT_ONCE = 48


def _counts(shares: tuple[float, ...], config) -> list[int]:
    """Heads in shares of all, rounded up as in the published code; each count once."""
    total = config.num_layers * config.num_heads
    return list(dict.fromkeys(count_of(share, total, "up") for share in shares))

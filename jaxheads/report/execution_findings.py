"""What a run found of function vectors at work, in numbers and words (numpy only).

Dims: S bootstrap samples, U tasks, B prompts, X layers, Y draws of random heads.
"""

import dataclasses
import functools
from typing import Any

import numpy as np

from jaxheads.report import first_tokens, words
from jaxheads.report.outcomes import SEED
from jaxheads.runs import Run
from jaxheads.statistics import LEVEL, SAMPLES, Interval

AMONG = ("all", "answered")
PLACES = {"leaving": "behind a layer", "entering": "before a layer"}
KINDS = {"shuffled": "shuffled labels", "zero_shot": "no demonstrations"}


@dataclasses.dataclass(frozen=True, eq=False)
class Condition:
    """What was done to prompts: its label, colour, and outcomes [U, B]."""

    label: str
    colour: str
    right: np.ndarray
    probability: np.ndarray


@dataclasses.dataclass(frozen=True, eq=False)
class Executed:
    """A run's execution part, read for statistics.

    Intervals are over prompts within tasks: queries are drawn again, so that prompts
    that ask one query stay together. Tasks count alike; among the prompts answered
    right with clean demonstrations, those tasks count that have some.
    """

    run: Run

    @property
    def part(self) -> dict[str, Any]:
        """What the result says of it."""
        return self.run.result["execution"]

    @property
    def at(self) -> int:
        """Index of the papers' layer, L // 3, among the layers."""
        return self.run.arrays["execution/layers"].tolist().index(self.part["layer"])

    def right(self, name: str) -> np.ndarray:
        """Right answers of a condition as 0/1, [..., U, B]; draws and layers first."""
        return self._read("right", name)

    def probability(self, name: str) -> np.ndarray:
        """Probabilities of the right token, [..., U, B]."""
        return self._read("probability", name)

    @property
    def tasks(self) -> list[str]:
        """The tasks, U, but those whose answers all have the same first token."""
        return first_tokens.telling(self.run, self.part["tasks"])

    def _of_telling(self, name: str) -> np.ndarray:
        """An array of the run without the tasks that are left out: [U, ...]."""
        return first_tokens.of_telling(
            self.run, self.run.arrays[name], self.part["tasks"], 0
        )

    def _read(self, kind: str, name: str) -> np.ndarray:
        array = self._of_telling(f"execution/{kind}/{name}").astype(np.float64)
        return np.moveaxis(array, 0, -2)

    def has(self, name: str) -> bool:
        """Whether a condition was run."""
        return f"execution/right/{name}" in self.run.arrays

    @functools.cached_property
    def _counts(self) -> np.ndarray:
        """How often each resample takes each prompt: [S, U, B]."""
        queries = self._of_telling("execution/queries")
        rng, drawn = np.random.default_rng(SEED), []
        for row in queries:
            number = row.max() + 1
            each = rng.multinomial(number, np.full(number, 1 / number), SAMPLES)
            drawn.append(each[:, row])
        return np.stack(drawn, axis=1).astype(np.float64)

    def interval(self, values: np.ndarray, among: str = "all") -> Interval | None:
        """Mean over prompts, then tasks, with its interval: [..., U, B] -> [...].

        Args:
            values: of prompts; the leading axes share the resamples.
            among: "all" prompts, or those "answered" right with clean demonstrations.

        Returns:
            The mean with its 95 % interval; None where no prompt was answered.
        """
        kept = self.right("clean") if among == "answered" else np.ones_like(self._one)
        if not kept.any():
            return None
        tasks = kept.any(axis=1)
        kept, values = kept[tasks], values[..., tasks, :]
        counts = self._counts[:, tasks]
        mean = _task_mean(values, kept[None])[..., 0]
        flat = values.reshape(-1, *values.shape[-2:])
        means = _task_mean(flat, kept[None] * counts)  # [N, S]
        tail = 50 * (1 - LEVEL)
        low, high = np.nanpercentile(means, [tail, 100 - tail], axis=-1)
        shape = values.shape[:-2]
        low, high = low.reshape(shape), high.reshape(shape)
        if not shape:
            return Interval(float(mean), float(low), float(high))
        return Interval(mean, low, high)

    @property
    def _one(self) -> np.ndarray:
        return self.right("clean")

    @functools.cached_property
    def chosen_layers(self) -> dict[str, list[int]] | None:
        """For each task the layer where the others' right tokens are likeliest.

        Its index among the layers, by kind of prompts. A layer chosen on the prompts
        that it is measured on would flatter itself. None with one task, or one layer.
        """
        layers, tasks = len(self.run.arrays["execution/layers"]), len(self._one)
        if tasks < 2 or layers < 2:
            return None
        chosen = {}
        for kind in KINDS:
            by_task = self.probability(f"{kind}_vector").mean(axis=-1)  # [X, U]
            others = by_task.sum(axis=1, keepdims=True) - by_task
            chosen[kind] = others.argmax(axis=0).tolist()
        return chosen

    def chosen(self, values: np.ndarray, kind: str) -> np.ndarray:
        """Values [..., X, U, B] at each task's ``chosen_layers``: [..., U, B]."""
        assert self.chosen_layers is not None
        picked = [
            values[..., layer, task, :]
            for task, layer in enumerate(self.chosen_layers[kind])
        ]
        return np.stack(picked, axis=-2)

    def conditions(self, kind: str) -> list[Condition]:
        """Conditions of one kind of prompts, clean demonstrations first.

        Draws of random heads are averaged.
        """
        layer = self.part["layer"]
        found = [
            Condition("clean prompts", "ink", *self._both("clean")),
            Condition("no vector", "ink", *self._both(kind)),
        ]
        for name, label, colour in (
            ("random", "random heads", "random"),
            ("vector", "function vector", "fv"),
        ):
            condition = f"{kind}_{name}"
            if not self.has(condition):
                continue
            at = [values[..., self.at, :, :] for values in self._both(condition)]
            found.append(Condition(f"{label}, layer {layer}", colour, *map(_one, at)))
            if self.chosen_layers is not None:
                at = [self.chosen(values, kind) for values in self._both(condition)]
                label = f"{label}, chosen layer"
                found.append(Condition(label, colour, *map(_one, at)))
        return found

    def _both(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        return self.right(name), self.probability(name)

    def differences(self, kind: str) -> dict[str, tuple[Interval, Interval | None]]:
        """What the function vector adds, over no vector and over random heads' ones.

        By where it is added: at the papers' layer, and at that chosen on other tasks.
        """
        plain, found = self.right(kind), {}
        vector, random = f"{kind}_vector", f"{kind}_random"
        picks: dict[str, Any] = {
            "papers": lambda name: self.right(name)[..., self.at, :, :]
        }
        if self.chosen_layers is not None:
            picks["chosen"] = lambda name: self.chosen(self.right(name), kind)
        for where, pick in picks.items():
            with_vector = pick(vector)
            over_plain = self.interval(with_vector - plain)
            over_random = None
            if self.has(random):
                over_random = self.interval(with_vector - pick(random).mean(axis=0))
            found[where] = (over_plain, over_random)
        return found

    def norms(self) -> tuple[float, float | None]:
        """Mean length of the function vectors, and of those of random heads."""
        lengths = np.linalg.norm(self.run.arrays["execution/vectors"], axis=-1)
        draws = self.part["random_sets"]
        random = float(lengths[:, 1 : 1 + draws].mean()) if draws else None
        return float(lengths[:, 0].mean()), random


def _task_mean(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Mean over prompts, then tasks: [..., U, B] by weights [S, U, B] -> [..., S].

    A resample leaves out a task of which it has no prompt.
    """
    total = weights.sum(axis=-1).T  # [U, S]
    sums = np.einsum("...ub,sub->...us", values, weights)
    means = np.divide(sums, total, out=np.full(sums.shape, np.nan), where=total > 0)
    there = (total > 0).sum(axis=0)  # [S]
    with_some = np.where(there > 0, there, np.nan)
    return np.nansum(means, axis=-2) / with_some


def _one(values: np.ndarray) -> np.ndarray:
    """The mean over draws, if there are draws: [U, B]."""
    return values if values.ndim == 2 else values.mean(axis=0)


def of(run: Run) -> Executed | None:
    """Read the part, if the run has it."""
    return Executed(run) if run.result.get("execution") else None


def shown(interval: Interval | None) -> str:
    """Write a mean with its interval, or that no resample differed."""
    if interval is None:
        return words.NONE
    if interval.low == interval.high:
        return f"{words.number(interval.mean)} in every resample"
    return words.with_interval(*interval)


def effect(interval: Interval) -> str:
    """Say whether a difference is one: "+0.21 [0.08, 0.33]"."""
    if interval.low == interval.high:
        return shown(interval)
    mean, low, high = words.aligned(*interval)
    sign = "+" if interval.mean > 0 else ""
    return f"{sign}{mean} [{low}, {high}]"


def reading(found: Executed, kind: str) -> str:
    """Say in a sentence or two what the vectors did to one kind of prompts."""
    plain = found.interval(found.right(kind))
    said = []
    for at, (over_plain, over_random) in found.differences(kind).items():
        text = f"added {where(found, at)} it {_verb(over_plain)} it "
        text += f"({effect(over_plain)})"
        if over_random is not None:
            text += f", {_against(over_random)}"
        said.append(text)
    return (
        f"With {KINDS[kind]} accuracy is {shown(plain)} without a function vector; "
        f"{'; '.join(said)}."
    )


def where(found: Executed, at: str) -> str:
    """Say where vectors are added: at the papers' layer, or at a chosen one."""
    if at == "papers":
        return f"at layer {found.part['layer']}"
    return "at a layer chosen on the other tasks"


def _verb(interval: Interval) -> str:
    if interval.low > 0:
        return "raises"
    return "lowers" if interval.high < 0 else "does not measurably change"


def _against(interval: Interval) -> str:
    if interval.low > 0:
        return f"{effect(interval)} against those of as many random heads"
    if interval.high < 0:
        return f"less than those of as many random heads ({effect(interval)})"
    return f"not distinguishable from those of random heads ({effect(interval)})"

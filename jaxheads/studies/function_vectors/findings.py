"""What a run found of function vectors at work, in numbers and words (numpy only).

Dims: U tasks, B prompts, X layers, Y draws of random heads.
"""

import dataclasses
import functools
from typing import Any

import numpy as np

from jaxheads.report import words
from jaxheads.report.tables import Table
from jaxheads.runs import Run
from jaxheads.statistics import Interval
from jaxheads.statistics.units import ANSWERS, DIFFERENCES, estimate
from jaxheads.studies.ablation import first_tokens

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

    Intervals are over queries within tasks, see ``statistics.units``. Tasks count
    alike; among the prompts answered right with clean demonstrations, those tasks count
    that have some.
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

    def interval(
        self, values: np.ndarray, among: str = "all", *, difference: bool = False
    ) -> Interval | None:
        """Mean over prompts, then tasks, with its interval: [..., U, B] -> [...].

        Args:
            values: of prompts.
            among: "all" prompts, or those "answered" right with clean demonstrations.
            difference: whether they are differences of two conditions' values.

        Returns:
            The mean with its 95 % interval; None where no prompt was answered.
        """
        counted = self.right("clean") > 0 if among == "answered" else None
        if counted is not None and not counted.any():
            return None
        queries = None
        if "execution/queries" in self.run.arrays:
            queries = self._of_telling("execution/queries")
        bounds = DIFFERENCES if difference else ANSWERS
        return estimate(values, queries, counted=counted, bounds=bounds).interval()

    @functools.cached_property
    def chosen_layers(self) -> dict[str, list[int]] | None:
        """For each task the layer where the others' right tokens are likeliest.

        Its index among the layers, by kind of prompts. A layer chosen on the prompts
        that it is measured on would flatter itself. None with one task, or one layer.
        """
        layers = len(self.run.arrays["execution/layers"])
        tasks = len(self.right("clean"))
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
            over_plain = self.interval(with_vector - plain, difference=True)
            over_random = None
            if self.has(random):
                paired = with_vector - pick(random).mean(axis=0)
                over_random = self.interval(paired, difference=True)
            found[where] = (over_plain, over_random)
        return found

    def norms(self) -> tuple[float, float | None]:
        """Mean length of the function vectors, and of those of random heads."""
        lengths = np.linalg.norm(self.run.arrays["execution/vectors"], axis=-1)
        draws = self.part["random_sets"]
        random = float(lengths[:, 1 : 1 + draws].mean()) if draws else None
        return float(lengths[:, 0].mean()), random


def _one(values: np.ndarray) -> np.ndarray:
    """The mean over draws, if there are draws: [U, B]."""
    return values if values.ndim == 2 else values.mean(axis=0)


def of(run: Run) -> Executed | None:
    """Read the part, if the run has it."""
    return Executed(run) if run.result.get("execution") else None


def shown(interval: Interval | None) -> str:
    """Write a mean with its interval, or that there is none."""
    return words.NONE if interval is None else words.with_interval(*interval)


def effect(interval: Interval) -> str:
    """Write a difference with its sign: "+0.21 [0.08, 0.33]"."""
    sign = "+" if interval.mean > 0 else ""
    return f"{sign}{words.with_interval(*interval)}"


def reading(found: Executed, kind: str) -> str:
    """Say in a sentence or two what the vectors did to one kind of prompts."""
    plain = found.interval(found.right(kind))
    said = []
    for at, (over_plain, over_random) in found.differences(kind).items():
        text = f"added {where(found, at)} it changes it by {effect(over_plain)}"
        if over_random is not None:
            text += f", {effect(over_random)} against those of as many random heads"
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


def table(found: Executed) -> Table:
    """A row a condition: accuracy and probability, means over tasks."""
    rows = []
    for kind, name in KINDS.items():
        listed = found.conditions(kind)
        for one in listed if kind == "shuffled" else listed[1:]:
            cells = [
                found.interval(one.right),
                found.interval(one.right, "answered"),
                found.interval(one.probability),
            ]
            given = "as they are" if one.label == "clean prompts" else name
            rows.append([given, one.label, *map(shown, cells)])
    columns = ["demonstrations", "vector added", "accuracy, all prompts"]
    columns += [_answered_title(found), "probability of the right token"]
    heads = words.plural(found.part["count"], "head")
    caption = f"Function vectors of {heads}: every condition, mean over tasks"
    return Table(caption, columns, rows, 2)


def _answered_title(found: Executed) -> str:
    answered = int(found.right("clean").sum())
    if not answered:
        return (
            "accuracy among prompts answered with clean demonstrations: there are none"
        )
    return f"accuracy, {words.plural(answered, 'prompt')} answered when clean"

"""Olsson et al.'s six arguments and the rules by which runs answer them.

The rules stand in the program, the same for all runs; the words are those of all claims
(``claims.rules``). Seeds are the units, run by run (``statistics.seeds``). A verdict is
said of these runs, their data and their sizes; and that two things happen together, as
arguments 1, 2, 4, 5 and 6 show, is no proof that one makes the other.
"""

import dataclasses
import inspect
from collections.abc import Callable
from typing import Any

from jaxheads.statistics.claims import Verdict as Answer
from jaxheads.studies.six_arguments import (
    ablation_and_mechanism,
    co_occurrence,
    co_perturbation,
    continuity,
)
from jaxheads.studies.six_arguments.rules import NotAsked


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What runs say of one argument.

    Attributes:
        argument: 1 to 6.
        name: a few words.
        statement: what is claimed, a sentence.
        rule: how it is decided.
        answer: see ``claims.rules``; "not measured" where the runs lack what it needs.
        evidence: the numbers, a sentence or two; or what would be needed.
    """

    argument: int
    name: str
    statement: str
    rule: str
    answer: Answer
    evidence: str


_ARGUMENTS: tuple[tuple[str, str, Callable], ...] = (
    (
        "macroscopic co-occurrence",
        "Induction heads form when in-context learning does.",
        co_occurrence.decide,
    ),
    (
        "macroscopic co-perturbation",
        "An architecture that eases induction heads moves in-context learning, too.",
        co_perturbation.decide,
    ),
    (
        "direct ablation",
        "Without induction heads, most of in-context learning is gone.",
        ablation_and_mechanism.decide_ablation,
    ),
    (
        "generality",
        "Induction heads serve in-context learning that is no literal copying.",
        ablation_and_mechanism.decide_generality,
    ),
    (
        "mechanism",
        "Heads that match prefixes copy, and their keys match what came before.",
        ablation_and_mechanism.decide_mechanism,
    ),
    (
        "continuity",
        "What is seen in small models is seen in larger ones.",
        continuity.decide,
    ),
)


def judge(found: dict[str, Any]) -> list[Verdict]:
    """Decide all six arguments.

    Args:
        found: ``result["evidence"]`` without "arguments".
    """
    verdicts = []
    for number, (name, statement, decide) in enumerate(_ARGUMENTS, start=1):
        answer: Answer
        try:
            answer, evidence = decide(found)
        except NotAsked as needs:
            answer, evidence = "not measured", f"Not measured: needs {needs}."
        rule = " ".join((inspect.getdoc(decide) or "").split())
        verdicts.append(Verdict(number, name, statement, rule, answer, evidence))
    return verdicts

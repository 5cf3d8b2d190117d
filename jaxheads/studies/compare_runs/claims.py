"""What training without induction copying should do, as claims with fixed rules.

Each claim is asked of one arm against the reference and judged as ``claims.rules``
says, by its test over seeds, adjusted by Holm's method over the claims on this arm, and
its 95 % interval over seeds; fewer than 3 seeds decide nothing. Nor is anything decided
where the reference has no induction heads: then there was nothing to train without.
The smallest fall and the margins of what counts as no worse are options of the command:
choose them before a run is looked at.

Source: Sahin et al. 2025, arXiv 2511.05743 (the signatures; no tests there).
"""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from jaxheads.report import words
from jaxheads.statistics.claims import (
    Claim,
    Definition,
    Measured,
    Rules,
    Untested,
    judge,
)
from jaxheads.statistics.seeds import FEWEST, over_seeds
from jaxheads.studies.compare_runs.config import ArmsConfig
from jaxheads.studies.compare_runs.effects import Effect

_SOURCE = "Sahin et al. 2025"


@dataclasses.dataclass(frozen=True)
class ArmEffects:
    """The effects of one arm, as its claims read them.

    Attributes:
        name: of the arm.
        effects: by name.
        config: of the comparison.
    """

    name: str
    effects: dict[str, Effect]
    config: ArmsConfig

    def find(self, name: str) -> Effect:
        """An effect that seeds can be asked about.

        Raises:
            Untested: it was not measured, or of fewer than 3 seeds; or the reference
                has no induction heads.
        """
        if name not in self.effects:
            raise Untested("not measured", "The held-out windows have no such targets.")
        found = self.effects[name]
        said = _numbers(self.name, found)
        if len(found.by_seed) < FEWEST:
            raise Untested("undecided", f"{said} Fewer than {FEWEST} decide nothing.")
        if not heads_formed(self.effects):
            raise Untested(
                "undecided",
                f"{said} The reference has no induction head (a prefix-matching score "
                f"above {self.config.induction_above:g}) in the mean seed, so there is "
                "nothing to fall.",
            )
        return found


def heads_formed(effects: Mapping[str, Effect]) -> bool:
    """Whether the reference has induction heads: one in the mean seed, or more."""
    return effects["induction_heads"].reference >= 1


def repetition_falls(arm: ArmEffects, rules: Rules) -> Measured:
    """Fall of the share of random sequences whose last token is repeated.

    Two-sided p of Student's t over seeds; a fall below the smallest share of what the
    reference has does not count.
    """
    return _falls(arm, arm.find("repetition"))


def prefix_falls(arm: ArmEffects, rules: Rules) -> Measured:
    """Fall of the mean prefix-matching score of the top heads.

    Two-sided p of Student's t over seeds; a fall below the smallest share of what the
    reference has does not count.
    """
    return _falls(arm, arm.find("prefix_top"))


def context_gain_falls(arm: ArmEffects, rules: Rules) -> Measured:
    """Fall of the token-loss difference (early minus late loss) on all windows.

    Two-sided p of Student's t over seeds; a fall below the smallest share of what the
    reference has does not count. The paper's turns negative: it has no floor at 0.
    """
    return _falls(arm, arm.find("token_loss_difference"))


def loss_does_not_rise(arm: ArmEffects, rules: Rules) -> Measured:
    """Fall of the loss on targets that complete no bigram seen before.

    Non-inferiority: one-sided p, by Student's t over seeds, of a rise of the margin or
    more. It does not hold if the whole interval is beyond the margin.
    """
    found = arm.find("not_copyable_loss")
    return _no_worse(arm, found, -1, arm.config.margin_loss)


def answers_do_not_fall(arm: ArmEffects, rules: Rules) -> Measured:
    """Rise of the accuracy of in-context functions' answers after a first pair.

    Non-inferiority: one-sided p, by Student's t over seeds, of a fall of the margin or
    more. It does not hold if the whole interval is beyond the margin.
    """
    return _no_worse(arm, arm.find("answer"), 1, arm.config.margin_accuracy)


def context_gain_without_copies(arm: ArmEffects, rules: Rules) -> Measured:
    """Rise of the token-loss difference on windows where neither token is copyable.

    Non-inferiority: one-sided p, by Student's t over seeds, of a fall of the margin or
    more. It does not hold if the whole interval is beyond the margin.
    """
    found = arm.find("token_loss_difference_non_extractive")
    return _no_worse(arm, found, 1, arm.config.margin_loss)


_FUNCTIONS = "windows with in-context functions (--data function-mixture)"
DEFINITIONS = tuple(
    Definition(name, statement, _SOURCE, "signatures", needs, measure)
    for name, statement, needs, measure in (
        (
            "repetition_falls",
            "Random tokens are repeated less often",
            "three seeds or more",
            repetition_falls,
        ),
        (
            "prefix_falls",
            "The strongest heads match prefixes less",
            "three seeds or more",
            prefix_falls,
        ),
        (
            "loss_does_not_rise",
            "The loss where induction cannot predict does not rise",
            "three seeds or more",
            loss_does_not_rise,
        ),
        (
            "answers_do_not_fall",
            "In-context functions are carried out no worse",
            _FUNCTIONS,
            answers_do_not_fall,
        ),
        (
            "context_gain_falls",
            "The gain from context (early minus late loss), over all windows, falls",
            "three seeds or more",
            context_gain_falls,
        ),
        (
            "context_gain_without_copies",
            "The gain from context where no copy helps does not fall",
            "windows whose early and late targets are not copyable",
            context_gain_without_copies,
        ),
    )
)


def judge_arms(
    effects: Sequence[Effect], names: Sequence[str], config: ArmsConfig
) -> list[list[Claim]]:
    """Judge every claim on every arm but the reference.

    Args:
        effects: of all arms, from ``find_effects``.
        names: of all arms, the reference first.
        config: of the comparison.
    """
    judged = []
    for arm in range(1, len(names)):
        own = {one.name: one for one in effects if one.arm == arm}
        asked = ArmEffects(names[arm], own, config)
        judged.append(judge(DEFINITIONS, asked, Rules(smallest=config.smallest)))
    return judged


def _falls(arm: ArmEffects, found: Effect) -> Measured:
    return Measured(
        *_turned(found, -1),
        p=found.p_seeds,
        over="seeds",
        p_over="seeds",
        evidence=_numbers(arm.name, found),
        unit=found.unit,
        smallest=arm.config.smallest * abs(found.reference),
    )


def _no_worse(arm: ArmEffects, found: Effect, sign: int, margin: float) -> Measured:
    by_seed = sign * np.array(found.by_seed)
    return Measured(
        *_turned(found, sign),
        p=over_seeds(by_seed).p_above(-margin),
        over="seeds",
        p_over="seeds",
        evidence=f"{_numbers(arm.name, found)} No worse means by less than "
        f"{words.number(margin)}{_unit(found)}.",
        unit=found.unit,
        smallest=margin,
        null=-margin,
    )


def _turned(found: Effect, sign: int) -> tuple[float, float, float]:
    """Effect and interval over seeds, positive where the claim is right."""
    ends = sorted((sign * found.seeds_low, sign * found.seeds_high))
    return sign * found.difference, ends[0], ends[1]


def _numbers(arm: str, found: Effect) -> str:
    """A sentence with both means."""
    other, reference = words.aligned(found.other, found.reference)
    of = words.plural(len(found.by_seed), "seed")
    return f"{arm} {other}{_unit(found)}, the reference {reference}, over {of}."


def _unit(found: Effect) -> str:
    return "" if found.unit == "share" else f" {found.unit}"

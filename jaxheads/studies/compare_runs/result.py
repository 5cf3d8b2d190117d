"""What ``jaxheads compare-runs`` writes: names and dims of its arrays, and the result.

Arms are trainings that differ in their objective, arm 0 the reference. N seeds, E
evaluations, S held-out windows, T targets of a window, B repeated sequences of period
s, L layers, H heads. Of every arm i = 0, 1, ...:

- "arm_i/correct" bool [N, S, T], "arm_i/losses" float32 [N, S, T], nats: of every
  held-out target at the compared step.
- "arm_i/repeated" bool [N, B, s - 1]: whether each token of a second copy of random
  tokens is predicted.
- "arm_i/prefix_matching" float32 [N, L, H], share of attention, at the compared step.
- "arm_i/train/<name>" [E, N, ...]: what its training measured at evaluations, such as
  "arm_i/train/prefix_matching" [E, N, L, H].
- "arm_i/dropped" float64 [N]: share of the training's targets that had no loss.
- "arm_i/head_effects/<name>": what ``head_effects`` gives at the compared step.
- "arm_i/patching/<name>": what ``patch_across_checkpoints`` gives.

The last two are left out without ``config.causal``; patching also where donor and
recipient are one step. Of all arms together: "train/step" int [E]; "targets/<group>"
bool [S, T], which of the held-out targets are of a group, see ``outcomes.groups``; and
"targets/shot" int16 [S, T] of in-context functions, pairs before an answer or -1.

``result["arms"]`` is a list with a dict of every arm: "name", "path", "objective",
"seeds", "steps", "dropped"; ``result["compared"]`` has "step", "donor_step",
"recipient_step", "differences" and "warnings"; ``result["effects"]`` a list of
``Effect``, ``result["claims"]`` a list of claims for every arm but the reference, both
with null for what is not there.
"""

import math
from typing import Any

from jaxheads import runs
from jaxheads.report import words
from jaxheads.report.tables import Table
from jaxheads.statistics.claims import Claim
from jaxheads.studies.compare_runs.config import ArmsConfig
from jaxheads.studies.compare_runs.effects import Effect, title


def effects_of(run: runs.Run) -> list[Effect]:
    """The effects of a comparison, as they were found."""
    return [Effect(**_typed(row)) for row in run.result["effects"]]


def claims_of(run: runs.Run) -> list[list[Claim]]:
    """The claims on every arm but the reference, as they were judged."""
    return [[Claim(**_typed(row)) for row in each] for each in run.result["claims"]]


TABLES = {
    "Accuracies": ("accuracy",),
    "Losses (nats)": ("loss", "context"),
    "Number and strength of induction heads": ("heads",),
}
"""The families of effects that each table of them has."""


def table(run: runs.Run, caption: str) -> Table:
    """A row an effect of one of ``TABLES``: both means, the difference, both tests."""
    reference, *others = (arm["name"] for arm in run.result["arms"])
    rows = [
        [
            title(one.name),
            others[one.arm - 1],
            f"{one.targets:,}" if one.targets else words.NONE,
            *words.aligned(one.reference, one.other),
            _interval(one.difference, one.seeds_low, one.seeds_high),
            _interval(one.difference, one.samples_low, one.samples_high),
            words.p_value(one.p_seeds_adjusted),
            words.p_value(one.p_samples_adjusted),
        ]
        for one in effects_of(run)
        if one.family in TABLES[caption]
    ]
    other = "arm" if others[1:] else others[0]
    columns = ["", "arm", "a seed has", f"of {reference}", f"of {other}"]
    columns += ["difference [95 % over seeds]", "[95 % over samples]"]
    made = Table(caption, [*columns, "p, seeds", "p, samples"], rows, 2)
    return made if others[1:] else made.without("arm")


def _interval(mean: float, low: float, high: float) -> str:
    if not (math.isfinite(low) and math.isfinite(high)):
        return words.number(mean)
    return words.with_interval(mean, low, high)


def config_of(run: runs.Run) -> ArmsConfig:
    """The config of a comparison."""
    return ArmsConfig(**run.result["config"])


def _typed(row: dict[str, Any]) -> dict[str, Any]:
    """A row of JSON as it was: tuples, and NaN for null."""
    return {
        name: tuple(math.nan if x is None else x for x in value)
        if isinstance(value, list)
        else math.nan
        if value is None
        else value
        for name, value in row.items()
    }

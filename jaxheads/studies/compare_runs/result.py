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
from jaxheads.statistics.claims import Claim
from jaxheads.studies.compare_runs.config import ArmsConfig
from jaxheads.studies.compare_runs.effects import Effect


def effects_of(run: runs.Run) -> list[Effect]:
    """The effects of a comparison, as they were found."""
    return [Effect(**_typed(row)) for row in run.result["effects"]]


def claims_of(run: runs.Run) -> list[list[Claim]]:
    """The claims on every arm but the reference, as they were judged."""
    return [[Claim(**_typed(row)) for row in each] for each in run.result["claims"]]


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

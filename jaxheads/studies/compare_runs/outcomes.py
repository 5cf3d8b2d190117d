"""What every arm's models do on the same held-out windows and random sequences.

N seeds, S windows, T targets, B sequences of random tokens with the period s.
"""

from typing import Any

import numpy as np

from jaxheads import runs
from jaxheads.studies.compare_runs.opening import Arms
from jaxheads.training.data.function_mixture import TEXT, FunctionMixture
from jaxheads.training.held_out import HeldOut, run_windows
from jaxheads.training.measures import TrainingEvidence
from jaxheads.training.probes import head_figures, repetition_right
from jaxheads.training.trained import Trained

_LEFT_OUT = ("token_losses", "loss_by_position")
"""Figures of a training that are of single windows, or of each position."""


def measure(trained: Trained, evidence: TrainingEvidence, step: int) -> runs.Arrays:
    """Run one arm's models at a step.

    Args:
        trained: the arm.
        evidence: its probes and held-out windows.
        step: of its models.

    Returns:
        "correct" bool [N, S, T] and "losses" float32 [N, S, T] of every target (those
        that are not scored, too); "repeated" bool [N, B, s - 1]; "prefix_matching"
        float32 [N, L, H].
    """
    params, config = trained.params(step), trained.model_config
    seen = run_windows(params, evidence.held_out, config)
    right = repetition_right(params, evidence.probes, config)
    heads = head_figures(params, evidence.probes, config)
    return {
        "correct": seen.predicted == evidence.held_out.windows.targets,
        "losses": seen.losses,
        "repeated": right.transpose(0, 2, 1),
        "prefix_matching": heads["prefix_matching"],
    }


def groups(held: HeldOut) -> dict[str, np.ndarray]:
    """Which scored targets are of which kind, bool [S, T] by name.

    - "all"; "copyable", those that complete a bigram seen before in their document,
      which induction can predict; "not_copyable", which it cannot;
    - "early", "late": the two targets of each window whose losses make the token-loss
      difference, of windows where both are scored; "..._non_extractive": where neither
      of the two is copyable;
    - of ``FunctionMixture``: "answer", which an earlier pair allows to know;
      "answer_0", "answer_1", "answer_2_3", "answer_4_7", ... by the number of pairs
      before; "copying_block", copyable targets of copying blocks; "text", targets in
      text; "plain", those that are neither answer nor copyable;
    - of other sources the groups that their evidence has, if they are none of these.
    """
    scored = held.windows.scored
    found = {
        "all": scored,
        "copyable": scored & held.copyable,
        "not_copyable": scored & ~held.copyable,
    }
    at = np.arange(scored.shape[1])
    for kind, counts in held.samples.items():
        for name, place in zip(("early", "late"), held.at, strict=True):
            end = f"_{kind}" if kind else ""
            found[name + end] = counts[:, None] & (at == place)[None]
    own = held.groups
    if isinstance(held.source, FunctionMixture):
        info = held.windows.info
        own = {"copying_block": own["copying_block"], "answer": own["answer"]}
        own |= _by_shot(info["shot"])
        own |= {"text": info["kind"] == TEXT, "plain": info["plain"]}
    for name, where in own.items():
        if not any(np.array_equal(scored & where, one) for one in found.values()):
            found[name] = scored & where
    return found


def _by_shot(shot: np.ndarray) -> dict[str, np.ndarray]:
    """Answers by the pairs before them, in octaves."""
    found = {"answer_0": shot == 0, "answer_1": shot == 1}
    low = 2
    while low <= shot.max(initial=0):
        high = 2 * low - 1
        found[f"answer_{low}_{high}"] = (shot >= low) & (shot <= high)
        low *= 2
    return found


def shared(arms: Arms) -> runs.Arrays:
    """Arrays of all arms together: which targets are of a group, and of which shot."""
    held = arms.evidence[0].held_out
    found = {f"targets/{name}": where for name, where in groups(held).items()}
    if isinstance(held.source, FunctionMixture):
        found["targets/shot"] = held.windows.info["shot"]
    return found


def curves(arms: Arms) -> runs.Arrays:
    """What all trainings measured at the same steps, and the share of dropped targets.

    Returns:
        "train/step" int [E] and "arm_i/train/<name>" [E, N, ...] of the figures that
        all arms have, where they have any; "arm_i/dropped" float32 [N].
    """
    found: runs.Arrays = {}
    for at, one in enumerate(arms.trained):
        dropped = one.run.arrays["train/dropped"]
        found[f"arm_{at}/dropped"] = dropped.mean(axis=0, dtype=np.float64)
    steps = arms.trained[0].eval_steps
    for one in arms.trained[1:]:
        steps = np.intersect1d(steps, one.eval_steps)
    if not len(steps):
        return found
    found["train/step"] = steps
    for at, one in enumerate(arms.trained):
        rows = np.isin(one.eval_steps, steps)
        for name in _figures(arms):
            values: Any = one.evaluated(name)
            found[f"arm_{at}/train/{name}"] = values[rows]
    return found


def _figures(arms: Arms) -> list[str]:
    """Names of what all trainings evaluated."""
    first, *others = ({*_evaluated(one)} for one in arms.trained)
    return sorted(first.intersection(*others).difference(_LEFT_OUT))


def _evaluated(trained: Trained) -> list[str]:
    start = "evaluation/"
    names = [name for name in trained.run.arrays if name.startswith(start)]
    return [name.removeprefix(start) for name in names if name != "evaluation/step"]

"""What a model in training does on held-out windows: losses and accuracies.

The windows are fixed throughout a run, and are run once for everything. N are the runs
side by side, S the windows, T the targets of each.
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxheads.engine.chunks import chunks
from jaxheads.engine.devices import data_parts, gather, mesh_of, split
from jaxheads.errors import UserError
from jaxheads.models.forward import forward
from jaxheads.statistics.units import mean_where
from jaxheads.training.data.function_mixture import COPYING, FunctionMixture
from jaxheads.training.data.languages import RegularLanguages
from jaxheads.training.data.repeats import RepeatedTokens
from jaxheads.training.data.successors import FixedSuccessors
from jaxheads.training.data.text_windows import TextWindows
from jaxheads.training.data.windows import (
    EVALUATION_STREAM,
    Source,
    Windows,
    seen_bigrams,
)
from jaxheads.training.language_figures import language_figures, prompt_ngrams
from jaxheads.training.objectives import target_losses
from jaxheads.training.probes import BUDGET_BYTES
from jaxheads.training.step import over_runs


@dataclasses.dataclass(frozen=True, eq=False)
class HeldOut:
    """Held-out windows, and what is read off them.

    Attributes:
        source: that they are of.
        windows: S of them.
        at: indices of the early and the late target.
        copyable: bool [S, T], targets that complete a bigram seen before in their
            document.
        chosen: int [S], one random scored target of each window; -1: it has none.
        groups: bool [S, T] by name, targets of a kind, which have an accuracy.
        ngrams: what 3-grams of the prompt predict of ``RegularLanguages``, float64
            [S, T, symbols]; else None.
    """

    source: Source
    windows: Windows
    at: tuple[int, int]
    copyable: np.ndarray
    chosen: np.ndarray
    groups: dict[str, np.ndarray]
    ngrams: np.ndarray | None = None

    @property
    def samples(self) -> dict[str, np.ndarray]:
        """Windows whose early and late targets count, bool [S] by name: "" is all.

        Of "non_extractive" neither of the two completes a bigram seen before.
        """
        early, late = self.at
        both = self.windows.scored[:, early] & self.windows.scored[:, late]
        copyable = self.copyable[:, early] | self.copyable[:, late]
        return {"": both, "non_extractive": both & ~copyable}


@dataclasses.dataclass(frozen=True, eq=False)
class Outcomes:
    """What models say of each target.

    Attributes:
        losses: float32 [N, S, T], nats.
        predicted: int32 [N, S, T], the likeliest token.
        probabilities: float32 [N, S, T, V], or None.
    """

    losses: np.ndarray
    predicted: np.ndarray
    probabilities: np.ndarray | None = None


def draw_windows(
    source: Source,
    *,
    samples: int = 128,
    positions: tuple[int, int] | None = None,
    seed: int = 0,
) -> HeldOut:
    """The first windows of the data order that no training seed reads.

    Args:
        source: of held-out windows.
        samples: S at most; a text may have fewer windows.
        positions: of the early and the late target in a window, counted from 1; None:
            50 and 500, or a tenth and 95 % of windows of fewer than 500 targets.
        seed: of the target of each window that stands for it.

    Raises:
        UserError: the positions are not in the windows.
    """
    length = source.sequence_length
    if positions is None:
        positions = (50, 500)
        if length < 500:
            positions = (max(1, length // 10), max(2, 95 * length // 100))
    early, late = positions
    if not 1 <= early < late <= length:
        raise UserError(
            f"positions must be an early and a late one of the {length} targets of a "
            f"window, but are {early} and {late}: give others, or longer windows"
        )
    samples = min(samples, getattr(source, "windows", samples))
    windows = source.batch(0, samples, stream=EVALUATION_STREAM)
    tokens = windows.tokens.astype(np.int64)
    if windows.segments is not None:  # a copy in another document is none
        tokens = tokens + source.vocab_size * (windows.segments.astype(np.int64) + 1)
    scored, copyable = windows.scored, seen_bigrams(tokens)
    rank = np.random.default_rng([seed, 1]).random(scored.shape)
    chosen = np.where(scored, rank, -1.0).argmax(axis=1)
    return HeldOut(
        source=source,
        windows=windows,
        at=(early - 1, late - 1),
        copyable=copyable,
        chosen=np.where(scored.any(axis=1), chosen, -1),
        groups=_groups(source, windows, copyable),
        ngrams=prompt_ngrams(source, windows),
    )


def _groups(
    source: Source, windows: Windows, copyable: np.ndarray
) -> dict[str, np.ndarray]:
    """Kinds of targets that tell mechanisms apart, bool [S, T] by name."""
    info = windows.info
    if isinstance(source, TextWindows):
        return {"copyable": copyable, "plain": ~copyable}
    if isinstance(source, RepeatedTokens):
        return {"copied": info["copied"]}
    if isinstance(source, FixedSuccessors):
        target = np.arange(source.sequence_length)
        return {
            "predictable": info["predictable"],
            "first_induction": target == info["first"][:, None],
        }
    if isinstance(source, FunctionMixture):
        return {
            "copyable": info["copyable"],
            "copying_block": info["copyable"] & (info["kind"] == COPYING),
            "answer": info["shot"] >= 1,
            "plain": info["plain"],
        }
    return {}


def run_windows(params: Any, held: HeldOut, config: Any) -> Outcomes:
    """Run models over the held-out windows, as many at once as memory allows.

    Args:
        params: leaves [N, ...].
        held: from ``draw_windows``.
        config: of the model.
    """
    mesh = mesh_of(params)
    windows, runs = held.windows, jax.tree.leaves(params)[0].shape[0]
    count, length = windows.scored.shape
    wide = 8 * config.width + 2 * config.mlp_width + 2 * config.num_heads * length
    each = 4 * runs * length * (wide + 4 * config.vocab_size)
    probabilities = isinstance(held.source, RegularLanguages)
    parts = []
    for index in chunks(count, max(1, BUDGET_BYTES // each), data_parts(mesh)):
        rows = (
            windows.tokens[index],
            None if windows.segments is None else windows.segments[index],
        )
        rows = split(rows, mesh)
        parts.append(gather(_outcomes(params, *rows, config, probabilities)))
    joined = jax.tree.map(lambda *each: np.concatenate(each, axis=1)[:, :count], *parts)
    return Outcomes(*joined)


@functools.partial(jax.jit, static_argnames="probabilities")
def _outcomes(params, tokens, segments, config, probabilities):
    """Losses, predictions and probabilities (or None) of windows [B, T + 1]."""

    def of_run(one):
        out = forward(
            one,
            tokens[:, :-1],
            config,
            segments=None if segments is None else segments[:, :-1],
        )
        losses, normaliser = target_losses(out.logits, tokens[:, 1:])
        likeliest = jnp.argmax(out.logits, axis=-1)
        given = jnp.exp(out.logits - normaliser[:, :, None])
        return losses, likeliest, given if probabilities else None

    return over_runs(of_run)(params)


def window_figures(held: HeldOut, seen: Outcomes) -> dict[str, np.ndarray]:
    """Everything that is read off the outcomes on held-out windows.

    Only scored targets count, and a mean over none is NaN.

    - "icl_score": loss of the late target minus loss of the early one, nats: negative
      means that the model learns in context; "token_loss_difference": early minus late,
      the other sign; "early_loss", "late_loss". Each a second time on windows where
      neither of the two completes a bigram seen before: "..._non_extractive".
    - "loss_by_position" [T]: mean over the windows.
    - "token_losses" [S]: of one random target of each window, always the same.
    - "accuracy"; and "accuracy_..." and "..._loss" of the groups of targets.
    - "accuracy_by_shot", "loss_by_shot" [pairs]: of the answers of ``FunctionMixture``
      with 0, 1, ... pairs before.
    - of ``RegularLanguages`` those of ``language_figures``.

    Args:
        held: from ``draw_windows``.
        seen: from ``run_windows``.

    Returns:
        float32 [N, ...] by name.

    Source: Olsson et al. 2022 (in-context learning score; per-token losses); Sahin et
    al. 2025 (token-loss difference, and samples that are not extractive); Xu et al.
    2024 (first induction position).
    """
    losses, scored = seen.losses.astype(np.float64), held.windows.scored
    correct = seen.predicted == held.windows.targets
    found = _in_context(held, losses)
    found["loss_by_position"] = mean_where(losses, scored, axis=1)
    rows = np.arange(len(scored))
    found["token_losses"] = np.where(
        held.chosen >= 0, losses[:, rows, held.chosen], np.nan
    )
    found["accuracy"] = mean_where(correct, scored)
    for name, group in held.groups.items():
        found[f"accuracy_{name}"] = mean_where(correct, group & scored)
        found[f"{name}_loss"] = mean_where(losses, group & scored)
    if isinstance(held.source, FunctionMixture):
        shot = held.windows.info["shot"]
        pairs = [shot == pairs for pairs in range(int(shot.max(initial=0)) + 1)]
        for name, values in (("accuracy_by_shot", correct), ("loss_by_shot", losses)):
            means = [mean_where(values, group & scored) for group in pairs]
            found[name] = np.stack(means, axis=1)
    if isinstance(held.source, RegularLanguages):
        assert seen.probabilities is not None and held.ngrams is not None
        found |= language_figures(
            held.source, held.windows, seen.predicted, seen.probabilities, held.ngrams
        )
    return {name: values.astype(np.float32) for name, values in found.items()}


def _in_context(held: HeldOut, losses: np.ndarray) -> dict[str, np.ndarray]:
    """What the losses [N, S, T] of the early and the late target say; [N] by name."""
    found = {}
    early, late = (losses[:, :, at] for at in held.at)  # [N, S]
    for kind, counts in held.samples.items():
        end = f"_{kind}" if kind else ""
        found[f"icl_score{end}"] = mean_where(late - early, counts)
        found[f"token_loss_difference{end}"] = mean_where(early - late, counts)
        found[f"early_loss{end}"] = mean_where(early, counts)
        found[f"late_loss{end}"] = mean_where(late, counts)
    return found

"""Direct logit attribution: what a head's own output says for the answer.

The stream that is unembedded is a sum of the embedding and of what every head and MLP
added to it. The last norm is linear once its denominator is fixed to the one of the
whole stream, so each part has its own logits, and they add up. What a head does through
later layers is not in it; ablations measure that too.
"""

from collections.abc import Callable, Sequence
from itertools import groupby

import jax
import jax.numpy as jnp
import numpy as np

from jaxheads.engine import plan
from jaxheads.engine.passes import Pass
from jaxheads.heads import HeadScores
from jaxheads.icl.prompts import by_task
from jaxheads.models import family
from jaxheads.models.forward import Prefix, prefill
from jaxheads.models.layer_scan import exact_products
from jaxheads.models.metrics import logit_difference
from jaxheads.scores.config import ScoresConfig
from jaxheads.scores.part import Asked, Part, of_passes
from jaxheads.statistics.units import mean_and_error

Linear = Callable[[jax.Array, jax.Array], jax.Array]
"""A linear function of logits [V] and whatever it reads of the target."""


def above_mean(logits: jax.Array, target: jax.Array) -> jax.Array:
    """Logit of a token minus the mean over the vocabulary: [V] and int [] -> nats."""
    return logits[target] - logits.mean()


def directions(
    params, whole: jax.Array, targets: jax.Array, config, linear: Linear = above_mean
) -> jax.Array:
    """What of the residual stream speaks for targets: part . direction = its effect.

    Args:
        params: of the family of ``config``.
        whole: float [B, D], the stream whose norm's statistics are taken.
        targets: int [B], or whatever ``linear`` reads [B, ...].
        config: of the model.
        linear: of the logits without the last norm's bias and any cap.

    Returns:
        [B, D], nats per unit of the stream; float32 or wider.
    """
    model = family(config.model_type)
    whole = whole.astype(jnp.promote_types(whole.dtype, jnp.float32))

    def effect(part, whole, target):
        return linear(model.unembed(params, part, config, whole), target)

    # The effect is linear in the part: its gradient is the same at every part.
    return jax.vmap(jax.grad(effect))(whole, whole, targets)


@jax.jit
def attribution(params, prefix: Prefix, targets: jax.Array, config) -> jax.Array:
    """Each head's direct effect on the logits of targets at the last position.

    ``effect[l, h, b] = (contribution of head (l, h) to the stream) . direction[b]``:
    the logit of the target, minus the mean logit of the vocabulary or the logit of
    another token, that unembedding this part of the stream gives, the denominator of
    the last norm being that of the whole. With the effects of the embedding, MLPs and
    biases, they add up to what the model says (before a cap on its logits).

    Args:
        params: of the family of ``config``.
        prefix: of B prompts.
        targets: int [B]; or int [B, 2], the wanted token and the other.
        config: of the model.

    Returns:
        [L, H, B], nats.

    Source: Elhage et al. 2021 (logits as sums over paths); nostalgebraist 2020 (logit
    lens); Wang et al. 2023, section 3 (logit difference, the last norm's scale fixed).
    """
    model = family(config.model_type)
    linear = above_mean if targets.ndim == 1 else logit_difference
    with exact_products(params):
        toward = directions(params, prefix.final, targets, config, linear)
        added = jax.vmap(lambda layer, z: model.contributions(layer, z, config))(
            params.layers, prefix.heads
        )  # [L, B, H, D]
        return jnp.einsum("lbhd,bd->lhb", added.astype(toward.dtype), toward)


@jax.jit
def effects(
    params, tokens: jax.Array, lengths: jax.Array, targets: jax.Array, config
) -> jax.Array:
    """``attribution`` of prompts.

    Args:
        params: of the family of ``config``.
        tokens: int [B, T], right padded.
        lengths: int [B].
        targets: int [B], or [B, 2], as for ``attribution``.
        config: of the model.

    Returns:
        [L, H, B], nats.
    """
    prefix = prefill(params, tokens, lengths, config)
    return attribution(params, prefix, targets, config)


def head_scores(
    samples: np.ndarray,
    prompts: str,
    difference: bool,
    queries: np.ndarray | None = None,
) -> HeadScores:
    """Head scores from per-prompt effects.

    Args:
        samples: [L, H, B], from ``effects``.
        prompts: what the prompts are, such as "10-shot prompts of 8 tasks".
        difference: whether the targets were pairs.
        queries: int [E, B / E], of tasks one after another: prompts of a task with one
            number ask one query; the error is over queries, tasks fixed. None: all
            prompts are one sample.

    Source: Elhage et al. 2021, section "Zero-Layer Transformers" onwards; Wang et al.
    2023, section 3.
    """
    grouped = (1, samples.shape[-1]) if queries is None else queries.shape
    values = samples.reshape(*samples.shape[:-1], *grouped)
    against = "that of another token" if difference else "the mean of the vocabulary"
    return HeadScores(
        "direct_logit_difference" if difference else "direct_logit",
        *mean_and_error(values, queries),
        definition="what unembedding the head's own output at the last position, with "
        "the last norm's statistics of the whole stream, adds to the logit of the "
        f"right answer's first token minus {against}; mean over {prompts}; chance: an "
        "output that has nothing to do with the answer",
        unit="nats",
        chance=0.0,
        ceiling=float("inf"),
        source="Elhage et al. 2021, paths through heads; Wang et al. 2023, section 3",
    )


def described(chosen: ScoresConfig, shots: int) -> list[HeadScores]:
    """The score of one head that was never run."""
    prompts = f"{shots}-shot prompts of {len(chosen.tasks)} tasks"
    return [head_scores(np.zeros((1, 1, 2)), prompts, False)]


def parts(names: Sequence[str], asked: Asked) -> list[Part]:
    """What computes the score, on the function-vector score's clean prompts."""
    length_of = lambda task: asked.prompts[task].tokens.shape[1]
    tasks = sorted(asked.prompts, key=length_of)
    told = f"{asked.shots}-shot prompts of {len(tasks)} tasks"
    queries = by_task(asked.queries, tasks)

    def passes(config) -> list[Pass]:
        """One a prompt length: those of several tasks together."""
        made = []
        for length, some in groupby(tasks, length_of):
            batches = [asked.prompts[task] for task in some]
            tokens, lengths, targets = (
                np.concatenate([getattr(batch, field) for batch in batches])
                for field in ("tokens", "lengths", "targets")
            )
            prompts, cost = (tokens, lengths, targets), plan.sequence(config, length)
            name = f"direct logit effects on {length}-token prompts"
            made.append(Pass(name, effects, prompts, (config,), cost))
        return made

    return [
        of_passes(
            "direct_logit",
            {},
            passes,
            lambda *made: {"effects": np.concatenate(made, axis=-1)},
            lambda measured: [head_scores(measured["effects"], told, False, queries)],
        )
    ]

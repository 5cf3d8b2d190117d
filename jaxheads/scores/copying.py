"""Copying score: does a head raise the logit of the very token that it attends to?

On random tokens, which say nothing of what comes next. Each source position's value
vector goes through the output projection and the unembedding, by itself: that is what
attending to this position adds to the logits. Of what it raises among the sequence's
tokens, the share that falls on the token at that position is counted, weighted by the
attention that the position gets.

The paper's text does not say whether the raised logits are those of each attended token
by itself or of the head's whole output. By itself, as here, the score does not depend
on how sharp the attention is: a head that copies all that it sees has the score 1. Of
the whole output, even a perfect copier would have 1/n if it attends to n tokens.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from jaxheads.engine import plan
from jaxheads.engine.passes import Pass
from jaxheads.heads import HeadScores, from_samples
from jaxheads.models import family
from jaxheads.models.forward import forward
from jaxheads.models.layer_scan import exact_products
from jaxheads.scores import induction
from jaxheads.scores.config import ScoresConfig
from jaxheads.scores.direct_logit import directions
from jaxheads.scores.part import Asked, Part, of_passes

LENGTH = 25
"""Random tokens of a sequence, as in Olsson et al. 2022."""


@jax.jit
def copied(params, tokens: jax.Array, config, bos: bool | jax.Array = False):
    """How much heads copy what they attend to, for every head and sequence.

    With r[s, u] the logit of token u, minus the mean over the vocabulary and not below
    0, that the value of position s gives through the output projection::

        ratio = sum over t, s of A[t, s] r[s, x_s] / (sum over u of r[s, x_u])
                / sum over t, s of A[t, s]
        copied = 2 ratio - 1

    t, s and u run over the sequence. A value that raises none of its tokens counts as
    ratio 0. The denominators of norms drop out, and biases of norms are left out.

    Args:
        params: of the family of ``config``.
        tokens: int [B, T], distinct in each sequence; ``induction.probe`` with
            ``repeats=1``.
        config: of the model.
        bos: whether the first token is BOS, which t, s and u then leave out.

    Returns:
        [L, H, B], -1 to 1.

    Source: Olsson et al. 2022, head activation evaluators (copying).
    """
    model = family(config.model_type)
    capture = ("patterns", "values", "final")
    counts = jnp.arange(tokens.shape[1]) >= jnp.asarray(bos, int)  # [T]
    pairs = (counts[:, None] & counts[None])[None, None]  # [1, 1, T, S]
    with exact_products(params):
        out = forward(params, tokens, config, logits="last", capture=capture)
        assert out.final is not None

        def of_sequence(inputs):
            row, final = inputs  # [T], [D]
            whole = jnp.broadcast_to(final[None], (len(row), len(final)))
            return directions(params, whole, row, config)

        toward = jax.lax.map(of_sequence, (tokens, out.final[:, -1]))  # [B, U, D]

        def of_layer(inputs):
            layer, patterns, values = inputs
            z = jnp.repeat(values, config.num_heads // config.num_kv_heads, axis=2)
            added = model.contributions(layer, z, config).astype(toward.dtype)
            raised = jax.nn.relu(jnp.einsum("bshd,bud->bhsu", added, toward))
            raised = raised * counts[None, None, None]
            total = raised.sum(-1)
            own = jnp.diagonal(raised, axis1=-2, axis2=-1)
            ratio = own / jnp.where(total > 0, total, 1)  # [B, H, S]
            weights = patterns * pairs
            attended = weights.sum((-2, -1))
            # All of it can be on BOS.
            attended = jnp.where(attended > 0, attended, 1)
            mean = (weights * ratio[:, :, None]).sum((-2, -1)) / attended
            return 2 * mean.T - 1

        return jax.lax.map(of_layer, (params.layers, out.patterns, out.values))


def chance(length: int) -> float:
    """Score of a head that raises tokens without regard to which it attends to."""
    return 2 / length - 1


def head_scores(samples: np.ndarray, length: int, bos: bool) -> HeadScores:
    """Head scores from per-sequence scores.

    Args:
        samples: [L, H, B], from ``copied``.
        length: random tokens of a sequence; the paper's are 25, without BOS.
        bos: whether the sequences begin with BOS.

    Source: Olsson et al. 2022, head activation evaluators (copying).
    """
    where = f"{length} random tokens" + (" after BOS" if bos else "")
    return HeadScores(
        "copying",
        *from_samples(samples),
        definition="of the logits (above the vocabulary's mean) that the value of an "
        "attended token raises among the sequence's tokens, through the output "
        "projection and the unembedding alone, the share of that token itself; mean "
        f"weighted by attention, 0 to 1 mapped to -1 to 1, on {where}; chance: tokens "
        "are raised at random",
        unit="share of raised logits, mapped to -1 to 1",
        chance=chance(length),
        ceiling=1.0,
        source="Olsson et al. 2022, copying",
    )


def described(chosen: ScoresConfig, shots: int) -> list[HeadScores]:
    """The score of one head that was never run."""
    return [head_scores(np.zeros((1, 1, 2)), LENGTH, bos=False)]


def parts(names: Sequence[str], asked: Asked) -> list[Part]:
    """What computes the score."""
    source, count = asked.source, asked.chosen.probe_sequences
    bos = source.bos_id is not None
    probe = induction.probe(
        count, LENGTH, source.vocabulary, source.bos_id, source.seed, repeats=1
    )
    length = probe.shape[1]

    def passes(config) -> list[Pass]:
        name, others = f"copying of {length}-token sequences", (config, np.asarray(bos))
        return [Pass(name, copied, (probe,), others, plan.sequence(config, length))]

    return [
        of_passes(
            "copying",
            {"prompts/copying": probe},
            passes,
            lambda made: {"copied": made},
            lambda measured: [head_scores(measured["copied"], LENGTH, bos)],
        )
    ]

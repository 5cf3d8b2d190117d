"""Activations of a later checkpoint put into an earlier one: what its heads lacked.

The donor (a trained model) and the recipient (an earlier one, step 0 for a random one)
run on the same repeated random tokens; what one layer of the donor puts out takes the
place of what the recipient's layer puts out, at all positions. If later heads of the
recipient match prefixes at once, these activations are what they lacked: the tokens
before, say, written by previous-token heads.

Two controls stand beside it: the recipient as it is ("baseline"), and the donor's
activations on *other* random tokens of the same period ("control"), which keep what
depends on positions and lose what depends on tokens. Prefix matching that activations
of tokens bring about is above both. What a random head does with them is another
question: it reads them by its own random weights.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxheads.engine.chunks import over_prompts
from jaxheads.errors import UserError
from jaxheads.models import family
from jaxheads.models.ablation import Ablation
from jaxheads.models.addition import Addition
from jaxheads.models.forward import forward
from jaxheads.scores import induction
from jaxheads.scores.attention import attention_share
from jaxheads.training.probes import BUDGET_BYTES, Probes
from jaxheads.training.trained import Trained

WHAT = ("attention", "residual")


def patch_across_checkpoints(
    trained: Trained, donor_step: int, recipient_step: int, *, what: str = "attention"
) -> dict[str, np.ndarray]:
    """Put one layer of a checkpoint into another, of every seed, layer after layer.

    With "attention" it is what the donor's attention layer adds to its residual stream:
    its heads' outputs z through its own W_O (with bias and norm behind it), not z
    alone, which the recipient's W_O would read as something else. With "residual" it
    is the whole stream that leaves the layer, embedded tokens and all earlier layers
    included.

    Args:
        trained: the run that both are of.
        donor_step: whose activations are taken.
        recipient_step: whose activations they replace.
        what: "attention" or "residual".

    Returns:
        float32 by name; scores are shares of attention:

        - "prefix_matching" [N, L, L, H]: the recipient's, by layer that is patched
          (axis 1); NaN in layers that it cannot reach, up to the patched one;
        - "control" [N, L, L, H]: the same with activations on other tokens; not with
          "residual", where later layers see nothing but the other sequence;
        - "baseline" [N, L, H]: the recipient's, as it is;
        - "donor", "donor_previous_token" [N, L, H]: scores of the donor's own heads;
        - "prefix_matching_se", "control_se" [N, L, L, H]: standard errors over
          sequences;
        - "chance" []: of even attention.

    Raises:
        UserError: a step has no models, or ``what`` is neither.

    Source: Sahin et al. 2025, arXiv 2511.05743 (layer 4 of step 5000 in the random
    model).
    """
    donor, recipient = trained.params(donor_step), trained.params(recipient_step)
    probes = _probes(trained)
    return patch_layers(donor, recipient, probes, trained.model_config, what=what)


def patch_layers(
    donor: Any, recipient: Any, probes: Probes, config: Any, *, what: str = "attention"
) -> dict[str, np.ndarray]:
    """``patch_across_checkpoints`` of given models, which may be of two runs.

    Args:
        donor: params, leaves [N, ...].
        recipient: the same.
        probes: two repeated sequences or more.
        config: of both models.
        what: "attention" or "residual".
    """
    if what not in WHAT:
        raise UserError(
            f"what is patched must be one of {', '.join(WHAT)}, but is {what!r}: "
            "choose one"
        )
    layers, heads = config.num_layers, config.num_heads
    swapped = np.broadcast_to(np.eye(layers)[:, :, None], (layers, layers, heads))
    found = _patched(donor, recipient, probes, config, swapped, what)
    return _unreached_left_out(found, np.arange(layers))


def _probes(trained: Trained) -> Probes:
    """The run's own, with two sequences at least: the control takes another one."""
    probes = trained.evidence().probes
    if len(probes.repeated) > 1:
        return probes
    return trained.evidence(probe_sequences=2).probes


def _unreached_left_out(
    found: dict[str, np.ndarray], patched: np.ndarray
) -> dict[str, np.ndarray]:
    """NaN in layers up to the patched one: values [N, C, L, H], patched int [C]."""
    made = {}
    for name, values in found.items():
        if values.ndim == 4:
            reached = np.arange(values.shape[2])[None] > patched[:, None]  # [C, L]
            values = np.where(reached[None, :, :, None], values, np.nan)
        made[name] = values.astype(np.float32)
    return made


def _patched(
    donor: Any,
    recipient: Any,
    probes: Probes,
    config: Any,
    swapped: np.ndarray,
    what: str,
) -> dict[str, np.ndarray]:
    """Scores of all seeds; ``swapped`` [C, L, H], 1 where the donor's is put in."""
    none = np.zeros((1, *swapped.shape[1:]))
    swapped = np.concatenate([none, swapped]).astype(np.float32)
    runs = []
    for n in range(jax.tree.leaves(donor)[0].shape[0]):
        both = jax.tree.map(lambda leaf, n=n: leaf[n], (donor, recipient))
        own, patched = _of_sequences(both, probes, config, swapped, what, 0)
        shares = {"prefix_matching": patched}
        if what != "residual":
            away = _of_sequences(both, probes, config, swapped, what, 1)[1]
            shares["control"] = away
        found = {
            "baseline": patched[0].mean(axis=-1),
            "donor": own["prefix_matching"].mean(axis=-1),
            "donor_previous_token": own["previous_token"].mean(axis=-1),
        }
        for name, each in shares.items():
            found[name] = each[1:].mean(axis=-1)
            spread = each[1:].std(axis=-1, ddof=1)
            found[f"{name}_se"] = spread / np.sqrt(each.shape[-1])
        runs.append(found)
    made = {name: np.stack([found[name] for found in runs]) for name in runs[0]}
    chance = induction.chance(probes.period, probes.bos, repeats=probes.repeats)
    return made | {"chance": np.asarray(chance)}


def _of_sequences(
    both: Any, probes: Probes, config: Any, swapped: np.ndarray, what: str, other: int
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Scores by sequence: the donor's own by name [L, H, B], and patched [C, L, H, B].

    ``other``: how many sequences further on the donor's activations are taken.
    """
    tokens = probes.repeated
    count, length = tokens.shape
    wide = 3 * config.num_heads * length + 8 * config.width + 2 * config.mlp_width
    each = 4 * length * config.num_layers * wide
    parts = over_prompts(
        _shares,
        both,
        (tokens, np.roll(tokens, -other, axis=0)),
        (config, probes.edges, jnp.asarray(swapped)),
        chunk=max(1, BUDGET_BYTES // each),
        what=what,
    )
    own, patched = jax.tree.map(
        lambda *each: np.concatenate(each, axis=-1)[..., :count].astype(np.float64),
        *parts,
    )
    return own, patched


@functools.partial(jax.jit, static_argnames="what")
def _shares(both, tokens, donor_tokens, config, edges, swapped, *, what):
    """The donor's scores, and prefix matching [C, L, H, B] under each swap."""
    donor, recipient = both
    own = attention_share(donor, donor_tokens, config, edges)
    capture = ("residual", "final") if what == "residual" else ("heads",)
    seen = _run(donor, donor_tokens, config, capture)

    def score(params, ablation):
        return attention_share(
            params, tokens, config, edges["prefix_matching"], ablation=ablation
        )

    if what == "residual":
        own_stream = _leaving(_run(recipient, tokens, config, capture))
        change = _leaving(seen) - own_stream
        add = lambda which: Addition(change, which[:, 0], place="leaving")
        return own, jax.lax.map(lambda which: score(recipient, add(which)), swapped)

    def under(which):
        params = _with_output(recipient, donor, which[:, 0], config)
        return score(params, Ablation(1 - which, seen.heads))

    return own, jax.lax.map(under, swapped)


def _run(params, tokens, config, capture):
    none = jnp.zeros((len(tokens), 0), jnp.int32)  # no logits
    return forward(params, tokens, config, logits=none, capture=capture)


def _leaving(seen) -> jax.Array:
    """The residual stream that leaves each layer, [L, B, T, D]."""
    return jnp.concatenate([seen.residual[1:], seen.final[None]])


def _with_output(recipient, donor, which: jax.Array, config):
    """The recipient, with the donor's way from z to the stream where ``which`` [L]."""

    def chosen(name: str) -> jax.Array | None:
        own, other = (getattr(each.layers, name) for each in (recipient, donor))
        if own is None:
            return None
        rows = which.reshape(which.shape + (1,) * (own.ndim - 1))
        return jnp.where(rows > 0, other, own)

    changed = {name: chosen(name) for name in family(config.model_type).OUTPUT}
    return recipient.replace(layers=recipient.layers.replace(**changed))

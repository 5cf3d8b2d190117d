"""AdamW with warm-up, cosine and a limit on the gradient's norm."""

from typing import Any

import jax
import optax

from jaxheads.models import family
from jaxheads.models.parameters import Leaf, is_leaf
from jaxheads.training.config import TrainConfig


def make_optimiser(
    config: TrainConfig, model_config: Any
) -> optax.GradientTransformation:
    """The optimiser of a run.

    Args:
        config: of the run.
        model_config: the family's ``Config``.

    Returns:
        Gradients of a run's params to what is added to them.
    """
    adamw = optax.adamw(
        config.learning_rate_at,
        b1=config.beta1,
        b2=config.beta2,
        eps=config.epsilon,
        weight_decay=config.weight_decay,
        mask=decayed(config, model_config),
    )
    if not config.clip:
        return adamw
    return optax.chain(optax.clip_by_global_norm(config.clip), adamw)


def decayed(config: TrainConfig, model_config: Any) -> Any:
    """Which params decay: a tree of bools in the shape of the params.

    Matrices do, and embeddings of tokens and positions if asked; norms, biases and the
    few numbers that mix keys do not.
    """

    def decays(leaf: Leaf) -> bool:
        looked_up = leaf.axes[0] in ("vocabulary", "positions")
        return leaf.init == "normal" and (config.decay_embeddings or not looked_up)

    abstract = family(model_config.model_type).abstract(model_config)
    return jax.tree.map(decays, abstract, is_leaf=is_leaf)

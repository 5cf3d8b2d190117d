"""Each head removed, alone: equal to forwards under ablations."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from families import CONFIGS, Tiny, assert_close

from jaxheads.models.ablation import Ablation
from jaxheads.models.forward import forward
from jaxheads.models.metrics import log_probability
from jaxheads.models.removal import remove_each_head

pytestmark = pytest.mark.usefixtures("quick_compilation")

AT = jnp.array([[0, 12], [3, 5], [7, 7], [11, 4]])
TARGETS = jnp.array([[1, 30], [8, 2], [5, 5], [0, 36]])


def twins(case, segments):
    """The same by forwards, one a head: patterns as in the clean run, and free."""
    config = case.config
    shape = (config.num_layers, config.num_heads)
    run = jax.jit(
        lambda ablation: log_probability(
            forward(
                case.params,
                case.tokens,
                config,
                logits=AT,
                ablation=ablation,
                segments=segments,
            ).logits,
            TARGETS,
        )
    )
    clean = forward(
        case.params, case.tokens, config, capture=("patterns",), segments=segments
    )
    frozen = Ablation(jnp.zeros(shape), clean.patterns, site="pattern")
    fixed, free = np.zeros((2, *shape, *AT.shape))
    for index in np.ndindex(shape):
        zero = Ablation(jnp.ones(shape).at[index].set(0))
        fixed[index], free[index] = run((zero, frozen)), run(zero)
    return run(None), fixed, free


@pytest.mark.parametrize(
    ("name", "documents"),
    [("toy-shifted", True), ("gemma2", False)],
)
def test_heads_are_removed_as_ablations_do_it(name, documents):
    case = Tiny(CONFIGS[name])
    rows = [
        [0] * 4 + [1] * 6 + [2] * 3,
        [5] * 13,
        [0] * 1 + [3] * 12,
        [1] * 9 + [0] * 4,
    ]
    segments = jnp.array(rows) if documents else None
    out = remove_each_head(
        case.params, case.tokens, AT, TARGETS, case.config, segments=segments
    )
    clean, fixed, free = twins(case, segments)
    assert_close(out.clean, clean)
    assert_close(out.preserving, fixed, 1e-4)
    assert_close(out.whole, free, 1e-4)
    assert np.abs(free - np.asarray(clean)[None, None]).max(axis=(2, 3)).min() > 1e-3
    assert_close(out.whole[-1], out.preserving[-1])  # no later head could look away
    if case.config.num_layers > 1:
        assert np.abs(free - fixed)[:-1].max() > 0.1

"""Objectives: masks against sets and loops in Python, the loss against its formula."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from families import assert_close

from jaxheads.training.objectives import OBJECTIVES, kept_targets, target_losses

WORDS = ["The", "cat", "sat", "nicely", "The", "cat", "sat", "quietly", "."]


def brute_force(objective, tokens, segments, scored, embedding, threshold):
    """The definition, target by target."""
    b, t = scored.shape
    segments = np.zeros_like(tokens) if segments is None else segments
    kept = np.zeros((b, t), bool)
    for row in range(b):
        x, document = tokens[row].tolist(), segments[row].tolist()

        def equal(i, j, x=x, document=document):
            if document[i] != document[j]:
                return False
            if objective != "hapax-thresholded" or x[i] == x[j]:
                return x[i] == x[j]
            one, other = (embedding[x[k]].astype(np.float64) for k in (i, j))
            return one @ other > threshold * np.sqrt((one @ one) * (other @ other))

        for at in range(1, t + 1):
            occurred = lambda i: any(equal(s, i) for s in range(i))
            if objective == "vanilla":
                dropped = False
            elif objective == "repeat":
                dropped = occurred(at)
            elif objective == "offset":
                dropped = document[at] == document[at - 1] and occurred(at - 1)
            else:
                dropped = document[at] == document[at - 1] and any(
                    document[s] == document[s - 1]
                    and equal(s - 1, at - 1)
                    and equal(s, at)
                    for s in range(1, at)
                )
            kept[row, at - 1] = scored[row, at - 1] and not dropped
    return kept


def mask(objective, tokens, segments, scored, embedding=None, threshold=0.3):
    """``kept_targets`` under jit, as the training step runs it."""
    run = jax.jit(kept_targets, static_argnums=(0, 5))
    return np.asarray(run(objective, tokens, segments, scored, embedding, threshold))


@pytest.mark.parametrize("length", [1, 17, 48])
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_masks_are_those_of_the_definition(objective, length):
    rng = np.random.default_rng(length)
    for vocabulary in (2, 5, 12, 60):
        tokens = rng.integers(0, vocabulary, (6, length + 1)).astype(np.int32)
        ends = rng.random(tokens.shape) < 0.12
        documents = np.cumsum(ends, axis=1).astype(np.int32)
        scored = rng.random((6, length)) < 0.9
        embedding = rng.normal(size=(60, 5)).astype(np.float32)
        for segments in (None, documents):
            given = (objective, tokens, segments, scored, embedding, 0.3)
            np.testing.assert_array_equal(mask(*given), brute_force(*given))


def test_the_papers_example():
    ids = {word: i for i, word in enumerate(dict.fromkeys(WORDS))}
    tokens = np.array([[ids[word] for word in WORDS]], np.int32)
    scored = np.ones((1, len(WORDS) - 1), bool)

    def kept(objective):
        found = mask(objective, tokens, None, scored)[0]
        return " ".join(w for w, keep in zip(WORDS[1:], found, strict=True) if keep)

    assert kept("vanilla") == "cat sat nicely The cat sat quietly ."
    assert kept("hapax") == "cat sat nicely The quietly ."
    assert kept("repeat") == "cat sat nicely quietly ."
    assert kept("offset") == "cat sat nicely The ."


def test_pairs_of_large_tokens_do_not_collide():
    # 65536 * 65536 overflows 32 bits: pair codes would make (1, 5) and (65537, 5) one.
    tokens = np.array([[65537, 5, 1, 5, 65537, 5]], np.int32)
    scored = np.ones((1, 5), bool)
    kept = mask("hapax", tokens, None, scored)[0]
    np.testing.assert_array_equal(kept, [True, True, True, True, False])


def test_pads_and_other_documents_do_not_count():
    tokens = np.array([[3, 4, 3, 4, 9, 9, 9]], np.int32)
    segments = np.array([[0, 0, 1, 1, -1, -1, -1]], np.int32)
    scored = np.array([[True, False, True, False, False, False]])
    for objective in OBJECTIVES:
        found = mask(objective, tokens, segments, scored, np.eye(10, dtype=np.float32))
        np.testing.assert_array_equal(found, scored)


def test_near_copies_are_equal_above_the_threshold_and_zeros_only_to_themselves():
    angle = np.deg2rad(60)  # a cosine of 0.5
    embedding = np.array(
        [[1, 0], [np.cos(angle), np.sin(angle)], [0, 1], [0, 0], [0, 0]], np.float32
    )
    scored = np.ones((1, 3), bool)
    last = lambda *ids, threshold=0.3: bool(
        mask(
            "hapax-thresholded",
            np.array([ids], np.int32),
            None,
            scored,
            embedding,
            threshold,
        )[0, -1]
    )
    assert not last(0, 2, 1, 2) and last(0, 2, 1, 2, threshold=0.9)
    assert last(0, 3, 0, 4) and not last(0, 3, 0, 3)


def test_the_threshold_mask_lets_no_gradient_through():
    tokens = jnp.array([[0, 1, 2, 0, 1]])
    embedding = jnp.asarray(np.random.default_rng(0).normal(size=(3, 4)), jnp.float32)

    def loss(embedding):
        scored = jnp.ones((1, 4), bool)
        kept = kept_targets("hapax-thresholded", tokens, None, scored, embedding)
        return (kept * embedding[tokens[:, 1:]].sum(-1)).sum()

    kept = kept_targets(
        "hapax-thresholded", tokens, None, jnp.ones((1, 4), bool), embedding
    )
    wanted = np.zeros((3, 4))
    np.add.at(wanted, np.asarray(tokens[0, 1:]), np.asarray(kept[0])[:, None] * 1.0)
    np.testing.assert_allclose(jax.grad(loss)(embedding), wanted)


def test_objectives_that_cannot_be_computed_are_refused():
    tokens, scored = jnp.zeros((1, 3), jnp.int32), jnp.ones((1, 2), bool)
    with pytest.raises(ValueError, match="one of"):
        kept_targets("nonsense", tokens, None, scored)
    with pytest.raises(ValueError, match="embedding"):
        kept_targets("hapax-thresholded", tokens, None, scored)


@pytest.mark.parametrize("scale", [1.0, 300.0])
def test_the_losses_are_those_of_the_formula_for_huge_logits_too(scale):
    rng = np.random.default_rng(0)
    logits = (scale * rng.normal(size=(3, 7, 11))).astype(np.float32)
    targets = rng.integers(0, 11, (3, 7)).astype(np.int32)
    wide = logits.astype(np.float64)
    top = wide.max(-1)
    normaliser = top + np.log(np.exp(wide - top[..., None]).sum(-1))
    chosen = np.take_along_axis(wide, targets[..., None], -1)[..., 0]
    losses, logs = target_losses(jnp.asarray(logits), jnp.asarray(targets))
    assert_close(losses, normaliser - chosen, 1e-6)
    assert_close(logs, normaliser, 1e-6)
    half, _ = target_losses(jnp.asarray(logits, jnp.bfloat16), jnp.asarray(targets))
    assert losses.dtype == half.dtype == jnp.float32

"""A training step against its formulas, written out."""

import dataclasses
import functools
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from families import CONFIGS, assert_close, random_params

from jaxheads.engine.devices import make_mesh, make_seed_mesh
from jaxheads.models import family, toy
from jaxheads.models.forward import forward
from jaxheads.training.config import TrainConfig
from jaxheads.training.objectives import kept_targets
from jaxheads.training.side_by_side import SideBySide, over_runs, side_by_side
from jaxheads.training.state import (
    Batch,
    TrainState,
    abstract_state,
    decayed,
    init_state,
    params_of_each,
    place_batch,
)
from jaxheads.training.step import _step, loss_gradient, make_evaluation, make_step

pytestmark = pytest.mark.usefixtures("quick_compilation")

SMALL = toy.Config(2, 16, 4, 6, 12, 16, mlp_width=10, smeared_keys=True)
CONFIG = TrainConfig(
    batch_size=8,
    steps=50,
    warmup=5,
    learning_rate=0.01,
    objective="hapax",
    epsilon=1e-3,  # Adam makes rounding of the smallest gradients visible without
)
gradient_of = functools.cache(
    lambda config: jax.jit(
        lambda params, batch: loss_gradient(params, batch, config, SMALL)
    )
)


def random_batch(seeds=1, size=8, length=14, vocabulary=12, seed=0) -> Batch:
    """Host arrays [N, B, ...] with documents and targets that do not count."""
    rng = np.random.default_rng(seed)
    shape = (seeds, size, length + 1)
    documents = np.cumsum(rng.random(shape) < 0.1, axis=-1).astype(np.int32)
    return Batch(
        rng.integers(0, vocabulary, shape).astype(np.int32),  # type: ignore[arg-type]
        documents,  # type: ignore[arg-type]
        rng.random((seeds, size, length)) < 0.9,  # type: ignore[arg-type]
    )


def one_run(tree):
    """The first run's part of a tree with the axis N, on the device."""
    return jax.tree.map(lambda x: jnp.asarray(x[0]), tree)


def steps(config, state, batches, mesh=None, how=None):
    """A few steps; the last state and all metrics."""
    step, seen = make_step(config, SMALL, how=how), []
    for batch in batches:
        state, metrics = step(state, place_batch(batch, config, mesh))
        seen.append(jax.device_get(metrics))
    return jax.device_get(state), seen


@pytest.mark.parametrize("divide_by", ["kept", "all"])
def test_the_loss_is_the_mean_over_targets(divide_by):
    config = dataclasses.replace(CONFIG, divide_by=divide_by, z_loss=0.01)
    batch, params = one_run(random_batch()), random_params(SMALL)
    _, metrics = gradient_of(config)(params, batch)
    segments = batch.segments[:, :-1]
    logits = forward(params, batch.tokens[:, :-1], SMALL, segments=segments).logits
    wide = np.asarray(logits, np.float64)
    normaliser = np.log(np.exp(wide - 50).sum(-1)) + 50
    chosen = np.take_along_axis(wide, np.asarray(batch.tokens)[:, 1:, None], -1)
    losses = normaliser - chosen[..., 0]
    kept = np.asarray(kept_targets("hapax", batch.tokens, batch.segments, batch.scored))
    scored = np.asarray(batch.scored)
    assert 0 < kept.sum() < scored.sum()
    count = kept.sum() if divide_by == "kept" else scored.sum()
    assert_close(metrics.loss, (losses + 0.01 * normaliser**2)[kept].sum() / count)
    assert_close(metrics.all_loss, losses[scored].mean())
    assert_close(metrics.dropped, 1 - kept.sum() / scored.sum())


@pytest.mark.slow
def test_the_gradient_is_that_of_finite_differences():
    config = dataclasses.replace(CONFIG, objective="hapax-thresholded", z_loss=0.01)
    fixed = np.random.default_rng(5).normal(size=(12, 4))  # else the mask may change
    with jax.enable_x64(True):
        params = jax.tree.map(
            lambda x: jnp.asarray(np.asarray(x), jnp.float64), random_params(SMALL)
        )
        batch, fixed = one_run(random_batch(size=3)), jnp.asarray(fixed)
        run = jax.jit(lambda p: loss_gradient(p, batch, config, SMALL, fixed))
        gradient, _ = run(params)
        rng = np.random.default_rng(1)
        leaves, treedef = jax.tree.flatten(params)
        slopes = jax.tree.leaves(gradient)
        for index in range(len(leaves)):  # one direction for each leaf
            way = rng.normal(size=leaves[index].shape)

            def moved(by, index=index, way=way):
                changed = list(leaves)
                changed[index] = leaves[index] + by * way
                return float(run(jax.tree.unflatten(treedef, changed))[1].loss)

            measured = (moved(1e-5) - moved(-1e-5)) / 2e-5
            slope = float((slopes[index] * way).sum())
            np.testing.assert_allclose(measured, slope, rtol=1e-5, atol=1e-8)


def test_updates_are_adamws_as_written_out():
    config = CONFIG
    assert config.clip == 1 and config.weight_decay == 0.01
    batches = [random_batch(seed=i) for i in range(3)]
    state = init_state(config, SMALL)
    params = one_run(jax.device_get(state.params))
    found, seen = steps(config, state, batches)
    gradient = lambda params, batch: gradient_of(config)(params, batch)[0]
    leaves, treedef = jax.tree.flatten(params)
    leaves = [np.asarray(leaf, np.float64) for leaf in leaves]
    decays = jax.tree.leaves(decayed(config, SMALL))
    mean = [np.zeros_like(leaf) for leaf in leaves]
    square = [np.zeros_like(leaf) for leaf in leaves]
    for number, batch in enumerate(batches):
        current = jax.tree.unflatten(treedef, [x.astype(np.float32) for x in leaves])
        slopes = jax.tree.leaves(gradient(current, one_run(batch)))
        slopes = [np.asarray(slope, np.float64) for slope in slopes]
        norm = np.sqrt(sum((slope**2).sum() for slope in slopes))
        np.testing.assert_allclose(seen[number].gradient_norm[0], norm, rtol=1e-4)
        assert norm > 1  # the limit acts
        rate = 0.01 * (number + 1) / 5  # within the warm-up
        for i, slope in enumerate(slopes):
            slope = slope * min(1, 1 / norm)
            mean[i] = 0.9 * mean[i] + 0.1 * slope
            square[i] = 0.95 * square[i] + 0.05 * slope**2
            m = mean[i] / (1 - 0.9 ** (number + 1))
            s = square[i] / (1 - 0.95 ** (number + 1))
            change = m / (np.sqrt(s) + 1e-3) + 0.01 * decays[i] * leaves[i]
            leaves[i] = leaves[i] - rate * change
    for actual, wanted in zip(jax.tree.leaves(found.params), leaves, strict=True):
        np.testing.assert_allclose(actual[0], wanted, rtol=0, atol=2e-5)


def test_matrices_decay_and_nothing_else():
    for name in ("toy-smeared", "gpt2", "llama-gqa"):
        config = CONFIGS[name]
        for embeddings in (False, True):
            chosen = decayed(TrainConfig(decay_embeddings=embeddings), config)
            for path, decays in jax.tree_util.tree_leaves_with_path(chosen):
                last = path[-1].name
                matrix = last.startswith("w") and "bias" not in last
                looked_up = last in ("embedding", "positions")
                assert decays == (
                    matrix or last == "unembedding" or (looked_up and embeddings)
                ), (name, last)


def test_the_learning_rate_rises_and_falls():
    config = TrainConfig(steps=100, warmup=10, learning_rate=2.0, final_share=0.1)
    rates = np.array([config.learning_rate_at(step) for step in range(100)])
    np.testing.assert_allclose(rates[:10], 2.0 * np.arange(1, 11) / 10)
    assert (np.diff(rates[9:]) < 0).all()
    np.testing.assert_allclose(rates[54], 2.0 * 0.55, rtol=1e-12)  # half way
    np.testing.assert_allclose(rates[99], 0.2, rtol=1e-12)
    traced = jax.vmap(config.learning_rate_at)(jnp.arange(100))
    np.testing.assert_allclose(traced, rates, rtol=1e-5)
    constant = dataclasses.replace(config, final_share=1.0, warmup=0)
    assert {constant.learning_rate_at(step) for step in range(100)} == {2.0}


def test_accumulated_parts_are_the_whole_batch():
    batch, params = one_run(random_batch()), random_params(SMALL)
    wanted, metrics = gradient_of(CONFIG)(params, batch)
    config = dataclasses.replace(CONFIG, accumulate=4)
    found, same = gradient_of(config)(params, batch)
    jax.tree.map(assert_close, found, wanted)
    jax.tree.map(assert_close, same, metrics)


@pytest.fixture(scope="module")
def alone(quick_compilation):
    """The runs of seeds 0 to 3, one by one: batches, states and metrics of each."""
    batches = [random_batch(seeds=4, seed=i) for i in range(3)]
    found = []
    for seed in range(4):
        config = dataclasses.replace(CONFIG, seed=seed)
        own = [jax.tree.map(lambda x, i=seed: x[i : i + 1], batch) for batch in batches]
        found.append(steps(config, init_state(config, SMALL), own))
    return batches, found


@pytest.mark.parametrize(
    ("spec", "how"),
    [
        (None, SideBySide()),
        (None, SideBySide(in_turn=True)),
        pytest.param(None, None, marks=pytest.mark.slow),  # on a CPU: in turn
        ("2", None),  # two devices, two runs in turn on each
        pytest.param("4", None, marks=pytest.mark.slow),
        pytest.param("2x2", None, marks=pytest.mark.slow),  # params are split, too
        pytest.param("2x2", SideBySide(), marks=pytest.mark.slow),
    ],
)
def test_seeds_side_by_side_are_the_runs_of_each(alone, spec, how):
    batches, each = alone
    config, mesh = dataclasses.replace(CONFIG, seeds=4), make_mesh(spec)
    state = init_state(config, SMALL, mesh)
    together, seen = steps(config, state, batches, mesh, how)
    for index, (state, metrics) in enumerate(each):
        pairs = zip(jax.tree.leaves(state), jax.tree.leaves(together), strict=True)
        for one, several in pairs:
            assert_close(several[index], one[0])
        for one, several in zip(metrics, seen, strict=True):
            for own, wanted in zip(
                jax.tree.leaves(several), jax.tree.leaves(one), strict=True
            ):
                assert_close(own[index], wanted[0])
    assert len({float(loss) for loss in seen[0].loss}) == 4


def test_runs_in_turn_stay_on_their_devices():
    config, mesh = dataclasses.replace(CONFIG, seeds=4), make_mesh("2")
    assert mesh is not None
    batch = place_batch(random_batch(seeds=4), config, mesh)
    state, metrics = make_step(config, SMALL)(init_state(config, SMALL, mesh), batch)
    for leaf in (metrics.loss, state.params.layers.wq, *jax.tree.leaves(state)):
        shards = leaf.addressable_shards
        assert [shard.data.shape[0] for shard in shards] == [2, 2]
        assert {shard.device for shard in shards} == set(mesh.devices.flat)
    how = side_by_side(state.params)
    over = jax.jit(lambda x: over_runs(jnp.sum, how)(x))
    program = over.lower(metrics.loss).compile().as_text()
    assert program and not any(word in program for word in ("all-reduce", "all-gather"))


def test_how_runs_are_computed_follows_from_where_they_lie(monkeypatch):
    config = dataclasses.replace(CONFIG, seeds=4)
    assert side_by_side(init_state(config, SMALL).params) == SideBySide(True)
    mesh = make_mesh("2x2")
    assert side_by_side(init_state(config, SMALL, mesh).params).mesh == mesh

    class Accelerator:
        platform = "gpu"

    monkeypatch.setattr(jax, "devices", lambda: [Accelerator()])
    assert side_by_side({"leaf": np.zeros(3)}) == SideBySide(False)


def test_the_params_of_each_run_come_to_one_device():
    config = dataclasses.replace(CONFIG, seeds=4)
    wanted = init_state(config, SMALL).params
    for spec in ("2", "2x2", None):
        params = init_state(config, SMALL, make_mesh(spec)).params
        for index, one in enumerate(params_of_each(params)):
            pairs = zip(jax.tree.leaves(one), jax.tree.leaves(wanted), strict=True)
            for leaf, whole in pairs:
                np.testing.assert_array_equal(leaf, whole[index])
                assert spec == "2x2" or leaf.devices() == {jax.devices()[0]}


@pytest.mark.parametrize(
    ("seeds", "spec", "parts"),
    [(8, None, 4), (6, None, 6), (7, None, 1), (3, None, 3), (8, "2", 2)],
)
def test_a_device_a_core_takes_seeds(monkeypatch, seeds, spec, parts):
    monkeypatch.setattr(
        "jaxheads.engine.devices._cores", lambda: 6
    )  # of 8 virtual devices
    mesh = make_seed_mesh(spec, seeds)
    assert (1 if mesh is None else mesh.shape["data"]) == parts
    assert make_seed_mesh(None, 1) is None


@pytest.mark.slow
def test_a_process_starts_with_a_device_a_core():
    code = (
        "import jax; from jaxheads.engine import devices; devices._cores = lambda: 3\n"
        "mesh = devices.make_seed_mesh(None, 6)\n"
        "assert mesh.shape['data'] == 3 == len(jax.devices())\n"
        "devices._cores = lambda: 6\n"
        "assert devices.make_seed_mesh(None, 6).shape['data'] == 3\n"
    )
    environment = os.environ | {"XLA_FLAGS": ""}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True)


def test_runs_that_differ_in_their_seeds_share_a_program():
    batch = place_batch(random_batch(), CONFIG, None)
    make_step(CONFIG, SMALL)(init_state(CONFIG, SMALL), batch)
    programs = _step.cache_info().misses
    for change in ({"seed": 5}, {"eval_every": 3, "keep_last": 1}):
        other = dataclasses.replace(CONFIG, **change)
        make_step(other, SMALL)(init_state(other, SMALL), batch)
    assert _step.cache_info().misses == programs
    other = dataclasses.replace(CONFIG, learning_rate=0.02)
    make_step(other, SMALL)(init_state(other, SMALL), batch)
    assert _step.cache_info().misses == programs + 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("spec", "seeds"),
    [("2x2", 1), ("4x2", 4)],
)
def test_a_mesh_gives_the_same_numbers(spec, seeds):
    config = dataclasses.replace(CONFIG, seeds=seeds, accumulate=2)
    batches = [random_batch(seeds, seed=i) for i in range(2)]
    one, seen = steps(config, init_state(config, SMALL), batches)
    mesh = make_mesh(spec)
    state = init_state(config, SMALL, mesh)
    like = abstract_state(config, SMALL, mesh)
    for leaf, wanted in zip(jax.tree.leaves(state), jax.tree.leaves(like), strict=True):
        assert leaf.shape == wanted.shape and leaf.dtype == wanted.dtype
        assert leaf.sharding.is_equivalent_to(wanted.sharding, leaf.ndim)
    wq = state.params.layers.wq
    parts = {shard.data.shape for shard in wq.addressable_shards}
    heads = 4 // (2 if "x" in spec else 1)
    data = int(spec[0]) if seeds > 1 else 1
    assert parts == {(seeds // data, 2, 16, heads, 6)}
    several, same = steps(config, state, batches, mesh)
    for actual, wanted in zip(
        jax.tree.leaves(several), jax.tree.leaves(one), strict=True
    ):
        assert_close(actual, wanted)
    assert_close(same[-1].loss, seen[-1].loss)


@pytest.mark.parametrize("name", ["toy-shifted", "llama-gqa"])
def test_activations_computed_twice_give_the_same_gradient(name):
    model = CONFIGS[name]
    params = random_params(model, scale=1.0)
    tokens = jnp.asarray(np.random.default_rng(0).integers(0, 30, (2, 9)))
    loss = lambda params, twice: jnp.square(
        forward(params, tokens, model, rematerialise=twice).logits
    ).mean()
    gradient = jax.jit(jax.grad(loss), static_argnums=1)
    jax.tree.map(assert_close, gradient(params, True), gradient(params, False))
    program = str(jax.make_jaxpr(lambda p: gradient(p, True))(params))
    assert "remat" in program or "checkpoint" in program


@pytest.mark.parametrize("name", ["gpt2", "toy-shifted", "toy-smeared"])
def test_a_document_is_read_as_if_it_stood_alone(name):
    model = CONFIGS[name]
    params = random_params(model)
    tokens = np.random.default_rng(0).integers(0, 30, (1, 11))
    segments = np.array([[0] * 4 + [1] + [2] * 6])
    packed = forward(params, jnp.asarray(tokens), model, segments=jnp.asarray(segments))
    for number in range(3):
        (at,) = np.nonzero(segments[0] == number)
        padded = np.zeros_like(tokens)  # one shape: one program
        padded[:, : len(at)] = tokens[:, at]
        alone = forward(params, jnp.asarray(padded), model).logits[:, : len(at)]
        assert_close(packed.logits[:, at], alone)


@pytest.mark.slow
def test_bfloat16_computes_near_float32_and_keeps_float32_params():
    batches = [random_batch()]
    narrow = dataclasses.replace(CONFIG, dtype="bfloat16")
    state, seen = steps(narrow, init_state(narrow, SMALL), batches)
    _, exact = steps(CONFIG, init_state(CONFIG, SMALL), batches)
    kinds = {leaf.dtype for leaf in jax.tree.leaves(state)}
    assert kinds == {np.dtype("float32"), np.dtype("int32")}
    assert seen[0].loss != exact[0].loss
    np.testing.assert_allclose(seen[0].loss, exact[0].loss, rtol=0.02)


def test_an_evaluation_is_the_loss_without_an_update():
    batch, state = place_batch(random_batch(), CONFIG, None), init_state(CONFIG, SMALL)
    found = make_evaluation(CONFIG, SMALL)(state.params, batch)
    _, metrics = make_step(CONFIG, SMALL)(state, batch)
    assert_close(found.loss, metrics.loss)
    assert_close(found.all_loss, metrics.all_loss)


def test_init_has_the_spread_that_the_family_asks_for():
    config = toy.Config(2, 64, 4, 16, 500, 16, mlp_width=30, shifted=True)
    state = init_state(dataclasses.replace(CONFIG, seeds=2), config)
    assert isinstance(state, TrainState)
    params = state.params
    for leaf, fan_in in (
        (params.embedding, 64),
        (params.layers.wq, 64),
        (params.layers.wo, 64),
        (params.layers.w_down, 30),
    ):
        assert leaf.shape[0] == 2 and leaf.dtype == jnp.float32
        np.testing.assert_allclose(np.std(leaf) * np.sqrt(fan_in), 1, atol=0.03)
        assert not np.allclose(leaf[0], leaf[1])
    assert (np.asarray(params.layers.attention_norm) == 1).all()
    shift = np.asarray(params.layers.shift)
    np.testing.assert_allclose(shift.sum(-1), 1, atol=1e-6)
    shapes = jax.tree.map(lambda x: x.shape[1:], params)
    wanted = jax.tree.map(
        lambda leaf: leaf.shape,
        family("toy").abstract(config),
        is_leaf=lambda node: hasattr(node, "fan_in"),
    )
    assert jax.tree.leaves(shapes) == jax.tree.leaves(wanted)

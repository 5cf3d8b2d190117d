"""Arguments that run models: heads removed, circuits, components of losses."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from families import CONFIGS, Tiny, assert_close, random_params

from jaxheads import runs
from jaxheads.errors import UserError
from jaxheads.models import toy
from jaxheads.models.ablation import Ablation
from jaxheads.models.forward import forward
from jaxheads.models.removal import remove_each_head
from jaxheads.scores import circuits, qk_trace
from jaxheads.studies.six_arguments import removal
from jaxheads.studies.six_arguments.loss_components import (
    largest_turn,
    loss_components,
    principal_components,
)
from jaxheads.studies.six_arguments.measured import circuit_figures
from jaxheads.studies.six_arguments.removal import (
    ablation_attribution,
    before_and_after,
    in_chunks,
    removal_losses,
    scores_without,
)
from jaxheads.training.config import EvidenceConfig, TrainConfig
from jaxheads.training.data.repeats import RepeatedTokens
from jaxheads.training.loop import train
from jaxheads.training.measures import make_evidence
from jaxheads.training.trained import open_trained

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("quick_compilation")]

MODEL = toy.Config(2, 22, 3, 6, 10, 14)
SOURCE = RepeatedTokens(10, 14, shortest_period=3, longest_period=5)
CONFIG = TrainConfig(
    steps=4,
    batch_size=4,
    seeds=2,
    seed=3,
    learning_rate=0.2,  # large weights, so that heads matter
    warmup=0,
    eval_every=2,
    checkpoints=("2", "3"),
)
EVIDENCE = EvidenceConfig(
    evidence_samples=7, probe_period=3, probe_repeats=2, repetitions=4
)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A training of two seeds."""
    folder = tmp_path_factory.mktemp("arguments") / "run"
    train(
        CONFIG, MODEL, SOURCE, folder, evidence=make_evidence(EVIDENCE, MODEL, SOURCE)
    )
    return open_trained(folder)


def losses_of(params, held, config, ablation=None):
    """Losses of every target of one model, [S, T]."""
    logits = forward(params, held.windows.inputs, config, ablation=ablation).logits
    log = np.asarray(jax.nn.log_softmax(logits), np.float64)
    rows, columns = np.indices(held.windows.targets.shape)
    return -log[rows, columns, held.windows.targets]


def score_of(losses, held):
    early, late = held.at
    return np.mean([row[late] - row[early] for row in losses])


def test_attribution_is_that_of_forwards_one_head_at_a_time(trained):
    found = ablation_attribution(trained, 4)
    held = trained.evidence().held_out
    rows = np.arange(7)
    for n, seed in enumerate(trained.seeds):
        params = trained.model(seed, 4).params
        patterns = forward(
            params, held.windows.inputs, MODEL, capture=("patterns",)
        ).patterns
        frozen = Ablation(jnp.zeros((2, 3)), patterns, site="pattern")
        clean = losses_of(params, held, MODEL)
        assert_close(found["icl_score"][n], score_of(clean, held))
        assert_close(found["token_losses"][n], clean[rows, held.chosen])
        for l, h in np.ndindex(2, 3):
            zero = Ablation(jnp.ones((2, 3)).at[l, h].set(0))
            fixed = losses_of(params, held, MODEL, (zero, frozen))
            free = losses_of(params, held, MODEL, zero)
            before = score_of(clean, held)
            assert_close(found["attribution"][n, l, h], score_of(fixed, held) - before)
            assert_close(
                found["attribution_full"][n, l, h], score_of(free, held) - before
            )
            assert_close(
                found["token_losses_ablated"][n, l, h], fixed[rows, held.chosen]
            )
    assert np.abs(found["attribution"]).min() > 1e-4
    assert np.abs(found["attribution_full"] - found["attribution"])[:, 0].max() > 1e-3


def test_heads_are_removed_together_with_patterns_kept(trained):
    removed = np.zeros((4, 2, 2, 3), bool)  # nothing of the first
    removed[1, :, 1, 2] = True
    removed[2] = np.random.default_rng(1).random((2, 2, 3)) > 0.5
    removed[3] = True
    found = scores_without(trained, 4, removed)
    held = trained.evidence().held_out
    for n, seed in enumerate(trained.seeds):
        params = trained.model(seed, 4).params
        patterns = forward(
            params, held.windows.inputs, MODEL, capture=("patterns",)
        ).patterns
        frozen = Ablation(jnp.zeros((2, 3)), patterns, site="pattern")
        for g in range(4):
            zero = Ablation(jnp.asarray(~removed[g, n], jnp.float32))
            losses = losses_of(params, held, MODEL, (zero, frozen))
            assert_close(found[g, n], score_of(losses, held))
    alone = ablation_attribution(trained, 4)
    assert_close(found[0], alone["icl_score"])
    assert_close(found[1] - found[0], alone["attribution"][:, 1, 2])


def test_attribution_goes_with_the_evaluations_of_the_run(trained):
    found = ablation_attribution(trained, 2)
    at = trained.eval_steps.tolist().index(2)
    for name in ("icl_score", "token_losses"):
        assert_close(found[name], trained.evaluated(name)[at])
    fewer = ablation_attribution(trained, 2, samples=3)["token_losses_ablated"]
    assert_close(fewer, found["token_losses_ablated"][..., :3])


def test_chunks_of_windows_give_the_same_by_one_program_for_all_steps(
    trained, monkeypatch
):
    traced = []

    def counted(*arguments, **keywords):
        traced.append(1)
        return remove_each_head(*arguments, **keywords)

    monkeypatch.setattr(removal, "remove_each_head", counted)
    whole = ablation_attribution(trained, 0, samples=6)  # of a length of its own
    ablation_attribution(trained, 3, samples=6)
    assert len(traced) == 1
    each = removal._bytes_a_window(
        trained.params(0), trained.evidence().held_out, MODEL
    )
    monkeypatch.setattr(removal, "BUDGET_BYTES", 2 * each)
    parts = ablation_attribution(trained, 0, samples=6)
    for name, values in whole.items():
        assert_close(parts[name], values)


def test_windows_that_do_not_count_are_left_out(trained):
    held = trained.evidence().held_out
    scored = held.windows.scored.copy()
    scored[1], scored[4, held.at[1]] = False, False
    chosen = held.chosen.copy()
    chosen[1] = -1
    windows = dataclasses.replace(held.windows, scored=scored)
    part = dataclasses.replace(held, windows=windows, chosen=chosen)
    given = dataclasses.replace(trained.evidence(), held_out=part)
    one = dataclasses.replace(trained)
    object.__setattr__(one, "evidence", lambda **changes: given)
    found = ablation_attribution(one, 4)
    losses = in_chunks(removal_losses, trained.params(4), held, MODEL)
    counted = [0, 2, 3, 5, 6]
    scores = losses.preserving[..., counted, 1] - losses.preserving[..., counted, 0]
    clean = losses.clean[:, counted, 1] - losses.clean[:, counted, 0]
    assert_close(found["icl_score"], clean.mean(axis=1))
    assert_close(
        found["attribution"], scores.mean(axis=-1) - clean.mean(axis=1)[:, None, None]
    )
    for name in ("token_losses", "token_losses_ablated"):
        missing = np.isnan(found[name]).reshape(-1, 7).all(axis=0)
        np.testing.assert_array_equal(missing, np.arange(7) == 1)


def test_without_norms_removal_drops_every_path_through_the_head():
    """With patterns fixed the model is a sum over paths; those with the head go."""
    case = Tiny(CONFIGS["toy"])
    config, layers = case.config, jax.tree.map(np.asarray, case.params.layers)
    at = jnp.asarray([[0, 12, 5]] * 4)
    targets = jnp.asarray(case.tokens[:, :3])
    out = remove_each_head(case.params, case.tokens, at, targets, config)
    clean = forward(case.params, case.tokens, config, capture=("patterns",))
    patterns = np.asarray(clean.patterns)

    def through(stream, l, h):
        write = layers.wv[l, :, h] @ layers.wo[l, h]  # [D, D]
        return np.einsum("bts,bsd,de->bte", patterns[l, :, h], stream, write)

    heads = range(config.num_heads)
    embedded = np.asarray(case.params.embedding)[case.tokens]
    paths = {(): embedded}
    for l, h in itertools.product(range(config.num_layers), heads):
        shorter = {path: x for path, x in paths.items() if not path or path[-1][0] < l}
        paths |= {(*path, (l, h)): through(x, l, h) for path, x in shorter.items()}
    assert len(paths) == (1 + config.num_heads) ** config.num_layers
    for removed in itertools.product(range(config.num_layers), heads):
        kept = [x for path, x in paths.items() if removed not in path]
        stream = np.sum(kept, axis=0)
        stream = np.take_along_axis(stream, np.asarray(at)[:, :, None], axis=1)
        logits = stream @ np.asarray(case.params.unembedding)
        log = np.asarray(jax.nn.log_softmax(jnp.asarray(logits)))
        wanted = np.take_along_axis(log, np.asarray(targets)[:, :, None], -1)[..., 0]
        assert_close(out.preserving[removed], wanted, 1e-4)


def test_before_and_after_is_the_product_with_the_unit_change():
    rng = np.random.default_rng(2)
    steps = np.array([0, 10, 20, 30])
    losses = rng.normal(size=(4, 2, 9))
    clean, ablated = rng.normal(size=(2, 9)), rng.normal(size=(2, 3, 5, 9))
    losses[:, :, 4] = clean[:, 4] = ablated[..., 4] = np.nan
    losses[2, 1, 6] = np.nan  # of another evaluation: it does not matter
    before, after = np.array([9, 0]), np.array([20.4, 30])
    found = before_and_after(steps, losses, before, after, clean, ablated)
    kept = [s for s in range(9) if s != 4]
    for n, (first, last) in enumerate([(1, 2), (0, 3)]):
        change = np.array([losses[last, n, s] - losses[first, n, s] for s in kept])
        length = np.sqrt(sum(change**2))
        for l, h in np.ndindex(3, 5):
            effect = [ablated[n, l, h, s] - clean[n, s] for s in kept]
            product = sum(e * c for e, c in zip(effect, change, strict=True)) / length
            np.testing.assert_allclose(found["by_head"][n, l, h], product)
            np.testing.assert_allclose(found["share"][n, l, h], product / length)
        np.testing.assert_allclose(found["length"][n], length)
    assert np.all(found["direction"][:, 4] == 0)


def test_a_head_that_undoes_the_phase_change_has_a_share_of_minus_one():
    rng = np.random.default_rng(3)
    old, new = rng.normal(size=(2, 1, 8))
    losses = np.stack([old, old, new])
    across = rng.normal(size=8)
    across -= (across @ (new - old)[0]) * (new - old)[0] / ((new - old)[0] ** 2).sum()
    ablated = np.stack([old, new, new + across], axis=1)[:, None]  # [1, 1, 3, 8]
    found = before_and_after(
        np.array([0, 5, 9]), losses, np.array([5]), np.array([9]), new, ablated
    )
    np.testing.assert_allclose(found["share"], [[[-1, 0, 0]]], atol=1e-12)


@pytest.mark.parametrize("ends", [(-1, -1), (np.nan, np.nan), (7, 7)])
def test_a_seed_without_a_phase_change_has_no_product(ends):
    losses = np.arange(24.0).reshape(3, 1, 8)
    before, after = (np.array([end]) for end in ends)
    found = before_and_after(
        np.array([0, 5, 9]),
        losses,
        before,
        after,
        losses[-1],
        losses[-1][:, None, None] + np.ones((1, 2, 3, 1)),
    )
    assert np.isnan(found["by_head"]).all() and np.isnan(found["length"]).all()


def test_more_samples_of_one_side_are_cut():
    rng = np.random.default_rng(4)
    losses, clean = rng.normal(size=(2, 1, 9)), rng.normal(size=(1, 5))
    ablated = rng.normal(size=(1, 2, 3, 5))
    ends = {"before": np.array([0]), "after": np.array([1])}
    ends |= {"clean": clean, "ablated": ablated}
    more = before_and_after(np.arange(2), losses, **ends)
    same = before_and_after(np.arange(2), losses[..., :5], **ends)
    np.testing.assert_array_equal(more["by_head"], same["by_head"])


def test_components_are_eigenvectors_of_the_covariance():
    rng = np.random.default_rng(5)
    losses = [rng.normal(size=(4, 2, 6)), rng.normal(size=(3, 1, 6)) * 3]
    losses = [one * np.array([5.0, 1, 1, 3, 1, 1]) for one in losses]
    losses[0][1, 0, 4] = np.nan
    components, mean, explained = principal_components(losses)
    kept = [0, 1, 2, 3, 5]
    stacked = np.array([row for one in losses for row in one.reshape(-1, 6)])[:, kept]
    values, vectors = np.linalg.eigh(np.cov(stacked.T))
    np.testing.assert_allclose(explained, values[[-1, -2]] / values.sum())
    np.testing.assert_allclose(mean[kept], stacked.mean(axis=0))
    assert np.isnan(mean[4]) and np.all(components[:, 4] == 0)
    for component, vector in zip(components[:, kept], vectors.T[::-1], strict=False):
        assert abs(component @ vector) == pytest.approx(1)
        way = [(one[-1] - one[0]).mean(axis=0)[kept] for one in losses]
        assert component @ (way[0] + way[1]) > 0


def test_snapshots_that_do_not_differ_have_no_components():
    components, _, explained = principal_components([np.ones((2, 1, 5))])
    assert not explained.any() and np.isfinite(components).all()
    assert principal_components([np.ones((1, 1, 5))])[0].shape == (2, 5)


@pytest.mark.parametrize("angle", [35.0, 90.0, 150.0])
@pytest.mark.parametrize("corner", [9, 20])
def test_the_pivot_of_a_bent_path_is_its_corner(corner, angle):
    rng = np.random.default_rng(6)
    way = np.radians(angle)
    legs = [[1.0, 0.0]] * corner + [[np.cos(way), np.sin(way)]] * (30 - corner)
    path = np.cumsum([[0.0, 0.0], *legs], axis=0)
    still = path[-1] + 0.01 * rng.normal(size=(30, 2))  # jitters in all directions
    path = np.concatenate([path, still])
    steps = 50 * np.arange(len(path))
    step, degrees = largest_turn(steps, path)
    assert step == steps[corner] and degrees == pytest.approx(angle)


def test_paths_that_stand_still_or_are_short_have_no_pivot():
    assert np.isnan(largest_turn(np.arange(9), np.ones((9, 2)))).all()
    assert np.isnan(largest_turn(np.arange(2), np.eye(2))).all()


def test_components_of_runs_place_every_snapshot(trained):
    found = loss_components([trained, trained])
    losses = trained.evaluated("token_losses").astype(float)  # [E, N, S]
    for coordinates in found.coordinates:
        assert coordinates.shape == (3, 2, 2)
        again = np.einsum("ens,cs->enc", losses - found.mean, found.components)
        np.testing.assert_allclose(coordinates, again, atol=1e-9)
    assert 0.5 < found.explained.sum() <= 1
    assert all(each.shape == (2,) for each in found.pivot + found.angle)


@pytest.mark.parametrize(
    ("evidence", "message"),
    [({"sha256": "0"}, "same held-out windows"), ({"evidence_seed": 1}, "same held")],
)
def test_runs_of_other_windows_are_refused(trained, evidence, message):
    told = trained.run.result
    told = told | {
        "model": told["model"] | {"evidence": told["model"]["evidence"] | evidence}
    }
    run = runs.Run(trained.run.path / "other", told, trained.run.arrays)
    other = dataclasses.replace(trained, run=run)
    with pytest.raises(UserError, match=message):
        loss_components([trained, other])


def test_runs_without_losses_of_tokens_are_refused(trained):
    run = dataclasses.replace(trained.run, arrays={})
    with pytest.raises(UserError, match="--evidence"):
        loss_components([dataclasses.replace(trained, run=run)])


def test_circuits_are_the_evaluated_ones_where_there_are(trained):
    stored = circuit_figures(trained, 2)
    run = dataclasses.replace(trained.run, arrays={})
    measured = circuit_figures(dataclasses.replace(trained, run=run), 2)
    for name, values in measured.items():
        assert values.shape == (2, 2, 3)
        assert_close(stored[name], values, 1e-4)
    assert_close(circuit_figures(trained, 3)["qk_trace"][:, 0], np.zeros((2, 3)))


def test_qk_traces_are_of_the_product_between_tokens(trained):
    found = circuit_figures(trained, 4)
    for n, seed in enumerate(trained.seeds):
        params = trained.model(seed, 4).params
        layers = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params.layers)
        embedding = np.asarray(params.embedding, np.float64)

        def normed(x, l, layers=layers):
            centred = x - x.mean(axis=-1, keepdims=True)
            return centred * layers.attention_norm[l]

        written = sum(
            found["previous_token"][n, 0, h]
            * (normed(embedding, 0) @ layers.wv[0, :, h] @ layers.wo[0, h])
            for h in range(3)
        )
        for h in range(3):
            queries = normed(embedding, 1) @ layers.wq[1, :, h]
            keys = normed(written, 1) @ layers.wk[1, :, h]
            product = queries @ keys.T  # [V, V]
            values = np.linalg.eigvals(product)
            expected = np.trace(product) / np.abs(values).sum()
            assert_close(found["qk_trace"][n, 1, h], expected, 1e-3)


def test_qk_traces_of_random_weights_are_about_zero():
    config = toy.Config(2, 24, 6, 8, 40, 30)
    products = [
        qk_trace.matching_circuits(
            random_params(config, seed), config, np.full((2, 6), 0.3)
        )[1]
        for seed in range(30)
    ]
    values = circuits.positivity(np.stack(products))
    assert abs(values.mean()) < 4 * values.std() / np.sqrt(values.size)
    assert 0.5 / 8 < values.std() < 2.5 / 8

"""What heads do, one removed at a time, and activations of other checkpoints."""

import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from families import CONFIGS, assert_close, random_params

from jaxheads.engine import fills
from jaxheads.errors import UserError
from jaxheads.models import family, toy
from jaxheads.models.ablation import Ablation
from jaxheads.models.forward import forward
from jaxheads.models.layer_scan import run_layers
from jaxheads.report import words
from jaxheads.runs import Run
from jaxheads.scores import induction
from jaxheads.studies.compare_runs import (
    checkpoint_patching as patching,
    head_effects as head_questions,
    head_effects as removing,
    head_tests,
    heads_page,
)
from jaxheads.training.config import EvidenceConfig, TrainConfig
from jaxheads.training.data.function_mixture import FunctionMixture
from jaxheads.training.held_out import draw_windows
from jaxheads.training.loop import train
from jaxheads.training.measures import make_evidence
from jaxheads.training.probes import Probes, head_figures
from jaxheads.training.trained import open_trained

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("quick_compilation")]

SOURCE = FunctionMixture(
    30,
    inputs=6,
    shifts=2,
    tables=1,
    text_tokens=12,
    successors=3,
    shortest_block=4,
    longest_block=8,
    shortest_period=2,
    longest_period=3,
)
MODEL = toy.Config(2, 12, 3, 4, SOURCE.vocab_size, 30)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Two seeds, hardly trained."""
    folder = tmp_path_factory.mktemp("arms") / "run"
    config = TrainConfig(
        steps=3, batch_size=4, seeds=2, eval_every=0, learning_rate=0.05, warmup=1
    )
    evidence = EvidenceConfig(probe_sequences=3, probe_period=4, probe_repeats=3)
    train(
        config,
        MODEL,
        SOURCE,
        folder,
        evidence=make_evidence(evidence, MODEL, SOURCE),
    )
    return open_trained(folder)


def questions_of(config, documents: bool = False) -> head_questions.Questions:
    """Random sequences; of the second group one has no target."""
    rng = np.random.default_rng(3)
    segments = None
    if documents:
        segments = np.sort(rng.integers(0, 3, (5, 11)), axis=1).astype(np.int32)
    weights = rng.random((2, 5, 4)).astype(np.float32)
    weights[1, 2] = 0
    return head_questions.Questions(
        tokens=rng.integers(0, config.vocab_size, (5, 11)).astype(np.int32),
        segments=segments,
        at=rng.integers(0, 11, (5, 4)).astype(np.int32),
        wanted=rng.integers(0, config.vocab_size, (5, 4)).astype(np.int32),
        weights={"one": weights[0], "other": weights[1]},
    )


def slow_answers(params, asked, config, fill) -> dict[str, np.ndarray]:
    """One plain forward for each head and for none."""
    places = [None, *np.ndindex(config.num_layers, config.num_heads)]
    found = {name: np.zeros((len(places), 5)) for name in asked.weights}
    for n, place in enumerate(places):
        ablation = None
        if place is not None:
            keep = np.ones((config.num_layers, config.num_heads), np.float32)
            keep[place] = 0
            ablation = Ablation(jnp.asarray(keep), jnp.asarray(fill))
        out = forward(
            params, asked.tokens, config, ablation=ablation, segments=asked.segments
        )
        given = np.asarray(jax.nn.softmax(out.logits, axis=-1))
        for s in range(5):
            right = given[s, asked.at[s], asked.wanted[s]]
            for name, weights in asked.weights.items():
                found[name][n, s] = right @ weights[s]
    found["other"][:, 2] = np.nan
    return found


@pytest.mark.parametrize(
    ("name", "documents"), [("toy-smeared", True), ("llama-gqa", False)]
)
def test_heads_are_removed_as_one_by_one(name, documents, monkeypatch):
    config = CONFIGS[name]
    params, asked = random_params(config), questions_of(config, documents)
    fill = np.random.default_rng(5).normal(
        size=(config.num_layers, config.num_heads, config.head_dim)
    )
    fill = fill.astype(np.float32)
    monkeypatch.setattr(removing, "_chunk", lambda *sizes: (3, 4))
    fast = removing.answered(params, asked, config, fill)
    for group, slow in slow_answers(params, asked, config, fill).items():
        assert_close(fast[group], slow)
        assert np.ptp(slow, axis=0)[0] > 1e-3  # heads do something


@pytest.mark.parametrize("length", [11, 3000])
def test_chunks_stay_within_a_budget(length):
    config = CONFIGS["llama-gqa"]
    rows, heads = removing._chunk(config, (128, length), 40)
    assert 1 <= rows <= 128 and heads >= 1
    assert rows * heads == 1 or rows * heads * length <= 1024


def test_a_mean_is_over_positions_and_windows(monkeypatch):
    config = CONFIGS["toy-smeared"]
    params, asked = random_params(config), questions_of(config)
    monkeypatch.setattr(
        removing, "BUDGET_BYTES", 3 * removing._row_bytes(config, 11, 1)
    )
    expected = fills.mean(params, asked.tokens, None, config, positions="pooled")
    assert_close(removing._fill(params, asked, config, "mean"), expected)
    assert not removing._fill(params, asked, config, "zero").any()


def test_a_mean_leaves_padding_out():
    config = CONFIGS["toy"]
    params = random_params(config)
    asked = questions_of(config, documents=True)
    assert asked.segments is not None
    asked.segments[:, 8:] = -1
    short = dataclasses.replace(
        asked, tokens=asked.tokens[:, :8], segments=asked.segments[:, :8]
    )
    padded, without = (
        removing._fill(params, each, config, "mean") for each in (asked, short)
    )
    assert_close(padded, without)


def test_effects_are_signed_and_tested():
    """Head 0 helps, head 1 harms, head 2 does nothing, head 3 a little, by chance."""
    rng = np.random.default_rng(0)
    whole = rng.uniform(0.4, 0.6, 40)
    noise = rng.normal(0, 0.05, (3, 40))
    values = np.stack(
        [
            whole,
            whole - 0.1 + noise[0],
            whole + 0.05 + noise[1],
            whole,
            whole + noise[2],
        ]
    )
    values[:, 7] = np.nan  # a window without a target
    found = head_tests.effects("plain", values, (2, 2))
    assert found["samples/plain"] == 39
    effect, p = found["effect/plain"].ravel(), found["effect_p/plain"].ravel()
    told = [head_tests.what_it_does(*each) for each in zip(effect, p, strict=True)]
    assert told == ["helps", "harms", "unclear", "unclear"]
    np.testing.assert_allclose(effect[:2], [-0.1, 0.05], atol=0.02)
    assert p[2] == 1 and effect[2] == 0
    difference = np.delete(values[1] - whole, 7)
    error = difference.std(ddof=1) / np.sqrt(39)
    assert found["effect_se/plain"][0, 0] == pytest.approx(error, rel=1e-5)


def test_a_single_sample_is_no_test():
    found = head_tests.effects("plain", np.array([[0.5], [0.4]]), (1, 1))
    assert np.isnan(found["effect_p/plain"]).all()
    assert head_tests.what_it_does(-0.1, float("nan")) == "unclear"


@pytest.mark.parametrize("targets", [2, 100])
def test_targets_of_windows_are_of_their_groups(targets):
    held = draw_windows(SOURCE, samples=20)
    asked = head_questions.of_windows(held, targets)
    rows = np.arange(20)[:, None]
    np.testing.assert_array_equal(asked.wanted, held.windows.targets[rows, asked.at])
    assert {"copyable", "plain", "answer", "copying_block"} == set(asked.weights)
    for name, weights in asked.weights.items():
        group = held.groups[name]
        assert group[rows, asked.at][weights > 0].all()
        wanted = np.minimum(group.sum(axis=1), targets)
        np.testing.assert_array_equal((weights > 0).sum(axis=1), wanted)
        np.testing.assert_allclose(weights.sum(axis=1), wanted > 0, rtol=1e-6)


def test_effects_of_a_run(trained):
    """Of one seed, against forwards written out; then the list of its top heads."""
    found = removing.head_effects(trained, 3, samples=6, replaced_by="zero")
    probes = trained.evidence(repetitions=6).probes
    params = trained.model(trained.seeds[1], 3).params
    keep = jnp.ones((2, 3)).at[1, 2].set(0)
    right = [
        np.asarray(jax.nn.softmax(out.logits, axis=-1))[
            np.arange(6), probes.wanted[:, -1]
        ]
        for out in (
            forward(params, probes.cut, MODEL, ablation=ablation, logits="last")
            for ablation in (None, Ablation(keep))
        )
    ]
    assert_close(found["probability/repetition"][1], right[0].mean())
    assert found["probability/repetition_whole"].shape == (2,)
    effect = right[1].mean() - right[0].mean()
    np.testing.assert_allclose(found["effect/repetition"][1, 1, 2], effect, atol=1e-6)
    probes = trained.evidence().probes
    out = forward(params, jnp.asarray(probes.repeated), MODEL, capture=("patterns",))
    patterns, edges = np.asarray(out.patterns), probes.edges["prefix_matching"]
    shares = np.einsum("lbhts,ts->lhb", patterns, edges)
    assert_close(found["prefix_matching"][1], shares.mean(axis=-1))


def test_what_replaces_heads_is_checked(trained):
    with pytest.raises(UserError, match="one of mean, zero"):
        removing.head_effects(trained, 3, samples=2, replaced_by="median")


def probes_of(config) -> Probes:
    """Three sequences of three random tokens, three times."""
    ids = list(range(config.vocab_size))
    twice = induction.probe(2, 3, ids, None, 5)
    return Probes(
        repeated=induction.probe(3, 3, ids, None, 4, 3),
        once=induction.probe(3, 3, ids, None, 4, 1),
        cut=twice[:, :-1],
        wanted=twice[:, 4:],
        period=3,
        repeats=3,
        bos=False,
    )


def two_models(config, scale: float = 2.5):
    """Donor and recipient, [1, ...]."""
    make = lambda seed: jax.tree.map(
        lambda leaf: leaf[None], random_params(config, seed, scale)
    )
    return make(1), make(2)


def alone(params):
    return jax.tree.map(lambda leaf: leaf[0], params)


def later_scores(params, x, first: int, config, edges) -> np.ndarray:
    """Prefix matching [L - first, H] of the layers that read a stream x."""
    rest = {"num_layers": config.num_layers - first}
    if config.windows is not None:
        rest["windows"] = config.windows[first:]
    layers = jax.tree.map(lambda leaf: leaf[first:], params.layers)
    rest = dataclasses.replace(config, **rest)
    run = jax.jit(
        lambda params, x: run_layers(params, x, rest, (), lambda seen: seen["patterns"])
    )
    _, patterns = run(params.replace(layers=layers), x)
    return np.einsum("lbhts,ts->lh", np.asarray(patterns), edges) / x.shape[0]


@pytest.mark.parametrize("name", CONFIGS)
def test_a_layers_attention_is_put_in_as_its_donor_adds_it(name):
    """The block is run without attention, on a stream that has the donor's already."""
    config = CONFIGS[name]
    donor, recipient = two_models(config)
    probes, model = probes_of(config), family(config.model_type)
    found = patching.patch_layers(donor, recipient, probes, config)
    donor, recipient = alone(donor), alone(recipient)
    edges = probes.edges["prefix_matching"]
    tokens = jnp.asarray(probes.repeated)
    seen, own = (
        forward(each, tokens, config, capture=("heads", "residual"))
        for each in (donor, recipient)
    )
    assert seen.heads is not None and own.residual is not None
    positions = jnp.broadcast_to(jnp.arange(9)[None], (3, 9))
    l = config.num_layers - 2
    theirs, layer = (
        jax.tree.map(lambda leaf: jnp.asarray(np.asarray(leaf)[l]), each.layers)
        for each in (donor, recipient)
    )
    added = model.contributions(theirs, seen.heads[l], config).sum(axis=-2)
    for each, sign in ((theirs, 1), (layer, -1)):  # the block adds its own bias
        bias = getattr(each, "bo", None)
        added += 0 if bias is None else sign * bias[None, None]
    silent = lambda q, k, v, **others: jnp.zeros_like(q)
    run = jax.jit(lambda x: model.block(layer, x, positions, silent, config))
    x = own.residual[l]
    x = run(x) + added if getattr(config, "parallel", False) else run(x + added)
    expected = later_scores(recipient, x, l + 1, config, edges)
    assert_close(found["prefix_matching"][0, l, l + 1 :], expected)
    assert np.isnan(found["prefix_matching"][0, l, : l + 1]).all()
    assert np.abs(expected - found["baseline"][0, l + 1 :]).max() > 1e-3


def test_a_stream_is_put_in_whole():
    config = CONFIGS["toy-shifted"]
    donor, recipient = two_models(config)
    probes = probes_of(config)
    found = patching.patch_layers(donor, recipient, probes, config, what="residual")
    edges, tokens = probes.edges["prefix_matching"], jnp.asarray(probes.repeated)
    seen = forward(alone(donor), tokens, config, capture=("residual",)).residual
    assert seen is not None and "control" not in found
    for l in range(config.num_layers - 1):
        expected = later_scores(alone(recipient), seen[l + 1], l + 1, config, edges)
        # Streams are put in as a difference, which rounds.
        assert_close(found["prefix_matching"][0, l, l + 1 :], expected, 1e-4)


def test_the_control_takes_activations_from_the_next_sequence():
    config = CONFIGS["toy"]
    donor, recipient = two_models(config)
    probes = probes_of(config)
    found = patching.patch_layers(donor, recipient, probes, config)
    edges = probes.edges["prefix_matching"]
    away = jnp.asarray(np.roll(probes.repeated, -1, axis=0))
    donor, recipient = alone(donor), alone(recipient)
    z = forward(donor, away, config, capture=("heads",)).heads
    assert z is not None
    x = recipient.embedding[probes.repeated]
    x = x + jnp.einsum("bthk,hkd->btd", z[0], donor.layers.wo[0])
    expected = later_scores(recipient, x, 1, config, edges)
    assert_close(found["control"][0, 0, 1:], expected)


def test_scores_without_a_patch_are_those_of_the_models():
    config = CONFIGS["toy"]
    donor, recipient = two_models(config)
    probes = probes_of(config)
    found = patching.patch_layers(donor, recipient, probes, config)
    own = head_figures(donor, probes, config)
    assert_close(found["donor"], own["prefix_matching"])
    assert_close(found["donor_previous_token"], own["previous_token"])
    assert_close(
        found["baseline"], head_figures(recipient, probes, config)["prefix_matching"]
    )


@pytest.mark.parametrize("what", patching.WHAT)
def test_a_donor_that_is_the_recipient_changes_nothing(trained, what):
    found = patching.patch_across_checkpoints(trained, 3, 3, what=what)
    for n in range(2):
        np.testing.assert_array_equal(
            found["prefix_matching"][n, 0, 1], found["baseline"][n, 1]
        )


def test_a_recipient_gets_back_what_it_lacked():
    """One head is silenced: its layer's patch restores the donor."""
    config = CONFIGS["toy"]
    donor, _ = two_models(config)
    wo = donor.layers.wo.at[:, 0, 3].set(0)
    recipient = donor.replace(layers=donor.layers.replace(wo=wo))
    probes = probes_of(config)
    layers = patching.patch_layers(donor, recipient, probes, config)
    assert np.abs(layers["baseline"] - layers["donor"])[0, 1].max() > 1e-3
    assert_close(layers["prefix_matching"][0, 0, 1], layers["donor"][0, 1])
    assert np.isnan(layers["prefix_matching"][0, 1]).all()
    changed = np.abs(layers["control"][0, 0, 1] - layers["donor"][0, 1])
    assert changed.max() > 1e-3  # on other tokens it is another thing


def test_activations_of_a_random_donor_give_chance():
    config = dataclasses.replace(CONFIGS["toy"], num_heads=7)
    donor, recipient = two_models(config, scale=0.3)
    found = patching.patch_layers(donor, recipient, probes_of(config), config)
    patched = found["prefix_matching"][0, 0, 1]
    assert np.abs(patched - found["chance"]).max() < 0.05


def test_what_is_patched_is_checked():
    config = CONFIGS["toy"]
    donor, recipient = two_models(config)
    with pytest.raises(UserError, match="one of attention, residual"):
        patching.patch_layers(donor, recipient, probes_of(config), config, what="mlp")


def compared_run(causal: bool = True) -> Run:
    """A made-up comparison; head 1.0 copies, anti-induction in the second arm."""
    rng = np.random.default_rng(0)
    arms = [
        {"name": "plain one", "objective": "vanilla", "seeds": [3, 4]},
        {"name": "other", "objective": "hapax", "seeds": [3, 4]},
    ]
    arrays = {}
    for at in range(2):
        prefix = np.full((2, 2, 3), 0.05)
        prefix[:, 1, 0] = 0.8
        start = f"arm_{at}/head_effects"
        arrays[f"{start}/prefix_matching"] = prefix
        for group in ("repetition", "plain", "copying_block"):
            effect = rng.normal(0, 1e-4, (2, 2, 3))
            effect[:, 1, 0] = -0.3 if at == 0 else 0.125
            p = np.where(prefix > 0.5, 1e-5, 0.9)
            arrays[f"{start}/effect/{group}"] = effect
            arrays[f"{start}/effect_se/{group}"] = np.full((2, 2, 3), 0.01)
            arrays[f"{start}/effect_p/{group}"] = p
        start = f"arm_{at}/patching"
        given = np.full((2, 2, 2, 3), np.nan)
        given[:, 0, 1] = [0.1, 0.625, 0.2]
        arrays[f"{start}/prefix_matching"] = given
        arrays[f"{start}/control"] = given / 5
        for name, value in (("baseline", 0.03), ("donor", 0.9)):
            arrays[f"{start}/{name}"] = np.full((2, 2, 3), value)
        arrays[f"{start}/donor_previous_token"] = np.full((2, 2, 3), 0.7)
        arrays[f"{start}/chance"] = np.array(0.04)
    compared = {"step": 9, "donor_step": 9, "recipient_step": 0}
    result = {"arms": arms, "compared": compared}
    return Run(Path("nowhere"), result, arrays if causal else {})


def test_the_page_shows_what_heads_do():
    effects, patching_section = heads_page.sections(compared_run())
    assert [row.title for row in effects.rows] == [
        "Repetition, last token",
        "Neither copy nor answer",
    ]
    drawn = effects.rows[0].figures
    assert [figure.title for figure in drawn] == ["plain one", "other"]
    assert drawn[0].note == "2 of 12 heads help, 0 stand in the way"
    assert drawn[1].note == "0 of 12 heads help, 2 stand in the way"
    row = next(row for row in drawn[0].data if row["head"] == "1.0")
    assert row == {
        "seed": "3",
        "head": "1.0",
        "prefix matching": 0.8,
        "effect": -0.3,
        "effect, standard error": 0.01,
        "p, Holm": 1e-5,
        "does": "helps",
    }
    domains = [
        figure.spec["layer"][2]["encoding"]["y"]["scale"]["domain"] for figure in drawn
    ]
    assert domains[0] == domains[1] and domains[0][0] < -0.3 < 0.125 < domains[0][1]
    assert effects.facts[1].startswith("other: of the heads that match prefixes most")
    assert (
        "0 of 12 help on repetition, last token, 2 stand in the way"
        in (effects.facts[1])
    )
    first = [cell.text for cell in effects.tables[1].rows[0]]
    assert first[:4] == ["1.0", "3", "0.80", "0.125 ± 0.010"]
    assert effects.tables[1].rows[0][3].small == "p < 0.001"
    assert len(effects.tables[1].rows) == 10

    assert [len(row.figures) for row in patching_section.rows] == [2, 2]
    figure = patching_section.rows[0].figures[1]
    assert figure.title == "plain one, seed 4"
    cells = {(row["what runs"], row["head"]): row for row in figure.data}
    assert len(cells) == 9
    assert cells["layer 0 patched", "1.1"]["prefix matching"] == 0.625
    assert cells["layer 0 patched", "1.1"]["patched from other tokens"] == 0.125
    assert cells["step 0 as it is", "1.2"]["prefix matching"] == 0.03
    assert cells["step 9", "1.2"]["prefix matching"] == 0.9
    assert figure.spec["encoding"]["color"]["scale"]["domain"] == [0, 0.9]
    listed = [cell.text for cell in patching_section.tables[0].rows[3]]
    assert listed[:7] == ["other", "4", "0", "1.1", "0.62", "0.12", "0.030"]


def test_a_model_of_one_layer_has_nothing_to_patch():
    run = compared_run()
    for name, values in list(run.arrays.items()):
        if values.ndim == 4:
            run.arrays[name] = values[:, :1, :1]
        elif values.ndim == 3:
            run.arrays[name] = values[:, :1]
    (effects,) = heads_page.sections(run)
    assert len(effects.tables[0].rows) == 6


def test_patching_without_a_control_is_shown():
    run = compared_run()
    for at in range(2):
        del run.arrays[f"arm_{at}/patching/control"]
    section = heads_page.sections(run)[1]
    assert section.tables[0].rows[3][5].text == words.NONE


def test_a_comparison_without_causes_has_no_such_sections():
    assert heads_page.sections(compared_run(causal=False)) == []
    assert heads_page.sections(Run(Path("nowhere"), {}, {})) == []

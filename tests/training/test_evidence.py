"""Evidence during training, against plain loops over what the model captures."""

import dataclasses
import json
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from families import CONFIGS, assert_close, random_params

import jaxheads as jh
from jaxheads.engine.devices import make_mesh
from jaxheads.errors import UserError
from jaxheads.models import toy
from jaxheads.scores import copying
from jaxheads.training import held_out as evidence_windows, probes as evidence_probes
from jaxheads.training.config import EvidenceConfig, TrainConfig
from jaxheads.training.data.automata import Family
from jaxheads.training.data.function_mixture import COPYING, FunctionMixture
from jaxheads.training.data.languages import RegularLanguages
from jaxheads.training.data.repeats import RepeatedTokens
from jaxheads.training.data.successors import FixedSuccessors
from jaxheads.training.data.windows import EVALUATION_STREAM, Windows
from jaxheads.training.held_out import draw_windows
from jaxheads.training.loop import train
from jaxheads.training.measures import figure_dims, figure_unit, make_evidence
from jaxheads.training.probes import draw_probes, probe_ids

pytestmark = pytest.mark.usefixtures("quick_compilation")

LENGTH = 37
SOURCES = {
    "repeats": RepeatedTokens(41, LENGTH, 3, 30, bos_id=4),
    "successors": FixedSuccessors(40, LENGTH),
    "mixture": FunctionMixture(LENGTH, inputs=9, text_tokens=13, successors=3),
    "languages": RegularLanguages(
        LENGTH, Family(training=9, test=5), longest=9, fewest_strings=2, most_strings=6
    ),
}
CONFIG = EvidenceConfig(
    evidence_samples=9,
    evidence_positions=(4, 30),
    probe_sequences=3,
    probe_period=7,
    probe_repeats=3,
    repetitions=5,
)
MODEL = toy.Config(2, 22, 5, 6, 41, 64, norms=False)


class Documents:
    """Windows of random tokens out of few, with several documents each."""

    sequence_length, vocab_size = LENGTH, 11

    def describe(self):
        """See ``Source``."""
        return {"source": "Documents"}

    def batch(self, index, size, *, stream=0):
        """See ``Source``."""
        rng = np.random.default_rng([index, stream + 1])
        tokens = rng.integers(0, 11, (size, LENGTH + 1)).astype(np.int32)
        starts = rng.random((size, LENGTH + 1)) < 0.15
        segments = np.cumsum(starts, axis=1).astype(np.int32)
        scored = segments[:, 1:] == segments[:, :-1]
        scored[0] = False
        return Windows(tokens, segments, scored)


def several(config, count):
    """Params of several random models, and each of them."""
    each = [random_params(config, seed, scale=1.5) for seed in range(count)]
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *each), each


@pytest.fixture(scope="module", params=[*SOURCES, "documents"])
def measured(request, quick_compilation):
    """Evidence on a source, of three models at once, and the models."""
    source = SOURCES.get(request.param, Documents())
    evidence = make_evidence(CONFIG, MODEL, source)
    params, each = several(MODEL, 3)
    return evidence, evidence.measure(params), each


def losses_of(params, held):
    """Losses [S][T] in nats, likeliest tokens and probabilities, window by window."""
    losses, likeliest, probabilities = [], [], []
    for row, tokens in enumerate(held.windows.tokens):
        segments = held.windows.segments
        whole = None if segments is None else jnp.asarray(segments[None, row, :-1])
        out = jh.forward(params, jnp.asarray(tokens[None, :-1]), MODEL, segments=whole)
        logits = np.asarray(out.logits[0], np.float64)
        shares = np.exp(logits - logits.max(axis=1, keepdims=True))
        shares /= shares.sum(axis=1, keepdims=True)
        losses.append([-np.log(shares[t, tokens[t + 1]]) for t in range(LENGTH)])
        likeliest.append(logits.argmax(axis=1))
        probabilities.append(shares)
    return np.array(losses), np.array(likeliest), np.array(probabilities)


def mean(values):
    """Mean of a list; NaN of none."""
    return np.mean(values) if values else np.nan


def test_heads_are_scored_as_loops_over_their_patterns_do(measured):
    evidence, found, each = measured
    probes = evidence.probes
    for index in (0, 2):
        out = jh.forward(
            each[index], jnp.asarray(probes.repeated), MODEL, capture=("patterns",)
        )
        assert out.patterns is not None
        patterns = np.asarray(out.patterns)
        for layer, head in ((0, 0), (0, 3), (1, 4)):
            matched, before = [], []
            for row, tokens in enumerate(probes.repeated):
                attention = patterns[layer, row, head]
                for t in range(1, len(tokens)):
                    before.append(attention[t, t - 1])
                    copies = [s for s in range(t) if tokens[s] == tokens[t]]
                    if copies:
                        matched.append(sum(attention[t, s + 1] for s in copies))
            score = found["prefix_matching"][index, layer, head]
            assert_close(score, mean(matched))
            assert_close(found["previous_token"][index, layer, head], mean(before))


def test_copying_is_scored_on_tokens_that_do_not_repeat(measured):
    evidence, found, each = measured
    probes = evidence.probes
    assert all(len(set(row)) == len(row) == 7 + probes.bos for row in probes.once)
    samples = [
        copying.copied(each[1], jnp.asarray(row[None]), MODEL, probes.bos)[:, :, 0]
        for row in probes.once
    ]
    assert_close(found["copying"][1], np.mean(samples, axis=0))


def test_repetitions_are_completed_as_single_sequences_say(measured):
    evidence, found, each = measured
    probes, start = evidence.probes, int(evidence.probes.bos)
    params = jax.tree.map(lambda *leaves: jnp.stack(leaves), *each)
    predicted = np.asarray(evidence_probes._repeated(params, probes.cut, MODEL, 7))
    assert len(probes.cut) == 5 and probes.cut.shape[1] == start + 13
    for index, params in enumerate(each):
        last, every = [], []
        for row, (tokens, wanted) in enumerate(
            zip(probes.cut, probes.wanted, strict=True)
        ):
            once = tokens[start : start + 7]
            np.testing.assert_array_equal(tokens[start + 7 :], once[:-1])
            np.testing.assert_array_equal(wanted, once[1:])
            out = jh.forward(params, jnp.asarray(tokens[None]), MODEL)
            likeliest = np.asarray(out.logits[0]).argmax(axis=1)
            np.testing.assert_array_equal(
                predicted[index, :, row], likeliest[start + 7 :]
            )
            right = [likeliest[start + 7 + i] == once[i + 1] for i in range(6)]
            last.append(right[-1])
            every += right
        assert_close(found["repetition_accuracy"][index], mean(last))
        assert_close(found["repetition_accuracy_whole"][index], mean(every))


def test_losses_and_context_scores_are_those_of_single_windows(measured):
    evidence, found, each = measured
    held = evidence.held_out
    windows = held.windows
    assert held.at == (3, 29)
    for index in (0, 1):
        losses, _, _ = losses_of(each[index], held)
        every = {"": [], "_non_extractive": []}
        for row, tokens in enumerate(windows.tokens):
            if not (windows.scored[row, 3] and windows.scored[row, 29]):
                continue
            both = (losses[row, 3], losses[row, 29])
            every[""].append(both)
            if not any(copied(windows, row, t) for t in (3, 29)):
                every["_non_extractive"].append(both)
            assert len(tokens) == LENGTH + 1
        for end, pairs in every.items():
            early, late = mean([a for a, _ in pairs]), mean([b for _, b in pairs])
            assert_close(found[f"icl_score{end}"][index], late - early)
            assert_close(found[f"token_loss_difference{end}"][index], early - late)
            assert_close(found[f"early_loss{end}"][index], early)
            assert_close(found[f"late_loss{end}"][index], late)
        for t in (0, 17, LENGTH - 1):
            column = [
                losses[row, t] for row in range(len(losses)) if windows.scored[row, t]
            ]
            assert_close(found["loss_by_position"][index, t], mean(column))
        for row, t in enumerate(held.chosen):
            if t < 0:
                assert not windows.scored[row].any()
                assert np.isnan(found["token_losses"][index, row])
            else:
                assert windows.scored[row, t]
                assert_close(found["token_losses"][index, row], losses[row, t])


def copied(windows, row, t):
    """Whether target t completes a bigram that its document has had before."""
    tokens, segments = windows.tokens[row], windows.segments
    document = np.zeros(len(tokens)) if segments is None else segments[row]
    if document[t] != document[t + 1]:
        return False
    return any(
        document[s] == document[s + 1] == document[t]
        and (tokens[s], tokens[s + 1]) == (tokens[t], tokens[t + 1])
        for s in range(t)
    )


def test_windows_that_copying_cannot_solve_are_told_apart(measured):
    held = measured[0].held_out
    for row in range(len(held.windows.tokens)):
        expected = [copied(held.windows, row, t) for t in range(LENGTH)]
        np.testing.assert_array_equal(held.copyable[row], expected)


def test_kinds_of_targets_have_accuracies_of_their_own(measured):
    evidence, found, each = measured
    held = evidence.held_out
    windows, info = held.windows, held.windows.info
    losses, likeliest, probabilities = losses_of(each[1], held)
    right = likeliest == windows.targets
    at = [(row, t) for row in range(len(right)) for t in range(LENGTH)]
    at = [place for place in at if windows.scored[place]]
    kinds = {}
    if isinstance(held.source, RepeatedTokens):
        kinds["copied"] = [p for p in at if p[1] > info["start"][p[0]]]
    if isinstance(held.source, FixedSuccessors):
        kinds["predictable"] = [p for p in at if p[1] >= info["first"][p[0]]]
        kinds["first_induction"] = [p for p in at if p[1] == info["first"][p[0]]]
    if isinstance(held.source, FunctionMixture):
        kinds["copyable"] = [p for p in at if copied(windows, *p)]
        kinds["copying_block"] = [
            p for p in kinds["copyable"] if info["kind"][p] == COPYING
        ]
        kinds["answer"] = [p for p in at if info["answer"][p] and info["shot"][p] > 0]
        answers = [p for p in at if info["answer"][p]]
        kinds["plain"] = [p for p in at if p not in {*answers, *kinds["copyable"]}]
        pairs = found["accuracy_by_shot"].shape[1]
        assert pairs == 1 + max(info["shot"][p] for p in answers) > 3
        for shot in range(pairs):
            group = [p for p in answers if info["shot"][p] == shot]
            accuracy = mean([right[p] for p in group])
            assert_close(found["accuracy_by_shot"][1, shot], accuracy)
            loss = mean([losses[p] for p in group])
            assert_close(found["loss_by_shot"][1, shot], loss)
    assert set(kinds) == set(held.groups)
    for name, group in kinds.items():
        assert group
        assert_close(found[f"accuracy_{name}"][1], mean([right[p] for p in group]))
        assert_close(found[f"{name}_loss"][1], mean([losses[p] for p in group]))
    assert_close(found["accuracy"][1], mean([right[p] for p in at]))
    if isinstance(held.source, RegularLanguages):
        automata, legal, distance = held.source.automata, [], []
        for row, t in at:
            edges = automata.edges[info["automaton"][row], info["state"][row, t]]
            allowed = np.flatnonzero(edges >= 0)
            legal.append(likeliest[row, t] in allowed)
            wanted = np.zeros(MODEL.vocab_size)
            wanted[allowed] = 1 / len(allowed)
            distance.append(np.abs(probabilities[row, t] - wanted).sum() / 2)
        assert_close(found["legal_next_symbol"][1], mean(legal))
        assert_close(found["total_variation"][1], mean(distance))


def test_figures_have_dims_and_units(measured):
    _, found, _ = measured
    assert not {"loss", "all_loss", "seconds"} & set(found)
    for name, values in found.items():
        assert values.dtype == np.float32
        assert len(figure_dims(name)) == values.ndim - 1
        assert figure_unit(name)
    assert figure_dims("jump") == () and not figure_unit("jump")


def test_one_model_alone_gives_what_it_gives_among_others():
    evidence = make_evidence(CONFIG, MODEL, Documents())
    params, each = several(MODEL, 3)
    found = evidence.measure(params)
    alone = evidence(7, each[2])
    assert set(alone) == set(found)
    for name, values in alone.items():
        assert values.shape == found[name].shape[1:]
        assert_close(found[name][2], values)


def test_little_memory_changes_nothing(monkeypatch):
    evidence = make_evidence(CONFIG, MODEL, Documents())
    params, _ = several(MODEL, 3)
    whole = evidence.measure(params)
    monkeypatch.setattr(evidence_probes, "BUDGET_BYTES", 2**17)
    monkeypatch.setattr(evidence_windows, "BUDGET_BYTES", 2**17)
    for name, values in evidence.measure(params).items():
        assert_close(values, whole[name])


@pytest.mark.parametrize(
    "name", ["llama-gqa", pytest.param("gpt_neox", marks=pytest.mark.slow)]
)
def test_every_family_is_measured(name):
    config = CONFIGS[name]
    source = RepeatedTokens(31, LENGTH, 3, 7)
    evidence = make_evidence(CONFIG, config, source)
    params, _ = several(config, 1)
    found = evidence.measure(params)
    shape = (1, config.num_layers, config.num_heads)
    for score in ("prefix_matching", "previous_token", "copying"):
        assert found[score].shape == shape and np.isfinite(found[score]).all()


def test_probes_are_of_the_tokens_that_a_source_repeats():
    mixture = SOURCES["mixture"]
    ids, bos_id = probe_ids(mixture)
    np.testing.assert_array_equal(ids, np.arange(18, 31))
    assert bos_id == 31 == mixture.vocab_size - 1
    ids, bos_id = probe_ids(SOURCES["repeats"])
    assert bos_id == 4 and 4 not in ids and len(ids) == 40
    ids, bos_id = probe_ids(SOURCES["languages"])
    assert bos_id is None and len(ids) == 18
    probes = draw_probes(SOURCES["repeats"], 64)
    assert probes.bos and (probes.repeated[:, 0] == 4).all()
    assert probes.period == 9  # 4 times after BOS in windows of 37
    assert probes.repeated.shape == (10, 37)
    assert len(set(probes.once[0])) == 10


def test_held_out_windows_are_of_an_order_that_is_not_trained_on():
    source = SOURCES["successors"]
    held = draw_windows(source, samples=9)
    same = source.batch(0, 9, stream=EVALUATION_STREAM)
    np.testing.assert_array_equal(held.windows.tokens, same.tokens)
    assert held.at == (2, 34)  # the 3rd and the 35th of 37
    assert draw_windows(FixedSuccessors(), samples=2).at == (49, 499)


def test_the_choices_are_told_and_checked():
    evidence = make_evidence(CONFIG, MODEL, SOURCES["repeats"])
    told = json.loads(json.dumps(evidence.describe()))
    assert told["evidence_positions"] == [4, 30] and told["probe_period"] == 7
    assert told["samples_of_icl_score"]["all"] == 9
    wrongs: list[tuple[dict[str, Any], str]] = [
        ({"evidence_positions": (30, 4)}, "early and a late"),
        ({"evidence_positions": (3, LENGTH + 1)}, "early and a late"),
        ({"evidence_samples": 0}, "--evidence-samples must be 1"),
        ({"probe_repeats": 30}, "no room"),
    ]
    for wrong, sentence in wrongs:
        with pytest.raises(UserError, match=sentence):
            config = dataclasses.replace(EvidenceConfig(probe_period=7), **wrong)
            make_evidence(config, MODEL, SOURCES["repeats"])


@pytest.mark.slow
@pytest.mark.parametrize("mesh", [None, "data=2"])
def test_a_training_run_keeps_it(tmp_path, mesh):
    source = SOURCES["repeats"]
    config = TrainConfig(
        steps=2, batch_size=2, seeds=2, eval_every=1, eval_batches=1, checkpoints=()
    )
    evidence = make_evidence(CONFIG, MODEL, source)
    out = tmp_path / "run"
    run = train(config, MODEL, source, out, evidence=evidence, mesh=make_mesh(mesh))
    described = run.result["arrays"]["evaluation/prefix_matching"]
    assert described["dims"] == ["evaluation", "N", "L", "H"]
    assert run.result["model"]["evidence"] == json.loads(
        json.dumps(evidence.describe())
    )
    assert run.arrays["evaluation/prefix_matching"].shape == (3, 2, 2, 5)
    assert run.arrays["evaluation/loss_by_position"].shape == (3, 2, LENGTH)
    last = jh.load(out / run.result["train"]["checkpoints"]["1"][-1])
    again = evidence.measure(last.params)
    for name, values in again.items():
        assert_close(run.arrays[f"evaluation/{name}"][-1, 1], values)

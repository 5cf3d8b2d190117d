"""Trainings compared: every statistic against loops, the command, the page."""

import dataclasses
import io
import itertools
import math
import statistics

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from browser import check_page
from rich.console import Console

from jaxheads import runs
from jaxheads.cli.options import parse
from jaxheads.engine.progress import Progress
from jaxheads.errors import UserError
from jaxheads.models import toy
from jaxheads.models.forward import forward
from jaxheads.statistics import bootstrap_mean
from jaxheads.statistics.paired_tests import holm, mcnemar
from jaxheads.statistics.units import student_t_quantile
from jaxheads.studies.compare_runs.claims import DEFINITIONS, judge_arms
from jaxheads.studies.compare_runs.command import run_command
from jaxheads.studies.compare_runs.config import ArmsConfig
from jaxheads.studies.compare_runs.effects import (
    answer_effect,
    find_effects,
    head_strength,
    p_of_seeds,
    paired_effect,
    seed_effect,
    title,
    window_interval,
)
from jaxheads.studies.compare_runs.opening import open_arms
from jaxheads.studies.compare_runs.outcomes import groups
from jaxheads.studies.compare_runs.result import claims_of, config_of, effects_of
from jaxheads.studies.compare_runs.study import compare_runs
from jaxheads.studies.report import render
from jaxheads.training.config import EvidenceConfig, TrainConfig
from jaxheads.training.data.function_mixture import TEXT, FunctionMixture
from jaxheads.training.data.repeats import RepeatedTokens
from jaxheads.training.data.successors import FixedSuccessors
from jaxheads.training.held_out import draw_windows
from jaxheads.training.loop import train
from jaxheads.training.measures import make_evidence

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("quick_compilation")]

SOURCE = FunctionMixture(
    30, inputs=7, shifts=2, tables=1, text_tokens=9, successors=3,
    longest_block=12, shortest_period=2, longest_period=4, text_share=0.2,
)  # fmt: skip
MODEL = toy.Config(2, 22, 3, 6, SOURCE.vocab_size, 32)
TRAIN = TrainConfig(
    steps=6, batch_size=4, seeds=3, seed=2, eval_every=3, checkpoints=("3",),
    learning_rate=3e-2, warmup=1,
)  # fmt: skip
EVIDENCE = EvidenceConfig(
    evidence_samples=8, probe_sequences=2, probe_period=4, probe_repeats=2,
    repetitions=4, evidence_positions=(4, 27),
)  # fmt: skip
CONFIG = ArmsConfig(
    samples=17, repetitions=11, top=2, induction_above=0.2, causal=False
)


@pytest.fixture(scope="module")
def arms(tmp_path_factory):
    """Folders of two trainings: vanilla and hapax."""
    folder = tmp_path_factory.mktemp("arms")
    evidence = make_evidence(EVIDENCE, MODEL, SOURCE)
    for name in ("vanilla", "hapax"):
        config = dataclasses.replace(TRAIN, objective=name)
        train(config, MODEL, SOURCE, folder / name, evidence=evidence)
    return [folder / "vanilla", folder / "hapax"]


@pytest.fixture(scope="module")
def compared(arms):
    """Both, compared."""
    return compare_runs(arms, CONFIG, arms[0].with_name("compared"))


def changed(folder, target, **changes):
    """A copy of a run whose result says something else; its models stay away."""
    target.mkdir()
    run = runs.load(folder)
    result = run.result
    for path, value in changes.items():
        *outer, last = path.split("__")
        place = result
        for name in outer:
            place = place[name]
        place[last] = value
    runs.write_run(target, result, run.arrays)
    return target


def find(effects, name):
    """One effect by its name."""
    return next(one for one in effects if one.name == name)


def test_outcomes_are_those_of_single_models(arms, compared):
    opened = open_arms(arms, CONFIG)
    held = opened.evidence[1].held_out
    model = opened.trained[1].model(3, 6)
    for window in (0, 16):
        row = held.windows.tokens[window]
        logits = forward(model.params, jnp.asarray(row[None, :-1]), MODEL).logits[0]
        logs = jax.nn.log_softmax(logits)
        for t in (0, 13, 29):
            right = int(np.argmax(logs[t])) == row[t + 1]
            assert compared.arrays["arm_1/correct"][1, window, t] == right
            np.testing.assert_allclose(
                compared.arrays["arm_1/losses"][1, window, t],
                -logs[t, row[t + 1]],
                rtol=2e-5,
            )
    probes = opened.evidence[1].probes
    logits = forward(model.params, jnp.asarray(probes.cut), MODEL).logits
    said = np.argmax(np.asarray(logits), axis=-1)[:, -(probes.period - 1) :]
    right = compared.arrays["arm_1/repeated"][1]
    np.testing.assert_array_equal(right, said == probes.wanted)


def test_groups_are_those_of_loops():
    held = draw_windows(SOURCE, samples=19, positions=(4, 27))
    found, info = groups(held), held.windows.info
    tokens = held.windows.tokens
    for b, t in itertools.product(range(19), range(30)):
        pairs = list(itertools.pairwise(tokens[b, : t + 2].tolist()))
        copy = pairs[-1] in pairs[:-1]
        both = [
            list(itertools.pairwise(tokens[b, : at + 1].tolist())) for at in (4, 27)
        ]
        free = not any(each[-1] in each[:-1] for each in both)
        shot = info["shot"][b, t]
        assert found["all"][b, t]
        assert found["copyable"][b, t] == copy
        assert found["not_copyable"][b, t] != copy
        assert found["answer"][b, t] == (shot >= 1)
        assert found["answer_0"][b, t] == (shot == 0)
        assert found["answer_2_3"][b, t] == (shot in (2, 3))
        assert found["text"][b, t] == (info["kind"][b, t] == TEXT)
        assert found["early"][b, t] == (t == 3)
        assert found["late_non_extractive"][b, t] == (t == 26 and free)
    assert found["late_non_extractive"].any() and "answer_8_15" not in found


def test_sources_without_functions_have_their_own_groups():
    found = groups(draw_windows(FixedSuccessors(12, 20), samples=5))
    own = {"all", "copyable", "not_copyable", "first_induction"}
    assert own <= set(found) and "answer" not in found
    same = groups(draw_windows(RepeatedTokens(12, 20, 3, 6), samples=5))
    np.testing.assert_array_equal(same["copyable"] | same["not_copyable"], same["all"])


def paired(seed=0, seeds=3, windows=7, targets=5):
    """Answers of both arms, and which count; a window has none that counts."""
    rng = np.random.default_rng(seed)
    where = rng.random((windows, targets)) < 0.6
    where[1] = False
    right = rng.random((2, seeds, windows, targets)) < [[[[0.7]]], [[[0.4]]]]
    return right, where


def test_effects_on_answers_are_those_of_loops():
    right, where = paired()
    found = answer_effect("answer", 1, (right[0], right[1]), where, 0)
    places = [tuple(p) for p in np.argwhere(where)]
    for seed in range(3):
        one = [right[0, seed, s, t] and not right[1, seed, s, t] for s, t in places]
        other = [right[1, seed, s, t] and not right[0, seed, s, t] for s, t in places]
        assert found.only_reference[seed] == sum(one)
        assert found.only_other[seed] == sum(other)
        assert found.by_seed[seed] == pytest.approx(
            (sum(other) - sum(one)) / len(places)
        )
        n, few = sum(one) + sum(other), min(sum(one), sum(other))
        p = min(1, 2 * sum(math.comb(n, k) for k in range(few + 1)) / 2**n)
        assert found.mcnemar[seed] == pytest.approx(p)
    mean, spread = statistics.mean(found.by_seed), statistics.stdev(found.by_seed)
    half = student_t_quantile(0.95, 2) * spread / math.sqrt(3)
    assert found.difference == pytest.approx(mean)
    assert found.difference == pytest.approx(found.other - found.reference)
    assert (found.seeds_low, found.seeds_high) == pytest.approx(
        (mean - half, mean + half)
    )
    assert found.targets == len(places)


def test_the_pooled_test_flips_the_signs_of_windows():
    right, where = paired(1)
    found = answer_effect("answer", 1, (right[0], right[1]), where, 0)
    sums = [
        sum(
            int(right[1, n, s, t]) - int(right[0, n, s, t])
            for n in range(3)
            for t in range(5)
            if where[s, t]
        )
        for s in range(7)
    ]
    beyond = [
        abs(sum(sign * x for sign, x in zip(signs, sums, strict=True)))
        >= abs(sum(sums))
        for signs in itertools.product((1, -1), repeat=7)
    ]
    assert 0 < found.p_samples < 1
    assert found.p_samples == pytest.approx(statistics.mean(beyond))


def test_of_one_seed_and_target_it_is_mcnemars_test():
    rng = np.random.default_rng(5)
    right = rng.random((2, 1, 60, 1)) < [[[[0.8]]], [[[0.5]]]]
    found = answer_effect("x", 1, (right[0], right[1]), np.ones((60, 1), bool), 0)
    expected = mcnemar(right[0], right[1]).p
    assert found.p_samples == pytest.approx(expected) and expected < 0.05
    assert found.mcnemar == (pytest.approx(expected),)
    assert math.isnan(found.p_seeds) and found.seeds_high == math.inf


def test_windows_are_resampled_with_all_their_targets():
    right, where = paired(2)
    counts = where.sum(axis=1)
    sums = np.where(where, right[1].astype(float) - right[0], 0).sum(2).mean(0)
    found = window_interval(sums, counts, 3, samples=40)
    used = [s for s in range(7) if counts[s]]
    drawn = np.random.default_rng(3).multinomial(6, np.full(6, 1 / 6), size=40)
    means = []
    for times in drawn:
        total = sum(n * sums[s] for n, s in zip(times, used, strict=True))
        means.append(
            total / sum(n * counts[s] for n, s in zip(times, used, strict=True))
        )
    assert found.mean == pytest.approx(sums.sum() / counts.sum())
    assert (found.low, found.high) == pytest.approx(
        tuple(np.percentile(means, [2.5, 97.5]))
    )


def test_windows_of_equal_size_have_the_usual_interval():
    values = np.random.default_rng(4).normal(size=12)
    found = window_interval(3 * values, np.full(12, 3), 1)
    assert found == pytest.approx(bootstrap_mean(values, 1))


@pytest.mark.parametrize(
    ("by_seed", "p"),
    [
        ([0.0, 0.0, 0.0], 1.0),
        ([0.1 + 0.2, 0.3, 0.3], 0.25),  # not the same but by rounding
        ([0.2, 0.3, 0.4], 0.0351),  # t = 0.3 / (0.1 / sqrt(3)) of 2 degrees
        ([1.0], math.nan),
    ],
)
def test_p_over_seeds(by_seed, p):
    found = p_of_seeds(np.array(by_seed))
    assert found == pytest.approx(p, abs=1e-4, nan_ok=True)


def test_gains_from_context_are_those_of_loops(compared):
    arrays = compared.arrays
    for end in ("", "_non_extractive"):
        found = find(effects_of(compared), f"token_loss_difference{end}")
        windows = np.flatnonzero(arrays[f"targets/early{end}"].any(axis=1))
        for arm, mean in ((0, found.reference), (1, found.other)):
            losses = arrays[f"arm_{arm}/losses"].astype(float)
            each = [
                losses[n, s, 3] - losses[n, s, 26] for n in range(3) for s in windows
            ]
            assert mean == pytest.approx(statistics.mean(each))
        assert found.targets == len(windows) > 0


def test_strength_of_induction_is_that_of_loops(compared):
    scores = compared.arrays["arm_1/prefix_matching"]
    found = head_strength(scores, CONFIG)
    for n in range(3):
        ranked = sorted(map(float, scores[n].ravel()))
        assert found["prefix_top"][n] == pytest.approx(statistics.mean(ranked[-2:]))
        assert found["prefix_first"][n] == ranked[-1]
        assert found["induction_heads"][n] == sum(x > 0.2 for x in ranked)
    every = head_strength(scores, dataclasses.replace(CONFIG, top=100))
    assert every["prefix_top"] == pytest.approx(scores.mean(axis=(1, 2)))


def test_tests_are_adjusted_within_their_families(compared):
    effects = effects_of(compared)
    for family in ("accuracy", "loss", "context", "heads"):
        own = [one for one in effects if one.family == family]
        for name in ("p_seeds", "p_samples"):
            expected = holm([getattr(one, name) for one in own])
            adjusted = [getattr(one, f"{name}_adjusted") for one in own]
            np.testing.assert_allclose(adjusted, expected)
    own = [one for one in effects if one.family == "accuracy"]
    expected = holm([p for one in own for p in one.mcnemar])
    np.testing.assert_allclose([p for x in own for p in x.mcnemar_adjusted], expected)


def test_the_result_says_what_was_found(arms, compared):
    assert compared.result["study"] == "compare-runs"
    assert config_of(compared) == dataclasses.replace(CONFIG, step=6)
    read, made = effects_of(compared), find_effects(compared.arrays, CONFIG)
    assert [one.name for one in read] == [one.name for one in made]
    np.testing.assert_allclose(
        [one.difference for one in read], [one.difference for one in made]
    )
    told = compared.result["arms"]
    assert [arm["name"] for arm in told] == ["vanilla", "hapax"]
    assert told[0]["dropped"] == 0 < told[1]["dropped"] < 1
    assert compared.result["compared"]["differences"] == ["objective: vanilla, hapax"]
    assert compared.result["compared"]["warnings"] == []
    assert [one.name for one in claims_of(compared)[0]] == [d.name for d in DEFINITIONS]


def test_curves_are_those_of_the_trainings(arms, compared):
    np.testing.assert_array_equal(compared.arrays["train/step"], [0, 3, 6])
    for at, folder in enumerate(arms):
        there = runs.load(folder).arrays
        for name in ("prefix_matching", "accuracy_by_shot", "plain_loss"):
            np.testing.assert_array_equal(
                compared.arrays[f"arm_{at}/train/{name}"], there[f"evaluation/{name}"]
            )


def test_heads_are_removed_and_patched(arms, compared, tmp_path):
    config = dataclasses.replace(CONFIG, causal=True, causal_samples=2)
    run = compare_runs(arms, config, tmp_path / "run")
    layers, heads = MODEL.num_layers, MODEL.num_heads
    for arm in range(2):
        effect = run.arrays[f"arm_{arm}/head_effects/effect/copyable"]
        assert effect.shape == (3, layers, heads) and np.isfinite(effect).all()
        patched = run.arrays[f"arm_{arm}/patching/prefix_matching"]
        assert patched.shape == (3, layers, layers, heads)
    told = run.result["compared"]
    assert (told["donor_step"], told["recipient_step"]) == (6, 0)
    for name, values in compared.arrays.items():
        np.testing.assert_array_equal(run.arrays[name], values)
    assert "patching" in render(run)


def effect(name, reference, by_seed, unit="share"):
    """An effect of arm 1 over seeds alone."""
    by_seed = np.asarray(by_seed, float)
    zeros = np.zeros(len(by_seed))
    return seed_effect(name, "loss", unit, 1, reference + zeros, reference + by_seed)


HEADS = effect("induction_heads", 1.0, [0.0, 0.0, 0.0])
FALLS = [("repetition_falls", "repetition"), ("prefix_falls", "prefix_top")]
FALLS.append(("context_gain_falls", "token_loss_difference"))
STAYS = [
    ("loss_does_not_rise", "not_copyable_loss", -1),
    ("answers_do_not_fall", "answer", 1),
    ("context_gain_without_copies", "token_loss_difference_non_extractive", 1),
]


@pytest.mark.parametrize(("claim", "name"), FALLS)
@pytest.mark.parametrize(
    ("by_seed", "verdict"),
    [
        ([-0.3, -0.31, -0.3, -0.29], "holds"),
        ([0.3, 0.31, 0.3, 0.29], "does not hold"),
        ([-0.01, -0.011, -0.012, -0.011], "too small to matter"),  # and there
        ([-0.01, 0.011, -0.012, 0.01], "too small to matter"),  # less than a tenth
        ([-0.3, 0.3, -0.2, 0.1], "undecided"),
        ([-0.3, -0.3001], "undecided"),  # two seeds decide nothing
        ([-0.3], "undecided"),
        (None, "not measured"),
    ],
)
def test_claims_of_a_fall(claim, name, by_seed, verdict):
    effects = [] if by_seed is None else [effect(name, 0.6, by_seed), HEADS]
    judged = judge_arms(effects, ["vanilla", "hapax"], CONFIG)[0]
    assert next(one for one in judged if one.name == claim).verdict == verdict


@pytest.mark.parametrize(("claim", "name", "sign"), STAYS)
@pytest.mark.parametrize(
    ("by_seed", "verdict"),
    [
        ([0.0, 0.01, -0.01, 0.002], "holds"),  # within the margin of 0.05
        ([0.3, 0.31, 0.3, 0.29], "holds"),
        ([-0.3, -0.31, -0.3, -0.29], "does not hold"),
        ([-0.02, -0.06, 0.0, -0.09], "undecided"),
        ([0.0, 0.001], "undecided"),
        ([0.0], "undecided"),
        (None, "not measured"),
    ],
)
def test_claims_of_no_fall(claim, name, sign, by_seed, verdict):
    effects = []
    if by_seed is not None:
        effects = [effect(name, 0.6, [sign * x for x in by_seed]), HEADS]
    judged = judge_arms(effects, ["vanilla", "hapax"], CONFIG)[0]
    assert next(one for one in judged if one.name == claim).verdict == verdict


def test_a_fall_of_a_five_hundredth_is_too_small_to_matter():
    """The printed rule: falls below a tenth of the reference count as none."""
    effects = [effect("repetition", 0.5, [-0.001, -0.0011, -0.0009, -0.001]), HEADS]
    found = judge_arms(effects, ["vanilla", "hapax"], CONFIG)[0][0]
    assert found.p < 0.05 and found.verdict == "too small to matter"


@pytest.mark.parametrize(
    ("claim", "name"), FALLS + [(claim, name) for claim, name, _ in STAYS]
)
def test_what_is_not_there_cannot_fall(claim, name):
    heads = effect("induction_heads", 0.75, [0.0, 0.0])
    effects = [effect(name, 0.1, [-0.3, -0.31, -0.3, -0.29]), heads]
    judged = judge_arms(effects, ["vanilla", "hapax"], CONFIG)[0]
    found = next(one for one in judged if one.name == claim)
    assert found.verdict == "undecided" and "nothing to fall" in found.evidence


def test_claims_are_adjusted_for_one_another():
    effects = [effect(name, 0.6, [-0.1, -0.2, -0.3]) for _, name in FALLS] + [HEADS]
    judged = judge_arms(effects, ["vanilla", "hapax"], CONFIG)[0]
    tested = [one for one in judged if one.verdict != "not measured"]
    assert [one.p_adjusted for one in tested] == pytest.approx(
        [min(1, 3 * tested[0].p)] * 3
    )


def test_a_stopped_comparison_goes_on(arms, compared, tmp_path):
    begun = []

    def stop(name):
        begun.append(name)
        if len(begun) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        compare_runs(arms, CONFIG, tmp_path / "run", progress=Progress(started=stop))
    left = []
    again = compare_runs(
        arms, CONFIG, tmp_path / "run", progress=Progress(planned=left.append)
    )
    assert left == [CONFIG.samples]
    assert again.arrays.keys() == compared.arrays.keys()
    for name, values in again.arrays.items():
        np.testing.assert_array_equal(values, compared.arrays[name])


def test_the_command_prints_effects_and_claims(arms, compared):
    options = ["--samples", "17", "--repetitions", "11", "--top", "2"]
    options += ["--induction-above", "0.2", "--no-causal"]
    command = parse(
        ["compare-runs", *map(str, arms), *options, "-o", str(compared.path)]
    )
    text = io.StringIO()
    run = run_command(
        command,
        Console(file=io.StringIO()),
        Console(file=text, markup=False, width=150),
    )
    assert run.path == compared.path
    said = text.getvalue()
    assert "hapax against vanilla, step 6, 3 seeds" in said
    for one in effects_of(compared):
        assert title(one.name) in said
    for claim in claims_of(compared)[0]:
        assert claim.statement in said


def test_the_page_shows_both_arms(compared):
    page = render(compared)
    for word in ("hapax against vanilla", 'id="signatures"', 'id="answers"', "McNemar"):
        assert word in page
    for name in ("over-training-prefix-top", "answers-shots", "over-training-shot-4"):
        assert name in page
    assert "<td>nan" not in page and ">inf" not in page


def test_the_browser_draws_both_arms(compared, browser):
    check_page(browser, render(compared))


def test_three_arms_of_one_seed_are_warned_of(arms, tmp_path):
    three = []
    for name in ("vanilla", "hapax", "offset"):
        at = arms[name != "vanilla"]
        told = {"config__objective": name, "train__seeds": [3]}
        if name != "vanilla":
            told["config__learning_rate"] = 0.01
        made = changed(at, tmp_path / name, fingerprint=name, **told)
        (made / "checkpoints").symlink_to(at / "checkpoints" / "seed_3")
        arrays = runs.load(made).arrays
        own = {key: x[:, 1:2] if x.ndim > 1 else x for key, x in arrays.items()}
        runs.write_run(made, runs.load(made).result, own)
        three.append(made)
    run = compare_runs(three, CONFIG, tmp_path / "compared")
    assert {one.arm for one in effects_of(run)} == {1, 2}
    notes = " ".join(run.result["compared"]["warnings"])
    assert "learning_rate: 0.03, 0.01, 0.01" in notes
    assert "1 seed: fewer than 3" in notes
    verdicts = {claim.verdict for each in claims_of(run) for claim in each}
    assert verdicts <= {"undecided", "not measured"}
    assert "offset against vanilla" in render(run)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train__seeds": [7, 8, 9]}, "same seeds, but .* has .2, 3, 4. and"),
        (
            {"model__data": dataclasses.replace(SOURCE, seed=5).describe()},
            "same data, but",
        ),
        ({"model__held_out": SOURCE.describe()}, "same held-out data, but"),
        ({"model__model__vocab_size": 99}, "same vocabulary, but"),
        ({"model__model__context_length": 6}, "same probes and held-out windows"),
    ],
)
def test_arms_that_cannot_be_paired_are_refused(arms, tmp_path, changes, message):
    other = changed(arms[1], tmp_path / "other", **changes)
    (other / "checkpoints").symlink_to(arms[1] / "checkpoints")
    with pytest.raises(UserError, match=message):
        open_arms([arms[0], other], CONFIG)


def test_wrong_inputs_are_refused(arms, compared, tmp_path):
    with pytest.raises(UserError, match="two trainings or more"):
        compare_runs(arms[:1], CONFIG, tmp_path / "run")
    with pytest.raises(UserError, match="stands twice"):
        compare_runs([arms[0], arms[0]], CONFIG, tmp_path / "run")
    with pytest.raises(UserError, match=r"--step must .*\(0, 3, 6\), but is 5"):
        changed_step = dataclasses.replace(CONFIG, step=5)
        compare_runs(arms, changed_step, tmp_path / "run")
    with pytest.raises(UserError, match="hold a training run"):
        compare_runs([arms[0], compared.path], CONFIG, tmp_path / "run")
    with pytest.raises(UserError, match="another config"):
        compare_runs(arms, dataclasses.replace(CONFIG, top=3), compared.path)
    with pytest.raises(UserError, match="none in common"):
        compare_runs(
            [arms[0], changed(arms[1], tmp_path / "empty")], CONFIG, tmp_path / "run"
        )
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"samples": 1}, "--samples must be 2 or more"),
        ({"top": 0}, "--top must be 1 or more"),
        ({"margin_loss": 0.0}, "--margin-loss must be above 0"),
        ({"smallest": math.nan}, "--smallest must be above 0"),
    ],
)
def test_choices_are_checked(changes, message):
    with pytest.raises(UserError, match=message):
        dataclasses.replace(CONFIG, **changes).check()


def test_an_effect_is_the_arm_minus_the_reference():
    reference, other = np.array([[3.0, 1.0]]), np.array([[1.0, 1.0]])
    found = paired_effect("x", "loss", 1, reference, other, np.array([2, 2]), 0)
    assert (found.reference, found.other, found.difference) == (1.0, 0.5, -0.5)

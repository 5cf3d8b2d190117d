"""Dates of phase changes, on curves whose date is known."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from jaxheads.errors import UserError
from jaxheads.runs import Run
from jaxheads.statistics.phase_change import (
    PhaseChange,
    find_phase_change,
    find_phase_changes,
    windows_overlap,
)
from jaxheads.studies.train import page

STEPS = np.arange(81) * 25.0


def sigmoid(middle, width, noise=0.0, seed=0):
    """From 0.1 to 0.9, with its middle at a step."""
    scatter = noise * np.random.default_rng(seed).normal(size=len(STEPS))
    return 0.1 + 0.8 / (1 + np.exp(-(STEPS - middle) / width)) + scatter


def dated(curve, steps: Any = STEPS, **more) -> Any:
    """A phase change that is there."""
    found = find_phase_change(steps, curve, **more)
    assert found.step is not None, found.reason
    return found


def test_a_straight_rise_is_dated_to_the_last_digit():
    curve = np.interp(STEPS, [500, 900], [0.2, 1.0])
    found = dated(curve)
    assert found.step == pytest.approx(700)
    assert found.change_point == 700
    assert (found.low, found.high) == (687.5, 712.5)  # half of the spacing each side
    assert (found.begin, found.end) == (525, 875)  # 5 and 95 %: no evaluation nearer
    assert found.level_before == pytest.approx(0.2)
    assert found.level_after == pytest.approx(1.0)


def test_a_jump_may_lie_anywhere_between_two_evaluations():
    found = dated(1.0 * (STEPS > 600))
    assert (found.begin, found.low, found.step) == (600, 600, 612.5)
    assert (found.end, found.high) == (625, 625)


@pytest.mark.parametrize("noise", [0.0, 0.05, 0.15])
def test_noise_moves_a_date_little(noise):
    found = [dated(sigmoid(800, 40, noise, seed)) for seed in range(20)]
    dates = np.array([one.step for one in found])
    assert abs(dates - 800).max() < 5 + 600 * noise
    covered = [one.low <= 800 <= one.high for one in found]
    assert np.mean(covered) >= 0.9
    # 10 and 90 % of a sigmoid are 2.2 widths away from its middle.
    assert np.median([one.begin for one in found]) == pytest.approx(712, abs=26)
    assert np.median([one.end for one in found]) == pytest.approx(888, abs=26)


@pytest.mark.parametrize("width", [0, 25, 100])
@pytest.mark.parametrize("noise", [0.0, 0.1])
def test_the_interval_knows_of_the_grid(width, noise):
    rng = np.random.default_rng(width)
    steps, covered = STEPS[:41], []
    for middle in rng.uniform(300, 700, 40):
        ends = [middle - width / 2 - 1e-6, middle + width / 2 + 1e-6]
        curve = np.interp(steps, ends, [0, 0.8]) + noise * rng.normal(size=41)
        found = dated(curve, steps)
        covered.append(found.low <= middle <= found.high)
    assert np.mean(covered) >= 0.9


def test_wilder_noise_widens_the_interval():
    calm = dated(sigmoid(800, 40, 0.03))
    wild = dated(sigmoid(800, 40, 0.2))
    assert wild.high - wild.low > calm.high - calm.low


def test_a_single_wild_evaluation_does_not_count():
    curve = sigmoid(1200, 40)
    curve[10] = 3.0
    assert dated(curve).step == pytest.approx(1200, abs=15)


def test_steps_may_lie_unevenly():
    steps = np.array([0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024])
    curve = np.interp(steps, [64, 256], [0, 1])
    assert dated(curve, steps).step == pytest.approx(160)


@pytest.mark.parametrize(
    ("curve", "reason"),
    [
        (np.full(81, 0.3), "below 0.1"),
        (-STEPS, "no rise"),
        (0.1 * sigmoid(800, 40), "below 0.1"),
        (0.3 * np.random.default_rng(3).normal(size=81), "stand out"),
        (np.where(np.arange(81) < 5, sigmoid(50, 9), np.nan), "too few"),
    ],
)
def test_where_nothing_jumps_nothing_is_found(curve, reason):
    found = find_phase_change(STEPS, curve)
    assert found.step is None and found.begin is None and found.low is None
    assert reason in found.reason


def test_noise_is_seldom_taken_for_a_rise():
    rng = np.random.default_rng(5)
    steps = np.arange(20)
    taken = [
        find_phase_change(steps, rng.normal(size=20), least=0).step is not None
        for _ in range(200)
    ]
    assert np.mean(taken) <= 0.01


def test_a_fall_is_a_rise_upside_down():
    rise = dated(sigmoid(800, 40, 0.05))
    fall = dated(-sigmoid(800, 40, 0.05), falls=True)
    assert fall.step == rise.step and (fall.low, fall.high) == (rise.low, rise.high)
    assert rise.level_after is not None and fall.level_after == -rise.level_after
    assert find_phase_change(STEPS, -sigmoid(800, 40)).step is None


def test_evaluations_that_were_not_measured_are_left_out():
    curve = sigmoid(800, 40)
    holes = curve.copy()
    holes[::7] = np.nan
    found = dated(holes)
    known = np.isfinite(holes)
    assert found == find_phase_change(STEPS[known], curve[known])
    assert found.step == pytest.approx(800, abs=5)


def test_many_evaluations_are_thinned_out_but_dated_finely():
    steps = np.arange(1500)
    found = dated(1 / (1 + np.exp(-(steps - 700) / 30)), steps)
    assert found.step == pytest.approx(700, abs=3)


def test_seeds_have_a_mean_date_and_its_interval():
    curves = np.stack([sigmoid(at, 40) for at in (700, 900, 800, 850)])
    curves = np.concatenate([curves, np.full((1, 81), 0.2)])
    found: Any = find_phase_changes(STEPS, curves)
    assert found.found == 4 and found.each[4].step is None
    dates = [one.step for one in found.each[:4]]
    assert found.step == pytest.approx(np.mean(dates))
    wanted = stats.ttest_1samp(dates, 0).confidence_interval(0.95)  # type: ignore
    assert found.low == pytest.approx(wanted.low - 12.5)  # and half of the spacing
    assert found.high == pytest.approx(wanted.high + 12.5)
    assert (
        json.loads(json.dumps(dataclasses.asdict(found)))["each"][1]["step"] == dates[1]
    )
    none = find_phase_changes(STEPS, curves[4:])
    assert (none.found, none.step, none.low) == (0, None, None)
    one = find_phase_changes(STEPS, curves[:1])
    assert (one.found, one.low, one.high) == (1, None, None)


def test_windows_of_two_figures_are_compared():
    one = dated(sigmoid(800, 40))
    near = dated(sigmoid(950, 40))
    far = dated(sigmoid(1300, 40))
    assert windows_overlap(one, near) and windows_overlap(near, one)
    assert not windows_overlap(one, far) and not windows_overlap(far, one)
    assert not windows_overlap(one, PhaseChange())


@pytest.mark.parametrize("steps", [STEPS[:-1], STEPS[::-1], np.zeros(81)])
def test_steps_must_rise_and_fit_the_curve(steps):
    with pytest.raises(UserError, match="rising steps"):
        find_phase_change(steps, sigmoid(800, 40))


@pytest.mark.parametrize(
    ("evaluations", "top", "said"),
    [
        (81, 0.05, "No head learned to match prefixes in 2 seeds: no phase change."),
        (3, 0.05, "3 evaluations are too few, 6 are needed"),
        (2, 0.9, "2 evaluations are too few, 6 are needed"),
        (1, 0.9, "1 evaluation is too few, 6 are needed"),
        (81, 0.9, "is not seen at these evaluations"),  # before the first one
    ],
)
def test_a_page_says_no_phase_change_only_where_it_could_be_seen(
    evaluations, top, said
):
    values = np.full((evaluations, 2, 1, 3), 0.02)
    values[:, :, 0, 1] = top
    arrays = {
        "evaluation/step": STEPS[:evaluations],
        "evaluation/prefix_matching": values,
    }
    text = page.verdict(Run(Path("run"), {"train": {}}, arrays))
    assert text is not None and said in text
    assert ("no phase change" in text) == (evaluations > 5 and top < 0.3)
    assert (top < 0.3) == ("in 0 of 2 seeds" in text or "No head" in text)

"""How much depends on choices: planted differences, setting by setting."""

import dataclasses
import json

import numpy as np
import planted_run
import pytest

from jaxheads.runs import Run
from jaxheads.statistics import paired_tests
from jaxheads.studies.ablation import sensitivity


@pytest.fixture(scope="module")
def run() -> Run:
    """Exclusion at 2 and 5 %, fractions 5 and 10 %, two metrics, two values."""
    costs = {"function_vector": 0.6, "induction": 0.1}
    made = planted_run.make_run(0, costs=costs, loss_costs={"induction": 0.4})
    again = planted_run.make_run(
        1, costs={"function_vector": 0.1, "induction": 0.6}, loss_costs={}
    )
    result, arrays = json.loads(json.dumps(made.result)), dict(made.arrays)
    sets, added = result["ablation"]["sets"], again.result["ablation"]["sets"]
    for entry in sets:
        if entry["mode"] == "exclusion":
            entry["exclusion"] = 0.02
    other = [
        n for n, entry in enumerate(added) if entry["mode"] in ("exclusion", "uniform")
    ]
    sets += [
        added[n] | {"fraction": 0.1, "exclusion": 0.02}
        if added[n]["mode"] == "exclusion"
        else added[n] | {"fraction": 0.1}
        for n in other
    ]
    further = [n for n, entry in enumerate(added) if entry["mode"] == "exclusion"]
    for share in (0.1, 0.05):
        sets += [
            added[n] | {"mode": "exclusion_other", "exclusion": share} for n in further
        ]
    right = "ablation/first_token"
    arrays[right] = np.concatenate(
        [
            arrays[right],
            again.arrays[right][other],
            arrays[right][further],
            again.arrays[right][further],
        ]
    )
    arrays["ablation/f1"] = np.clip(arrays[right] + 0.25, 0, 1)
    arrays["ablation/replaced"] = np.zeros((len(sets), 10, 10), bool)
    result["ablation"]["metrics"] = ["first_token", "f1"]
    lost = result["token_loss"]["sets"]
    zero = again.result["token_loss"]["sets"][1:]
    lost += [entry | {"value": "zero"} for entry in zero]
    for name in ("loss", "replaced"):
        key = f"token_loss/{name}"
        arrays[key] = np.concatenate([arrays[key], again.arrays[key][1:]])
    return dataclasses.replace(made, result=result, arrays=arrays)


def test_each_choice_has_its_settings(run: Run):
    found = sensitivity.of_run(run)
    assert [(one.choice, one.setting, one.usual) for one in found] == [
        ("exclusion", "0 % left alone", False),
        ("exclusion", "2 % left alone", True),
        ("exclusion", "5 % left alone", False),
        ("exclusion", "10 % left alone", False),
        ("fraction", "5 % replaced", True),
        ("fraction", "10 % replaced", False),
        ("metric", "first-token accuracy", True),
        ("metric", "F1 of five tokens", False),
        ("value", "mean put in", True),
        ("value", "zero put in", False),
    ]


def test_differences_are_those_of_the_sets(run: Run):
    made = {one.setting: one for one in sensitivity.of_run(run)}
    # Planted: FV heads cost more at the usual setting, less with 5 % left alone or 10 %
    # replaced; induction heads cost the token loss more with the mean alone.
    assert made["2 % left alone"].gap.low > 0 > made["5 % left alone"].gap.high
    assert made["5 % replaced"].gap.low > 0 > made["10 % replaced"].gap.high
    assert made["mean put in"].gap.high < 0 < made["zero put in"].gap.high
    right = run.arrays["ablation/first_token"].mean((1, 2))
    sets = run.result["ablation"]["sets"]

    def left(**wanted) -> float:
        rows = [
            n
            for n, entry in enumerate(sets)
            if all(entry.get(key) == value for key, value in wanted.items())
        ]
        return float(right[rows].mean())

    at = {"mode": "exclusion_other", "exclusion": 0.05}
    fv, induction = (left(ranking=name, **at) for name in planted_run.KINDS)
    other = made["5 % left alone"]
    assert other.gap.effect == pytest.approx(induction - fv)
    random = left(mode="uniform", fraction=0.05)
    assert other.fv_random is not None and other.induction_random is not None
    assert other.fv_random.mean == pytest.approx(fv - random)
    assert other.induction_random.mean == pytest.approx(induction - random)


def test_p_values_are_adjusted_within_a_choice(run: Run):
    found = [one for one in sensitivity.of_run(run) if one.choice == "exclusion"]
    adjusted = paired_tests.benjamini_hochberg([one.gap.p for one in found])
    assert [one.p_adjusted for one in found] == pytest.approx(adjusted)


def test_one_setting_is_no_comparison():
    found = sensitivity.of_run(planted_run.make_run(0))
    # Top heads and heads with exclusion are two; all else there is once.
    assert {one.choice for one in found} == {"exclusion"}
    run = planted_run.make_run(0)
    assert sensitivity.of_run(dataclasses.replace(run, result={"model": {}})) == []

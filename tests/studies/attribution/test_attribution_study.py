"""The attribution study end to end on a tiny model: numbers, receipt, report."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest
from browser import check_page

from jaxheads.__main__ import main
from jaxheads.engine import fills
from jaxheads.engine.progress import Progress
from jaxheads.errors import UserError
from jaxheads.models.ablation import Ablation
from jaxheads.models.forward import forward, prefill
from jaxheads.models.metrics import log_probability
from jaxheads.runs import load as load_run
from jaxheads.statistics import spearman
from jaxheads.studies.attribution import gradients
from jaxheads.studies.attribution.config import AttributionConfig
from jaxheads.studies.config import StudyConfig
from jaxheads.studies.report import render
from jaxheads.studies.run import run_study
from jaxheads.weights.model import load

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("quick_compilation")]

METHODS = ("clean", "integrated", "graddrop", "query")  # "ablated": by command
TASKS = ("antonym", "capitalize")
SMALL = StudyConfig(
    attribution=AttributionConfig(
        tasks=TASKS, clean_prompts=3, corrupted_prompts=2, steps=2, top_k=4, sample=5,
        metric="log_probability", methods=METHODS,
    ),
    shots=3,
)  # fmt: skip


@pytest.fixture(scope="module")
def model(model_folder):
    return load(model_folder)


@pytest.fixture(scope="module")
def planned():
    return {}


@pytest.fixture(scope="module")
def run(model, planned, quick_compilation, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "attribution"
    advanced = []
    progress = Progress(planned=planned.update, advance=advanced.append)
    made = run_study(model, SMALL, out, parts=("attribution",), progress=progress)
    planned["advanced"] = sum(advanced)
    return made


def changed(**changes) -> StudyConfig:
    return dataclasses.replace(
        SMALL, attribution=dataclasses.replace(SMALL.attribution, **changes)
    )


def prompts(run, kind, task):
    name = f"prompts/attribution_{kind}/{task}"
    return tuple(run.arrays[name + part] for part in ("", "/lengths", "/targets"))


def fill_of(run, model, task, site):
    tokens, lengths, _ = prompts(run, "clean", task)
    return jnp.asarray(
        fills.mean(model.params, tokens, lengths, model.config, site=site)
    )


def direct(run, model, task, method):
    """Estimates [L, H, B] by plain calls."""
    tokens, lengths, targets = map(jnp.asarray, prompts(run, "corrupted", task))
    common = (model.params, prefill(model.params, tokens, lengths, model.config))
    fill = fill_of(run, model, task, "q" if method == "query" else "z")
    rest = (targets, model.config)
    if method == "graddrop":
        return gradients.dropped_gradients(*common, fill, *rest, metric=log_probability)
    point = method
    if method == "query":
        fill, point = (
            gradients.repatched(model.params, tokens, lengths, model.config, fill, "q"),
            "clean",
        )
    return gradients.at_last_position(
        *common, fill, *rest, metric=log_probability, point=point, steps=2
    )


@pytest.mark.parametrize("method", METHODS)
def test_estimates_are_those_of_direct_calls(run, model, method):
    each = [np.asarray(direct(run, model, task, method)) for task in TASKS]
    expected = np.mean([task.mean(axis=-1) for task in each], axis=0)
    scale = np.abs(expected).max()
    found = run.arrays[f"attribution/{method}"]
    np.testing.assert_allclose(found, expected, atol=2e-4 * scale)
    errors = [task.std(axis=-1, ddof=1) / np.sqrt(2) for task in each]
    error = np.sqrt(np.square(errors).sum(axis=0)) / 2
    np.testing.assert_allclose(
        run.arrays[f"attribution/{method}_se"], error, atol=2e-4 * scale
    )


@pytest.mark.parametrize("method", METHODS)
def test_exact_effects_are_those_of_whole_forwards(run, model, method):
    site = "q" if method == "query" else "z"
    found = run.arrays[f"attribution/{method}_exact"]
    heads = np.argwhere(np.isfinite(found))
    assert len(heads) == 9
    for layer, head in heads[::4]:
        total = []
        for task in TASKS:
            tokens, lengths, targets = prompts(run, "corrupted", task)
            where = jnp.arange(tokens.shape[1])[None] == lengths[:, None] - 1
            values = []
            for kept in (0.0, 1.0):
                keep = np.ones((3, 6), np.float32)
                keep[layer, head] = kept
                fill = fill_of(run, model, task, site)
                out = forward(
                    model.params, tokens, model.config, lengths=lengths, logits="last",
                    ablation=Ablation(jnp.asarray(keep), fill, where, site),
                )  # fmt: skip
                values.append(np.asarray(log_probability(out.logits, targets)))
            effects = values[0] - values[1]
            total.append(np.abs(effects) if method == "graddrop" else effects)
        np.testing.assert_allclose(
            found[layer, head], np.mean(total), rtol=1e-3, atol=5e-5
        )


@pytest.mark.parametrize("method", METHODS)
def test_the_heads_with_the_largest_estimates_are_verified(run, method):
    name = f"attribution/{method}"
    estimate, exact = run.arrays[name], run.arrays[f"{name}_exact"]
    top, sample = run.arrays[f"{name}_top"], run.arrays[f"{name}_sample"]
    assert (top.sum(), sample.sum()) == (4, 5) and not (top & sample).any()
    assert np.abs(estimate[top]).min() >= np.abs(estimate[~top]).max()
    verified = top | sample
    for known in (exact, run.arrays[f"{name}_exact_se"]):
        np.testing.assert_array_equal(np.isfinite(known), verified)
    told = run.result["attribution"]["methods"][method]
    layer, head = told["worst_miss_head"]
    assert sample[layer, head] and np.abs(exact[sample]).max() == abs(
        exact[layer, head]
    )
    assert told["worst_miss"] == pytest.approx(exact[layer, head], rel=1e-5)
    assert told["worst_miss_estimate"] == pytest.approx(estimate[layer, head], rel=1e-5)
    fourth = np.sort(np.abs(exact[verified]))[-4]
    assert told["missed"] == (np.abs(exact[sample]) >= fourth).sum()
    assert told["rank_agreement"] == pytest.approx(
        spearman(estimate[verified], exact[verified]), abs=1e-6
    )
    assert (told["sign_agreement"] is None) == (method == "graddrop")


def test_tokens_seconds_and_the_plan_are_told(run, planned):
    told = run.result["attribution"]
    whole = sum(prompts(run, "corrupted", task)[1].sum() for task in TASKS)
    methods = told["methods"]
    assert list(methods) == list(METHODS)
    passes = {"integrated": 2, "graddrop": 3}
    for method, one in methods.items():
        each = one["tokens"]
        assert each["backward"] == 4 * passes.get(method, 1)
        twice = 2 if method == "query" else 1
        assert each["forward"] == twice * whole + each["backward"]
        assert each["verification"] == whole + 4 * (9 + 1)
        assert each["exact_sweep"] == whole + 4 * 18 * 2 / 3
        assert one["estimate_s"] > 0 and one["exact_s"] > 0
    seconds = sum(one["estimate_s"] + one["exact_s"] for one in methods.values())
    wall = run.result["wall_s"]["attribution"]
    assert wall == pytest.approx(seconds + told["fill_s"])
    part = planned["attribution"]
    assert planned["advanced"] == pytest.approx(part.cost.flops)
    names = [fitted.program.name for fitted in part.fits]
    assert any("estimates (graddrop)" in name for name in names)
    assert sum(fit.calls * fit.chunk * fit.program.flops for fit in part.fits) >= (
        0.99 * part.cost.flops
    )
    assert run.result["scores"] == {} and "ranking" not in run.result


def test_every_array_has_the_dims_that_the_receipt_says(run):
    assert set(run.result["arrays"]) == set(run.arrays)
    named = {n: a for n, a in run.arrays.items() if n.startswith("attribution/")}
    assert named.pop("attribution/queries").shape == (2, 2)
    assert len(named) == 6 * len(METHODS)
    for name, array in named.items():
        assert run.result["arrays"][name]["dims"] == ["L", "H"]
        assert array.shape == (3, 6)
        mask = name.endswith(("_top", "_sample"))
        assert array.dtype == (bool if mask else np.float32)
        assert run.result["arrays"][name]["unit"].startswith("true") == mask


def test_the_command_makes_a_run_with_a_table_and_a_report(
    run, model, model_folder, capfd, tmp_path
):
    pytest.importorskip("vl_convert")
    out = tmp_path / "run"
    options = "--shots=3 --attribution.tasks antonym capitalize"
    options += " --attribution.clean-prompts=3 --attribution.corrupted-prompts=2"
    options += " --attribution.methods ablated --attribution.metric log_probability"
    main(["attribution", str(model_folder), *options.split(), "--out", str(out)])
    said, plan = capfd.readouterr()
    assert "attribution" in plan and "FLOPs" in plan
    for text in ("ablated", "worst miss", "exact sweep"):
        assert text in said
    again = load_run(out)
    page = (out / "report.html").read_text("utf-8")
    assert '<section id="attribution">' in page
    assert "Estimates from gradients" in page
    # Fewer heads than the default asks for: all of them are verified, half in the top.
    assert again.arrays["attribution/ablated_top"].sum() == 9
    exact = again.arrays["attribution/ablated_exact"]
    known = run.arrays["attribution/clean_exact"]
    shared = np.isfinite(known)
    np.testing.assert_allclose(exact[shared], known[shared], rtol=1e-3, atol=5e-5)
    assert np.isfinite(exact).all()
    told = again.result["attribution"]["methods"]["ablated"]
    assert (told["top_k"], told["sample"]) == (9, 9) and told["all_verified"]
    assert "All heads were run: none outside the top" in page
    each = [np.asarray(direct(run, model, task, "ablated")) for task in TASKS]
    expected = np.mean([task.mean(axis=-1) for task in each], axis=0)
    found = again.arrays["attribution/ablated"]
    np.testing.assert_allclose(found, expected, atol=2e-4 * np.abs(expected).max())


def test_the_browser_draws_every_chart(run, browser):
    check_page(browser, render(run))


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (dict(methods=("clean", "luck")), "methods takes.*query, not 'clean luck'"),
        (dict(methods=()), "--attribution.methods"),
        (dict(methods=("clean", "clean")), "different"),
        (dict(tasks=()), "--attribution.tasks"),
        (dict(top_k=0), "--attribution.top-k must be 1 or more"),
        (dict(sample=0), "--attribution.sample must be 1 or more"),
        (dict(steps=0), "--attribution.steps"),
        (dict(corrupted_prompts=1), "--attribution.corrupted-prompts must be 2"),
    ],
)
def test_a_config_that_does_not_fit_is_one_sentence(changes, sentence):
    with pytest.raises(UserError, match=sentence):
        changed(**changes)


def test_leaving_out_the_only_layer_is_refused(model, tmp_path):
    one = dataclasses.replace(
        model, config=dataclasses.replace(model.config, num_layers=1)
    )
    with pytest.raises(UserError, match=r"graddrop.*this model has one"):
        run_study(one, SMALL, tmp_path / "out", parts=("attribution",))
    assert not (tmp_path / "out").exists()

"""``jaxheads evidence``: over tiny trainings whose curves are planted."""

import dataclasses
import json
import re
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from browser import check_page
from rich.console import Console
from test_cli import jaxheads

import jaxheads as jh
from jaxheads import runs
from jaxheads.errors import UserError
from jaxheads.models import toy
from jaxheads.models.parameters import init_params
from jaxheads.studies.six_arguments import command as evidence_command, measured
from jaxheads.studies.six_arguments.command import ask
from jaxheads.studies.six_arguments.config import ArgumentsConfig
from jaxheads.studies.six_arguments.measured import circuit_figures
from jaxheads.studies.six_arguments.removal import (
    ablation_attribution,
    draw_others,
    joint_ablation,
)
from jaxheads.training.config import EvidenceConfig, TrainConfig
from jaxheads.training.data.repeats import RepeatedTokens
from jaxheads.training.loop import train
from jaxheads.training.measures import make_evidence
from jaxheads.training.objectives import target_losses
from jaxheads.training.trained import open_trained
from jaxheads.weights.digest import params_sha256
from jaxheads.weights.store import save

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("quick_compilation")]

SOURCE = RepeatedTokens(10, 12, shortest_period=3, longest_period=5)
CONFIG = TrainConfig(
    steps=12, batch_size=4, seeds=3, seed=3, eval_every=1, checkpoints=("every=6",)
)
EVIDENCE = EvidenceConfig(
    evidence_samples=8, probe_period=3, probe_repeats=2, repetitions=4
)
VANILLA = toy.Config(2, 16, 3, 8, 10, 12)
SMEARED = dataclasses.replace(VANILLA, smeared_keys=True)
JUMPS = {"vanilla": (6, 7, 7), "smeared": (4, 4, 3)}


def change_architecture(folder: Path, config: toy.Config) -> None:
    """Put random models of another architecture in place of those that were trained."""
    for path in folder.glob("checkpoints/seed_*/step_*"):
        model = jh.load(path)
        params = init_params(toy.abstract(config), jax.random.key(len(str(path))))
        shutil.rmtree(path)
        origin = dataclasses.replace(
            model.provenance, params_sha256=params_sha256(params)
        )
        save(
            dataclasses.replace(model, params=params, config=config, provenance=origin),
            path,
        )
    run = runs.load(folder)
    run.result["model"]["model"] |= dataclasses.asdict(config)
    run.result["fingerprint"] = "another"
    runs.write_run(folder, run.result, run.arrays)


def plant(folder: Path, jumps: tuple[int, ...]) -> None:
    """Write a phase change into each seed's curves: head 1.2 and the ICL score."""
    run = runs.load(folder)
    arrays = run.arrays
    steps = arrays["evaluation/step"]
    for n, at in enumerate(jumps):
        risen = (steps >= at).astype(np.float32)
        arrays["evaluation/prefix_matching"][:, n] = 0.05
        arrays["evaluation/prefix_matching"][:, n, 1, 2] = 0.05 + 0.7 * risen
        arrays["evaluation/icl_score"][:, n] = -0.05 - 1.5 * risen
    runs.write_run(folder, run.result, arrays)


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, Path]:
    """A vanilla training and one as if with smeared keys."""
    home = tmp_path_factory.mktemp("trainings")
    made = {name: home / name for name in JUMPS}
    evidence = make_evidence(EVIDENCE, VANILLA, SOURCE)
    train(CONFIG, VANILLA, SOURCE, made["vanilla"], evidence=evidence)
    shutil.copytree(made["vanilla"], made["smeared"])
    change_architecture(made["smeared"], SMEARED)
    for name, jumps in JUMPS.items():
        plant(made[name], jumps)
    return made


@pytest.fixture(scope="module")
def told(folders, tmp_path_factory, request) -> tuple[Path, str]:
    """The command over both: its folder, and what it printed."""
    pytest.importorskip("vl_convert")
    out = tmp_path_factory.mktemp("evidence") / "run"
    capfd = request.getfixturevalue("capfd_module")
    code, said, problem = jaxheads(
        capfd, "evidence", *folders.values(), "--samples=5", "--figures=csv", "-o", out
    )
    assert code == 0, problem
    return out, said


@pytest.fixture(scope="module")
def capfd_module():
    """What is printed while a fixture of the whole module is made."""
    import contextlib
    import io

    class Capture:
        """As ``capfd``, of one call."""

        def __init__(self):
            self.out, self.err = io.StringIO(), io.StringIO()
            self.stack = contextlib.ExitStack()
            self.stack.enter_context(contextlib.redirect_stdout(self.out))
            self.stack.enter_context(contextlib.redirect_stderr(self.err))

        def readouterr(self):
            self.stack.close()
            return self.out.getvalue(), self.err.getvalue()

    return Capture()


@pytest.fixture(scope="module")
def run(told) -> runs.Run:
    return runs.load(told[0])


def test_the_arrays_are_those_that_were_measured(run, folders):
    for r, (name, folder) in enumerate(folders.items()):
        curves = runs.load(folder).arrays
        for figure in ("prefix_matching", "icl_score"):
            np.testing.assert_array_equal(
                run.arrays[f"run_{r}/curves/{figure}"], curves[f"evaluation/{figure}"]
            )
        about = run.result["evidence"]["runs"][r]
        assert about["name"] == name and about["seeds"] == [3, 4, 5]
        np.testing.assert_array_equal(
            run.arrays[f"run_{r}/attribution/step"], [0, 6, 12]
        )
        assert run.arrays[f"run_{r}/attribution/by_head"].shape == (3, 3, 2, 3)
    for name, described in run.result["arrays"].items():
        assert len(described["dims"]) == run.arrays[name].ndim, name
    assert set(run.result["arrays"]) == set(run.arrays)


def test_what_models_say_is_what_they_said(run, folders):
    trained = open_trained(folders["smeared"])
    again = ablation_attribution(trained, 6, samples=5)
    at = "run_1/attribution"
    np.testing.assert_array_equal(run.arrays[f"{at}/icl_score"][1], again["icl_score"])
    np.testing.assert_array_equal(run.arrays[f"{at}/by_head"][1], again["attribution"])
    np.testing.assert_array_equal(
        run.arrays[f"{at}/by_head_full"][1], again["attribution_full"]
    )
    circuits = circuit_figures(trained, 6)
    for name in measured.CIRCUITS:
        np.testing.assert_array_equal(
            run.arrays[f"run_1/circuits/{name}"][1], circuits[name]
        )


def test_planted_changes_are_found_and_answered(run):
    said = run.result["evidence"]
    for r, jumps in enumerate(JUMPS.values()):
        found = said["co_occurrence"][r]
        dates = [one["step"] for one in found["changes"]["prefix_matching"]["each"]]
        np.testing.assert_allclose(dates, np.array(jumps) - 0.5)
        assert found["overlap"]["icl_score"] == 3
        np.testing.assert_allclose(found["formed"], 1.5 / 1.55, rtol=1e-4)
    (pair,) = said["co_perturbation"]
    assert (pair["run"], pair["vanilla"]) == (1, 0) and pair["also_differs"] == []
    assert pair["earlier"]["prefix_matching"]["steps"] == pytest.approx(-3)
    answers = {one["argument"]: one["answer"] for one in said["arguments"]}
    # Thirteen evaluations are too few places for dates as near to say anything.
    assert answers[1] == "undecided" and answers[2] == "holds"
    assert [found["chance"] for found in said["co_occurrence"]] == [
        pytest.approx(0.11, abs=0.03)
    ] * 2
    assert answers[6] == "not measured"
    assert said["generality"] == [[None] * 3] * 2  # repeats have no such windows
    after = run.arrays["run_0/before_and_after/step"]
    np.testing.assert_array_equal(after, [[5, 6, 12], [6, 7, 12], [6, 7, 12]])
    assert np.isfinite(run.arrays["run_0/before_and_after/by_head"]).all()


def test_the_terminal_shows_the_answers(told):
    said = " ".join(told[1].split())
    for text in ("macroscopic co-occurrence", "holds", "not measured", "smeared keys"):
        assert text in said


def test_heads_that_are_removed_together_are_those_of_a_loop(run, folders):
    trained = open_trained(folders["vanilla"])
    held = trained.evidence(evidence_samples=5).held_out
    removed = run.arrays["run_0/together/removed"]
    scores = run.arrays["run_0/together/icl_score"]
    assert removed.shape == (6, 3, 2, 3) and scores.shape == (6, 3)
    assert not removed[0].any() and (removed[1:].sum(axis=(2, 3)) == 1).all()
    assert removed[1][:, 1, 2].all() and not (removed[2:] & removed[1]).any()
    params = trained.params(12)
    tokens = jnp.asarray(held.windows.tokens[:, :-1])
    for a, n in [(0, 1), (1, 0), (4, 2)]:
        one = jax.tree.map(lambda leaf: leaf[n], params)  # noqa: B023
        seen = jh.forward(one, tokens, VANILLA, capture=("patterns",)).patterns
        ablation = (
            jh.Ablation(jnp.asarray(~removed[a, n], jnp.float32)),
            jh.Ablation(jnp.zeros((2, 3)), seen, site="pattern"),
        )
        out = jh.forward(one, tokens, VANILLA, ablation=ablation)
        targets = jnp.asarray(held.windows.targets)
        losses = np.asarray(target_losses(out.logits, targets)[0], float)
        early, late = held.at
        both = held.windows.scored[:, early] & held.windows.scored[:, late]
        wanted = (losses[both, late] - losses[both, early]).mean()
        np.testing.assert_allclose(scores[a, n], wanted, atol=2e-6)


def test_seeds_without_such_heads_lose_nothing_that_is_known(folders):
    trained = open_trained(folders["vanilla"])
    prefix = np.zeros((3, 2, 3))
    prefix[1] = 0.9  # all are induction heads: there are no others
    found = joint_ablation(trained, 12, prefix, samples=5, seed=0)["icl_score"]
    assert np.isfinite(found[0]).all() and np.isfinite(found[1, 1])
    assert np.isnan(found[1, [0, 2]]).all() and np.isnan(found[2:]).all()


def test_other_heads_are_drawn_from_the_others():
    chosen = np.random.default_rng(0).random((4, 3, 5)) < 0.3
    draws = draw_others(chosen, 50, seed=1)
    for made in draws:
        assert not (made & chosen).any()
        np.testing.assert_array_equal(made.sum(axis=(1, 2)), chosen.sum(axis=(1, 2)))
    often = np.mean(draws, axis=0)
    assert (often[~chosen] > 0).all()


def test_the_page_says_it(run, told):
    from test_report import payload, visible

    page = (told[0] / "report.html").read_text(encoding="utf-8")
    text = visible(page)
    assert "Macroscopic co-perturbation holds." in text
    assert "Student's t of 95 %, fewer than 3 seeds decide nothing" in text
    for anchor in ("arguments", "co-occurrence", "co-perturbation", "attribution"):
        assert f'<section id="{anchor}">' in page
    assert '<section id="continuity">' in page and '<section id="positions">' in page
    assert "How each argument is decided" in text and "not measured" in text
    charts = {one["name"] for one in payload(page)["charts"]}
    assert {"co-perturbation-prefix-matching", "positions-derivative-smeared"} <= charts
    there = {path.stem for path in (told[0] / "figures").glob("*.csv")}
    assert charts == there
    rows = (told[0] / "figures" / "positions-derivative-smeared.csv").read_text()
    values = run.arrays["run_1/positions/derivative"].mean(axis=1)
    assert len(rows.splitlines()) == 1 + values.size


def test_a_browser_draws_every_chart(told, browser):
    check_page(browser, (told[0] / "report.html").read_text(encoding="utf-8"))


def test_what_was_done_is_not_done_again(run, folders, tmp_path, monkeypatch):
    out, config = tmp_path / "run", ArgumentsConfig(samples=5)
    again = lambda: ask([*folders.values()], config, out, Console(quiet=True))
    measure, steps = measured.ablation_attribution, []

    def stops(trained, step, **options):
        if trained.name == "smeared" and step == 6:
            raise KeyboardInterrupt
        return measure(trained, step, **options)

    def counts(trained, step, **options):
        steps.append((trained.name, step))
        return measure(trained, step, **options)

    monkeypatch.setattr(measured, "ablation_attribution", stops)
    with pytest.raises(KeyboardInterrupt):
        again()
    monkeypatch.setattr(measured, "ablation_attribution", counts)
    made = again()
    assert steps == [("smeared", 6), ("smeared", 12)]
    assert made.arrays.keys() == run.arrays.keys()
    for name, values in run.arrays.items():
        np.testing.assert_array_equal(made.arrays[name], values)
    assert made.result["evidence"] == run.result["evidence"]
    monkeypatch.setattr(evidence_command, "gather", None)  # is not reached
    assert again().result == made.result
    config = ArgumentsConfig(samples=5, seed=5)
    with pytest.raises(UserError, match=r"config\.seed: 0 there, 5 asked for"):
        again()


def test_curves_alone_need_no_models(folders, tmp_path):
    alone = tmp_path / "vanilla"
    shutil.copytree(folders["vanilla"], alone)
    shutil.rmtree(alone / "checkpoints")
    config = ArgumentsConfig(ablations=False)
    run = ask([alone], config, tmp_path / "run", Console(quiet=True))
    assert not any("attribution" in name for name in run.arrays)
    answers = [one["answer"] for one in run.result["evidence"]["arguments"]]
    assert answers == ["undecided"] + ["not measured"] * 5
    assert "attribution" not in _anchors(run)


def test_runs_without_any_phase_change_make_a_page_too(folders, tmp_path):
    flat = tmp_path / "flat"
    shutil.copytree(folders["vanilla"], flat)
    plant(flat, (99, 99, 99))
    config = ArgumentsConfig(samples=5, attribution_steps=(12,))
    run = ask([flat], config, tmp_path / "run", Console(quiet=True))
    assert {"arguments", "co-occurrence", "attribution"} <= _anchors(run)
    answers = {one["answer"] for one in run.result["evidence"]["arguments"]}
    assert answers == {"not measured"}
    assert np.isnan(run.arrays["run_0/before_and_after/by_head"]).all()
    assert (run.arrays["run_0/before_and_after/step"][:, :2] == -1).all()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "none was given"),
        (["nowhere"], "result.json"),
        (["VANILLA", "VANILLA"], "stands twice"),
        (["VANILLA", "--attribution-steps", "5"], "those of 0, 6, 12 and not of 5"),
        (["VANILLA", "--attribution-steps=6", "--no-ablations"], "leave one of them"),
        (["VANILLA", "--samples=0"], "--samples must be 1 or more"),
        (["OTHER"], "should be a run's folder|must hold a training run"),
        (["BARE"], "train with --evidence"),
        (["VANILLA", "ELSE"], "other windows or random tokens"),
    ],
)
def test_a_mistake_is_one_sentence(arguments, sentence, folders, told, tmp_path, capfd):
    places = {"VANILLA": folders["vanilla"], "OTHER": told[0]}
    for name, change in (("BARE", None), ("ELSE", {"sha256": "0"})):
        if name in arguments:
            places[name] = tmp_path / name
            shutil.copytree(folders["smeared"], places[name])
            _change(places[name], change)
    given = [places.get(one, one) for one in arguments]
    out = tmp_path / "out"
    code, said, problem = jaxheads(capfd, "evidence", *given, "-o", out)
    assert code == 2 and not said and "Traceback" not in problem
    assert re.search(sentence, " ".join(problem.split())), problem
    assert not out.exists()


def _anchors(run: runs.Run) -> set[str]:
    """Of the sections of a page that can be written."""
    pytest.importorskip("altair")
    from jaxheads.studies import page as sections

    page = sections.collect(run)
    json.dumps(page.payload(), allow_nan=False)
    return {section.anchor for section in page.sections}


def _change(folder: Path, evidence: dict | None) -> None:
    """Tell of other windows; None: leave out what was measured."""
    run = runs.load(folder)
    told, kept = run.result, run.arrays
    if evidence is not None:
        told["model"]["evidence"] |= evidence
    else:
        told["model"]["evidence"] = None
        kept = {name: x for name, x in kept.items() if "evaluation" not in name}
    runs.write_run(folder, told, kept)


def test_two_of_them_make_no_page(told, tmp_path, capfd):
    code, _, problem = jaxheads(
        capfd, "report", told[0], told[0], "--out", tmp_path / "page.html"
    )
    assert code == 2 and "`jaxheads evidence`: report it alone" in problem


@pytest.mark.parametrize("more", [["--no-ablations"], ["--samples=5"]])
def test_an_evaluation_that_is_nan_is_left_out_and_said(folders, tmp_path, capfd, more):
    folder = tmp_path / "vanilla"
    shutil.copytree(folders["vanilla"], folder)
    with np.load(folder / "arrays.npz") as file:
        arrays = {name: file[name] for name in file.files}
    result = runs.load(folder).result
    seed = result["train"]["seeds"][1]
    for name, values in arrays.items():
        if name.startswith("evaluation/") and values.dtype.kind == "f":
            values[-1, 1] = np.nan
    runs.write_run(folder, result, arrays)
    out = tmp_path / "run"
    code, said, problem = jaxheads(
        capfd, "evidence", folder, folders["smeared"], *more, "-o", out
    )
    assert code == 0, problem
    step = arrays["evaluation/step"][-1]
    told = f"left out: seed {seed} at step {step:,}."
    assert told in " ".join(said.split())
    assert told in (out / "report.html").read_text(encoding="utf-8")

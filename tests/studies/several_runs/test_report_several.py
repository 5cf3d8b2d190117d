"""The page over several runs: seeds of one model, models of several sizes, steps."""

import collections
import csv
import dataclasses
import io
import json
import re
from pathlib import Path

import numpy as np
import planted_run
import pytest
from browser import check_page
from synthetic_run import Sizes, make_run, write_run
from test_cli import jaxheads
from test_report import HOSTILE, payload, visible

from jaxheads import statistics
from jaxheads.errors import UserError
from jaxheads.heads import run_scores
from jaxheads.report import words
from jaxheads.runs import Run
from jaxheads.studies import claims
from jaxheads.studies.several_runs.agreement import seed_agreement
from jaxheads.studies.several_runs.members import common_fraction, differences, members

pytest.importorskip("altair")
pytest.importorskip("vl_convert")

from jaxheads.report.page import render_page
from jaxheads.studies.page import Page
from jaxheads.studies.report import write_comparison
from jaxheads.studies.several_runs import page as several
from jaxheads.studies.several_runs.chart import axis

SIZES = {
    "tiny": (Sizes(4, 5), 70_426_624),
    "small": (Sizes(6, 7), 405_334_016),
    "large": (Sizes(9, 8), 6_857_302_016),
}


def one_run(
    name: str, seed: int = 0, revision: str | None = None, run_seed: int = 0, **changes
) -> Run:
    """A made-up run of a named model."""
    sizes, params = SIZES[name]
    sizes = dataclasses.replace(sizes, draws=2, fractions=(0.05, 0.2), **changes)
    run = make_run(Path(f"{name}-{revision}-{run_seed}"), seed=seed, sizes=sizes)
    result = json.loads(json.dumps(run.result))
    result["model"] |= {"name": name, "num_params": params, "revision": revision}
    result["model"]["params_sha256"] = f"{name} {revision}"
    result["config"]["seed"] = run_seed
    result["fingerprint"] = f"{name} {revision} {run_seed}"
    return dataclasses.replace(run, result=result)


@pytest.fixture(scope="module")
def of_sizes() -> list[Run]:
    """Not in order of size."""
    return [one_run(name, n) for n, name in enumerate(("large", "tiny", "small"))]


@pytest.fixture(scope="module")
def of_seeds() -> list[Run]:
    return [one_run("small", seed, run_seed=seed) for seed in (2, 0, 1)]


@pytest.fixture(scope="module")
def sizes_page(of_sizes) -> Page:
    return several.collect(of_sizes)


@pytest.fixture(scope="module")
def seeds_page(of_seeds) -> Page:
    return several.collect(of_seeds)


def rows(page: Page, name: str) -> list[dict[str, str]]:
    one = next(one for one in page.exports if one.name == name)
    return list(csv.DictReader(io.StringIO(one.csv)))


def marks(page: Page, name: str) -> list[dict]:
    """All data that a figure draws, of every layer."""
    one = next(one for one in page.exports if one.name == name)
    return [
        row for layer in one.figure.spec["layer"] for row in layer["data"]["values"]
    ]


def accuracy(run: Run, **wanted) -> list[float]:
    right = run.arrays["ablation/first_token"].astype(np.float64)
    return [
        float(right[n].mean())
        for n, entry in enumerate(run.result["ablation"]["sets"])
        if all(entry[key] == value for key, value in wanted.items())
    ]


# Models of several sizes.


@pytest.mark.slow
def test_runs_are_in_order_of_size(sizes_page: Page):
    table = sizes_page.sections[0].tables[0]
    assert [row[0].text for row in table.rows] == ["tiny", "small", "large"]
    assert [row[1].text for row in table.rows] == ["70.4 M", "405 M", "6.86 B"]
    assert "step" not in table.columns  # none of them has one


def test_the_table_has_each_runs_numbers(of_sizes, sizes_page: Page):
    table = sizes_page.sections[0].tables[0]
    large = dict(zip(table.columns, table.rows[-1], strict=True))
    (clean,) = accuracy(of_sizes[0], mode="clean")
    assert large["clean first-token accuracy"].text.startswith(f"{clean:.2f} [")
    best = run_scores.top_heads(of_sizes[0], "function_vector", 1)[0]
    assert (large["top FV head"].text, large["top FV head"].small) == (
        words.head_score(best), best.name,
    )  # fmt: skip


@pytest.mark.parametrize("mode", ["top", "exclusion"])
def test_drops_are_clean_minus_replaced(of_sizes, sizes_page: Page, mode: str):
    told = rows(sizes_page, f"drops-accuracy-{mode}")
    assert len(told) == 9
    for run in of_sizes:
        name = run.result["model"]["name"]
        mine = {row["series"]: row for row in told if row["run"] == name}
        (clean,) = accuracy(run, mode="clean")
        for ranking in ("function_vector", "induction"):
            (left,) = accuracy(run, mode=mode, ranking=ranking, fraction=0.05)
            row = mine[f"top {words.short(ranking)} heads"]
            lost = float(row["drop of the first-token accuracy"])
            assert lost == pytest.approx(clean - left)
            assert float(row["drop of the first-token accuracy, low"]) <= lost
        draws = [clean - a for a in accuracy(run, mode="uniform", fraction=0.05)]
        random = mine["random heads"]
        assert float(random["drop of the first-token accuracy"]) == pytest.approx(
            np.mean(draws)
        )
        assert float(random["drop of the first-token accuracy, high"]) == pytest.approx(
            max(draws)
        )
        assert float(random["parameters"]) == run.result["model"]["num_params"]


def test_overlap_and_strength_are_those_of_the_scores(of_sizes, sizes_page: Page):
    for run in of_sizes:
        name = run.result["model"]["name"]
        fv, induction = (
            run.arrays[f"score/{score}"].astype(np.float64)
            for score in ("function_vector", "induction")
        )
        size = run_scores.top_count(fv.size, 0.05)
        masks = [run_scores.top_mask(values, size) for values in (fv, induction)]
        found = [r for r in rows(sizes_page, "overlap-shared") if r["run"] == name]
        assert float(found[0]["shared (%)"]) == pytest.approx(
            100 * statistics.overlap(*masks)
        )
        assert float(found[1]["shared (%)"]) == pytest.approx(100 * size / fv.size)
        top = run_scores.top_mask(fv, run_scores.top_count(fv.size))
        placed = rows(sizes_page, "overlap-function-vector-under-induction")
        (one,) = (r for r in placed if r["run"] == name and r["series"][0] == "F")
        assert float(one["percentile"]) == pytest.approx(
            statistics.percentile_of(induction, top)
        )
        told = {
            row["series"]: float(row["score (probability)"])
            for row in rows(sizes_page, "strength-function-vector")
            if row["run"] == name
        }
        assert told["largest"] == pytest.approx(fv.max())
        assert told["mean of the top 2 %"] == pytest.approx(fv[top].mean())
        assert told["mean over heads"] == pytest.approx(fv.mean())


def test_sizes_are_on_a_log_axis_and_joined(sizes_page: Page):
    one = next(o for o in sizes_page.exports if o.name == "drops-accuracy-top")
    text = json.dumps(one.figure.spec)
    assert '"type": "log"' in text and '"line"' in text


def test_every_run_has_its_curves_on_one_scale(sizes_page: Page):
    section = next(s for s in sizes_page.sections if s.anchor == "curves")
    assert [row.title for row in section.rows] == [
        "Few-shot", "Few-shot, with exclusion", "Running text, with exclusion",
    ]  # fmt: skip
    for row in section.rows:
        assert [figure.title for figure in row.figures] == ["tiny", "small", "large"]
        domains = set(re.findall(r'"domain": (\[-?\d[^]]*\])', json.dumps(
            [figure.spec for figure in row.figures]
        )))  # fmt: skip
        assert len(domains) == 1


def test_the_verdict_counts_the_runs(of_sizes, sizes_page: Page):
    judged = [{one.name: one for one in claims.of_run(run)} for run in of_sizes]
    for name in ("fv_matters_more_excluded", "induction_matters_more_for_loss"):
        verdicts = [one[name].verdict for one in judged]
        said = sizes_page.verdict.split(judged[0][name].statement + ": ")[1]
        said = said.split(".")[0].replace(" of 3 runs", "")
        counted = {
            part.rsplit(" in ", 1)[0]: int(part.rsplit(" in ", 1)[1])
            for part in said.split(", ")
        }
        assert counted == dict(collections.Counter(verdicts))


def test_a_model_without_a_gain_from_context_is_not_counted_for_a_claim():
    run = planted_run.make_run(0, loss_costs={"induction": 0.5})
    tiny = planted_run.make_run(1, loss_costs={"induction": 0.5})
    loss = tiny.arrays["token_loss/loss"].copy()
    loss[..., 1] = loss[..., 0] + np.random.default_rng(0).normal(0, 0.1, loss.shape[1])
    loss[1:, :, 1] -= 0.3  # it learns from context only once heads are replaced
    model = run.result["model"] | {"params_sha256": "cd" * 32, "num_params": 10**5}
    tiny = dataclasses.replace(
        tiny,
        path=Path("tiny"),
        result=tiny.result | {"model": model},
        arrays=tiny.arrays | {"token_loss/loss": loss},
    )
    verdict = several.collect([run, tiny]).verdict
    assert "heads: holds in 1 of 2 runs, undecided in 1." in verdict


def test_the_claims_of_the_runs_stand_side_by_side(sizes_page: Page):
    section = next(s for s in sizes_page.sections if s.anchor == "claims")
    table, together = section.tables
    assert table.columns == ["claim", "tiny", "small", "large"]
    assert {cell.text.split()[-1] for row in table.rows for cell in row[1:]} <= {
        "holds", "hold", "matter", "undecided", words.NONE,
    }  # fmt: skip
    assert "The larger the model" in together.rows[0][0].text


# Seeds of one model.


@pytest.mark.slow
def test_seeds_are_one_place_with_their_spread(of_seeds, seeds_page: Page):
    assert seeds_page.model == "3 runs of 1 model"
    lost = [
        accuracy(run, mode="clean")[0]
        - accuracy(run, mode="top", ranking="function_vector", fraction=0.05)[0]
        for run in of_seeds
    ]
    label = "top FV heads"
    drawn = [
        row for row in marks(seeds_page, "drops-accuracy-top") if row["s"] == label
    ]
    (middle,) = {(row["y"], row["a"], row["b"]) for row in drawn if "a" in row}
    assert middle == pytest.approx((np.mean(lost), min(lost), max(lost)))
    single = sorted(row["y"] for row in drawn if "a" not in row)
    assert single == pytest.approx(sorted(lost))
    assert {row["x"] for row in drawn} == {"small"}
    told = rows(seeds_page, "drops-accuracy-top")
    assert [row["seed"] for row in told if row["series"] == label] == ["0", "1", "2"]


def test_the_agreement_of_seeds_is_told(of_seeds, seeds_page: Page):
    section = next(s for s in seeds_page.sections if s.anchor == "seeds")
    agreed = seed_agreement(of_seeds, "induction")
    assert agreed
    row = next(row for row in section.tables[0].rows if row[1].text == "induction")
    assert row[5].text == words.number(agreed.rank_correlation)
    assert row[2].text == "3"


def test_what_chance_gives_keeps_its_range_over_seeds(seeds_page: Page):
    random = [
        row
        for row in marks(seeds_page, "overlap-shared")
        if row["s"].startswith("random") and "a" in row
    ]
    assert random and all(row["a"] < row["y"] < row["b"] for row in random)


def test_steps_of_a_training_are_an_axis():
    runs = [one_run("tiny", n, revision=f"step{2**n}") for n in (3, 0, 6)]
    listed = members(runs)
    assert [member.label for member in listed] == [
        "tiny step1", "tiny step8", "tiny step64",
    ]  # fmt: skip
    assert axis(listed).kind == "step"


@pytest.mark.parametrize(
    ("runs", "labels"),
    [
        ([("tiny", None, 0), ("small", None, 0)], ["tiny", "small"]),
        ([("tiny", None, 1), ("tiny", None, 0)], ["tiny seed 0", "tiny seed 1"]),
        (
            [("tiny", None, 0), ("tiny", None, 7), ("small", None, 0)],
            ["tiny seed 0", "tiny seed 7", "small"],
        ),
        (
            [("tiny", "step4", 0), ("tiny", "main", 0)],
            ["tiny step4", "tiny main"],
        ),
    ],
)
def test_a_run_is_called_by_what_tells_it_apart(runs, labels):
    made = members([one_run(n, revision=r, run_seed=s) for n, r, s in runs])
    assert sorted(member.label for member in made) == sorted(labels)


def test_params_of_one_name_are_numbered():
    first, second = one_run("tiny"), one_run("tiny", run_seed=1)
    result = json.loads(json.dumps(second.result))
    result["model"]["params_sha256"] = "others"
    made = members([first, dataclasses.replace(second, result=result)])
    assert len({member.model for member in made}) == 2
    assert {member.label.split()[0] for member in made} == {"tiny"}


# Runs that are not alike.


@pytest.mark.slow
def test_differing_configs_are_told(of_sizes):
    other = one_run("small", evaluation=("country-capital", "synonym"))
    listed = members([of_sizes[0], other])
    assert any(
        line.startswith("evaluation_tasks (") and "synonym" in line
        for line in differences(listed)
    )
    page = several.collect([of_sizes[0], other])
    text = next(s.text for s in page.statements if s.lead == "What differs")
    assert "evaluation_tasks" in text and "synonym" in text
    assert differences(members(of_sizes)) == []


def test_the_share_is_one_that_all_runs_measured(of_sizes):
    other = one_run("small")
    sets = [
        entry | {"fraction": 0.07 if entry["fraction"] == 0.05 else entry["fraction"]}
        for entry in other.result["ablation"]["sets"]
    ]
    result = other.result | {"ablation": other.result["ablation"] | {"sets": sets}}
    listed = members([of_sizes[0], dataclasses.replace(other, result=result)])
    assert common_fraction(listed, "accuracy", "top") == 0.2
    assert common_fraction(listed, "token_loss", "top") == 0.05


def test_parts_that_only_some_runs_have_are_shown_of_these(of_sizes):
    scored = dataclasses.replace(of_sizes[1], result={
        key: value for key, value in of_sizes[1].result.items()
        if key not in ("ablation", "token_loss")
    })  # fmt: skip
    page = several.collect([of_sizes[0], scored])
    told = rows(page, "drops-accuracy-top")
    assert {row["run"] for row in told} == {"large"}
    assert {row["run"] for row in rows(page, "overlap-shared")} == {"large", "tiny"}
    bare = dict.fromkeys(("ablation", "token_loss", "scores"))
    nothing = [
        dataclasses.replace(run, result=run.result | bare, arrays={})
        for run in of_sizes
    ]
    assert "hold no ablation" in several.collect(nothing).verdict


# The page.


def test_the_page_is_one_safe_file(of_sizes):
    first, second, _ = of_sizes
    result = json.loads(json.dumps(first.result))
    result["model"]["name"] = HOSTILE
    result["config"][HOSTILE] = HOSTILE
    page = several.collect([dataclasses.replace(first, result=result), second])
    text = render_page(page)
    markup = re.sub(r"<script>.*?</script>", "", text, flags=re.S)
    assert "<img" not in markup and "https://" not in markup
    assert not re.findall(r"\b(?:src|href)\s*=\s*[\"'](?!#)", markup)
    assert len(payload(text)["charts"]) == len(page.exports)
    assert "{{7*7}}" in visible(text)


@pytest.mark.slow
def test_names_of_figures_do_not_depend_on_the_order(of_sizes, sizes_page: Page):
    again = several.collect(of_sizes[::-1])
    assert [one.name for one in again.exports] == [o.name for o in sizes_page.exports]
    assert [one.csv for one in again.exports] == [o.csv for o in sizes_page.exports]


@pytest.mark.slow
def test_the_browser_draws_sizes_and_seeds(of_sizes, of_seeds, browser):
    page = several.collect([*of_sizes[:2], *of_seeds[:2]])
    check_page(browser, render_page(page))


# The command.


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("runs")
    for seed in (0, 1):
        sizes = Sizes(2, 3, draws=1, fractions=(0.2,))
        run = write_run(root / f"seed{seed}", seed=seed, sizes=sizes)
        result: dict = run.result | {"fingerprint": f"seed {seed}"}
        result["config"] = result["config"] | {"seed": seed}
        (root / f"seed{seed}" / "result.json").write_text(json.dumps(result))
    (root / "copy").mkdir()
    for name in ("result.json", "arrays.npz"):
        (root / "copy" / name).write_bytes((root / "seed0" / name).read_bytes())
    (root / "unfinished").mkdir()
    (root / "unfinished" / "run.json").write_text("{}")
    return root


@pytest.mark.slow
def test_the_command_writes_page_and_figures(folders: Path, tmp_path: Path, capfd):
    out = tmp_path / "made" / "both.html"
    both = [folders / "seed0", folders / "seed1"]
    code, _, said = jaxheads(capfd, "report", *both, "--out", out, "--figures", "csv")
    assert code == 0 and str(out) in said.replace("\n", "")
    assert out.read_text(encoding="utf-8").rstrip().endswith("</html>")
    written = {path.name for path in (tmp_path / "made" / "both-figures").iterdir()}
    assert {"drops-accuracy-top.csv", "overlap-shared.csv"} <= written
    assert not (folders / "seed0" / "report.html").exists()


def test_one_run_has_its_page_in_its_folder(folders: Path, capfd):
    code, _, said = jaxheads(capfd, "report", folders / "seed0", "--figures", "csv")
    assert code == 0 and "report.html" in said
    assert (folders / "seed0" / "report.html").is_file()
    assert (folders / "seed0" / "figures" / "scores-induction.csv").is_file()


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        (["seed0", "seed1"], "--out page.html"),
        (["seed0", "seed0", "--out", "{out}"], "is given twice"),
        (["seed0", "copy", "--out", "{out}"], "are the same run"),
        (["seed0", "nothing", "--out", "{out}"], "result.json"),
        (["seed0", "unfinished", "--out", "{out}"], "has not finished"),
        ([], "none was given"),
    ],
)
def test_mistakes_are_told(folders: Path, tmp_path: Path, capfd, given, sentence):
    out = tmp_path / "page.html"
    arguments = [
        given_ if given_.startswith("--") else out if given_ == "{out}"
        else folders / given_ for given_ in given
    ]  # fmt: skip
    code, _, said = jaxheads(capfd, "report", *arguments)
    assert code != 0 and sentence in " ".join(said.split())
    assert not out.exists()


def test_the_function_refuses_a_run_twice(of_sizes, tmp_path: Path):
    with pytest.raises(UserError, match="given twice"):
        write_comparison([of_sizes[0], of_sizes[0]], tmp_path / "page.html")


def test_runs_that_only_their_config_tells_apart_are_called_by_folder():
    first, second = one_run("tiny"), one_run("tiny")
    result = second.result | {"fingerprint": "another", "config": {"seed": 0, "new": 1}}
    second = dataclasses.replace(second, path=Path("elsewhere"), result=result)
    listed = members([first, second])
    labels = {member.label for member in listed}
    assert labels == {"tiny tiny-None-0", "tiny elsewhere"}
    assert [
        line for line in differences(listed) if "only some" in line and "new" in line
    ]

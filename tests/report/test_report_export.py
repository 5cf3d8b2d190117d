"""The report's figures as files: their numbers, their names, what stands in them."""

import csv
import dataclasses
import io
import json
import os
import re
import time
from pathlib import Path

import numpy as np
import pytest
from browser import Browser
from synthetic_run import Sizes, make_run
from test_report import hostile_run, payload

from jaxheads.errors import UserError
from jaxheads.report.figures import to_csv
from jaxheads.runs import Run
from jaxheads.studies.ablation import outcomes

pytest.importorskip("altair")
pytest.importorskip("vl_convert")

from jaxheads.report import export, theme
from jaxheads.report.export import write_exports
from jaxheads.studies import page as sections
from jaxheads.studies.report import render, write_report

NAMES = [
    "scores-function-vector", "scores-induction", "scores-induction-yin",
    "scores-previous-token", "few-shot-first-token-top",
    "few-shot-first-token-exclusion", "few-shot-f1-top", "few-shot-f1-exclusion",
    "few-shot-kept-first-token", "few-shot-kept-f1", "token-loss-mean-top",
    "token-loss-mean-exclusion", "token-loss-zero-top", "token-loss-zero-exclusion",
    "layers-depth", "strength-function-vector", "strength-induction",
    "overlap-scatter", "top-sets-shared", "top-sets-function-vector-under-induction",
    "top-sets-induction-under-function-vector",
]  # fmt: skip


@pytest.fixture(scope="module")
def run() -> Run:
    return make_run()


@pytest.fixture(scope="module")
def made(run: Run) -> dict[str, export.Export]:
    return {one.name: one for one in sections.collect(run).exports}


@pytest.fixture(scope="module")
def files(made, tmp_path_factory) -> Path:
    """Every figure as .svg, and two as .pdf, which takes as long as all the others."""
    folder = tmp_path_factory.mktemp("run") / "figures"
    write_exports(list(made.values()), folder, "svg")
    write_exports([made["few-shot-f1-top"], made["layers-depth"]], folder, "pdf")
    return folder


def read(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(path.read_text(encoding="utf-8"))))


@pytest.mark.slow
def test_every_figure_has_a_picture_and_its_numbers(made, files: Path):
    assert set(NAMES) <= set(made)
    for one in made.values():
        text = (files / f"{one.name}.svg").read_text(encoding="utf-8")
        assert text.startswith("<svg") and text.rstrip().endswith("</svg>")
        assert "NaN" not in text and "undefined" not in text and '"@' not in text
        # Nothing to fetch: the only addresses are those of the SVG's name spaces.
        assert set(re.findall(r"https?://[^\"' ]+", text)) <= {
            "http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink",
        }  # fmt: skip
        assert one.title["text"].split()[0] in text
        rows = read(files / f"{one.name}.csv")
        assert rows and len(rows) == len(one.figure.data)
        for row, told in zip(rows, one.figure.data, strict=True):
            for name, value in told.items():
                if isinstance(value, (float, np.floating)):
                    text = row[name]
                    assert type(value)(text or "nan") == value or not text
                else:
                    assert row[name] == ("" if value is None else str(value))


def test_a_pdf_has_its_fonts_in_it(files: Path):
    for name in ("few-shot-f1-top", "layers-depth"):
        content = (files / f"{name}.pdf").read_bytes()
        assert content.startswith(b"%PDF-") and content.rstrip().endswith(b"%%EOF")
        assert len(content) > 8000 and b"/FontFile" in content
        box = re.search(rb"/MediaBox \[0 0 (\d+) (\d+)\]", content)
        assert box and all(200 < int(side) < 620 for side in box.groups())


def test_a_png_is_sharp_enough_to_print(made):
    content = export.picture(made["strength-induction"], "png")
    assert content.startswith(b"\x89PNG")
    assert int.from_bytes(content[16:20]) > 1000  # pixels wide


def test_the_numbers_of_a_curve_are_those_of_the_run(run: Run, files: Path):
    right = run.arrays["ablation/first_token"].astype(np.float64)
    sets = run.result["ablation"]["sets"]
    rows = read(files / "few-shot-first-token-top.csv")
    row = next(
        row
        for row in rows
        if (row["replaced"], row["heads replaced (%)"]) == ("top FV heads", "20.0")
    )
    at = next(
        n
        for n, one in enumerate(sets)
        if (one["ranking"], one["mode"], one["fraction"])
        == ("function_vector", "top", 0.2)
    )
    assert float(row["first-token accuracy"]) == pytest.approx(right[at].mean())
    assert float(row["heads replaced"]) == run.arrays["ablation/replaced"][at].sum()
    clean = next(row for row in rows if row["replaced"] == "no head replaced")
    assert float(clean["first-token accuracy"]) == pytest.approx(right[0].mean())


def test_the_numbers_of_a_score_are_those_of_the_run_exactly(run: Run, files: Path):
    rows = read(files / "scores-function-vector.csv")
    column = "Function-vector score (probability)"
    read_back = np.array([np.float32(row[column]) for row in rows]).reshape(6, 5)
    np.testing.assert_array_equal(read_back, run.arrays["score/function_vector"])
    order = [int(row["Function-vector score, rank"]) for row in rows]
    assert sorted(order) == list(range(1, 31))
    assert order[int(read_back.argmax())] == 1


def test_token_losses_have_their_unit(files: Path):
    assert "token-loss difference (nats)" in read(files / "token-loss-mean-top.csv")[0]


def test_overlap_and_chance_are_those_of_the_sets(run: Run, files: Path):
    fv, induction = (
        np.argsort(-run.arrays[f"score/{name}"].ravel(), kind="stable")
        for name in ("function_vector", "induction")
    )
    rows = read(files / "top-sets-shared.csv")
    for row in rows:
        size = int(row["heads in the set"])
        if row["set"].startswith("random"):
            draws = np.array([
                len({*pick[:size]} & {*range(size)}) / size
                for pick in np.random.default_rng(size).permuted(
                    np.tile(np.arange(30), (4000, 1)), axis=1
                )
            ])  # fmt: skip
            low, high = float(row["shared (%), low"]), float(row["shared (%), high"])
            assert float(row["shared (%)"]) == pytest.approx(100 * size / 30)
            assert draws.mean() * 100 == pytest.approx(100 * size / 30, abs=2.5)
            inside = ((100 * draws >= low - 1e-9) & (100 * draws <= high + 1e-9)).mean()
            assert inside > 0.94
        else:
            both = len({*fv[:size]} & {*induction[:size]})
            assert float(row["shared (%)"]) == pytest.approx(100 * both / size)
    assert {int(row["heads in the set"]) for row in rows} == {1, 2, 3, 4, 5, 6}


def test_names_stay_when_sections_come_and_go(made):
    less = sections.collect(make_run(parts=("scores",))).exports
    assert {one.name for one in less} < set(made)
    assert len({one.name for one in less}) == len(less)


@pytest.mark.slow
@pytest.mark.parametrize("hostile", [False, True])
def test_names_are_unique_and_fit_every_file_system(hostile: bool, made):
    listed = sections.collect(hostile_run()).exports if hostile else list(made.values())
    names = [one.name for one in listed]
    assert len(set(names)) == len(names)
    assert all(re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", name) for name in names)
    assert max(map(len, names)) <= 90


def test_the_page_offers_the_same_numbers(run: Run, made):
    charts = payload(render(run))["charts"]
    assert [chart["name"] for chart in charts] == list(made)
    assert [chart["csv"] for chart in charts] == [one.csv for one in made.values()]


def test_legends_hold_the_figures_own_entries(made):
    labels = [key.label for key in made["few-shot-f1-exclusion"].keys]
    assert labels[0] == "no head replaced" and "top FV heads" in labels
    assert not any(label.startswith("random, in") for label in labels)
    shared = [key.label for key in made["top-sets-shared"].keys]
    assert shared == ["shared by both top sets", "random sets, 95 % of them"]


def test_every_colour_of_a_chart_is_in_the_palette(made):
    palette = theme.light_palette()
    named = set(re.findall(r'"@([\w-]+)"', json.dumps(theme.THEME)))
    for one in made.values():
        # Data may hold anything; specifications hold names of colours.
        spec = {k: v for k, v in one.figure.spec.items() if k != "datasets"}
        named |= set(re.findall(r'"@([\w-]+)"', json.dumps(spec)))
    assert named and named <= set(palette)


def luminance(colour: str) -> float:
    parts = [int(colour[n : n + 2], 16) / 255 for n in (1, 3, 5)]
    linear = [
        c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts
    ]
    return float(np.dot([0.2126, 0.7152, 0.0722], linear))


def palettes() -> list[dict[str, str]]:
    sheet = (Path(theme.__file__).parent / "page.css").read_text(encoding="utf-8")
    blocks = re.findall(r":root[^{]*\{([^}]*)\}", sheet)
    return [dict(re.findall(r"--([\w-]+):\s*(#\w{6})", block)) for block in blocks]


@pytest.mark.parametrize("ground", ["paper", "panel"])
@pytest.mark.parametrize("text", ["ink", "muted", "accent"])
@pytest.mark.parametrize("dark", [False, True])
def test_text_stands_out_from_its_ground(dark: bool, text: str, ground: str):
    light_and_dark = palettes()
    assert len(light_and_dark) == 2 and light_and_dark[0].keys() == {
        *light_and_dark[1].keys()
    }
    one = light_and_dark[dark]
    high, low = sorted((luminance(one[text]), luminance(one[ground])), reverse=True)
    assert (high + 0.05) / (low + 0.05) >= 4.5


def test_csv_cells_are_read_back_the_same():
    rows = [
        {"a": 0.1, "b": np.float32(0.1), "c": 'x, "y"\nz', "d": None},
        {"a": float("nan"), "e": 10**12, "b": 1e-300},
    ]
    text = to_csv(rows)
    assert text.splitlines()[0] == "a,b,c,d,e"
    first, second = csv.DictReader(io.StringIO(text))
    assert first == {"a": "0.1", "b": "0.1", "c": 'x, "y"\nz', "d": "", "e": ""}
    assert second == {"a": "", "b": "1e-300", "c": "", "d": "", "e": "1000000000000"}


# Writing.


def test_files_are_replaced_whole_or_not_at_all(made, tmp_path: Path, monkeypatch):
    one = made["strength-induction"]
    write_exports([one], tmp_path, "csv")
    target = tmp_path / "strength-induction.csv"
    first = target.read_bytes()
    numbers = dataclasses.replace(one.figure, data=[{"a": 1}])
    changed = dataclasses.replace(one, figure=numbers)

    def full(source, target):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", full)
        with pytest.raises(UserError, match="No space left"):
            write_exports([changed], tmp_path, "csv")
    assert target.read_bytes() == first and os.listdir(tmp_path) == [target.name]
    write_exports([changed], tmp_path, "csv")
    assert target.read_bytes() == b"a\n1\n"


def test_a_report_elsewhere_has_its_figures_beside_it(run: Run, tmp_path: Path):
    small = make_run(tmp_path / "run", sizes=Sizes(2, 3), parts=("scores",))
    page = write_report(small, tmp_path / "made" / "page.html", figures="csv")
    assert page == tmp_path / "made" / "page.html"
    listed = os.listdir(tmp_path / "made" / "page-figures")
    assert "scores-induction.csv" in listed
    assert {name.rsplit(".", 1)[1] for name in listed} == {"csv"}


def test_hostile_names_stay_numbers_and_text():
    page = sections.collect(hostile_run())
    one = next(one for one in page.exports if "onerror=alert" in one.csv)
    text = export.picture(one, "svg").decode()
    assert "<img" not in text and "<script" not in text


def test_names_that_look_like_colours_or_end_a_line_are_titles():
    spec = {"title": "@ink\u2028", "color": "@ink", "values": ["@ink", "\u2028"]}
    painted = {"title": "@ink ", "color": "#16181c", "values": ["@ink", "\u2028"]}
    assert theme.paint(spec, theme.light_palette()) == painted


# In a browser.


@pytest.mark.slow
def test_the_browser_saves_numbers_and_pictures(browser: Browser, tmp_path: Path):
    run = make_run(parts=("ablation",), sizes=Sizes(draws=1, fractions=(0.1,)))
    first = sections.collect(run).exports[0]
    browser.open(render(run), dark=True)
    at = {"behavior": "allow", "downloadPath": str(tmp_path)}
    browser.send("Browser.setDownloadBehavior", **at)
    files = [tmp_path / f"{first.name}.{kind}" for kind in ("csv", "svg")]
    for file in files:
        browser.run(f"document.querySelector('[data-kind={file.suffix[1:]}]').click()")
        deadline = time.monotonic() + 30
        while not file.exists() and time.monotonic() < deadline:
            time.sleep(0.02)
    numbers, picture = (file.read_text("utf-8") for file in files)
    assert numbers == first.csv and picture.startswith("<svg")
    assert "no head replaced" in picture and "#d55e00" in picture
    assert browser.complaints == browser.requests == []


def test_the_accuracy_without_a_clean_set_is_drawn(run: Run):
    """A curve's numbers leave out what the run does not have."""
    outcome = outcomes.accuracy(run)[0]
    sets = [
        entry | {"mode": "other"} if entry["mode"] == "clean" else entry
        for entry in outcome.sets
    ]
    from jaxheads.studies.ablation import curves

    without = dataclasses.replace(outcome, sets=sets)
    drawn = curves.curve_figures(without, outcomes.panels(without))[0]
    assert drawn.data and not any("no head" in str(row) for row in drawn.data)

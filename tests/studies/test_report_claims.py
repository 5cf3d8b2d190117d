"""The claims on the page, in the terminal and as JSON: the same as computed."""

import html
import json
import re
from pathlib import Path

import planted_run
import pytest
import synthetic_run
from rich.console import Console

from jaxheads.cli import tables
from jaxheads.report import words
from jaxheads.report.tables import Cell, Table, printed
from jaxheads.runs import Run
from jaxheads.studies import claims, claims_page as shown
from jaxheads.studies.scores import numbers

pytest.importorskip("altair")
pytest.importorskip("vl_convert")

from jaxheads.studies.report import render, write_report


@pytest.fixture(scope="module")
def run() -> Run:
    return synthetic_run.make_run()


@pytest.fixture(scope="module")
def page(run: Run) -> str:
    text = re.sub(r"<script.*?</script>", " ", render(run), flags=re.S)
    return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", text)).split())


def test_the_page_says_every_claim_with_its_evidence(run: Run, page: str):
    for claim in claims.of_run(run):
        assert claim.statement in page
        if claim.verdict == "not measured":
            assert claim.needs in page
            continue
        assert claim.evidence in page and claim.rule in page
        said = f"{shown.SYMBOLS[claim.verdict]} {claim.verdict}"
        assert said.replace(" ", "\u00a0") in page or said in page
        assert shown.effect(claim)[0] in page
        assert "Estimate(" not in claim.evidence
        if claim.effect == claim.effect:
            over = {f"over {claim.over}", f"over {claim.p_over or claim.over}"}
            assert claim.over and all(each in page for each in over)


def test_the_page_has_the_numbers_of_the_figures(run: Run, page: str):
    for number in numbers.numbers(run):
        assert words.sentence(number.label) in page
        assert (
            words.number(number.value) in page
            or words.with_interval(number.value, number.low, number.high) in page
        )
    assert "How much depends on the choices" in page
    assert "5 % replaced (usual)" in page


def test_the_verdicts_are_counted():
    made = claims.of_run(planted_run.make_run(0))
    section = shown.section(made)
    assert section is not None
    said, rest = section.text.split(". ", 1)
    verdicts = [one.verdict for one in made]
    measured = len(verdicts) - verdicts.count("not measured")
    assert said.startswith(f"Of {measured} claims ") and "too small to matter" in rest
    counted = re.findall(r"(\d+) (holds?|do(?:es)? not|is too|are too|\w+ undec)", said)
    known = {"hold": "holds", "do": "does not hold", "too": "too small to matter"}
    known |= {"holds": "holds", "does": "does not hold", "undec": "undecided"}
    for count, form in counted:
        word = form.removeprefix("is ").removeprefix("are ").split()[0]
        assert int(count) == verdicts.count(known[word])
    assert sum(int(count) for count, _ in counted) == measured


def test_a_run_that_measures_no_claim_has_no_section():
    assert shown.section(claims.of_run(synthetic_run.make_run(parts=()))) is None


def test_the_file_says_the_same(tmp_path: Path):
    run = synthetic_run.make_run(tmp_path, parts=("scores",))
    made = claims.of_run(run)
    page = write_report(run, tmp_path / "mine.html")
    path = page.parent / "mine-claims.json"  # beside report.html it is claims.json
    told = json.loads(path.read_text("utf-8"))
    assert [row["name"] for row in told["claims"]] == [one.name for one in made]
    assert told["claims"] == json.loads(json.dumps(claims.to_rows(run)))


def test_the_terminal_says_the_numbers_of_the_page(run: Run):
    section = shown.section(claims.of_run(run))
    assert section is not None
    console = Console(record=True, markup=False, width=250)
    tables.print_run(run, console)
    said = console.export_text().split(section.tables[0].caption)[1].splitlines()
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in said]
    page = [
        [f"{one.text} {one.small}".strip().replace("\u00a0", " ") for one in row[3:5]]
        for row in section.tables[0].rows
    ]
    assert [row[2:] for row in rows if row] == page
    assert [row[:2] for row in rows if row] == [
        [row[0].text, row[1].text.replace("\u00a0", " ")]
        for row in section.tables[0].rows
    ]


def test_a_terminal_leaves_columns_out_by_name_and_takes_no_text_for_markup():
    rows = [["[bold]a[/]", Cell("left", "page alone"), Cell("1.5", "nats"), "2"]]
    table = Table("Title", ["", "text", "number", "last"], rows, 2)
    console = Console(record=True, width=60)
    console.print(printed(table.without("last", "nowhere")))
    *_, row, _ = console.export_text().splitlines()
    assert row == "│ [bold]a[/] │ left │ 1.5 nats │"
    assert table.without("text").numbers == 1 and table.columns[3] == "last"

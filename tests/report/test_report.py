"""The report: its numbers, its words, its safety, and the page in a browser."""

import dataclasses
import html
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from browser import Browser, check_page
from synthetic_run import Sizes, make_run, write_run

from jaxheads import statistics
from jaxheads.errors import UserError
from jaxheads.heads import run_scores
from jaxheads.report import words
from jaxheads.runs import Run, load
from jaxheads.statistics import claims as rules_of_claims
from jaxheads.studies import claims
from jaxheads.studies.ablation import findings, outcomes, sentences

pytest.importorskip("altair")
pytest.importorskip("vl_convert")

from jaxheads.studies.report import render, write_report

PARTS = ("scores", "ablation", "token_loss")
HOSTILE = "</script><img src=x onerror=alert(1)>\"'@ink{{7*7}}"


@pytest.fixture(scope="module")
def run() -> Run:
    return make_run()


@pytest.fixture(scope="module")
def page(run: Run) -> str:
    return render(run)


def visible(page: str) -> str:
    """The page's text: no scripts, no styles, no tags, entities read."""
    bare = re.sub(r"<(script|style)\b.*?</\1>", " ", page, flags=re.S)
    text = html.unescape(re.sub(r"<[^>]*>", " ", bare))
    return " ".join(text.split())


def payload(page: str) -> dict:
    found = re.search(r'id="payload">(.*?)</script>', page, flags=re.S)
    assert found
    return json.loads(found[1])


# The numbers are those of the arrays.


def test_the_comparison_is_computed_from_the_arrays(run: Run):
    said = findings.find(run).comparison("top")
    assert said is not None
    right = run.arrays["ablation/first_token"]
    sets = run.result["ablation"]["sets"]

    def accuracy(**wanted) -> list[float]:
        return [
            float(np.mean([task.mean() for task in right[n]]))
            for n, entry in enumerate(sets)
            if all(entry[key] == value for key, value in wanted.items())
        ]

    clean, fv = said.bars["clean"].interval, said.bars["function_vector"].interval
    assert clean.mean == pytest.approx(accuracy(mode="clean")[0])
    at = {"fraction": 0.05}
    assert [fv.mean] == pytest.approx(
        accuracy(ranking="function_vector", mode="top", **at)
    )
    assert fv.low <= fv.mean <= fv.high
    draws = accuracy(mode="uniform", **at)
    assert said.bars["random"].interval == pytest.approx(
        (np.mean(draws), min(draws), max(draws))
    )
    induction = accuracy(ranking="induction", mode="top", **at)[0]
    assert said.bars["induction"].interval.mean == pytest.approx(induction)
    assert (said.fraction, said.count, said.total) == (0.05, 1, 30)


def test_the_chosen_heads_are_spoken_of(run: Run):
    own = findings.find(run).chosen[0]
    right = run.arrays["ablation/first_token"]
    at = next(
        n
        for n, entry in enumerate(run.result["ablation"]["sets"])
        if entry["mode"] == "chosen"
    )
    assert own.count == 2
    assert own.interval.mean == pytest.approx(right[at].mean())
    assert own.change.mean == pytest.approx(right[at].mean() - right[0].mean())
    texts = [said.text for said in sentences.say(run, findings.find(run), [])]
    assert any(text.startswith("Replacing the 2 chosen heads") for text in texts)


def test_the_token_loss_difference_is_early_minus_late(run: Run):
    outcome = outcomes.token_loss(run)
    assert outcome is not None and outcome.clean is not None
    loss = run.arrays["token_loss/loss"].astype(np.float64)
    at = outcome.clean
    assert outcome.interval(at).mean == pytest.approx(
        (loss[at, :, 0] - loss[at, :, 1]).mean()
    )
    assert outcome.interval(at).mean > 0
    # The figure's interval is that of the change, which is none for clean itself.
    assert outcome.point([at]).low == outcome.point([at]).high
    assert outcome.interval(at).low < outcome.interval(at).high


def test_the_page_says_the_numbers(run: Run, page: str):
    text, found = visible(page), findings.find(run)
    scores = run.arrays["score/function_vector"]
    layer, head = np.unravel_index(scores.argmax(), scores.shape)
    assert f"Head {layer}.{head} leads the function-vector ranking" in text
    said = found.comparison("top")
    assert said is not None
    for name in ("function_vector", "induction"):
        assert words.with_interval(*said.bars[name].interval) in text
    assert found.agreement is not None
    rho = statistics.spearman(scores, run.arrays["score/induction"])
    assert found.agreement.spearman == pytest.approx(rho)
    assert f"rank correlation is {words.number(rho)}." in text
    judged = claims.of_run(run)
    assert sentences.verdict(found, judged) in text
    for statement in sentences.say(run, found, judged):
        assert statement.text in text


def test_every_curve_holds_the_mean_of_its_sets(run: Run):
    outcome = outcomes.accuracy(run)[0]
    plain, exclusion = outcomes.panels(outcome)
    labels = [line.label for line in plain.lines]
    assert labels[:3] == ["top FV heads", "top induction heads", "random heads"]
    assert [line.dashed for line in plain.lines] == [False, False, False, True, True]
    assert [line.label for line in exclusion.lines] == labels[:3]
    for n, name in enumerate(("function_vector", "induction")):
        for point in plain.lines[n].points:
            at = outcome.find(ranking=name, mode="top", fraction=point.fraction)
            values = run.arrays["ablation/first_token"][at[0]]
            replaced = run.arrays["ablation/replaced"][at[0]].sum()
            assert point.value == pytest.approx(values.mean())
            assert point.replaced == replaced


def test_the_charts_carry_the_points_and_one_table_of_heads(run: Run, page: str):
    content = payload(page)
    scores = run.arrays["score/function_vector"]
    assert len(content["heads"]) == scores.size
    best = min(content["heads"], key=lambda row: row["r0"])
    assert best["s0"] == pytest.approx(scores.max(), rel=1e-4)
    text = json.dumps(content["charts"])
    assert text.count('"name": "heads"') >= 5  # four maps and the scatter share it
    outcome = outcomes.accuracy(run)[0]
    value = outcome.point(
        outcome.find(ranking="induction", mode="top", fraction=0.2)
    ).value
    assert f'"y": {json.dumps(value)}' in text


# The words are careful.


def with_accuracy(run: Run, change) -> Run:
    """The run with ``change(set, values) -> values`` applied to each set's accuracy."""
    arrays = dict(run.arrays)
    for metric in run.result["ablation"]["metrics"]:
        values = arrays[f"ablation/{metric}"].copy()
        for n, entry in enumerate(run.result["ablation"]["sets"]):
            values[n] = change(entry, values[n])
        arrays[f"ablation/{metric}"] = values
    return dataclasses.replace(run, arrays=arrays)


def said_of(run: Run) -> tuple[str, str]:
    """The verdict at the head of the page, and all statements."""
    found, judged = findings.find(run), claims.of_run(run)
    statements = sentences.say(run, found, judged)
    return sentences.verdict(found, judged), " ".join(one.text for one in statements)


def few_shot_level(run: Run, costs: dict[str, float]) -> Run:
    """The run with a share of the answers lost with a ranking's heads, and some more.

    Random sets never tie: how far they differ is what any difference is held against.
    """
    rng = np.random.default_rng(0)
    luck = rng.random(run.arrays["ablation/first_token"][0].shape)

    def change(entry, values):
        cost = costs.get(entry["ranking"], 0.0) if entry["mode"] != "clean" else 0.0
        own = rng.random(luck.shape) < (0.02 if entry["mode"] != "clean" else 0.0)
        return ((luck >= cost) & ~own).astype(np.float32)

    return with_accuracy(run, change)


MORE = (
    "few-shot answers depend more on function-vector heads than on induction heads, "
    "neither set holding the other ranking's top heads"
)


@pytest.mark.parametrize(
    ("costs", "prompts", "verdict"),
    [
        ({}, 40, "Too small to matter"),
        ({"function_vector": 0.9}, 40, "Holds"),
        ({"induction": 0.9}, 40, "Does not hold"),
        ({"induction": 0.3, "function_vector": 0.3}, 40, "Too small to matter"),
        ({"induction": 0.2}, 4, "Undecided"),
    ],
)
def test_the_head_of_the_page_quotes_the_verdict(
    costs: dict, prompts: int, verdict: str
):
    run = make_run(sizes=Sizes(prompts=prompts, draws=12))
    head, statements = said_of(few_shot_level(run, costs))
    assert head.startswith(f"{verdict}: {MORE}.")
    assert f"{verdict}: {MORE}." in statements


def test_every_verdict_on_the_page_is_that_of_the_claims(run: Run, page: str):
    text = visible(page).lower()
    judged = {one.statement.lower(): one.verdict for one in claims.of_run(run)}
    quoted = 0
    for statement, verdict in judged.items():
        for other in rules_of_claims.Verdict.__args__:
            if f"{other}: {statement}" in text:
                quoted += 1
                assert other == verdict
    assert quoted >= 6


def test_where_nothing_is_learned_nothing_is_explained(run: Run):
    arrays = dict(run.arrays)
    arrays["token_loss/loss"] = arrays["token_loss/loss"][..., ::-1]
    head, _ = said_of(dataclasses.replace(run, arrays=arrays))
    assert (
        "Undecided: the gain from running text depends more on induction heads than on "
        "function-vector heads. It is open whether there is anything to lose: with"
        in head
    )


def test_a_leader_within_its_noise_is_no_leader(run: Run):
    arrays = dict(run.arrays)
    arrays["score/function_vector_se"] = np.ones_like(arrays["score/function_vector"])
    noisy = dataclasses.replace(run, arrays=arrays)
    first = sentences.say(noisy, findings.find(noisy), [])[0].text
    assert first.startswith("No head's function-vector score stands out from chance")
    assert "leads the induction ranking" in first


def test_a_close_second_is_said_to_be_close(run: Run):
    arrays = dict(run.arrays)
    values = arrays["score/induction"].copy()
    values[0, 1], values[0, 2] = 0.95, 0.949
    arrays |= {"score/induction": values, "score/induction_se": 0.01 * np.ones((6, 5))}
    close = dataclasses.replace(run, arrays=arrays)
    first = sentences.say(close, findings.find(close), [])[0].text
    assert "next 0.2 with 0.95, not distinguishable from it" in first


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.4567, "0.46"), (0.0213, "0.021"), (0.00172, "0.0017"), (12.34, "12.3"),
        (1024.4, "1,024"), (0, "0"), (-0.5, "\u22120.50"), (3.1e-7, "3.1e\u22127"),
        (float("nan"), "\u2013"), (None, "\u2013"),
    ],
)  # fmt: skip
def test_numbers_have_sane_digits(value: float | None, text: str):
    assert words.number(value) == text


def test_errors_and_intervals_share_their_digits():
    assert words.with_error(0.17234, 0.0213) == "0.17 ± 0.02"
    assert words.with_error(0.17234, 0.0123) == "0.172 ± 0.012"
    assert words.with_error(0.17, float("nan")) == "0.17"
    assert words.with_interval(0.3141, 0.0832, 0.3613) == "0.31 [0.08, 0.36]"
    assert words.seconds(185) == "3 min 05 s"
    assert words.magnitude(134515008) == "135 M"


def test_ranks_and_top_sets():
    values = np.array([[0.1, 0.9], [0.9, 0.3]])
    np.testing.assert_array_equal(run_scores.ranks(values), [[4, 1], [2, 3]])
    np.testing.assert_array_equal(run_scores.top_mask(values, 1), [[0, 1], [0, 0]])
    assert [run_scores.top_count(total) for total in (10, 100, 270, 1024)] == [
        1,
        2,
        6,
        21,
    ]


# The page is one safe file, whatever the run holds.


def test_nothing_is_fetched(page: str):
    markup = re.sub(r"<script>.*?</script>", "", page, flags=re.S)
    assert not re.findall(
        r"\b(?:src|href|action|poster)\s*=\s*[\"'](?!#)[^\"']*", markup
    )
    assert not re.search(r"@import|url\(", markup)
    assert "<link" not in markup and "https://" not in markup
    assert "default-src 'none'" in markup
    assert "unsafe-eval" not in markup


def test_the_same_run_makes_the_same_page(run: Run, page: str):
    assert render(run) == page


@pytest.mark.parametrize(
    "parts", [("scores",), ("ablation",), ("token_loss",), ("scores", "token_loss"), ()]
)
def test_a_part_that_is_missing_is_left_out(parts: tuple[str, ...]):
    page = render(make_run(parts=parts))
    for part, anchor in zip(PARTS, ("scores", "few-shot", "token-loss"), strict=True):
        assert (f'<section id="{anchor}">' in page) == (part in parts)
    assert '<section id="receipt">' in page
    ranks_only = "This run ranks the heads; it holds no ablation"
    assert (ranks_only in visible(page)) == (parts == ("scores",))


@pytest.mark.parametrize(
    "size",
    [
        Sizes(1, 1),
        Sizes(2, 64),
        Sizes(draws=1),
        pytest.param(Sizes(80, 40), marks=pytest.mark.slow),
    ],
)
def test_models_of_every_size(size: Sizes):
    page = render(make_run(sizes=size))
    content = payload(page)
    assert len(content["heads"]) == size.layers * size.heads
    large = size.layers * size.heads > 2500
    assert (content["charts"][0]["renderer"] == "canvas") == large
    assert len(page) < 4e6


def hostile_run(path: Path = Path("run")) -> Run:
    run = make_run(path, sizes=Sizes(evaluation=(HOSTILE, "b"), scoring=("a", HOSTILE)))
    result, arrays = json.loads(json.dumps(run.result)), dict(run.arrays)
    result["title"] = result["model"]["name"] = result["token_loss"]["text"] = HOSTILE
    result["config"][HOSTILE] = HOSTILE
    result["model"][HOSTILE] = HOSTILE
    result["scores"][HOSTILE] = dict(result["scores"]["induction"], definition=HOSTILE)
    arrays[f"score/{HOSTILE}"] = arrays["score/induction"]
    for part in ("ablation", "token_loss"):
        for entry in result[part]["sets"]:
            entry["name"] = HOSTILE
            if entry["ranking"] == "induction":
                entry["ranking"] = HOSTILE
        result[part]["sets"][-1]["mode"] = HOSTILE
    return dataclasses.replace(run, result=result, arrays=arrays)


def test_hostile_names_stay_text():
    page = render(hostile_run())
    markup = re.sub(r"<script>.*?</script>", "", page, flags=re.S)
    assert "<img" not in markup
    assert "&lt;/script&gt;&lt;img" in markup
    assert "{{7*7}}" in markup
    # Two scripts and the payload between them: none was closed from within.
    assert page.count("<script") == page.count("</script>") == 3


@pytest.mark.slow
def test_unknown_modes_and_rankings_still_have_a_row():
    run = make_run()
    result = json.loads(json.dumps(run.result))
    result["ablation"]["sets"][5] |= {"mode": "sideways", "ranking": "copying"}
    text = visible(render(dataclasses.replace(run, result=result)))
    assert "sideways" in text and "copying" in text


# Writing.


def test_the_file_is_written_whole_or_not_at_all(tmp_path: Path, monkeypatch):
    write_run(tmp_path / "run")
    run = load(tmp_path / "run")
    target = write_report(run)
    assert target == tmp_path / "run" / "report.html"
    first = target.read_bytes()
    assert first.rstrip().endswith(b"</html>")

    def full(source, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(UserError, match=r"report\.html.*No space left"):
        write_report(run)
    assert target.read_bytes() == first
    assert {path.name for path in target.parent.iterdir()} == {
        "result.json", "arrays.npz", "report.html", "claims.json",
    }  # fmt: skip


def test_a_missing_extra_is_named(run: Run, monkeypatch):
    monkeypatch.setitem(sys.modules, "altair", None)
    with pytest.raises(UserError, match=r"altair.*pip install 'jaxheads\[report\]'"):
        render(run)


def test_importing_the_report_needs_no_extra():
    code = (
        "import sys, jaxheads.report\n"
        "heavy = ('altair', 'jinja2', 'vl_convert', 'jax')\n"
        "print([name for name in heavy if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


# The page in a browser.


POINT = """
(async () => {
  const cell = [...document.querySelectorAll("#chart-0 path[aria-label]")].find(
    (one) => /rank: 1(;|$)/.test(one.getAttribute("aria-label")));
  const box = cell.getBoundingClientRect();
  for (const name of ["pointermove", "mousemove", "pointerover", "mouseover"]) {
    cell.dispatchEvent(new PointerEvent(name, {bubbles: true, cancelable: true,
      clientX: box.x + 2, clientY: box.y + 2, view: window}));
  }
  await new Promise((done) => setTimeout(done, 100));
  const tip = document.querySelector("#vg-tooltip-element");
  return [tip.textContent, getComputedStyle(tip).visibility];
})()"""


def test_the_browser_draws_every_chart(run: Run, page: str, browser: Browser):
    check_page(browser, page)
    said, seen = browser.run(POINT)
    best = run_scores.top_heads(run, "function_vector", 1)[0]
    assert best.name in said and words.head_score(best) in said and seen == "visible"

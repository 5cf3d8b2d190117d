"""A training on the page: when scores emerge, heads followed, steps and their flags."""

from collections.abc import Sequence
from typing import Any

from jaxheads.report import words
from jaxheads.report.layout import Key, Row, Section, Statement, Topic
from jaxheads.report.tables import Table
from jaxheads.runs import Run
from jaxheads.statistics.claims import Claim
from jaxheads.studies.ablation.findings import Findings
from jaxheads.studies.dynamics import figures as drawn, findings as told, seeds_page


def topic(run: Run, found: Findings, judged: Sequence[Claim]) -> Topic:
    """What the page tells of a training."""
    del found, judged
    return Topic(
        [*sections(run), *seeds_page.sections(run)],
        verdict(run) or seeds_page.verdict(run),
        [*say(run), *seeds_page.say(run)],
    )


def sections(run: Run) -> list[Section]:
    """Make the sections, if the run is one of a training."""
    if "dynamics" not in run.result:
        return []
    return [_means(run), _heads(run), _transitions(run), _steps(run)]


def verdict(run: Run) -> str | None:
    """Answer in a line or two where the run is one of a training."""
    return told.verdict(run) if "dynamics" in run.result else None


def say(run: Run) -> list[Statement]:
    """Write the statements for the head of the page."""
    return told.say(run) if "dynamics" in run.result else []


def _means(run: Run) -> Section:
    measured = drawn.accuracy(run)
    keys = [Key(text, "muted", mark) for text, mark in drawn.SETS.values()]
    for name, shade in drawn.METRIC_SHADES.items():
        if measured and name in told.accuracy(run):
            keys.append(Key(words.short(name), shade, "line"))
    figures = [drawn.mean_score(run, name) for name in told.SCORES]
    figures += [measured] if measured else []
    emerged = run.result["dynamics"]["emergence"]
    tasks = words.plural(emerged["fv_tasks"], "scoring task")
    text = (
        "Mean score of the top 2 % of heads of each step, of the last step's top 2 %, "
        "and of all heads; and few-shot accuracy of the whole model. Bands: 95 % "
        f"intervals; of FV scores over {tasks} drawn with replacement, of induction "
        "scores by their standard errors over sequences, of accuracy over queries "
        "within tasks. A score emerges at the first step at which the mean of the top "
        "2 % has passed half of the way from chance to its last value and a head "
        "stands out from chance."
    )
    dates = [
        [
            noun,
            *(told.date(emerged[kind][of]) for of in ("final", "largest")),
        ]
        for kind, noun in told.NOUNS.items()
    ]
    columns = ["emergence of", "half of the last value", "half of the largest value"]
    return Section(
        "emergence",
        "When the scores emerge",
        text,
        keys=keys,
        rows=[Row("", figures, columns=len(figures))],
        tables=[Table("Dates of emergence", columns, dates, 9)],
    )


def _heads(run: Run) -> Section:
    figures = [drawn.single_heads(run, name) for name in told.SCORES]
    return Section(
        "single-heads",
        "The last step's top heads, followed backwards",
        "The top 2 % of heads of the last step by either score (at most 10 each). The "
        "best of each kind is named.",
        keys=_kind_keys(run, "line"),
        rows=[Row("", figures), Row("", [drawn.one_head(run)])],
    )


def _kind_keys(run: Run, mark: str) -> list[Key]:
    shown = set(drawn.kinds(run).values())
    return [
        Key(f"top by {kind}", shade, mark)
        for kind, shade in drawn.KINDS.items()
        if kind in shown
    ]


def _transitions(run: Run) -> Section:
    found = run.result["dynamics"]["transitions"]
    asked = found["definition"]
    text = (
        "A head made the transition from induction to function vectors if (1) at the "
        f"last step it is among the top {words.percent(asked['final_share'])} by FV "
        "score, which stands out from chance; (2) at an earlier step it is among the "
        f"top {words.percent(asked['early_share'])} by induction score, which stands "
        "out"
    )
    if asked.get("least_induction"):
        text += f" and is {words.number(asked['least_induction'])} above chance or more"
    number = 3
    if asked["silent"]:
        text += f"; ({number}) at that step and before, its FV score does not stand out"
        number += 1
    if asked["overtakes"]:
        text += (
            f"; ({number}) its rank by induction is the better one at that step, and "
            "its rank by FV score the better one at the last"
        )
    text += (
        f". To stand out: above chance at a level of {words.percent(asked['level'])} "
        "over all heads together. The test gives heads the induction scores of other "
        f"heads, {found['permutations']:,} times, and counts again. {told.NO_CAUSE} "
        "Which weights a later function is made of, it cannot say; and scores that "
        "show between the same two checkpoints cannot be ordered."
    )
    facts = [
        f"Counted: {found['count']} of {words.plural(found['shown'], 'head')} that "
        "stand out.",
        *(
            f"Permuted {'over ' if name == 'all heads' else ''}{name}: "
            f"{words.number(found['expected'][name])} expected, one-sided p = "
            f"{words.number(p_value)}."
            for name, p_value in found["p_value"].items()
        ),
    ]
    return Section(
        "transition",
        "Do induction heads turn into function-vector heads?",
        text,
        keys=[
            *_kind_keys(run, "circle"),
            Key("made the transition", "ink", "diamond"),
        ],
        rows=[Row("", [drawn.paths(run)])],
        facts=facts,
        tables=[_followed(found), _sensitivity(found)],
    )


def _followed(found: dict[str, Any]) -> Table:
    def step(value: int | None) -> str:
        return words.NONE if value is None else f"{value:,}"

    rows = [
        [
            one["name"],
            "yes" if one["made"] else "no",
            one["reason"] or words.NONE,
            step(one["induction_step"]),
            step(one["fv_step"]),
            step(one["overtaken_step"]),
            *(f"{rank:,}" for rank in one["final_ranks"]),
        ]
        for one in found["followed"]
    ]
    columns = ["head", "transition", "why not", "induction head at step"]
    columns += ["FV score stands out at", "better by FV from"]
    columns += ["last rank by FV", "by induction"]
    return Table("The function-vector heads of the last step", columns, rows, 3)


def _sensitivity(found: dict[str, Any]) -> Table:
    rows = [
        [
            f"top {words.percent(row['early_share'])}",
            "yes" if row["silent"] else "no",
            "yes" if row["overtakes"] else "no",
            f"{row['count']} of {row['of']}",
            *(words.number(p_value) for p_value in row["p_value"].values()),
        ]
        for row in found["sensitivity"]
    ]
    columns = ["early induction heads", "FV score silent before", "ranks change over"]
    columns += ["heads", "p, all heads", "p, within layers"]
    return Table("How much depends on the definition", columns, rows, 3)


def _steps(run: Run) -> Section:
    part = run.result["dynamics"]
    return Section(
        "steps",
        "Step by step",
        "Every step was given the same tokens, and has a run of its own in the folder "
        "(jaxheads report opens it). Weights: the beginning of their SHA-256; all "
        "of it stands in result.json.",
        facts=[words.sentence(f"{flag['text']}.") for flag in part["flags"]],
        tables=[told.table(run)],
    )

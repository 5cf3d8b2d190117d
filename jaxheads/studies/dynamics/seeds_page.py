"""Several seeds of a training on the page: dates, order and transitions together."""

from typing import Any

from jaxheads.report import words
from jaxheads.report.layout import Key, Row, Section, Statement
from jaxheads.report.tables import Table
from jaxheads.runs import Run
from jaxheads.statistics.seeds import NOTE
from jaxheads.studies.dynamics.findings import NO_CAUSE, answered, date, first_claim

_FIRST = {"induction": "induction", "fv": "FV", "neither": "not told apart"}


def sections(run: Run) -> list[Section]:
    """Make the sections, if the run is of several seeds of a training."""
    if "dynamics_seeds" not in run.result:
        return []
    return [_emergence(run), _transitions(run)]


def verdict(run: Run) -> str | None:
    """Answer in a line or two, if the run is of several seeds of a training."""
    if "dynamics_seeds" not in run.result:
        return None
    return f"{_order(run, 'final')} {_turned(_counts(run)[0])}"


def say(run: Run) -> list[Statement]:
    """Write the statements for the head of the page and for the terminal."""
    if "dynamics_seeds" not in run.result:
        return []
    text = f"{_order(run, 'final')} By half of the largest value instead of the last: "
    text += words.sentence(_order(run, "largest"))
    claim = first_claim(run)
    text += f" That induction is first, over seeds: {claim.verdict}. "
    text += claim.evidence
    strict, loose = _counts(run)[:2]
    turned = _turned(strict)
    if sum(strict["shown"]):
        turned += f" {_loosely(loose)}"
    turned += f" {NO_CAUSE}"
    said = [Statement("Emergence", text), Statement("Induction to FV", turned)]
    measured = answered(run, "first_token")
    if measured is not None:
        last = measured[:, -1].mean(axis=(1, 2))
        text = f"{words.sentence(words.short('first_token'))} at the last step is "
        text += f"{words.number(last.min())} to {words.number(last.max())} over seeds."
        said.append(Statement("Few-shot accuracy", text))
    return said


def table(run: Run) -> Table:
    """A row a seed: when the mean scores of its top 2 % of heads emerged."""
    rows = []
    for one in run.result["dynamics_seeds"]["seeds"]:
        told, head = one["emergence"], one["followed"][0]
        shares = told["first"]["final"]
        rows.append(
            [
                str(one["seed"]),
                *(_dated(told[kind]["final"]) for kind in ("induction", "fv")),
                words.NONE if shares is None else _likeliest(shares),
                head["name"] + (", turned" if head["made"] else ""),
                _step(head["induction_step"]),
                _step(head["fv_step"]),
            ]
        )
    columns = ["seed", "induction emerges", "FV emerges", "first"]
    columns += ["top FV head at the end", "stood out by induction at", "by FV at"]
    return Table("Dates of emergence", columns, rows, 9)


def _dated(told: dict[str, Any]) -> str:
    return words.NONE if told["step"] is None else date(told)


def _step(step: int | None) -> str:
    return words.NONE if step is None else f"{step:,}"


def _likeliest(shares: dict[str, float]) -> str:
    """The kind that is first in most resamples, and in how many."""
    name = max(shares, key=lambda key: shares[key])
    return f"{_FIRST[name]} ({words.percent(shares[name])})"


def _counts(run: Run) -> list[dict[str, Any]]:
    return run.result["dynamics_seeds"]["transitions"]


def _order(run: Run, reference: str) -> str:
    """In how many seeds which kind emerged first."""
    told = run.result["dynamics_seeds"]["first"][reference]
    parts = [
        f"{text} in {told[name]}"
        for name, text in (
            ("induction", "induction heads emerge first"),
            ("fv", "function-vector heads emerge first"),
            ("same", "both emerge between the same two checkpoints"),
            ("undated", "one of the two, or both, do not emerge"),
        )
        if told[name]
    ]
    parts[0] += f" of {words.plural(sum(told.values()), 'seed')}"
    return f"{words.sentence(', '.join(parts))}."


def _turned(told: dict[str, Any]) -> str:
    asked = told["definition"]
    top = (
        f"{sum(told['of'])} heads at the top {words.percent(asked['final_share'])} by "
        "FV score in the end (at least one a seed)"
    )
    shown = sum(told["shown"])
    if not shown:
        return f"None of the {top} stands out from chance: there is none to follow."
    stand = "stands" if shown == 1 else "stand"
    return (
        f"Of the {top} {shown} {stand} out from chance, of which {told['count']} made "
        f"the transition from induction; {_chances(told)}."
    )


def _loosely(told: dict[str, Any]) -> str:
    return (
        f"{told['count']} of them were among the top "
        f"{words.percent(told['definition']['early_share'])} by induction at some step "
        f"before, whatever their FV score was then; {_chances(told)}."
    )


def _chances(told: dict[str, Any]) -> str:
    return ", ".join(
        f"{words.number(told['expected'][name])} expected with trajectories permuted "
        f"{'over ' if name == 'all heads' else ''}{name} (p = {words.number(p_value)})"
        for name, p_value in told["p_value"].items()
    )


def _emergence(run: Run) -> Section:
    from jaxheads.studies.dynamics import seeds_figures as drawn

    return Section(
        "seeds",
        "When the scores emerge, seed by seed",
        "Mean score of the top 2 % of heads of each step (at least one head); and "
        "few-shot accuracy of the whole model. A score emerges at the first step at "
        "which that mean has passed half of the way from chance to its last value, "
        "and a head stands out from chance. First: in most resamples of one seed's "
        f"curves. {NOTE} Every seed has a run of its "
        "own in the folder (jaxheads report opens it).",
        keys=[
            Key("one seed by induction", "induction", "line"),
            Key("one seed by FV score", "fv", "line"),
            Key("mean of the seeds", "ink", "line"),
        ],
        rows=[Row("", drawn.curves(run), columns=3)],
        tables=[table(run)],
    )


def _transitions(run: Run) -> Section:
    counted = []
    for told in _counts(run):
        asked = told["definition"]
        strict = asked["silent"] and asked["overtakes"]
        counted.append(
            [
                f"top {words.percent(asked['final_share'])}",
                f"top {words.percent(asked['early_share'])}",
                "yes" if strict else "no",
                f"{told['count']} of {sum(told['shown'])}",
                ", ".join(map(str, told["each"])),
                f"{sum(told['shown'])} of {sum(told['of'])}",
                *(words.number(value) for value in told["expected"].values()),
                *(words.number(value) for value in told["p_value"].values()),
            ]
        )
    columns = ["FV heads of the end", "early induction heads"]
    columns += ["FV silent before, ranks change over", "turned", "by seed"]
    columns += ["FV heads that stand out", "expected, all heads"]
    columns += ["expected, within layers", "p, all heads", "p, within layers"]
    permutations = _counts(run)[0]["permutations"]
    least = _counts(run)[0]["definition"]["least_induction"]
    return Section(
        "transition",
        "Do induction heads turn into function-vector heads?",
        "FV heads of the end: the top share of a seed's heads by FV score at the last "
        "step, rounded up, whose score stands out from chance. Turned: at an earlier "
        "step the head was among the top share by induction score, which stood out and "
        f"was {words.number(least)} above chance or more; "
        "in the rows with yes, its FV score did not stand out until then, and its rank "
        "by induction was the better one then, by FV score in the end. The test gives "
        "heads the induction scores of other heads of their seed, "
        f"{permutations:,} times, and counts all seeds together. {NO_CAUSE}",
        tables=[Table("Heads that turned, all seeds", columns, counted, 3)],
    )

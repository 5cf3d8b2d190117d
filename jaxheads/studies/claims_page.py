"""The papers' claims on the page, and the numbers of their figures."""

from collections.abc import Sequence

from jaxheads.report import words
from jaxheads.report.layout import Section
from jaxheads.report.tables import Cell, Table
from jaxheads.runs import Run
from jaxheads.statistics.claims import Claim, Rules
from jaxheads.studies.ablation import sensitivity
from jaxheads.studies.scores import numbers
from jaxheads.studies.scores.numbers import Number

SYMBOLS = {
    "holds": "\u2713",
    "does not hold": "\u2717",
    "too small to matter": "\u2248",
    "undecided": "?",
    "not measured": words.NONE,
}


FOUND = "found in 80 % of runs from"
_MEASURED = "Claims that this run measures (effect: positive where right)"


def table(judged: Sequence[Claim], caption: str = _MEASURED) -> Table:
    """A row a claim, as it was judged."""
    columns = ["claim", "verdict", "evidence", "effect [95 %]", "adjusted p", FOUND]
    rows = [
        [
            Cell(one.statement, one.source),
            marked(one.verdict),
            Cell(one.evidence, _over(one)),
            Cell(*effect(one)),
            words.p_value(one.p_adjusted),
            words.number(one.detectable),
        ]
        for one in judged
    ]
    return Table(caption, columns, rows, 3, stacked=True)


def marked(verdict: str) -> str:
    """A verdict behind its symbol, never broken."""
    return f"{SYMBOLS[verdict]} {verdict}".replace(" ", "\u00a0")


def quote(claim: Claim) -> str:
    """Print a claim behind its verdict, and why where there are no numbers for it."""
    said = f"{words.sentence(claim.verdict)}: {claim.statement[0].lower()}"
    said += f"{claim.statement[1:]}."
    return said if claim.effect == claim.effect else f"{said} {claim.evidence}"


def quotes(made: Sequence[Claim], *names: str) -> str:
    """Print the claims of these names that are measured, in the order of the names."""
    known = {claim.name: claim for claim in made if claim.verdict != "not measured"}
    return " ".join(quote(known[name]) for name in names if name in known)


def section(made: list[Claim]) -> Section | None:
    """Make the section of a run's claims; None where none is measured."""
    measured = [claim for claim in made if claim.verdict != "not measured"]
    if not measured:
        return None
    rules, tables = Rules(), [table(measured)]
    if len(measured) < len(made):
        tables.append(_missing([one for one in made if one not in measured]))
    return Section(
        "claims",
        "The papers' claims",
        f"Of {words.plural(len(measured), 'claim')} {counted(measured)}. "
        "An effect is positive where the claim is right. It is "
        "too small to matter if its whole 95 % interval is smaller, in either "
        f"direction, than the smallest effect of interest (mostly "
        f"{words.percent(rules.smallest)} of the clean value). Else the claim holds if "
        "its test, adjusted by Holm's method within its family, gives a p value below "
        f"{rules.level:g} and the interval is above 0, and does not hold if the "
        "opposite is so; a claim of no difference holds if a difference of the "
        "smallest size is ruled out. All else is undecided. Last, how much such a test "
        "can see: the effect that is found in 80 % of runs with as many queries and "
        "random sets as this one. The head of the page and pages over several runs "
        "quote these verdicts; the rules stand at the end of the page.",
        tables=tables,
    )


def figure_numbers(run: Run) -> list[Table]:
    """Make the table of the numbers of Yin & Steinhardt's figures."""
    found = numbers.numbers(run)
    if not found:
        return []
    columns = ["number", "interval over", "figure", "value [95 %]", "by chance", "p"]
    rows = [_number(one) for one in found]
    return [Table("Numbers of the figures of Yin & Steinhardt 2025", columns, rows, 3)]


def rules(made: list[Claim]) -> list[Table]:
    """Say how each measured claim is judged."""
    rows = [
        [one.statement, one.rule, one.family, words.p_value(one.p)]
        for one in made
        if one.verdict != "not measured"
    ]
    columns = ["claim", "effect and test", "family", "p before adjustment"]
    return [Table("How each claim is judged", columns, rows, 3)] if rows else []


def counted(made: Sequence[Claim]) -> str:
    """Count verdicts in words: "3 hold, 1 is too small to matter"."""
    forms = {
        "holds": ("holds", "hold"),
        "does not hold": ("does not hold", "do not hold"),
        "too small to matter": ("is too small to matter", "are too small to matter"),
        "undecided": ("is undecided", "are undecided"),
        "not measured": ("is not measured", "are not measured"),
    }
    counts = {name: sum(one.verdict == name for one in made) for name in forms}
    return ", ".join(
        f"{count} {forms[name][count > 1]}" for name, count in counts.items() if count
    )


def _over(claim: Claim) -> str:
    """Say what a row's interval and its test vary."""
    if not claim.over:
        return ""
    if claim.p_over in ("", claim.over):
        return f"Interval and test over {claim.over}."
    return f"Interval over {claim.over}; test over {claim.p_over}."


def effect(claim: Claim) -> tuple[str, str]:
    """Print a claim's effect with its interval, and its unit."""
    if claim.effect != claim.effect:
        return words.NONE, ""
    if not abs(claim.low) < float("inf") or not abs(claim.high) < float("inf"):
        return words.number(claim.effect), claim.unit
    return words.with_interval(claim.effect, claim.low, claim.high), claim.unit


def _missing(made: list[Claim]) -> Table:
    rows = [[Cell(one.statement, one.source), one.needs] for one in made]
    caption = "Claims that this run does not measure"
    return Table(caption, ["claim", "it takes"], rows, 99, stacked=True)


def _number(one: Number) -> list[str]:
    value = words.number(one.value)
    if one.low == one.low:
        value = words.with_interval(one.value, one.low, one.high)
    return [
        words.sentence(one.label),
        one.over or words.NONE,
        one.figure,
        value,
        words.number(one.chance),
        words.p_value(one.p),
    ]


_CHOICES = {
    "exclusion": "Share of the other ranking's top heads that is left alone",
    "fraction": "Share of heads that is replaced",
    "metric": "What counts as right",
    "value": "What is put in place of the heads (token-loss difference)",
}
_SETTING = [
    "setting",
    "FV cost more than induction by",
    "adjusted p",
    "FV minus random",
    "induction minus random",
]


def sensitivity_section(run: Run) -> Section | None:
    """Make the tables of how much depends on choices; None where none was varied."""
    found = sensitivity.of_run(run)
    tables = [
        Table(
            title,
            _SETTING,
            [_setting(one) for one in found if one.choice == choice],
            1,
        )
        for choice, title in _CHOICES.items()
        if any(one.choice == choice for one in found)
    ]
    if not tables:
        return None
    return Section(
        "sensitivity",
        "How much depends on the choices",
        "The same comparison under other choices than the usual one, which is marked. "
        "95 % intervals over queries, or documents, and sets of heads; p adjusted "
        "by Benjamini and Hochberg's method within a table.",
        tables=tables,
    )


def _setting(one: sensitivity.Setting) -> list[str]:
    measured = one.gap
    cells = [
        one.setting + (" (usual)" if one.usual else ""),
        words.with_interval(measured.effect, measured.low, measured.high),
        words.p_value(one.p_adjusted),
    ]
    for interval in (one.fv_random, one.induction_random):
        cells.append(words.with_interval(*interval) if interval else words.NONE)
    return cells

"""What a dynamics run found, in numbers and words (numpy only)."""

from typing import Any

import numpy as np

from jaxheads.heads import head_name
from jaxheads.heads.run_scores import top_count
from jaxheads.report import words
from jaxheads.report.layout import Statement
from jaxheads.report.tables import Cell, Table
from jaxheads.runs import Run
from jaxheads.statistics import Interval
from jaxheads.statistics.claims import Claim, Verdict
from jaxheads.statistics.units import ANSWERS, estimate
from jaxheads.studies.ablation import first_tokens
from jaxheads.studies.claims import of_run
from jaxheads.studies.dynamics import emergence

METRICS = ("first_token", "f1")
SCORES = ("induction", "function_vector")
NOUNS = {"induction": "induction heads", "fv": "function-vector heads"}
NO_CAUSE = (
    "It is a correlation over checkpoints of two scores of the same heads, and no "
    "causal test."
)


def steps(run: Run) -> list[int]:
    """The steps, in order."""
    return [int(step) for step in run.arrays["dynamics/step"]]


def curve(run: Run, name: str, which: str = "top") -> Interval:
    """A curve of a score: "top", "final" or "every" (see emergence), each [U]."""
    return Interval(*run.arrays[f"dynamics/curve/{name}/{which}"].T)


def accuracy(run: Run) -> dict[str, Interval]:
    """Clean few-shot accuracy at each step by metric, each [U]; {} if not measured."""
    return {
        name: estimate(
            values, _of_tasks(run, name, "queries"), bounds=ANSWERS
        ).interval()
        for name in METRICS
        if (values := answered(run, name)) is not None
    }


def answered(run: Run, metric: str) -> np.ndarray | None:
    """Clean few-shot answers [..., U, E, B] of a metric; None if not measured."""
    values = _of_tasks(run, metric, metric)
    return values if values is not None and values.size else None


def _of_tasks(run: Run, metric: str, name: str) -> np.ndarray | None:
    """An array [..., E, B] of the tasks that a metric counts; None if there is none.

    Tasks whose answers all have the same first token are left out of first tokens.
    """
    values = run.arrays.get(f"dynamics/{name}")
    if values is None or metric != "first_token":
        return values
    tasks = run.result.get("evaluation_tasks")
    return first_tokens.of_telling(run, values, tasks, -2)


def followed(run: Run) -> dict[str, list[tuple[int, int]]]:
    """The top heads of the last step: min(ceil(2 % H), 10) by either score.

    Source: Yin & Steinhardt 2025, figure 6.
    """
    found = {}
    for name in SCORES:
        last = run.arrays[f"dynamics/score/{name}"][-1]
        count = min(top_count(last.size, emergence.SHARE), 10)
        order = np.argsort(-last, axis=None, kind="stable")[:count]
        found[name] = [divmod(int(flat), last.shape[1]) for flat in order]
    return found


def table(run: Run) -> Table:
    """A row a step: means of its top 2 % of heads, accuracy, leading heads, weights."""
    part, measured = run.result["dynamics"], accuracy(run)
    tops = [curve(run, name).mean for name in SCORES]
    rows = []
    for u, one in enumerate(part["steps"]):
        flags = [
            flag["kind"] for flag in part["flags"] if one["step"] in flag["steps"]
        ]  # fmt: skip
        origin = one["revision"] or one["source"].rsplit("/", 1)[-1]
        rows.append(
            [
                f"{one['step']:,}",
                Cell(origin, (one["commit"] or "")[:12]),
                one["params_sha256"][:12],
                ", ".join(flags) or words.NONE,
                *(words.number(float(each[u])) for each in tops),
                *(_at(each, u) for each in measured.values()),
                *(leader(run, name, u) for name in SCORES),
                words.seconds(one["seconds"]),
            ]
        )
    columns = ["step", "checkpoint", "weights", "flags"]
    columns += map(words.short, (*SCORES, *measured))
    columns += ["leads induction", "leads FV", "took"]
    caption = "Checkpoints, with the mean scores of their top 2 % of heads"
    return Table(caption, columns, rows, 4)


def _at(one: Interval, step: int) -> str:
    return words.with_interval(*(float(part[step]) for part in one))


def leader(run: Run, name: str, step: int) -> str:
    """The head with the largest score at a step, and the score."""
    scores = run.arrays[f"dynamics/score/{name}"][step]
    best = np.unravel_index(np.argmax(scores), scores.shape)
    return f"{head_name(*map(int, best))} ({words.number(float(scores[best]))})"


def verdict(run: Run) -> str:
    """Answer in a line or two: what came first, and what turned into what."""
    told = run.result["dynamics"]
    order = _order(told["emergence"], first_claim(run).verdict)
    if told["emergence"]["fv"]["final"]["step"] is None:
        return order  # of heads that do not stand out nothing is to be told
    return f"{order} {_turned(told['transitions'])}"


def first_claim(run: Run) -> Claim:
    """The claim that induction heads emerge first, as it was judged."""
    return next(one for one in of_run(run) if one.name == "induction_emerges_first")


def _order(told: dict[str, Any], claim: Verdict) -> str:
    dates = {kind: told[kind]["final"] for kind in NOUNS}
    without = [NOUNS[kind] for kind, date in dates.items() if date["step"] is None]
    if without:
        return f"No {' and no '.join(without)} stand out from chance at the last step."
    at = {kind: f"step {date['step']:,}" for kind, date in dates.items()}
    if claim not in ("holds", "does not hold"):
        return (
            "Which of the two comes first is not decided at these checkpoints: "
            f"induction heads emerge by {at['induction']}, function-vector heads by "
            f"{at['fv']}."
        )
    one = "induction" if claim == "holds" else "fv"
    other = "fv" if one == "induction" else "induction"
    return (
        f"{words.sentence(NOUNS[one])} emerge first, by {at[one]}; {NOUNS[other]} by "
        f"{at[other]}."
    )


def _turned(told: dict[str, Any]) -> str:
    count, of = told["count"], told["shown"]
    heads = "head" if of == 1 else "heads"
    text = f"{count} of the {of:,} function-vector {heads} of the end"
    text += (" was an" if count == 1 else " were") + " induction "
    text += "head" if count == 1 else "heads"
    p_value = told["p_value"]["within layers"]
    if not count:
        return f"{text} first, by this page's definition."
    clear = "more than" if p_value < 0.05 else "not more than"
    return (
        f"{text} first, {clear} chance would have it (p = {words.number(p_value)} "
        "within layers)."
    )


def say(run: Run) -> list[Statement]:
    """Write the statements for the head of the page and for the terminal."""
    told = run.result["dynamics"]
    said = [Statement("Emergence", emerged(told["emergence"]))]
    said.append(Statement("Induction to FV", turned(told["transitions"])))
    measured = accuracy(run)
    if measured:
        first = next(iter(measured))
        best = int(np.argmax(measured[first].mean))
        said.append(
            Statement(
                "Few-shot accuracy",
                f"{words.sentence(words.short(first))} of the whole model is "
                f"{_at(measured[first], -1)} at the last step; it is largest at step "
                f"{steps(run)[best]:,}, {_at(measured[first], best)}.",
            )
        )
    flags = [flag["text"] for flag in told["flags"]]
    if flags:
        said.append(Statement("Checkpoints", f"{words.sentence('; '.join(flags))}."))
    return said


def emerged(told: dict[str, Any]) -> str:
    """Say when each score passed half of its final and of its largest value."""
    said = []
    for kind, name in (("induction", "induction"), ("fv", "FV")):
        final, largest = told[kind]["final"], told[kind]["largest"]
        if final["step"] is None:
            said.append(f"by {name} score nothing emerges: {final['reason']}")
            continue
        text = f"by {name} score half of the final value is passed {date(final)}"
        if largest["step"] not in (None, final["step"]):
            text += f", half of the largest {date(largest)}"
        said.append(text)
    first = told["first"]["final"]
    text = "; ".join(said)
    if first:
        text += (
            f". Induction is surely first in {words.percent(first['induction'])} of "
            f"{told['samples']:,} resamples, FV in {words.percent(first['fv'])}, and "
            f"{words.percent(first['neither'])} do not tell"
        )
    return f"{words.sentence(text)}."


def date(told: dict[str, Any]) -> str:
    """Print a date of emergence with its interval."""
    if told["step"] is None:
        return told["reason"]
    text = f"at step {told['step']:,}"
    if told["before"] is not None:
        text = f"between steps {told['before']:,} and {told['step']:,}"
    if (told["low"], told["high"]) != (told["step"], told["step"]):
        text += f" [95 %: {told['low']:,} to {told['high']:,}]"
    return text


def turned(told: dict[str, Any]) -> str:
    """Say how many heads made the transition, against chance."""
    names = [one["name"] for one in told["followed"] if one["made"]]
    if not told["shown"]:
        return (
            f"None of the {len(told['followed'])} heads at the top by FV score in the "
            f"end stands out from chance, so that there is none to follow. {NO_CAUSE}"
        )
    text = (
        f"{len(names)} of the {told['shown']} heads at the top by FV score in the end "
        "that stand out from chance made the transition"
    )
    text += f" ({', '.join(names)})" if names else ""
    chances = ", ".join(
        f"{words.number(told['expected'][name])} with trajectories permuted "
        f"{'over ' if name == 'all heads' else ''}{name} (p = {words.number(p_value)})"
        for name, p_value in told["p_value"].items()
    )
    counts = [row["count"] for row in told["sensitivity"]]
    return (
        f"{text}; {chances}. Other parameters of the definition count "
        f"{min(counts)} to {max(counts)}. {NO_CAUSE}"
    )

"""The answers to the six arguments, in words and as a table."""

from typing import Any

from jaxheads.report import words
from jaxheads.report.layout import Section, Statement
from jaxheads.report.tables import Cell, Table
from jaxheads.runs import Run
from jaxheads.statistics.seeds import NOTE
from jaxheads.studies.claims_page import SYMBOLS, marked


def told(run: Run) -> dict[str, Any]:
    """What the run says of the arguments."""
    return run.result["evidence"]


def verdict(run: Run) -> str | None:
    """Answer in a line or two where the run is of ``jaxheads evidence``."""
    if "evidence" not in run.result:
        return None
    said = []
    for answer in SYMBOLS:
        names = [
            one["name"] for one in told(run)["arguments"] if one["answer"] == answer
        ]
        if names and answer != "not measured":
            one = len(names) == 1
            tail = {
                "holds": "holds" if one else "hold",
                "does not hold": "does not hold" if one else "do not hold",
            }.get(answer, f"{'is' if one else 'are'} {answer}")
            said.append(f"{words.sentence(_listed(names))} {tail}.")
    if not said:
        return "None of the six arguments could be asked of these runs."
    return "Of the six arguments on induction heads: " + " ".join(said)


def say(run: Run) -> list[Statement]:
    """Write the statements for the head of the page."""
    if "evidence" not in run.result:
        return []
    made = []
    for one in told(run)["arguments"]:
        if one["answer"] != "not measured":
            lead = f"{one['argument']} {words.sentence(one['name'])}"
            made.append(Statement(lead, one["evidence"]))
    return made


def rules(run: Run) -> list[Table]:
    """Say how each argument is decided."""
    if "evidence" not in run.result:
        return []
    rows = [
        [f"{one['argument']} {one['name']}", one["rule"]]
        for one in told(run)["arguments"]
    ]
    return [Table("How each argument is decided", ["argument", "rule"], rows, 99)]


def _listed(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def table(run: Run) -> Table:
    """A row an argument: its answer, and what it rests on."""
    rows = [
        [
            Cell(f"{one['argument']} {one['name']}", one["statement"]),
            marked(one["answer"]),
            one["evidence"],
        ]
        for one in told(run)["arguments"]
    ]
    columns = ["argument", "answer", "evidence"]
    return Table("The arguments", columns, rows, 99, stacked=True)


def section(run: Run) -> Section:
    """Make the section of the answers and of what was asked."""
    return Section(
        "arguments",
        "Six arguments that induction heads make in-context learning",
        "Decided by rules that are the same for all runs; they stand at the end of "
        f"the page. {NOTE} "
        "All is said of these models and these data. Only the third argument is "
        "causal; that things happen together is no proof that one makes the other.",
        facts=told(run)["left_out"],
        tables=[table(run), runs(run)],
    )


def runs(run: Run) -> Table:
    """A row a training run: what it is, and what became of it."""
    said = told(run)
    rows = []
    given = zip(said["runs"], said["continuity"], said["co_occurrence"], strict=True)
    for one, row, dated in given:
        step = dated["changes"]["prefix_matching"]["step"]
        rows.append(
            [
                one["name"],
                one["variant"],
                one["objective"],
                f"{one['layers']} x {one['heads']}",
                f"{one['width']:,}",
                words.parameters(one["num_params"]),
                str(len(one["seeds"])),
                f"{one['last_step']:,}",
                words.magnitude(one["tokens_a_step"] * one["last_step"]),
                str(row["found"]),
                words.NONE if step is None else f"{step:,.0f}",
                mean(row["icl_score"]),
                mean(row["top_prefix"]),
            ]
        )
    columns = ["run", "keys", "objective", "layers x heads", "width", "parameters"]
    columns += ["seeds", "steps", "tokens a seed", "heads form in", "at step"]
    columns += ["ICL score (nats)", "top prefix matching"]
    return Table("The training runs", columns, rows, 3)


def mean(made: dict[str, Any] | None) -> str:
    """Write a mean over seeds with its interval, if there are any."""
    if made is None:
        return words.NONE
    if made["low"] is None:
        return words.number(made["mean"])
    return words.with_interval(made["mean"], made["low"], made["high"])

"""The sections with tables of the page over several runs: runs, seeds, claims."""

from jaxheads import run_scores
from jaxheads.across_runs import SeedAgreement, claims_of_runs, seed_agreement
from jaxheads.claims.rules import Claim
from jaxheads.report import claims, words
from jaxheads.report.findings import PAIR
from jaxheads.report.layout import Section
from jaxheads.report.members import Member
from jaxheads.report.tables import Cell, Table


def runs(listed: list[Member]) -> Section:
    """List the runs: model, seed, what they do, and their first heads."""
    quantity = next(
        (m.measured["accuracy"].quantity for m in listed if "accuracy" in m.measured),
        None,
    )
    rows = []
    for member in listed:
        model = member.run.result["model"]
        size = member.num_params
        row = [
            Cell(member.label),
            Cell(words.NONE if size is None else words.parameters(size)),
            Cell(f"{member.total:,}", f"{model['num_layers']} x {model['num_heads']}"),
            Cell(words.NONE if member.step is None else f"{member.step:,}"),
            Cell(words.NONE if member.seed is None else str(member.seed)),
        ]
        if quantity:
            row.append(Cell(_clean(member)))
        row += [_leader(member, name) for name in PAIR]
        rows.append(row)
    columns = ["run", "parameters", "heads", "step", "seed"]
    columns += [f"clean {quantity}"] if quantity else []
    columns += [f"top {words.short(name)} head" for name in PAIR]
    keep = [n for n in range(len(columns)) if any(_told(row[n]) for row in rows)]
    return Section(
        "runs",
        "The runs",
        "In order of size, step and seed. A head is written layer.head, both counted "
        "from 0, with its score and standard error.",
        tables=[
            Table(
                "Runs",
                [columns[n] for n in keep],
                [[row[n] for n in keep] for row in rows],
                1,
            )
        ],
    )


def _told(cell: Cell) -> bool:
    return cell.text != words.NONE


def _clean(member: Member) -> str:
    outcome = member.measured.get("accuracy")
    if outcome is None or outcome.clean is None:
        return words.NONE
    return words.with_interval(*outcome.interval(outcome.clean))


def _leader(member: Member, name: str) -> Cell:
    found = member.found.leaders.get(name)
    return (
        Cell(words.head_score(found[0]), found[0].name) if found else Cell(words.NONE)
    )


def seeds(listed: list[Member]) -> Section | None:
    """Say how far runs of one model agree, where a model has several."""
    groups: dict[str, list[Member]] = {}
    for member in listed:
        groups.setdefault(member.params, []).append(member)
    rows = []
    for group in groups.values():
        names = [name for name in PAIR if name in run_scores.names(group[0].run)]
        for name in names if len(group) > 1 else []:
            agreed = seed_agreement([member.run for member in group], name)
            if agreed:
                rows.append(_agreed(group[0].model, agreed))
    if not rows:
        return None
    columns = ["model", "score", "runs", "top head", "its score"]
    columns += ["rank correlation", "top-2 % sets", "spread / reported error"]
    return Section(
        "seeds",
        "How the runs of one model agree",
        "Runs of the same params. Rank correlation: over all heads, mean over pairs of "
        "runs, and the lowest. Top sets: shared heads among those of either (Jaccard), "
        "mean over pairs. Last: standard deviation of the top heads' scores over runs "
        "in units of the standard error that the runs report, with its 95 % interval; "
        "1 where the reported errors are as large as they should be.",
        tables=[Table("Agreement over runs", columns, rows, 2)],
    )


def _agreed(model: str, agreed: SeedAgreement) -> list[Cell]:
    leaders = list(dict.fromkeys(agreed.leaders))
    scores = agreed.leader_scores
    low, high = words.aligned(min(scores), max(scores))
    known = agreed.ratio == agreed.ratio
    bounds = [words.number(v) for v in (agreed.ratio_low, agreed.ratio_high)]
    return [
        Cell(model),
        Cell(words.short(agreed.score)),
        Cell(str(len(agreed.leaders))),
        Cell(", ".join(leaders)),
        Cell(low if low == high else f"{low} to {high}"),
        Cell(
            words.number(agreed.rank_correlation),
            f"lowest {words.number(agreed.lowest_rank_correlation)}",
        ),
        Cell(words.number(agreed.jaccard)),
        Cell(words.number(agreed.ratio), " to ".join(bounds) if known else ""),
    ]


def claims_of(listed: list[Member], judged: list[list[Claim]]) -> Section | None:
    """Set the verdicts on the papers' claims side by side, where a run has any."""
    rows = []
    for same in zip(*judged, strict=True):
        if all(claim.verdict == "not measured" for claim in same):
            continue
        row = [Cell(same[0].statement, same[0].source)]
        for claim in same:
            text, _ = claims.effect(claim)
            known = claim.verdict != "not measured"
            said = f"{claims.SYMBOLS[claim.verdict]} {claim.verdict}" if known else ""
            row.append(Cell(said or words.NONE, text if known else ""))
        rows.append(row)
    together = claims.section(claims_of_runs([member.run for member in listed]))
    if not rows:
        return None
    return Section(
        "claims",
        "The papers' claims, run by run",
        "By the rules of each run's own page, adjusted for that run's tests alone. "
        "Below a verdict: the effect, positive where the claim is right, with its 95 % "
        "interval.",
        tables=[
            Table(
                "Claims that a run measures",
                ["claim", *(member.label for member in listed)],
                rows,
                1,
                stacked=True,
            ),
            *(together.tables if together else []),
        ],
    )

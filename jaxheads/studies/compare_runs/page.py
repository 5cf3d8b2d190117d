"""A comparison of trainings on the page: claims, answers, losses, heads."""

from collections.abc import Sequence

from jaxheads.report import words
from jaxheads.report.layout import Key, Row, Section, Statement, Topic
from jaxheads.report.tables import Cell, Table
from jaxheads.runs import Run
from jaxheads.statistics.claims import Claim
from jaxheads.statistics.seeds import NOTE
from jaxheads.studies.ablation.findings import Findings
from jaxheads.studies.claims_page import FOUND, table as claims_table
from jaxheads.studies.compare_runs import figures as drawn, heads_page
from jaxheads.studies.compare_runs.claims import heads_formed
from jaxheads.studies.compare_runs.effects import Effect, title
from jaxheads.studies.compare_runs.result import claims_of, config_of, effects_of, table

_TESTS = (
    "p over seeds: Student's t of the seeds' paired differences, which speaks of other "
    "seeds. p over samples: signs of the differences of windows flipped, all seeds "
    "together (McNemar's test with windows as clusters), which speaks of these very "
    "models on other windows. Both are adjusted by Holm's method over all rows of the "
    "kind."
)


def topic(run: Run, found: Findings, judged: Sequence[Claim]) -> Topic:
    """What the page tells of trainings side by side."""
    del found, judged
    return Topic(sections(run), verdict(run), say(run))


def is_comparison(run: Run) -> bool:
    """Whether a run compares trainings."""
    return "arms" in run.result


def sections(run: Run) -> list[Section]:
    """Make the sections, if the run is a comparison of trainings."""
    if not is_comparison(run):
        return []
    effects = effects_of(run)
    made = [
        _claims(run),
        _answers(run, effects),
        _training(run),
        _losses(run),
        _heads(run),
    ]
    return [section for section in made if section] + heads_page.sections(run)


def verdict(run: Run) -> str | None:
    """Answer in a line or two where the run is a comparison of trainings."""
    if not is_comparison(run):
        return None
    said = []
    effects = effects_of(run)
    for arm, claims in enumerate(claims_of(run), start=1):
        name = drawn.names(run)[arm]
        if not heads_formed({one.name: one for one in effects if one.arm == arm}):
            said.append(
                f"{name}: no induction head formed in {drawn.names(run)[0]}, so that "
                "its signatures are not counted."
            )
            continue
        tested = [one for one in claims if one.verdict != "not measured"]
        count = sum(one.verdict == "holds" for one in tested)
        text = f"{name}: {count} of {words.plural(len(tested), 'signature')} hold"
        for verdict in ("does not hold", "too small to matter", "undecided"):
            those = [one for one in tested if one.verdict == verdict]
            if those:
                listed = "; ".join(one.statement.lower() for one in those)
                text += f"; {verdict}: {len(those)} ({listed})"
        said.append(f"{text}.")
    return " ".join(said)


def say(run: Run) -> list[Statement]:
    """Write the statements for the head of the page."""
    if not is_comparison(run):
        return []
    told, compared = run.result["arms"], run.result["compared"]
    seeds = words.plural(len(told[0]["seeds"]), "seed")
    dropped = ", ".join(
        f"{arm['name']} {words.percent(arm['dropped'])}" for arm in told
    )
    text = (
        f"{seeds} each, on the same data in the same order, at step "
        f"{compared['step']:,}. Targets without loss: {dropped}."
    )
    differ = "; ".join(compared["differences"]) or "nothing"
    made = [
        Statement("What was compared", text),
        Statement("What differs", f"{differ}."),
    ]
    return made + [Statement("Note", text) for text in compared["warnings"]]


def _keys(run: Run) -> list[Key]:
    return [
        Key(name, drawn.colour(arm), "line")
        for arm, name in enumerate(drawn.names(run))
    ]


def _claims(run: Run) -> Section:
    config = config_of(run)
    tables = [
        claims_table(claims, f"{name} against {drawn.names(run)[0]}").without(FOUND)
        for name, claims in zip(drawn.names(run)[1:], claims_of(run), strict=True)
    ]
    rules = Table(
        "How each claim is judged",
        ["claim", "effect and test"],
        [[one.statement, one.rule] for one in claims_of(run)[0]],
        99,
    )
    return Section(
        "signatures",
        "What should happen without induction copying, and what did",
        "An effect is positive where the claim is right. A claim holds if its test "
        "over seeds, adjusted by Holm's method over the claims on the arm, gives a p "
        "value below 0.05 and the interval is above 0; it does not hold if both say "
        "the opposite; it is too small to matter if the interval is wholly within what "
        f"counts as none; else it is undecided. {NOTE} Falls below "
        f"{words.percent(config.smallest)} of what the reference has count as none; no "
        f"worse means by less than {words.number(config.margin_loss)} nats, or "
        f"{words.number(config.margin_accuracy)} of all answers.",
        tables=[*tables, rules],
    )


def _answers(run: Run, effects: Sequence[Effect]) -> Section:
    found = [one for one in effects if one.family == "accuracy"]
    figures = [drawn.accuracies(run, effects)]
    by_shot = drawn.shots(run)
    rows = [Row("", figures)]
    if by_shot:
        rows.append(Row("In-context functions", [by_shot]))
    return Section(
        "answers",
        "What is right, where",
        "Share of held-out targets whose likeliest token is right, the same windows "
        "for every arm, and of random tokens that repeat. Whiskers and bands: 95 % "
        f"intervals over seeds. {_TESTS}",
        keys=_keys(run),
        rows=rows,
        tables=[
            table(run, "Accuracies"),
            _mcnemar(run, found),
        ],
    )


def _training(run: Run) -> Section | None:
    figures = drawn.over_training(run)
    if not figures:
        return None
    rows = [Row("", figures, columns=3)]
    differences = drawn.differences(run)
    if differences:
        heading = (
            f"Differences from {drawn.names(run)[0]}, with 95 % intervals over seeds"
        )
        rows.append(Row(heading, differences))
    return Section(
        "over-training",
        "Over training",
        "As measured at the evaluations of the trainings. Thin: one seed; thick: their "
        "mean.",
        keys=_keys(run),
        rows=rows,
    )


def _losses(run: Run) -> Section:
    early, late = run.result["compared"]["evidence"]["evidence_positions"]
    return Section(
        "losses",
        "Losses and the gain from context",
        "A copy gives a target that completes a pair of tokens seen before in its "
        f"document: induction can predict it. Early and late: targets {early} and "
        f"{late} of a window; no copies: windows where neither completes a pair.",
        tables=[table(run, "Losses (nats)")],
    )


def _heads(run: Run) -> Section:
    config = config_of(run)
    heads = run.result["model"]["num_layers"] * run.result["model"]["num_heads"]
    top = words.plural(min(config.top, heads), "head")
    return Section(
        "induction-heads",
        "Induction heads",
        f"Prefix matching on repeated random tokens; the mean is of the top {top}. "
        f"Induction heads have a score above {words.number(config.induction_above)}.",
        tables=[table(run, "Number and strength of induction heads")],
    )


def _mcnemar(run: Run, found: Sequence[Effect]) -> Table:
    """A row an effect and seed: which answers only one has right."""
    seeds = run.result["arms"][0]["seeds"]
    several = len(drawn.names(run)) > 2
    rows = [
        [
            Cell(title(one.name), drawn.names(run)[one.arm] if several else ""),
            str(seed),
            f"{one.only_reference[n]:,}",
            f"{one.only_other[n]:,}",
            words.p_value(one.mcnemar[n]),
            words.p_value(one.mcnemar_adjusted[n]),
        ]
        for one in found
        for n, seed in enumerate(seeds)
    ]
    right = (drawn.names(run)[0], "arm" if several else drawn.names(run)[1])
    return Table(
        "McNemar's exact test of each seed, targets taken for independent",
        ["", "seed", *(f"only {name} right" for name in right), "p", "p, Holm"],
        rows,
        1,
    )

"""A training on the page: its losses, its heads, and when they jump."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxheads.report import words
from jaxheads.report.layout import Key, Row, Section, Statement, Topic
from jaxheads.report.tables import Table
from jaxheads.runs import Run
from jaxheads.statistics import phase_change
from jaxheads.statistics.claims import Claim
from jaxheads.statistics.phase_change import PhaseChange, windows_overlap
from jaxheads.studies.ablation.findings import Findings
from jaxheads.studies.six_arguments.ablation_and_mechanism import INDUCTION
from jaxheads.studies.train import figures as drawn


def topic(run: Run, found: Findings, judged: Sequence[Claim]) -> Topic:
    """What the page tells of a training as it was measured."""
    del found, judged
    return Topic(sections(run), verdict(run), say(run))


def sections(run: Run) -> list[Section]:
    """Make the sections, if the run is a training."""
    if "train" not in run.result:
        return []
    made = [_losses(run)]
    figures = drawn.evaluations(run)
    if figures:
        made.append(_evaluations(run))
    return made


def verdict(run: Run) -> str | None:
    """Answer in a line or two where the run is a training."""
    if "train" not in run.result:
        return None
    changes = phase_change.of_run(run)
    found = changes.get("prefix_matching")
    if found is None:
        return "Trained, without a look at the heads (--evidence measures them)."
    number = sum(one.step is not None for one in found)
    of = words.plural(len(found), "seed")
    if not number:
        return _none(run, [one.reason for one in found], of)
    dates = [one.step for one in found if one.step is not None]
    said = f"Heads learned to match prefixes in {number} of {of}, about step "
    said += f"{np.median(dates):,.0f}"
    together = _together(changes)
    if together is None:
        return f"{said}."
    return (
        f"{said}; the in-context learning score jumped in the same window in "
        f"{together} of them."
    )


def _none(run: Run, reasons: list[str], of: str) -> str:
    """Say why no phase change was found: there was none, or it could not be seen."""
    few = [reason for reason in reasons if "too few" in reason]
    top = phase_change.top_head(run.arrays["evaluation/prefix_matching"][-1])
    there = int((top > INDUCTION).sum())
    if few:
        text = f"Whether heads learned to match prefixes is not dated: {few[0]}."
    elif there:
        text = "When heads learned to match prefixes is not seen at these evaluations."
    else:
        return f"No head learned to match prefixes in {of}: no phase change."
    return (
        f"{text} At the last one a head has a prefix-matching score above "
        f"{INDUCTION:g} in {there} of {of}."
    )


def say(run: Run) -> list[Statement]:
    """Write the statements for the head of the page."""
    if "train" not in run.result:
        return []
    told, config = run.result["train"], run.result["config"]
    seeds = words.plural(len(told["seeds"]), "seed")
    text = (
        f"{seeds} of {words.parameters(told['num_params'])} parameters each, "
        f"{told['tokens_a_seed']:,} tokens a seed, objective {config['objective']}."
    )
    last = [one["all_loss"] for one in told["last"].values()]
    low, high = words.number(min(last)), words.number(max(last))
    text += " Loss over all targets of the last batch: "
    text += f"{low} nats." if len(last) == 1 else f"{low} to {high} nats over seeds."
    return [Statement("What was trained", text)]


def _together(changes: dict[str, tuple[PhaseChange, ...]]) -> int | None:
    """In how many seeds both figures jump in windows that overlap."""
    if len(changes) < len(phase_change.LEAST_CHANGES):
        return None
    return sum(
        map(windows_overlap, *(changes[name] for name in phase_change.LEAST_CHANGES))
    )


def _keys(run: Run) -> list[Key]:
    keys = [Key("one seed", "induction", "line")]
    if len(run.result["train"]["seeds"]) > 1:
        keys.append(Key("mean of the seeds", "ink", "line"))
    return keys


def _losses(run: Run) -> Section:
    return Section(
        "training",
        "Loss while training",
        "Of each batch, means over blocks of steps.",
        keys=_keys(run),
        rows=[Row("", drawn.losses(run))],
    )


def _evaluations(run: Run) -> Section:
    rows = [
        [
            words.curve(name),
            str(seed),
            words.NONE if one.step is None else f"{one.step:,.0f}",
            (
                words.NONE
                if one.begin is None or one.end is None
                else f"{one.begin:,.0f} to {one.end:,.0f}"
            ),
            one.reason or words.NONE,
        ]
        for name, each in phase_change.of_run(run).items()
        for seed, one in zip(run.result["train"]["seeds"], each, strict=True)
    ]
    columns = ["of", "seed", "half of the rise at step", "10 to 90 % of it"]
    columns += ["why none"]
    tables = [Table("Phase changes", columns, rows, 12)] if rows else []
    tables += [one for one in (table(run),) if one]
    text = (
        "Measured on held-out windows and random tokens. Prefix matching: attention "
        "from a random token to what followed its earlier copies. In-context learning "
        "score: negative means that late tokens are predicted better. That two figures "
        "jump together is no proof that one makes the other."
    )
    return Section(
        "evidence",
        "What formed, and when",
        text,
        keys=_keys(run),
        rows=[Row("", drawn.evaluations(run), columns=3)],
        tables=tables,
    )


def table(run: Run) -> Table | None:
    """List the tasks with their figures over the seeds, if any were measured."""
    told: dict[str, Any] | None = (run.result["model"].get("evidence") or {}).get(
        "few_shot"
    )
    if told is None:
        return None
    last = [
        run.arrays[f"evaluation/fewshot_{name}"][-1]  # [N, A]
        for name in ("accuracy", "log_probability")
    ]
    rows = [
        [task, str(shots), *(_over_seeds(each[:, at]) for each in last)]
        for at, (task, shots) in enumerate(
            zip(told["tasks"], told["shots"], strict=True)
        )
    ]
    caption = "Few-shot tasks at the last evaluation, mean (and range) over seeds"
    if told["left_out"]:
        caption += f"; no room for a demonstration of {', '.join(told['left_out'])}"
    columns = ["task", "shots", "first-token accuracy", "log-probability, nats"]
    return Table(caption, columns, rows, 1)


def _over_seeds(values: np.ndarray) -> str:
    """Mean and range of [N]."""
    text = words.number(float(values.mean()))
    if len(values) > 1:
        low, high = (words.number(float(end)) for end in (values.min(), values.max()))
        text += f" ({low} to {high})"
    return text

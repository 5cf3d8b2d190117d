"""What ``jaxheads evidence`` does."""

import dataclasses
import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from jaxheads import runs
from jaxheads.engine.progress import bars
from jaxheads.runs import Run
from jaxheads.statistics.seeds import NOTE
from jaxheads.studies.doctor import examine_trained
from jaxheads.studies.six_arguments.config import ArgumentsConfig, Evidence
from jaxheads.studies.six_arguments.curves import check_comparable, read_curves
from jaxheads.studies.six_arguments.measured import choose_steps, measure, units
from jaxheads.studies.six_arguments.result import gather
from jaxheads.training.trained import open_all

_COLOURS = {
    "holds": "green",
    "does not hold": "red",
    "too small to matter": "red",
    "undecided": "yellow",
}

WIDTH = 120
"""Of what is printed where no terminal says."""


def print_arguments(run: Run, console: Console) -> None:
    """One row an argument, and one a run."""
    said = run.result["evidence"]
    table = Table(title=f"six arguments, {len(said['runs'])} training runs")
    table.add_column("argument")
    table.add_column("answer", no_wrap=True)
    table.add_column("evidence", overflow="fold")
    for one in said["arguments"]:
        colour = _COLOURS.get(one["answer"], "")
        answer = f"[{colour}]{one['answer']}[/]" if colour else one["answer"]
        name = f"{one['argument']} {one['name']}"
        table.add_row(name, answer, one["evidence"])
    console.print(table)
    for text in (NOTE, *said["left_out"]):
        console.print(Text(f"note    {text}"), soft_wrap=True)
    table = Table(title="training runs")
    table.add_column("run")
    table.add_column("architecture")
    for name in ("seeds", "heads form in", "at step", "ICL score", "top prefix score"):
        table.add_column(name, justify="right")
    rows = zip(said["runs"], said["continuity"], said["co_occurrence"], strict=True)
    for about, row, dated in rows:
        step = dated["changes"]["prefix_matching"]["step"]
        means = [row[name] for name in ("icl_score", "top_prefix")]
        table.add_row(
            about["name"],
            f"{about['variant']}, layers: {about['layers']}, width: {about['width']}",
            str(len(about["seeds"])),
            str(row["found"]),
            "" if step is None else f"{step:,.0f}",
            *("" if mean is None else f"{mean['mean']:.3f}" for mean in means),
        )
    console.print(table)


def run_command(command: Evidence, console: Console, output: Console) -> Run:
    """Ask the arguments as the options say, and print the answers.

    Args:
        command: the options.
        console: of progress.
        output: of the result.
    """
    run = ask(command.run, command.arguments, command.out, console)
    print_arguments(run, output)
    return run


def ask(
    paths: Sequence[str | Path], config: ArgumentsConfig, out: Path, console: Console
) -> Run:
    """Ask the six arguments of finished trainings.

    Args:
        paths: their folders.
        config: what is asked.
        out: the run's folder; what an earlier try did is not done again.
        console: of progress.

    Raises:
        UserError: runs that are no finished trainings, were measured on different
            windows, or lack what was asked for; or the folder is another run's.
    """
    config.check()
    trained = open_all(paths)
    check_comparable(trained)
    curves = [read_curves(one) for one in trained]
    steps: list[tuple[int, ...]] = [()] * len(trained)
    if config.ablations:
        steps = [
            choose_steps(one.steps, seen, config.attribution_steps)
            for one, seen in zip(trained, curves, strict=True)
        ]
    identity = {
        "runs": [one.about["fingerprint"] for one in curves],
        "steps": [list(each) for each in steps],
    }
    with runs.RunFolder(
        out, "evidence", dataclasses.asdict(config), identity
    ) as folder:
        if folder.finished:
            return runs.load(out)
        return _ask(folder, trained, curves, steps, config, console)


def _ask(folder, trained, curves, steps, config, console) -> Run:
    """Measure what is asked for, and write the finished run."""
    checks = [
        check
        for one, each in zip(trained, steps, strict=True)
        if each
        for check in examine_trained(one, each[-1], one.evidence().probes.repeated)
    ]
    start = time.monotonic()
    names = [units(r, each) for r, each in enumerate(steps)]
    done = [sum(map(folder.has, each)) for each in names]
    width = max(len(one.name) for one in trained)
    with bars(console, width) as bar:
        tasks = [
            bar.add_task(one.name, total=len(each), completed=ready, start=False)
            for one, each, ready in zip(trained, names, done, strict=True)
            if each
        ]
        measured = []
        for r, one in enumerate(trained):
            if not steps[r]:
                measured.append(None)
                continue
            bar.start_task(tasks[r])
            ready = iter([True] * done[r])  # is shown as done from the start

            def advance(task=tasks[r], ready=ready) -> None:
                if not next(ready, False):
                    bar.advance(task)

            measured.append(
                measure(folder, r, one, steps[r], config.samples, config.seed, advance)
            )
    result, arrays = gather(trained, curves, measured, config)
    result["checks"] = checks
    result["wall_s"] = {"evidence": time.monotonic() - start}
    return folder.finish(result, arrays)

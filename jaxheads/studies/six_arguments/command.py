"""What ``jaxheads evidence`` does."""

import dataclasses
import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.text import Text

from jaxheads import runs
from jaxheads.engine.progress import bars
from jaxheads.report.tables import printed
from jaxheads.runs import Run
from jaxheads.statistics.seeds import NOTE
from jaxheads.studies.doctor import examine_trained
from jaxheads.studies.six_arguments import answers
from jaxheads.studies.six_arguments.config import ArgumentsConfig, Evidence
from jaxheads.studies.six_arguments.curves import check_comparable, read_curves
from jaxheads.studies.six_arguments.measured import choose_steps, measure, units
from jaxheads.studies.six_arguments.result import gather
from jaxheads.training.trained import open_all

WIDTH = 120
"""Of what is printed where no terminal says."""


def print_arguments(run: Run, console: Console) -> None:
    """One row an argument, and one a run."""
    console.print(printed(answers.table(run)))
    for text in (NOTE, *answers.told(run)["left_out"]):
        console.print(Text(f"note    {text}"), soft_wrap=True)
    table = answers.runs(run)
    console.print(printed(table.without("objective", "parameters", "tokens a seed")))


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

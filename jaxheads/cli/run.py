"""The command line: what each of the commands does.

Nothing heavy is imported before a command runs, so that ``--help`` is quick.
"""

import dataclasses
import logging
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.text import Text

from jaxheads import stops
from jaxheads.cli.options import (
    Compare,
    Convert,
    Doctor,
    Export,
    Inspect,
    Models,
    Protocols,
    Report,
    Tasks,
    name_of,
    parse,
)
from jaxheads.errors import UserError, check_local
from jaxheads.studies import registry
from jaxheads.studies.options import (
    ComputingCommand,
    FigureFormat,
    RankedCommand,
    StudyCommand,
    default_folder,
)

if TYPE_CHECKING:
    from jaxheads import runs


class _Console(Console):
    """Of which nobody may read on, as in ``| head -1``: the work goes on to its end."""

    def on_broken_pipe(self) -> None:
        """Let what is said from now on go nowhere."""
        self.quiet = True
        os.dup2(os.open(os.devnull, os.O_WRONLY), self.file.fileno())


def run(arguments: list[str] | None = None) -> None:
    """Parse the arguments and run the command."""
    command = parse(arguments)
    for path in _paths(command):
        check_local(path)
    quiet = isinstance(command, ComputingCommand) and command.quiet
    console = _Console(stderr=True, markup=False, quiet=quiet)
    _tell(quiet, isinstance(command, ComputingCommand) and command.verbose)
    if isinstance(command, ComputingCommand):
        stops.stop_after(command.stop_after)
        _foresee_page(command)
    match command:
        case Report():
            _report(command, console)
        case Compare():
            _compare(command, console)
        case Export():
            _export(command, console)
        case Convert():
            _convert(command, console)
        case Models():
            from jaxheads.weights.presets import table

            _wide_console().print(table())
        case Tasks():
            from jaxheads.cli.lists import table

            _wide_console().print(table(command.folder))
        case Protocols():
            from jaxheads.cli.lists import tables

            for made in tables():
                _wide_console().print(made)
        case Inspect():
            _inspect(command, console)
        case Doctor():
            _doctor(command, console)
        case _:
            _run_study(command, console)


def _paths(given: object) -> Iterator[Path]:
    """Every path among a command's options."""
    if isinstance(given, Path):
        yield given
    elif isinstance(given, tuple):
        for one in given:
            yield from _paths(one)
    elif dataclasses.is_dataclass(given):
        for field in dataclasses.fields(given):
            yield from _paths(getattr(given, field.name))


def _tell(quiet: bool, verbose: bool) -> None:
    """Have what happens said on standard error, as much of it as is asked for."""
    log = logging.getLogger("jaxheads")
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
    log.handlers, log.propagate = [handler], False
    level = logging.WARNING if quiet else logging.INFO
    log.setLevel(logging.DEBUG if verbose else level)
    if not verbose:  # what a checkpoint's writer tells itself
        logging.getLogger("absl").setLevel(logging.CRITICAL)


def _foresee_page(command: ComputingCommand) -> None:
    """Say before the work that there will be no page, where its packages are absent."""
    from jaxheads.report.page import missing_packages

    missing = missing_packages()
    if not missing or isinstance(command, Convert):
        return
    if getattr(command, "figures", None) is not None:
        raise UserError(
            f"--figures needs {missing}, which this environment lacks: pip install "
            "'jaxheads[report]', or leave it out"
        )
    warnings.warn(f"no page will be made: {_later(missing)}", stacklevel=2)


def _later(missing: str) -> str:
    return (
        f"it needs {missing}, which this environment lacks; pip install "
        "'jaxheads[report]', then `jaxheads report RUN` makes it"
    )


def _run_study(command: Any, console: Console) -> None:
    """Run what the command of a study is of, and write its page."""
    own = registry.owner(type(command))
    does = registry.load(own, "command") if own else None
    output = _wide_console(does.WIDTH if does else 120)
    if does:
        finished = does.run_command(command, console, output)
    else:
        finished = _run_on_model(command, console)
        from jaxheads.cli.tables import print_run

        print_run(finished, output)
    _write_report(finished, console, figures=getattr(command, "figures", None))


def _run_on_model(command: StudyCommand, console: Console) -> "runs.Run":
    """Load the model and run the studies of a command."""
    config = command.config()  # a mistake in it is told before jax starts
    ranking = None
    if isinstance(command, RankedCommand) and command.ranking is not None:
        from jaxheads import runs

        if command.ranking.is_file():
            raise UserError(
                f"--ranking must be a run's folder, but {command.ranking} is a file: "
                "a ranking in a file has no mean heads, which replace others; "
                "`jaxheads compare` reads it, and --ablation.sets takes sets of heads"
            )
        ranking = runs.load(command.ranking)
    parts = command.parts
    if not config.execution.tasks:  # as in a study, unless they are named
        parts = tuple(part for part in parts if part != "execution")
    if ranking is not None:
        parts = tuple(part for part in parts if part != "scores")

    from jaxheads.engine.devices import make_mesh
    from jaxheads.engine.progress import status
    from jaxheads.studies.run import StudyBars, run_study
    from jaxheads.weights.model import load

    with status(console, f"loading {command.source}"):
        mesh = make_mesh(command.mesh)
        model = load(command.source, command.revision, command.dtype, mesh)
    out = command.out or default_folder(command, name_of(command))
    with StudyBars(console) as bars:
        return run_study(
            model,
            config,
            out,
            parts=parts,
            ranking=ranking,
            memory_gb=command.memory_gb,
            calibrate=True,
            progress=bars.progress,
        )


def _report(command: Report, console: Console) -> None:
    from jaxheads import runs

    if not command.run:
        raise UserError(
            "report takes a run's folder, or several to compare, but none was given"
        )
    loaded = [runs.load(path) for path in command.run]
    if len(loaded) == 1:
        from jaxheads.studies.report import write_report

        console.print(f"run     {loaded[0].path}", soft_wrap=True)
        with _page_alone(command.out, loaded[0].path):
            made = write_report(loaded[0], command.out, command.figures)
        _say_page(made, command.figures, console)
        return
    if command.out is None:
        raise UserError(
            f"a page on {len(loaded)} runs belongs to none of their folders: give its "
            "file, such as --out page.html"
        )
    from jaxheads.report.tables import printed
    from jaxheads.studies.report import write_comparison
    from jaxheads.studies.several_runs import agreement

    with _page_alone(command.out):
        page = write_comparison(loaded, command.out, command.figures)
    if seeds := agreement.table(loaded):
        _wide_console(120).print(printed(seeds))
    _say_page(page, command.figures, console)


def _page_alone(page: Path | None, run: Path = Path()) -> AbstractContextManager[None]:
    """Keep other processes from writing a page, by default one in a run's folder."""
    from jaxheads.runs.locks import alone

    if page is None:
        return alone(run, "--out")
    page.parent.mkdir(parents=True, exist_ok=True)
    return alone(page.parent, "--out", f".{page.name}.lock")


def _compare(command: Compare, console: Console) -> None:
    from jaxheads import runs
    from jaxheads.cli.tables import print_comparison
    from jaxheads.heads import comparison
    from jaxheads.heads.rankings import read_two

    if command.out is not None and command.out.suffix != ".json":
        raise UserError(f"--out must be a .json file, not {command.out}")
    by = "magnitude" if command.magnitude else "largest"
    b, score_b = command.b or command.a, command.score_b or command.score
    one, other = read_two(command.a, b, command.score, score_b)
    for ranking in (one, other):
        ranking.check_fractions(command.fraction)
    made = comparison.compare(one, other, command.fraction, by=by)
    print_comparison(made, _wide_console(120))
    if command.out is not None:
        command.out.parent.mkdir(parents=True, exist_ok=True)
        runs.write_json(command.out, made.to_dict())
        console.print(f"written {command.out}", soft_wrap=True)


def _export(command: Export, console: Console) -> None:
    from jaxheads.heads.rankings import read_ranking, write_ranking

    read = read_ranking(command.source, command.score)
    sha256 = read.params_sha256
    write_ranking(command.out, read.scores, model=read.model, params_sha256=sha256)
    console.print(f"written {command.out}", soft_wrap=True)


def _convert(command: Convert, console: Console) -> None:
    from jaxheads.runs.unfinished import free_folder
    from jaxheads.weights.store import is_store, open_store, save

    # The same command may have been stopped, or killed, when all was written.
    there = open_store(command.out) if is_store(command.out) else None
    if there is None or there.provenance["source"] != command.source:
        there = None
        free_folder(command.out)  # told before a model is fetched and read
    from jaxheads.engine.progress import status
    from jaxheads.weights.model import load

    with status(console, f"loading {command.source}"):
        model = load(command.source, command.revision, command.dtype)
    if there is None or there.params_sha256 != model.provenance.params_sha256:
        with status(console, f"writing {command.out}"):
            save(model, command.out)
    console.print(f"model   {command.out}", soft_wrap=True)


def _inspect(command: Inspect, console: Console) -> None:
    from jaxheads.weights.inspection import inspect_source, print_inspection

    with console.status(Text(f"opening {command.source}")):
        found = inspect_source(command.source, command.revision)
    print_inspection(found, _wide_console())
    if found.refusal:
        raise UserError(found.refusal)
    print("loadable: yes")


def _doctor(command: Doctor, console: Console) -> None:
    if command.out is not None and command.out.suffix != ".json":
        raise UserError(f"--out must be a .json file, not {command.out}")
    from jaxheads import runs
    from jaxheads.engine.devices import make_mesh
    from jaxheads.engine.progress import status
    from jaxheads.studies.doctor import examine, print_checks
    from jaxheads.weights.model import load

    with status(console, f"loading {command.source}"):
        mesh = make_mesh(command.mesh)
        model = load(command.source, command.revision, command.dtype, mesh)
    with status(console, "checking"):
        checks = examine(model, command.seed)
    print_checks(checks, _wide_console(150))
    if command.out is not None:
        command.out.parent.mkdir(parents=True, exist_ok=True)
        told = {"source": command.source, "dtype": command.dtype, "mesh": command.mesh}
        rows = [dataclasses.asdict(check) for check in checks]
        runs.write_json(command.out, told | {"checks": rows})
        console.print(f"written {command.out}", soft_wrap=True)
    if any(check.holds is False for check in checks):
        sys.exit(1)


def _wide_console(width: int = 180) -> Console:
    """Standard output; a file or a pipe is wide enough that no row is broken."""
    return _Console(width=None if sys.stdout.isatty() else width, markup=False)


def _write_report(
    finished: "runs.Run", console: Console, figures: FigureFormat | None = None
) -> None:
    """The page of a run that was computed just now, where it can be made."""
    from jaxheads.report.page import missing_packages
    from jaxheads.studies.report import write_report

    console.print(f"run     {finished.path}", soft_wrap=True)
    if missing := missing_packages():
        console.print(f"no page: {_later(missing)}", soft_wrap=True)
        return
    _say_page(write_report(finished, figures=figures), figures, console)


def _say_page(page: Path, figures: FigureFormat | None, console: Console) -> None:
    from jaxheads.report.page import figures_folder

    console.print(f"report  {page}", soft_wrap=True)
    if figures is not None:
        console.print(f"figures {figures_folder(page)}", soft_wrap=True)

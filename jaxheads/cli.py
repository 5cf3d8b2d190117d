"""The command line: a subcommand a study, with the study's config; and for models.

Nothing heavy is imported before a command runs, so that ``--help`` is quick.
"""

import dataclasses
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro
from rich.console import Console
from rich.markup import escape

from jaxheads.studies.config import (
    AblationConfig,
    ScoresConfig,
    StudyConfig,
    TokenLossConfig,
)

if TYPE_CHECKING:
    from jaxheads import runs

DEFAULT_MODEL = "smollm2-135m-instruct"


@dataclasses.dataclass(frozen=True)
class _Command:
    """What every command that runs a model takes."""

    source: tyro.conf.Positional[str] = DEFAULT_MODEL
    """A name that `jaxheads models` lists, a .gguf file, a folder in hub layout or of
    `jaxheads convert`, or a hub id owner/name."""
    revision: str | None = None
    """Of a preset or a hub id, such as step1000."""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Of the params."""
    out: Annotated[Path | None, tyro.conf.arg(aliases=["-o"])] = None
    """The run's folder; default: runs/MODEL-COMMAND."""
    memory_gb: float = 2.0
    """Memory for activations, besides the params."""
    shots: int = 10
    """Demonstrations a prompt."""
    seed: int = 0
    """Of every random choice."""
    tasks: Path | None = None
    """Folder with the reference studies' JSON task files; default: built-in tasks."""
    text: Path | None = None
    """Documents: .txt, a folder of them, .jsonl or .parquet; default: Python's own
    manual, pydoc_data.topics."""
    bos: bool | None = None
    """Put the token that begins a sequence first; default: as the model's tokenizer."""


@dataclasses.dataclass(frozen=True)
class _Ranked(_Command):
    """What every command that takes rankings of heads takes."""

    ranking: Path | None = None
    """A run of the same model whose scores are taken; default: score first."""


@dataclasses.dataclass(frozen=True)
class Study(_Ranked):
    """Score every head, ablate the top ones, measure what is left; write a report."""

    scores: ScoresConfig = ScoresConfig()
    ablation: AblationConfig = AblationConfig()
    token_loss: TokenLossConfig = TokenLossConfig()


@dataclasses.dataclass(frozen=True)
class Score(_Command):
    """Score every head: function vector, induction, previous token."""

    scores: ScoresConfig = ScoresConfig()


@dataclasses.dataclass(frozen=True)
class Ablate(_Ranked):
    """Few-shot accuracy while sets of heads are replaced at the last position."""

    scores: ScoresConfig = ScoresConfig()
    ablation: AblationConfig = AblationConfig()


@dataclasses.dataclass(frozen=True)
class TokenLoss(_Ranked):
    """Loss at an early minus a late token of documents, heads replaced everywhere."""

    scores: ScoresConfig = ScoresConfig()
    token_loss: TokenLossConfig = TokenLossConfig()


@dataclasses.dataclass(frozen=True)
class Report:
    """Make a finished run's report again, without a model."""

    run: tyro.conf.Positional[Path]
    """The run's folder."""


@dataclasses.dataclass(frozen=True)
class Convert:
    """Write a model once so that it loads fast, in any dtype and on any devices."""

    source: tyro.conf.Positional[str]
    """As for the other commands."""
    out: tyro.conf.Positional[Path]
    """A new folder; it is then a source like any other."""
    revision: str | None = None
    """Of a preset or a hub id, such as step1000."""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """In which the params are stored; they load in any."""


@dataclasses.dataclass(frozen=True)
class Models:
    """List the models that are known by name: sizes, hub ids, checkpoints."""


@dataclasses.dataclass(frozen=True)
class Inspect:
    """Say what a source holds and why it would be refused; reads no weights."""

    source: tyro.conf.Positional[str] = DEFAULT_MODEL
    """As for the other commands."""
    revision: str | None = None
    """Of a preset or a hub id, such as step1000."""


_COMMANDS = {
    "study": Study,
    "score": Score,
    "ablate": Ablate,
    "token-loss": TokenLoss,
    "report": Report,
    "convert": Convert,
    "models": Models,
    "inspect": Inspect,
}
_PARTS = {
    Study: ("scores", "ablation", "token_loss"),
    Score: ("scores",),
    Ablate: ("scores", "ablation"),
    TokenLoss: ("scores", "token_loss"),
}
_NAMES = {kind: name for name, kind in _COMMANDS.items()}


def run(arguments: list[str] | None = None) -> None:
    """Parse the arguments and run the command."""
    command = tyro.extras.subcommand_cli_from_dict(
        _COMMANDS,
        prog="jaxheads",
        description="Which attention heads carry in-context learning? Every head, "
        "every subset, exactly.",
        args=arguments,
    )
    console = Console(stderr=True)
    match command:
        case Report():
            from jaxheads import runs

            _write_report(runs.load(command.run), console)
        case Convert():
            _convert(command, console)
        case Models():
            from jaxheads.presets import table

            _wide_console().print(table())
        case Inspect():
            _inspect(command, console)
        case _:
            _run_study(command, console)


def study_config(command: _Command) -> StudyConfig:
    """The part of a command that decides the numbers."""
    parts = ("scores", "ablation", "token_loss")
    given = {name: getattr(command, name) for name in parts if hasattr(command, name)}
    return StudyConfig(
        **given,
        shots=command.shots,
        seed=command.seed,
        tasks=command.tasks,
        text=command.text,
        bos=command.bos,
    )


def _run_study(command: _Command, console: Console) -> None:
    config = study_config(command)  # a mistake in it is told before jax starts
    ranking = None
    if isinstance(command, _Ranked) and command.ranking is not None:
        from jaxheads import runs

        ranking = runs.load(command.ranking)
    parts = _PARTS[type(command)]
    if ranking is not None:
        parts = tuple(part for part in parts if part != "scores")

    from jaxheads.model import load
    from jaxheads.progress import Bars
    from jaxheads.study import run_study
    from jaxheads.tables import print_run

    with console.status(escape(f"loading {command.source}")):
        model = load(command.source, command.revision, command.dtype)
    out = command.out or _default_folder(command)
    with Bars(console) as bars:
        finished = run_study(
            model,
            config,
            out,
            parts=parts,
            ranking=ranking,
            memory_gb=command.memory_gb,
            progress=bars.progress,
        )
    print_run(finished, _wide_console(120))
    _write_report(finished, console)


def _convert(command: Convert, console: Console) -> None:
    from jaxheads.weights.unfinished import free_folder

    free_folder(command.out)  # told before a model is fetched and read
    from jaxheads.model import load
    from jaxheads.weights.store import save

    try:
        with console.status(escape(f"loading {command.source}")):
            model = load(command.source, command.revision, command.dtype)
        with console.status(escape(f"writing {command.out}")):
            save(model, command.out)
    except KeyboardInterrupt:
        raise KeyboardInterrupt("nothing was written") from None
    console.print(f"model   {command.out}", soft_wrap=True, markup=False)


def _inspect(command: Inspect, console: Console) -> None:
    from jaxheads.errors import UserError
    from jaxheads.inspection import inspect_source, print_inspection

    with console.status(escape(f"opening {command.source}")):
        found = inspect_source(command.source, command.revision)
    print_inspection(found, _wide_console())
    if found.refusal:
        raise UserError(found.refusal)
    print("loadable: yes")


def _wide_console(width: int = 180) -> Console:
    """Standard output; a file or a pipe is wide enough that no row is broken."""
    return Console(width=None if sys.stdout.isatty() else width)


def _default_folder(command: _Command) -> Path:
    """Such as runs/pythia-160m-step1000-study."""
    name = Path(command.source).name.removesuffix(".gguf")
    words = [name, command.revision or "", _NAMES[type(command)]]
    safe = re.sub(r"[^A-Za-z0-9._-]+", "-", "-".join(filter(None, words)))
    return Path("runs") / safe


def _write_report(finished: "runs.Run", console: Console) -> None:
    from jaxheads.report import write_report

    console.print(f"run     {finished.path}", soft_wrap=True)
    console.print(f"report  {write_report(finished)}", soft_wrap=True)

"""The commands and their options, as dataclasses; light to import.

A field's docstring is its help text. The commands of studies stand with their studies.
"""

import argparse
import dataclasses
import functools
import operator
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from jaxheads.errors import UserError
from jaxheads.scores.config import ScoresConfig
from jaxheads.studies import registry
from jaxheads.studies.ablation.config import AblationConfig
from jaxheads.studies.function_vectors.config import ExecutionConfig
from jaxheads.studies.options import (
    DEFAULT_MODEL,
    DEFAULT_PROTOCOL,
    ComputingCommand,
    FigureFormat,
    ProtocolCommand,
    RankedCommand,
)
from jaxheads.studies.protocols import PROTOCOLS
from jaxheads.studies.token_loss.config import TokenLossConfig


@dataclasses.dataclass(frozen=True)
class Study(RankedCommand, ProtocolCommand):
    """Score every head, ablate the top ones, measure what is left; write a report."""

    parts = ("scores", "ablation", "token_loss", "execution")

    scores: ScoresConfig = ScoresConfig()
    ablation: AblationConfig = AblationConfig()
    token_loss: TokenLossConfig = TokenLossConfig()
    execution: ExecutionConfig = ExecutionConfig(tasks=())


@dataclasses.dataclass(frozen=True)
class Report:
    """Make a finished run's report again, or compare runs; without a model."""

    run: tyro.conf.Positional[tuple[Path, ...]]
    """The run's folder; several: one page that compares them."""
    out: Annotated[Path | None, tyro.conf.arg(aliases=["-o"])] = None
    """The page's file; default, of one run: report.html in its folder."""
    figures: FigureFormat | None = None
    """Write every figure and its numbers (.csv), too, into the folder figures beside
    report.html; with --out PAGE.html into PAGE-figures."""


@dataclasses.dataclass(frozen=True)
class Compare:
    """Compare two rankings of the same heads: their overlap, order and depth."""

    a: tyro.conf.Positional[Path]
    """A run's folder, or a ranking: .json, .csv, a published code's fv.pkl,
    indirect_effect.pt, or list of heads (.json, .txt, .py)."""
    b: tyro.conf.Positional[Path | None] = None
    """The other; default: A again, with --score-b."""
    score: str | None = None
    """Of a run; default: function_vector. A saved ranking has its own."""
    score_b: str | None = None
    """Of B; default: as --score."""
    fraction: tuple[float, ...] = (0.02, 0.05, 0.1)
    """Shares of all heads whose top sets are compared."""
    magnitude: bool = False
    """Rank by the size of a score, whatever its sign."""
    out: Annotated[Path | None, tyro.conf.arg(aliases=["-o"])] = None
    """A .json file to write, too."""


@dataclasses.dataclass(frozen=True)
class Export:
    """Write a ranking for other programs: every head's score and standard error."""

    source: tyro.conf.Positional[Path]
    """A run's folder, or any ranking that compare reads."""
    out: tyro.conf.Positional[Path]
    """A .json file, with what the score means, or a .csv table."""
    score: str | None = None
    """Of a run; default: function_vector. A file has its own."""


@dataclasses.dataclass(frozen=True)
class Convert(ComputingCommand):
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
class Tasks:
    """List the tasks: kind, number of items and answers, source, first item."""

    folder: tyro.conf.Positional[Path | None] = None
    """Folder with JSON task files; default: the built-in tasks."""


@dataclasses.dataclass(frozen=True)
class Protocols:
    """List the papers' protocols: their numbers, and where code and text differ."""


@dataclasses.dataclass(frozen=True)
class Inspect:
    """Say what a source holds and why it would be refused; reads no weights."""

    source: tyro.conf.Positional[str] = DEFAULT_MODEL
    """As for the other commands."""
    revision: str | None = None
    """Of a preset or a hub id, such as step1000."""


@dataclasses.dataclass(frozen=True)
class Doctor:
    """Check a model as it runs here: exact in its dtype, on its devices, as text."""

    source: tyro.conf.Positional[str] = DEFAULT_MODEL
    """As for the other commands."""
    revision: str | None = None
    """Of a preset or a hub id, such as step1000."""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Of the params."""
    mesh: str | None = None
    """Devices, as for the other commands."""
    seed: int = 0
    """Of the prompts."""
    out: Annotated[Path | None, tyro.conf.arg(aliases=["-o"])] = None
    """A .json file to write, too."""


def commands() -> dict[str, type]:
    """Every command's options, by its name."""
    return {
        "study": Study,
        **registry.commands(),
        "report": Report,
        "compare": Compare,
        "export": Export,
        "convert": Convert,
        "models": Models,
        "tasks": Tasks,
        "protocols": Protocols,
        "inspect": Inspect,
        "doctor": Doctor,
    }


def name_of(command: object) -> str:
    """The name of a command by which options were given."""
    return next(name for name, kind in commands().items() if kind is type(command))


def parse(arguments: list[str] | None = None) -> Any:
    """The command, with the protocol that it names as the default of its options.

    Raises:
        UserError: there is no such protocol.
    """
    given = sys.argv[1:] if arguments is None else arguments
    protocol = _protocol(given)
    kinds = []
    for name, kind in commands().items():
        marker = tyro.conf.subcommand(name)
        if issubclass(kind, ProtocolCommand):
            default = kind.of_protocol(PROTOCOLS[protocol])
            marker = tyro.conf.subcommand(name, default=default)
        kinds.append(Annotated[kind, marker])
    return tyro.cli(
        functools.reduce(operator.or_, kinds),  # type: ignore[arg-type]
        prog="jaxheads",
        description="Which attention heads carry in-context learning? Every head, "
        "every subset, exactly.",
        args=given,
    )


def _protocol(arguments: list[str]) -> str:
    """What ``--protocol`` says, read before the options that it gives defaults to."""
    reader = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    reader.add_argument("--protocol", nargs="?", default=DEFAULT_PROTOCOL)
    # Without a name behind it, tyro says so.
    name = reader.parse_known_args(arguments)[0].protocol or DEFAULT_PROTOCOL
    if name not in PROTOCOLS:
        raise UserError(
            f"--protocol takes one of {', '.join(PROTOCOLS)}, not {name!r}: `jaxheads "
            "protocols` tells them apart"
        )
    return name

"""Arguments to a command, whose options' defaults are those of a protocol."""

import dataclasses
import functools
import operator
import sys
from typing import Annotated, Any

import tyro

from jaxheads.commands import (
    COMMANDS,
    WHOLE_MODEL,
    Dynamics,
    Execution,
    ProtocolCommand,
)
from jaxheads.errors import UserError
from jaxheads.studies.config import StudyConfig
from jaxheads.studies.protocols import DEFAULT, PROTOCOLS


def parse(arguments: list[str] | None = None) -> Any:
    """The command, with the protocol that it names as the default of its options.

    Raises:
        UserError: there is no such protocol.
    """
    given = sys.argv[1:] if arguments is None else arguments
    protocol = _protocol(given)
    kinds = []
    for name, kind in COMMANDS.items():
        marker = tyro.conf.subcommand(name)
        if issubclass(kind, ProtocolCommand):
            default = _with_defaults(kind, protocol)
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
    name = DEFAULT
    for index, word in enumerate(arguments):
        option, equals, value = word.partition("=")
        if option == "--protocol" and (equals or index + 1 < len(arguments)):
            name = value if equals else arguments[index + 1]
    if name not in PROTOCOLS:
        raise UserError(
            f"--protocol takes one of {', '.join(PROTOCOLS)}, not {name!r}: `jaxheads "
            "protocols` tells them apart"
        )
    return name


def _with_defaults(kind: type, protocol: str) -> object:
    """A command as it is when nothing is asked for but a protocol."""
    config = PROTOCOLS[protocol]
    options = {field.name for field in dataclasses.fields(StudyConfig)}
    options &= {field.name for field in dataclasses.fields(kind)}
    if kind is Execution and not config.execution.tasks:
        options.remove("execution")  # a part of no study, but what this command does
    given = {name: getattr(config, name) for name in options}
    if kind is Dynamics:
        given["source"] = tyro.MISSING
        given["ablation"] = dataclasses.replace(config.ablation, **WHOLE_MODEL)
    return kind(**given)

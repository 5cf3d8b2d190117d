"""What the options of commands share, as dataclasses; light to import.

A field's docstring is its help text.
"""

import dataclasses
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

import tyro

from jaxheads.studies.config import Shared, StudyConfig

FigureFormat = Literal["pdf", "svg", "png", "csv"]

DEFAULT_MODEL = "smollm2-135m-instruct"
DEFAULT_PROTOCOL = "quick"
"""The protocol of a command that names none."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ComputingCommand:
    """What every command that computes for a while takes."""

    quiet: bool = False
    """Show warnings, errors and the result alone."""
    verbose: bool = False
    """Tell each part of the work that is done, and its seconds."""
    stop_after: float | None = None
    """Hours after which it stops as by Ctrl-C, at the next safe place with exit code
    130; the same command goes on. For machines that are taken away."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class FiguresCommand:
    """What every command that writes a run's page takes."""

    figures: FigureFormat | None = None
    """Write every figure of the report and its numbers (.csv) into the run's folder
    figures, too; csv: the numbers alone."""


@dataclasses.dataclass(frozen=True)
class ModelCommand(FiguresCommand, ComputingCommand):
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
    memory_gb: float | None = None
    """Memory for activations on each device, besides the params; default: a share of
    what is free."""
    mesh: str | None = None
    """Devices: data=4,model=2 or 4x2 splits prompts and subsets over 4, params over 2;
    default: every accelerator on data."""


@dataclasses.dataclass(frozen=True)
class StudyCommand(Shared, ModelCommand):
    """What every command of a study of a model takes, or of several."""

    parts: ClassVar[tuple[str, ...]]
    """The studies that it runs."""

    def config(self) -> StudyConfig:
        """The part of the options that decides the numbers."""
        named = [*StudyConfig().options(), "protocol"]
        given = {name: getattr(self, name) for name in named if hasattr(self, name)}
        return StudyConfig(**given)


@dataclasses.dataclass(frozen=True)
class RankedCommand(StudyCommand):
    """What every command that takes rankings of heads takes."""

    ranking: Path | None = None
    """A run of the same model whose scores are taken; default: score first."""


@dataclasses.dataclass(frozen=True)
class ProtocolCommand(StudyCommand):
    """What every command that a protocol has options for takes."""

    protocol: str = DEFAULT_PROTOCOL
    """Whose numbers the other options begin with: quick, yin2025, yin2025-code or
    todd2024; `jaxheads protocols` tells them apart."""

    @classmethod
    def of_protocol(cls, config: StudyConfig, **others: Any) -> Self:
        """The command as it is when nothing is asked for but a protocol.

        Args:
            config: of the protocol.
            **others: options that the command has otherwise.
        """
        own = {field.name for field in dataclasses.fields(cls)}
        given = {name: one for name, one in config.options().items() if name in own}
        return cls(**(given | others))


def default_folder(command: ModelCommand, name: str) -> Path:
    """Where a command puts its run, such as runs/pythia-160m-step1000-study.

    Args:
        command: with its options.
        name: of the command.
    """
    from jaxheads import runs  # NumPy, which no help needs

    source = Path(command.source).name.removesuffix(".gguf")
    return runs.default_folder(source, command.revision or "", name)

"""The commands and their options, as dataclasses; light to import.

A field's docstring is its help text.
"""

import dataclasses
import functools
import operator
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from jaxheads.errors import UserError
from jaxheads.icl.task_names import TemplateName
from jaxheads.scores.config import ScoresConfig
from jaxheads.studies.ablation.config import AblationConfig, TokenLossConfig
from jaxheads.studies.attribution.config import AttributionConfig
from jaxheads.studies.compare_runs.config import ArmsConfig
from jaxheads.studies.config import StudyConfig
from jaxheads.studies.function_vectors.config import ExecutionConfig
from jaxheads.studies.protocols import DEFAULT, PROTOCOLS
from jaxheads.studies.redundancy.config import RedundancyConfig
from jaxheads.studies.six_arguments.config import ArgumentsConfig
from jaxheads.training.config import (
    DataChoice,
    EvidenceConfig,
    ModelChoice,
    TrainConfig,
)

FigureFormat = Literal["pdf", "svg", "png", "csv"]

DEFAULT_MODEL = "smollm2-135m-instruct"


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


@dataclasses.dataclass(frozen=True)
class StudyCommand(ComputingCommand):
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
    shots: int = 10
    """Demonstrations a prompt."""
    seed: int = 0
    """Of every random choice."""
    drawing: Literal["jaxheads", "published"] = "jaxheads"
    """How items are split and drawn for scores and few-shot accuracy; published: as the
    reference study's code does, item for item."""
    targets: Literal["informative", "published"] = "informative"
    """What counts as an answer's first token: the first after those that all answers of
    its task begin with, which go to the prompt; published: the first of the answer,
    though in some tokenizers all answers begin with it."""
    template: TemplateName = "qa"
    """How prompts are written; qa is the papers' (Q: x, A: y)."""
    no_label_overlap: bool = False
    """When accuracy is measured, leave out demonstrations whose label is the query's
    answer; prompts that heads are scored by stay."""
    tasks: Path | None = None
    """Folder with the reference studies' JSON task files; default: built-in tasks."""
    text: Path | None = None
    """Documents: .txt, a folder of them, .jsonl or .parquet; default: Python's own
    manual, pydoc_data.topics."""
    bos: bool | None = None
    """Put the token that begins a sequence first; default: as the model's tokenizer."""
    figures: FigureFormat | None = None
    """Write every figure of the report and its numbers (.csv) into the run's folder
    figures, too; csv: the numbers alone."""


@dataclasses.dataclass(frozen=True)
class RankedCommand(StudyCommand):
    """What every command that takes rankings of heads takes."""

    ranking: Path | None = None
    """A run of the same model whose scores are taken; default: score first."""


@dataclasses.dataclass(frozen=True)
class ProtocolCommand:
    """What every command that a protocol has options for takes."""

    protocol: str = DEFAULT
    """Whose numbers the other options begin with: quick, yin2025, yin2025-code or
    todd2024; `jaxheads protocols` tells them apart."""


@dataclasses.dataclass(frozen=True)
class Study(RankedCommand, ProtocolCommand):
    """Score every head, ablate the top ones, measure what is left; write a report."""

    scores: ScoresConfig = ScoresConfig()
    ablation: AblationConfig = AblationConfig()
    token_loss: TokenLossConfig = TokenLossConfig()
    execution: ExecutionConfig = ExecutionConfig(tasks=())


@dataclasses.dataclass(frozen=True)
class Score(StudyCommand, ProtocolCommand):
    """Score every head: function vector, induction, previous token."""

    scores: ScoresConfig = ScoresConfig()


@dataclasses.dataclass(frozen=True)
class Ablate(RankedCommand, ProtocolCommand):
    """Few-shot accuracy while sets of heads are replaced at the last position."""

    scores: ScoresConfig = ScoresConfig()
    ablation: AblationConfig = AblationConfig()


@dataclasses.dataclass(frozen=True)
class TokenLoss(RankedCommand, ProtocolCommand):
    """Loss at an early minus a late token of documents, heads replaced everywhere."""

    scores: ScoresConfig = ScoresConfig()
    token_loss: TokenLossConfig = TokenLossConfig()


@dataclasses.dataclass(frozen=True)
class Execution(RankedCommand, ProtocolCommand):
    """Carry tasks out by function vectors: added to prompts that do not show them."""

    scores: ScoresConfig = ScoresConfig()
    execution: ExecutionConfig = ExecutionConfig()


@dataclasses.dataclass(frozen=True)
class Redundancy(RankedCommand):
    """How the top heads work together: pairs, smallest sets, Shapley values."""

    scores: ScoresConfig = ScoresConfig()
    redundancy: RedundancyConfig = RedundancyConfig()


@dataclasses.dataclass(frozen=True)
class Attribution(StudyCommand):
    """Effects of all heads estimated from gradients, verified exactly on some."""

    attribution: AttributionConfig = AttributionConfig()


WHOLE_MODEL = dict(
    fractions=(), exclusions=(), exclusions_at=(), keep_only=(), draws=0,
    matched_to=(), zero_shot=False,
)  # fmt: skip
"""Of the ablations of a protocol: none, but the accuracy with no head replaced."""


@dataclasses.dataclass(frozen=True)
class Dynamics(StudyCommand, ProtocolCommand):
    """Score the heads of every checkpoint of a training; few-shot accuracy beside."""

    source: tyro.conf.Positional[str] = tyro.MISSING
    """A preset or a hub id whose checkpoints are revisions; a folder with one
    sub-folder a checkpoint, such as step1000, here or in its checkpoints/; or a run of
    `jaxheads train` on text or on function-mixture, whose functions are the tasks."""
    steps: tuple[int, ...] = ()
    """Of the training; default: all of a folder, the paper's eight of Pythia."""
    seeds: tuple[int, ...] = ()
    """Of a run of `jaxheads train`; default: all, each in a folder of its own."""
    revision_pattern: str = "step{step}"
    """How the hub's revisions are named; * stands for anything."""
    few_shot: bool = True
    """Measure few-shot accuracy of the whole model, too."""
    missing: Literal["error", "skip"] = "error"
    """What to do about steps that do not exist."""
    compare_main: bool = True
    """Of the hub's: load the main branch, too, if the last checkpoint is among the
    steps, and say if their weights differ."""
    delete: bool = False
    """Delete the hub's files of each checkpoint afterwards, if they were fetched for
    it: room for one is enough."""
    scores: ScoresConfig = ScoresConfig()
    ablation: AblationConfig = dataclasses.replace(AblationConfig(), **WHOLE_MODEL)  # pyright: ignore[reportArgumentType]
    """The few-shot tasks; fractions and the like: ablations at every step."""


@dataclasses.dataclass(frozen=True)
class Train(ComputingCommand):
    """Train small models from scratch, several seeds at once; go on after a stop."""

    model: Annotated[ModelChoice, tyro.conf.arg(name="")] = ModelChoice()
    data: Annotated[DataChoice, tyro.conf.arg(name="")] = DataChoice()
    training: Annotated[TrainConfig, tyro.conf.arg(name="")] = TrainConfig()
    evidence: Annotated[EvidenceConfig, tyro.conf.arg(name="")] = EvidenceConfig()
    out: Annotated[Path | None, tyro.conf.arg(aliases=["-o"])] = None
    """The run's folder; default: runs/MODEL-OBJECTIVE-train. Its checkpoints are
    sources for the other commands."""
    mesh: str | None = None
    """Devices: data=4,model=2 or 4x2 splits seeds, or a batch, over 4, params over 2;
    default: every accelerator on data, or, of several seeds, every core of a CPU."""


@dataclasses.dataclass(frozen=True)
class CompareRuns(ComputingCommand):
    """Compare trainings on the same data and seeds, such as hapax against vanilla."""

    run: tyro.conf.Positional[tuple[Path, ...]]
    """Folders that `jaxheads train` wrote, two or more, the reference first."""
    arms: Annotated[ArmsConfig, tyro.conf.arg(name="")] = ArmsConfig()
    out: Annotated[Path | None, tyro.conf.arg(aliases=["-o"])] = None
    """The run's folder; default: runs/REFERENCE-OTHER-compare-runs."""
    figures: FigureFormat | None = None
    """Write every figure of the report and its numbers (.csv) into the run's folder
    figures, too; csv: the numbers alone."""


@dataclasses.dataclass(frozen=True)
class Evidence(ComputingCommand):
    """Ask Olsson et al.'s six arguments on induction heads of finished trainings."""

    run: tyro.conf.Positional[tuple[Path, ...]]
    """Folders that `jaxheads train` wrote, measured on the same held-out windows:
    architectures and sizes to compare."""
    arguments: Annotated[ArgumentsConfig, tyro.conf.arg(name="")] = ArgumentsConfig()
    out: Annotated[Path, tyro.conf.arg(aliases=["-o"])] = Path("runs/evidence")
    """The run's folder."""
    figures: FigureFormat | None = None
    """Write every figure of the report and its numbers (.csv) into the run's folder
    figures, too; csv: the numbers alone."""


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


COMMANDS = {
    "study": Study,
    "score": Score,
    "ablate": Ablate,
    "token-loss": TokenLoss,
    "execution": Execution,
    "redundancy": Redundancy,
    "attribution": Attribution,
    "dynamics": Dynamics,
    "train": Train,
    "evidence": Evidence,
    "compare-runs": CompareRuns,
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
PARTS: dict[type, tuple[str, ...]] = {
    Study: ("scores", "ablation", "token_loss", "execution"),
    Score: ("scores",),
    Ablate: ("scores", "ablation"),
    TokenLoss: ("scores", "token_loss"),
    Execution: ("scores", "execution"),
    Redundancy: ("scores", "redundancy"),
    Attribution: ("attribution",),
}
NAMES = {kind: name for name, kind in COMMANDS.items()}


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

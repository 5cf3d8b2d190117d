"""What can be chosen in the studies; light to import, for the command line."""

import dataclasses
import math
from pathlib import Path
from typing import Literal

from jaxheads.errors import MOST_TOKENS, UserError, check_counts
from jaxheads.icl.task_names import TemplateName
from jaxheads.scores.config import (
    ATTRIBUTION_METHODS,
    EXTRA_SCORES,
    USUAL_SCORES,
    ScoresConfig,
)
from jaxheads.studies.ablation.config import AblationConfig, TokenLossConfig
from jaxheads.studies.attribution.config import AttributionConfig
from jaxheads.studies.function_vectors.config import ExecutionConfig
from jaxheads.studies.redundancy.config import RedundancyConfig


def check(config: "StudyConfig") -> None:
    """Raise UserError unless a config makes sense, whatever the model."""
    shared = sorted(set(config.scores.tasks) & set(config.ablation.tasks))
    if shared:
        raise UserError(
            "scoring and evaluation tasks must be disjoint, but both have "
            f"{', '.join(shared)}: drop them from --scores.tasks or "
            "--ablation.tasks"
        )
    for name, fractions in (
        ("--ablation.fractions", config.ablation.fractions),
        ("--ablation.keep-only", config.ablation.keep_only),
        ("--token-loss.fractions", config.token_loss.fractions),
        ("--ablation.exclusion", (config.ablation.exclusion,)),
        ("--ablation.exclusions-at", config.ablation.exclusions_at),
        ("--ablation.exclusions", config.ablation.exclusions),
        ("--token-loss.exclusion", (config.token_loss.exclusion,)),
    ):
        wrong = [value for value in fractions if not 0 <= value <= 1]
        if wrong:
            raise UserError(
                f"{name} takes shares of heads between 0 and 1, not {wrong[0]}"
            )
    sizes = (config.execution.size, *config.execution.sizes)
    for name, size in zip(("size", *["sizes"] * len(sizes)), sizes, strict=False):
        if not 0 < size <= 1:
            raise UserError(
                f"--execution.{name} takes shares of heads above 0 and at most 1, not "
                f"{size}"
            )
    if not 0 < config.redundancy.share <= 1:
        raise UserError(
            "--redundancy.share takes a share above 0 and at most 1, not "
            f"{config.redundancy.share}"
        )
    strange = [name for name in config.scores.names if name not in EXTRA_SCORES]
    if strange:
        raise UserError(
            f"--scores.names takes scores of {', '.join(EXTRA_SCORES)}, not "
            f"{strange[0]!r}"
        )
    on_ids = {"duplicate_token", "induction_value_weighted"} & {*config.scores.names}
    if config.scores.probe_tokens == "retokenized" and on_ids:
        raise UserError(
            f"--scores.names {min(on_ids)} is measured on the induction probe of token "
            "ids, not on one that went through text: leave it out, or give "
            "--scores.probe-tokens ids"
        )
    if config.drawing == "published":
        if "derangement" in (config.scores.corrupt, config.attribution.corrupt):
            raise UserError(
                "--drawing published shuffles labels by any permutation, as the code "
                "that it follows: leave out the derangement"
            )
        if config.no_label_overlap:
            raise UserError(
                "--no-label-overlap leaves out demonstrations, which --drawing "
                "published draws as they come: give one of the two"
            )
    methods, known = config.attribution.methods, ATTRIBUTION_METHODS
    if not methods or len(set(methods)) < len(methods) or set(methods) - {*known}:
        raise UserError(
            f"--attribution.methods takes different ones of {', '.join(known)}, "
            f"not {' '.join(methods)!r}"
        )
    same = {config.ablation.exclusion} & set(config.ablation.exclusions)
    if same or len(set(config.ablation.exclusions)) < len(config.ablation.exclusions):
        raise UserError(
            "--ablation.exclusions takes different shares, none of them that of "
            f"--ablation.exclusion, {config.ablation.exclusion:g}"
        )
    beside = set(config.token_loss.side_by_side) - set(config.token_loss.fractions)
    if beside:
        raise UserError(
            "--token-loss.side-by-side takes some of --token-loss.fractions, not "
            f"{min(beside):g}"
        )
    values = config.token_loss.values
    if not values or len(set(values)) < len(values):
        raise UserError(
            "--token-loss.values takes one or more different values, not "
            f"{' '.join(values)!r}"
        )
    early, late = config.token_loss.positions
    window = config.token_loss.window
    if window < 1 or window % 2 == 0 or window // 2 > early - 2:
        raise UserError(
            "--token-loss.window takes an odd number of tokens that begins after "
            f"the first, not {window} around token {early}"
        )
    if not early < late:
        raise UserError(
            "--token-loss.positions takes an early token and a later one, not "
            f"{early} and {late}"
        )
    check_counts(
        ("--scores.clean-prompts", config.scores.clean_prompts, 1),
        ("--scores.corrupted-prompts", config.scores.corrupted_prompts, 2),
        ("--scores.sequences", config.scores.sequences, 2),
        ("--scores.documents", config.scores.documents, 2),
        ("--scores.probe-sequences", config.scores.probe_sequences, 2),
        ("--scores.needles", config.scores.needles, 2),
        ("--scores.entities", config.scores.entities, 2),
        ("--scores.relation-texts", config.scores.relation_texts, 2),
        ("--ablation.prompts", config.ablation.prompts, 2),
        ("--ablation.draws", config.ablation.draws, 0),
        ("--ablation.draws-elsewhere", config.ablation.draws_elsewhere, 0),
        ("--ablation.exclusion-least", config.ablation.exclusion_least, 0),
        ("--token-loss.exclusion-least", config.token_loss.exclusion_least, 0),
        ("--token-loss.documents", config.token_loss.documents, 2),
        ("--token-loss.fill-documents", config.token_loss.fill_documents, 1),
        ("--token-loss.draws", config.token_loss.draws, 0),
        ("--token-loss.draws-elsewhere", config.token_loss.draws_elsewhere, 0),
        ("--execution.prompts", config.execution.prompts, 2),
        ("--execution.clean-prompts", config.execution.clean_prompts, 1),
        ("--execution.random-sets", config.execution.random_sets, 0),
        ("--execution.read-out", config.execution.read_out, 1),
        ("--redundancy.prompts", config.redundancy.prompts, 2),
        ("--redundancy.top", config.redundancy.top, 2),
        ("--redundancy.permutations", config.redundancy.permutations, 2),
        ("--attribution.clean-prompts", config.attribution.clean_prompts, 1),
        ("--attribution.corrupted-prompts", config.attribution.corrupted_prompts, 2),
        ("--attribution.steps", config.attribution.steps, 1),
        ("--attribution.top-k", config.attribution.top_k, 1),
        ("--attribution.sample", config.attribution.sample, 1),
        ("--shots", config.shots, 0),
    )
    check_counts(
        ("--scores.sequence-length", config.scores.sequence_length, 2),
        ("--scores.document-length", config.scores.document_length, 2),
        ("--scores.haystack-length", config.scores.haystack_length, 1),
        ("--ablation.max-new-tokens", config.ablation.max_new_tokens, 1),
        most=MOST_TOKENS,
    )
    check_counts(("--seed", config.seed, 0), most=math.inf)
    for name, tasks in (
        ("--scores.tasks", config.scores.tasks),
        ("--ablation.tasks", config.ablation.tasks),
        ("--execution.tasks", config.execution.tasks),
        ("--redundancy.tasks", config.redundancy.tasks),
        ("--attribution.tasks", config.attribution.tasks),
    ):
        # A study without function vectors at work names no tasks for them.
        least = 0 if name == "--execution.tasks" else 1
        if len(tasks) < least or len(set(tasks)) < len(tasks):
            raise UserError(
                f"{name} takes one or more different tasks, not {' '.join(tasks)!r}"
            )


@dataclasses.dataclass(frozen=True)
class StudyConfig:
    """Everything that decides a run's numbers, but the model."""

    scores: ScoresConfig = ScoresConfig()
    ablation: AblationConfig = AblationConfig()
    token_loss: TokenLossConfig = TokenLossConfig()
    execution: ExecutionConfig = ExecutionConfig()
    redundancy: RedundancyConfig = RedundancyConfig()
    attribution: AttributionConfig = AttributionConfig()
    shots: int = 10
    """Demonstrations a prompt."""
    seed: int = 0
    """Of every random choice."""
    protocol: str | None = None
    """Name of the protocol that the options began from; the options decide."""
    drawing: Literal["jaxheads", "published"] = "jaxheads"
    """How items are split and drawn for scores and few-shot accuracy; published: as the
    reference study's code does, item for item."""
    targets: Literal["informative", "published"] = "informative"
    """What counts as an answer's first token: the first after those that all answers of
    its task begin with, which go to the prompt; published: the first of the answer,
    though in some tokenizers all answers begin with it (what the reference studies'
    code does). Tasks whose first token is always the same are in no mean then."""
    template: TemplateName = "qa"
    r"""How prompts are written; qa is the papers' `Q: x\nA: y`."""
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

    def __post_init__(self):
        check(self)

    @property
    def score_names(self) -> tuple[str, ...]:
        """All scores that are computed, the usual ones first."""
        return (*USUAL_SCORES, *self.scores.names)

    def to_dict(self) -> dict:
        """The fields, nested, ready for JSON."""
        return {name: _plain(v) for name, v in dataclasses.asdict(self).items()}


def _plain(value):
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value

"""What can be chosen in the studies; light to import, for the command line."""

import dataclasses
from pathlib import Path
from typing import Literal

from jaxheads.errors import UserError

SCORING_TASKS = (
    "antonym",
    "country-capital",
    "english-french",
    "present-past",
    "singular-plural",
    "capitalize",
    "landmark-country",
    "choose_first_of_3",
)
EVALUATION_TASKS = (
    "synonym",
    "english-spanish",
    "park-country",
    "product-company",
    "person-sport",
    "national_parks",
    "sentiment",
    "capitalize_first_letter",
    "person-occupation",
    "animal_v_object_3",
    "choose_middle_of_3",
)


@dataclasses.dataclass(frozen=True)
class ScoresConfig:
    """Scores of every head: function vector, induction, previous token."""

    tasks: tuple[str, ...] = SCORING_TASKS
    """Tasks whose prompts give the function-vector score and the mean head outputs."""
    clean_prompts: int = 16
    """Clean prompts a task; their mean head outputs are what is patched in."""
    corrupted_prompts: int = 10
    """Prompts a task with shuffled labels, on which every head is patched."""
    corrupt: Literal["permutation", "derangement"] = "permutation"
    """How labels are shuffled; a permutation may leave some in place (the papers')."""
    sequences: int = 64
    """Random sequences of the induction probe."""
    sequence_length: int = 50
    """Random tokens of a sequence before they repeat."""
    documents: int = 16
    """Documents of the previous-token score."""
    document_length: int = 128
    """Tokens of a document in the previous-token score."""


@dataclasses.dataclass(frozen=True)
class AblationConfig:
    """Few-shot accuracy while sets of heads are replaced at the last position."""

    tasks: tuple[str, ...] = EVALUATION_TASKS
    """Tasks that are evaluated; none may be a scoring task."""
    prompts: int = 10
    """Prompts a task."""
    rankings: tuple[Literal["function_vector", "induction", "previous_token"], ...] = (
        "function_vector",
        "induction",
    )
    """Scores by which heads are taken; exclusion goes between the first two."""
    fractions: tuple[float, ...] = (0.01, 0.03, 0.05, 0.07, 0.09, 0.15, 0.20)
    """Shares of all heads that are replaced, each besides none."""
    exclusion: float = 0.02
    """Share of the other ranking's top heads that is dropped first."""
    keep_only: tuple[float, ...] = (0.02, 0.05)
    """Shares of heads that are kept while all others are replaced."""
    draws: int = 5
    """Random sets of each kind and size."""
    matched_to: tuple[str, ...] = ("function_vector",)
    """Rankings whose sets get random sets with the same number of heads a layer."""
    heads: tuple[str, ...] = ()
    """One more set to replace, by name, such as 20.5 18.6."""
    value: Literal["mean", "zero"] = "mean"
    """What replaces a head: its mean over the scoring tasks' clean prompts, or 0."""
    max_new_tokens: int = 5
    """Tokens of an answer, for F1."""
    f1_style: Literal["fixed", "yin2025"] = "fixed"
    """How answers are parsed for F1; yin2025 has the published code's quirks."""


@dataclasses.dataclass(frozen=True)
class TokenLossConfig:
    """Loss at an early token minus loss at a late one, heads replaced everywhere."""

    documents: int = 10
    """Documents that are scored."""
    fill_documents: int = 4
    """Other documents, which give the heads' mean outputs, pooled over positions."""
    positions: tuple[int, int] = (50, 500)
    """The early and the late token of a document, counted from 1, BOS not counted."""
    window: int = 21
    """Tokens around each of the two whose losses are averaged; 1: the papers'."""
    rankings: tuple[Literal["function_vector", "induction", "previous_token"], ...] = (
        "function_vector",
        "induction",
    )
    """Scores by which heads are taken."""
    fractions: tuple[float, ...] = (0.05,)
    """Shares of all heads that are replaced."""
    exclusion: float = 0.02
    """Share of the other ranking's top heads that is dropped first."""
    draws: int = 3
    """Random sets of each size."""
    values: tuple[Literal["mean", "zero"], ...] = ("mean", "zero")
    """What replaces a head."""


@dataclasses.dataclass(frozen=True)
class StudyConfig:
    """Everything that decides a run's numbers, but the model."""

    scores: ScoresConfig = ScoresConfig()
    ablation: AblationConfig = AblationConfig()
    token_loss: TokenLossConfig = TokenLossConfig()
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

    def __post_init__(self):
        shared = sorted(set(self.scores.tasks) & set(self.ablation.tasks))
        if shared:
            raise UserError(
                "scoring and evaluation tasks must be disjoint, but both have "
                f"{', '.join(shared)}: drop them from --scores.tasks or "
                "--ablation.tasks"
            )
        for name, fractions in (
            ("--ablation.fractions", self.ablation.fractions),
            ("--ablation.keep-only", self.ablation.keep_only),
            ("--token-loss.fractions", self.token_loss.fractions),
            ("--ablation.exclusion", (self.ablation.exclusion,)),
            ("--token-loss.exclusion", (self.token_loss.exclusion,)),
        ):
            wrong = [value for value in fractions if not 0 <= value <= 1]
            if wrong:
                raise UserError(
                    f"{name} takes shares of heads between 0 and 1, not {wrong[0]}"
                )
        early, late = self.token_loss.positions
        window = self.token_loss.window
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
        for name, count, least in (
            ("--scores.clean-prompts", self.scores.clean_prompts, 1),
            ("--scores.corrupted-prompts", self.scores.corrupted_prompts, 2),
            ("--scores.sequences", self.scores.sequences, 2),
            ("--scores.sequence-length", self.scores.sequence_length, 2),
            ("--scores.documents", self.scores.documents, 2),
            ("--scores.document-length", self.scores.document_length, 2),
            ("--ablation.prompts", self.ablation.prompts, 2),
            ("--ablation.draws", self.ablation.draws, 0),
            ("--ablation.max-new-tokens", self.ablation.max_new_tokens, 1),
            ("--token-loss.documents", self.token_loss.documents, 2),
            ("--token-loss.fill-documents", self.token_loss.fill_documents, 1),
            ("--token-loss.draws", self.token_loss.draws, 0),
            ("--shots", self.shots, 0),
            ("--seed", self.seed, 0),
        ):
            if count < least:
                raise UserError(f"{name} must be {least} or more, but is {count}")
        for name, tasks in (
            ("--scores.tasks", self.scores.tasks),
            ("--ablation.tasks", self.ablation.tasks),
        ):
            if not tasks or len(set(tasks)) < len(tasks):
                raise UserError(
                    f"{name} takes one or more different tasks, not {' '.join(tasks)!r}"
                )

    def to_dict(self) -> dict:
        """The fields, nested, ready for JSON."""
        return {name: _plain(v) for name, v in dataclasses.asdict(self).items()}


def _plain(value):
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value

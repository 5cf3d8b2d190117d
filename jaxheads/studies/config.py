"""What can be chosen in the studies; light to import, for the command line."""

import dataclasses
from pathlib import Path
from typing import Literal

from jaxheads.studies.config_checks import check
from jaxheads.studies.score_names import (
    ATTRIBUTION_METHODS,
    USUAL_SCORES,
    AttributionMethod,
    ExtraScore,
    ScoreName,
)
from jaxheads.studies.task_names import (
    EVALUATION_TASKS,
    EXECUTION_TASKS,
    SCORING_TASKS,
)


@dataclasses.dataclass(frozen=True)
class ScoresConfig:
    """Scores of every head: function vector, induction, previous token, and others."""

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
    names: tuple[ExtraScore, ...] = ()
    """Further scores to compute; each is defined in its file of jaxheads.scores."""
    probe_sequences: int = 10
    """Random sequences of the prefix-matching and copying probes."""
    needles: int = 8
    """Needles of the retrieval scores, each in its own haystack."""
    haystack_length: int = 256
    """Tokens of a haystack."""
    entities: int = 16
    """Entities of the token- and concept-copying effects, each."""
    relation_texts: int = 32
    """Texts of facts of the relation index."""
    probe_tokens: Literal["ids", "retokenized"] = "ids"
    """What the induction probe repeats: random token ids, or their text read by the
    tokenizer again, with a second BOS (what the reference study's code does)."""
    probe_vocabulary: Literal["tokenizer", "model"] = "tokenizer"
    """Where random tokens come from: the tokenizer's tokens, or all rows of the model's
    embedding, untrained padding included (what the reference study's code does)."""


@dataclasses.dataclass(frozen=True)
class AblationConfig:
    """Few-shot accuracy while sets of heads are replaced at the last position."""

    tasks: tuple[str, ...] = EVALUATION_TASKS
    """Tasks that are evaluated; none may be a scoring task."""
    prompts: int = 10
    """Prompts a task."""
    rankings: tuple[ScoreName, ...] = (
        "function_vector",
        "induction",
    )
    """Scores by which heads are taken; exclusion goes between the first two."""
    fractions: tuple[float, ...] = (0.01, 0.03, 0.05, 0.07, 0.09, 0.15, 0.20)
    """Shares of all heads that are replaced, each besides none."""
    exclusion: float = 0.02
    """Share of the other ranking's top heads that is dropped first."""
    exclusions: tuple[float, ...] = ()
    """Further such shares to try, to see how much depends on the choice."""
    exclusions_at: tuple[float, ...] = ()
    """Fractions at which those are tried; none: at all."""
    exclusion_least: int = 1
    """Heads that are dropped at least, whatever the share; 0: none where the share is
    less than a head (what the reference study's code does)."""
    zero_shot: bool = False
    """Ask the same queries without demonstrations too, under the same sets."""
    keep_only: tuple[float, ...] = (0.02, 0.05)
    """Shares of heads that are kept while all others are replaced."""
    draws: int = 20
    """Random sets of each kind at the share nearest to 5 %, which the claims take: with
    3, a true effect of 0.25 is found in a fifth of runs, with 20 in four of five."""
    draws_elsewhere: int = 2
    """At most so many of them at the other shares."""
    matched_to: tuple[str, ...] = ("function_vector",)
    """Rankings whose sets get random sets with the same number of heads a layer."""
    heads: tuple[str, ...] = ()
    """One more set to replace, by name, such as 20.5 18.6."""
    sets: Path | None = None
    """A JSON file of named sets, each of which is replaced too."""
    value: Literal["mean", "zero", "shuffled_mean", "resample"] = "mean"
    """What replaces a head: its mean over the scoring tasks' clean prompts, 0, the mean
    of another head drawn at random, or its output on a prompt of another task."""
    max_new_tokens: int = 5
    """Tokens of an answer, for F1, besides those that all answers begin with."""
    f1_style: Literal["fixed", "yin2025"] = "fixed"
    """How answers are parsed for F1; yin2025 has the published code's quirks."""


TemplateName = Literal[
    "qa", "question_answer", "input_output", "arrow", "colon", "bar", "lines"
]
TokenLossValue = Literal["mean", "zero", "mean_by_position", "resample", "bos"]


@dataclasses.dataclass(frozen=True)
class TokenLossConfig:
    """Loss at an early token minus loss at a late one, heads replaced everywhere."""

    documents: int = 10
    """Documents that are scored."""
    allow_fewer: bool = False
    """Score as many documents as the text has, where it has fewer."""
    packing: Literal["documents", "stream"] = "documents"
    """What is scored: the beginnings of documents, or pieces of all documents in one
    stream (what the reference study's code does)."""
    average: Literal["mean", "published"] = "mean"
    """Of the documents; published: a sum over one more than it is divided by (what the
    reference study's code does)."""
    fill_documents: int = 4
    """Other documents, which give the heads' mean outputs, pooled over positions."""
    positions: tuple[int, int] = (50, 500)
    """The early and the late token of a document, counted from 1, BOS not counted."""
    window: int = 21
    """Tokens around each of the two whose losses are averaged; 1: the papers'."""
    rankings: tuple[ScoreName, ...] = (
        "function_vector",
        "induction",
    )
    """Scores by which heads are taken."""
    fractions: tuple[float, ...] = (0.05,)
    """Shares of all heads that are replaced."""
    exclusion: float = 0.02
    """Share of the other ranking's top heads that is dropped first."""
    exclusion_least: int = 1
    """Heads that are dropped at least, whatever the share; 0: none where the share is
    less than a head (what the reference study's code does)."""
    draws: int = 8
    """Random sets at the share nearest to 5 %, which the claims take, under the first
    value; fewer than of answers, for fewer claims share the level."""
    draws_elsewhere: int = 1
    """At most so many of them at the other shares, and under the other values."""
    side_by_side: tuple[float, ...] = ()
    """Fractions at which the values after the first are tried; none: at all."""
    values: tuple[TokenLossValue, ...] = ("mean", "zero")
    """What replaces a head: its mean over the other documents' positions, 0, its mean
    at each position, its output in another document at the same position, or its output
    on BOS (what the reference study's code does)."""


@dataclasses.dataclass(frozen=True)
class ExecutionConfig:
    """Tasks carried out by function vectors: added to prompts that do not show them."""

    tasks: tuple[str, ...] = EXECUTION_TASKS
    """Tasks whose function vectors are made and tried."""
    prompts: int = 25
    """Queries a task, each after clean demonstrations, shuffled ones, and none."""
    clean_prompts: int = 16
    """Other prompts a task, whose mean head outputs are summed to its vector."""
    mean: Literal["task", "tasks"] = "task"
    """Mean head outputs of a vector: the task's own, or those of all scoring tasks
    (what the reference study's code does)."""
    ranking_by: ScoreName = "function_vector"
    """The score by which heads are chosen."""
    size: float = 0.02
    """Share of all heads that are summed, rounded up."""
    sizes: tuple[float, ...] = (0.01, 0.02, 0.05, 0.1, 0.2)
    """Shares to try beside it, at one layer."""
    layers: Literal["third", "all"] = "all"
    """Where vectors are added: a third of the way up, or at every layer in turn."""
    place: Literal["leaving", "entering"] = "leaving"
    """Of the layer's residual stream."""
    bias: Literal["none", "each_head"] = "none"
    """The output projection's bias, where there is one: left out of a vector, or added
    once for each head (what the reference study's code does)."""
    random_sets: int = 3
    """Vectors of as many random heads, for control."""
    read_out: int = 10
    """Tokens that are named in a vector's read-out through the unembedding."""


@dataclasses.dataclass(frozen=True)
class RedundancyConfig:
    """What heads do together: pairs, the smallest set that does, Shapley values."""

    tasks: tuple[str, ...] = EVALUATION_TASKS
    """Tasks that are evaluated; none may be a scoring task."""
    prompts: int = 8
    """Prompts a task to measure and choose sets by; as many more are held out."""
    ranking_by: str = "function_vector"
    """The score by which heads are chosen."""
    top: int = 8
    """How many of its top heads."""
    heads: tuple[str, ...] = ()
    """These heads instead, by name, such as 20.5 18.6."""
    metric: Literal["probability", "accuracy"] = "probability"
    """What a prompt is worth: the probability of the right answer's first token (see
    `targets`), or whether it is the likeliest."""
    value: Literal["mean", "zero"] = "mean"
    """What replaces a head: its mean over the scoring tasks' clean prompts, or 0."""
    others: Literal["kept", "replaced"] = "kept"
    """What happens to all the other heads meanwhile."""
    universe: Literal["chosen", "all"] = "chosen"
    """The heads that the greedy searches go through; all of them is hours of work."""
    share: float = 0.9
    """Share of the clean value that the smallest set has to keep."""
    share_of: Literal["clean", "gain"] = "clean"
    """Of the clean value, or of what it has above the value with the whole universe
    replaced."""
    permutations: int = 32
    """Random orders of the heads, for the Shapley values."""
    antithetic: bool = True
    """Run each order backwards too: less noise, and twice the orders."""


@dataclasses.dataclass(frozen=True)
class AttributionConfig:
    """Effects of all heads estimated from gradients, and exact ones of some."""

    tasks: tuple[str, ...] = SCORING_TASKS
    """Tasks on whose prompts effects are estimated."""
    clean_prompts: int = 16
    """Clean prompts a task; their mean head outputs, or queries, are patched in."""
    corrupted_prompts: int = 10
    """Prompts a task with shuffled labels, on which effects are estimated."""
    corrupt: Literal["permutation", "derangement"] = "permutation"
    """How labels are shuffled; a permutation may leave some in place (the papers')."""
    methods: tuple[AttributionMethod, ...] = ATTRIBUTION_METHODS
    """Slopes with all heads kept, with all replaced, or averaged on the way between
    them; sizes that cancelling paths cannot hide; effects of queries (QK fix)."""
    metric: Literal["probability", "log_probability"] = "probability"
    """Of the right answer's first token."""
    steps: int = 8
    """Points of "integrated"."""
    top_k: int = 20
    """Heads with the largest estimates that are verified exactly, by each method."""
    sample: int = 20
    """Others, drawn at random, that are verified too. In a model with fewer heads than
    both together all of them are."""


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

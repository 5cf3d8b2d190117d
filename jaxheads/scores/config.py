"""What is asked of scores and estimates; light to import, for the command line."""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar, Literal, get_args

from jaxheads.errors import MOST_TOKENS, UserError, check_counts, check_tasks
from jaxheads.icl.task_names import SCORING_TASKS
from jaxheads.scores.registry import EXTRA_SCORES, ExtraScore

PAIR = FV, INDUCTION = "function_vector", "induction"
"""The two rankings that the papers compare."""
AttributionMethod = Literal["clean", "ablated", "integrated", "graddrop", "query"]
ATTRIBUTION_METHODS: tuple[AttributionMethod, ...] = get_args(AttributionMethod)
"""How effects are estimated from gradients."""


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

    needs_scores: ClassVar[bool] = False
    shuffles_labels: ClassVar[bool] = True

    def ranked_by(self) -> Mapping[str, tuple[str, ...]]:
        """The scores that are taken, by option: none."""
        return {}

    def check(self, study: Any) -> None:
        """Refuse what makes no sense, whatever the model.

        Args:
            study: the whole config, of which this is a part.

        Raises:
            UserError: says what.
        """
        strange = [name for name in self.names if name not in EXTRA_SCORES]
        if strange:
            raise UserError(
                f"--scores.names takes scores of {', '.join(EXTRA_SCORES)}, not "
                f"{strange[0]!r}"
            )
        on_ids = [name for name in self.names if EXTRA_SCORES[name].on_probe]
        if self.probe_tokens == "retokenized" and on_ids:
            raise UserError(
                f"--scores.names {min(on_ids)} is measured on the induction probe of "
                "token ids, not on one that went through text: leave it out, or give "
                "--scores.probe-tokens ids"
            )
        check_shuffling(self.corrupt, study.drawing)
        check_counts(
            ("--scores.clean-prompts", self.clean_prompts, 1),
            ("--scores.corrupted-prompts", self.corrupted_prompts, 2),
            ("--scores.sequences", self.sequences, 2),
            ("--scores.documents", self.documents, 2),
            ("--scores.probe-sequences", self.probe_sequences, 2),
            ("--scores.needles", self.needles, 2),
            ("--scores.entities", self.entities, 2),
            ("--scores.relation-texts", self.relation_texts, 2),
        )
        check_counts(
            ("--scores.sequence-length", self.sequence_length, 2),
            ("--scores.document-length", self.document_length, 2),
            ("--scores.haystack-length", self.haystack_length, 1),
            most=MOST_TOKENS,
        )
        check_tasks("--scores.tasks", self.tasks)


def check_shuffling(corrupt: str, drawing: str) -> None:
    """Refuse derangements where labels are shuffled as published."""
    if drawing == "published" and corrupt == "derangement":
        raise UserError(
            "--drawing published shuffles labels by any permutation, as the code "
            "that it follows: leave out the derangement"
        )

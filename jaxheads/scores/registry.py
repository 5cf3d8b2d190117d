"""Every score by its name, and the file that is all of it; light to import.

A file has:

    described(chosen, shots)  its scores of one head that was never run, for the
                              reference: definition, unit, chance level, ceiling, source
    parts(names, asked)       what computes those of its names that are asked for, see
                              `part`; a score on the induction probe has instead
                              edges(length, bos), VALUE_WEIGHTED (whether these weigh
                              attention by values) and head_scores(samples, length, bos)
    LENGTH_OPTION             if one says how long its texts are

Runs, pages and the reference loop over the scores in this order.
"""

import importlib
from typing import TYPE_CHECKING, Any, Literal, NamedTuple


class Score(NamedTuple):
    """Where a score is, and what it is called.

    Attributes:
        file: a module; with a dot before it, of this folder.
        short: in a few letters, for legends and columns.
        title: in a heading.
        on_probe: it is made of edges on the induction probe of token ids, whose pass
            it shares.
    """

    file: str
    short: str
    title: str
    on_probe: bool = False


USUAL_SCORES: dict[str, Score] = {
    "function_vector": Score(".function_vector", "FV", "Function-vector score"),
    "induction": Score(".induction", "induction", "Induction score"),
    "induction_yin": Score(
        ".induction", "induction (Yin)",
        "Induction score, Yin & Steinhardt's normalisation",
    ),
    "previous_token": Score(
        ".previous_token", "previous token", "Previous-token score"
    ),
}  # fmt: skip
"""Scores that are always computed."""
EXTRA_SCORES: dict[str, Score] = {
    "duplicate_token": Score(
        ".duplicate_token", "duplicate token", "Duplicate-token score", on_probe=True
    ),
    "induction_value_weighted": Score(
        ".value_weighted", "induction, value-weighted",
        "Induction score, value-weighted attention", on_probe=True,
    ),
    "prefix_matching": Score(
        ".prefix_matching", "prefix matching", "Prefix-matching score"
    ),
    "prefix_matching_crosbie": Score(
        ".prefix_matching", "prefix matching (Crosbie)",
        "Prefix-matching score, Crosbie & Shutova's probe",
    ),
    "prefix_matching_crosbie_code": Score(
        ".prefix_matching", "prefix matching (Crosbie, code)",
        "Prefix-matching score, Crosbie & Shutova's code",
    ),
    "copying": Score(".copying", "copying", "Copying score"),
    "copying_circuit": Score(".circuits", "OV copying", "Copying by the OV circuit"),
    "qk_trace": Score(".qk_trace", "QK trace", "QK trace"),
    "qk_positivity": Score(".qk_trace", "QK positivity", "QK eigenvalues' positivity"),
    "direct_logit": Score(
        ".direct_logit", "direct logit effect", "Direct logit effect"
    ),
    "retrieval": Score(".retrieval", "retrieval", "Retrieval score"),
    "retrieval_teacher_forced": Score(
        ".retrieval", "retrieval (teacher-forced)", "Retrieval score, teacher-forced"
    ),
    "token_copying": Score(".copying_effect", "token copying", "Token-copying effect"),
    "concept_copying": Score(
        ".copying_effect", "concept copying", "Concept-copying effect"
    ),
    "relation_index": Score(".relation_index", "relation index", "Relation index"),
    "relation_index_attended": Score(
        ".relation_index", "relation index (attended)",
        "Relation index, attended token's embedding",
    ),
}  # fmt: skip
"""Scores that are computed when asked for."""
if TYPE_CHECKING:  # a checker reads no table, and its list would name each score again
    ExtraScore = ScoreName = str
else:
    ExtraScore = Literal[tuple(EXTRA_SCORES)]
    ScoreName = Literal[tuple(USUAL_SCORES)] | ExtraScore


def find(name: str) -> Score | None:
    """A score by its name; None: there is none."""
    return USUAL_SCORES.get(name) or EXTRA_SCORES.get(name)


def load(name: str) -> Any:
    """A score's file."""
    known = USUAL_SCORES | EXTRA_SCORES
    return importlib.import_module(known[name].file, __package__)

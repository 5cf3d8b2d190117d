"""Scores and estimates by name; light to import, for the command line."""

from typing import Literal, get_args

ExtraScore = Literal[
    "duplicate_token",
    "induction_value_weighted",
    "prefix_matching",
    "prefix_matching_crosbie",
    "prefix_matching_crosbie_code",
    "copying",
    "copying_circuit",
    "qk_trace",
    "qk_positivity",
    "direct_logit",
    "retrieval",
    "retrieval_teacher_forced",
    "token_copying",
    "concept_copying",
    "relation_index",
    "relation_index_attended",
]
"""Scores that are computed when asked for."""
EXTRA_SCORES: tuple[str, ...] = get_args(ExtraScore)
USUAL_SCORES = ("function_vector", "induction", "induction_yin", "previous_token")
"""Scores that are always computed."""
ScoreName = (
    Literal["function_vector", "induction", "induction_yin", "previous_token"]
    | ExtraScore
)
AttributionMethod = Literal["clean", "ablated", "integrated", "graddrop", "query"]
ATTRIBUTION_METHODS: tuple[AttributionMethod, ...] = get_args(AttributionMethod)
"""How effects are estimated from gradients."""

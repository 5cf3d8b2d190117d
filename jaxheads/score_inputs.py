"""Inputs of the scores that are computed when asked for, as token ids."""

from collections.abc import Mapping, Sequence
from itertools import cycle, islice
from typing import Protocol

import numpy as np

from jaxheads.errors import UserError
from jaxheads.icl import generators
from jaxheads.icl.prompts import Batch
from jaxheads.scores import (
    copying_effect,
    induction,
    prefix_matching,
    relation_index,
    retrieval,
)
from jaxheads.studies import more_scores, text_scores
from jaxheads.studies.config import ScoresConfig
from jaxheads.studies.score_parts import Part

_ENTITIES = (
    "landmark-country",
    "national_parks",
    "park-country",
    "person-instrument",
    "person-occupation",
    "person-sport",
)
_NEEDLES = ("animal", "fruit", "object")
_NEEDLE_WORDS = 5
_COPIED_LENGTH = 25  # as in Olsson et al. 2022


class Source(Protocol):
    """What probes are made from.

    Attributes:
        bos_id: put first, or None.
        vocabulary: ids that random tokens are drawn from.
        seed: of every draw.
    """

    bos_id: int | None
    vocabulary: Sequence[int]
    seed: int

    def encode(self, text: str) -> list[int]:
        """Text to ids, without BOS."""
        ...

    def straw(self, length: int, count: int) -> np.ndarray:
        """Documents without BOS: int32 [count, length]."""
        ...


def parts(
    chosen: ScoresConfig,
    source: Source,
    prompts: Mapping[str, Batch],
    shots: int,
    queries: Mapping[str, np.ndarray] | None = None,
) -> tuple[Part, ...]:
    """Make the parts that compute the scores that are asked for.

    Args:
        chosen: which, and how many of everything.
        source: what probes are made from.
        prompts: clean few-shot prompts, by task.
        shots: of those.
        queries: of those by task, int [B]: prompts with one number ask one query; None:
            not known, each asks its own.

    Raises:
        UserError: a tokenizer or a text that does not fit.
    """
    asked = set(chosen.names)
    circuits = ("copying_circuit", "qk_trace", "qk_positivity")
    circuits = tuple(name for name in circuits if name in asked)
    made: list[Part | None] = [
        _prefix_matching(asked, ("olsson",), chosen, source),
        _prefix_matching(asked, ("crosbie", "crosbie_code"), chosen, source),
        _copying_probe(asked, chosen, source),
        more_scores.Circuits(circuits) if circuits else None,
        more_scores.DirectLogit(prompts, shots, queries or {})
        if "direct_logit" in asked
        else None,
        _retrieval(asked, chosen, source),
        _copying_effect(asked, "token_copying", chosen, source),
        _copying_effect(asked, "concept_copying", chosen, source),
        _relations(asked, chosen, source),
    ]
    return tuple(part for part in made if part)


def _prefix_matching(asked, keys, chosen: ScoresConfig, source: Source):
    definitions = tuple(
        definition
        for key in keys
        if (definition := prefix_matching.DEFINITIONS[key]).name in asked
    )
    if not definitions:
        return None
    probe = prefix_matching.probe(
        definitions[0],
        chosen.probe_sequences,
        source.vocabulary,
        source.bos_id,
        source.seed,
    )
    bos = source.bos_id is not None
    for definition in definitions:
        prefix_matching.edges(definition, bos)  # refuses a probe that does not fit
    return more_scores.PrefixMatching(definitions, probe, bos)


def _retrieval(asked, chosen: ScoresConfig, source: Source):
    names = {"greedy": "retrieval", "teacher_forced": "retrieval_teacher_forced"}
    variants = tuple(key for key, name in names.items() if name in asked)
    if not variants:
        return None
    rng = np.random.default_rng([source.seed, 9])
    words = rng.permutation(generators.words(*_NEEDLES))
    people = [country for country, _ in generators.read_facts("country-capital")]
    owners = rng.permutation(people)
    drawn = cycle(words.tolist())
    trials = [
        retrieval.sentence(
            source.encode,
            str(owners[index % len(owners)]),
            list(islice(drawn, _NEEDLE_WORDS)),
            retrieval.TEMPLATE,
        )
        for index in range(chosen.needles)
    ]
    straw = source.straw(chosen.haystack_length, chosen.needles)
    return text_scores.Retrieval(variants, retrieval.hide(trials, straw, source.bos_id))


def _copying_probe(asked, chosen: ScoresConfig, source: Source):
    if "copying" not in asked:
        return None
    probe = induction.probe(
        chosen.probe_sequences,
        _COPIED_LENGTH,
        source.vocabulary,
        source.bos_id,
        source.seed,
        repeats=1,
    )
    return more_scores.Copying(probe, source.bos_id is not None)


def _copying_effect(asked, name: str, chosen: ScoresConfig, source: Source):
    if name not in asked:
        return None
    pool = source.straw(chosen.document_length, chosen.documents)
    newline = source.encode("\n")
    if not newline:
        raise UserError(
            f"{name} needs a token for the end of a line, but this tokenizer has none: "
            "leave the score out"
        )
    if name == "token_copying":
        entities = copying_effect.random_entities(pool, chosen.entities, source.seed)
        read, what = "next", "2 to 5 shuffled tokens of text"
    else:
        listed = [pair[0] for task in _ENTITIES for pair in generators.read_facts(task)]
        entities = copying_effect.real_entities(
            list(dict.fromkeys(listed)), source.encode, chosen.entities, source.seed
        )
        read, what = "after_next", "2 to 5 tokens, places and people"
    pairs = copying_effect.pairs(
        entities, pool, newline[-1], source.bos_id, source.seed
    )
    return text_scores.CopyingEffect(name, pairs, read, what)


def _relations(asked, chosen: ScoresConfig, source: Source):
    names = {"current": "relation_index", "attended": "relation_index_attended"}
    reads = tuple(key for key, name in names.items() if name in asked)
    if not reads:
        return None
    facts = {name: generators.read_facts(name) for name in relation_index.RELATIONS}
    triplets, single = relation_index.from_pairs(
        facts, source.encode, chosen.relation_texts, source.bos_id, source.seed
    )
    least = max(2, chosen.relation_texts // 8)
    return text_scores.RelationIndex(reads, triplets, single, least)

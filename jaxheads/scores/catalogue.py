"""Inputs of the scores that are computed when asked for, as token ids."""

import dataclasses
from collections.abc import Mapping, Sequence
from itertools import cycle, groupby, islice
from typing import Protocol

import numpy as np

from jaxheads.engine import plan
from jaxheads.engine.memory import Fit
from jaxheads.engine.passes import Pass
from jaxheads.errors import UserError
from jaxheads.heads import HeadScores
from jaxheads.icl import generators
from jaxheads.icl.prompts import Batch, by_task
from jaxheads.runs import Arrays
from jaxheads.scores import (
    attention,
    circuits,
    copying,
    copying_effect,
    direct_logit,
    induction,
    prefix_matching,
    qk_trace,
    relation_index,
    retrieval,
)
from jaxheads.scores.config import ScoresConfig
from jaxheads.scores.part import Known, OfPasses, Part

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
        Circuits(circuits) if circuits else None,
        DirectLogit(prompts, shots, queries or {}) if "direct_logit" in asked else None,
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
    return PrefixMatching(definitions, probe, bos)


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
    return Retrieval(variants, retrieval.hide(trials, straw, source.bos_id))


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
    return Copying(probe, source.bos_id is not None)


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
    return CopyingEffect(name, pairs, read, what)


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
    return RelationIndex(reads, triplets, single, least)


@dataclasses.dataclass(frozen=True, eq=False)
class PrefixMatching(OfPasses):
    """Prefix matching by definitions that share a probe.

    Attributes:
        definitions: out of ``prefix_matching.DEFINITIONS``, of one probe.
        probe: int32 [B, T].
        bos: whether it begins with BOS.
    """

    definitions: tuple[prefix_matching.Definition, ...]
    probe: np.ndarray
    bos: bool

    @property
    def name(self) -> str:
        """The first definition's name."""
        return self.definitions[0].name

    def tokens(self) -> Arrays:
        """The probe."""
        return {f"prompts/{self.name}": self.probe}

    def passes(self, config) -> list[Pass]:
        """One, for all definitions."""
        length = self.probe.shape[1]
        edges = {
            each.name: prefix_matching.edges(each, self.bos)
            for each in self.definitions
        }
        return [
            Pass(
                f"attention patterns of {length}-token sequences",
                attention.attention_share,
                (self.probe,),
                (config, edges),
                plan.sequence(config, length, 0),
            )
        ]

    def measure(self, params, config, budget_bytes: int, known: Known) -> Arrays:
        """Shares [L, H, B] by definition, from one pass."""
        return self.runs(params, config, budget_bytes)[0]

    def scores(self, measured: Arrays) -> list[HeadScores]:
        """One score a definition."""
        return [
            prefix_matching.head_scores(measured[each.name], each, self.bos)
            for each in self.definitions
        ]


@dataclasses.dataclass(frozen=True, eq=False)
class Copying(OfPasses):
    """Copying of random tokens that are attended to.

    Attributes:
        probe: int32 [B, T].
        bos: whether it begins with BOS.
    """

    probe: np.ndarray
    bos: bool
    name: str = "copying"

    def tokens(self) -> Arrays:
        """The probe."""
        return {"prompts/copying": self.probe}

    def passes(self, config) -> list[Pass]:
        """One."""
        length = self.probe.shape[1]
        return [
            Pass(
                f"copying of {length}-token sequences",
                copying.copied,
                (self.probe,),
                (config, np.asarray(self.bos)),
                plan.sequence(config, length),
            )
        ]

    def measure(self, params, config, budget_bytes: int, known: Known) -> Arrays:
        """Scores [L, H, B] by sequence."""
        return {"copied": self.runs(params, config, budget_bytes)[0]}

    def scores(self, measured: Arrays) -> list[HeadScores]:
        """The one score."""
        length = self.probe.shape[1] - self.bos
        return [copying.head_scores(measured["copied"], length, self.bos)]


@dataclasses.dataclass(frozen=True)
class Circuits:
    """Scores read off the weights alone.

    Attributes:
        asked: out of "copying_circuit", "qk_trace" and "qk_positivity".
    """

    asked: tuple[str, ...]
    name: str = "circuits"

    def tokens(self) -> Arrays:
        """Nothing is fed to the model."""
        return {}

    def cost(self, config) -> plan.Cost:
        """Products over the vocabulary, no forward."""
        flops = 2.0 * config.vocab_size * config.width**2 * len(self.asked)
        return plan.Cost(flops=flops, bytes=8.0 * config.width**2)

    def fits(self, params, config, budget_bytes: int) -> list[Fit]:
        """Small products of weights need no plan."""
        return []

    def measure(self, params, config, budget_bytes: int, known: Known) -> Arrays:
        """Circuits [L, H, K, K]."""
        measured: Arrays = {}
        if "copying_circuit" in self.asked:
            measured["ov"] = circuits.copying_circuits(params, config)
        if {"qk_trace", "qk_positivity"} & set(self.asked):
            weights = known["previous_token"].mean
            measured["qk"] = qk_trace.matching_circuits(params, config, weights)
        return measured

    def scores(self, measured: Arrays) -> list[HeadScores]:
        """One score a name."""
        made = []
        for name in self.asked:
            if name == "copying_circuit":
                made.append(circuits.head_scores(measured["ov"]))
            else:
                definition = name.removeprefix("qk_")
                made.append(qk_trace.head_scores(measured["qk"], definition))
        return made


@dataclasses.dataclass(frozen=True, eq=False)
class DirectLogit(OfPasses):
    """Direct logit attribution on the clean prompts of the scoring tasks.

    Attributes:
        prompts: by task.
        shots: demonstrations a prompt.
        queries: by task, int [B]: prompts with one number ask one query; empty: not
            known, each asks its own.
    """

    prompts: Mapping[str, Batch]
    shots: int
    queries: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)
    name: str = "direct_logit"

    def tokens(self) -> Arrays:
        """The function-vector score's clean prompts, which are listed there."""
        return {}

    def passes(self, config) -> list[Pass]:
        """One a prompt length: those of several tasks together."""
        passes = []
        for length, some in groupby(self._by_length, self._length):
            some = [self.prompts[task] for task in some]
            passes.append(
                Pass(
                    f"direct logit effects on {length}-token prompts",
                    direct_logit.effects,
                    (
                        np.concatenate([batch.tokens for batch in some]),
                        np.concatenate([batch.lengths for batch in some]),
                        np.concatenate([batch.targets for batch in some]),
                    ),
                    (config,),
                    plan.sequence(config, length),
                )
            )
        return passes

    def measure(self, params, config, budget_bytes: int, known: Known) -> Arrays:
        """Effects [L, H, B] over the prompts of all tasks."""
        parts = self.runs(params, config, budget_bytes)
        return {"effects": np.concatenate(parts, axis=-1)}

    def scores(self, measured: Arrays) -> list[HeadScores]:
        """The one score."""
        prompts = f"{self.shots}-shot prompts of {len(self.prompts)} tasks"
        queries = by_task(self.queries, self._by_length)
        effects = measured["effects"]
        return [direct_logit.head_scores(effects, prompts, False, queries)]

    @property
    def _by_length(self) -> list[str]:
        """The tasks in the order of the effects."""
        return sorted(self.prompts, key=self._length)

    def _length(self, task: str) -> int:
        return self.prompts[task].tokens.shape[1]


@dataclasses.dataclass(frozen=True, eq=False)
class Retrieval(OfPasses):
    """Retrieval scores of needles in haystacks.

    Attributes:
        variants: out of ``retrieval.VARIANTS``.
        probe: the needles.
    """

    variants: tuple[str, ...]
    probe: retrieval.Needles

    @property
    def name(self) -> str:
        """Of the unit."""
        return "retrieval"

    def tokens(self) -> Arrays:
        """The prompts, and where their needles are."""
        probe = self.probe
        return {
            "prompts/retrieval": probe.tokens,
            "prompts/retrieval/lengths": probe.lengths,
            "prompts/retrieval/starts": probe.starts,
            "prompts/retrieval_needles": probe.needles,
            "prompts/retrieval_needles/lengths": probe.needle_lengths,
        }

    def passes(self, config) -> list[Pass]:
        """One a variant."""
        length = self.probe.tokens.shape[1]
        return [
            Pass(
                f"{variant} copies of needles in {length}-token prompts",
                retrieval.retrieved,
                tuple(self.probe),
                (config,),
                self._cost(config, variant),
                {"variant": variant},
            )
            for variant in self.variants
        ]

    def _cost(self, config, variant: str) -> plan.Cost:
        """A pass of prompt and needle; another and the generation if greedy."""
        length, new = self.probe.tokens.shape[1], self.probe.needles.shape[1]
        total = plan.sequence(config, length + new, new)
        if variant == "greedy":
            total += plan.sequence(config, length) + plan.step(config, length) * new
        return total

    def measure(self, params, config, budget_bytes: int, known: Known) -> Arrays:
        """Shares [L, H, B] and what the model gets right [B], by variant."""
        measured: Arrays = {}
        made = self.runs(params, config, budget_bytes)
        for variant, each in zip(self.variants, made, strict=True):
            measured[variant], measured[f"{variant}_right"] = each
        return measured

    def scores(self, measured: Arrays) -> list[HeadScores]:
        """One score a variant."""
        return [
            retrieval.head_scores(
                measured[each], measured[f"{each}_right"], self.probe, each
            )
            for each in self.variants
        ]


@dataclasses.dataclass(frozen=True, eq=False)
class CopyingEffect:
    """The effect of a head's output on copying entities.

    Attributes:
        name: of the score.
        pairs: clean and corrupted prompts.
        read: out of ``copying_effect.READS``.
        entities: what they are.
    """

    name: str
    pairs: copying_effect.Pairs
    read: str
    entities: str

    def tokens(self) -> Arrays:
        """Both prompts."""
        return {
            f"prompts/{self.name}_clean": self.pairs.clean,
            f"prompts/{self.name}_corrupted": self.pairs.corrupted,
            f"prompts/{self.name}_corrupted/lengths": self.pairs.lengths,
            f"prompts/{self.name}_entities": self.pairs.entities,
        }

    def cost(self, config) -> plan.Cost:
        """Two passes a prompt, and two tokens from each head's layer on."""
        length = self.pairs.clean.shape[1]
        tail = plan.every_head(config, length) * 2
        return (plan.sequence(config, length) * 2 + tail) * len(self.pairs.clean)

    def fits(self, params, config, budget_bytes: int) -> list[Fit]:
        """The runs of the last two tokens, by prompt length."""
        heads = config.num_layers * config.num_heads + 1
        return [
            fitted
            for rows in copying_effect.by_length(self.pairs)
            for fitted in copying_effect.of_pairs(self.pairs, rows, config).fit(
                params, heads, budget_bytes
            )
        ]

    def measure(self, params, config, budget_bytes: int, known: Known) -> Arrays:
        """Effects [2, L, H, B]."""
        return {
            "effects": copying_effect.effects(params, self.pairs, config, budget_bytes)
        }

    def scores(self, measured: Arrays) -> list[HeadScores]:
        """The one that is read."""
        samples = measured["effects"][copying_effect.READS.index(self.read)]
        return [
            copying_effect.head_scores(samples, self.name, self.read, self.entities)
        ]


@dataclasses.dataclass(frozen=True, eq=False)
class RelationIndex(OfPasses):
    """Relation indices of triplets in texts of facts.

    Attributes:
        reads: out of ``relation_index.READS``.
        triplets: the texts.
        single: share of pairs of single tokens.
        least: texts in which a head must qualify.
    """

    reads: tuple[str, ...]
    triplets: relation_index.Triplets
    single: float
    least: int

    @property
    def name(self) -> str:
        """Of the unit."""
        return "relation_index"

    def tokens(self) -> Arrays:
        """The texts, and where the triplets' ends are."""
        texts = self.triplets
        return {
            "prompts/relation_index": texts.tokens,
            "prompts/relation_index/lengths": texts.lengths,
            "prompts/relation_index/heads": texts.heads,
            "prompts/relation_index/tails": texts.tails,
        }

    def passes(self, config) -> list[Pass]:
        """One, for all read-outs."""
        length = self.triplets.tokens.shape[1]
        return [
            Pass(
                f"relation indices of {length}-token texts",
                relation_index.sums,
                tuple(self.triplets),
                (config, np.float32(relation_index.TAU)),
                plan.sequence(config, length, 0),
                {"reads": self.reads},
            )
        ]

    def measure(self, params, config, budget_bytes: int, known: Known) -> Arrays:
        """Sums [L, H, B] by read-out, and counts."""
        totals, counts = self.runs(params, config, budget_bytes)[0]
        return totals | {"counts": counts}

    def scores(self, measured: Arrays) -> list[HeadScores]:
        """One score a read-out."""
        return [
            relation_index.head_scores(
                measured[read],
                measured["counts"],
                self.triplets,
                self.single,
                read=read,
                least=self.least,
            )
            for read in self.reads
        ]

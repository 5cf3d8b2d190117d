"""Every input of a study as token ids: prompts, probes and documents."""

import dataclasses
import functools
import platform
from collections.abc import Collection, Iterable, Sequence
from typing import Any

import numpy as np

from jaxheads import runs
from jaxheads.errors import UserError
from jaxheads.icl import published, texts
from jaxheads.icl.answers import Answers
from jaxheads.icl.prompts import (
    Batch,
    Prompt,
    build_prompts,
    encode_prompts,
    query_numbers,
    unchanged_share,
)
from jaxheads.icl.tasks import Task, load_tasks
from jaxheads.icl.templates import TEMPLATES
from jaxheads.scores import catalogue, induction, induction_text
from jaxheads.scores.config import ScoresConfig
from jaxheads.scores.part import Part
from jaxheads.studies.ablation import few_shot, token_loss
from jaxheads.studies.attribution import study as attribution
from jaxheads.studies.attribution.config import AttributionConfig
from jaxheads.studies.config import StudyConfig
from jaxheads.studies.function_vectors import (
    execution as vector_execution,
    study as execution,
)
from jaxheads.studies.redundancy import study as redundancy
from jaxheads.studies.scores import study as head_scores
from jaxheads.weights.model import Model


def check_ranking(model: Model, config: StudyConfig, ranking: runs.Run) -> None:
    """Refuse a ranking of another model, or one made with an evaluation task."""
    if not {"score/function_vector", "fv/mean_heads"} <= set(ranking.arrays):
        raise UserError(
            f"{ranking.path} has no scores of heads: give --ranking a run of "
            "`jaxheads score` or `jaxheads study`"
        )
    there = ranking.result["model"]["params_sha256"]
    here = model.provenance.params_sha256
    if there != here:
        raise UserError(
            f"the ranking in {ranking.path} was made for other params "
            f"({there[:12]}..., these are {here[:12]}...): score this model first"
        )
    shared = set(ranking.result["scoring_tasks"]) & set(config.ablation.tasks)
    if shared:
        raise UserError(
            "scoring and evaluation tasks must be disjoint, but the ranking in "
            f"{ranking.path} was made with {', '.join(sorted(shared))}: drop them from "
            "--ablation.tasks"
        )


def check_disjoint(
    scoring: Iterable[str], evaluation: Iterable[str], option: str
) -> None:
    """Refuse to evaluate on a task that the heads were scored by."""
    shared = sorted(set(scoring) & set(evaluation))
    if shared:
        raise UserError(
            "scoring and evaluation tasks must be disjoint, but the scores are made "
            f"with {', '.join(shared)}: drop them from {option}"
        )


def check_scores(
    config: StudyConfig, parts: Iterable[str], ranking: runs.Run | None
) -> None:
    """Refuse sets of heads by a score that is not computed, or that a run lacks."""
    there = list(ranking.result["scores"]) if ranking else list(config.score_names)
    options = {
        "ablation": {
            "--ablation.rankings": config.ablation.rankings,
            "--ablation.matched-to": config.ablation.matched_to,
        },
        "token_loss": {"--token-loss.rankings": config.token_loss.rankings},
        "execution": {"--execution.ranking-by": (config.execution.ranking_by,)},
        "redundancy": {"--redundancy.ranking-by": (config.redundancy.ranking_by,)},
    }
    for part in parts:
        for option, names in options.get(part, {}).items():
            for name in names:
                if name not in there:
                    mend = (
                        f"{ranking.path} has {', '.join(there)}: name one of them, or "
                        "score the model with it"
                        if ranking
                        else f"add it to --scores.names, or name one of "
                        f"{', '.join(there)}"
                    )
                    raise UserError(
                        f"{option} takes scores that are computed, and {name!r} is "
                        f"not: {mend}"
                    )


def needs_scores(parts: Collection[str], ranking: runs.Run | None) -> bool:
    """Whether heads are scored: some part needs it, and no other run gives scores."""
    return ranking is None and set(parts) != {"attribution"}


def check_shots(
    config: StudyConfig, parts: Collection[str], ranking: runs.Run | None
) -> None:
    """Refuse prompts without demonstrations where their labels are shuffled.

    Few-shot accuracy, token loss and redundancy are measured without any, too, by the
    ranking of another run.
    """
    shuffled = {"execution", "attribution"} & set(parts)
    if needs_scores(parts, ranking):
        shuffled.add("scores")
    if config.shots == 0 and shuffled:
        raise UserError(
            f"{' and '.join(sorted(shuffled))} must have prompts with demonstrations, "
            "whose labels are shuffled, but --shots is 0: give 1 or more, or, for what "
            "is measured without, --ranking of a run with scores"
        )


STUDY = ("scores", "ablation", "token_loss")
PARTS = (*STUDY, "execution", "redundancy", "attribution")
PROMPT_MULTIPLE = 64  # prompts are padded to few lengths: few compiles
QUERY_MULTIPLE = 16  # queries alone are short


@dataclasses.dataclass(frozen=True)
class Prepared:
    """A study's inputs, all made before the first forward.

    Attributes:
        scores: inputs of the scores; None when the ranking comes from another run, or
            when no part asks for one.
        ablation: inputs of the ablation study, or None.
        token_loss: inputs of the token-loss study, or None.
        redundancy: inputs of the redundancy study, or None.
        attribution: inputs of the attribution study, or None.
        execution: inputs of the execution study, or None.
        tasks: what the tasks are, by name, ready for JSON.
        bos: whether prompts, probes and documents begin with BOS.
    """

    scores: head_scores.Inputs | None
    ablation: few_shot.Inputs | None
    token_loss: token_loss.Inputs | None
    redundancy: redundancy.Inputs | None
    attribution: attribution.Inputs | None
    execution: execution.Inputs | None
    tasks: dict[str, dict]
    bos: bool

    def token_arrays(self) -> runs.Arrays:
        """Everything that is fed to the model, as token ids."""
        named: runs.Arrays = {}

        def add(kind: str, prompts: dict[str, Batch]) -> None:
            for task, batch in prompts.items():
                named[f"prompts/{kind}/{task}"] = batch.tokens
                named[f"prompts/{kind}/{task}/lengths"] = batch.lengths
                named[f"prompts/{kind}/{task}/targets"] = batch.targets

        if self.scores:
            add("clean", self.scores.clean)
            add("corrupted", self.scores.corrupted)
            named["prompts/induction"] = self.scores.probe
            if self.scores.probe_lengths is not None:
                named["prompts/induction/lengths"] = self.scores.probe_lengths
            named["prompts/previous_token"] = self.scores.documents
            for part in self.scores.parts:
                named |= part.tokens()
        if self.ablation:
            add("evaluation", self.ablation.prompts)
            add("evaluation_zero_shot", dict(self.ablation.zero_shot))
        if self.token_loss:
            named["prompts/token_loss"] = self.token_loss.documents
            named["prompts/token_loss_fill"] = self.token_loss.fill_documents
        if self.redundancy:
            kinds = {"selection": self.redundancy.prompts}
            add("redundancy", kinds | {"held_out": self.redundancy.held_out})
        if self.attribution:
            add("attribution_clean", self.attribution.clean)
            add("attribution_corrupted", self.attribution.corrupted)
        if self.execution:
            add("execution/vector", self.execution.vector_prompts)
            for kind in vector_execution.PROMPTS:
                of_kind = {t: p[kind] for t, p in self.execution.conditions.items()}
                add(f"execution/{kind}", of_kind)
        return named


def prepare(
    model: Model,
    config: StudyConfig,
    parts: tuple[str, ...] = STUDY,
    ranking: runs.Run | None = None,
) -> Prepared:
    """Make every input of a study: prompts, probes and documents as token ids.

    Raises:
        UserError: an unknown part, tasks or texts that do not fit, a ranking of
            another model.
    """
    unknown = set(parts) - set(PARTS)
    if unknown or not parts:
        raise UserError(f"the parts of a study are {PARTS}, not {tuple(parts)}")
    tokenizer = model.require_tokenizer()
    if config.bos and tokenizer.bos_id is None:
        raise UserError(
            "--bos True needs a token that begins a sequence, but the tokenizer has "
            "none: give --bos False"
        )
    bos = tokenizer.adds_bos if config.bos is None else config.bos
    rows = model.config.vocab_size
    if tokenizer.bos_id is not None and tokenizer.bos_id >= rows:
        raise UserError(
            f"the token that begins a sequence has id {tokenizer.bos_id}, but the "
            f"model's embedding has {rows} rows: give the model its own tokenizer"
        )
    if ranking:
        check_ranking(model, config, ranking)
    check_scores(config, parts, ranking)
    check_shots(config, parts, ranking)
    maker = _Maker(model, config, bos)
    scores = maker.scores() if needs_scores(parts, ranking) else None
    evaluation = maker.evaluation() if "ablation" in parts else None
    if scores and evaluation:
        scored = maker.built_in(config.scores.tasks)
        check_disjoint(
            scored, maker.built_in(config.ablation.tasks), "--ablation.tasks"
        )
    losses = maker.losses() if "token_loss" in parts else None
    together = None
    if "redundancy" in parts:
        made_with = ranking.result["scoring_tasks"] if ranking else config.scores.tasks
        check_disjoint(made_with, config.redundancy.tasks, "--redundancy.tasks")
        together = maker.redundancy()
    estimated = maker.attribution() if "attribution" in parts else None
    executed = maker.execution() if "execution" in parts else None
    made = (scores, evaluation, losses, together, estimated, executed)
    return Prepared(*made, maker.tasks, bos)


class _Maker:
    """Makes the inputs of each part and notes what the tasks are."""

    def __init__(self, model: Model, config: StudyConfig, bos: bool):
        self.model, self.config, self.bos = model, config, bos
        self.tokenizer = model.require_tokenizer()
        self.tasks: dict[str, dict] = {}
        self.seed = config.seed
        self.bos_id = self.tokenizer.bos_id if bos else None
        self.template = TEMPLATES[config.template]
        self.vocabulary = self._vocabulary()

    def _vocabulary(self) -> Sequence[int]:
        """Ids that random tokens are drawn from."""
        rows = self.model.config.vocab_size
        if self.config.scores.probe_vocabulary == "model":
            return range(rows)
        special = self.tokenizer.special_ids
        ids = self.tokenizer.ids
        return [id for id in ids if id < rows and id not in special]

    def encode(self, text: str) -> list[int]:
        """Text to ids, without BOS."""
        return self.tokenizer.encode(text)

    def straw(self, length: int, count: int) -> np.ndarray:
        """Documents without BOS: int32 [count, length]."""
        return self._documents(length, count, bos=False)[0]

    def scores(self) -> head_scores.Inputs:
        chosen = self.config.scores
        begin = int(self.bos)
        lengths = {
            "sequence-length": 2 * chosen.sequence_length + begin,
            "document-length": chosen.document_length + begin,
        }
        if {"retrieval", "retrieval_teacher_forced"} & set(chosen.names):
            lengths["haystack-length"] = chosen.haystack_length + begin
        for name, length in lengths.items():  # before anything so long is made
            self._fits(length, f"--scores.{name}")
        clean, corrupted, queries = self._clean_and_corrupted(chosen)
        asked = {task: queries[task]["clean"] for task in clean}
        queries = {task: queries[task]["corrupted"] for task in clean}
        probe, lengths = self._induction_probe(chosen)
        self._fits(probe.shape[1], "--scores.sequence-length")
        documents, text = self._documents(
            chosen.document_length + self.bos, chosen.documents
        )
        return head_scores.Inputs(
            clean,
            corrupted,
            probe,
            chosen.sequence_length,
            self.bos,
            documents,
            text,
            self.config.shots,
            chosen.names,
            self._more_scores(clean, asked),
            lengths,
            queries,
        )

    def _induction_probe(
        self, chosen: ScoresConfig
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """Random tokens, repeated; and their lengths, if they went through text."""
        count, length = chosen.sequences, chosen.sequence_length
        if chosen.probe_tokens == "retokenized":
            return induction_text.probe(
                count,
                length,
                self.vocabulary,
                self.tokenizer.decode,
                self.encode,
                self.bos_id,
                self.seed,
            )
        made = induction.probe(count, length, self.vocabulary, self.bos_id, self.seed)
        return made, None

    def attribution(self) -> attribution.Inputs:
        chosen, dims = self.config.attribution, self.model.config
        if "graddrop" in chosen.methods and dims.num_layers < 2:
            raise UserError(
                "--attribution.methods graddrop leaves out one layer of several, but "
                "this model has one: drop it"
            )
        clean, corrupted, queries = self._clean_and_corrupted(chosen)
        queries = {task: queries[task]["corrupted"] for task in clean}
        seed = self.config.seed
        return attribution.Inputs(clean, corrupted, chosen, seed, queries)

    def _clean_and_corrupted(
        self, chosen: ScoresConfig | AttributionConfig
    ) -> tuple[dict[str, Batch], dict[str, Batch], dict[str, dict[str, np.ndarray]]]:
        """Prompts of both kinds by task, and which queries either kind asks."""
        clean, corrupted, queries = {}, {}, {}
        tasks = self._load(chosen.tasks)
        drawn = self._scoring_prompts(tasks, chosen)
        for task, (plain, shuffled) in zip(tasks, drawn, strict=True):
            # Together, so that both kinds are padded to one length.
            both = self._encode([*plain, *shuffled])
            clean[task.name] = both.part(slice(len(plain)))
            corrupted[task.name] = both.part(slice(len(plain), None))
            queries[task.name] = {
                "clean": query_numbers(plain),
                "corrupted": query_numbers(shuffled),
            }
            self.tasks[task.name]["unchanged_share"] = unchanged_share(shuffled)
        return clean, corrupted, queries

    def _scoring_prompts(
        self, tasks: list[Task], chosen: ScoresConfig | AttributionConfig
    ) -> list[tuple[list[Prompt], list[Prompt]]]:
        """Clean and corrupted prompts of each task."""
        counts = (chosen.clean_prompts, chosen.corrupted_prompts)
        if self.config.drawing == "published":
            shots, seed = self.config.shots, self.config.seed
            return published.scoring_prompts(tasks, *counts, shots, seed, self.template)
        return [
            (
                self._draw(task, counts[0]),
                self._draw(task, counts[1], corrupt=chosen.corrupt),
            )
            for task in tasks
        ]

    def _evaluation_prompts(self, tasks: list[Task], count: int) -> list[list[Prompt]]:
        """Prompts of each task on which answers are counted."""
        if self.config.drawing == "published":
            shots, seed = self.config.shots, self.config.seed
            return published.evaluation_prompts(
                tasks, count, shots, seed, self.template
            )
        overlap = self.config.no_label_overlap
        return [self._draw(task, count, no_label_overlap=overlap) for task in tasks]

    def _draw(self, task: Task, count: int, **keywords: Any) -> list[Prompt]:
        """Prompts of a task, drawn by the rule of ``build_prompts``."""
        shots, seed = self.config.shots, self.config.seed
        return build_prompts(
            task, count, shots, seed, template=self.template, **keywords
        )

    def _more_scores(
        self, clean: dict[str, Batch], queries: dict[str, np.ndarray]
    ) -> tuple[Part, ...]:
        chosen = self.config.scores
        made = catalogue.parts(chosen, self, clean, self.config.shots, queries)
        for part in made:
            for name, ids in part.tokens().items():
                if ids.ndim == 2:
                    self._fits(ids.shape[1], f"what {name} is made of")
        return made

    def evaluation(self) -> few_shot.Inputs:
        chosen = self.config.ablation
        prompts, answers, zero_shot, queries = {}, {}, {}, {}
        tasks = self._load(chosen.tasks)
        drawn = self._evaluation_prompts(tasks, chosen.prompts)
        for task, made in zip(tasks, drawn, strict=True):
            prompts[task.name] = self._encode(made, chosen.max_new_tokens)
            answers[task.name] = [prompt.answer for prompt in made]
            queries[task.name] = query_numbers(made)
            if chosen.zero_shot:
                alone = [self._without_shots(prompt) for prompt in made]
                zero_shot[task.name] = self._encode(alone, chosen.max_new_tokens)
        return few_shot.Inputs(
            prompts,
            answers,
            chosen.max_new_tokens,
            chosen.f1_style,
            self.config.seed if chosen.value == "resample" else None,
            zero_shot,
            queries,
        )

    def _without_shots(self, prompt: Prompt) -> Prompt:
        text = self.template.write((), prompt.query)
        return dataclasses.replace(prompt, text=text, shots=(), clean_shots=())

    def redundancy(self) -> redundancy.Inputs:
        chosen = self.config.redundancy
        # Two halves of the items: sets are chosen on one and measured on the other.
        halves: dict[str, list[Prompt]] = {"first": [], "second": []}
        queries: dict[str, list[np.ndarray]] = {"first": [], "second": []}
        for task in self._load(chosen.tasks):
            self._require_telling([task.name], "--redundancy.tasks")
            for pool, made in halves.items():
                drawn = self._draw(
                    task,
                    chosen.prompts,
                    pool=pool,
                    no_label_overlap=self.config.no_label_overlap,
                )
                made += drawn
                queries[pool].append(query_numbers(drawn))
        return redundancy.Inputs(
            self._encode(halves["first"]),
            self._encode(halves["second"]),
            chosen,
            self.config.seed,
            np.stack(queries["first"]),
            np.stack(queries["second"]),
        )

    def execution(self) -> execution.Inputs:
        chosen = self.config.execution
        if not chosen.tasks:
            raise UserError("--execution.tasks is empty: name one task or more")
        overlap = {"no_label_overlap": self.config.no_label_overlap}
        own = chosen.clean_prompts if chosen.mean == "task" else 0
        vector, conditions, queries = {}, {}, {}
        for task in self._load(chosen.tasks):
            draw = functools.partial(self._draw, task, **overlap)
            clean = draw(chosen.prompts, pool="second")
            shuffled = draw(chosen.prompts, pool="second", corrupt="permutation")
            alone = [self._without_shots(prompt) for prompt in clean]
            # Together, so that all with demonstrations are padded to one length.
            made = self._encode([*clean, *shuffled, *draw(own, pool="first")])
            kinds = (
                made.part(slice(len(clean))),
                made.part(slice(len(clean), 2 * len(clean))),
                self._encode(alone, multiple=QUERY_MULTIPLE),
            )
            conditions[task.name] = dict(
                zip(vector_execution.PROMPTS, kinds, strict=True)
            )
            if own:
                vector[task.name] = made.part(slice(2 * len(clean), None))
            queries[task.name] = query_numbers(clean)
            self.tasks[task.name]["unchanged_share"] = unchanged_share(shuffled)
        self._require_telling(queries, "--execution.tasks")
        return execution.Inputs(vector, conditions, queries, chosen, self.config.seed)

    def _require_telling(self, tasks: Collection[str], option: str) -> None:
        """Refuse tasks in none of which a first token tells anything."""
        if all(self.tasks[task]["collisions"] == 1 for task in tasks):
            raise UserError(
                f"{option} needs answers that a first token tells apart, but in this "
                f"tokenizer all those of {', '.join(tasks)} have the same one: name "
                "other tasks, or give --targets informative"
            )

    def losses(self) -> token_loss.Inputs:
        chosen = self.config.token_loss
        at = np.array(chosen.positions) - 1 + self.bos
        length = int(at[1]) + chosen.window // 2 + 1
        self._fits(length, "--token-loss.positions")
        wanted = chosen.documents + (chosen.average == "published")
        rows, text = self._documents(
            length,
            wanted + chosen.fill_documents,
            packing=chosen.packing,
            # The mean of N needs no document more; of the published sum it is the last.
            least=(2 if chosen.allow_fewer else chosen.documents)
            + chosen.fill_documents,
        )
        if "bos" in chosen.values and not self.bos:
            raise UserError(
                "--token-loss.values bos needs documents that begin with BOS: add "
                "--bos True, or leave it out"
            )
        scored = len(rows) - chosen.fill_documents
        return token_loss.Inputs(
            rows[:scored],
            rows[scored:],
            at,
            chosen.window,
            self.bos,
            chosen.values,
            text,
            # A sum over one document more, or over all where there is none.
            min(scored, chosen.documents),
            chosen.side_by_side,
            chosen.draws_elsewhere,
        )

    def built_in(self, names: Collection[str]) -> list[str]:
        """Names of loaded tasks, those that built-in ones stand for by theirs."""
        sources = {name: str(self.tasks[name]["source"]) for name in names}
        return [
            source.removeprefix("built-in ") if source.startswith("built-in ") else name
            for name, source in sources.items()
        ]

    def _load(self, names: tuple[str, ...]) -> list[Task]:
        loaded = load_tasks(names, self.config.tasks, min_items=self.config.shots + 1)
        for task in loaded:
            answers = task.answers
            if self.config.drawing == "published":
                answers = published.answers_of(task)
            made = Answers(answers, self.template, self.tokenizer, self.config.targets)
            # Alone, a first space would be dropped by some tokenizers.
            after = self.tokenizer.encode(":")
            text = self.tokenizer.decode([*after, *made.shared])
            self.tasks[task.name] = {
                "kind": task.kind,
                "items": len(task),
                "source": task.source,
                "shared": text.removeprefix(self.tokenizer.decode(after)),
                "shared_tokens": made.shared,
                "collisions": made.collisions(),
            }
        return loaded

    def _encode(
        self,
        prompts: list[Prompt],
        new_tokens: int = 1,
        multiple: int = PROMPT_MULTIPLE,
    ) -> Batch:
        self._fits(new_tokens, "--ablation.max-new-tokens")
        # The last new token is predicted and never read.
        return encode_prompts(
            prompts,
            self.tokenizer,
            bos=self.bos,
            max_length=self.model.config.context_length - max(new_tokens - 1, 0),
            multiple=multiple,
            targets=self.config.targets,
        )

    def _documents(
        self,
        length: int,
        count: int,
        bos: bool | None = None,
        packing: str = "documents",
        least: int | None = None,
    ) -> tuple[np.ndarray, str]:
        """Rows of a text, int32 [``count``, ``length``], and what the text is.

        Fewer rows, but ``least`` or more, where the text has no more.
        """
        path = self.config.text
        if path is None:
            documents = texts.pydoc_topics()
            name = f"pydoc_data.topics of Python {platform.python_version()}"
        else:
            documents, name = texts.read_documents(path), str(path)
        # A fixed shuffle: neighbours in a file are often alike.
        order = np.random.default_rng([self.config.seed, 4]).permutation(len(documents))
        encode = texts.encode_documents
        if packing == "stream":
            encode, bos_id = texts.encode_stream, self.tokenizer.bos_id
            between = "nothing" if bos_id is None else self.tokenizer.decode([bos_id])
            name += f", all in one stream with {between} between documents"
        rows = encode(
            [documents[index] for index in order],
            self.tokenizer,
            bos=self.bos if bos is None else bos,
            length=length,
            count=count,
            least=least,
        )
        return rows, name

    def _fits(self, length: int, option: str) -> None:
        context = self.model.config.context_length
        if length > context:
            raise UserError(
                f"sequences of {length} tokens are asked for, but the model's context "
                f"is {context}: lower {option}"
            )

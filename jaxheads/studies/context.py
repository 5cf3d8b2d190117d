"""What a study's inputs are made from: prompts and documents as token ids."""

import dataclasses
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
from jaxheads.scores.config import ScoresConfig
from jaxheads.studies.attribution.config import AttributionConfig
from jaxheads.studies.config import StudyConfig
from jaxheads.weights.model import Model

PROMPT_MULTIPLE = 64  # prompts are padded to few lengths: few compiles
QUERY_MULTIPLE = 16  # queries alone are short


class Context:
    """Makes prompts and documents of a study's config, and notes what the tasks are.

    Attributes:
        model: to study.
        config: of the study.
        bos: whether prompts, probes and documents begin with BOS.
        ranking: a run whose scores are taken; None: they are computed if need be.
        tokenizer: of the model.
        bos_id: put first, or None.
        seed: of every random choice.
        template: how prompts are written.
        vocabulary: ids that random tokens are drawn from.
        tasks: what the loaded tasks are, by name, ready for JSON.
    """

    def __init__(
        self, model: Model, config: StudyConfig, ranking: runs.Run | None = None
    ):
        self.model, self.config, self.ranking = model, config, ranking
        self.tokenizer = model.require_tokenizer()
        self.bos = self._begins_with_bos()
        self.tasks: dict[str, dict] = {}
        self.seed = config.seed
        self.bos_id = self.tokenizer.bos_id if self.bos else None
        self.template = TEMPLATES[config.template]
        self.vocabulary = self._vocabulary()

    def _begins_with_bos(self) -> bool:
        """As the config says or the tokenizer does, if the model can read it."""
        bos_id, rows = self.tokenizer.bos_id, self.model.config.vocab_size
        if self.config.bos and bos_id is None:
            raise UserError(
                "--bos True needs a token that begins a sequence, but the tokenizer "
                "has none: give --bos False"
            )
        if bos_id is not None and bos_id >= rows:
            raise UserError(
                f"the token that begins a sequence has id {bos_id}, but the model's "
                f"embedding has {rows} rows: give the model its own tokenizer"
            )
        return self.tokenizer.adds_bos if self.config.bos is None else self.config.bos

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
        return self.documents(length, count, bos=False)[0]

    def load(self, names: tuple[str, ...]) -> list[Task]:
        """Load tasks by name, and note what they are."""
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

    def draw(self, task: Task, count: int, **keywords: Any) -> list[Prompt]:
        """Prompts of a task, drawn by the rule of ``build_prompts``."""
        shots, seed = self.config.shots, self.config.seed
        return build_prompts(
            task, count, shots, seed, template=self.template, **keywords
        )

    def clean_and_corrupted(
        self, chosen: ScoresConfig | AttributionConfig
    ) -> tuple[dict[str, Batch], dict[str, Batch], dict[str, dict[str, np.ndarray]]]:
        """Prompts of both kinds by task, and which queries either kind asks."""
        clean, corrupted, queries = {}, {}, {}
        tasks = self.load(chosen.tasks)
        drawn = self._scoring_prompts(tasks, chosen)
        for task, (plain, shuffled) in zip(tasks, drawn, strict=True):
            # Together, so that both kinds are padded to one length.
            both = self.encode_prompts([*plain, *shuffled])
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
                self.draw(task, counts[0]),
                self.draw(task, counts[1], corrupt=chosen.corrupt),
            )
            for task in tasks
        ]

    def evaluation_prompts(self, tasks: list[Task], count: int) -> list[list[Prompt]]:
        """Prompts of each task on which answers are counted."""
        if self.config.drawing == "published":
            shots, seed = self.config.shots, self.config.seed
            return published.evaluation_prompts(
                tasks, count, shots, seed, self.template
            )
        overlap = self.config.no_label_overlap
        return [self.draw(task, count, no_label_overlap=overlap) for task in tasks]

    def without_shots(self, prompt: Prompt) -> Prompt:
        """The same query without demonstrations."""
        text = self.template.write((), prompt.query)
        return dataclasses.replace(prompt, text=text, shots=(), clean_shots=())

    def encode_prompts(
        self,
        prompts: list[Prompt],
        new_tokens: int = 1,
        multiple: int = PROMPT_MULTIPLE,
    ) -> Batch:
        """Token ids of prompts that are all padded to one length."""
        self.require_room(new_tokens, "--ablation.max-new-tokens")
        # The last new token is predicted and never read.
        return encode_prompts(
            prompts,
            self.tokenizer,
            bos=self.bos,
            max_length=self.model.config.context_length - max(new_tokens - 1, 0),
            multiple=multiple,
            targets=self.config.targets,
        )

    def documents(
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

    def require_room(self, length: int, option: str) -> None:
        """Refuse sequences that are longer than the model's context."""
        context = self.model.config.context_length
        if length > context:
            raise UserError(
                f"sequences of {length} tokens are asked for, but the model's context "
                f"is {context}: lower {option}"
            )

    def require_telling(self, tasks: Collection[str], option: str) -> None:
        """Refuse tasks in none of which a first token tells anything."""
        if all(self.tasks[task]["collisions"] == 1 for task in tasks):
            raise UserError(
                f"{option} needs answers that a first token tells apart, but in this "
                f"tokenizer all those of {', '.join(tasks)} have the same one: name "
                "other tasks, or give --targets informative"
            )

    def built_in(self, names: Collection[str]) -> list[str]:
        """Names of loaded tasks, those that built-in ones stand for by theirs."""
        sources = {name: str(self.tasks[name]["source"]) for name in names}
        return [
            source.removeprefix("built-in ") if source.startswith("built-in ") else name
            for name, source in sources.items()
        ]

    def scoring_tasks(self) -> Collection[str]:
        """Names of the tasks that heads are scored by, here or in the ranking."""
        if self.ranking is not None:
            return self.ranking.result["scoring_tasks"]
        return self.config.scores.tasks


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

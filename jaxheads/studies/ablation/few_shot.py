"""Which heads few-shot answers need: accuracy while sets of heads are replaced.

Question: how far does few-shot accuracy fall when the top heads of a ranking are
replaced at the last position by their mean, against random heads, and how much is left
when only they are kept? Without demonstrations the same queries show what the model
answers by itself. Source: Yin & Steinhardt 2025, section 4.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from operator import add
from typing import Any

import jax
import numpy as np

from jaxheads.engine import plan, programs, sweeps as engine
from jaxheads.engine.chunks import chunks, fill_of_rows, over_prompts
from jaxheads.engine.devices import gather, mesh_of, replicate
from jaxheads.engine.memory import Fit, fit
from jaxheads.engine.sweeps import last_heads
from jaxheads.heads.sets import Described, distinct, largest_changes, whole_chunks
from jaxheads.icl.encoding import decode_answers
from jaxheads.icl.metrics import f1_scores
from jaxheads.icl.prompts import Batch, by_task
from jaxheads.models.forward import prefill
from jaxheads.runs import Arrays, RunFolder
from jaxheads.tokenizer.tokenizer import Tokenizer


@dataclasses.dataclass(frozen=True)
class Inputs:
    """Prompts of the evaluation tasks.

    Attributes:
        prompts: by task.
        answers: whole answers, by task; empty where answers are one token.
        max_new_tokens: M, besides those that all answers of a task begin with and
            prompts end with.
        f1_style: see ``jaxheads.icl.metrics``.
        resample_seed: heads are replaced by their outputs on prompts of the next task,
            drawn with this seed; None: by what ``run`` is given.
        zero_shot: the same queries without demonstrations, by task; empty: not asked.
        queries: by task, int [B]: prompts with one number ask one query; empty: not
            known, and not in the run.
    """

    prompts: dict[str, Batch]
    answers: dict[str, list[str]]
    max_new_tokens: int
    f1_style: str
    resample_seed: int | None = None
    zero_shot: Mapping[str, Batch] = dataclasses.field(default_factory=dict)
    queries: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)

    def cost(self, config, sets: int) -> plan.Cost:
        """What ``run`` will cost on a number of sets, if no two are the same."""
        total = plan.Cost()
        for batch in self._batches():
            total += self._task_cost(config, batch, sets)
        return total

    def _batches(self) -> list[Batch]:
        return [*self.prompts.values(), *self.zero_shot.values()]

    def fits(
        self, params, config, sets: int, fill: Any, budget_bytes: int
    ) -> list[Fit]:
        """What ``run`` will call, the same programs for prompts of one length."""
        lengths = [batch.tokens.shape[1] for batch in self._batches()]
        by_length = dict(zip(lengths, self._batches(), strict=True))
        fits = []
        for length, batch in by_length.items():
            if self.resample_seed is not None:
                shape = (config.num_layers, len(batch.tokens), 1)
                shape += (config.num_heads, config.head_dim)
                fill = jax.ShapeDtypeStruct(shape, np.float32)
                heads = programs.last_heads(params, batch, config)
                fits.append(fit(heads, budget_bytes))
            sweeps = lengths.count(length)
            _, swept = self._rows(
                params, config, batch, sets, fill, budget_bytes, sweeps
            )
            fits += swept
        return fits

    def _rows(
        self, params, config, batch: Batch, sets, fill, budget_bytes, sweeps=1
    ) -> tuple[int, list[Fit]]:
        """Prompts that share a sweep over all sets, and the sweep's programs."""
        count = len(batch.tokens)
        return programs.fit_rows(
            lambda rows: programs.generate_under_subsets(
                params,
                batch.tokens[:rows],
                batch.lengths[:rows],
                config,
                sets,
                fill_of_rows(fill, slice(rows)),
                self.max_new_tokens,
                sweeps * -(-count // rows),
            ),
            count,
            budget_bytes,
        )

    def _task_cost(self, config, batch: Batch, sets: int) -> plan.Cost:
        count, length = batch.tokens.shape
        steps = plan.step(config, length) * (count * sets * self.max_new_tokens)
        passes = 1 if self.resample_seed is None else 2  # other prompts' outputs
        return plan.sequence(config, length) * (passes * count) + steps


@dataclasses.dataclass(frozen=True)
class Answers:
    """How right the answers to one kind of prompts are, under every set.

    Attributes:
        first_token: float32 0/1 [N, E, B], whether the first token is right; which it
            is, see ``jaxheads.icl.answers``.
        f1: float32 [N, E, B], token F1 of the whole answer, what stands in the prompt
            of it included, up to the end of the text; None: there is no text.
        changes: float [L, H], largest change of each head if it is replaced.
        seconds: wall time, earlier tries included.
    """

    first_token: np.ndarray
    f1: np.ndarray | None
    changes: np.ndarray
    seconds: float


@dataclasses.dataclass(frozen=True)
class Result:
    """Answers under every set.

    Attributes:
        sets: descriptions, each with its largest change.
        replaced: bool [N, L, H].
        runs: how many different sets there are, which is how many were run.
        few_shot: after demonstrations.
        zero_shot: without them, or None.
        queries: int [E, B], of both: prompts of a task with one number ask one query;
            None: not known.
    """

    sets: list[dict]
    replaced: np.ndarray
    runs: int
    few_shot: Answers
    zero_shot: Answers | None
    queries: np.ndarray | None = None

    @property
    def seconds(self) -> float:
        """Wall time, earlier tries included."""
        return self.few_shot.seconds + (self.zero_shot.seconds if self.zero_shot else 0)

    def arrays(self) -> Arrays:
        """Named arrays for the run folder."""
        named = {
            "ablation/replaced": self.replaced,
            "ablation/first_token": self.few_shot.first_token,
        }
        if self.queries is not None:
            named["ablation/queries"] = self.queries
        if self.few_shot.f1 is not None:
            named["ablation/f1"] = self.few_shot.f1
        if self.zero_shot:
            named["ablation/zero_shot/first_token"] = self.zero_shot.first_token
            if self.zero_shot.f1 is not None:
                named["ablation/zero_shot/f1"] = self.zero_shot.f1
        return named


def run(
    inputs: Inputs,
    params,
    config,
    tokenizer: Tokenizer | None,
    sets: Sequence[Described],
    fill: np.ndarray | None,
    folder: RunFolder,
    budget_bytes: int,
    advance,
) -> Result:
    """Answer every prompt under every set of heads.

    Args:
        inputs: from the study's configuration.
        params: of the family of ``config``.
        config: of the model.
        tokenizer: to read the answers; None: they are token ids, without F1.
        sets: of ``SetPlan.build``.
        fill: [L, H, K], what replaces a head; None: zeros.
        folder: where finished units are kept.
        budget_bytes: memory for activations.
        advance: told the FLOPs that are done.

    Raises:
        RuntimeError: a non-empty set changes nothing.
    """
    replaced = np.stack([heads for _, heads in sets])
    common = (params, config, tokenizer, replaced, fill, folder, budget_bytes, advance)
    few_shot = _answers(inputs, inputs.prompts, "ablation", *common)
    zero_shot = None
    if inputs.zero_shot:
        zero_shot = _answers(inputs, inputs.zero_shot, "ablation-zero-shot", *common)
        largest_changes(sets, zero_shot.changes, "at the last position, zero-shot")
    largest = largest_changes(sets, few_shot.changes, "at the last position")
    return Result(
        sets=[
            described | {"largest_change": change}
            for (described, _), change in zip(sets, largest, strict=True)
        ],
        replaced=replaced,
        runs=len(distinct(replaced)[0]),
        few_shot=few_shot,
        zero_shot=zero_shot,
        queries=by_task(inputs.queries, inputs.prompts),
    )


def _answers(
    inputs: Inputs,
    prompts: Mapping[str, Batch],
    unit_name: str,
    params,
    config,
    tokenizer: Tokenizer | None,
    replaced: np.ndarray,
    fill: np.ndarray | None,
    folder: RunFolder,
    budget_bytes: int,
    advance,
) -> Answers:
    """Answer all tasks' prompts of one kind, a unit a task."""
    units, correct, f1 = [], [], []
    for task, batch in prompts.items():
        cost = inputs._task_cost(config, batch, len(replaced)).flops

        def compute(task=task, batch=batch, cost=cost) -> Arrays:
            made = _task(
                inputs,
                batch,
                params,
                config,
                replaced,
                fill
                if inputs.resample_seed is None
                else _resampled(inputs, task, params, config, budget_bytes),
                budget_bytes,
                lambda share: advance(cost * share),
            )
            # Tokens cannot be NaN: -1 stands for logits that are not finite.
            unread = np.where(made["tokens"] < 0, np.float32(np.nan), 0)
            axes = {"logits": ("N", "B", "new token"), "changes": "LH"}
            folder.check({"logits": unread, **made}, axes, f"{unit_name}-{task}")
            return made

        if folder.has(f"{unit_name}-{task}"):
            advance(cost)
        unit = folder.unit(f"{unit_name}-{task}", compute)
        units.append(unit)
        correct.append(unit["tokens"][..., 0] == batch.targets[None])  # [N, B]
        if tokenizer is None:
            continue
        answers, begun = inputs.answers[task], batch.begun()
        f1.append(
            [
                f1_scores(
                    decode_answers(map(add, begun, row), tokenizer),
                    answers,
                    inputs.f1_style,
                )
                for row in unit["tokens"].tolist()
            ]
        )
    return Answers(
        np.stack(correct, axis=1).astype(np.float32),
        np.stack(f1, axis=1).astype(np.float32) if f1 else None,
        np.max([unit["changes"] for unit in units], axis=0),
        float(sum(unit["seconds"] for unit in units)),
    )


def _task(
    inputs: Inputs, batch: Batch, params, config, replaced, fill, budget_bytes, advance
) -> Arrays:
    """Answers [N, B, M] of one task, and each head's largest change [L, H].

    ``advance`` is told shares of the task that are done.
    """
    count, sets = len(batch.tokens), len(replaced)
    rows, (_, swept) = inputs._rows(params, config, batch, sets, fill, budget_bytes)
    first, place = distinct(replaced)
    run = whole_chunks(replaced[first], swept.chunk)
    tokens = np.zeros((len(run), count, inputs.max_new_tokens), np.int32)
    changes = []
    for index in chunks(count, rows):
        prompts = (batch.tokens[index], batch.lengths[index])
        own = fill_of_rows(fill, index)
        given, lengths = replicate(prompts, mesh_of(params))
        prefix = prefill(params, given, lengths, config)
        share = len(np.unique(index)) / (count * len(run))
        tokens[:, index] = engine.generate_under_subsets(
            params,
            *prompts,
            config,
            run,
            own,
            inputs.max_new_tokens,
            chunk=swept.chunk,
            prefix=prefix,
            advance=lambda done, share=share: advance(done * share),
        )
        changes.append(_largest_change(gather(prefix.heads), own))
    return {"tokens": tokens[place], "changes": np.max(changes, axis=0)}


def _largest_change(heads: np.ndarray, fill: np.ndarray | None) -> np.ndarray:
    """Of head outputs [L, B, H, K], by being replaced: [L, H]."""
    if fill is not None:
        heads = heads - (fill[:, None] if fill.ndim == 3 else fill[:, :, 0])
    return np.abs(heads).max(axis=(1, 3))


def _heads(
    inputs: Inputs, batch: Batch, params, config, budget_bytes: int
) -> np.ndarray:
    """Head outputs [L, B, H, K] at the prompts' last positions."""
    heads = over_prompts(
        last_heads,
        params,
        (batch.tokens, batch.lengths),
        (config,),
        chunk=fit(programs.last_heads(params, batch, config), budget_bytes).chunk,
    )
    return np.concatenate(heads, axis=1)[:, : len(batch.tokens)]


def _resampled(
    inputs: Inputs, task: str, params, config, budget_bytes: int
) -> np.ndarray:
    """Outputs on prompts of the next task, one for each prompt: [L, B, 1, H, K]."""
    names = list(inputs.prompts)
    index = names.index(task)
    other = inputs.prompts[names[(index + 1) % len(names)]]
    heads = _heads(inputs, other, params, config, budget_bytes)
    rng = np.random.default_rng([inputs.resample_seed or 0, 8, index])
    count = len(inputs.prompts[task].tokens)
    return heads[:, rng.integers(0, len(other.tokens), count)][:, :, None]

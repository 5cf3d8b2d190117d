"""Which heads the gain from context needs: token-loss difference under ablation.

Question: how much lower is the loss at a late token of a document than at an early one,
and how much of that is left when heads are replaced at every position? The difference
is early minus late, so positive means that the model learns in context. The papers
score two single tokens of 10,000 documents; with few documents the mean over a window
around each is far less noisy, and costs nothing. Source: Yin & Steinhardt 2025, section
4; the sign of Olsson et al. 2022 is the other one.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxheads.engine import fills, plan
from jaxheads.engine.chunks import distinct, part_of_fill
from jaxheads.engine.devices import gather, mesh_of, replicate
from jaxheads.engine.memory import Fit
from jaxheads.engine.sweeps import Sweep, fit_rows, run_rows, token_predictions
from jaxheads.errors import UserError
from jaxheads.heads.sets import Described, SetPlan, largest_changes
from jaxheads.runs import Arrays
from jaxheads.studies.context import Context
from jaxheads.studies.job import Given, Job
from jaxheads.studies.token_loss.config import TokenLossConfig

DOCUMENTS_AT_ONCE = 5


ARRAYS = {
    "token_loss/replaced": ("M L H", "true: replaced"),
    "token_loss/*": ("M B P", "nats"),
}
"""Dims and unit of what a run gets, see ``receipt``."""
ADVICE = "give earlier --token-loss.positions"
"""What makes the smallest step smaller."""


@dataclasses.dataclass(frozen=True)
class Inputs:
    """Documents as tokens.

    Attributes:
        documents: int32 [B, T], scored.
        fill_documents: int32 [B', T], others, which give the mean head outputs.
        at: indices [2] of the early and the late token.
        bos: whether rows begin with BOS.
        text: what the documents are.
        settings: what is asked of them.
        seed: of random sets.
    """

    documents: np.ndarray
    fill_documents: np.ndarray
    at: np.ndarray
    bos: bool
    text: str
    settings: TokenLossConfig
    seed: int

    @property
    def divided_by(self) -> int:
        """What sums are divided by: the documents; as published, one fewer."""
        # A sum over one document more, or over all where there is none.
        return min(len(self.documents), self.settings.documents)

    def sets(self, given: Given) -> list[Described]:
        """Every set by the rankings, the clean one first."""
        asked = self.settings
        return SetPlan(
            asked.rankings,
            asked.fractions,
            asked.exclusion,
            draws=asked.draws,
            seed=self.seed,
            exclusion_least=asked.exclusion_least,
            draws_elsewhere=asked.draws_elsewhere,
        ).build(given.rankings)

    def tokens(self) -> Arrays:
        """Everything that is fed to the model."""
        return {
            "prompts/token_loss": self.documents,
            "prompts/token_loss_fill": self.fill_documents,
        }

    def of_value(self, value: str, sets: Sequence[Described]) -> list[Described]:
        """The sets that are run with a value: all of them with the first.

        With the others all but the clean one, which no value changes, of random sets
        ``draws_elsewhere`` at most, and only those of the fractions of
        ``side_by_side``, or of all.
        """
        if value == self.settings.values[0]:
            return list(sets)
        return [
            (described, heads)
            for described, heads in sets[1:]
            if described["ranking"] != "random"
            or described["draw"] < self.settings.draws_elsewhere
            if not self.settings.side_by_side
            or described["fraction"] in self.settings.side_by_side
        ]

    def cost(self, config, given: Given) -> plan.Cost:
        """What ``run`` will cost, if no two sets are the same."""
        sets = self.sets(given)
        length = self.documents.shape[1]
        rows = sum(len(self.of_value(value, sets)) for value in self.settings.values)
        runs = len(self.documents) * rows + len(self.fill_documents)
        return plan.sequence(config, length, 2 * self.settings.window) * runs

    def fits(self, params, config, given: Given, budget_bytes: int) -> list[Fit]:
        """What ``run`` will call."""
        sets = self.sets(given)
        documents = self.documents[:DOCUMENTS_AT_ONCE]
        times = -(-len(self.documents) // DOCUMENTS_AT_ONCE)
        fits = []
        for value in self.settings.values:
            if runs := len(self.of_value(value, sets)):
                fill = self._fill_shape(config, value, len(documents))
                sweep = self.sweep(config, documents, fill)
                rows = len(documents)
                fits += fit_rows(sweep, rows, params, runs, budget_bytes, times)[1]
        return fits

    def _fill_shape(self, config, value: str, rows: int) -> jax.ShapeDtypeStruct | None:
        """Of what replaces heads, see ``_Fills``."""
        layers, *head = config.num_layers, config.num_heads, config.head_dim
        length = self.documents.shape[1]
        shape = {
            "resample": (layers, rows, length, *head),
            "mean_by_position": (layers, 1, length, *head),
        }.get(value, (layers, *head))
        return None if value == "zero" else jax.ShapeDtypeStruct(shape, np.float32)

    def sweep(self, config, documents: np.ndarray, fill) -> Callable[[Any], Sweep]:
        """Of some of the documents, by a slice or indices."""
        return lambda rows: token_predictions(
            documents[rows], config, part_of_fill(fill, rows), self.scored()
        )

    def scored(self) -> np.ndarray:
        """Indices of the tokens that are scored: int [2 W], the early window first."""
        around = np.arange(self.settings.window) - self.settings.window // 2
        return (self.at[:, None] + around).reshape(-1)


@dataclasses.dataclass(frozen=True)
class Result:
    """Losses under every set.

    Attributes:
        inputs: what was asked.
        sets: descriptions, each with its value and largest change.
        replaced: bool [M, L, H].
        loss: float32 [M, B, 2], nats, mean over the early and the late window.
        exact: float32 [M, B, 2], nats, of the early and the late token alone.
        runs: how many different pairs of set and value there are, all of which were
            run.
        seconds: wall time, earlier tries included.
    """

    inputs: Inputs
    sets: list[dict]
    replaced: np.ndarray
    loss: np.ndarray
    exact: np.ndarray
    runs: int
    seconds: float

    def arrays(self) -> Arrays:
        """Named arrays for the run folder."""
        return {
            "token_loss/replaced": self.replaced,
            "token_loss/loss": self.loss,
            "token_loss/exact": self.exact,
        }

    def describe(self) -> dict[str, Any]:
        """Everything but the arrays, ready for JSON."""
        asked = self.inputs.settings
        told = {
            "text": self.inputs.text,
            "packing": asked.packing,
            "documents": len(self.inputs.documents),
            "divided_by": self.inputs.divided_by,
            "positions": list(asked.positions),
            "window": asked.window,
            "fractions": list(asked.fractions),
            "sets": self.sets,
            "sets_run": self.runs,
        }
        return {"token_loss": told}


def prepare(context: Context) -> Inputs:
    """Documents that are scored, and those that give the mean head outputs."""
    chosen = context.config.token_loss
    at = np.array(chosen.positions) - 1 + context.bos
    length = int(at[1]) + chosen.window // 2 + 1
    context.require_room(length, "--token-loss.positions")
    wanted = chosen.documents + (chosen.average == "published")
    rows, text = context.documents(
        length,
        wanted + chosen.fill_documents,
        packing=chosen.packing,
        # The mean of N needs no document more; of the published sum it is the last.
        least=(2 if chosen.allow_fewer else chosen.documents) + chosen.fill_documents,
    )
    if "bos" in chosen.values and not context.bos:
        raise UserError(
            "--token-loss.values bos needs documents that begin with BOS: add "
            "--bos True, or leave it out"
        )
    scored = len(rows) - chosen.fill_documents
    return Inputs(
        rows[:scored], rows[scored:], at, context.bos, text, chosen, context.seed
    )


def run(inputs: Inputs, job: Job) -> Result:
    """Score every document under every set and value.

    Raises:
        UserError: a non-empty set changes nothing.
    """
    params, config, folder, advance = job.params, job.config, job.folder, job.advance
    sets = inputs.sets(job.given)
    length = inputs.documents.shape[1]
    one = plan.sequence(config, length, 2 * inputs.settings.window).flops
    made = _Fills(inputs, params, config)
    advance(one * len(inputs.fill_documents))
    units, rows = [], []
    for value in inputs.settings.values:
        chosen = inputs.of_value(value, sets)
        if not chosen:
            continue
        replaced = np.stack([heads for _, heads in chosen])
        losses, changes = [], []
        for start in range(0, len(inputs.documents), DOCUMENTS_AT_ONCE):
            documents = inputs.documents[start : start + DOCUMENTS_AT_ONCE]
            name = f"token-loss-{value}-{start}"
            if folder.has(name):
                advance(one * len(documents) * len(chosen))

            def compute(
                documents=documents, replaced=replaced, value=value, start=start
            ) -> Arrays:
                fill = made.of(value, start, len(documents))
                told = lambda done: advance(one * done)
                return {
                    "loss": _losses(inputs, documents, replaced, fill, job, told),
                    "changes": _changes(params, documents, config, fill),
                }

            unit = folder.unit(name, compute, _AXES)
            units.append(unit)
            losses.append(unit["loss"])
            changes.append(unit["changes"])
        largest = largest_changes(chosen, np.max(changes, axis=0), "everywhere")
        described = [
            item | {"value": value, "largest_change": change}
            for (item, _), change in zip(chosen, largest, strict=True)
        ]
        rows.append((described, replaced, np.concatenate(losses, axis=1)))
    loss = np.concatenate([loss for _, _, loss in rows])  # [M, B, 2 W]
    loss = loss.reshape(*loss.shape[:2], 2, inputs.settings.window)
    return Result(
        inputs,
        sets=[item for described, _, _ in rows for item in described],
        replaced=np.concatenate([replaced for _, replaced, _ in rows]),
        loss=loss.mean(axis=-1),
        exact=loss[..., inputs.settings.window // 2],
        runs=sum(len(distinct(replaced)[0]) for _, replaced, _ in rows),
        seconds=float(sum(unit["seconds"] for unit in units)),
    )


_AXES = {"loss": ("N", "document", "P"), "changes": "LH"}


def _losses(inputs: Inputs, documents, replaced, fill, job: Job, advance) -> np.ndarray:
    """Losses [N, B, 2 W] of some documents; tells (document, subset) pairs done."""
    sweep, count = inputs.sweep(job.config, documents, fill), len(documents)
    told = lambda share: advance(share * count * len(replaced))
    return -run_rows(sweep, count, job.params, replaced, job.budget, told)


class _Fills:
    """What replaces heads in a chunk of documents, by the value's name."""

    def __init__(self, inputs: Inputs, params, config):
        self._inputs, self._params, self._config = inputs, params, config
        self._made: dict[str, np.ndarray | None] = {"zero": None}

    def of(self, value: str, start: int, count: int) -> np.ndarray | None:
        """A fill for ``count`` documents from ``start`` on."""
        if value == "resample":
            others = self._inputs.fill_documents
            rows = others[np.arange(start, start + count) % len(others)]
            rows = replicate(rows, mesh_of(self._params))
            return gather(fills.captured(self._params, rows, self._config))
        if value not in self._made:
            self._made[value] = self._make(value)
        return self._made[value]

    def _make(self, value: str) -> np.ndarray:
        inputs, arguments = self._inputs, (self._params, self._config)
        if value == "bos":
            bos = int(inputs.documents[0, 0])
            return fills.bos_value(*arguments, bos, site="z")
        return fills.mean(
            self._params,
            inputs.fill_documents,
            None,
            self._config,
            positions="pooled" if value == "mean" else "each",
            first=int(inputs.bos) if value == "mean" else 0,  # BOS sees only itself
            chunk=1,
        )


def _changes(params, documents: np.ndarray, config, fill) -> np.ndarray:
    """Largest change [L, H] that a fill makes to the heads of documents."""
    largest = []
    for row, tokens in enumerate(documents):  # one at a time: memory stays flat
        own = (
            fill[:, row : row + 1] if np.ndim(fill) == 5 and fill.shape[1] > 1 else fill
        )
        own, tokens = replicate((own, tokens[None]), mesh_of(params))
        largest.append(gather(_largest(params, tokens, config, own)))
    return np.max(largest, axis=0)


@jax.jit
def _largest(params, tokens, config, fill):
    heads = fills.captured(params, tokens, config)
    if fill is None:
        fill = jnp.zeros(())
    elif fill.ndim == 3:
        fill = fill[:, None, None]
    return jnp.abs(heads - fill).max(axis=(1, 2, 4))

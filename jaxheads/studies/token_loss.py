"""Which heads the gain from context needs: token-loss difference under ablation.

Question: how much lower is the loss at a late token of a document than at an early one,
and how much of that is left when heads are replaced at every position? The difference
is early minus late, so positive means that the model learns in context. The papers
score two single tokens of 10,000 documents; with few documents the mean over a window
around each is far less noisy, and costs nothing. Source: Yin & Steinhardt 2025, section
4; the sign of Olsson et al. 2022 is the other one.
"""

import dataclasses
import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from jaxheads import engine, plan
from jaxheads.models.forward import forward
from jaxheads.runs import Arrays, RunFolder
from jaxheads.sets import Described, largest_changes

DOCUMENTS_AT_ONCE = 5


@dataclasses.dataclass(frozen=True)
class Inputs:
    """Documents as tokens.

    Attributes:
        documents: int32 [B, T], scored.
        fill_documents: int32 [B', T], others, which give the mean head outputs.
        at: indices [2] of the early and the late token.
        window: W, odd; tokens around each of the two whose losses are averaged.
        bos: whether rows begin with BOS.
        values: "mean", "zero" or both.
        text: what the documents are.
    """

    documents: np.ndarray
    fill_documents: np.ndarray
    at: np.ndarray
    window: int
    bos: bool
    values: tuple[str, ...]
    text: str

    def cost(self, config, sets: int) -> plan.Cost:
        """What ``run`` will cost on a number of sets."""
        length = self.documents.shape[1]
        runs = len(self.documents) * self.num_rows(sets) + len(self.fill_documents)
        return plan.sequence(config, length, 2 * self.window) * runs

    def scored(self) -> np.ndarray:
        """Indices of the tokens that are scored: int [2 W], the early window first."""
        around = np.arange(self.window) - self.window // 2
        return (self.at[:, None] + around).reshape(-1)

    def num_rows(self, sets: int) -> int:
        """Sets times values, the clean run once."""
        return (sets - 1) * len(self.values) + 1


@dataclasses.dataclass(frozen=True)
class Result:
    """Losses under every set.

    Attributes:
        sets: descriptions, each with its value and largest change.
        replaced: bool [M, L, H].
        loss: float32 [M, B, 2], nats, mean over the early and the late window.
        exact: float32 [M, B, 2], nats, of the early and the late token alone.
        seconds: wall time, earlier tries included.
    """

    sets: list[dict]
    replaced: np.ndarray
    loss: np.ndarray
    exact: np.ndarray
    seconds: float

    def arrays(self) -> Arrays:
        """Named arrays for the run folder."""
        return {
            "token_loss/replaced": self.replaced,
            "token_loss/loss": self.loss,
            "token_loss/exact": self.exact,
        }


def run(
    inputs: Inputs,
    params,
    config,
    sets: Sequence[Described],
    folder: RunFolder,
    budget_bytes: int,
    advance,
) -> Result:
    """Score every document under every set and value.

    Args:
        inputs: from the study's configuration.
        params: of the family of ``config``.
        config: of the model.
        sets: of ``SetPlan.build``, the clean one first.
        folder: where finished units are kept.
        budget_bytes: memory for activations.
        advance: told the FLOPs that are done.

    Raises:
        RuntimeError: a non-empty set changes nothing.
    """
    length = inputs.documents.shape[1]
    one = plan.sequence(config, length, 2 * inputs.window).flops
    filled = folder.unit("token-loss-fill", lambda: _fill(inputs, params, config))
    advance(one * len(inputs.fill_documents))
    units, rows = [filled], []
    for index, value in enumerate(inputs.values):
        chosen = sets if index == 0 else sets[1:]  # clean is the same for every value
        replaced = np.stack([heads for _, heads in chosen])
        losses = []
        for start in range(0, len(inputs.documents), DOCUMENTS_AT_ONCE):
            documents = inputs.documents[start : start + DOCUMENTS_AT_ONCE]
            name = f"token-loss-{value}-{start}"
            if folder.has(name):
                advance(one * len(documents) * len(chosen))
            fill = filled["mean_heads"] if value == "mean" else None

            def compute(documents=documents, replaced=replaced, fill=fill) -> Arrays:
                loss = engine.losses_under_subsets(
                    params,
                    documents,
                    config,
                    replaced,
                    fill,
                    inputs.scored(),
                    chunk=engine.subset_chunk(
                        config, len(documents), length, budget_bytes
                    ),
                    advance=lambda done: advance(one * len(documents) * done),
                )
                return {"loss": loss}

            unit = folder.unit(name, compute)
            units.append(unit)
            losses.append(unit["loss"])
        largest = largest_changes(chosen, filled[f"changes_{value}"], "everywhere")
        described = [
            item | {"value": value, "largest_change": change}
            for (item, _), change in zip(chosen, largest, strict=True)
        ]
        rows.append((described, replaced, np.concatenate(losses, axis=1)))
    loss = np.concatenate([loss for _, _, loss in rows])  # [M, B, 2 W]
    loss = loss.reshape(*loss.shape[:2], 2, inputs.window)
    return Result(
        sets=[item for described, _, _ in rows for item in described],
        replaced=np.concatenate([replaced for _, replaced, _ in rows]),
        loss=loss.mean(axis=-1),
        exact=loss[..., inputs.window // 2],
        seconds=float(sum(unit["seconds"] for unit in units)),
    )


@functools.partial(jax.jit, static_argnames="start")
def _moments(params, tokens, config, mean, start):
    """Mean over tokens [L, H, K] and largest |z - mean| [L, H] of one document."""
    z = forward(params, tokens[None], config, capture=("heads",)).heads
    assert z is not None
    z = z[:, 0, start:].astype(jnp.float32)  # [L, T, H, K]
    return z.mean(axis=1), jnp.abs(z - mean[:, None]).max(axis=(1, 3))


def _fill(inputs: Inputs, params, config) -> Arrays:
    """Mean head outputs, pooled over the documents' tokens, BOS left out."""
    shape = (config.num_layers, config.num_heads, config.head_dim)

    def over_documents(mean):
        return [
            [
                np.asarray(value)
                for value in _moments(params, tokens, config, mean, int(inputs.bos))
            ]
            for tokens in inputs.fill_documents
        ]

    zero = over_documents(np.zeros(shape, np.float32))
    mean = np.mean([means for means, _ in zero], axis=0)
    return {
        "mean_heads": mean,
        "changes_zero": np.max([change for _, change in zero], axis=0),
        "changes_mean": np.max([change for _, change in over_documents(mean)], axis=0),
    }

"""What holds of a model as it is loaded here: its dtype, its devices, its tokenizer.

Every check says what was compared, the largest difference and what rounding allows. A
few prompts go through every way in which studies run a model, and each way must agree
with the plain one. ``examine`` is ``jaxheads doctor``; ``examine_study`` are the checks
of a study's own inputs, which cost one short run.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import takewhile
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console

from jaxheads.engine import sweeps
from jaxheads.engine.devices import gather, mesh_of, replicate
from jaxheads.errors import UserError
from jaxheads.heads import head_names
from jaxheads.icl.answers import Answers
from jaxheads.icl.prompts import build_prompts
from jaxheads.icl.tasks import load_tasks
from jaxheads.icl.templates import TEMPLATES
from jaxheads.models import family
from jaxheads.models.ablation import Ablation
from jaxheads.models.forward import forward, generate, prefill
from jaxheads.models.layer_scan import exact_products
from jaxheads.models.metrics import log_probability
from jaxheads.report.tables import Table, printed
from jaxheads.runs import finite
from jaxheads.studies.ablation.first_tokens import CROWDED
from jaxheads.tokenizer.tokenizer import Tokenizer
from jaxheads.weights.model import Model

if TYPE_CHECKING:
    from jaxheads.training.trained import Trained

PROMPTS, SHOTS, LONGEST, NEW, SETS = 4, 3, 64, 3, 4
"""Of ``examine``: prompts, their demonstrations, tokens of one, new tokens, sets."""
SINGLE = float(np.finfo(np.float32).eps)
_PRODUCTS = {"bfloat16": 2.0**-8, "tensorfloat32": 2.0**-10, "high": 2.0**-16}
"""Rounding of factors, where the user asked for less than whole float32 products."""


@dataclasses.dataclass(frozen=True)
class Check:
    """What was compared, and whether it holds.

    Attributes:
        compared: the two sides.
        holds: None: not asked.
        difference: the largest; None: none is measured.
        tolerance: what rounding allows of it; 0: equal bit for bit.
        where: of a check that fails, where; of one that was not asked, why.
        name: what should hold.
    """

    compared: str
    holds: bool | None
    difference: float | None = None
    tolerance: float | None = None
    where: str = ""
    name: str = ""

    def __str__(self) -> str:
        told = f"{self.name} does not hold: {self.where}"
        if self.difference is not None and self.tolerance is not None:
            told += f" (off by {self.difference:.3g}, {self.tolerance:.3g} is allowed)"
        return told


class Case:
    """A model with a few prompts; what several checks read is computed once.

    Args:
        params: on one device or a mesh.
        config: of the model.
        tokens: int32 [B, T], right padded, two prompts or more.
        lengths: int32 [B].
        names: of the prompts.
    """

    def __init__(self, params, config, tokens, lengths, names: Sequence[str]):
        self.params, self.config = params, config
        self.tokens = np.asarray(tokens, np.int32)
        self.lengths = np.asarray(lengths, np.int32)
        self.names, self.mesh = {"B": list(names)}, mesh_of(params)
        dtypes = {leaf.dtype for leaf in jax.tree.leaves(params)}
        self.eps = max(float(jnp.finfo(dtype).eps) for dtype in dtypes)
        # Some 16 results a layer are rounded, each by the params' dtype and by a sum
        # over the width in float32: a random walk of so many steps.
        step = self.eps + SINGLE * config.width**0.5
        self.rounding = step * (16 * config.num_layers) ** 0.5

    def place(self, *arrays) -> Any:
        """Arrays on the devices of the params."""
        placed = replicate(tuple(np.asarray(each) for each in arrays), self.mesh)
        return placed[0] if len(placed) == 1 else placed

    def seen(self, tokens: np.ndarray) -> dict[str, np.ndarray]:
        """See ``_observe``."""
        return gather(
            _observe(self.params, *self.place(tokens, self.lengths), self.config)
        )

    @functools.cached_property
    def plain(self) -> dict[str, np.ndarray]:
        """The plain run."""
        return self.seen(self.tokens)

    @functools.cached_property
    def fill(self) -> np.ndarray:
        """What replaces heads: their mean output at the last position, [L, H, K]."""
        return self.plain["heads"].astype(np.float32).mean(axis=1)

    @property
    def targets(self) -> np.ndarray:
        """The likeliest tokens, int32 [B]."""
        return self.plain["logits"].argmax(axis=-1).astype(np.int32)

    @functools.cached_property
    def swept(self) -> tuple[np.ndarray, np.ndarray]:
        """Sets of heads [N, L, H]: ``SETS`` ones, none, every layer; and what is left.

        Log-probabilities [N, B] of the targets, from one prefix.
        """
        shape, rng = self.fill.shape[:2], np.random.default_rng(0)
        sets = np.zeros((SETS + 1 + shape[0], *shape), bool)
        sets[0, shape[0] // 2, rng.integers(shape[1])] = True
        sets[1, shape[0] - 1, rng.integers(shape[1])] = True
        sets[2:SETS] = rng.random((SETS - 2, *shape)) < 0.3
        sets[SETS + 1 :] = np.eye(shape[0], dtype=bool)[:, :, None]
        given = (self.tokens, self.lengths, self.targets)
        values = sweeps.metric_under_subsets(
            self.params, *given, self.config, sets, self.fill,
            metric=log_probability, chunk=8,
        )  # fmt: skip
        return sets, values

    @property
    def counts(self) -> np.ndarray:
        """Which positions are no padding: bool [B, T]."""
        return np.arange(self.tokens.shape[1]) < self.lengths[:, None]

    def logits(self, tokens, lengths, ablation: Ablation | None = None) -> np.ndarray:
        """Of the last position, by the plain forward: [B, V]."""
        tokens, lengths = self.place(np.asarray(tokens), np.asarray(lengths))
        run = forward(
            self.params, tokens, self.config, lengths=lengths, ablation=ablation,
            logits="last",
        )  # fmt: skip
        return gather(run.logits)

    def judge(
        self,
        compared: str,
        differences: Any,
        axes: Sequence[str],
        tolerance: float | None = None,
        names: Mapping[str, Sequence[Any]] | None = None,
    ) -> Check:
        """A check of differences, by default of logits, relative to their largest."""
        differences = np.abs(np.asarray(differences, np.float64))
        allowed = self.rounding if tolerance is None else float(tolerance)
        if tolerance is None:
            differences = differences / max(np.abs(self.plain["logits"]).max(), 1e-9)
        worst = np.where(np.isnan(differences), np.inf, differences)
        at = tuple(map(int, np.unravel_index(int(worst.argmax()), worst.shape)))
        largest = float(differences[at])
        holds = largest <= allowed
        where = "" if holds else finite.place(at, axes, {**self.names, **(names or {})})
        known = largest if np.isfinite(largest) else None
        return Check(compared, holds, known, allowed, where)


@functools.partial(jax.jit, static_argnames="config")
def _observe(params, tokens, lengths, config) -> dict[str, jax.Array]:
    """Logits at the last position and what the checks read of the layers.

    Returns:
        "logits" [B, V]; "heads" z [L, B, H, K] at the last position; "entering" bool
        [L, B, T] and "finite" bool [L, B, T, H]: the stream and z are finite; "added"
        bool [L, B, H]: what each head adds is; "patterns" [L, B, H, T]: sums of
        attention; "parts", "attended" [L, B, D]: sum of what heads add, and what the
        layer's attention adds; "size" [L, B]: largest sum of their magnitudes.
    """
    model = family(config.model_type)
    run = forward(
        params, tokens, config, lengths=lengths, logits="last",
        capture=("heads", "patterns", "residual"),
    )  # fmt: skip
    assert run.heads is not None and run.patterns is not None
    assert run.residual is not None
    at = (lengths - 1)[None, :, None, None, None]
    z = jnp.take_along_axis(run.heads, at, axis=2)  # [L, B, 1, H, K]
    nowhere = jnp.zeros((len(tokens), 1, config.width), run.heads.dtype)

    def of_layer(inputs):
        layer, z = inputs
        each = model.contributions(layer, z, config)[:, 0].astype(jnp.float32)
        bias = getattr(layer, "bo", None) if "bo" in model.OUTPUT else None
        parts = each.sum(axis=1)
        parts = parts if bias is None else parts + bias.astype(jnp.float32)[None]
        silent = {
            name: jnp.zeros_like(getattr(layer, name))
            for name in ("w_down", "b_down")
            if getattr(layer, name, None) is not None
        }
        # On a stream of zeros, without an MLP, a block is what its attention adds.
        attended = model.block(
            layer.replace(**silent),
            nowhere,
            jnp.zeros(nowhere.shape[:2], jnp.int32),
            lambda q, k, v, **_: z,
            config,
        )
        return {
            "added": jnp.isfinite(each).all(axis=-1),
            "parts": parts,
            "attended": attended[:, 0].astype(jnp.float32),
            "size": jnp.abs(each).sum(axis=1).max(axis=-1),
        }

    return {
        "logits": run.logits,
        "heads": z[:, :, 0],
        "entering": jnp.isfinite(run.residual).all(axis=-1),
        "finite": jnp.isfinite(run.heads).all(axis=-1),
        "patterns": run.patterns.astype(jnp.float32).sum(axis=-1),
        **jax.lax.map(of_layer, (params.layers, z)),
    }


def finite_values(case: Case) -> Check:
    """The first layer, and in it the first head, whose values are no numbers."""
    seen, counts = case.plain, case.counts
    found = ""
    for l in range(case.config.num_layers):
        heads = np.moveaxis(~seen["finite"][l] & counts[..., None], 2, 0)
        for what, bad, axes in (
            (" of the stream that enters it", ~seen["entering"][l] & counts, "BT"),
            ("", heads, "HBT"),
            (" of what it adds", ~seen["added"][l].T, "HB"),
        ):
            if bad.any() and not found:
                told = finite.place(np.argwhere(bad)[0], axes, case.names)
                found = f"layer {l}, {told}: a value{what} is not finite"
    bad = ~np.isfinite(seen["logits"]).all(axis=-1)
    if bad.any() and not found:
        told = finite.place(np.argwhere(bad)[0], "B", case.names)
        found = f"{told}: a logit is not finite, behind layers that are"
    return Check("streams, heads and logits", not found, where=found)


def patterns_sum(case: Case) -> Check:
    """Attention of each query is shared out whole."""
    off = np.where(case.counts[None, :, None], case.plain["patterns"] - 1, 0)
    tolerance = case.eps + off.shape[-1] * SINGLE
    off = np.moveaxis(off, 2, 1)
    return case.judge("sums of attention, 1", off, "LHBT", tolerance)


def heads_sum(case: Case) -> Check:
    """The family's ``contributions`` are all that its attention adds."""
    seen = case.plain
    off = np.abs(seen["parts"] - seen["attended"]).max(axis=-1)
    inner = case.config.num_heads * case.config.head_dim
    tolerance = 4 * (case.eps + inner**0.5 * SINGLE)
    what = "heads' parts and the bias, attention's output"
    return case.judge(what, off / seen["size"].clip(1e-30), "LB", tolerance)


def two_runs(case: Case) -> Check:
    """The same program on the same input."""
    off = _apart(case.seen(case.tokens)["logits"], case.plain["logits"])
    return case.judge("logits, bit for bit", off, "B", 0.0)


def other_rows(case: Case) -> Check:
    """Each prompt beside others than before: no row reads another."""
    rows = np.roll(np.arange(len(case.tokens)), 1)
    off = []
    for row in range(len(case.tokens)):
        tokens = case.tokens[rows].copy()
        tokens[row] = case.tokens[row]
        off.append(_apart(case.seen(tokens)["logits"], case.plain["logits"])[row])
    return case.judge("logits beside other prompts", off, "B")


def other_padding(case: Case) -> Check:
    """Other tokens behind the end of every prompt."""
    what = "logits with other tokens behind the end"
    if case.counts.all():
        return Check(what, None, where="the prompts are of one length")
    other = (np.roll(case.tokens, 1, axis=0) + 1) % case.config.vocab_size
    tokens = np.where(case.counts, case.tokens, other)
    off = _apart(case.seen(tokens)["logits"], case.plain["logits"])
    return case.judge(what, off, "B")


def one_by_one(case: Case) -> Check:
    """Each prompt in a batch of one."""
    alone = [
        case.logits(case.tokens[row : row + 1], case.lengths[row : row + 1])[0]
        for row in range(len(case.tokens))
    ]
    off = _apart(np.stack(alone), case.plain["logits"])
    return case.judge("logits", off, "B")


def unpadded(case: Case) -> Check:
    """The shortest prompt, which has the most padding, without it."""
    row = int(case.lengths.argmin())
    length = int(case.lengths[row])
    alone = case.logits(case.tokens[row : row + 1, :length], [length])
    off = _apart(alone, case.plain["logits"][row : row + 1])
    names = {"B": [case.names["B"][row]]}
    return case.judge("logits of the shortest prompt", off, "B", names=names)


def cached(case: Case) -> Check:
    """New tokens from the cache, each held against a whole forward's largest logit."""
    tokens, lengths = case.place(case.tokens, case.lengths)
    prefix = prefill(case.params, tokens, lengths, case.config)
    made = gather(generate(case.params, prefix, case.config, NEW))
    whole = np.pad(case.tokens, ((0, 0), (0, NEW)))
    at = case.lengths[:, None] - 1 + np.arange(NEW)
    np.put_along_axis(whole, at + 1, made, axis=1)
    tokens, at = case.place(whole, at.astype(np.int32))
    logits = gather(forward(case.params, tokens, case.config, logits=at).logits)
    chosen = np.take_along_axis(logits, made[..., None], axis=-1)[..., 0]
    off = logits.max(axis=-1) - chosen
    off[:, 0] = np.maximum(off[:, 0], _apart(gather(prefix.logits), logits[:, 0]))
    return case.judge(f"logits of {NEW} new tokens", off, ("B", "new token"))


def shared_prefix(case: Case) -> Check:
    """Sets of heads from one prefix, as studies run them, and by whole forwards."""
    sets, fast = case.swept
    some = slice(0, SETS)
    last = np.arange(case.tokens.shape[1]) == case.lengths[:, None] - 1
    keeps = 1 - sets[some].astype(np.float32)
    given = (case.tokens, case.lengths, keeps, case.fill, last, case.targets)
    whole = gather(_whole(case.params, *case.place(*given), case.config))
    # The target's logit and the normaliser, each off by so much.
    tolerance = 2 * case.rounding * max(np.abs(case.plain["logits"]).max(), 1.0)
    return case.judge(
        f"log-probabilities under {SETS} sets of heads",
        fast[some] - whole,
        "NB",
        tolerance,
        {"N": [_said(heads) for heads in sets[some]]},
    )


@functools.partial(jax.jit, static_argnames="config")
def _whole(params, tokens, lengths, keeps, fill, last, targets, config):
    """Log-probabilities [N, B] under each of keeps [N, L, H], by whole forwards."""

    def under(keep):
        ablation = Ablation(keep, fill, last)
        run = forward(
            params, tokens, config, lengths=lengths, ablation=ablation, logits="last"
        )
        return log_probability(run.logits, targets)

    return jax.lax.map(under, keeps)


def nothing_ablated(case: Case) -> Check:
    """An ablation that keeps every head, against none."""
    keep, fill = case.place(np.ones(case.fill.shape[:2], np.float32), case.fill)
    under = case.logits(case.tokens, case.lengths, Ablation(keep, fill))
    off = _apart(under, case.logits(case.tokens, case.lengths))
    return case.judge("logits, bit for bit", off, "B", 0.0)


def an_edit_changes(case: Case) -> Check:
    """Every layer's heads replaced at the last position, a layer at a time."""
    values = case.swept[1]
    clean = values[SETS]
    change = np.abs(values[SETS + 1 :] - clean).max(axis=1)  # [L]
    at = int(change.argmin())
    holds = bool(change[at] > 0)
    return Check(
        "log-probabilities without each layer's heads; the smallest change",
        holds,
        float(change[at]),
        where="" if holds else f"layer {at}: nothing changes without its heads",
    )


def products(case: Case) -> Check:
    """A product of the model's own numbers, as its runs make it, against float64."""
    asked: str | None = jax.config.jax_default_matmul_precision  # type: ignore[attr-defined]
    a = case.plain["heads"][0].reshape(len(case.tokens), -1)
    w = case.params.layers.wo[0]
    with exact_products(case.params):
        made = gather(_product(case.place(a), w))
    wide = [np.asarray(gather(each), np.float64) for each in (a, w)]
    off = product_error(wide[0], wide[1].reshape(-1, wide[1].shape[-1]), made)
    rounded = _PRODUCTS.get(asked or "", 0.0)
    tolerance = max(case.eps, rounded) if case.eps > 1e-4 else max(2e-6, rounded)
    return case.judge(
        f"head outputs times W_O in float64; asked for {asked or 'whole products'}",
        off,
        "B",
        tolerance,
    )


@jax.jit
def _product(a, w):
    return jnp.einsum("bi,id->bd", a, w.reshape(-1, w.shape[-1]))


def product_error(a: np.ndarray, w: np.ndarray, made: np.ndarray) -> np.ndarray:
    """Largest error of rows of a product [B], relative to the sum of magnitudes."""
    size = (np.abs(a) @ np.abs(w)).clip(1e-300)
    return (np.abs(np.asarray(made, np.float64) - a @ w) / size).max(axis=-1)


def round_trip(tokenizer: Tokenizer, texts: Mapping[str, str]) -> Check:
    """Texts to ids and back."""
    for name, text in texts.items():
        back = tokenizer.decode(tokenizer.encode(text))
        if back != text:
            pairs = zip(text, back, strict=False)
            at = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
            where = (
                f"{name}, character {at}: {text[at : at + 20]!r} comes back as "
                f"{back[at : at + 20]!r}"
            )
            return Check(f"{len(texts)} texts and their ids", False, where=where)
    return Check(f"{len(texts)} texts and their ids", True)


def ids_in_range(arrays: Mapping[str, np.ndarray], vocab_size: int) -> Check:
    """Every id has a row in the embedding."""
    compared = f"ids of {len(arrays)} arrays, 0 to {vocab_size - 1:,}"
    for name, ids in arrays.items():
        wrong = np.argwhere((ids < 0) | (ids >= vocab_size))
        if len(wrong):
            told = finite.place(wrong[0], "BT"[: ids.ndim])
            where = f"{name}, {told} has id {ids[tuple(wrong[0])]}"
            return Check(compared, False, where=where)
    return Check(compared, True)


def bos_once(arrays: Mapping[str, np.ndarray], bos_id: int | None, bos: bool) -> Check:
    """One token that begins a sequence, at the beginning; none where none is asked."""
    compared = f"{len(arrays)} arrays, {'one at the beginning' if bos else 'none'}"
    if bos_id is None:
        return Check(compared, None, where="the tokenizer names no such token")
    for name, ids in arrays.items():
        there = ids == bos_id
        wrong = there[:, bos:].any(axis=1) | (bos & ~there[:, 0])
        if wrong.any():
            row = int(wrong.argmax())
            at = np.flatnonzero(there[row]).tolist()
            where = f"{name}, prompt {row} has it at positions {at or 'none'}"
            return Check(compared, False, where=where)
    return Check(compared, True)


def first_tokens(collisions: Mapping[str, float]) -> Check:
    """Different answers of a task do not all begin with the same token.

    Args:
        collisions: share of pairs of answers that do, by task (see ``icl.answers``).
    """
    alike = [task for task, share in collisions.items() if share == 1]
    crowded = [task for task, share in collisions.items() if CROWDED < share < 1]
    compared = f"first tokens of the answers of {len(collisions)} tasks"
    if crowded:
        compared += f"; more than a fifth of pairs agree in {', '.join(crowded)}"
    where = f"all answers of {', '.join(alike)} begin with the same token"
    return Check(compared, not alike, where=where if alike else "")


FINITE = "values are finite"
CHEAP: dict[str, Callable[[Case], Check]] = {
    "patterns sum to 1": patterns_sum,
    "heads sum to the attention's output": heads_sum,
    "two runs are equal": two_runs,
    "prompts do not read each other": other_rows,
    "padding is not read": other_padding,
}
"""Checks that share one program."""
RUNS: dict[str, Callable[[Case], Check]] = {
    "batched = one by one": one_by_one,
    "padded = unpadded": unpadded,
    "cached = uncached": cached,
    "shared prefix = whole forwards": shared_prefix,
    "ablating nothing = the plain run": nothing_ablated,
    "an edit changes something": an_edit_changes,
    "products are as precise as asked for": products,
    **CHEAP,
}
TEXT = (
    "tokenizer round trip",
    "ids in range",
    "BOS once",
    "answers' first tokens differ",
)


def examine(model: Model, seed: int = 0) -> list[Check]:
    """Everything that can be checked of a model.

    Args:
        model: as it is loaded: its dtype, its devices.
        seed: of the prompts.

    Returns:
        The checks, in the order of the table.
    """
    limit = min(LONGEST, model.config.context_length - NEW)
    tokenizer, vocab_size = model.tokenizer, model.config.vocab_size
    if tokenizer is None:
        why = model.no_tokenizer or "the model has no tokenizer"
        of_text = [Check("texts", None, where=why, name=name) for name in TEXT]
        rng = np.random.default_rng(seed)
        lengths = np.maximum(1, limit - np.arange(PROMPTS) * limit // (PROMPTS + 1))
        rows = {
            f"{n} (random ids)": rng.integers(0, vocab_size, length)
            for n, length in enumerate(lengths)
        }
    else:
        rows, of_text = _of_text(tokenizer, vocab_size, seed)
    names = list(rows)[:PROMPTS]
    if any(check.holds is False for check in of_text if check.name == TEXT[1]):
        return [*_not_asked((FINITE, *RUNS), "ids are out of range"), *of_text]
    sizes = [min(len(rows[name]), limit) for name in names]
    tokens = np.zeros((len(names), max(sizes)), np.int32)
    for row, (name, size) in enumerate(zip(names, sizes, strict=True)):
        tokens[row, :size] = rows[name][:size]
    case = Case(model.params, model.config, tokens, sizes, names)
    return [*_of_model(case, RUNS), *of_text]


def _of_text(
    tokenizer: Tokenizer, vocab_size: int, seed: int
) -> tuple[dict[str, list[int]], list[Check]]:
    """Ids of a prompt of each task, by name, and the tokenizer's checks."""
    tasks = load_tasks(None)
    texts = {
        f"of {task.name}": build_prompts(task, 1, SHOTS, seed)[0].text for task in tasks
    }
    begin = [tokenizer.bos_id or 0] if tokenizer.adds_bos else []
    rows = {name: begin + tokenizer.encode(text) for name, text in texts.items()}
    arrays = {f"prompt {name}": np.array([ids]) for name, ids in rows.items()}
    arrays["the tokenizer's highest id"] = np.array(tokenizer.vocab_size - 1)
    in_range = ids_in_range(arrays, vocab_size)
    del arrays["the tokenizer's highest id"]
    collisions = {
        task.name: Answers(task.answers, TEMPLATES["qa"], tokenizer).collisions()
        for task in tasks
    }
    checks = (
        round_trip(tokenizer, texts),
        in_range,
        bos_once(arrays, tokenizer.bos_id, tokenizer.adds_bos),
        first_tokens(collisions),
    )
    return rows, [
        replace(check, name=name) for name, check in zip(TEXT, checks, strict=True)
    ]


def _of_model(case: Case, asked: Mapping[str, Callable[[Case], Check]]) -> list[Check]:
    """Checks of runs; where values are no numbers, nothing else is asked."""
    whole = replace(finite_values(case), name=FINITE)
    if not whole.holds:
        return [whole, *_not_asked(asked, "not all values are finite")]
    return [
        whole,
        *(replace(ask(case), name=name) for name, ask in asked.items()),
    ]


def _not_asked(names: Iterable[str], why: str) -> list[Check]:
    return [Check("runs", None, where=why, name=name) for name in names]


def examine_study(
    model: Model, arrays: Mapping[str, np.ndarray], bos: bool
) -> list[dict[str, Any]]:
    """The cheap checks, of a study's own inputs.

    Args:
        model: of the study.
        arrays: what is fed to it, by ``Prepared.token_arrays``.
        bos: whether prompts begin with BOS.

    Returns:
        The checks, ready for JSON.

    Raises:
        UserError: one does not hold; names the layer, head or prompt.
    """
    ids = {name: each for name, each in arrays.items() if each.ndim == 2}
    lengths = {name: arrays.get(f"{name}/lengths") for name in ids}
    checks = [replace(ids_in_range(ids, model.config.vocab_size), name=TEXT[1])]
    if model.tokenizer is not None:
        prompts = {}
        for name, length in lengths.items():
            if f"{name}/targets" in arrays and length is not None:
                pads = np.arange(ids[name].shape[1]) >= length[:, None]
                prompts[name] = np.where(pads, -1, ids[name])  # 0 may be BOS
        once = bos_once(prompts, model.tokenizer.bos_id, bos)
        checks.append(replace(once, name=TEXT[2]))
    if all(check.holds is not False for check in checks):
        name = next(
            (each for each in ids if lengths[each] is not None), next(iter(ids))
        )
        length = lengths[name]
        if length is None:
            length = np.full(len(ids[name]), ids[name].shape[1])
        chosen = np.argsort(length, kind="stable")[[0, -1]]
        tokens = ids[name][chosen, : int(length[chosen].max())]
        names = [f"{row} of {name}" for row in chosen]
        case = Case(model.params, model.config, tokens, length[chosen], names)
        checks += _of_model(case, CHEAP)
    return _told(checks, model.provenance.dtype)


def examine_trained(
    trained: "Trained", step: int, tokens: np.ndarray
) -> list[dict[str, Any]]:
    """The cheap checks of the models of a training.

    Args:
        trained: the run.
        step: of its models.
        tokens: int [B, T], such as its repeated random ones; the first and last run.

    Returns:
        The checks of all seeds, ready for JSON.

    Raises:
        UserError: one does not hold; names the run, seed, layer and head.
    """
    tokens, params, told = tokens[[0, -1]], trained.params(step), []
    for n, seed in enumerate(trained.seeds):
        one = jax.tree.map(lambda leaf, n=n: leaf[n], params)
        names = [f"{row} of seed {seed} of {trained.name}" for row in ("first", "last")]
        lengths = np.full(2, tokens.shape[1])
        case = Case(one, trained.model_config, tokens, lengths, names)
        told += _told(_of_model(case, CHEAP), "float32")
    return told


def _told(checks: Sequence[Check], dtype: str) -> list[dict[str, Any]]:
    """Checks ready for JSON; a failure is refused."""
    failed = next((check for check in checks if check.holds is False), None)
    if failed is not None:
        other = "" if dtype == "float32" else f" in {dtype}; --dtype float32 may hold"
        raise UserError(
            f"nothing was run, because {failed}{other}: `jaxheads doctor` says more"
        )
    return [dataclasses.asdict(check) for check in checks]


def print_checks(checks: Sequence[Check], console: Console) -> None:
    """Print a row a check, and below where one fails."""
    said = {True: "holds", False: "does not hold", None: "not asked"}
    rows = [
        [
            check.name,
            check.compared,
            said[check.holds],
            *(
                "" if value is None else f"{value:.2g}"
                for value in (check.difference, check.tolerance)
            ),
        ]
        for check in checks
    ]
    columns = ["check", "compared", "", "largest difference", "allowed"]
    console.print(printed(Table("", columns, rows, 3)))
    for check in checks:
        if check.holds is None:
            console.print(f"{check.name}: not asked, {check.where}")
    for check in checks:
        if check.holds is False:
            console.print(str(check), style="red", soft_wrap=True)


def _apart(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Largest difference of logits by prompt: [B, V], [B, V] -> [B]."""
    return np.abs(np.asarray(one, np.float64) - other).max(axis=-1)


def _said(heads: np.ndarray) -> str:
    """A set in words."""
    names = head_names(heads)
    return " ".join(names) if len(names) < 4 else f"of {len(names)} heads"

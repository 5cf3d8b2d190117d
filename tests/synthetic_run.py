"""A run folder without a model: random but plausible numbers from a seed."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np

from jaxheads.runs import Run

SCORING = ("antonym", "capitalize", "english-french", "choose_last_of_3")
EVALUATION = ("country-capital", "present-past", "animal_v_object_3")
FRACTIONS = (0.01, 0.05, 0.1, 0.2)
METRICS = ("first_token", "f1")


@dataclasses.dataclass(frozen=True)
class Sizes:
    """How large a run to make up."""

    layers: int = 6
    heads: int = 5
    scoring: tuple[str, ...] = SCORING
    evaluation: tuple[str, ...] = EVALUATION
    prompts: int = 12
    documents: int = 10
    draws: int = 3
    fractions: tuple[float, ...] = FRACTIONS
    exclusions: tuple[float, ...] = ()
    keep_only: tuple[float, ...] = (0.02, 0.05)
    zero_shot: bool = False


def make_run(
    path: Path = Path("run"),
    seed: int = 0,
    sizes: Sizes | None = None,
    parts: tuple[str, ...] = ("scores", "ablation", "token_loss"),
) -> Run:
    """Make a run up: head scores, head sets, and outcomes that follow the scores."""
    sizes = sizes or Sizes()
    rng = np.random.default_rng(seed)
    result, arrays = _receipt(sizes), {}
    # The scores are drawn even when they are left out: the sets rest on them.
    scores, score_arrays = _scores(rng, sizes)
    if "scores" in parts:
        result |= {"scores": scores, "scoring_tasks": list(sizes.scoring)}
        arrays |= score_arrays
    if "ablation" in parts:
        sets, replaced = _head_sets(rng, sizes, score_arrays)
        result["evaluation_tasks"] = list(sizes.evaluation)
        result["ablation"] = {
            "value": "mean",
            "positions": "last",
            "fractions": list(sizes.fractions),
            "sets": sets,
            "metrics": list(METRICS),
            "f1_style": "fixed",
        }
        arrays |= _accuracy(rng, sizes, score_arrays, replaced)
        if sizes.zero_shot:
            alone = _accuracy(rng, sizes, score_arrays, replaced)
            for metric in METRICS:
                values = 0.5 * alone[f"ablation/{metric}"]
                arrays[f"ablation/zero_shot/{metric}"] = values
    if "token_loss" in parts:
        sets, replaced = _head_sets(rng, sizes, score_arrays)
        sets = [entry | {"value": v} for v in ("mean", "zero") for entry in sets]
        result["token_loss"] = {
            "text": "pydoc_data.topics of Python 3.11.7",
            "documents": sizes.documents,
            "positions": [50, 500],
            "sets": sets,
            "fractions": list(sizes.fractions),
        }
        arrays |= _token_loss(rng, sizes, score_arrays, np.tile(replaced, (2, 1, 1)))
    result["wall_s"] = {part: 12.5 for part in parts}
    result["plan"] = {
        "rows": [
            {"part": part, "forwards": 1234.0, "tokens": 1.2e6, "flops": 3e13}
            | {"bytes": 8e8}
            for part in parts
        ]
    }
    return Run(path, result, arrays)


def write_run(path: Path, **options: Any) -> Run:
    """Write ``make_run(path, **options)`` as a run folder and return it."""
    run = make_run(path, **options)
    path.mkdir(parents=True, exist_ok=True)
    (path / "result.json").write_text(json.dumps(run.result), encoding="utf-8")
    arrays: dict[str, Any] = dict(run.arrays)
    np.savez(path / "arrays.npz", **arrays)
    return run


def _receipt(sizes: Sizes) -> dict[str, Any]:
    names = sizes.scoring + sizes.evaluation
    return {
        "schema": 1,
        "study": "study",
        "title": "Which attention heads carry in-context learning?",
        "config": {
            "seed": 0,
            "scores": {"shots": 10, "tasks": list(sizes.scoring)}
            | {"corrupted_prompts": 10, "sequences": 64},
        },
        "fingerprint": "ab" * 32,
        "model": {
            "source": "made-up-model",
            "revision": None,
            "name": "Made-up model",
            "model_type": "llama",
            "num_layers": sizes.layers,
            "num_heads": sizes.heads,
            "num_kv_heads": 1,
            "head_dim": 4,
            "width": 24,
            "vocab_size": 101,
            "num_params": 134515008,
            "format": "gguf",
            "quantisation": {"Q4_K": 12},
            "params_sha256": "cd" * 32,
            "file_sha256": "ef" * 32,
            "dtype": "float32",
            "bos": True,
        },
        "versions": {"jaxheads": "0.1.0", "numpy": np.__version__},
        "device": {"kind": "cpu", "platform": "cpu", "count": 1},
        "arrays": {},
        "task_info": {
            name: {
                "kind": "extractive" if "_" in name else "abstractive",
                "items": 60 + 7 * n,
                "source": "built-in",
                "unchanged_share": 0.01 * n,
            }
            for n, name in enumerate(names)
        },
    }


def _scores(rng: np.random.Generator, sizes: Sizes):
    layers, heads, tasks = sizes.layers, sizes.heads, len(sizes.scoring)
    depth = np.linspace(0, 1, layers)[:, None]
    middle = np.exp(-(((depth - 0.65) / 0.2) ** 2)) * np.ones(heads)
    effect = middle * rng.gamma(0.25, 0.02, (layers, heads))
    effect[int(0.68 * layers), heads - 1] = 0.17
    task_effects = effect * rng.uniform(0.2, 1.8, (tasks, 1, 1))
    task_effects += rng.normal(0, 0.0015, (tasks, layers, heads))
    induction = middle * rng.beta(0.4, 3.0, (layers, heads)) + 0.01
    induction[int(0.62 * layers), 0] = 0.85
    previous = rng.beta(0.5, 8.0, (layers, heads))
    values = {
        "function_vector": task_effects.mean(0),
        "induction": induction,
        "induction_yin": induction * 50 / 101,
        "previous_token": previous,
    }
    facts = {
        "function_vector": ("rise of p(answer) on shuffled-label prompts", 0.0, 1.0),
        "induction": ("mean attention to the induction target, second half", 0.02, 1.0),
        "induction_yin": ("mass on the target over all mass", 0.01, 50 / 101),
        "previous_token": ("mean attention to the token before", 0.03, 1.0),
    }
    scores = {
        name: {"definition": text, "chance": chance, "ceiling": ceiling}
        | {"unit": "probability", "source": "Yin & Steinhardt 2025"}
        for name, (text, chance, ceiling) in facts.items()
    }
    arrays = {"fv/effects": task_effects.astype(np.float32)}
    for name, value in values.items():
        spread = 0.06 * np.abs(value) + 2e-4
        arrays[f"score/{name}"] = value.astype(np.float32)
        arrays[f"score/{name}_se"] = spread.astype(np.float32)
    arrays["fv/mean_heads"] = rng.normal(size=(layers, heads, 4)).astype(np.float32)
    return scores, arrays


def _head_sets(rng: np.random.Generator, sizes: Sizes, arrays: dict[str, np.ndarray]):
    total = sizes.layers * sizes.heads
    order = {
        name: np.argsort(-arrays[f"score/{name}"].ravel(), kind="stable")
        for name in ("function_vector", "induction")
    }
    other = {"function_vector": "induction", "induction": "function_vector"}
    sets: list[dict[str, Any]] = []
    masks: list[np.ndarray] = []

    def add(ranking, mode, fraction, chosen, matched=None, draw=0, **more):
        mask = np.zeros(total, bool)
        mask[chosen] = True
        masks.append(mask.reshape(sizes.layers, sizes.heads))
        sets.append(
            {"name": f"{ranking} {mode} {fraction:.3g} #{draw}", "ranking": ranking}
            | {"mode": mode, "matched_to": matched, "fraction": fraction}
            | {"count": int(mask.sum()), "draw": draw}
            | {"largest_change": float(mask.sum())}
            | more
        )

    add("none", "clean", 0.0, [])
    add("chosen", "chosen", 2 / total, [0, total - 1])
    for fraction in sizes.fractions:
        count = max(1, int(fraction * total))
        for name, ranked in order.items():
            add(name, "top", fraction, ranked[:count])
            left_out = order[other[name]][: max(1, int(0.02 * total))]
            rest = ranked[~np.isin(ranked, left_out)]
            add(name, "exclusion", fraction, rest[:count], exclusion=0.02)
            for share in sizes.exclusions:
                left_out = order[other[name]][: int(share * total)]
                rest = ranked[~np.isin(ranked, left_out)][:count]
                add(name, "exclusion_other", fraction, rest, exclusion=share)
            for draw in range(sizes.draws):
                layers = np.bincount(ranked[:count] // sizes.heads)
                chosen = [
                    layer * sizes.heads + head
                    for layer, many in enumerate(layers)
                    for head in rng.permutation(sizes.heads)[:many]
                ]
                add("random", "layer_matched", fraction, chosen, name, draw)
        for draw in range(sizes.draws):
            chosen = rng.permutation(total)[:count]
            add("random", "uniform", fraction, chosen, None, draw)
    for fraction in sizes.keep_only:
        count = max(1, int(fraction * total))
        for name, ranked in order.items():
            add(name, "keep_only", fraction, ranked[count:])
        for draw in range(sizes.draws):
            chosen = rng.permutation(total)[count:]
            add("random", "keep_only_random", fraction, chosen, None, draw)
    return sets, np.stack(masks)


def _damage(arrays: dict[str, np.ndarray], name: str, replaced: np.ndarray):
    """Share of the (positive) score that the replaced heads hold, [N]."""
    weight = np.maximum(arrays[f"score/{name}"], 0)
    return (replaced * weight).sum((1, 2)) / weight.sum()


def _accuracy(rng, sizes: Sizes, arrays, replaced) -> dict[str, np.ndarray]:
    shape = (len(replaced), len(sizes.evaluation), sizes.prompts)
    easy = rng.uniform(0.2, 0.9, (1, shape[1], 1))
    hurt = 0.8 * _damage(arrays, "function_vector", replaced)
    hurt += 0.2 * _damage(arrays, "induction", replaced)
    luck = rng.random((1, *shape[1:]))  # the same prompts in every set
    right = luck < easy * (1 - hurt[:, None, None])
    partial = np.where(right, 1.0, rng.choice([0, 0, 0, 0.5], shape))
    return {
        "ablation/replaced": replaced,
        "ablation/first_token": right.astype(np.float32),
        "ablation/f1": partial.astype(np.float32),
    }


def _token_loss(rng, sizes: Sizes, arrays, replaced) -> dict[str, np.ndarray]:
    hurt = 0.9 * _damage(arrays, "induction", replaced)
    hurt += 0.1 * _damage(arrays, "function_vector", replaced)
    documents = rng.normal(0, 0.3, (1, sizes.documents))
    learnt = 0.6 * (1 - hurt[:, None]) + documents
    learnt = learnt + 0.15 * np.sqrt(hurt[:, None]) * rng.normal(size=learnt.shape)
    first = 3.2 + 0.5 * hurt[:, None] + rng.normal(0, 0.05, learnt.shape)
    loss = np.stack([first, first - learnt], axis=-1)
    return {"token_loss/replaced": replaced, "token_loss/loss": loss.astype(np.float32)}

"""A run whose sets of heads cost what a test plants: answers and token losses."""

from pathlib import Path
from typing import Any

import numpy as np

from jaxheads.runs import Run

KINDS = ("function_vector", "induction")
TASKS, PROMPTS, DRAWS, CLEAN = 6, 15, 5, 0.7


def make_run(
    seed: int = 0,
    *,
    clean: float = CLEAN,
    costs: dict[str, float] | None = None,
    loss_costs: dict[str, float] | None = None,
    spread: float = 0.0,
    prompts: int = PROMPTS,
    draws: int = DRAWS,
    documents: int = 20,
    noise: float = 0.15,
    queries: int = 0,
) -> Run:
    """Make a run up.

    Args:
        seed: of everything.
        clean: accuracy with no head replaced.
        costs: share of the clean accuracy that a set takes away, by ranking or mode:
            "function_vector", "induction", "uniform", "layer_matched"; the same with
            ":exclusion" behind; "keep_only:function_vector", "keep_only_random"; and
            "zero_shot" for all sets without demonstrations.
        loss_costs: the same, of the token-loss difference.
        spread: standard deviation of a set's own cost, sets of a kind differing.
        prompts: a task.
        draws: random sets of each kind.
        documents: of the token loss.
        noise: of a document's loss under a set, nats.
        queries: different ones a task, which the prompts share evenly and answer alike;
            0: each prompt asks its own.
    """
    rng = np.random.default_rng(seed)
    sets = _sets(draws)
    shape = (TASKS, queries or prompts)
    asked = np.tile(np.arange(prompts) % shape[1], (TASKS, 1))
    answers = {}
    for name, level in (("", clean), ("zero_shot/", 0.6 * clean)):
        luck = rng.random(shape)  # a prompt is as hard under every set
        rows = []
        for entry in sets:
            cost = _cost(entry, costs or {}, rng, spread)
            if name and entry["mode"] != "clean":
                cost = (costs or {}).get("zero_shot", cost)
            again = rng.random(shape) < 0.3  # some prompts are drawn anew
            rows.append(np.where(again, rng.random(shape), luck) < level * (1 - cost))
        each = np.array(rows, np.float32)
        answers[f"ablation/{name}first_token"] = each[..., asked[0]]
    lost = [entry | {"value": "mean"} for entry in sets if "keep" not in entry["mode"]]
    learnt = rng.normal(1.0, 0.3, documents)
    late = [
        learnt * (1 - _cost(entry, loss_costs or {}, rng, spread))
        + rng.normal(0, noise, documents)
        for entry in lost
    ]
    result: dict[str, Any] = {
        "model": {"source": "planted", "num_layers": 10, "num_heads": 10}
        | {"params_sha256": "ab" * 32, "num_params": 10**8},
        "config": {"seed": seed},
        "scores": {},
        "ablation": {"value": "mean", "sets": sets, "metrics": ["first_token"]},
        "evaluation_tasks": [f"task {n}" for n in range(TASKS)],
        "token_loss": {"sets": lost, "documents": documents, "text": "planted"}
        | {"positions": [50, 500]},
    }
    arrays = answers | {
        "ablation/queries": asked,
        "ablation/replaced": np.zeros((len(sets), 10, 10), bool),
        "token_loss/replaced": np.zeros((len(lost), 10, 10), bool),
        "token_loss/loss": np.stack([np.full_like(late, 4.0), 4.0 - np.array(late)], 2),
    }
    return Run(Path("planted"), result, arrays)


def _sets(draws: int) -> list[dict[str, Any]]:
    def entry(ranking, mode, draw=0, matched=None):
        return {
            "name": f"{ranking} {mode} {draw}",
            "ranking": ranking,
            "mode": mode,
        } | {
            "fraction": 0.0 if mode == "clean" else 0.05,
            "matched_to": matched,
            "count": 5,
            "draw": draw,
        }

    made = [entry("none", "clean")]
    for kind in KINDS:
        made += [entry(kind, mode) for mode in ("top", "exclusion", "keep_only")]
    for draw in range(draws):
        made += [entry("random", "uniform", draw)]
        made += [entry("random", "keep_only_random", draw)]
        made += [entry("random", "layer_matched", draw, KINDS[0])]
    return made


def _cost(entry: dict[str, Any], costs: dict[str, float], rng, spread: float) -> float:
    if entry["mode"] == "clean":
        return 0.0
    ranking, mode = entry["ranking"], entry["mode"]
    own = {
        "top": (ranking,),
        "exclusion": (f"{ranking}:exclusion", ranking),
        "keep_only": (f"keep_only:{ranking}", "keep_only_random"),
    }.get(mode, (mode,))
    default = 0.9 if "keep" in mode else 0.05
    cost = next((costs[name] for name in own if name in costs), default)
    return float(np.clip(cost + spread * rng.normal(), 0, 1))

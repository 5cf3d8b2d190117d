"""The runs of a comparison: how each is called, what they share, how they differ."""

import dataclasses
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jaxheads.errors import UserError
from jaxheads.runs import Run
from jaxheads.studies.ablation import findings, outcomes
from jaxheads.studies.ablation.findings import Findings
from jaxheads.studies.ablation.outcomes import Outcome

_SHOWN = 60  # letters of a setting


@dataclasses.dataclass(frozen=True)
class Member:
    """One run of a comparison.

    Attributes:
        run: loaded.
        label: what the page calls it; no other run of the page has it.
        model: what the page calls its params; runs of one model have it in common.
        params: what identifies the params.
        num_params: how many there are; None where the run does not say.
        step: of the training, where the revision names one.
        seed: of the run.
        found: its findings.
        measured: its outcomes by name: the first accuracy, and the token loss.
    """

    run: Run
    label: str
    model: str
    params: str
    num_params: int | None
    step: int | None
    seed: int | None
    found: Findings
    measured: dict[str, Outcome]

    @property
    def total(self) -> int:
        """Number of heads."""
        model = self.run.result["model"]
        return int(model["num_layers"] * model["num_heads"])


def members(runs: Sequence[Run]) -> list[Member]:
    """Order runs by size, step and seed, and call each by what tells it apart.

    Raises:
        UserError: a run is there twice.
    """
    _refuse_twice(runs)
    told = [_describe(run) for run in runs]
    models = _names(
        told, [("name",), ("name", "revision"), ("name", "dtype")], "params"
    )
    together = [one | {"model": model} for one, model in zip(told, models, strict=True)]
    labels = _names(
        together, [("model",), ("model", "seed_text"), ("model", "folder")], "number"
    )
    metric = _common_metric(runs)
    made = [
        Member(
            run=run,
            label=label,
            model=model,
            params=one["params"],
            num_params=one["num_params"],
            step=one["step"],
            seed=one["seed"],
            found=findings.find(run),
            measured=_measured(run, metric),
        )
        for run, one, model, label in zip(runs, told, models, labels, strict=True)
    ]
    return sorted(made, key=_place)


def _place(member: Member) -> tuple:
    last = float("inf")
    size, step, seed = (
        last if value is None else value
        for value in (member.num_params, member.step, member.seed)
    )
    return size, member.model.lower() if member.step is None else "", step, seed


def _refuse_twice(runs: Sequence[Run]) -> None:
    seen: dict[Any, Path] = {}
    for run in runs:
        path, fingerprint = Path(run.path), run.result.get("fingerprint")
        if path.resolve() in seen:
            raise UserError(
                f"each run is compared once, but {path} is given twice: leave it out "
                "once"
            )
        if fingerprint in seen:
            raise UserError(
                f"each run is compared once, but {seen[fingerprint]} and {path} are "
                "the same run, of one model, config and seed: leave one of them out"
            )
        seen[path.resolve()] = path
        if fingerprint is not None:
            seen[fingerprint] = path


def _describe(run: Run) -> dict[str, Any]:
    model, config = run.result["model"], run.result.get("config") or {}
    revision = model.get("revision")
    step = re.fullmatch(r"step-?(\d+)", str(revision or ""))
    seed = config.get("seed")
    return {
        "name": str(model.get("name") or model.get("source")),
        "revision": revision,
        "dtype": model.get("dtype"),
        "params": str(model.get("params_sha256") or Path(run.path).resolve()),
        "num_params": model.get("num_params"),
        "step": int(step[1]) if step else None,
        "seed": seed,
        "seed_text": None if seed is None else f"seed {seed}",
        "number": str(Path(run.path).resolve()),
        "folder": Path(run.path).name,
    }


def _names(
    told: list[dict[str, Any]], tries: list[tuple[str, ...]], by: str
) -> list[str]:
    """Name each run by the fewest facts that tell different ones (``by``) apart.

    Where no facts do, the number of the run among those of one name is added.
    """
    names = ["" for _ in told]
    for facts in tries:
        kinds: dict[str, set[str]] = {}
        for one, name in zip(told, names, strict=True):
            kinds.setdefault(name, set()).add(one[by])
        names = [
            " ".join(str(one[fact]) for fact in facts if one[fact])
            if not name or len(kinds[name]) > 1
            else name
            for one, name in zip(told, names, strict=True)
        ]
    for name in set(names):
        own = [one[by] for one, its in zip(told, names, strict=True) if its == name]
        distinct = list(dict.fromkeys(own))
        if len(distinct) > 1:
            names = [
                f"{name} ({distinct.index(one[by]) + 1})" if its == name else its
                for one, its in zip(told, names, strict=True)
            ]
    return names


def _common_metric(runs: Sequence[Run]) -> str | None:
    """Name the first accuracy that every run with an accuracy has."""
    listed = [[one.name for one in outcomes.accuracy(run)] for run in runs]
    listed = [names for names in listed if names]
    common = [n for n in (listed or [[]])[0] if all(n in names for names in listed)]
    return common[0] if common else None


def _measured(run: Run, metric: str | None) -> dict[str, Outcome]:
    chosen = [one for one in outcomes.accuracy(run) if one.name == metric]
    loss = outcomes.token_loss(run)
    made = {"accuracy": chosen[0] if chosen else None, "token_loss": loss}
    return {name: outcome for name, outcome in made.items() if outcome}


def common_fraction(listed: Sequence[Member], name: str, mode: str) -> float | None:
    """Pick the share next to 5 % at which all members replaced heads."""
    shares = [
        {f for f in member.measured[name].fractions(mode=mode) if f > 0}
        for member in listed
        if name in member.measured
    ]
    common = set.intersection(*shares) if shares else set()
    wanted = findings.HEADLINE_SHARE
    return min(common, key=lambda f: (abs(f - wanted), f)) if common else None


def differences(listed: Sequence[Member]) -> list[str]:
    """Say which settings differ between the runs, other than seed and model."""
    given = [_settings(member.run) for member in listed]
    lines, partly = [], []
    for name in dict.fromkeys(name for one in given for name in one):
        distinct = list(dict.fromkeys(one[name] for one in given if name in one))
        if any(name not in one for one in given):  # of versions before the setting
            partly.append(name)
            continue
        if len(distinct) > 1:
            shown = [v if len(v) <= _SHOWN else f"{v[:_SHOWN]}..." for v in distinct]
            lines.append(f"{name} ({'; '.join(shown)})")
    if partly:
        lines.append(f"settings that only some of them have ({', '.join(partly)})")
    return lines


def _settings(run: Run) -> dict[str, str]:
    """All that decides the numbers besides model and seed, as text."""
    result, model = run.result, run.result["model"]
    told: dict[str, Any] = {"parts": sorted(result.get("wall_s") or {})}
    told |= {"dtype": model.get("dtype"), "quantisation": model.get("quantisation")}
    told |= {name: result.get(name) for name in ("scoring_tasks", "evaluation_tasks")}
    config = dict(result.get("config") or {})
    config.pop("seed", None)
    return {name: _text(value) for name, value in (told | _flat(config)).items()}


def _flat(value: dict[str, Any], start: str = "") -> dict[str, Any]:
    made: dict[str, Any] = {}
    for key, inner in value.items():
        name = f"{start}{key}"
        made |= _flat(inner, f"{name}.") if isinstance(inner, dict) else {name: inner}
    return made


def _text(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {inner}" for key, inner in value.items()) or "none"
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    return "none" if value is None else str(value)

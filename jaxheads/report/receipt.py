"""What was run, on what, and with which definitions."""

from typing import Any

from jaxheads.report import theme, words
from jaxheads.runs import Run
from jaxheads.statistics import LEVEL, SAMPLES

Facts = list[tuple[str, str]]


def model_facts(run: Run) -> list[str]:
    """Say in a few words what the model is."""
    model = run.result["model"]
    facts = [str(model["source"])] if model["source"] != model.get("name") else []
    if "num_layers" in model:  # of a single model, or several of one size
        layers, width = model["num_layers"], model["num_heads"]
        facts.append(f"{layers} layers of {width} heads = {layers * width:,} heads")
    if model.get("num_params"):
        facts.append(f"{words.parameters(model['num_params'])} parameters")
    if model.get("revision"):
        facts.append(f"revision {model['revision']}")
    if model.get("dtype"):
        facts.append(str(model["dtype"]))
    return facts


def facts(run: Run) -> list[tuple[str, Facts]]:
    """Group the run's facts under headings."""
    result = run.result
    part, loss = result.get("ablation") or {}, result.get("token_loss") or {}
    intervals = (
        f"{100 * LEVEL:g} %, Student's t over queries or documents; of documents "
        f"{SAMPLES:,} studentised resamples beside, seed {theme.SEED}"
    )
    groups: list[tuple[str, list[tuple[str, Any]]]] = [
        (
            "Run",
            [
                ("study", result.get("study")),
                ("config fingerprint", result.get("fingerprint")),
                ("ablation value", part.get("value")),
                ("ablated positions", part.get("positions")),
                ("F1 parsing", part.get("f1_style")),
                ("text", loss.get("text")),
                ("intervals", intervals),
                ("checks before it began", _checks(result.get("checks") or [])),
            ],
        ),
        ("Model", list(result["model"].items())),
        ("Versions", list((result.get("versions") or {}).items())),
        ("Device", list((result.get("device") or {}).items())),
    ]
    return [
        (
            title,
            [
                (name.replace("_", " "), _text(value))
                for name, value in listed
                if value is not None
            ],
        )
        for title, listed in groups
    ]


def _checks(checks: list[dict[str, Any]]) -> str | None:
    """What held before the study began, in a line."""
    held = dict.fromkeys(one["name"] for one in checks if one["holds"])
    left = dict.fromkeys(one["name"] for one in checks if one["holds"] is None)
    asked = f"; not asked: {', '.join(left)}" if left else ""
    return f"{', '.join(held)}: held{asked}" if checks else None


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, dict):
        return ", ".join(f"{key}: {_text(inner)}" for key, inner in value.items())
    return str(value)

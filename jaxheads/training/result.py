"""What a finished training run says of itself, besides its arrays."""

from typing import Any

from jaxheads import runs
from jaxheads.engine.devices import machine
from jaxheads.models import family
from jaxheads.models.parameters import num_params
from jaxheads.training.checkpoints import Place
from jaxheads.training.config import TrainConfig
from jaxheads.training.measures import figure_dims, figure_unit

_NATS = ("loss", "all_loss")


def describe(
    config: TrainConfig,
    model_config: Any,
    sequence_length: int,
    arrays: runs.Arrays,
    place: Place,
    seconds: float,
    evaluated: list[str],
    told: dict[str, Any],
) -> dict[str, Any]:
    """The result of a run, ready for JSON.

    Args:
        config: of the run.
        model_config: the family's ``Config``.
        sequence_length: targets in a window.
        arrays: of the run.
        place: where its checkpoints lie.
        seconds: of training.
        evaluated: names of what was evaluated.
        told: what identifies the run besides its config.
    """
    abstract = family(model_config.model_type).abstract(model_config)
    last = {
        str(seed): {
            name: float(arrays[f"train/{name}"][-1, index])
            for name in ("loss", "all_loss", "dropped")
        }
        for index, seed in enumerate(place.seeds)
    }
    return {
        "title": "What a model learned, and when",
        "model": told
        | {
            "source": f"{model_config.model_type} from random weights",
            "name": f"{model_config.model_type}, trained",
            "num_layers": model_config.num_layers,
            "num_heads": model_config.num_heads,
            "num_params": num_params(abstract),
            "dtype": config.dtype,
        },
        "scores": {},
        "train": {
            "seeds": list(place.seeds),
            "last": last,
            "num_params": num_params(abstract),
            "tokens_a_seed": config.steps * config.batch_size * sequence_length,
            "checkpoints": {
                str(seed): [
                    place.model(seed, step).relative_to(place.run).as_posix()
                    for step in place.model_steps()
                ]
                for seed in place.seeds
            },
            "evaluated": evaluated,
        },
        **machine(),
        "wall_s": {"train": seconds},
        "arrays": {name: _describe_array(name, arrays[name].ndim) for name in arrays},
    }


def _describe_array(name: str, axes: int) -> dict[str, Any]:
    """Dims (N: seeds) and unit of an array."""
    kind, short = name.split("/", 1)
    if name == "train/checkpoints" or short == "step":
        return {
            "dims": ["checkpoint" if kind == "train" else "evaluation"],
            "unit": "step",
        }
    first = "step" if kind == "train" else "evaluation"
    own = list(figure_dims(short))
    if kind == "train" or short in _NATS or len(own) != axes - 2:
        own = [f"axis {i}" for i in range(2, axes)]
    unit = "nats" if short in _NATS else "share" if short == "dropped" else ""
    if kind == "evaluation":
        unit = unit or figure_unit(short)
    return {"dims": [first, "N", *own][:axes], "unit": unit}

"""The model and the data that the command line names, made ready for training."""

import dataclasses
import inspect
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from jaxheads import models
from jaxheads.errors import MOST_TOKENS, UserError, check_counts
from jaxheads.models.rope import Rope
from jaxheads.runs.files import read_json_object
from jaxheads.training.config import DataChoice, ModelChoice
from jaxheads.training.data.function_mixture import FunctionMixture
from jaxheads.training.data.languages import RegularLanguages
from jaxheads.training.data.repeats import RepeatedTokens
from jaxheads.training.data.successors import FixedSuccessors
from jaxheads.training.data.windows import Source
from jaxheads.weights.presets import PRESETS
from jaxheads.weights.store import from_json

GENERATORS: dict[str, Any] = {
    "repeats": RepeatedTokens,
    "successors": FixedSuccessors,
    "function-mixture": FunctionMixture,
    "languages": RegularLanguages,
}
"""Sources that need no text, by name."""


@dataclasses.dataclass(frozen=True)
class Data:
    """What a run reads.

    Attributes:
        source: of training.
        held_out: of the held-out loss; None: ``source``, in an order of its own.
        tokenizer: of text.
    """

    source: Source
    held_out: Source | None = None
    tokenizer: Any = None


def choose_model(choice: ModelChoice, source: Source) -> Any:
    """The family's ``Config`` that a choice means.

    Args:
        choice: a family with sizes, a preset, or a config.json.
        source: of the data: a family's vocabulary and context are as large as it needs.

    Raises:
        UserError: there is no such model, or its settings do not fit.
    """
    given = read_settings("--settings", choice.settings)
    if isinstance(given.get("rope"), int | float):
        try:
            given["rope"] = Rope(float(given["rope"]))
        except (ValueError, ArithmeticError) as error:
            raise UserError(f"--settings rope cannot be so: {error}") from error
    if choice.model not in models.FAMILIES:
        return _changed(_published(choice.model), given)
    check_counts(
        ("--layers", choice.layers, 1),
        ("--width", choice.width, 1),
        ("--heads", choice.heads, 1),
    )
    kind = models.family(choice.model).Config
    fields = {field.name: field for field in dataclasses.fields(kind)}
    sizes: dict[str, Any] = {
        "num_layers": choice.layers,
        "width": choice.width,
        "num_heads": choice.heads,
        "num_kv_heads": choice.heads,
        "head_dim": max(1, choice.width // choice.heads),
        "rotary_width": max(2, choice.width // choice.heads // 8 * 2),
        "vocab_size": source.vocab_size,
        "context_length": source.sequence_length,
        "model_type": choice.model,
    }
    if "mlp_width" in fields and fields["mlp_width"].default is dataclasses.MISSING:
        sizes["mlp_width"] = 4 * choice.width
    sizes = {name: value for name, value in sizes.items() if name in fields}
    _refuse_unknown("--settings", given, fields, f"a {choice.model}")
    try:
        return kind(**sizes | given)
    except (TypeError, ValueError, ArithmeticError) as error:
        raise UserError(f"--model {choice.model} cannot be built: {error}") from error


def _published(name: str) -> Any:
    """The config of a preset, or of a config.json or a folder with one."""
    if name in PRESETS:
        return PRESETS[name].config()
    path = Path(name)
    path = path / "config.json" if path.is_dir() else path
    if not path.is_file():
        raise UserError(
            f"--model takes a family ({', '.join(models.FAMILIES)}), a name that "
            f"`jaxheads models` lists, or a config.json, not {name!r}"
        )
    settings = read_json_object(path)
    try:
        return models.family(settings["model_type"]).Config.from_hf(settings)
    except (KeyError, TypeError, ValueError, ArithmeticError) as error:
        raise UserError(f"{path} cannot be used: {error}") from error


def _changed(config: Any, given: dict[str, Any]) -> Any:
    fields = {field.name for field in dataclasses.fields(config)}
    _refuse_unknown("--settings", given, fields, "this model")
    try:
        return dataclasses.replace(config, **given)
    except (TypeError, ValueError, ArithmeticError) as error:
        raise UserError(f"--settings do not fit the model: {error}") from error


def choose_data(choice: DataChoice) -> Data:
    """The source that a choice of synthetic data means; see ``read_text`` for text.

    Raises:
        UserError: a setting is none of the source's, or does not fit.
    """
    kind = GENERATORS[choice.data]
    given = read_settings("--data-settings", choice.data_settings)
    _refuse_unknown("--data-settings", given, _options(kind), choice.data)
    try:
        source = from_json(kind, given)
        if isinstance(source, RegularLanguages):
            return Data(source, dataclasses.replace(source, split="test"))
    except (KeyError, TypeError, ValueError, ArithmeticError) as error:
        raise UserError(f"--data-settings do not fit {choice.data}: {error}") from error
    return Data(source)


def read_text(choice: DataChoice, folder: Path) -> Data:
    """Tokenise text, once, and split it into training and held-out documents.

    Args:
        choice: its ``data`` is a path.
        folder: of the tokens; made, or gone on with.

    Raises:
        UserError: there is no such text, or it is too short.
    """
    from jaxheads.training.data.corpora import open_corpus
    from jaxheads.training.data.text_windows import TextWindows
    from jaxheads.training.data.token_store import tokenise
    from jaxheads.training.data.vocabulary import train_tokenizer

    if not Path(choice.data).exists():
        raise UserError(
            f"--data takes {', '.join(GENERATORS)}, or the path of text, not "
            f"{choice.data!r}"
        )
    corpus = open_corpus(choice.data)
    if choice.tokenizer is None:
        check_counts(("--vocab-size", choice.vocab_size, 1), most=MOST_TOKENS)
        tokenizer = train_tokenizer(corpus, choice.vocab_size)
    else:
        from jaxheads.weights.model import read_tokenizer
        from jaxheads.weights.sources import open_source

        found, reason = read_tokenizer(open_source(choice.tokenizer, None).checkpoint)
        if found is None:
            raise UserError(f"--tokenizer must have a tokenizer, but: {reason}")
        tokenizer = found
    given = read_settings("--data-settings", choice.data_settings)
    own = {"store", "split", "shuffled"}
    _refuse_unknown("--data-settings", given, _options(TextWindows) - own, "text")
    vocabulary = max(tokenizer.vocab_size, given.pop("vocab_size", 0))
    settings = {
        "sequence_length": 256,
        "vocab_size": vocabulary,
        "bos_id": tokenizer.bos_id,
    } | given
    store = tokenise(corpus, tokenizer, folder)
    source = TextWindows(store, **settings)
    held_out = dataclasses.replace(source, split="held-out")
    return Data(source, held_out, tokenizer)


def read_settings(option: str, given: Iterable[str]) -> dict[str, Any]:
    """Settings written as name=value; a value is JSON, or else a word.

    Raises:
        UserError: one is not written so.
    """
    settings = {}
    for word in given:
        name, equals, value = word.partition("=")
        if not equals or not name.isidentifier():
            raise UserError(f"{option} takes name=value, not {word!r}")
        try:
            settings[name] = json.loads(value)
        except ValueError:
            settings[name] = value
    return settings


def _options(kind: Any) -> set[str]:
    """Names that a source's class takes."""
    return set(inspect.signature(kind).parameters)


def _refuse_unknown(
    option: str, given: Iterable[str], known: Iterable[str], what: str
) -> None:
    unknown = [name for name in given if name not in known]
    if unknown:
        raise UserError(
            f"{option} of {what} takes {', '.join(sorted(known))}, not {unknown[0]!r}"
        )

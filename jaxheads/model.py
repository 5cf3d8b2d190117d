"""Loading a model: params, config, tokenizer, and where they came from."""

import dataclasses
import os
import warnings
from types import ModuleType
from typing import Any

from jaxheads import models
from jaxheads.errors import UserError
from jaxheads.tokenizer import Tokenizer
from jaxheads.weights.checkpoint import Checkpoint
from jaxheads.weights.convert import params_sha256, to_params
from jaxheads.weights.sources import Opened, open_source

DTYPES = ("float32", "bfloat16", "float16")


@dataclasses.dataclass(frozen=True)
class Provenance:
    """Where params came from: the model's part of a run's receipt.

    Attributes:
        source: as the user wrote it.
        revision: of a hub model, as asked for; None for files and folders.
        commit: that the revision stood for on the hub.
        path: the file or folder that was read.
        format: "gguf" or "safetensors".
        file_sha256: of the one file with the weights; None for several files.
        params_sha256: of the params as loaded, dtype included.
        dtype: of the params.
        model_type: family name in the checkpoint.
        tensor_kinds: how many tensors the file stores in each element type.
        name: what the source calls the model.
        license: what the source says of its licence.
    """

    source: str
    revision: str | None
    commit: str | None
    path: str
    format: str
    file_sha256: str | None
    params_sha256: str
    dtype: str
    model_type: str
    tensor_kinds: dict[str, int]
    name: str | None
    license: str | None

    def to_dict(self) -> dict[str, Any]:
        """The fields, ready for JSON."""
        return dataclasses.asdict(self)


@dataclasses.dataclass(frozen=True, eq=False)
class Model:
    """A loaded model.

    Attributes:
        params: the family's ``Params``.
        config: the family's ``Config``.
        tokenizer: None when the source has none that can be read.
        provenance: where the params came from.
        no_tokenizer: why ``tokenizer`` is None.
    """

    params: Any
    config: Any
    tokenizer: Tokenizer | None
    provenance: Provenance
    no_tokenizer: str = ""

    def require_tokenizer(self) -> Tokenizer:
        """The tokenizer.

        Raises:
            UserError: there is none; says why and what to do.
        """
        if self.tokenizer is None:
            raise UserError(
                f"text needs a tokenizer, and {self.provenance.source} gave none: "
                f"{self.no_tokenizer or 'give one, or use token ids'}"
            )
        return self.tokenizer


def load(
    source: str | os.PathLike[str] | None = None,
    revision: str | None = None,
    dtype: str = "float32",
) -> Model:
    """Load a model.

    Args:
        source: "smollm2-135m-instruct" (built in, fetched on first use; also None), a
            ``.gguf`` file, a folder in hub layout (config.json, safetensors,
            tokenizer.json), or a hub id "owner/name".
        revision: branch, tag or commit of a hub id, such as "step1000".
        dtype: of the params: "float32", "bfloat16" or "float16".

    Returns:
        The model, on the default device.

    Raises:
        UserError: the source cannot be found, fetched or read, or its tensors do not
            fit its config.
    """
    if dtype not in DTYPES:
        raise UserError(
            f"dtype must be one of {', '.join(DTYPES)}, but is {dtype!r}: use float32 "
            "for exact scores"
        )
    opened = open_source(source, revision)
    checkpoint = opened.checkpoint
    family, config = _configure(checkpoint)
    tokenizer, no_tokenizer = _tokenizer(checkpoint)
    if tokenizer is not None and tokenizer.vocab_size > config.vocab_size:
        warnings.warn(
            f"the tokenizer of {opened.source} has {tokenizer.vocab_size} tokens, the "
            f"model only {config.vocab_size}: the last ones must not be used",
            stacklevel=2,
        )
    params = to_params(
        checkpoint.tensors, family, config, checkpoint.layout, dtype, opened.source
    )
    provenance = _provenance(opened, params, dtype)
    return Model(params, config, tokenizer, provenance, no_tokenizer)


def _configure(checkpoint: Checkpoint) -> tuple[ModuleType, Any]:
    """The family's module and config; what it refuses is told with the path."""
    try:
        family = models.family(checkpoint.model_type)
        if checkpoint.format == "gguf":
            return family, family.Config.from_gguf(checkpoint.settings)
        return family, family.Config.from_hf(checkpoint.settings)
    except KeyError as error:
        raise UserError(
            f"{checkpoint.path} must give {error} in its config, but does not"
        ) from error
    except (TypeError, ValueError, ArithmeticError) as error:
        raise UserError(f"{checkpoint.path} cannot be used: {error}") from error


def _tokenizer(checkpoint: Checkpoint) -> tuple[Tokenizer | None, str]:
    """The tokenizer, or None and why; weights are of use without one."""
    if checkpoint.format == "gguf":
        try:
            return Tokenizer.from_gguf(checkpoint.settings), ""
        except UserError as error:
            return None, str(error)
    path = checkpoint.path / "tokenizer.json"
    settings = checkpoint.path / "tokenizer_config.json"
    if not path.is_file():
        return None, f"there is no tokenizer.json in {checkpoint.path}: copy it there"
    return Tokenizer.from_file(path, settings if settings.is_file() else None), ""


def _provenance(opened: Opened, params: Any, dtype: str) -> Provenance:
    checkpoint = opened.checkpoint
    return Provenance(
        source=opened.source,
        revision=opened.revision,
        commit=opened.commit,
        path=str(checkpoint.path),
        format=checkpoint.format,
        file_sha256=checkpoint.file_sha256,
        params_sha256=params_sha256(params),
        dtype=dtype,
        model_type=checkpoint.model_type,
        tensor_kinds=checkpoint.tensor_kinds(),
        name=checkpoint.name,
        license=checkpoint.license,
    )

"""Loading a model: params, config, tokenizer, and where they came from."""

import dataclasses
import os
import warnings
from collections.abc import Mapping
from types import ModuleType
from typing import Any

from jax.sharding import Mesh

from jaxheads import models
from jaxheads.engine.devices import all_devices
from jaxheads.errors import UserError
from jaxheads.tokenizer.tokenizer import Tokenizer
from jaxheads.weights.checkpoint import Checkpoint
from jaxheads.weights.convert import to_params, with_stored_head
from jaxheads.weights.digest import ParamsDigest
from jaxheads.weights.sources import Opened, open_source
from jaxheads.weights.store import FORMAT, Store, restore

DTYPES = ("float32", "bfloat16", "float16")


@dataclasses.dataclass(frozen=True)
class Provenance:
    """Where params came from: the model's part of a run's receipt.

    Attributes:
        source: as the user wrote it.
        revision: of a hub model, as asked for; None for files and folders.
        commit: that the revision stood for on the hub.
        path: the file or folder that was read.
        format: "gguf", "safetensors", "torch" or "jaxheads store".
        file_sha256: of the built-in model's file, which was checked; else None.
        params_sha256: of the params as loaded, dtype included.
        dtype: of the params.
        model_type: family name in the checkpoint.
        tensor_kinds: how many tensors the file stores in each element type.
        name: what the source calls the model.
        license: what the source says of its licence.
        files: names of the files with the weights.
        converted: of a store, the format, path, dtype and params_sha256 of the model
            that was converted; all else but the params is that model's.
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
    files: tuple[str, ...] = ()
    converted: Mapping[str, Any] | None = None

    def to_dict(self) -> dict[str, Any]:
        """The fields, ready for JSON."""
        return dataclasses.asdict(self) | {"files": list(self.files)}


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
    mesh: Mesh | None = None,
) -> Model:
    """Load a model.

    Args:
        source: "smollm2-135m-instruct" (built in, fetched on first use; also None), a
            ``.gguf`` file, a folder in hub layout (config.json, weights, tokenizer),
            a folder that ``jaxheads convert`` wrote, the name of a preset such as
            "gpt2-xl" (see ``jaxheads models``), or a hub id "owner/name".
        revision: branch, tag or commit of a preset or a hub id, such as "step1000".
        dtype: of the params: "float32", "bfloat16" or "float16".
        mesh: devices with the axes "data" and "model": heads, MLP width and vocabulary
            are split over "model" (see ``jaxheads.engine.devices``); None: one device.

    Returns:
        The model, on the mesh or on the default device.

    Raises:
        UserError: the source cannot be found, fetched or read, its tensors do not fit
            its config, or JAX cannot start on the platform it is told to use.
    """
    if dtype not in DTYPES:
        raise UserError(
            f"dtype must be one of {', '.join(DTYPES)}, but is {dtype!r}: use float32 "
            "for exact scores"
        )
    all_devices()  # a platform that is not there is told before anything is read
    opened = open_source(source, revision)
    family, config = configure(opened.checkpoint)
    tokenizer, no_tokenizer = read_tokenizer(opened.checkpoint)
    if tokenizer is not None:
        beyond = ids_beyond(tokenizer, config, opened.source)
        if beyond:
            warnings.warn(
                f"the tokenizer of {opened.source}: its {beyond}", stacklevel=2
            )
        tokenizer = tokenizer.for_model(config.vocab_size)
    if isinstance(opened.checkpoint, Store):
        params, provenance = _restore(opened.checkpoint, dtype, mesh)
        return Model(params, config, tokenizer, provenance, no_tokenizer)
    checkpoint, digest = opened.checkpoint, ParamsDigest()
    params = to_params(
        checkpoint.tensors,
        family,
        config,
        checkpoint.layout,
        dtype,
        opened.source,
        mesh,
        digest,
    )
    provenance = _provenance(opened, checkpoint, digest.hexdigest(), dtype)
    return Model(params, config, tokenizer, provenance, no_tokenizer)


def configure(checkpoint: Checkpoint | Store) -> tuple[ModuleType, Any]:
    """The family's module and config of an opened source.

    Raises:
        UserError: no family reads it, or a setting is missing or not built.
    """
    try:
        family = models.family(checkpoint.model_type)
        if isinstance(checkpoint, Store):
            return family, checkpoint.config
        if checkpoint.format == "gguf":
            return family, family.Config.from_gguf(checkpoint.settings)
        config = family.Config.from_hf(checkpoint.settings)
        source = str(checkpoint.path)
        return family, with_stored_head(checkpoint.tensors, family, config, source)
    except KeyError as error:
        raise UserError(
            f"{checkpoint.path} must give {error} in its config, but does not"
        ) from error
    except (TypeError, ValueError, ArithmeticError) as error:
        raise UserError(f"{checkpoint.path} cannot be used: {error}") from error


def read_tokenizer(checkpoint: Checkpoint | Store) -> tuple[Tokenizer | None, str]:
    """The tokenizer, or None and why; weights are of use without one.

    Raises:
        UserError: its files are damaged.
    """
    if isinstance(checkpoint, Store) and checkpoint.no_tokenizer:
        return None, checkpoint.no_tokenizer
    if isinstance(checkpoint, Checkpoint) and checkpoint.format == "gguf":
        try:
            return Tokenizer.from_gguf(checkpoint.settings), ""
        except UserError as error:
            return None, str(error)
    return Tokenizer.from_folder(checkpoint.path)


def ids_beyond(tokenizer: Tokenizer, config: Any, source: str) -> str:
    """What to say of a tokenizer with ids beyond a model's embedding; else "".

    Raises:
        UserError: half of its tokens or more have such ids: it is another model's.
    """
    ids, rows = tokenizer.ids, config.vocab_size
    beyond = sum(id >= rows for id in ids)
    if not beyond:
        return ""
    said = (
        f"ids go up to {ids[-1]:,}, but the model has only {rows:,} rows in its "
        f"embedding: {beyond:,} of {len(ids):,} tokens cannot be used"
    )
    if 2 * beyond >= len(ids):
        raise UserError(
            f"the tokenizer of {source} is another model's: its {said}; put the "
            "model's own in its place"
        )
    return f"{said}, and a text that needs one is refused"


def _restore(store: Store, dtype: str, mesh: Mesh | None) -> tuple[Any, Provenance]:
    """Params and provenance out of a store."""
    params, params_sha256 = restore(store, dtype, mesh)
    source = store.provenance
    names = ("format", "path", "dtype", "params_sha256", "converted")
    provenance = Provenance(**{**source, "files": tuple(source["files"])})
    return params, dataclasses.replace(
        provenance,
        path=str(store.path),
        format=FORMAT,
        params_sha256=params_sha256,
        dtype=dtype,
        converted={name: source[name] for name in names if source[name] is not None},
    )


def _provenance(
    opened: Opened, checkpoint: Checkpoint, params_sha256: str, dtype: str
) -> Provenance:
    return Provenance(
        source=opened.source,
        revision=opened.revision,
        commit=opened.commit,
        path=str(checkpoint.path),
        format=checkpoint.format,
        file_sha256=checkpoint.file_sha256,
        params_sha256=params_sha256,
        dtype=dtype,
        model_type=checkpoint.model_type,
        tensor_kinds=checkpoint.tensor_kinds(),
        name=checkpoint.name,
        license=checkpoint.license,
        files=checkpoint.files,
    )

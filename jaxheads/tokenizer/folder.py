"""The tokenizer files of a folder in hub layout."""

from collections.abc import Sequence
from pathlib import Path

import tokenizers

from jaxheads.errors import UserError
from jaxheads.models.settings import LARGEST
from jaxheads.runs.files import read_json_object
from jaxheads.tokenizer.byte_level import SPLITS, byte_level_tokenizer
from jaxheads.tokenizer.library import Parts
from jaxheads.tokenizer.sentencepiece import NotBuilt, read_sentencepiece
from jaxheads.tokenizer.settings import (
    add_tokens,
    merge_settings,
    set_prefix_space,
    stop_dropout,
)

END_OF_TEXT = "<|endoftext|>"
"""GPT-2's only special token; a sequence begins with it too, if with any."""

_SETTINGS, _MULTIPLE = "tokenizer_config.json", "pad_to_multiple_of"
BESIDE = (_SETTINGS, "special_tokens_map.json", "added_tokens.json", "config.json")
"""Files that say more of a folder's tokenizer."""


def read_folder(folder: Path) -> Parts:
    """Read tokenizer.json, else vocab.json and merges.txt, else tokenizer.model.

    Args:
        folder: the model's.

    Raises:
        NotBuilt: there is none of these, or one of a kind that is not built here.
        UserError: a file is damaged.
    """
    whole, model = folder / "tokenizer.json", folder / "tokenizer.model"
    vocab, merges = folder / "vocab.json", folder / "merges.txt"
    bos_id, adds_bos = None, None
    if whole.is_file():
        inner = read_tokenizer_json(whole)
    elif vocab.is_file() and merges.is_file():
        _require_gpt2(folder)
        inner, bos_id, adds_bos = read_vocab_files(vocab, merges)
    elif model.is_file():
        (inner, bos_id), adds_bos = read_sentencepiece(model), True
    else:
        raise NotBuilt(f"there is no tokenizer.json in {folder}: copy it there")
    files = [path if (path := folder / name).is_file() else None for name in BESIDE]
    return with_settings(inner, files, bos_id, adds_bos)


def read_tokenizer_json(path: Path) -> tokenizers.Tokenizer:
    """Read a tokenizer.json.

    Raises:
        UserError: it cannot be read or is damaged.
    """
    try:
        inner = tokenizers.Tokenizer.from_str(path.read_text(encoding="utf-8"))
    except Exception as error:  # the library raises Exception itself
        raise UserError(
            f"{path} must be a tokenizer.json, but cannot be read ({error}): fetch it "
            "again"
        ) from error
    # Asked for besides ids: texts would be cut or padded.
    sizes = [(inner.padding or {}).get(name) for name in ("length", _MULTIPLE)]
    if any(asked is not None and asked > LARGEST for asked in sizes):
        raise UserError(
            f"{path} must pad texts to a length that a text can have, but asks for "
            f"{max(filter(None, sizes)):,} tokens: take its padding out"
        )
    inner.no_truncation()
    inner.no_padding()
    stop_dropout(inner, path)
    return inner


def read_vocab_files(vocab: Path, merges: Path) -> Parts:
    """Read GPT-2's vocab.json and merges.txt.

    Raises:
        UserError: a file cannot be read, or they do not belong together.
    """
    ids = read_json_object(vocab)
    try:
        lines = merges.read_text(encoding="utf-8").split("\n")
        pairs = [line.split(" ") for line in lines if not line.startswith("#version")]
        inner = byte_level_tokenizer(ids, [p for p in pairs if p != [""]], _GPT2)
    except Exception as error:  # the library raises Exception itself
        raise UserError(
            f"{merges} must hold merges of the tokens of {vocab.name}, but does not "
            f"({error}): fetch both again"
        ) from error
    if END_OF_TEXT in ids:
        inner.add_special_tokens([END_OF_TEXT])
    return inner, inner.token_to_id(END_OF_TEXT), False


_GPT2 = SPLITS["gpt-2"]


def with_settings(
    inner: tokenizers.Tokenizer,
    files: Sequence[Path | None],
    bos_id: int | None = None,
    adds_bos: bool | None = None,
) -> Parts:
    """Take up what the files beside a tokenizer say of it.

    Args:
        inner: the tokenizer; it may be changed.
        files: the four of ``BESIDE``; None: there is no such file.
        bos_id: if no file names the token that begins a text.
        adds_bos: if no file says so; None: what ``inner`` itself does.

    Raises:
        NotBuilt: they ask for what cannot be built.
        UserError: one is damaged or names tokens that do not follow the vocabulary's.
    """
    read = [{} if path is None else read_json_object(path) for path in files]
    said, specials, listed, config = read
    try:
        settings = merge_settings(said, specials)
        add_tokens(inner, settings, listed)
    except ValueError as error:
        names = ", ".join(str(path) for path in files[:3] if path is not None)
        raise UserError(
            f"{names} must name tokens as transformers writes them, with ids that "
            f"follow the vocabulary's, but {error}: fetch it again"
        ) from error
    inner = set_prefix_space(inner, settings, config.get("model_type"))
    if "bos_token" in settings:
        token = settings["bos_token"]
        if isinstance(token, dict):  # an AddedToken, written out
            token = token.get("content")
        bos_id = inner.token_to_id(token) if isinstance(token, str) else None
    else:
        number = settings.get("bos_token_id", config.get("bos_token_id"))
        if bos_id is None and number in range(inner.get_vocab_size()):
            bos_id = number
    for values in (settings, config):
        if isinstance(says := values.get("add_bos_token"), bool):
            adds_bos = says
            break
    if adds_bos is None:
        adds_bos = bos_id is not None and inner.encode("").ids[:1] == [bos_id]
    return inner, bos_id, adds_bos


def _require_gpt2(folder: Path) -> None:
    """The two files do not say how to split a text; only GPT-2's way is known."""
    for name, key, allowed in (
        (_SETTINGS, "tokenizer_class", ("GPT2Tokenizer", "GPT2TokenizerFast")),
        ("config.json", "model_type", ("gpt2",)),
    ):
        path = folder / name
        says = read_json_object(path).get(key) if path.is_file() else None
        if says is not None and says not in allowed:
            raise NotBuilt(
                f"{folder} has vocab.json and merges.txt, which say how to split a "
                f"text only for GPT-2, but is for {says!r}: copy tokenizer.json there"
            )

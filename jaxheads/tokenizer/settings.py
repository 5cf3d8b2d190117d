"""What the files beside a tokenizer add to it, as transformers 5 reads them.

tokenizer_config.json, special_tokens_map.json and added_tokens.json name tokens that
tokenizer.json may lack, whose text would else fall into pieces, and say whether a text
begins with a space. The two older files count only where the first one does not list
its tokens by id.
"""

import json
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import AddedToken, models

from jaxheads.tokenizer.sentencepiece import NotBuilt

NAMED = (
    *("bos_token", "eos_token", "unk_token", "sep_token"),
    *("pad_token", "cls_token", "mask_token"),
)
"""Tokens with a role, in the order in which they are added."""

_BY_ID, _EXTRA, _OLD_EXTRA = (
    "added_tokens_decoder",
    "extra_special_tokens",
    "additional_special_tokens",
)

_MAKES_PREFIX = {
    *("GPT2Tokenizer", "GPTNeoXTokenizer", "CodeGenTokenizer"),
    *("Qwen2Tokenizer", "LlamaTokenizer"),
}
"""Classes of transformers that go by ``add_prefix_space`` and not by what
tokenizer.json says of it; the others pass over the setting."""

_CLASS_OF = {
    **{"gpt2": "GPT2Tokenizer", "gpt_neox": "GPTNeoXTokenizer"},
    **dict.fromkeys(("qwen2", "qwen3"), "Qwen2Tokenizer"),
}
"""By model type, what a tokenizer is taken for whose files name no class of its own."""

_NO_CLASS = (None, "PreTrainedTokenizer", "TokenizersBackend")


def merge_settings(
    settings: Mapping[str, Any], specials: Mapping[str, Any]
) -> dict[str, Any]:
    """tokenizer_config.json, with what special_tokens_map.json says in its place.

    Args:
        settings: the first file.
        specials: the second one.

    Returns:
        All settings; their ``extra_special_tokens`` is a list.

    Raises:
        ValueError: a list of tokens is none.
    """
    kept = settings.get(_EXTRA) or settings.get(_OLD_EXTRA) or []
    if _BY_ID in settings:
        return {**settings, _EXTRA: _listed(kept)}
    more = specials.get(_EXTRA) or (not kept and specials.get(_OLD_EXTRA)) or []
    if isinstance(more, dict) and isinstance(kept, list):
        kept = []  # the later of the two kinds takes its place
    both = [*_listed(kept), *(t for t in _listed(more) if t not in _listed(kept))]
    return {**settings, **specials, _EXTRA: both}


def _listed(tokens: Any) -> list[Any]:
    """Tokens that a file may name."""
    if isinstance(tokens, dict):
        return list(tokens.values())
    if not isinstance(tokens, list):
        raise ValueError(f"{tokens!r} stands for a list of tokens")
    return tokens


def add_tokens(
    inner: tokenizers.Tokenizer, settings: Mapping[str, Any], listed: Mapping[str, Any]
) -> None:
    """Add the tokens that the files name and the tokenizer lacks.

    Args:
        inner: the tokenizer, which is changed.
        settings: from ``merge_settings``.
        listed: ids by token, from added_tokens.json.

    Raises:
        ValueError: an entry is not as transformers writes it, or gives an id that does
            not follow those before it; transformers would silently give the next one.
    """
    named = [_token(settings[k]) for k in NAMED if settings.get(k) is not None]
    for token in named:
        token.special = True
    # A model's own, such as "image_token"; add_bos_token and its kin are no texts.
    own = [
        value
        for name, value in settings.items()
        if name.endswith("_token") and name not in NAMED and isinstance(value, str)
    ]
    specials = [*named, *map(_token, [*own, *settings[_EXTRA]])]
    texts = {token.content for token in specials}
    if _BY_ID in settings:
        entries = settings[_BY_ID].items()
        by_id = {_number(key): _token(entry, special=False) for key, entry in entries}
    else:
        by_id = {
            _number(key): AddedToken(
                text, special=text in texts, normalized=text not in texts
            )
            for text, key in listed.items()
        }
    for number, token in sorted(by_id.items()):
        token.special = token.special or token.content in {t.content for t in named}
        inner.add_tokens([token])
        if (found := inner.token_to_id(token.content)) != number:
            raise ValueError(
                f"{token.content!r} has the id {number} where {found} is its own"
            )
    held = {token.content for token in inner.get_added_tokens_decoder().values()}
    inner.add_tokens([token for token in specials if token.content not in held])


def _number(key: Any) -> int:
    """An id, which an object in JSON has as a text."""
    try:
        return int(key)
    except (TypeError, ValueError):
        raise ValueError(f"{key!r} stands for an id") from None


def _token(entry: Any, special: bool = True) -> AddedToken:
    """A token as files write it: its text, or an object with its text and flags."""
    if isinstance(entry, str):
        return AddedToken(entry, special=special)
    flags = {**entry} if isinstance(entry, Mapping) else {}
    flags.pop("__type", None)
    content = flags.pop("content", None)
    if (
        not isinstance(content, str)
        or not flags.keys() <= _FLAGS
        or not all(isinstance(value, bool) for value in flags.values())
    ):
        raise ValueError(f"{entry!r} stands for a token")
    return AddedToken(content, **{"special": special, **flags})


_FLAGS = {"single_word", "lstrip", "rstrip", "normalized", "special"}


def set_prefix_space(
    inner: tokenizers.Tokenizer, settings: Mapping[str, Any], model_type: Any
) -> tokenizers.Tokenizer:
    """Put a space before a text, or none, where the files' class goes by the setting.

    Args:
        inner: the tokenizer.
        settings: from ``merge_settings``.
        model_type: of the model's config.json, if that is there.

    Returns:
        A tokenizer: the same one if nothing changes.

    Raises:
        NotBuilt: the tokenizer has no step that could put one.
    """
    wanted = settings.get("add_prefix_space")
    kind = settings.get("tokenizer_class")
    kind = kind.removesuffix("Fast") if isinstance(kind, str) else None
    if kind in _NO_CLASS:
        kind = _CLASS_OF.get(model_type)
    if not isinstance(wanted, bool) or kind not in _MAKES_PREFIX:
        return inner
    written = json.loads(inner.to_str())
    changed = {part: _with_prefix(written[part], part, wanted) for part in _PARTS}
    if wanted and not _puts_prefix(changed["normalizer"], changed["pre_tokenizer"]):
        raise NotBuilt(
            "tokenizer_config.json asks for a space before every text "
            "(add_prefix_space), but the tokenizer is of a kind for which that is not "
            "built here: save it with the setting in its tokenizer.json"
        )
    if written == written | changed:
        return inner
    return tokenizers.Tokenizer.from_str(json.dumps(written | changed))


_PARTS = {
    "normalizer": "normalizers",
    "pre_tokenizer": "pretokenizers",
    "decoder": "decoders",
}
"""What is done to a text before and behind the model, and what a sequence holds."""


def _with_prefix(node: Any, part: str, wanted: bool) -> Any:
    """A part of a tokenizer.json with a space before the text, or without; or None."""
    kind = node and node["type"]
    if kind == "Sequence":
        steps = [_with_prefix(step, part, wanted) for step in node[_PARTS[part]]]
        return {**node, _PARTS[part]: [step for step in steps if step is not None]}
    if kind == "ByteLevel" and part == "pre_tokenizer":
        return {**node, "add_prefix_space": wanted}
    if kind == "Metaspace" and wanted == (node["prepend_scheme"] == "never"):
        return {**node, "prepend_scheme": "first" if wanted else "never"}
    if kind == "Prepend" or (kind == "Strip" and part == "decoder"):
        return node if wanted else None
    return node


def _puts_prefix(*nodes: Any) -> bool:
    """Whether one of these steps puts a space before the text."""
    steps = [step for node in nodes for step in _steps(node)]
    return any(
        step["type"] == "Prepend"
        or step.get("add_prefix_space", False)
        or step.get("prepend_scheme", "never") != "never"
        for step in steps
    )


def _steps(node: Any) -> Iterator[Mapping[str, Any]]:
    """The steps of a part, out of their sequences."""
    if node is None:
        return
    inside = [step for name in _PARTS.values() for step in node.get(name, ())]
    if node["type"] != "Sequence":
        yield node
    for step in inside:
        yield from _steps(step)


def stop_dropout(inner: tokenizers.Tokenizer, path: Path) -> None:
    """Switch off what would make ids random: dropout is for training.

    Args:
        inner: the tokenizer, which is changed.
        path: its file, for the warning.
    """
    if isinstance(inner.model, models.BPE) and inner.model.dropout:
        warnings.warn(
            f"{path} asks for a dropout of {inner.model.dropout:g}, which makes the "
            "ids of a text random: it is off here",
            stacklevel=3,
        )
        inner.model.dropout = None

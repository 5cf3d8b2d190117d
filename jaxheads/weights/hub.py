"""Models on the Hugging Face hub, fetched into its own cache.

``huggingface_hub`` does the work, so its switches hold: HF_TOKEN or ``hf auth login``,
HF_HOME (the cache), HF_ENDPOINT (a mirror), HF_HUB_OFFLINE, and HF_HUB_ETAG_TIMEOUT and
HF_HUB_DOWNLOAD_TIMEOUT (seconds of silence, 10 each, after which it asks again a few
times and then gives up).
"""

import contextlib
import errno
import hashlib
import os
import re
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from jaxheads import stops
from jaxheads.errors import UserError, first_line
from jaxheads.runs.files import read_json_object, sha256_of
from jaxheads.weights.folder import ADAPTER

CONFIG = "config.json"
TOKENIZER = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "tokenizer.model",
)
"""Decide how text is read: a cached model counts as whole only when each of them is
there, or the cache has noted that its repository has none."""
WEIGHTS = (
    ("model.safetensors", "model.safetensors.index.json"),
    ("pytorch_model.bin", "pytorch_model.bin.index.json"),
)
"""Whole file and index of the shards, best first. A repository may hold the weights
again in other forms (original/, onnx/, consolidated.*), which are never fetched."""

_AT_ONCE = 8
"""Files that are fetched side by side."""
_LONGEST_WAIT = 600
"""Seconds that the hub may ask the client to wait; it counts in windows of 300."""

_DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_NOT_WRITABLE = (errno.EACCES, errno.EPERM, errno.EROFS)


def fetch_from_hub(model_id: str, revision: str | None) -> Path:
    """Fetch a model's files, or find them in the hub's cache.

    Nothing leaves the machine when the cache holds all files of the revision. A branch
    that has moved on the hub since is therefore not noticed: give the new commit as
    the revision, or remove the cached model (``hf cache rm model/OWNER/NAME``).

    Whatever is fetched is compared with the hash that the hub states of it.

    A download that broke off goes on at its next call: files that were whole are kept,
    and the others count as absent.

    Args:
        model_id: "owner/name".
        revision: branch, tag or commit, such as "step1000"; None: the main branch.

    Returns:
        The folder with the files; its name is the commit.

    Raises:
        UserError: no such model or revision, no access, no network, no room, other
            bytes than the hub states, or the repository holds no weights that can be
            read.
    """
    cached = None
    try:
        cached = _cached_folder(model_id, revision)
        if cached is not None and _tokenizer_is_known(model_id, cached):
            return cached
        return stops.patiently(lambda: _download(model_id, revision))
    except UserError:
        raise
    except Exception as error:  # the transport's own errors differ between its versions
        if cached is not None:  # weights without a tokenizer are better than nothing
            return cached
        raise _refused(model_id, revision, _reason(error, model_id)) from error


def _cached_folder(model_id: str, revision: str | None) -> Path | None:
    """The cached snapshot, if it holds the config and all files of the weights."""
    from huggingface_hub import try_to_load_from_cache

    config = try_to_load_from_cache(model_id, CONFIG, revision=revision)
    if not isinstance(config, str):
        return None
    folder = Path(config).parent
    # A file stands in the snapshot once it is whole: until then it has another name.
    names = {file.name for file in folder.iterdir() if file.is_file()}
    weights = _weight_files(names, lambda name: folder / name)
    return folder if weights and names.issuperset(weights) else None


def _tokenizer_is_known(model_id: str, folder: Path) -> bool:
    """Whether the files are there or, by the cache's notes, not in the repository."""
    from huggingface_hub import try_to_load_from_cache

    return all(
        try_to_load_from_cache(model_id, name, revision=folder.name) is not None
        for name in TOKENIZER
    )


def _weight_files(names: Collection[str], get: Callable[[str], Path]) -> list[str]:
    """The files with the weights out of a listing, an index first; [] if none."""
    for whole, index in WEIGHTS:
        if whole in names:
            return [whole]
        if index in names:
            shards = read_json_object(get(index)).get("weight_map")
            shards = shards.values() if isinstance(shards, dict) else ()
            return [index, *sorted({str(shard) for shard in shards})]
    return []


def _download(model_id: str, revision: str | None) -> Path:
    """List the repository, choose, and fetch what the cache lacks."""
    from huggingface_hub import HfApi, constants, hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError

    listed = HfApi().model_info(
        model_id, revision=revision, timeout=constants.HF_HUB_ETAG_TIMEOUT
    )
    names = [file.rfilename for file in listed.siblings or ()]

    def get(name: str) -> Path:
        path = Path(hf_hub_download(model_id, name, revision=listed.sha))
        if problem := _damage(path):
            raise _refused(model_id, revision, problem)
        return path

    with _watched_client():
        weights = _weight_files(names, get)
        if problem := _unreadable(model_id, names, weights):
            raise _refused(model_id, revision, problem)
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            wanted = [name for name in (*weights, *TOKENIZER) if name in names]
            list(pool.map(get, wanted))
        for name in TOKENIZER:
            if name not in names:  # asked for once, so that the cache notes its absence
                with contextlib.suppress(EntryNotFoundError):
                    hf_hub_download(model_id, name, revision=listed.sha)
        folder = get(CONFIG).parent
        # By the revision's own name, which the cache notes: all else is there by now.
        hf_hub_download(model_id, CONFIG, revision=revision)
    return folder


@contextlib.contextmanager
def _watched_client() -> Iterator[None]:
    """Have the client refuse answers that it would follow for days, or anywhere."""
    from huggingface_hub.utils import get_session

    session = get_session()
    hooks = session.event_hooks
    session.event_hooks = hooks | {"response": [*hooks["response"], _refuse_answer]}
    try:
        yield
    finally:
        session.event_hooks = hooks


def _refuse_answer(response: Any) -> None:
    """Raise on a wait of hours, and on a hash that is a path out of the cache."""
    from huggingface_hub.utils import hf_raise_for_status

    told = response.headers
    waits = f"{told.get('Retry-After', '')};{told.get('RateLimit', '')}"
    seconds = re.findall(r"^(?=\d+;)\d+|(?<=;t=)\d+", waits)
    if max(map(int, seconds), default=0) > _LONGEST_WAIT:
        hf_raise_for_status(response)
    for name in ("ETag", "X-Linked-ETag", "X-Repo-Commit"):  # files are named by them
        if re.search(r"[\\/:]|\.\.", re.sub("^W/", "", told.get(name, ""))):
            raise OSError(f"{name} is {told[name]!r}")


def _damage(path: Path) -> str:
    """What is wrong with a fetched file, which is then removed; "" if nothing is.

    The client itself compares sizes only. Its cache names the bytes by what the hub
    states of them: the SHA-256 of a large file, git's SHA-1 of a small one.
    """
    if not path.is_symlink():  # a cache without links does not keep what was stated
        return ""
    stored = path.parent / os.readlink(path)
    stated = stored.name
    match len(stated):
        case 64:
            found = sha256_of(path)
        case 40:
            data = path.read_bytes()
            found = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
        case _:
            return ""
    if found == stated:
        return ""
    path.unlink()
    stored.unlink()
    return (
        f"{path.name} came with the hash {found} where the hub states {stated}: its "
        "bytes changed on the way and are removed, try again"
    )


def _unreadable(model_id: str, names: list[str], weights: list[str]) -> str:
    """Why a repository with these files cannot be loaded; "" if it can."""
    if ADAPTER in names:
        return (
            f"it has {ADAPTER}, an adapter that changes the weights of a model: take "
            "the model that it was merged into, or merge it into a folder of your own"
        )
    if absent := [name for name in weights if name not in names]:
        return (
            f"{weights[0]} names {', '.join(absent)}, which the repository lacks: tell "
            "its owner, or take another revision"
        )
    if CONFIG in names and weights:
        return ""
    ggufs = [name for name in names if name.lower().endswith(".gguf")]
    if ggufs:
        return (
            f"it holds GGUF files ({_some(ggufs)}), which are given by path: fetch one "
            f"(hf download {model_id} {ggufs[0]}) and give the path of the file"
        )
    loaded = "weights in model.safetensors or pytorch_model.bin"
    if CONFIG in names:
        lacking = f"no {loaded}"
    else:
        lacking = f"no {CONFIG}" if weights else f"neither {CONFIG} nor {loaded}"
    return (
        f"it has {lacking}, only {_some(names) or 'nothing'}: look for a copy in the "
        "layout of transformers, often named with -hf at the end"
    )


def _some(names: list[str]) -> str:
    return ", ".join(names[:4]) + (", ..." if len(names) > 4 else "")


def _reason(error: Exception, model_id: str) -> str:
    """What went wrong and the way out: the end of a sentence."""
    from huggingface_hub import errors

    if isinstance(error, errors.LocalEntryNotFoundError):
        # The hub's "not reached and not in the cache"; why stands behind it.
        error = error.__cause__ if isinstance(error.__cause__, Exception) else error
    text = first_line(error)
    match error:
        case errors.OfflineModeIsEnabled():
            return (
                "HF_HUB_OFFLINE is set and not all of its files are in the hub's "
                "cache: unset it to fetch them"
            )
        case errors.GatedRepoError():
            return (
                "its owner grants access to each user: ask for it at "
                f"https://huggingface.co/{model_id}, then log in (hf auth login)"
            )
        case errors.RevisionNotFoundError():
            names = "see the branches and tags on its page"
            if "pythia" in model_id.lower():
                names = (
                    "Pythia's are main, step0, step1, step2, step4 and so on to "
                    "step512, and step1000, step2000 and so on to step143000"
                )
            return f"there is no such revision: {names}"
        case errors.RepositoryNotFoundError():
            return (
                "the hub has no such public model and no local folder has this name: "
                "check the spelling, or log in for a private one (hf auth login)"
            )
        case errors.HfHubHTTPError():
            return _answer(error.response.status_code, text)
        case errors.HFValidationError():
            return f"this cannot be the name of a model ({text}): check the spelling"
    return _trouble(error, text)


def _trouble(error: Exception, text: str) -> str:
    """What is the matter with this machine or with its way to the hub."""
    number, why = getattr(error, "errno", None), getattr(error, "strerror", None)
    if number in _NOT_WRITABLE:
        return (
            f"{getattr(error, 'filename', None) or 'its cache'} must be writable, but "
            f"is not ({why}): set HF_HOME to a folder that you can write"
        )
    if number in _DISK_FULL or "No space left" in text:
        return (
            f"the disk with the hub's cache does not take its files ({why or text}): "
            "free some room, or set HF_HOME to a folder with more"
        )
    return (
        f"the hub gave no usable answer ({text}): check the network, and HF_ENDPOINT "
        "and the proxy if you set them, or copy the model's folder to this machine "
        "and give its path"
    )


def _answer(status: int, text: str) -> str:
    """What an HTTP status without a special meaning asks of the user."""
    if status == 401:
        return "the hub does not accept your token: log in again (hf auth login)"
    if status == 403:
        return "your token does not allow it: give it the right to read this model"
    if status == 429:
        return "the hub asks you to wait (too many requests): try again in some minutes"
    if status >= 500:
        return f"the hub is in trouble (HTTP status {status}): try again later"
    return f"the hub does not give what it should ({text}): try again later"


def _refused(model_id: str, revision: str | None, reason: str) -> UserError:
    at = f" at revision {revision!r}" if revision else ""
    return UserError(f"{model_id!r}{at} could not be fetched from the hub: {reason}")

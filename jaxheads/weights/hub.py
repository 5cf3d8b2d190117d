"""Models on the Hugging Face hub, fetched into its own cache."""

from pathlib import Path

from jaxheads.errors import UserError

# The files that are read, by name: a repository may hold other copies of the weights
# (original/, onnx/, consolidated.safetensors) that are as large again.
FILES = (
    "config.json",
    "model.safetensors",
    "model-*-of-*.safetensors",
    "model.safetensors.index.json",
    "tokenizer.json",
    "tokenizer_config.json",
)


def fetch_from_hub(model_id: str, revision: str | None) -> Path:
    """Fetch a model's files, or find them in the hub's cache.

    Args:
        model_id: "owner/name".
        revision: branch, tag or commit, such as "step1000"; None: the main branch.

    Returns:
        The folder with the files; its name is the commit.

    Raises:
        UserError: no such model or revision, no access, or no network.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    at = f" at revision {revision!r}" if revision else ""
    try:
        folder = snapshot_download(
            model_id, revision=revision, allow_patterns=list(FILES)
        )
    except GatedRepoError as error:
        reason = f"access to it must be granted: ask for it at hf.co/{model_id}"
        raise _refused(
            model_id, at, f"{reason}, then log in (hf auth login)"
        ) from error
    except RevisionNotFoundError as error:
        raise _refused(
            model_id, at, "there is no such revision: see the branches on its page"
        ) from error
    except RepositoryNotFoundError as error:
        raise _refused(
            model_id,
            at,
            "the hub has no such public model: check the spelling, or log in for a "
            "private one (hf auth login)",
        ) from error
    except LocalEntryNotFoundError as error:
        raise _refused(
            model_id,
            at,
            "the hub cannot be reached and the files are not in its cache: connect, or "
            "copy the model's folder here and give its path",
        ) from error
    # Whatever else the transport raises: its errors differ between hub versions.
    except (HfHubHTTPError, OSError, ValueError, RuntimeError) as error:
        first_line = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise _refused(model_id, at, first_line) from error
    return Path(folder)


def _refused(model_id: str, at: str, reason: str) -> UserError:
    return UserError(f"{model_id!r}{at} could not be fetched from the hub: {reason}")

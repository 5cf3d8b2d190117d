"""Files read whole: JSON objects, and the hash of any."""

import hashlib
import json
from pathlib import Path
from typing import Any

from jaxheads.errors import UserError, check_file


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    check_file(path)
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_json_object(path: Path) -> dict[str, Any]:
    """Read a JSON file that must hold an object.

    Raises:
        UserError: the file cannot be read or holds something else.
    """
    check_file(path)
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        reason = error.strerror or error
        raise UserError(f"{path} must be readable, but: {reason}") from error
    except (ValueError, RecursionError) as error:  # not JSON, not UTF-8, too deep
        raise UserError(
            f"{path} must be JSON, but is not ({error}): fetch or write it again"
        ) from error
    if not isinstance(value, dict):
        raise UserError(
            f"{path} must hold a JSON object, but holds a {type(value).__name__}"
        )
    return value

"""Files that are whole at every moment: what is written takes the place of the old content by one rename."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from preimage.errors import RunError


def read_json(file: Path) -> dict[str, Any]:
    """A JSON object; raises `RunError` where the file is missing or damaged."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RunError(f"{file} is missing or damaged: {error}") from error
    if not isinstance(content, dict):
        raise RunError(f"{file} is damaged: it holds no JSON object")
    return content


def write_json(file: Path, content: dict[str, Any]) -> None:
    replace_text(file, json.dumps(content, indent=2) + "\n")


def replace_text(file: Path, text: str) -> None:
    """Names of photographs that are no text are written as the bytes they are."""
    replace(file, text.encode(errors="surrogateescape"))


def replace(file: Path, content: bytes) -> None:
    """A pipe or a device is written to, and of a link what it points to: neither is replaced itself."""
    if file.exists() and not file.is_file():
        file.write_bytes(content)
        return
    file = file.resolve()
    beside = file.with_name(file.name + ".new")
    try:
        beside.write_bytes(content)
        sync(beside)
        beside.replace(file)
    except OSError:
        beside.unlink(missing_ok=True)
        raise


def sync(file: Path) -> None:
    """Wait until a file is on the disk."""
    with file.open("rb") as handle:
        os.fsync(handle.fileno())

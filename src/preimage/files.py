"""Files that are whole at every moment: what is written takes the place of the old content by one rename."""

from __future__ import annotations

import contextlib
import json
import os
import re
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from uuid import uuid4

from preimage.errors import RunError

UNFINISHED = ".new"  # how names of files end that are still being written


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
    """For `read_json`: infinite numbers stay what they are, which `plain.to_json` for other readers makes null."""
    replace_text(file, json.dumps(content, indent=2) + "\n")


def append_json(file: Path, record: Mapping[str, Any]) -> None:
    """A line of JSON at the end of a file."""
    with file.open("a") as handle:
        handle.write(json.dumps(record) + "\n")


def replace_text(file: Path, text: str) -> None:
    """Names of photographs that are no text are written as the bytes they are."""
    replace(file, text.encode(errors="surrogateescape"))


def replace(file: Path, content: bytes) -> None:
    """One content in the place of another."""
    with replacing(file) as beside:
        beside.write_bytes(content)


@contextlib.contextmanager
def replacing(file: Path) -> Iterator[Path]:
    """A file to write to in here, which takes the place of `file` when all has gone well; its folder is made.

    A pipe or a device is written to, and of a link what it points to: neither is replaced itself.
    """
    if file.exists() and not file.is_file():
        yield file
        return
    file = file.resolve()
    file.parent.mkdir(parents=True, exist_ok=True)
    beside = file.with_name(f".{uuid4().hex[:12]}{UNFINISHED}")  # of this writer alone
    try:
        yield beside
        sync(beside)
        beside.replace(file)
    except OSError as error:
        if error.filename in (str(beside), None):  # a full disk names no file
            error.filename = str(file)
        raise
    finally:
        beside.unlink(missing_ok=True)


def sync(file: Path) -> None:
    """Wait until a file is on the disk."""
    with file.open("r+b") as handle:
        os.fsync(handle.fileno())


def file_name(label: str) -> str:
    """A label as the name of a folder; where it cannot be all of it, with a number that tells it from others."""
    name = re.sub(r"[^\w.-]+", "_", label).strip("._")
    return name if name == label else f"{name}-{zlib.crc32(label.encode(errors='surrogateescape')):08x}"

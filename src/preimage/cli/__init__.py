"""The command line: one sub-command is one function of the library.

Results go to stdout, progress and notes to stderr. A mistake of the user's is a message and exit code 2, never a
traceback. torch is imported only by the commands that compute.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from io import TextIOWrapper
from pathlib import Path
from typing import Any

from preimage.cli import features, studies, training, zoo  # noqa: F401 (each adds its commands)
from preimage.cli.terminal import app, fail, note, show_notes, tell
from preimage.errors import NotShippedError, PreimageError
from preimage.memory import keep_freed_memory

PHOTOGRAPHS = ("--images", "--val", "--train-images", "--test-images")  # options


def main() -> None:
    """The entry point of the `preimage` command."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal without arrows costs them, not the table
    sys.path.append(str(Path.cwd()))  # where torch: and python: look for code of the user's
    show_notes()
    keep_freed_memory()
    try:
        app(one_by_one(sys.argv[1:]))
    except NotShippedError as error:
        tell(str(error))
        note(training_time(error.name, error.settings))
        sys.exit(2)
    except PreimageError as error:
        fail(str(error))
    except OSError as error:
        if os.environ.get("PREIMAGE_DEBUG"):
            raise
        fail(f"{error.strerror or error}{f': {error.filename}' if error.filename else ''}")


def one_by_one(arguments: Sequence[str]) -> list[str]:
    """An option before each of the files that a shell made of an unquoted pattern: `--images a.jpg b.jpg`."""
    told: list[str] = []
    option = ""  # that takes photographs
    for argument in arguments:
        if argument.startswith("-"):
            option = argument if argument in PHOTOGRAPHS else ""
        elif option and told[-1] != option:
            if Path(argument).is_file() and not argument.endswith(".safetensors"):
                told.append(option)
            else:
                option = ""
        told.append(argument)
    return told


def training_time(name: str, settings: Mapping[str, Any]) -> str:
    from preimage import api

    note(f"trying some steps of training for {name} ...")
    try:
        return api.training_time(name, settings)
    except PreimageError as error:
        return f"how long that takes cannot be told yet: {error}"

"""The command line: one sub-command is one function of the library.

Results go to stdout, progress and notes to stderr. A mistake of the user's is a message and exit code 2, never a
traceback. torch is imported only by the commands that compute.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from preimage.cli import features, studies, training, zoo  # noqa: F401 (each adds its commands)
from preimage.cli.terminal import app, fail, note, show_notes, tell
from preimage.errors import NotShippedError, PreimageError
from preimage.memory import keep_freed_memory


def main() -> None:
    """The entry point of the `preimage` command."""
    sys.path.append(str(Path.cwd()))  # where torch: and python: look for code of the user's
    show_notes()
    keep_freed_memory()
    try:
        app()
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


def training_time(name: str, settings: Mapping[str, Any]) -> str:
    from preimage import api

    note(f"trying some steps of training for {name} ...")
    try:
        return api.training_time(name, settings)
    except PreimageError as error:
        return f"how long that takes cannot be told yet: {error}"

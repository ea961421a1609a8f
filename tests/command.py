"""The `preimage` command for tests, in this process: starting another takes seconds every time."""

from __future__ import annotations

import contextlib
import io
import sys
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from preimage import cli


@dataclass(frozen=True)
class Result:
    """What a command printed."""

    stdout: str
    stderr: str


def preimage(*arguments: object, check: int = 0) -> Result:
    """Run the command; it must end with the exit code `check`, and never with a traceback."""
    stdout, stderr = io.StringIO(), io.StringIO()
    with (
        pytest.MonkeyPatch.context() as patch,
        contextlib.redirect_stdout(stdout),
        contextlib.redirect_stderr(stderr),
        warnings.catch_warnings(),
        nothing_stays_imported(Path.cwd()),
    ):
        patch.setattr(sys, "argv", ["preimage", *map(str, arguments)])
        patch.setattr(sys, "path", list(sys.path))
        warnings.resetwarnings()
        with pytest.raises(SystemExit) as ended:
            cli.main()
    code = ended.value.code or 0
    assert code == check, stderr.getvalue()
    assert "Traceback" not in stderr.getvalue()
    return Result(stdout.getvalue(), stderr.getvalue())


@contextlib.contextmanager
def nothing_stays_imported(folder: Path) -> Iterator[None]:
    """Forget the modules that lie in a folder: the next command may find other ones of the same name there."""
    known = set(sys.modules)
    yield
    for name in set(sys.modules) - known:
        if Path(getattr(sys.modules[name], "__file__", None) or "").parent == folder:
            del sys.modules[name]

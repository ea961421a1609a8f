"""The user's own code behind a name: objects by their address, and the files that decide what they do."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from preimage.errors import SettingsError, UnknownNameError
from preimage.networks.weights import file_hash


def import_object(address: str, door: str) -> Any:
    """`package.module:name` -> what is called so there; raises `SettingsError` saying where was looked."""
    path, _, attribute = address.partition(":")
    if not path or not attribute:
        raise SettingsError(f"expected {door}:package.module:name, got {door}:{address}")
    found: Any = import_module(path)
    for step in attribute.split("."):
        if not hasattr(found, step):
            choices = [name for name, value in vars(found).items() if not name.startswith("_") and callable(value)]
            raise UnknownNameError(f"function in {path}", attribute, choices)
        found = getattr(found, step)
    return found


def import_module(path: str) -> ModuleType:
    try:
        return importlib.import_module(path)
    except ImportError as error:
        raise SettingsError(
            f"cannot import {path!r}: {error}. Looked in the current folder {Path.cwd()} (on the command line) and in "
            "what is installed; set PYTHONPATH for other folders"
        ) from error
    except (Exception, SystemExit) as error:  # a script without a guard may read the command line and leave
        raise SettingsError(f"importing {path!r} fails: {type(error).__name__}: {error}") from error


def code_hashes(address: str) -> list[str]:
    """Hashes of the user's files that an object at an address depends on: its module's, and those it imports."""
    return [file_hash(file) for _, file in sorted(own_files(address.partition(":")[0]).items())]


def own_files(module: str) -> dict[str, Path]:
    """By name, the file of a module and of all that it imports, as far as they are nobody else's: not installed."""
    found: dict[str, Path] = {}
    waiting = [module]
    while waiting:
        name = waiting.pop()
        file = own_file(name)
        if file is not None and name not in found:
            found[name] = file
            waiting += imports_of(file, sys.modules[name].__package__ or "")
    return found


def own_file(name: str) -> Path | None:
    """The source of an imported module, unless it came with Python, with this package, or was installed."""
    file = getattr(sys.modules.get(name), "__file__", None)
    if file is None or not file.endswith(".py") or name.partition(".")[0] == __name__.partition(".")[0]:
        return None
    installed = {Path(place) for key, place in sysconfig.get_paths().items() if key.endswith("lib")}
    return None if installed.intersection(Path(file).parents) else Path(file)


def imports_of(file: Path, package: str) -> Iterator[str]:
    """The names of modules that a file's import statements may mean."""
    for node in ast.walk(ast.parse(file.read_bytes())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            name = "." * node.level + (node.module or "")
            start = importlib.util.resolve_name(name, package) if node.level else name
            yield start
            yield from (f"{start}.{alias.name}" for alias in node.names)

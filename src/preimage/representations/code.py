"""The user's own code behind a name: objects by their address, and the files that decide what they do."""

from __future__ import annotations

import ast
import importlib
import sys
import sysconfig
import warnings
from collections.abc import Iterator
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType
from typing import Any

from preimage.errors import SettingsError, UnknownNameError
from preimage.networks.weights import file_hash

INSTALLERS = {"site-packages", "dist-packages"}  # folders that they write to


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
    """By name, the file of a module and of all that it may import, as far as they are nobody else's: not installed."""
    found: dict[str, Path] = {}
    waiting = [module]
    while waiting:
        name = waiting.pop()
        file = None if name in found else own_file(name)
        if file is not None:
            found[name] = file
            waiting += imports_of(file, name if file.stem == "__init__" else name.rpartition(".")[0])
    return found


def own_file(name: str) -> Path | None:
    """The source of a module, imported yet or not, unless it came with Python, with this package, or was installed."""
    if name.partition(".")[0] in (__name__.partition(".")[0], *sys.stdlib_module_names):
        return None
    place = getattr(sys.modules[name], "__file__", None) if name in sys.modules else origin_of(name)
    file = Path(place or "")
    installed = {Path(folder) for key, folder in sysconfig.get_paths().items() if key.endswith("lib")}
    theirs = INSTALLERS.intersection(file.parts) or installed.intersection(file.parents)
    return None if theirs or file.suffix != ".py" or not file.is_file() else file


def origin_of(name: str) -> str | None:
    """Where a module that was not imported yet would come from; nothing is imported to find out."""
    spec = spec_of(name)
    return spec.origin if spec else None


def spec_of(name: str) -> ModuleSpec | None:
    parent = name.rpartition(".")[0]
    above = spec_of(parent) if parent else None
    if parent and (above is None or above.submodule_search_locations is None):
        return None
    return PathFinder.find_spec(name, above.submodule_search_locations if above else None)


def imports_of(file: Path, package: str) -> Iterator[str]:
    """The names of modules that a file's import statements may mean; none of one that cannot be read as Python now."""
    try:
        with warnings.catch_warnings(action="ignore"):  # of odd escapes Python has told when it was imported
            tree = ast.parse(file.read_bytes())
    except (OSError, SyntaxError, ValueError):
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            depth = max(0, package.count(".") + 2 - node.level) if node.level else 0
            start = ".".join(filter(None, [*package.split(".")[:depth], node.module]))
            yield start
            yield from (f"{start}.{alias.name}" for alias in node.names)

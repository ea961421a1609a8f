"""The shape of the program: imports point only downwards, and importing costs nothing."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import preimage

SOURCE = Path(preimage.__file__).parent

# From the bottom to the top; a module imports only from modules before it (and from its own family).
LAYERS = [
    "defaults", "errors", "memory", "randomness", "words", "plain", "files", "pages", "interfaces", "cache", "images",
    "figures", "metrics", "leakage", "networks", "probe", "representations", "defences", "contract", "decoders",
    "pairs", "training", "inverters", "evaluation", "findings", "paper", "analyses", "report", "config", "runs",
    "audit_summary", "audit", "audit_page", "zoo", "kept", "judging", "api", "studies", "inversion", "reproduce",
    "zoo_training", "gallery", "results", "demo", "cli", "__main__",
]  # fmt: skip


def imported_families(file: Path) -> set[str]:
    """The families of `preimage` that a file imports, inside functions too."""
    families = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "preimage":
            parts = node.module.split(".")[1:]
            families |= {parts[0]} if parts else {alias.name for alias in node.names}
        elif isinstance(node, ast.Import):
            families |= {alias.name.split(".")[1] for alias in node.names if alias.name.startswith("preimage.")}
    return families


MODULES = sorted(path for path in SOURCE.rglob("*.py") if path != SOURCE / "__init__.py")


@pytest.mark.parametrize("file", MODULES, ids=lambda path: path.relative_to(SOURCE).as_posix())
def test_imports_point_only_downwards(file: Path) -> None:
    family = file.relative_to(SOURCE).parts[0].removesuffix(".py")
    allowed = {*LAYERS[: LAYERS.index(family)], family}
    assert imported_families(file) <= allowed


def loaded_after(statement: str) -> set[str]:
    code = f"import sys; {statement}; print(' '.join(sys.modules))"
    return set(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split())


@pytest.mark.parametrize("statement", ["import preimage", "import preimage.cli"])
def test_importing_loads_nothing_heavy(statement: str) -> None:
    assert not loaded_after(statement) & {"torch", "matplotlib", "skimage", "numpy", "datasets", "accelerate"}


def test_every_public_name_can_be_had() -> None:
    for name in preimage.__all__:
        assert getattr(preimage, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = preimage.nonsense

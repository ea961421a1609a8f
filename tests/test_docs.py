"""The code blocks of the guides do what they say."""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[1] / "docs"
PYTHON = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)


def test_ones_own_encoder_is_inverted_as_the_guide_says(
    tmp_path: Path, crops: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One after the other in a folder with photographs, on the CPU; the guide's own settings are small enough."""
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    for name in ("photos", "more-photos"):
        shutil.copytree(crops, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    blocks = PYTHON.findall((DOCS / "your-own-encoder.md").read_text())
    assert len(blocks) >= 5
    names: dict[str, object] = {"__name__": "guide"}
    for block in blocks:
        exec(compile(block, "your-own-encoder.md", "exec"), names)
    assert (tmp_path / "runs" / "mine" / "summary.json").exists()
    for module in ("my_encoder", "my_function"):
        sys.modules.pop(module, None)

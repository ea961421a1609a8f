from __future__ import annotations

import ctypes
import subprocess
import sys

import pytest

CODE = """
import resource, torch
from preimage.memory import keep_freed_memory
torch.set_num_threads(1)
assert keep_freed_memory() is True
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    torch.ones(1 << 24)
before = faults()
for _ in range(10):
    torch.ones(1 << 24)
print(faults() - before)
"""
PAGES = (1 << 24) * 4 // 4096


@pytest.mark.skipif(sys.platform != "linux" or not hasattr(ctypes.CDLL(None), "mallopt"), reason="needs glibc")
def test_large_tensors_are_made_again_without_asking_for_pages() -> None:
    faults = int(subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True).stdout)
    assert faults < PAGES  # without it each of the ten would ask for all of them


def test_a_library_without_mallopt_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    from preimage.memory import keep_freed_memory

    monkeypatch.setattr(ctypes, "CDLL", lambda _: object())
    assert keep_freed_memory() is False

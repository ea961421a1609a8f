"""Random numbers that depend on a seed alone, and change nobody else's."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch

from preimage.errors import SettingsError


def check_seed(seed: int) -> None:
    """Raise `SettingsError` for what PyTorch or NumPy cannot take."""
    if not 0 <= seed < 2**63:
        raise SettingsError(f"seed is from 0 to 2^63 - 1, got {seed}")


@contextlib.contextmanager
def seeded(seed: int, device: torch.device | None = None) -> Iterator[None]:
    """In here PyTorch draws from `seed`, on the CPU and a CUDA `device`; afterwards it goes on as if nothing was."""
    gpus = [device] if device is not None and device.type == "cuda" else []
    with torch.random.fork_rng(gpus):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would seed all GPUs for good
        for gpu in gpus:
            with torch.cuda.device(gpu):
                torch.cuda.manual_seed(seed)
        yield

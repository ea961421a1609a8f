"""Reading published weights: every file's hash is checked, nothing is unpickled, nothing is downloaded."""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch
from torch import Tensor, nn

from preimage.errors import WeightsError


def check_hash(file: Path, expected: str) -> None:
    """Raise `WeightsError` unless the file's SHA-256 is as expected."""
    found = hashlib.sha256(file.read_bytes()).hexdigest()
    if found != expected:
        raise WeightsError(f"{file} is damaged or another file: its SHA-256 is {found}, expected {expected}")


def read_state_dict(file: Path) -> dict[str, Tensor]:
    """A PyTorch state dict, without running the code a pickle could hold."""
    try:
        state: dict[str, Tensor] = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds, from the zip reader to the unpickler
        raise WeightsError(f"{file} cannot be read as a PyTorch state dict: {error}") from error
    return state


def load_into(network: nn.Module, state: dict[str, Tensor], file: Path | str) -> None:
    """Fill a network; raises `WeightsError` naming what is missing, left over or of another shape."""
    own = network.state_dict()
    problems = [f"{name} is missing" for name in own if name not in state]
    problems += [f"{name} is not part of {type(network).__name__}" for name in state if name not in own]
    problems += [
        f"{name} has shape {tuple(state[name].shape)} instead of {tuple(value.shape)}"
        for name, value in own.items()
        if name in state and state[name].shape != value.shape
    ]
    if problems:
        more = f" and {len(problems) - 3} more" if len(problems) > 3 else ""
        raise WeightsError(f"{file} holds another architecture: {'; '.join(problems[:3])}{more}")
    network.load_state_dict(state)


def fingerprint(network: nn.Module) -> str:
    """A hash of all parameters and statistics, names included."""
    digest = hashlib.sha256()
    for name, value in sorted(network.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]

"""Runs: the folder that a training writes, what it works on, and training into it."""

from __future__ import annotations

from preimage.runs.folder import Run
from preimage.runs.material import (
    check_same_photos,
    examples,
    load_inverter,
    load_kept,
    make_inverter,
    open_photos,
    photos_of,
    warn_seen,
)
from preimage.runs.training import (
    DEFAULT_EPOCHS,
    HELD_OUT_IN_WORDS,
    Plan,
    Reporter,
    Start,
    Validation,
    device_name,
    measure_pace,
    resume,
    train,
)

__all__ = [
    "DEFAULT_EPOCHS",
    "HELD_OUT_IN_WORDS",
    "Plan",
    "Reporter",
    "Run",
    "Start",
    "Validation",
    "check_same_photos",
    "device_name",
    "examples",
    "load_inverter",
    "load_kept",
    "make_inverter",
    "measure_pace",
    "open_photos",
    "photos_of",
    "resume",
    "train",
    "warn_seen",
]

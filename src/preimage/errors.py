"""What can go wrong because of something the user gave us. The command line prints these without a traceback."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import Any


class PreimageError(Exception):
    """A mistake the reader can mend: says what was expected, what came, and what to do."""


class UnknownNameError(PreimageError):
    """A name that is in no table; suggests what it may mean and lists the choices, unless they are very many.

    A network's name may mean any of its layers, that of a run the path to it. `overview` is listed instead of choices.
    """

    listed = 150

    def __init__(self, kind: str, name: str, choices: Iterable[str], overview: Iterable[str] = ()) -> None:
        self.name = name
        available = sorted(choices)
        alike = [choice for choice in available if choice.lower() == name.lower() or choice.endswith(f"/{name}")]
        nearest = alike or [choice for choice in available if choice.startswith(f"{name}.")]
        nearest = nearest or get_close_matches(name, available, n=1)
        suggestion = f" Did you mean {', '.join(map(repr, nearest))}?" if nearest else ""
        if overview:
            listing = ", ".join(overview)
        elif len(available) > self.listed:
            near = get_close_matches(name, available, n=8, cutoff=0.3) or available[:8]
            listing = f"{', '.join(near)}, and {len(available) - len(near)} more"
        else:
            listing = ", ".join(available) or "none"
        super().__init__(f"no {kind} is called {name!r}.{suggestion} Available: {listing}")


class ImageError(PreimageError):
    """A file that is not a picture we can read, or a tensor that is not a batch of images."""


class FeatureError(PreimageError):
    """Features of the wrong shape or type, or not finite."""


class SettingsError(PreimageError):
    """A setting that is unknown, of the wrong type, out of range, or at odds with another."""


class NotShippedError(PreimageError):
    """A representation whose inverter does not come with the package."""

    def __init__(self, name: str, settings: Mapping[str, Any] | None = None) -> None:
        self.name, self.settings = name, settings or {}  # of the representation
        run = "runs/mine" if ":" in name else f"runs/{name}"
        super().__init__(
            f"no inverter for {name!r} ships with preimage. Train one by `preimage train {shlex.quote(name)} "
            f"--images PHOTOS --run {run}`, then use it with `--run {run}`"
        )


class RunError(PreimageError):
    """A run folder that is missing, damaged, finished, or made with other settings."""


class BusyError(RunError):
    """A run folder that another process is training into."""


class WeightsError(PreimageError):
    """A weights file that is missing, damaged, or of another network."""


class PreimageWarning(UserWarning):
    """Something that may be as it should be, and that the reader must know. The command line shows it as a note."""


class WeightsWarning(PreimageWarning):
    """Weights that are nearly, not quite, those an inverter was made for."""


class PreprocessingWarning(PreimageWarning):
    """An encoder of which nobody has said how it is fed."""


class NotFittedError(PreimageError):
    """An inverter was asked to invert before it had learnt anything."""

    def __init__(self, name: str) -> None:
        super().__init__(
            f"the inverter {name!r} has not been fitted: call .fit(pairs), or load a trained one with "
            "preimage.load_inverter"
        )


class DivergedError(PreimageError):
    """The loss of a training is no longer a number."""

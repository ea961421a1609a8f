"""Where a trained inverter is kept: in the package, a file, a run folder; and what is known before it is loaded."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from preimage import runs, zoo
from preimage.config import settings_for
from preimage.files import read_json
from preimage.images import Fit, sources_in_words
from preimage.interfaces import Inverter
from preimage.inverters import load_inverters, read_description
from preimage.networks.weights import file_hash
from preimage.representations import is_door
from preimage.runs import Run

Named = str | os.PathLike[str] | Inverter  # what leads to a trained inverter


def is_path(name: str | os.PathLike[str]) -> bool:
    """A plain name means what ships; anything with a slash, or a safetensors file, is a path; `onnx:...` is a name."""
    text = str(name)
    if isinstance(name, os.PathLike):  # which a run is too
        return True
    return not is_door(text) and ("/" in text or "\\" in text or text.endswith(".safetensors"))


class Kept(ABC):
    """A trained inverter where it is kept. Making one opens nothing.

    Whatever is asked of it raises `UnknownNameError`, `RunError` or `WeightsError` where nothing is kept there.
    """

    def __init__(self, name: str) -> None:
        self.name = name

    @staticmethod
    def of(name: Named) -> Kept:
        """What a name leads to; an inverter at hand leads to itself."""
        if isinstance(name, Inverter):
            return AtHand(name)
        if not is_path(name):
            return Shipped(str(name))
        path = os.fspath(name)
        return InFile(path) if Path(path).is_file() or path.endswith(".safetensors") else InRun(path)

    @property
    def label(self) -> str:
        """What it is called on figures."""
        return self.name

    @property
    def run(self) -> Run | None:
        """The run folder that it is kept in, if it is one."""
        return None

    @property
    def fit(self) -> Fit:
        """How photographs are made square for it."""
        return "crop"

    @property
    def card(self) -> dict[str, Any]:
        """How it was made; empty where that is not known."""
        return {}

    @property
    @abstractmethod
    def representation(self) -> dict[str, Any]:
        """Name and settings of the representation it was made for, as far as they are noted."""

    @abstractmethod
    def load(self, *, trusted: bool = False, **settings: Any) -> dict[str, Inverter]:
        """The inverter and, where they were kept with it, its baselines, by name; the main one first.

        `settings` go to its representation. A file whose encoder is code is loaded only if it is `trusted`.
        """

    def load_with(self, overrides: Iterable[str]) -> dict[str, Inverter]:
        """`load` with those of several overrides that concern its representation."""
        return self.load(**settings_for(self.representation["name"], overrides))

    def load_beside(self, description: Mapping[str, Any]) -> dict[str, Inverter]:
        """`load` where a representation of this description is at hand.

        It is given that one's weights; and if it is the same, its code has run already.
        """
        trusted = self.representation["name"] == description["name"]
        return self.load(trusted=trusted, **zoo.given_weights(description))


class AtHand(Kept):
    def __init__(self, inverter: Inverter) -> None:
        super().__init__(inverter.name)
        self.inverter = inverter

    @property
    def representation(self) -> dict[str, Any]:
        return self.inverter.representation.description

    def load(self, *, trusted: bool = False, **settings: Any) -> dict[str, Inverter]:  # noqa: ARG002 (as it is)
        return {self.inverter.name: self.inverter}


class Shipped(Kept):
    @property
    def representation(self) -> dict[str, Any]:
        return {"name": self.name}

    @property
    def card(self) -> dict[str, Any]:
        return zoo.card(self.name)

    def load(self, *, trusted: bool = False, **settings: Any) -> dict[str, Inverter]:  # noqa: ARG002 (it is ours)
        return zoo.load_shipped(self.name, **settings)


class InFile(Kept):
    @property
    def label(self) -> str:
        return Path(self.name).stem

    @property
    def representation(self) -> dict[str, Any]:
        return dict(read_description(self.name).representation)

    @property
    def card(self) -> dict[str, Any]:
        """That which lies beside it, if it is of this very file."""
        file = Path(self.name).with_suffix(".json")
        card = read_json(file) if file.exists() else {}
        return card if card and card.get("sha256") == file_hash(Path(self.name)) else {}

    def load(self, *, trusted: bool = False, **settings: Any) -> dict[str, Inverter]:
        return load_inverters(self.name, trusted=trusted, **settings)


class InRun(Kept):
    @property
    def run(self) -> Run:
        return Run.open(self.name)

    @property
    def fit(self) -> Fit:
        return self.run.settings.photos.fit

    @property
    def label(self) -> str:
        return Path(self.name).absolute().name

    @property
    def representation(self) -> dict[str, Any]:
        return dict(self.run.settings.representation)

    @property
    def card(self) -> dict[str, Any]:
        """As one that is exported gets it, and what only its owner knows: where its photographs are, how far it is."""
        settings = self.run.settings
        return zoo.describe(self.run) | {
            "trained_on": sources_in_words(settings.photos.train),
            "validated_on": sources_in_words(settings.photos.validation) or "none",
            "progress": f"{self.run.step} of {settings.training.steps} steps",
        }

    def load(self, *, trusted: bool = False, **settings: Any) -> dict[str, Inverter]:  # noqa: ARG002 (its owner's)
        return runs.load_kept(self.name, **settings)

"""Settings of a run: TOML presets and `key=value` texts -> frozen dataclasses. An unknown key suggests the nearest."""

from __future__ import annotations

import dataclasses
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import cached_property
from importlib import resources
from typing import Any

from preimage.decoders import check_choice
from preimage.errors import SettingsError, UnknownNameError
from preimage.images import Augmentation, Fit
from preimage.interfaces import Representation
from preimage.networks import NETWORKS, needs_weights
from preimage.plain import build
from preimage.randomness import check_seed
from preimage.representations import REPRESENTATIONS, get_representation, overview
from preimage.training import TrainingSettings


@dataclass(frozen=True)
class DecoderSettings:
    """Which layer table, and how wide."""

    name: str = "compact"
    width: float = 1.0

    def __post_init__(self) -> None:
        check_choice(self.name, self.width)


@dataclass(frozen=True)
class PhotoSettings:
    """Where the photographs come from and how they are made square."""

    train: tuple[str, ...] = ()
    validation: tuple[str, ...] = ()
    fit: Fit = "crop"
    held_out: float = 0.0  # share of `train` that is split off at random for validation, where there is none of its own

    def __post_init__(self) -> None:
        if not 0 <= self.held_out < 1:
            raise SettingsError(f"held_out is a share in [0, 1), got {self.held_out}")


@dataclass(frozen=True)
class Settings:
    """Everything that decides what a run computes."""

    representation: Mapping[str, Any]  # {"name": ..., setting: value ...}
    photos: PhotoSettings = PhotoSettings()
    decoder: DecoderSettings = DecoderSettings()
    training: TrainingSettings = field(default_factory=TrainingSettings)
    augmentation: Augmentation = field(default_factory=Augmentation)
    autoencoder: bool = False  # train a copy of the encoder too
    seed: int = 0

    def __post_init__(self) -> None:
        check_seed(self.seed)
        if not isinstance(self.representation.get("name"), str):
            raise SettingsError("representation.name is a name: see `preimage list`")

    @cached_property
    def encoder(self) -> Representation:
        """Made when it is first asked for."""
        return get_representation(**self.representation)


SAME_SHAPES = {"bvlc_alexnet": "alexnet", "caffenet": "alexnet"}  # networks whose layers share another's presets
WEIGHTS_KEYS = ("weights", "representation.weights")
RUN_WIDE = ("autoencoder", "seed")  # settings in no section
SECTIONS = [field.name for field in dataclasses.fields(Settings) if field.name not in RUN_WIDE]


SECTION_KEYS = {
    section: [field.name for field in dataclasses.fields(kind)]
    for section, kind in (
        ("training", TrainingSettings), ("decoder", DecoderSettings), ("augmentation", Augmentation),
        ("photos", PhotoSettings),
    )
}  # fmt: skip


def preset_names() -> list[str]:
    """The presets that come with the package, of the paper's representations."""
    folder = resources.files("preimage") / "presets"
    return sorted(entry.name.removesuffix(".toml") for entry in folder.iterdir() if entry.name.endswith(".toml"))


def load_preset(name: str) -> dict[str, Any]:
    """The tables of a preset as nested dicts; a representation without one has the default settings."""
    if not isinstance(name, str):
        raise SettingsError(
            f"runs are trained by name, so that they can be resumed, got {type(name).__name__}: name a function that "
            "makes it (torch:my_module:make), or train without a run folder, UpConv(representation).fit(pairs)"
        )
    network, dot, layer = name.partition(".")
    file = SAME_SHAPES.get(network, network) + dot + layer
    if file in preset_names():
        tables = tomllib.loads((resources.files("preimage") / "presets" / f"{file}.toml").read_text())
        tables["representation"]["name"] = name
        return tables
    if name not in REPRESENTATIONS and ":" not in name:  # a door has settings of its own, which say what is wrong
        raise UnknownNameError("preset or representation", name, {*preset_names(), *REPRESENTATIONS}, overview())
    return {"representation": {"name": name}, "training": {}}


def make_settings(tables: Mapping[str, Any], overrides: Iterable[str] = ()) -> Settings:
    """Nested dicts, then `section.key=value` texts over them -> checked settings.

    A key without a section that is no setting of a run, nor nearly one, is the representation's.
    """
    merged = {key: dict(value) if isinstance(value, Mapping) else value for key, value in tables.items()}
    for override in overrides:
        section, key, value = parse_override(override)
        if section == "" and not get_close_matches(key, RUN_WIDE):
            section = "representation"
        if section == "":
            merged[key] = value
        else:
            if section not in SECTIONS:
                raise UnknownNameError("section of settings", section, SECTIONS)
            merged.setdefault(section, {})[key] = value
    settings = build(Settings, merged, "settings")
    try:
        _ = settings.encoder  # unknown names and values are reported now, not hours later
    except UnknownNameError as error:
        if homes := [section for section, keys in SECTION_KEYS.items() if error.name in keys]:
            raise SettingsError(
                f"{error.name} is {homes[0]}.{error.name}: a key alone is the representation's"
            ) from error
        raise
    return settings


def parse_override(text: str) -> tuple[str, str, Any]:
    """`training.steps=100` -> ("training", "steps", 100); the value is read as TOML, else taken as text."""
    path, equals, value = text.partition("=")
    if not equals or not path:
        raise SettingsError(f"expected key=value, got {text!r}; for example training.batch_size=16")
    section, _, key = path.strip().rpartition(".")
    return section, key, parse_value(value.strip())


def plain_settings(overrides: Iterable[str], owner: str) -> dict[str, Any]:
    """The values of `key=value` and `owner.key=value`; raises `SettingsError` for those of another owner."""
    values = {}
    for override in overrides:
        section, key, value = parse_override(override)
        if section not in ("", owner):
            raise SettingsError(f"only settings of the {owner} can be set here, not {override!r}")
        values[key] = value
    return values


def settings_for(name: str, overrides: Iterable[str]) -> dict[str, Any]:
    """The settings of a representation that overrides for several give it."""
    return plain_settings(overrides_for(name, overrides), "representation")


def overrides_for(name: str, overrides: Iterable[str]) -> list[str]:
    """The overrides that concern a representation; weights for all only where the network brings none of its own.

    `key=value` is for all of several names, `hog:key=value` for one, `alexnet:key=value` for a network's layers; what
    is for fewer comes later, so that it counts.
    """
    general: list[str] = []
    own: list[str] = []
    for override in overrides:
        whom, rest = split_override(override)
        key = rest.partition("=")[0].strip()
        if whom not in ("", name, name.partition(".")[0]):
            continue
        if key in WEIGHTS_KEYS and not whom and name in REPRESENTATIONS and not needs_weights(name):
            continue
        (own if whom else general).append(rest)
    return general + own


def split_override(override: str) -> tuple[str, str]:
    """`hog:decoder.width=0.3` -> ("hog", "decoder.width=0.3"); without a name before the colon, ("", all of it)."""
    path = override.partition("=")[0]
    whom, colon, _ = path.partition(":")
    if not colon:
        return "", override
    if whom not in REPRESENTATIONS and whom not in NETWORKS:
        raise UnknownNameError("representation or network", whom, [*REPRESENTATIONS, *NETWORKS])
    return whom, override[len(whom) + 1 :]


def parse_value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text

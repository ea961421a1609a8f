"""Settings of a run: TOML presets and `key=value` texts -> frozen dataclasses. An unknown key suggests the nearest."""

from __future__ import annotations

import dataclasses
import json
import tomllib
import types
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from importlib import resources
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from preimage.errors import SettingsError, UnknownNameError
from preimage.images import Augmentation, Fit
from preimage.interfaces import Representation, field_names
from preimage.representations import REPRESENTATIONS, get_representation
from preimage.training import TrainingSettings

Section = TypeVar("Section")


@dataclass(frozen=True)
class DecoderSettings:
    """Which layer table, and how wide."""

    name: str = "smooth"
    width: float = 1.0


@dataclass(frozen=True)
class PhotoSettings:
    """Where the photographs come from and how they are made square."""

    train: tuple[str, ...] = ()
    validation: tuple[str, ...] = ()
    fit: Fit = "crop"


@dataclass(frozen=True)
class Settings:
    """Everything that decides what a run computes."""

    representation: Mapping[str, Any]  # {"name": ..., setting: value ...}
    photos: PhotoSettings = PhotoSettings()
    decoder: DecoderSettings = DecoderSettings()
    training: TrainingSettings = field(default_factory=TrainingSettings)
    augmentation: Augmentation = field(default_factory=Augmentation)
    seed: int = 0
    format: int = field(default=1, kw_only=True)

    def get_representation(self) -> Representation:
        return get_representation(**self.representation)

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self), indent=2) + "\n"


def preset_names() -> list[str]:
    """The presets that come with the package, of the paper's representations."""
    folder = resources.files("preimage") / "presets"
    return sorted(entry.name.removesuffix(".toml") for entry in folder.iterdir() if entry.name.endswith(".toml"))


def load_preset(name: str) -> dict[str, Any]:
    """The tables of a preset as nested dicts; a representation without one has the default settings."""
    if name not in preset_names():
        if name not in REPRESENTATIONS:
            raise UnknownNameError("preset or representation", name, {*preset_names(), *REPRESENTATIONS})
        return {"representation": {"name": name}, "training": {"epochs": 30}}
    return tomllib.loads((resources.files("preimage") / "presets" / f"{name}.toml").read_text())


def make_settings(tables: Mapping[str, Any], overrides: Iterable[str] = ()) -> Settings:
    """Nested dicts, then `section.key=value` texts over them -> checked settings."""
    merged = {key: dict(value) if isinstance(value, Mapping) else value for key, value in tables.items()}
    for override in overrides:
        section, key, value = parse_override(override)
        if section == "":
            merged[key] = value
        else:
            if section not in field_names(Settings) or section in ("seed", "format"):
                raise UnknownNameError("section of settings", section, sections())
            merged.setdefault(section, {})[key] = value
    settings: Settings = build(Settings, merged, "settings")
    settings.get_representation()  # unknown names and values are reported now, not hours later
    return settings


def sections() -> list[str]:
    return [name for name in field_names(Settings) if name not in ("seed", "format")]


def parse_override(text: str) -> tuple[str, str, Any]:
    """`training.steps=100` -> ("training", "steps", 100); the value is read as TOML, else taken as text."""
    path, equals, value = text.partition("=")
    if not equals or not path:
        raise SettingsError(f"expected key=value, got {text!r}; for example training.batch_size=16")
    section, _, key = path.strip().rpartition(".")
    return section, key, parse_value(value.strip())


def parse_value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def build(kind: type[Section], values: Mapping[str, Any], where: str) -> Section:
    """A dataclass from plain values: unknown keys and wrong types are named, nested dataclasses built."""
    hints = get_type_hints(kind)
    arguments = {}
    for key, value in values.items():
        if key not in hints:
            raise UnknownNameError(f"key of {where}", key, hints)
        arguments[key] = convert(value, hints[key], f"{where}.{key}")
    return kind(**arguments)


def convert(value: Any, hint: Any, where: str) -> Any:
    """A TOML or JSON value -> the annotated type, or `SettingsError` saying what was expected."""
    if dataclasses.is_dataclass(hint) and isinstance(hint, type) and isinstance(value, Mapping):
        return build(hint, value, where)
    origin, options = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        if value is None and type(None) in options:
            return None
        inner = [option for option in options if option is not type(None)]
        return convert(value, inner[0], where)
    if origin is Literal:
        if value in options:
            return value
        raise SettingsError(f"{where} is one of {', '.join(map(repr, options))}, got {value!r}")
    if origin is tuple:
        items = [value] if isinstance(value, str) else list(value)
        return tuple(convert(item, options[0], where) for item in items)
    expected = origin or hint
    if expected is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if expected is Any or (isinstance(value, expected) and not (expected is int and isinstance(value, bool))):
        return value
    raise SettingsError(f"{where} is {getattr(hint, '__name__', hint)}, got {value!r}")

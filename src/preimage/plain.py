"""Plain values, as TOML and JSON have them: into annotated ones, naming unknown keys and wrong types; and written."""

from __future__ import annotations

import dataclasses
import inspect
import json
import math
import types
from collections.abc import Callable, Mapping
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from preimage.errors import SettingsError, UnknownNameError

Made = TypeVar("Made")


def build(make: Callable[..., Made], values: Mapping[str, Any], where: str) -> Made:
    """Call a class or a function with named values, each converted to its annotation."""
    annotated = make.__init__ if isinstance(make, type) and not dataclasses.is_dataclass(make) else make  # type: ignore[misc]
    hints = {key: hint for key, hint in get_type_hints(annotated).items() if key != "return" and not is_class_var(hint)}
    arguments = {}
    for key, value in values.items():
        if key not in hints:
            raise UnknownNameError(f"setting of {where}", key, hints)
        arguments[key] = convert(value, hints[key], f"{where}.{key}")
    try:
        inspect.signature(make).bind(**arguments)
    except TypeError as error:
        raise SettingsError(f"{where}: {error}") from error
    return make(**arguments)


def is_class_var(hint: Any) -> bool:
    return "ClassVar" in str(hint)


def convert(value: Any, hint: Any, where: str) -> Any:
    """A plain value -> the annotated type, or `SettingsError` saying what was expected."""
    origin, options = get_origin(hint), get_args(hint)
    if isinstance(hint, type) and dataclasses.is_dataclass(hint) and isinstance(value, Mapping):
        return build(hint, value, where)
    if origin in (Union, types.UnionType):
        if value is None and type(None) in options:
            return None
        options = tuple(option for option in options if option is not type(None))
        return value if type(value) in options else convert(value, options[0], where)
    if origin is Literal:
        if value in options:
            return value
        raise SettingsError(f"{where} is one of {', '.join(map(repr, options))}, got {value!r}")
    if origin is tuple and isinstance(value, str | list | tuple):
        items = [value] if isinstance(value, str) else value
        return tuple(convert(item, options[0], where) for item in items)
    if origin is tuple and options[0] is float and type(value) in (int, float):
        return (float(value),)
    expected = origin or hint
    if expected is float and type(value) is int:
        return float(value)
    if expected is Any or (isinstance(value, expected) and (expected is bool or type(value) is not bool)):
        return value
    raise SettingsError(f"{where} is {getattr(hint, '__name__', hint)}, got {value!r}")


def to_json(content: Any) -> str:
    """Indented JSON that every reader takes: what is no finite number is null."""
    return json.dumps(finite(content), indent=2, allow_nan=False)


def finite(content: Any) -> Any:
    """The same plain values, NaN and infinity become None."""
    if isinstance(content, Mapping):
        return {key: finite(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [finite(value) for value in content]
    return None if isinstance(content, float) and not math.isfinite(content) else content

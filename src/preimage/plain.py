"""Plain values, as TOML and JSON have them: into annotated ones, naming unknown keys and wrong types; and written."""

from __future__ import annotations

import csv
import dataclasses
import inspect
import io
import json
import math
import types
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from preimage.errors import SettingsError, UnknownNameError

PLAIN = (str, int, float, bool, tuple, list, dict, Literal, Any)
Made = TypeVar("Made")


def build(make: Callable[..., Made], values: Mapping[str, Any], where: str) -> Made:
    """Call a class or a function with named values, each converted to its annotation."""
    annotated = make.__init__ if isinstance(make, type) and not dataclasses.is_dataclass(make) else make  # type: ignore[misc]
    hints = get_type_hints(annotated)
    hints = {key: hint for key, hint in hints.items() if key != "return" and get_origin(hint) is not ClassVar}
    arguments = {}
    for key, value in values.items():
        if key not in hints:
            raise UnknownNameError(f"setting of {where}", key, (name for name, hint in hints.items() if is_plain(hint)))
        arguments[key] = convert(value, hints[key], f"{where}.{key}")
    try:
        inspect.signature(make).bind(**arguments)
    except TypeError as error:
        raise SettingsError(f"{where}: {error}") from error
    return make(**arguments)


def is_plain(hint: Any) -> bool:
    """Whether a plain value can be what is annotated so: a function or an object of ours cannot."""
    options = get_args(hint) if get_origin(hint) in (Union, types.UnionType) else ()
    if options:
        return any(is_plain(option) for option in options)
    kind = get_origin(hint) or hint
    return kind in PLAIN or dataclasses.is_dataclass(kind)


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
    if origin is tuple:
        items = value if isinstance(value, list | tuple) else [value]
        return tuple(convert(item, options[0], where) for item in items)
    expected = origin or hint
    if expected is float and type(value) is int:
        return float(value)
    if expected is Any or (isinstance(value, expected) and (expected is bool or type(value) is not bool)):
        return value
    raise SettingsError(f"{where} is {getattr(hint, '__name__', hint)}, got {value!r}")


def parts(count: int, size: int) -> list[range]:
    """So many in parts of a size, the last one shorter."""
    return [range(start, min(start + size, count)) for start in range(0, count, size)]


def to_json(content: Any) -> str:
    """Indented JSON that every reader takes: what is no finite number is null."""
    return json.dumps(finite(content), indent=2, allow_nan=False)


def to_csv(records: Sequence[Mapping[str, Any]]) -> str:
    """Records as CSV, a column for every key there is."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(dict.fromkeys(key for record in records for key in record)), lineterminator="\n")
    writer.writeheader()
    writer.writerows(records)
    return text.getvalue()


def finite(content: Any) -> Any:
    """The same plain values, NaN and infinity become None."""
    if isinstance(content, Mapping):
        return {key: finite(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [finite(value) for value in content]
    return None if isinstance(content, float) and not math.isfinite(content) else content

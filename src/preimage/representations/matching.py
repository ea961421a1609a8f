"""Which row of a file belongs to which photograph: by ids that are written in many ways, or by order."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from preimage.errors import FeatureError
from preimage.images import SUFFIXES
from preimage.representations.tables import Table
from preimage.words import listed

WITHOUT_IDS = "no ids were found"


@dataclass(frozen=True)
class Match:
    """Which row belongs to which photograph, how that was found out, and what belongs to nothing."""

    rows: dict[str, int]  # photograph -> row
    how: str
    without_features: list[str]
    without_photo: list[str]


def match(table: Table, photo_ids: Sequence[str]) -> Match:
    """Rows to photographs: by ids, else by the order of the file names. Raises `FeatureError` where that is unsure.

    Where no ids are called so, a column of texts is taken for them that names more than half of the photographs.
    """
    if table.ids is not None:
        return match_by_ids(table, table.ids, photo_ids)
    ways = keys(photo_ids)[:-1]  # numbers may count anything
    named = {name: len(alike(texts, photo_ids, ways).both) for name, texts in table.texts.items()}
    best = max(named, key=lambda name: named[name], default="")
    if 2 * named.get(best, 0) <= min(len(table), len(photo_ids)):
        return match_by_order(table, photo_ids)
    return match_by_ids(replace(table, ids_from=f"{table.file.name}, {best}"), table.texts[best], photo_ids)


class Alike(NamedTuple):
    """The way to compare two lists of ids by which most are in both, in words, and what these are then."""

    key: Key
    how: str
    both: set[str]


def alike(ids: Sequence[str], photo_ids: Sequence[str], ways: Sequence[tuple[str, Key]]) -> Alike:
    best = Alike(whole_id, "", set())
    for how, key in ways:
        both = {key(own) for own in ids}.intersection(map(key, photo_ids)) - {""}
        if len(both) > len(best.both):
            best = Alike(key, how, both)
        if len(both) == min(len(ids), len(photo_ids)):
            break
    return best


def match_by_ids(table: Table, ids: list[str], photo_ids: Sequence[str]) -> Match:
    key, how, best = alike(ids, photo_ids, keys(photo_ids))
    if not best:
        raise FeatureError(
            f"no id in {table.ids_from} names a photograph: the ids are {listed(ids)}, the photographs "
            f"{listed(photo_ids)}. Write the photographs' file names as ids, or give the features of these photographs"
        )
    photos_of = grouped(photo_ids, key)
    rows_of = grouped(ids, key)
    for own in sorted(best):
        if len(photos_of[own]) > 1:
            raise FeatureError(
                f"one feature for {len(photos_of[own])} photographs: {listed(photos_of[own])} all have the id {own!r} "
                f"in {table.ids_from}; give ids that tell them apart (folder and suffix included)"
            )
        if len(rows_of[own]) > 1:
            raise FeatureError(
                f"{len(rows_of[own])} rows for one photograph: {listed(rows_of[own])} in {table.ids_from} all name "
                f"{photos_of[own][0]}; keep one of them"
            )
    places = {own: row for row, own in enumerate(ids)}
    rows = {photos_of[own][0]: places[rows_of[own][0]] for own in best}
    return Match(
        {own: rows[own] for own in photo_ids if own in rows},
        f"ids in {table.ids_from} ({how})",
        [own for own in photo_ids if own not in rows],
        [own for own in ids if key(own) not in best],
    )


def match_by_order(table: Table, photo_ids: Sequence[str]) -> Match:
    """The first row to the first file name in alphabetical order, and so on."""
    if len(table) != len(photo_ids):
        raise FeatureError(
            f"{table.file} holds {len(table)} rows, but there are {len(photo_ids)} photographs, and nothing says which "
            f"belong together. Write a file name a line to {table.file.name}.ids.txt, in the order of the rows"
        )
    ordered = sorted(photo_ids)
    how = f"sorted file names: row 0 is {ordered[0]}, row {len(ordered) - 1} is {ordered[-1]} ({WITHOUT_IDS})"
    return Match({own: row for row, own in enumerate(ordered)}, how, [], [])


Key = Callable[[str], str]  # id -> what is compared; empty where an id has none


def whole_id(own: str) -> str:
    return own


def keys(photo_ids: Sequence[str]) -> list[tuple[str, Key]]:
    """Ways to compare ids, the strictest first: whole, without suffix, the ends of paths, numbers."""
    depth = max((own.count("/") + 1 for own in photo_ids), default=1)
    cuts: list[tuple[str, Key]] = [("without suffix", without_picture_suffix), ("up to the last dot", without_suffix)]
    ways: list[tuple[str, Key]] = [("as they are", whole_id), *cuts]
    for parts in range(depth, 0, -1):
        words = "file names alone" if parts == 1 else f"the last {parts} parts of the paths"
        ways.append((words, lambda own, parts=parts: ending(own, parts)))  # type: ignore[misc]
        ways += [(f"{words}, {how}", lambda own, parts=parts, cut=cut: cut(ending(own, parts))) for how, cut in cuts]  # type: ignore[misc]
    return [*ways, ("numbers", number)]


def without_picture_suffix(own: str) -> str:
    """`cat.0.jpg` and `cat.0` are both `cat.0`."""
    return without_suffix(own) if suffix_of(own).lower() in SUFFIXES else own


def without_suffix(own: str) -> str:
    return own.removesuffix(suffix_of(own))


def suffix_of(own: str) -> str:
    """As pathlib has it, for many: `.jpg`; nothing of a hidden file or one that ends in a dot."""
    stem, dot, suffix = own.rpartition("/")[2].rpartition(".")
    return f".{suffix}" if dot and suffix and stem.strip(".") else ""


def ending(own: str, parts: int) -> str:
    return "/".join(own.replace("\\", "/").split("/")[-parts:])


def number(own: str) -> str:
    """`photos/000139.jpg` and `139` are both 139."""
    name = without_suffix(ending(own, 1))
    return str(int(name)) if name.isdecimal() else ""


def grouped(ids: Iterable[str], key: Key) -> dict[str, list[str]]:
    groups: dict[str, list[str]] = {}
    for own in ids:
        groups.setdefault(key(own), []).append(own)
    return groups

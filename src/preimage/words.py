"""Numbers, times and names as people read them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

TOLD = 5  # names of many
NOTHING = "\u2013"  # a dash, in a cell without a value


def plus_minus(mean: float, sem: float | None, digits: int = 3, sign: str = "") -> str:
    """`0.123 ± 0.004`; where one value is all there is, `0.123`. A `sign` of "+" is written out."""
    error = "" if sem is None or math.isnan(sem) else f" ± {sem:.{digits}f}"
    return f"{fixed(mean, digits, sign)}{error}"


def with_error(value: float, error: float) -> str:
    """A value to the second digit of its standard error, `0.652 ± 0.012`; alone where it has none."""
    if not (math.isfinite(value) and math.isfinite(error)):
        return number(value)
    if error == 0:
        return f"{number(value)} ± 0"
    places = min(6, max(0, 1 - magnitude(error)))
    return f"{fixed(value, places)} ± {fixed(error, places)}"


def with_interval(value: float, low: float, high: float) -> str:
    if not all(map(math.isfinite, (value, low, high))):
        return number(value)
    places = max(2, -magnitude(high - low))
    return f"{fixed(value, places)} ({fixed(low, places)} to {fixed(high, places)})"


def number(value: float) -> str:
    """A number to three digits, those before the point all shown; a dash for what is none."""
    if not math.isfinite(value):
        return NOTHING
    text = fixed(value, max(0, 2 - magnitude(value)))
    return text.rstrip("0").rstrip(".") if "." in text else text


def fixed(value: float, places: int, sign: str = "") -> str:
    """Never `-0.00`; a `sign` of "+" is written out."""
    return f"{round(value, places) + 0.0:{sign}.{places}f}"


def magnitude(value: float) -> int:
    """The place of the first digit: 1 of 34, -2 of 0.034; that of 0 is 0."""
    return math.floor(math.log10(abs(value))) if value else 0


def span(values: Iterable[float], form: str = ",") -> str:
    """Numbers in words, each formatted: the one that they all are, or from the smallest to the largest."""
    texts = [f"{value:{form}}" for value in sorted(values)]
    return texts[0] if texts[0] == texts[-1] else f"{texts[0]} to {texts[-1]}"


def duration(seconds: float) -> str:
    """A time in words: `0.12 ms`, `56 ms`, `3.4 s`, `90 s`, `12 min`, `3.4 h`."""
    if seconds < 1:
        return f"{1000 * seconds:.0f} ms" if seconds >= 0.01 else f"{1000 * seconds:.2g} ms"
    if seconds < 120:
        return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.2g} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def mebibytes(size: int) -> str:
    """`7.7 MiB`, of so many bytes."""
    return f"{size / 2**20:.1f} MiB"


def shape_in_words(shape: Iterable[int]) -> str:
    """`40 x 28 x 28`."""
    return " x ".join(map(str, shape))


def listed(names: Sequence[str], separator: str = ", ") -> str:
    """The first few names, and how many more there are."""
    more = f" and {len(names) - TOLD} more" if len(names) > TOLD else ""
    return separator.join(names[:TOLD]) + more


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """Rows of cells as lines of text, one column under the other."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)
    return "\n".join(line.rstrip() for line in lines)

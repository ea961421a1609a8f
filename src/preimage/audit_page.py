"""An audit as one HTML page that loads nothing: figures inside it, readable on a phone and on paper."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from preimage.audit import MEAN, NETWORK, RIDGE, Audit, Row
from preimage.figures import bars, curve, sheet
from preimage.files import replace_text
from preimage.metrics import NRE_AXIS
from preimage.pages import embedded, render
from preimage.report import without_folders
from preimage.words import plus_minus


def write_page(audit: Audit, file: str | Path) -> None:
    """Write the page of an audit."""
    replace_text(Path(file), page(audit))


def page(audit: Audit) -> str:
    """The page as text; what came from files (names, reasons) is escaped."""
    content = audit.content
    figures = {"bars": picture(lambda path: draw_bars(content, path))}
    figures["sheet"] = picture(lambda path: sheet(audit.pictures, path))
    if content["curve"]:
        figures["curve"] = picture(lambda path: draw_curve(content["curve"], path))
    if content["defences"]:
        figures["defences"] = picture(lambda path: draw_defences(content, path))
    names = {"network": NETWORK, "ridge": RIDGE, "mean": MEAN}
    pairs = content["test_pairs"]
    shown = content | {
        "features": without_folders(content["features"]),
        "test_pairs": pairs and pairs | {"features": without_folders(pairs["features"])},
    }
    return render(
        "audit.html",
        **shown,
        figures=figures,
        names=names,
        captions=audit.captions,
        columns=list(audit.pictures),
        plus_minus=plus_minus,
    )


def picture(draw: Callable[[Path], None]) -> str:
    """A figure as the address of itself."""
    with TemporaryDirectory() as folder:
        file = Path(folder) / "figure.png"
        draw(file)
        return embedded(file, "png")


def draw_bars(content: dict[str, Any], file: Path) -> None:
    """Attackers, then controls, whose names say what they are; and how far the mean image gets without any features."""
    controls = {"shuffled pairs": content["shuffled"], "another image": content["other_image"]}
    rows = {row["attacker"]: row for row in content["rows"]} | controls
    points = [(float(place), row["nre"], row["nre_sem"]) for place, row in enumerate(rows.values())]
    bars({"NRE": points}, list(rows), file, "attacker or control", NRE_AXIS, level=rows[MEAN]["nre"])


def draw_curve(rows: Sequence[Row], file: Path) -> None:
    series: dict[str, list[tuple[float, float, float]]] = {}
    for row in rows:
        series.setdefault(row["attacker"], []).append((row["n_train"], row["nre"], row["nre_sem"]))
    curve(series, file, "example pairs of the attacker", NRE_AXIS, log=True)


def draw_defences(content: dict[str, Any], file: Path) -> None:
    """Error against how much of the neighbourhood is left: up and to the right is a defence worth having.

    At the mean image's error nothing is given away that ridge regression could find.
    """
    mean = next(row for row in content["rows"] if row["attacker"] == MEAN)
    series: dict[str, list[tuple[float, float, float]]] = {}
    for row in content["defences"]:
        if row["attacker"] == RIDGE:
            series.setdefault(row["defence"], []).append((row["neighbours_kept"], row["nre"], row["nre_sem"]))
    curve({name: sorted(points) for name, points in series.items()}, file, "share of nearest neighbours kept",
          "NRE of ridge regression (higher: better defended)", level=mean["nre"], level_name=MEAN)  # fmt: skip

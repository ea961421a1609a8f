"""What is drawn, by what ends up on the axes; how it looks is for eyes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.axes import Axes
from PIL import Image

from preimage import figures
from preimage.figures import bars, curve, log_ticks, with_errors
from preimage.findings import Finding, Plot, redraw

SHARES = {"first": [(0.0, 1.0, (0.8, 1.0)), (1.0, 0.05, (0.01, 0.2))]}


@pytest.mark.parametrize(("suffix", "kind"), [("png", "PNG"), ("jpg", "JPEG")])
def test_the_suffix_says_how_a_sheet_is_written(suffix: str, kind: str, tmp_path: Path) -> None:
    figures.sheet({"": torch.rand(2, 3, 8, 8)}, tmp_path / f"sheet.{suffix}")
    with Image.open(tmp_path / f"sheet.{suffix}") as picture:
        assert picture.format == kind


def test_an_interval_reaches_as_far_as_it_says_each_way() -> None:
    x, y, reach = with_errors([(0.0, 1.0, (0.8, 1.0)), (1.0, 0.3, 0.1)])
    assert x.tolist() == [0, 1]
    assert y.tolist() == [1, 0.3]
    np.testing.assert_allclose(reach, [[0.2, 0.1], [0.0, 0.1]])


def test_an_error_that_was_null_in_a_file_is_none() -> None:
    _, _, reach = with_errors([(0.0, 1.0, None), (1.0, 1.0, [None, None])])  # type: ignore[list-item]
    assert np.isnan(reach).all()


@pytest.mark.parametrize("kind", ["bars", "line"])
def test_intervals_and_the_level_are_redrawn_from_the_folder(kind: str, tmp_path: Path) -> None:
    plot = Plot("", "share", SHARES, kind, ["a", "b"], level=0.05, level_name="chance")  # type: ignore[arg-type]
    Finding("shares", "", "found.", plots=[plot]).save(tmp_path)
    (file,) = (tmp_path / "shares").glob("plot-*.png")
    before = file.read_bytes()
    file.unlink()
    assert redraw(tmp_path / "shares") == [file]
    assert file.read_bytes() == before


@pytest.mark.parametrize("kind", ["bars", "line"])
def test_a_level_is_drawn(kind: str, tmp_path: Path) -> None:
    for name, level in (("with", 0.5), ("without", None)):
        Plot("", "share", SHARES, kind, ["a", "b"], level=level, level_name="chance").draw(tmp_path / f"{name}.png")  # type: ignore[arg-type]
    drawn, plain = (np.asarray(Image.open(tmp_path / f"{name}.png")) for name in ("with", "without"))
    assert (drawn != plain).any()


@pytest.mark.parametrize("kind", ["bars", "line"])
def test_dollars_in_a_name_are_no_mathematics(kind: str, tmp_path: Path) -> None:
    name = "price_$5_or_$_.jpg"
    figures.sheet({name: torch.zeros(1, 3, 8, 8)}, tmp_path / "sheet.png", captions=[name])
    Plot("", "share", SHARES | {name: SHARES["first"]}, kind, ["a", "b"]).draw(tmp_path / "plot.png")  # type: ignore[arg-type]


def drawn(monkeypatch: pytest.MonkeyPatch, draw: Callable[[Path], None]) -> Axes:
    """The axes of a plot at the moment it would have been written."""
    kept: list[Axes] = []
    monkeypatch.setattr(figures, "finish", lambda figure, axes, path: kept.append(axes))
    draw(Path("unused.png"))
    return kept[0]


def test_fourteen_lines_differ_without_their_colours(monkeypatch: pytest.MonkeyPatch) -> None:
    series = {str(place): [(0.0, 1.0, 0.1), (1.0, 2.0, 0.1)] for place in range(14)}
    axes = drawn(monkeypatch, lambda path: curve(series, path, "x", "y"))
    assert len({container[0].get_marker() for container in axes.containers}) == 14


def test_no_two_of_fourteen_bars_have_the_same_hatch(monkeypatch: pytest.MonkeyPatch) -> None:
    series = {str(place): [(0.0, 1.0, 0.1)] for place in range(14)}
    axes = drawn(monkeypatch, lambda path: bars(series, ["a"], path, "x", "y"))
    hatches = [container.patches[0].get_hatch() for container in axes.containers if hasattr(container, "patches")]
    assert len(set(hatches)) == 14


def test_a_line_is_broken_between_networks_only(monkeypatch: pytest.MonkeyPatch) -> None:
    layers = ["caffenet.fc7", "caffenet.fc8", "efficientnet_lite0.stage2"]
    points = [(float(place), 1.0, 0.1) for place in range(3)]
    axes = drawn(monkeypatch, lambda path: curve({"upconv": points}, path, "layer", "NRE", layers))
    assert [len(container[0].get_xdata()) for container in axes.containers] == [2, 1]
    assert axes.get_legend_handles_labels()[1] == ["upconv"]
    axes = drawn(monkeypatch, lambda path: curve({"kept": points}, path, "band", "share", ["0.5", "1.5", "x2.5"]))
    assert [len(container[0].get_xdata()) for container in axes.containers] == [3]


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [
        (90, 4500, [100, 200, 500, 1000, 2000]),
        (1e-5, 110, [1e-4, 1e-2, 1, 100]),
        (0.003, 0.004, [0.003, 0.0032, 0.0034, 0.0036, 0.0038, 0.004]),
    ],
)
def test_ticks_of_a_logarithmic_axis_are_few_and_round(low: float, high: float, ticks: list[float]) -> None:
    assert log_ticks(low, high) == pytest.approx(ticks)


def test_a_single_place_on_a_logarithmic_axis_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    axes = drawn(monkeypatch, lambda path: curve({"a": [(100.0, 1.0, 0.1)]}, path, "seconds", "NRE", log=True))
    assert axes.get_xlim()[0] < 99 < 101 < axes.get_xlim()[1]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["95", "100", "105", "110"]

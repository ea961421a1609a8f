"""What is drawn, by what ends up on the axes; how it looks is for eyes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from preimage.figures import with_errors
from preimage.findings import Finding, Plot, redraw

SHARES = {"first": [(0.0, 1.0, (0.8, 1.0)), (1.0, 0.05, (0.01, 0.2))]}


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
    plot = Plot("", "", "share", SHARES, kind, ["a", "b"], level=0.05, level_name="chance")  # type: ignore[arg-type]
    Finding("shares", "", "found.", plots=[plot]).save(tmp_path)
    (file,) = (tmp_path / "shares").glob("plot-*.png")
    before = file.read_bytes()
    file.unlink()
    assert redraw(tmp_path / "shares") == [file]
    assert file.read_bytes() == before


@pytest.mark.parametrize("kind", ["bars", "line"])
def test_a_level_is_drawn(kind: str, tmp_path: Path) -> None:
    for name, level in (("with", 0.5), ("without", None)):
        Plot("", "", "share", SHARES, kind, ["a", "b"], level=level, level_name="chance").draw(tmp_path / f"{name}.png")  # type: ignore[arg-type]
    drawn, plain = (np.asarray(Image.open(tmp_path / f"{name}.png")) for name in ("with", "without"))
    assert (drawn != plain).any()

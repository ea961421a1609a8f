"""What is written is whole, and goes where it was sent."""

from __future__ import annotations

import os
from pathlib import Path
from threading import Thread

from preimage.files import replace_text


def test_a_link_stays_and_what_it_points_to_is_written(tmp_path: Path) -> None:
    (tmp_path / "far").mkdir()
    link = tmp_path / "near.csv"
    link.symlink_to(tmp_path / "far" / "real.csv")
    replace_text(link, "first")
    replace_text(link, "second")
    assert link.is_symlink()
    assert [file.read_text() for file in (tmp_path / "far").iterdir()] == ["second"]


def test_a_pipe_is_written_to_and_not_replaced(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    got: list[str] = []
    reader = Thread(target=lambda: got.append(pipe.read_text()))
    reader.start()
    replace_text(pipe, "records")
    reader.join(10)
    assert got == ["records"]
    assert pipe.is_fifo()

"""What stands on a page: cells, captions, names; how it looks is for eyes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from preimage.analyses.confidence import ConfidenceMap
from preimage.evaluation import Evaluation, Row
from preimage.findings import Finding, Plot, Record, Sheet
from preimage.report import Block, Section, cells, evaluation_block, finding_block, without_folders, write_page
from preimage.words import NOTHING, with_error

NAN = float("nan")


@pytest.mark.parametrize(
    ("value", "error", "text"),
    [
        (0.65213, 0.0123, "0.652 ± 0.012"),
        (26.31, 1.24, "26.3 ± 1.2"),
        (1234.5, 34.0, "1234 ± 34"),
        (-0.001, 0.5, "0.00 ± 0.50"),
        (0.0, 0.0, "0 ± 0"),
        (1.0, 0.0, "1 ± 0"),
        (0.5, NAN, "0.5"),
        (0.000034, NAN, "0.000034"),
        (NAN, NAN, NOTHING),
        (NAN, 0.1, NOTHING),
    ],
)  # fmt: skip
def test_a_value_is_written_as_exactly_as_it_is_known(value: float, error: float, text: str) -> None:
    assert with_error(value, error) == text


def test_an_interval_shares_the_cell_of_its_value() -> None:
    row: Record = {"condition": "a", "top1": 0.95, "top1_sem": 0.0, "top1_low": 0.9, "top1_high": 0.98, "n": 20}
    titles = {"top1": "right one first, share ↑"}
    assert cells([row], titles) == (
        ["condition", "right one first, share ↑", "n"],
        [["a", "0.95 (0.90 to 0.98)", "20"]],
    )


def test_a_cell_without_a_value_holds_a_dash() -> None:
    rows: list[Record] = [{"nre": 0.5, "nre_sem": None, "kept": None, "kept_sem": None}, {"nre": None}]  # type: ignore[dict-item]
    assert cells(rows)[1] == [["0.5", NOTHING], [NOTHING, NOTHING]]


def test_columns_have_words_and_units() -> None:
    titles, _ = cells([{"nre": 1.0, "covered_80": 0.7, "something_new": 1.0}], ConfidenceMap.columns)
    assert titles == ["NRE ↓", "errors within the 80 % interval (calibrated), share", "something new"]


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("Photographs: /home/me/My Photos/val.tar, /data/b/.", "Photographs: My Photos/val.tar, b/."),
        (r"C:\photos\val.tar (20 photographs)", "val.tar (20 photographs)"),
        ("./photos/cats and ~/dogs", "cats and dogs"),
        ("its training photographs, ImageNet and/or others; width / height", None),
    ],
)
def test_a_page_tells_names_not_places(text: str, wanted: str | None) -> None:
    assert without_folders(text) == (wanted or text)


def test_places_of_photographs_are_not_on_a_page(tmp_path: Path) -> None:
    row = Row("ridge", 2, "/secret/train.tar (9 photographs)", *[0.5] * 6)
    result = Evaluation("hog", "/secret/val.tar", 2, 64, 10.0, [row], [], {})
    write_page("Title", "Made of /secret/val.tar.", [Section("hog", [evaluation_block(result)])], tmp_path / "a.html")
    page = (tmp_path / "a.html").read_text()
    assert "secret" not in page
    assert "val.tar" in page
    assert "train.tar (9 photographs)" in page


def block(tmp_path: Path, rows: int = 2) -> Block:
    table: list[Record] = [{"condition": str(i), "n": 20, "top1": 0.5, "top1_sem": 0.1} for i in range(rows)]
    series = {"first": [(0.0, 0.5, (0.4, 0.6))], "among 5": [(0.0, 0.9, (0.8, 1.0))]}
    plot = Plot("distance in", "share found", series, "bars", ["hog, grey"], level=0.05, level_name="chance")
    pictures = torch.rand(3, 3, 8, 8)
    sheet = Sheet({"photograph": pictures, "difference": pictures}, ["a", "b", "c"])
    Finding("one", "Is it?", "It is.", table, table, [plot], [sheet]).save(tmp_path)
    return finding_block(tmp_path / "one")


def test_captions_say_how_many_and_what_the_bars_are(tmp_path: Path) -> None:
    plot, sheet = block(tmp_path).figures
    assert plot.caption == (
        "Share found against distance in. n = 20; error bars: 95 % intervals. Dashed: chance, 0.05."
    )
    assert plot.alt == "Bars: share found against distance in, for hog, grey. Each has: first; among 5."
    assert sheet.caption.startswith("3 examples, a row each.")
    assert "mid-grey is 0" in sheet.caption
    assert sheet.alt == "Pictures, from left to right: photograph; difference."


@pytest.mark.parametrize(("rows", "folded"), [(16, False), (17, True)])
def test_a_long_table_is_folded(rows: int, folded: bool, tmp_path: Path) -> None:
    write_page("Title", "", [Section("hog", [block(tmp_path, rows)])], tmp_path / "a.html")
    assert ("<details>" in (tmp_path / "a.html").read_text()) is folded

"""Analyses saved, inverters compared, and the pages that tell it all."""

from __future__ import annotations

import csv
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from preimage import api, zoo
from preimage.api import sample_files
from preimage.errors import RunError, UnknownNameError
from preimage.findings import read_finding
from preimage.reproduce import ITEMS, Study, reproduce
from preimage.studies import Trial, analyse, compare, write_report

SHIPPED_FILE = zoo.FOLDER / "hog.safetensors"


@pytest.fixture(scope="module")
def trial() -> Trial:
    return Trial(sample_files(), limit=3)


class Page(HTMLParser):
    """Resources, pictures and words of a page."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.resources: list[str] = []
        self.alts: list[str] = []
        self.words = ""
        self.feed(file.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        facts = dict(attrs)
        if tag in ("img", "script", "link", "iframe"):
            self.resources.append(str(facts.get("src") or facts.get("href")))
        if tag == "img":
            self.alts.append(str(facts.get("alt") or ""))

    def handle_data(self, data: str) -> None:
        self.words += data + " "


def test_an_analysis_leaves_records_before_pictures(trial: Trial, tmp_path: Path) -> None:
    (finding,) = analyse(["brightness"], "hog", trial, tmp_path)
    with (tmp_path / "brightness" / "records.csv").open() as file:
        records = list(csv.DictReader(file))
    assert len(records) == 3 * 3 == len(finding.records)
    assert {record["condition"] for record in records} == {"x1", "x10", "x100"}
    assert (tmp_path / "brightness" / "plot-0.png").exists()


def test_hog_hardly_keeps_brightness(trial: Trial, tmp_path: Path) -> None:
    (finding,) = analyse(["brightness"], "hog", trial, tmp_path)
    plain, _, bright = (float(row["nre"]) for row in finding.table)
    assert bright == pytest.approx(plain, abs=0.01)


def test_the_same_inverter_twice_compares_equal(trial: Trial, tmp_path: Path) -> None:
    finding = compare(["hog", SHIPPED_FILE], trial, tmp_path)
    first, second = finding.table
    assert first["nre"] == pytest.approx(second["nre"])
    assert float(first["other_image_nre"]) > 1.5 * float(first["nre"])
    assert set(finding.sheets[0].columns) == {"photograph", "hog", str(SHIPPED_FILE)}


def test_a_report_is_one_page_that_loads_nothing(trial: Trial, tmp_path: Path) -> None:
    page = Page(write_report(["hog"], trial, tmp_path / "report.html", ["brightness", "dark-knowledge"]))
    assert page.resources
    assert all(source.startswith("data:image/") for source in page.resources)
    assert all(page.alts)
    for expected in ("What hog keeps", "mean-image", "other-image", "±", "licence", "x100"):
        assert expected in page.words
    assert "Does not apply: hog holds no class scores" in page.words
    assert read_finding(tmp_path / "report" / "hog" / "brightness")["table"]


def test_a_report_on_several_begins_side_by_side(trial: Trial, tmp_path: Path) -> None:
    page = Page(write_report(["hog", SHIPPED_FILE], trial, tmp_path / "two.html", []))
    assert "Side by side" in page.words
    assert "comes closest" in page.words


def test_a_report_is_html(trial: Trial, tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"an \.html file"):
        write_report(["hog"], trial, tmp_path / "report.pdf")


def test_the_papers_table_stands_beside_ours(trial: Trial, tmp_path: Path) -> None:
    page = Page(reproduce(["table1"], Study(trial, tmp_path / "page"), tmp_path / "page.html"))
    text = re.sub(r"\s+", " ", page.words)
    assert "paper (recalled)" in text
    assert re.search(r"hog upconv 0\.24 0\.\d{3} ± 0\.\d{3} 3 hog", text)
    assert "hog hoggles 0.61 not available" in text


def test_what_cannot_be_measured_says_why(trial: Trial, tmp_path: Path) -> None:
    page = Page(reproduce(["table2"], Study(trial, tmp_path / "page"), tmp_path / "page.html"))
    assert page.words.count("not available: no trained inverter") >= 8 or "caffenet" in page.words


def test_an_unknown_figure_is_named(trial: Trial, tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'table1'"):
        reproduce(["tabel1"], Study(trial, tmp_path), tmp_path / "page.html")
    assert {"table1", "fig8"} <= set(ITEMS)


def test_errors_are_drawn_against_depth(trial: Trial, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zoo, "shipped", lambda: ["hog"])
    study = Study(trial, tmp_path / "page", {"efficientnet_lite0.stage2": "hog", "efficientnet_lite0.pool": "hog"})
    page = Page(reproduce(["fig7"], study, tmp_path / "page.html"))
    assert "2 layers, from stage2 to pool" in page.words
    (plot,) = read_finding(tmp_path / "page" / "error-curves")["plots"]
    assert [point[0] for point in plot["series"]["mean-image"]] == [0.0, 1.0]


def test_a_slow_baseline_fills_its_cell_where_it_applies(trial: Trial, tmp_path: Path) -> None:
    quick = api.fit_inverter(
        "gradient-descent", "hog", sample_files(), tmp_path / "quick.safetensors", settings={"iterations": 2}
    )
    study = Study(trial, tmp_path / "page", {}, [str(tmp_path / "quick.safetensors")])
    text = re.sub(r"\s+", " ", Page(reproduce(["table1"], study, tmp_path / "page.html")).words)
    assert re.search(rf"hog {quick.name} 0\.63 \d\.\d{{3}} ± \d\.\d{{3}} 3 hog", text)
    assert "hog hoggles 0.61 not available: add it by --baseline" in text

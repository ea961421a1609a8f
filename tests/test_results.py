"""The page of results says what the cards say, and nothing else."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest

from preimage import results, zoo
from preimage.errors import PreimageError, PreimageWarning

DOCS = Path(__file__).parents[1] / "docs"


@pytest.fixture
def own_zoo(exported_zoo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the tiny zoo in the place of what ships."""
    folder = Path(shutil.copytree(exported_zoo, tmp_path / "zoo"))
    monkeypatch.setattr(zoo, "FOLDER", folder)
    return folder


def change(folder: Path, name: str, nre: float) -> None:
    card = json.loads((folder / f"{name}.json").read_text())
    card["evaluation"]["rows"][0]["nre"] = nre
    (folder / f"{name}.json").write_text(json.dumps(card))


def test_every_row_of_every_card_is_in_its_table(own_zoo: Path, tmp_path: Path) -> None:
    page = results.write(tmp_path / "results.md").read_text()
    for name in ("hog", "lbp"):
        rows = zoo.card(name)["evaluation"]["rows"]
        for row in [row for row in rows if row["inverter"] != "nearest"]:  # it remembers these: infinite PSNR
            assert f"{row['nre']:.3f} ± {row['nre_sem']:.3f}" in page
            assert f"{row['psnr']:.2f} ± {row['psnr_sem']:.2f}" in page
            assert f"{row['ssim']:.3f} ± {row['ssim_sem']:.3f}" in page
        assert f"`{name}`: tiny" in page
    assert "| `hog` | 31 x 8 x 8 |" in page


def test_another_number_on_a_card_is_another_number_on_the_page(own_zoo: Path, tmp_path: Path) -> None:
    change(own_zoo, "lbp", 0.1234)
    page = results.write(tmp_path / "results.md").read_text()
    assert page.count("0.123 ±") == 2  # among all, and beside the paper


def test_what_a_training_started_from_counts_too(own_zoo: Path) -> None:
    first = zoo.card("hog") | {"training": {"steps": 1000, "batch_size": 32, "seconds": 3600.0}}
    second = {"steps": 500, "batch_size": 64, "seconds": 1800.0}
    both = zoo.card("hog") | {"training": second, "started_from": {"inverter": "hog", **first}}
    told = results.cost("hog", both)
    assert (told["steps"], told["seen"], told["time"]) == ("1,000 + 500", "64,000", "90 min")
    seen = [place for place, _, _ in results.curve_of(both)]
    assert seen == sorted(seen)
    assert seen[-1] == 32000 + 64 * both["curve"][-1]["step"]
    unknown = both | {"started_from": {"inverter": "./file.safetensors", "weights": "of some file without a card"}}
    assert results.cost("hog", unknown)["steps"] == "500"


def test_slow_baselines_stand_beside_the_inverter_where_they_were_measured(own_zoo: Path, tmp_path: Path) -> None:
    assert "take long" not in results.write(tmp_path / "without.md").read_text()
    card = json.loads((own_zoo / "hog.json").read_text())
    row = {"n": 4, "nre": 0.7, "nre_sem": 0.01, "difference": 0.2, "difference_sem": 0.03, "remark": ""}
    card["slow_baselines"] = [
        {"inverter": "upconv", **row, "nre": 0.5},
        {"inverter": "gradient-descent", **row, "remark": "slowly"},
    ]
    (own_zoo / "hog.json").write_text(json.dumps(card))
    page = results.write(tmp_path / "with.md").read_text()
    assert "| representation | upconv | gradient-descent | n |" in page
    assert "| `hog` | 0.500 ± 0.010 | 0.700 ± 0.010 (+0.200 ± 0.030) | 4 |" in page
    assert "`gradient-descent`: slowly (hog)." in page


def test_the_papers_values_are_called_recalled(own_zoo: Path, tmp_path: Path) -> None:
    page = results.write(tmp_path / "results.md").read_text()
    beside = page[page.index("## Beside the paper") : page.index("Why ours differ")]
    assert "the paper, recalled" in beside
    assert re.search(r"\| `hog` \| 0\.24 \|", beside)
    assert re.search(r"\| `lbp` \| 0\.38 \|", beside)
    assert "HOGgles 0.61" in beside


@pytest.mark.parametrize("network", ["alexnet", "bvlc_alexnet", "caffenet"])
def test_every_alexnet_stands_beside_the_papers(network: str, own_zoo: Path) -> None:
    (row,) = results.comparison({f"{network}.conv5": zoo.card("hog")})
    assert row["recalled"] == "0.35"
    assert results.comparison({f"{network}.conv1": zoo.card("hog")}) == []


def test_layers_are_drawn_by_network(own_zoo: Path, tmp_path: Path) -> None:
    card = zoo.card("hog")
    cards = {"hog": card, "lbp": card, "alexnet.conv1": card, "bvlc_alexnet.fc6": card, "squeezenet.fire2": card}
    assert {family: list(own) for family, own in results.by_family(cards).items()} == {
        "hand-made": ["hog", "lbp"],
        "alexnet": ["alexnet.conv1", "bvlc_alexnet.fc6"],
        "squeezenet": ["squeezenet.fire2"],
    }


def test_every_picture_on_the_page_is_there(own_zoo: Path, tmp_path: Path) -> None:
    page = results.write(tmp_path / "results.md").read_text()
    files = re.findall(r"\]\((images/[^)]+)\)", page)
    assert len(files) == 3
    assert all((tmp_path / file).stat().st_size for file in files)


def test_sheets_of_ones_own_photographs_are_drawn_beside(own_zoo: Path, tmp_path: Path, crops: Path) -> None:
    files = results.draw_sheets(tmp_path / "sheets", crops)
    assert [file.name for file in files] == ["hog.png", "lbp.png", "together.png"]
    assert all(file.exists() for file in files)


def test_a_damaged_photograph_costs_no_sheet(own_zoo: Path, tmp_path: Path, crops: Path) -> None:
    for file in sorted(crops.iterdir())[:2]:
        shutil.copy(file, tmp_path)
    (tmp_path / "torn.png").write_bytes(b"PNG")
    with pytest.warns(PreimageWarning, match="left out"):
        files = results.draw_sheets(tmp_path / "sheets", tmp_path)
    assert files[-1].name == "together.png"


def test_without_anything_shipped_there_is_no_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zoo, "FOLDER", tmp_path)
    with pytest.raises(PreimageError, match="nothing ships"):
        results.write(tmp_path / "results.md")


@pytest.mark.parametrize("name", zoo.shipped())
def test_the_page_in_the_docs_is_up_to_date(name: str) -> None:
    row = zoo.card(name)["evaluation"]["rows"][0]
    page = (DOCS / "results.md").read_text()
    assert re.search(rf"\| `{re.escape(name)}` \|.*{row['nre']:.3f} ± {row['nre_sem']:.3f}", page), (
        "run: preimage results"
    )

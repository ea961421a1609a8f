"""The code blocks of the guides do what they say."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from command import nothing_stays_imported
from command import preimage as command
from preimage import load_inverter
from preimage.api import sample_files
from preimage.findings import redraw
from preimage.images import Photos, save_image

DOCS = Path(__file__).parents[1] / "docs"
FENCED = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.fixture
def folder(tmp_path: Path, crops: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The current folder, with the guides' photographs in it; what is imported from it is forgotten afterwards."""
    for name in ("photos", "more-photos"):
        shutil.copytree(crops, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    with nothing_stays_imported(tmp_path):
        yield tmp_path


def blocks(guide: str, language: str = "") -> list[str]:
    """The code of a guide in this language; commands have none."""
    return [code for own, code in FENCED.findall((DOCS / guide).read_text()) if own == language]


def follow(guide: str, **given: Any) -> dict[str, Any]:
    """Run a guide's blocks of Python one after the other in the current folder; what they have defined."""
    names: dict[str, Any] = {"__name__": "guide", **given}
    for block in blocks(guide, "python"):
        exec(compile(block, guide, "exec"), names)
    return names


def commands(guide: str) -> list[list[str]]:
    """The words of a guide's commands in their order, without `preimage` and without comments."""
    lines = "".join(blocks(guide)).splitlines()
    return [shlex.split(line, comments=True)[1:] for line in lines if line.startswith("preimage ")]


def test_ones_own_encoder_is_inverted_as_the_guide_says(folder: Path) -> None:
    """On the CPU; the guide's own settings are small enough."""
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    assert follow("your-own-encoder.md")["encoder"].feature_shape == (3, 8, 8)
    assert (folder / "runs" / "mine" / "summary.json").exists()


def test_a_representation_in_one_file_is_inverted_as_the_guide_says(folder: Path) -> None:
    assert follow("a-new-representation.md")["coarse"].feature_shape == (12, 4, 4)
    assert (folder / "runs" / "grid" / "summary.json").exists()
    told = next(block for block in blocks("a-new-representation.md") if block.startswith("$ "))
    ordered, shown = told.removeprefix("$ preimage ").split("\n", 1)
    assert command(*ordered.split()).stdout.split() == shown.split()


BUDGETS = {"--minutes", "--steps"}
SMALL = {
    "audit": ["--size", "32", "--steps", "2"],
    "train": ["--steps", "2", "--set", "decoder.width=0.05", "--set", "training.batch_size=8"],
}


def test_embeddings_are_audited_as_the_guide_says(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its commands one after the other, but for sizes and budgets; then its Python."""
    from preimage.inverters import linear
    from test_audit import smooth_pictures

    monkeypatch.setattr(linear, "PENALTIES", linear.PENALTIES[::4])  # nearly all of the time
    for name, count in (("photos", 60), ("others", 12)):
        shutil.rmtree(folder / name, ignore_errors=True)
        (folder / name).mkdir()
        for index, picture in enumerate(smooth_pictures(count, seed=count)):
            save_image(picture, folder / name / f"{index:03d}.png")
    printed = []
    for words in commands("audit.md"):
        kept = [word for before, word in zip(["", *words], words, strict=False) if not {before, word} & BUDGETS]
        output = kept[kept.index(">") + 1 :] if ">" in kept else []
        result = command(*kept[: kept.index(">")] if output else kept, *SMALL.get(words[0], []))
        printed.append(result.stdout)
        for file in output:
            Path(file).write_text(result.stdout)
    told = json.loads(Path("audit.json").read_text())
    assert (told["n_train"], told["n_test"], told["feature_shape"]) == (48, 12, [1280])
    assert Path("audit.html").exists()
    assert any("60 training and 12 test pairs" in text for text in printed)  # with pairs of one's own
    assert len(list(Path("out").glob("*.png"))) == 12
    assert follow("audit.md")["ridge"].name == "ridge"


def test_questions_are_asked_as_the_guides_say(folder: Path, samples: Photos) -> None:
    ids, images = next(samples.batches(4))
    follow("retention.md", ids=ids, images=images)
    assert [file.name for file in redraw("out/detail")] == ["plot-0.png"]
    with tarfile.open(folder / "photos" / "val.tar", "w") as shard:
        for file in sample_files():
            shard.add(file, file.name)
    follow("analyses.md", ids=ids, images=images, inverter=load_inverter("hog"))
    assert {file.name for file in (folder / "analyses" / "hog").iterdir()} == {"code", "interpolation"}


def test_a_layer_of_a_module_at_hand_is_encoded_as_the_guide_says() -> None:
    network = nn.ModuleDict({"blocks": nn.Sequential(*(nn.Conv2d(3, 3, 1) for _ in range(7)))})
    network.forward = network["blocks"].forward  # type: ignore[method-assign]
    found = follow("representations.md", my_network=network.eval(), images=torch.rand(2, 3, 224, 224))
    assert found["features"].shape == (2, 3, 224, 224)

"""Features on their way into a file."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from preimage.images import Photos
from preimage.interfaces import Batch
from preimage.pairs import EncodedPhotos, save_features
from preimage.representations import HOG


@pytest.fixture(scope="module")
def pairs(crops: Path) -> EncodedPhotos:
    return EncodedPhotos(HOG(image_size=64), Photos.open(crops, 64).load(), batch_size=24)


def test_features_in_a_file_are_those_of_all_batches(pairs: EncodedPhotos, tmp_path: Path) -> None:
    described = save_features(pairs, tmp_path / "f.npy")
    expected = torch.cat([batch.features for batch in pairs]).numpy()
    np.testing.assert_array_equal(np.load(tmp_path / "f.npy"), expected)
    assert json.loads(described.read_text())["ids"] == pairs.photos.ids
    assert sorted(file.name for file in tmp_path.iterdir()) == ["f.npy", "f.npy.json"]


def test_features_are_written_through_a_link(pairs: EncodedPhotos, tmp_path: Path) -> None:
    (tmp_path / "far").mkdir()
    (tmp_path / "f.npy").symlink_to(tmp_path / "far" / "real.npy")
    save_features(pairs, tmp_path / "f.npy")
    assert (tmp_path / "f.npy").is_symlink()
    assert len(np.load(tmp_path / "far" / "real.npy")) == len(pairs)


def test_each_batch_is_on_disk_before_the_next_is_encoded(pairs: EncodedPhotos, tmp_path: Path) -> None:
    sizes: list[int] = []

    def look(batch: Batch) -> None:
        sizes.append(sum(file.stat().st_size for file in tmp_path.iterdir()) // batch.features[0].nbytes)

    save_features(pairs, tmp_path / "f.npy", look)
    assert [round(size / 24) for size in sizes] == [0, 1, 2]


def test_an_interrupted_encoding_leaves_what_was_there(pairs: EncodedPhotos, tmp_path: Path) -> None:
    for name in ("f.npy", "f.npy.json"):
        (tmp_path / name).write_text(f"the {name} before")
    batches = iter(range(2))

    def interrupt(_: Batch) -> None:
        if next(batches) == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        save_features(pairs, tmp_path / "f.npy", interrupt)
    left = {file.name: file.read_text() for file in tmp_path.iterdir()}
    assert left == {name: f"the {name} before" for name in ("f.npy", "f.npy.json")}

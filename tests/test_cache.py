"""Features on disk are the features: found again, never stale, never damaged, never too many."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor

from preimage.cache import CachedRepresentation, FeatureMemory, cached
from preimage.errors import ImageError, SettingsError
from preimage.interfaces import Representation
from preimage.representations import HOG


@dataclass(frozen=True)
class Counting(Representation):
    """Twice the pixels; counts how many images it has really encoded."""

    name: ClassVar[str] = "counting"
    seen: ClassVar[list[int]] = []
    image_size: int = 8
    factor: float = 2.0
    sparse: bool = False

    def encode(self, images: Tensor) -> Tensor:
        self.seen.append(len(images))
        features = images * self.factor
        return features * (features > 1.9 * self.factor / 2) if self.sparse else features

    def feature_shape_at(self, height: int, width: int) -> tuple[int, ...]:
        return (3, height, width)


@pytest.fixture
def images() -> Tensor:
    Counting.seen.clear()
    return torch.rand(5, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def keep(folder: Path, gigabytes: float = 1.0, **settings: float) -> CachedRepresentation:
    return CachedRepresentation(Counting(**settings), folder, gigabytes)  # type: ignore[arg-type]


@pytest.mark.parametrize("sparse", [False, True])
def test_what_was_encoded_is_found_again(tmp_path: Path, images: Tensor, sparse: bool) -> None:
    first = keep(tmp_path, sparse=sparse).encode(images[:3])
    again = keep(tmp_path, sparse=sparse).encode(images)
    assert torch.equal(again, Counting(sparse=sparse).encode(images))
    assert torch.equal(again[:3], first)
    assert Counting.seen[:2] == [3, 2]


def test_other_settings_and_other_sizes_find_nothing(tmp_path: Path, images: Tensor) -> None:
    keep(tmp_path).encode(images)
    keep(tmp_path, factor=3.0).encode(images)
    keep(tmp_path).encode(images.reshape(5, 3, 4, 16))
    assert Counting.seen == [5, 5, 5]


def unreadable_header(content: bytes) -> bytes:
    """An array of which numpy cannot even split the header into words."""
    whole = io.BytesIO()
    with np.load(io.BytesIO(content)) as archive, zipfile.ZipFile(whole, "w") as damaged:
        for name in archive.files:
            damaged.writestr(f"{name}.npy", b"\x93NUMPY\x01\x00\x10\x00{'descr': (((((((")
    return whole.getvalue()


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: b"",
        lambda content: b"PK nonsense",
        lambda content: content[: len(content) // 2] + b"\xff" + content[len(content) // 2 + 1 :],
        unreadable_header,
    ],
)
def test_a_damaged_entry_is_computed_again(tmp_path: Path, images: Tensor, damage: Callable[[bytes], bytes]) -> None:
    expected = keep(tmp_path).encode(images)
    for file in tmp_path.glob("*/??/*.npz"):
        file.write_bytes(damage(file.read_bytes()))
    assert torch.equal(keep(tmp_path).encode(images), expected)
    assert torch.equal(keep(tmp_path).encode(images), expected)
    assert Counting.seen == [5, 5]


def test_it_never_grows_beyond_its_bound(tmp_path: Path) -> None:
    many = torch.rand(40, 3, 8, 8)
    cache = keep(tmp_path, gigabytes=2e-5)
    for image in many:
        cache.encode(image[None])
    kept = list(tmp_path.glob("*/??/*"))
    assert 0 < sum(file.stat().st_size for file in kept) <= 20_000
    Counting.seen.clear()
    cache.encode(many)  # once more round
    assert 10 < 40 - sum(Counting.seen) == len(kept)
    Counting.seen.clear()
    other = keep(tmp_path, gigabytes=2e-5)
    other.encode(torch.rand(40, 3, 8, 8))
    other.encode(many)
    assert Counting.seen[1] > 25  # most of what was not used for the longest time has gone


def test_what_others_kept_counts_from_the_first_write_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    many = torch.rand(41, 3, 8, 8)
    keep(tmp_path).encode(many[:40])
    small = keep(tmp_path, gigabytes=2e-5)
    with monkeypatch.context() as patched:
        patched.setattr(CachedRepresentation, "entries", lambda _: pytest.fail("looked at every file"))
        keep(tmp_path, gigabytes=2e-5).encode(many[:40])  # nothing is written
    small.encode(many)
    assert sum(file.stat().st_size for file in tmp_path.glob("*/??/*")) <= 20_000


def test_a_disk_that_cannot_be_written_costs_nothing_but_time(tmp_path: Path, images: Tensor) -> None:
    (tmp_path / "file").write_text("in the way")
    features = CachedRepresentation(Counting(), tmp_path / "file").encode(images)
    assert torch.equal(features, images * 2)


def test_it_is_the_representation_it_wraps() -> None:
    hog = HOG(image_size=64)
    kept = cached(hog, wanted=True)
    for fact in ("name", "settings", "fingerprint", "feature_shape", "grid", "image_size", "log_scale", "source"):
        assert getattr(kept, fact) == getattr(hog, fact)
    assert cached(hog) is hog
    with pytest.raises(ImageError):
        kept.encode(torch.full((1, 3, 64, 64), 255.0))


def test_a_cache_of_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="gigabytes"):
        keep(tmp_path, gigabytes=0)


# --- in the memory of a device ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("sparse", [False, True])
def test_memory_gives_back_what_was_encoded_and_encodes_it_once(images: Tensor, sparse: bool) -> None:
    counting = Counting(sparse=sparse)
    memory = FeatureMemory(counting.encode, images.device, limit=1 << 20)
    memory.features(["a", "b"], images[1:3])
    mixed = memory.features(["b", "c", "a"], images[[2, 0, 1]])
    assert torch.equal(memory.features(["c"], images[:1]), mixed[1:2])
    assert Counting.seen == [2, 1]
    assert torch.equal(mixed, counting.encode(images[[2, 0, 1]]))


def test_memory_that_is_full_encodes_again(images: Tensor) -> None:
    memory = FeatureMemory(Counting().encode, images.device, limit=0)
    for _ in range(2):
        assert torch.equal(memory.features(["a"], images[:1]), Counting().encode(images[:1]))
    assert not memory.kept


def test_memory_takes_half_of_what_the_photographs_leave(images: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    free = [1 << 20]
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (free[-1], 1 << 20))
    memory = FeatureMemory(Counting().encode, images.device)
    free.append(5 * images[0].nbytes)  # the photographs have come
    memory.features(list("abcde"), images)
    assert list(memory.kept) == ["a"]


def test_memory_keeps_vectors_and_maps_without_anything(images: Tensor) -> None:
    for encode in (lambda images: images.mean(dim=(2, 3)), torch.zeros_like):
        memory = FeatureMemory(encode, images.device, limit=1 << 20)
        for _ in range(2):
            assert torch.equal(memory.features(list("abcde"), images), encode(images))

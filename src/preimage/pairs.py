"""Photographs with their features, for inverters to be fitted on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from preimage.images import Photos
from preimage.interfaces import Batch, Representation


@dataclass(frozen=True)
class EncodedPhotos:
    """`Pairs` that encode photographs as they are asked for, on the given device."""

    representation: Representation
    photos: Photos
    batch_size: int = 32
    device: str = "cpu"

    def __len__(self) -> int:
        return len(self.photos)

    def __iter__(self) -> Iterator[Batch]:
        for ids, images in self.photos.batches(self.batch_size):
            yield Batch(ids, images.to(self.device), self.representation.encode)

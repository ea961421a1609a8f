"""Photographs with their features, for inverters to be fitted on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from preimage.images import Fit, Photos
from preimage.interfaces import Batch, Representation
from preimage.representations.saved import IMAGE_SIZE, SavedFeatures


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
            yield self.representation.batch(ids, images.to(self.device))


def saved_pairs(
    features: str | Path, images: str | Path | list[str], image_size: int = IMAGE_SIZE, fit: Fit = "crop"
) -> EncodedPhotos:
    """Photographs with the features that a file holds of them; the `representation` says how they were matched."""
    representation = SavedFeatures(features, image_size)
    return EncodedPhotos(representation, representation.match(Photos.open(images, image_size, fit)).load())

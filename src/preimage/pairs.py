"""Photographs with their features, for inverters to be fitted on."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import Tensor

from preimage.files import replacing
from preimage.images import Fit, Photos
from preimage.interfaces import Batch, Representation, ignore
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

    def images(self, indices: Sequence[int]) -> Tensor:
        return self.photos.images(indices)


def saved_pairs(
    features: str | Path, images: str | Path | list[str], image_size: int = IMAGE_SIZE, fit: Fit = "crop"
) -> EncodedPhotos:
    """Photographs with the features that a file holds of them; the `representation` says how they were matched."""
    representation = SavedFeatures(features, image_size)
    return EncodedPhotos(representation, representation.match(Photos.open(images, image_size, fit)).load())


def save_features(pairs: EncodedPhotos, file: Path, on_batch: Callable[[Batch], None] = ignore) -> Path:
    """Write features (N, *feature_shape) as .npy, batch by batch, and beside them what they are: FILE.json, returned.

    Until both are whole, what was there before stays.
    """
    representation, photos = pairs.representation, pairs.photos
    described = file.with_name(file.name + ".json")
    shape: tuple[int, ...] = ()
    with replacing(described) as new_described, replacing(file) as new:
        with new.open("wb") as stream:  # not a memory map: on a full disk, writing to one kills the process
            for batch in pairs:
                on_batch(batch)
                features = batch.features.cpu().contiguous().numpy()
                if not shape:
                    shape = (len(pairs), *features.shape[1:])
                    header = np.lib.format.header_data_from_array_1_0(features) | {"shape": shape}
                    np.lib.format.write_array_header_1_0(stream, header)
                stream.write(features.data)
        content = {
            "representation": representation.description,
            "fingerprint": representation.fingerprint,
            "shape": shape,
            "ids": photos.ids,
            "fit": photos.fit,
        }
        new_described.write_text(json.dumps(content, indent=2) + "\n")
        described.unlink(missing_ok=True)  # the ids of before would not be those of the rows that come first
    return described

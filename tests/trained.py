"""A short training through a representation, and one on shuffled pairs."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from preimage.images import Photos
from preimage.interfaces import Batch, Representation
from preimage.inverters import MeanImage, UpConv
from preimage.metrics import distance
from preimage.training import TrainingSettings


def errors_after_training(encoder: Representation, photos: Photos) -> tuple[float, float]:
    """Of inverters trained on half of 64 pictures, with their own features and with others', on the other half.

    In parts of the mean image's error.
    """
    features = encoder.encode(next(photos.batches(64))[1])
    known = dict(zip(photos.ids, features, strict=True))

    def error(wrong: bool) -> float:
        learnt = [index for index in range(64) if index % 2 == 0]
        train, test = photos.subset(learnt), photos.subset([index + 1 for index in learnt])
        pairs = Remembered(encoder, train, known, wrong)
        settings = TrainingSettings(steps=50, learning_rate=3e-3, warmup_steps=5, ema_decay=0.9, precision="float32")
        inverter = UpConv(encoder, width=0.04).fit(pairs, settings)
        mean = MeanImage(encoder).fit(pairs)
        images, given = next(test.batches(32))[1], torch.stack([known[name] for name in test.ids])
        errors = [distance(images, one.invert(given)).mean() for one in (inverter, mean)]
        return float(errors[0] / errors[1])

    return error(wrong=False), error(wrong=True)


class Remembered:
    """Photographs with features computed before, or with those of others, far away: neighbours may be of one scene."""

    def __init__(self, encoder: Representation, photos: Photos, known: dict[str, Tensor], wrong: bool) -> None:
        self.encoder, self.photos, self.known = encoder, photos, known
        self.shift = len(photos) // 2 if wrong else 0

    def __len__(self) -> int:
        return len(self.photos)

    def __iter__(self) -> Iterator[Batch]:
        for ids, images in self.photos.batches(32):
            features = torch.stack([self.known[name] for name in ids]).roll(self.shift, dims=0)
            yield Batch(ids, images, lambda *_, features=features: features)  # type: ignore[misc]

"""How much reconstructions give away: pure measures, images (N, 3, H, W) in [0, 1] in, numbers out."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from preimage import metrics
from preimage.images import grey

THUMBNAIL = 16  # pixels: what photographs and blurred reconstructions of them have in common
FLAT = 1e-4  # pixel values: less than this is rounding
ALIKE = 0.95  # correlation of grey thumbnails from which on two photographs may be one
HASH_BITS = 8  # of 64 in which the difference hashes of one photograph's copies may differ
FOLDS = 5


# --- whose features were these? ---------------------------------------------------------------------------------------


def likeness(reconstructions: Tensor, photographs: Tensor, mean: Tensor) -> Tensor:
    """Correlations (N, M) of thumbnails, each less that of the mean image (1, 3, H, W), which everybody knows.

    Where a reconstruction is the mean image itself, all are 0.
    """
    own, known = (deviations(images, mean) for images in (reconstructions, photographs))
    return own @ known.T


def deviations(images: Tensor, mean: Tensor) -> Tensor:
    """Unit vectors (N, D) from the mean image to images; zeros for the mean image."""
    rest = (F.adaptive_avg_pool2d(images, THUMBNAIL) - F.adaptive_avg_pool2d(mean, THUMBNAIL)).flatten(1).double()
    return units(rest)


def units(rows: Tensor) -> Tensor:
    """Rows (N, D) at length 1; those that hardly differ from 0 become it."""
    length = rows.norm(dim=1, keepdim=True)
    return torch.where(length > FLAT * math.sqrt(rows.shape[1]), rows / length.clamp(min=1e-12), 0.0)


def hits(alike: Tensor) -> Tensor:
    """Who picks the most similar photograph is right so often (N,); among equals, one is drawn."""
    best = alike >= alike.max(dim=1, keepdim=True).values - 1e-12
    return best.diagonal().double() / best.sum(dim=1)


def true_matches(alike: Tensor, false_match_rate: float) -> Tensor:
    """Whether the right photograph is above the threshold (N,) that so large a share of the wrong ones exceeds."""
    wrong = alike[~torch.eye(len(alike), dtype=torch.bool)].numpy()
    threshold = float(np.quantile(wrong, 1 - false_match_rate, method="higher"))  # torch's stops at 2^24 values
    return (alike.diagonal() > threshold).double()


def share_with_interval(shares: Tensor) -> tuple[float, float, float]:
    """A proportion with its 95 % interval (Wilson 1927): mean, low, high."""
    share = float(shares.double().mean())
    return share, *metrics.wilson(share, len(shares))


def permutation_p(reconstructions: Tensor, photographs: Tensor, permutations: int = 9999, seed: int = 0) -> float:
    """How probable such a small mean distance would be if reconstructions had nothing to do with their photographs."""
    distances = torch.cdist(reconstructions.flatten(1).double(), photographs.flatten(1).double())
    own = torch.arange(len(distances))
    return luck(lambda pairing: -float(distances[own, pairing].mean()), len(own), permutations, seed)


def identification_p(alike: Tensor, permutations: int = 9999, seed: int = 0) -> float:
    """How probable so many `hits` would be if reconstructions had nothing to do with their photographs."""
    picked = (alike >= alike.max(dim=1, keepdim=True).values - 1e-12).double()
    picked /= picked.sum(dim=1, keepdim=True)
    own = torch.arange(len(alike))
    return luck(lambda pairing: float(picked[own, pairing].sum()), len(own), permutations, seed)


def luck(score: Callable[[Tensor], float], count: int, permutations: int, seed: int) -> float:
    """How probable the score of the right pairing, or a higher one, is among random pairings of so many.

    One-sided; never below 1 / (permutations + 1). A score that is no number shows nothing.
    """
    right = score(torch.arange(count))
    if math.isnan(right):
        return 1.0
    generator = torch.Generator().manual_seed(seed)
    enough = right - 1e-6 * abs(right)  # reconstructions that are all the same pair equally well: not so by rounding
    as_good = sum(score(torch.randperm(count, generator=generator)) >= enough for _ in range(permutations))
    return (1 + as_good) / (1 + permutations)


# --- colour and class -------------------------------------------------------------------------------------------------


def colour_errors(photographs: Tensor, reconstructions: Tensor) -> Tensor:
    """Mean distances (N,) in the ab plane of CIELAB, of thumbnails: how wrong colours are, whatever the lightness."""
    first, second = (
        metrics.ab(F.adaptive_avg_pool2d(images, THUMBNAIL).clamp(0, 1)) for images in (photographs, reconstructions)
    )
    errors: Tensor = (first - second).norm(dim=1).flatten(1).mean(dim=1)
    return errors


def class_accuracy(images: Tensor, labels: Sequence[str], seed: int = 0) -> Tensor:
    """Whether a linear probe on thumbnails gets each image's class right (N,), trained on the other folds."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold, cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    x = F.adaptive_avg_pool2d(images, THUMBNAIL // 2).flatten(1).double().numpy()
    probe = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=1000))
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=seed)
    guessed: Any = cross_val_predict(probe, x, np.array(labels), cv=folds)
    return torch.from_numpy(guessed == np.array(labels)).double()


def frequent(labels: Sequence[str]) -> list[int]:
    """Places of images whose class is frequent enough to be probed; none unless there are two such classes."""
    counts = Counter(label for label in labels if label)
    enough = {label for label, count in counts.items() if count >= FOLDS}
    return [place for place, label in enumerate(labels) if label in enough] if len(enough) > 1 else []


# --- near duplicates --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Look:
    """What two copies of a photograph share: normal grey thumbnails (N, 256) and difference hashes (N, 64) of ±1."""

    thumbnails: Tensor
    hashes: Tensor

    @classmethod
    def of(cls, images: Tensor) -> Look:
        levels = grey(images, scale=1.0, rounded=False)[:, None]
        small = F.adaptive_avg_pool2d(levels, THUMBNAIL).flatten(1)
        thumbnails = units(small - small.mean(dim=1, keepdim=True))
        hashes = torch.where(F.adaptive_avg_pool2d(levels, (8, 9)).diff(dim=3) > 0, 1.0, -1.0)
        return cls(thumbnails, hashes.flatten(1))


def near_duplicates(test: Tensor, train: Iterable[Tensor]) -> list[tuple[int, int]]:
    """(place in `test`, place in all of `train`, which comes in batches) of photographs that are nearly the same.

    Recognised when scaled, compressed or mirrored; not when cropped.
    """
    looks = [Look.of(test), Look.of(test.flip(3))]
    found: dict[int, int] = {}
    start = 0
    for batch in train:
        other = Look.of(batch)
        for look in looks:
            alike = look.thumbnails @ other.thumbnails.T > ALIKE
            same = (64 - look.hashes @ other.hashes.T) / 2 <= HASH_BITS
            for place, index in (alike & same).nonzero().tolist():
                found.setdefault(place, start + index)
        start += len(batch)
    return sorted(found.items())

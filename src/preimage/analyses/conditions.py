"""What photographs are put to, and what reconstructions are compared with: shared by all analyses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from preimage.errors import ImageError
from preimage.findings import Record
from preimage.interfaces import Inverter, Representation

SHOWN = 6  # photographs on a sheet
BATCH = 32
KEPT = "reconstruction"
CONTROL = "another's features"
MEAN = "mean of the others"  # of the other evaluated photographs: what is known without any features


@torch.no_grad()
def encoded(representation: Representation, images: Tensor) -> Tensor:
    """Features (N, ...) of images, batch by batch."""
    return torch.cat([representation.encode(part) for part in torch.split(images, BATCH)])


def inverted(inverter: Inverter, features: Tensor) -> Tensor:
    """Reconstructions (N, 3, S, S), batch by batch."""
    return torch.cat([inverter.invert(part) for part in torch.split(features, BATCH)])


def reconstructed(inverter: Inverter, images: Tensor) -> Tensor:
    """Reconstructions (N, 3, S, S) of images, on the CPU; raises `ImageError` for fewer than two images."""
    if len(images) < 2:
        raise ImageError("what is kept is judged against other photographs: give at least two")
    return inverted(inverter, encoded(inverter.representation, images)).cpu()


def mean_of_others(values: Tensor) -> Tensor:
    """For every photograph the mean over all but it, (N, ...) -> (N, ...)."""
    return (values.sum(dim=0) - values) / (len(values) - 1)


def anothers(values: Tensor) -> Tensor:
    """For every photograph what belongs to the next one: the control, as in the evaluation."""
    return values.roll(-1, dims=0)


def conditions(inverter: Inverter, images: Tensor) -> dict[str, Tensor]:
    """What a photograph is compared with, by name: its reconstruction, the mean of the others, the control."""
    own = reconstructed(inverter, images)
    return {KEPT: own, MEAN: mean_of_others(images.cpu()), CONTROL: anothers(own)}


def records_of(ids: Sequence[str], key: Record, values: Mapping[str, Tensor]) -> list[Record]:
    """A record for every photograph from what they have in common and named values (N,)."""
    lists = {name: value.tolist() for name, value in values.items()}
    return [
        {"id": one, **key, **{name: numbers[place] for name, numbers in lists.items()}} for place, one in enumerate(ids)
    ]


def percent(share: float | str) -> str:
    """`58 %`."""
    return f"{100 * float(share):.0f} %"


def resized(images: Tensor, size: int) -> Tensor:
    """Images (N, 3, H, W) -> (N, 3, size, size) in [0, 1]; smoothed where they shrink."""
    if tuple(images.shape[2:]) == (size, size):
        return images
    return F.interpolate(images, (size, size), mode="bilinear", antialias=True).clamp(0, 1)

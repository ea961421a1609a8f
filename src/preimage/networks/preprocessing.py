"""How photographs are fed to a network: the part of an encoder that is most often got wrong."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor


@dataclass(frozen=True)
class Preprocessing:
    """RGB in [0, 1] -> what a network was trained on: (image * white - mean) / deviation, channel by channel.

    `mean` and `deviation` are in the network's own channel order, which is blue, green, red if `bgr`; one number is
    that of all three.
    """

    image_size: int  # pixels
    white: float = 1.0  # the value of white: 1 or 255
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    deviation: tuple[float, float, float] = (1.0, 1.0, 1.0)
    bgr: bool = False

    def __post_init__(self) -> None:
        for name in ("mean", "deviation"):
            if isinstance(value := getattr(self, name), int | float):
                object.__setattr__(self, name, (float(value),) * 3)

    def __call__(self, images: Tensor) -> Tensor:
        """Images (N, 3, H, W) in [0, 1] -> the network's input, same shape."""
        ordered = images.flip(1) if self.bgr else images
        mean, deviation = (by_channel(values, images.dtype, images.device) for values in (self.mean, self.deviation))
        return (ordered * self.white - mean) / deviation


@lru_cache(maxsize=32)  # a new copy for every batch would make the CPU wait for the GPU
@torch.inference_mode(False)  # what is kept may be used again where gradients are wanted
def by_channel(values: tuple[float, float, float], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Three numbers as (1, 3, 1, 1)."""
    return torch.tensor(values, dtype=dtype, device=device).view(1, 3, 1, 1)

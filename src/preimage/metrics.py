"""Pure per-image measures: (photographs, reconstructions), both (N, 3, H, W) in [0, 1], to one number each, (N,)."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from preimage.errors import ImageError

Z95 = 1.959964  # a normal variable is this far off in 5 % of cases
SSIM_WINDOW = 7  # pixels, uniform: scikit-image's default
BLOCK = 512  # images that are compared at a time with as many others
MOST_COMPARED = 2048  # images, all with all: of more, every so many
COLOURLESS = 0.5  # units of CIELAB's a, b plane: below is what rounding to 8 bits does to a grey
SAME = 1 / 255  # a root mean square difference of pixel values below which images are copies of each other


@dataclass(frozen=True)
class Metric:
    """How a measure is written in tables: its title, with unit and the better direction, and decimal places."""

    title: str
    places: int


NRE_AXIS = "NRE (lower is better)"
METRICS = {"nre": Metric("NRE ↓", 3), "psnr": Metric("PSNR, dB ↑", 2), "ssim": Metric("SSIM ↑", 3)}


def distance(photographs: Tensor, reconstructions: Tensor) -> Tensor:
    """Euclidean distances (N,) over all pixel values."""
    distances: Tensor = torch.linalg.vector_norm((photographs - reconstructions).flatten(1), dim=1)
    return distances


def psnr(photographs: Tensor, reconstructions: Tensor) -> Tensor:
    """Peak signal-to-noise ratios in dB for a range of 1; infinite for equal images."""
    return -10 * (photographs - reconstructions).square().flatten(1).mean(dim=1).log10()


def ssim(photographs: Tensor, reconstructions: Tensor) -> Tensor:
    """Structural similarities by scikit-image: uniform window of 7 pixels, range 1, mean over the channels."""
    from skimage.metrics import structural_similarity

    def one(pair: tuple[Tensor, Tensor]) -> float:
        a, b = (image.cpu().numpy() for image in pair)
        value = structural_similarity(a, b, win_size=SSIM_WINDOW, data_range=1.0, channel_axis=0)  # type: ignore[no-untyped-call]
        return float(value)

    with ThreadPoolExecutor() as pool:
        return torch.tensor(list(pool.map(one, zip(photographs, reconstructions, strict=True))))


def ab(images: Tensor) -> Tensor:
    """Images (N, 3, H, W) -> a and b of CIELAB (N, 2, H, W), D65: their colours, whatever the lightness."""
    from skimage.color import rgb2lab

    lab = rgb2lab(images.permute(0, 2, 3, 1).cpu().double().numpy())
    return torch.from_numpy(np.ascontiguousarray(lab[..., 1:])).permute(0, 3, 1, 2).float().to(images.device)


def mean_pairwise_distance(images: Tensor) -> float:
    """N of the paper: the mean Euclidean distance between two different images.

    Of more than 2,048 images it is that of 1,024 to 2,048, spread over them evenly (1,500 photographs at random differ
    in it from the 7,467 they are of by 0.4 %, one standard deviation). NaN for a single image; raises `ImageError`
    where all are alike, as no error can be relative to that.
    """
    return mean_pairwise_distance_of(len(images), lambda part: images[part.start : part.stop : part.step])


def mean_pairwise_distance_of(count: int, read: Callable[[range], Tensor]) -> float:
    """The same of so many images, of which `read` gives a part at a time: only two parts are ever held."""
    compared = range(0, count, math.ceil(count / MOST_COMPARED) or 1)
    count = len(compared)
    parts = [compared[start : start + BLOCK] for start in range(0, count, BLOCK)]
    total = 0.0
    for index, part in enumerate(parts):
        own = read(part)
        total += float(distances_between(own, own).fill_diagonal_(0).sum())
        total += sum(2 * float(distances_between(own, read(other)).sum()) for other in parts[index + 1 :])
    if count < 2:
        return math.nan
    mean = total / (count * (count - 1))
    if mean < SAME * math.sqrt(own[0].numel()):
        raise ImageError(f"the {count} photographs are copies of one: errors are relative to the distance between them")
    return mean


def distances_between(first: Tensor, second: Tensor) -> Tensor:
    """Euclidean distances (N, M) of all images from all others, in double precision on the CPU."""
    squares = torch.zeros(len(first), len(second), dtype=torch.float64)
    chunks = (torch.split(images.flatten(1), 1 << 15, dim=1) for images in (first, second))
    for columns in zip(*chunks, strict=True):  # not all pixels at once: these need twice the room of their images
        a, b = (part.cpu().double() for part in columns)
        squares += a.square().sum(dim=1)[:, None] + b.square().sum(dim=1) - 2 * a @ b.T
    return squares.clamp(min=0).sqrt()


def mean_and_sem(values: Sequence[float]) -> tuple[float, float]:
    """Mean and its standard error; NaN where there are too few values for one."""
    count = len(values)
    mean = sum(values) / count if count else math.nan
    if count < 2:
        return mean, math.nan
    variance = sum((value - mean) ** 2 for value in values) / (count - 1)
    return mean, math.sqrt(variance / count)


def paired_difference(first: Mapping[str, float], second: Mapping[str, float]) -> tuple[float, float, int]:
    """Values of the first less those of the second, on what both have: mean, standard error, n."""
    differences = [value - second[name] for name, value in first.items() if name in second]
    return *mean_and_sem(differences), len(differences)


def wilson(share: float, n: int) -> tuple[float, float]:
    """The 95 % interval of a share of n (Wilson 1927): right for small n and for shares near 0 and 1 too."""
    centre = share + Z95**2 / (2 * n)
    reach = Z95 * math.sqrt(share * (1 - share) / n + Z95**2 / (4 * n * n))
    scale = 1 + Z95**2 / n
    return max(0.0, (centre - reach) / scale), min(1.0, (centre + reach) / scale)

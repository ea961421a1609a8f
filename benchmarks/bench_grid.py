"""How far the places of feature maps show in the pictures of what ships, beside photographs.

    python benchmarks/bench_grid.py [--images val.tar] [--limit 128] [--set alexnet:weights=FILE]

The mean steepness of pictures, by the place of a pixel between two places of the map: its standard deviation over its
mean, of the decoder's pictures and of the photographs at their size.
"""

from __future__ import annotations

import argparse
import math

import torch
import torch.nn.functional as F
from torch import Tensor

from preimage.api import sample_files
from preimage.gallery import exhibits
from preimage.inverters import UpConv
from preimage.training import grid_energy, steepness


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", nargs="+", help="photographs; by default scikit-image's samples")
    parser.add_argument("--limit", type=int, default=128, help="photographs, at most")
    parser.add_argument("--set", nargs="+", default=[], help="alexnet:weights=FILE, of networks that bring none")
    options = parser.parse_args()

    print(f"{'':26} {'output':>7} {'period':>7} {'pictures, %':>12} {'photographs, %':>15} {'n':>4}")
    for exhibit in exhibits(options.images or sample_files(), overrides=options.set, limit=options.limit, tell=print):
        inverter = exhibit.inverter
        assert isinstance(inverter, UpConv)
        if inverter.places is None:
            continue
        with torch.inference_mode():  # as the decoder puts them out, before they are brought to the photographs' size
            pictures = torch.cat([inverter.decoder(features) for features in torch.split(exhibit.done.features, 16)])
        photographs = F.interpolate(exhibit.done.photographs, pictures.shape[2:], mode="bilinear", antialias=True)
        period = pictures.shape[3] // inverter.places
        found, usual = (100 * deviation(images, period) for images in (pictures, photographs))
        print(
            f"{exhibit.name:26} {pictures.shape[3]:7} {period:7} {found:12.1f} {usual:15.1f} {len(photographs):4}",
            flush=True,
        )


def deviation(images: Tensor, period: int) -> float:
    """Of steepness, by the place within a period."""
    return math.sqrt(grid_energy(steepness(images, images, period)).item() / 2)


if __name__ == "__main__":
    main()

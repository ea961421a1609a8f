"""HOG, one core: ours in batches beside VLFeat's C and scikit-image, taken in turns in one process.

    python benchmarks/bench_hog.py [--images 32] [--rounds 15]

Prints the median time of an image for each, and its ratio to VLFeat's with the range over the rounds.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"
sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import skimage.feature
import torch

from preimage.api import sample_photos
from preimage.images import grey
from preimage.representations import HOG
from reference import vlfeat


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=32, help="images in a batch")
    parser.add_argument("--rounds", type=int, default=15, help="times each is measured")
    options = parser.parse_args()
    torch.set_num_threads(1)

    photos = next(sample_photos().batches(4))[1]
    images = torch.stack([photos[index % 4].roll(7 * index, dims=2) for index in range(options.images)])
    grey_arrays = list(grey(images).numpy())
    hog = HOG()

    contestants: dict[str, Callable[[], object]] = {
        "VLFeat (C)": lambda: [vlfeat.hog(image) for image in grey_arrays],
        "preimage": lambda: hog.encode(images),
        "scikit-image": lambda: [
            skimage.feature.hog(image, pixels_per_cell=(8, 8), cells_per_block=(2, 2)) for image in grey_arrays
        ],
    }
    times: dict[str, list[float]] = {name: [] for name in contestants}
    for run in contestants.values():
        run()  # warm up
    for _ in range(options.rounds):
        for name, run in contestants.items():
            began = time.perf_counter()
            run()
            times[name].append((time.perf_counter() - began) / options.images * 1e3)

    print(f"HOG of {options.images} images of 256 x 256, one thread, {options.rounds} rounds in turn")
    print(f"{'':14} {'ms an image':>12} {'over VLFeat':>12} {'range':>15}")
    for name, values in times.items():
        ratios = sorted(own / base for own, base in zip(values, times["VLFeat (C)"], strict=True))
        median = statistics.median(ratios)
        print(f"{name:14} {statistics.median(values):12.2f} {median:12.2f} {ratios[0]:7.2f} - {ratios[-1]:.2f}")


if __name__ == "__main__":
    main()

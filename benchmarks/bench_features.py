"""HOG, LBP and SIFT, one thread: ours in batches beside VLFeat's C, scikit-image and OpenCV where they are at hand.

    python benchmarks/bench_features.py [--images 32] [--rounds 9]

SIFT beyond seven images is spread over all cores, and goes by the clock; the others by processor time, which other
programs hardly lengthen. Its rivals give keypoints, not cells.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"
sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import pytest
import skimage.feature
import torch

from preimage.api import sample_photos
from preimage.images import grey
from preimage.representations import HOG, LBP, SparseSIFT
from preimage.representations.sift import keypoints
from reference import vlfeat
from timing import clock_of, in_turns, print_rates

try:
    import cv2
except ImportError:
    cv2 = None

Rivals = dict[str, Callable[..., object]]  # name -> grey image in 0..255 -> features

hog = partial(skimage.feature.hog, pixels_per_cell=(8, 8), cells_per_block=(2, 2))
lbp = partial(skimage.feature.local_binary_pattern, P=8, R=1, method="nri_uniform")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=32, help="images in a batch")
    parser.add_argument("--rounds", type=int, default=9, help="times each is measured")
    options = parser.parse_args()
    torch.set_num_threads(1)

    photos = next(sample_photos().batches(4))[1]
    images = torch.stack([photos[index % 4].roll(7 * index, dims=2) for index in range(options.images)])
    levels = list(grey(images).numpy())
    for representation, rivals in rivals_of().items():
        print(f"{representation.name} of {options.images} images of 256 x 256, {options.rounds} rounds in turn")
        contestants: dict[str, Callable[[], object]] = {
            name: partial(one_by_one, function, levels) for name, function in rivals.items()
        }
        contestants["preimage"] = partial(representation.encode, images)
        clock = time.perf_counter if representation.name == "sift" else clock_of(images.device)
        print_rates(in_turns(contestants, options.rounds, clock), options.images, next(iter(contestants)))


def rivals_of() -> dict[HOG | LBP | SparseSIFT, Rivals]:
    """Who else computes what ours do; the first is the measure of the others."""
    of_hog: Rivals = {"scikit-image": hog}
    of_lbp: Rivals = {"scikit-image, no cells": lambda level: lbp(level.astype("uint8"))}
    of_sift: Rivals = {"vlsift": keypoints}
    if cv2 is not None:
        sift = cv2.SIFT_create(contrastThreshold=0, edgeThreshold=10)
        of_sift["OpenCV"] = lambda level: sift.detectAndCompute(level.astype("uint8"), None)
    try:
        vlfeat.load()
    except pytest.skip.Exception as missing:
        print(missing)
    else:
        of_hog = {"VLFeat (C)": vlfeat.hog} | of_hog
        of_lbp = {"VLFeat (C)": vlfeat.lbp} | of_lbp
    return {HOG(): of_hog, LBP(): of_lbp, SparseSIFT(): of_sift}


def one_by_one(function: Callable[..., object], levels: list[object]) -> list[object]:
    return [function(level) for level in levels]


if __name__ == "__main__":
    main()

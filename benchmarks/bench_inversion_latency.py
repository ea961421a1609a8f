"""How long inverting takes, for everything that ships: one image at a time and 32, encoding not counted.

    python benchmarks/bench_inversion_latency.py [--device cpu] [--rounds 9] [--set alexnet:weights=FILE]

Also prints the decoder's arithmetic, and how much of it is done in a second.
"""

from __future__ import annotations

import argparse
import statistics
from functools import partial

import torch
from torch import Tensor

from preimage.api import sample_files
from preimage.decoders import cost
from preimage.gallery import exhibits
from preimage.inverters import UpConv
from timing import in_turns


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--rounds", type=int, default=9, help="times each is measured")
    parser.add_argument("--set", nargs="+", default=[], help="alexnet:weights=FILE, of networks that bring none")
    options = parser.parse_args()

    print(f"inversion on {options.device}, {torch.get_num_threads()} threads, median of {options.rounds}")
    print(f"{'':26} {'GFLOP':>7} {'1 image, ms':>12} {'32 images, ms':>14} {'images/s':>9} {'GFLOP/s':>9}")
    for exhibit in exhibits(sample_files(), overrides=options.set, tell=print):
        inverter = exhibit.inverter
        assert isinstance(inverter, UpConv)
        batch = torch.cat([exhibit.done.features] * 8).to(options.device)
        contestants = {str(count): partial(invert, inverter, batch[:count]) for count in (1, 32)}
        one, many = (statistics.median(times) for times in in_turns(contestants, options.rounds).values())
        shape = inverter.representation.feature_shape
        flops, of_many = (cost(inverter.network, shape, images).flops for images in (1, 32))
        print(
            f"{exhibit.name:26} {flops / 1e9:7.2f} {1e3 * one:12.1f} {1e3 * many:14.1f} {32 / many:9.0f} "
            f"{of_many / many / 1e9:9.0f}"
        )


def invert(inverter: UpConv, features: Tensor) -> Tensor:
    return inverter.invert(features).cpu()  # what is on its way to the CPU has been computed


if __name__ == "__main__":
    main()

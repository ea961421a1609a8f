"""Training steps of decoders as a share of what the machine can do, and where the rest goes.

    python benchmarks/bench_training.py [NAME ...] [--device cpu] [--rounds 5] [--batch 32]

The peak is measured beside them: a matrix product of 2048 x 2048, and 3 x 3 convolutions 256 -> 256 at 32 x 32 forward
and backward, in the precision of the training. A step is counted as three times the arithmetic of an inversion.
Features and photographs are noise that is there already: representation and loader are left out.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import time
from collections.abc import Callable
from functools import partial

import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile

from preimage import training
from preimage.config import load_preset, make_settings
from preimage.decoders import cost
from preimage.inverters import UpConv
from preimage.representations import get_representation

NAMES = ["hog", "lbp", "sift", "efficientnet_lite0.stage2", "efficientnet_lite0.stage5", "efficientnet_lite0.logits"]
TOP = 8  # operations of the profile


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", default=NAMES)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--rounds", type=int, default=5, help="steps, products and convolutions measured")
    parser.add_argument("--batch", type=int, default=32)
    options = parser.parse_args()
    device = torch.device(options.device)
    precision = training.resolve_precision("auto", device)
    dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
    print(
        f"{device}, {precision}, {torch.get_num_threads()} threads, batch {options.batch}, median of {options.rounds}"
    )

    for name in options.names:
        product, convolution = product_peak(device, dtype, options.rounds), conv_peak(device, dtype, options.rounds)
        step, flops = training_step(name, device, options.batch)
        seconds = step(repeats=options.rounds)
        reached = flops / seconds
        print(
            f"\n{name}: {options.batch / seconds:.1f} images/s, {reached / 1e9:.0f} GFLOP/s = "
            f"{reached / product:.0%} of the product's {product / 1e9:.0f}, "
            f"{reached / convolution:.0%} of the convolutions' {convolution / 1e9:.0f}"
        )
        print_profile(partial(step, repeats=1), device)


def training_step(name: str, device: torch.device, batch: int) -> tuple[Callable[..., float], int]:
    """What measures the seconds of a step of a preset's decoder, and the arithmetic of a step."""
    settings = make_settings(load_preset(name), [f"training.batch_size={batch}"])
    representation = get_representation(name)
    decoder = UpConv(representation, settings.decoder.name, settings.decoder.width).network.to(device)
    size = representation.image_size
    features = torch.rand(batch, *representation.feature_shape, device=device)
    batches = itertools.repeat((features, torch.rand(batch, 3, size, size, device=device)))
    accelerator = training.make_accelerator(device.type)
    flops = 3 * batch * cost(decoder, representation.feature_shape).flops
    measure = partial(
        training.seconds_per_step, decoder, batches, settings.training, accelerator, grid=representation.grid
    )
    return measure, flops


def product_peak(device: torch.device, dtype: torch.dtype, rounds: int, size: int = 2048) -> float:
    """FLOP/s of a matrix product."""
    a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    return 2 * size**3 / median_time(lambda: a @ b, device, rounds)


def conv_peak(device: torch.device, dtype: torch.dtype, rounds: int, images: int = 32) -> float:
    """FLOP/s of 3 x 3 convolutions 256 -> 256 at 32 x 32, forward and backward."""
    layer = nn.Conv2d(256, 256, 3, padding=1, device=device, dtype=dtype).to(memory_format=torch.channels_last)
    inputs = torch.randn(images, 256, 32, 32, device=device, dtype=dtype).to(memory_format=torch.channels_last)
    inputs.requires_grad_()
    flops = 3 * 2 * images * 256 * 256 * 9 * 32 * 32
    return flops / median_time(lambda: layer(inputs).sum().backward(), device, rounds)


def median_time(run: Callable[[], object], device: torch.device, rounds: int) -> float:
    times = []
    for _ in range(rounds + 2):
        began = time.perf_counter()
        run()
        if device.type == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - began)
    return statistics.median(times[2:])


def print_profile(run: Callable[[], object], device: torch.device) -> None:
    """The operations that take most of the time of some steps."""
    gpu = device.type == "cuda"
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if gpu else [])]
    with profile(activities=activities) as recorded:
        run()
    spent = {
        event.key: event.self_device_time_total if gpu else event.self_cpu_time_total
        for event in recorded.key_averages()
    }
    total = sum(spent.values())
    for key in sorted(spent, key=lambda key: -spent[key])[:TOP]:
        print(f"  {spent[key] / total:6.1%}  {key}")


if __name__ == "__main__":
    main()

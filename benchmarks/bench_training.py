"""Training steps of decoders, ours and the paper's, as a share of what the machine can do, and where the rest goes.

    python benchmarks/bench_training.py [NAME ...] [--sizes shipped] [--device cpu] [--rounds 5] [--batch 32]

The peak is measured in turns with them: a matrix product of 2048 x 2048, and 3 x 3 convolutions 256 -> 256 at 32 x 32
forward and backward, in the precision of the training. A step is counted as three times the arithmetic of an inversion.
Features and photographs are noise that is there already: representation and loader are left out. With one thread
(OMP_NUM_THREADS=1) processor time counts, else the clock.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
from collections.abc import Callable

import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile

from preimage import runs, training
from preimage.decoders import cost
from rivals import SIZES, Candidate, candidates, noise, stepper
from timing import clock_of, in_turns

NAMES = ["hog", "lbp", "sift", "efficientnet_lite0.stage2", "efficientnet_lite0.stage5", "efficientnet_lite0.logits"]
TOP = 8  # operations of the profile


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", default=NAMES)
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=["shipped"])
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
    for size, name in itertools.product(options.sizes, options.names):
        for candidate in candidates(name, size):
            report(candidate, device, dtype, options.batch, options.rounds)


def report(candidate: Candidate, device: torch.device, dtype: torch.dtype, batch: int, rounds: int) -> None:
    """One decoder's speed beside the two peaks, and its profile."""
    settings = candidate.settings(overrides=[f"training.batch_size={batch}"])
    inverter = runs.make_inverter(settings, settings.encoder)
    inverter.network.to(device)
    step = stepper(settings, inverter, noise(settings, inverter, device), training.make_accelerator(device.type))
    numbers = cost(inverter.network, inverter.input_shape, batch)
    product, product_flops = matrix_product(device, dtype)
    convolution, convolution_flops = convolutions(device, dtype)
    contestants = {"step": step, "products": product, "convolutions": convolution}
    times = in_turns(contestants, rounds, clock_of(device))
    steps = training.steps_at_once(device)
    flops = {"step": 3 * steps * numbers.flops, "products": product_flops, "convolutions": convolution_flops}
    rates = {name: [flops[name] / seconds for seconds in values] for name, values in times.items()}

    def share(peak: str) -> str:
        median = statistics.median(own / its for own, its in zip(rates["step"], rates[peak], strict=True))
        return f"{median:.0%} of the {peak}' {statistics.median(rates[peak]) / 1e9:.0f}"

    print(
        f"\n{candidate.representation}, {candidate.size}: {candidate.decoder}, {numbers.parameters / 1e6:.2f} M, "
        f"{steps * batch / statistics.median(times['step']):.1f} images/s, "
        f"{statistics.median(rates['step']) / 1e9:.0f} GFLOP/s = {share('products')}, {share('convolutions')}",
        flush=True,
    )
    print_profile(step, device)


def matrix_product(device: torch.device, dtype: torch.dtype, size: int = 2048) -> tuple[Callable[[], None], int]:
    """A matrix product, and its floating-point operations."""
    a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))

    def run() -> None:
        finish(a @ b)

    return run, 2 * size**3


def convolutions(device: torch.device, dtype: torch.dtype, images: int = 32) -> tuple[Callable[[], None], int]:
    """3 x 3 convolutions 256 -> 256 at 32 x 32, forward and backward, and their floating-point operations."""
    layer = nn.Conv2d(256, 256, 3, padding=1, device=device, dtype=dtype).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    inputs = torch.randn(images, 256, 32, 32, device=device, dtype=dtype).to(memory_format=torch.channels_last)
    inputs.requires_grad_()
    slope = torch.randn_like(inputs)

    def run() -> None:
        layer(inputs).backward(slope)
        assert inputs.grad is not None
        finish(inputs.grad)
        inputs.grad = None

    return run, 3 * 2 * images * 256 * 256 * 9 * 32 * 32


def finish(result: torch.Tensor) -> None:
    """Wait until a result has been computed."""
    if result.device.type == "cuda":
        torch.cuda.synchronize()


def print_profile(run: Callable[[], object], device: torch.device) -> None:
    """The operations that take most of the time of a step."""
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

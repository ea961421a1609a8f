"""Contestants measured in turns in one process, so that what else the machine does strikes all of them alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping


def in_turns(contestants: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Seconds of every contestant in every round, after one round to warm up."""
    times: dict[str, list[float]] = {name: [] for name in contestants}
    for turn in range(rounds + 1):
        for name, run in contestants.items():
            began = time.perf_counter()
            run()
            if turn:
                times[name].append(time.perf_counter() - began)
    return times


def print_rates(times: Mapping[str, list[float]], images: int, base: str) -> None:
    """Median images per second, and the median over rounds of the speed relative to `base`, with its range."""
    print(f"  {'':24} {'images/s':>9} {'ms an image':>12} {'relative speed':>15} {'range':>13}")
    for name, values in times.items():
        seconds = statistics.median(values)
        ratios = sorted(theirs / own for own, theirs in zip(values, times[base], strict=True))
        print(
            f"  {name:24} {images / seconds:9.1f} {1e3 * seconds / images:12.2f} {statistics.median(ratios):15.2f} "
            f"{ratios[0]:6.2f} - {ratios[-1]:.2f}"
        )

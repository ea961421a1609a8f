"""Contestants measured in turns in one process, so that what else the machine does strikes all of them alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping

import torch


def clock_of(device: torch.device) -> Callable[[], float]:
    """Seconds: of the processor where one thread does all, which other programs hardly lengthen; else the time."""
    alone = device.type == "cpu" and torch.get_num_threads() == 1
    return time.process_time if alone else time.perf_counter


def in_turns(
    contestants: Mapping[str, Callable[[], object]], rounds: int, clock: Callable[[], float] = time.perf_counter
) -> dict[str, list[float]]:
    """Seconds of every contestant in every round, after one round to warm up."""
    times: dict[str, list[float]] = {name: [] for name in contestants}
    for turn in range(rounds + 1):
        for name, run in contestants.items():
            began = clock()
            run()
            if turn:
                times[name].append(clock() - began)
    return times


def relative(times: Mapping[str, list[float]], base: str) -> dict[str, list[float]]:
    """How many times as fast as `base` each was, round by round, in order of size."""
    return {
        name: sorted(theirs / own for own, theirs in zip(values, times[base], strict=True))
        for name, values in times.items()
    }


def print_rates(times: Mapping[str, list[float]], images: int, base: str) -> None:
    """Median images per second, and the median over rounds of the speed relative to `base`, with its range."""
    print(f"  {'':24} {'images/s':>9} {'ms an image':>12} {'relative speed':>15} {'range':>13}")
    for name, ratios in relative(times, base).items():
        seconds = statistics.median(times[name])
        print(
            f"  {name:24} {images / seconds:9.1f} {1e3 * seconds / images:12.2f} {statistics.median(ratios):15.2f} "
            f"{ratios[0]:6.2f} - {ratios[-1]:.2f}"
        )

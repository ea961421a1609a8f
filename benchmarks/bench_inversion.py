"""Inverting HOG: the shipped network beside gradient descent and HOGgles, same photographs, same cores, in turns.

    python benchmarks/bench_inversion.py [--images PHOTOS] [--photos 4] [--threads 1] [--hoggles FILE] [--train PHOTOS]

Seconds an image (median) by the clock and of processor time, which other programs disturb less; NRE (mean; relative to
the distance between all `--images`). HOGgles' dictionary comes from `--hoggles`, a file of `preimage fit hoggles`, or
is learnt from `--train`; without either its row is left out. `--json FILE` writes the table as JSON too.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from preimage.api import load_inverter, sample_files
from preimage.images import Photos
from preimage.interfaces import Inverter
from preimage.inverters import GradientDescent, PairedDictionary
from preimage.metrics import distance, mean_and_sem, mean_pairwise_distance
from preimage.pairs import EncodedPhotos


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", nargs="+", default=sample_files(), help="by default four sample photographs")
    parser.add_argument("--photos", type=int, default=4, help="how many are inverted")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--hoggles", type=Path)
    parser.add_argument("--train", nargs="+", help="photographs to learn HOGgles' dictionary from")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)

    network = load_inverter("hog")
    representation = network.representation
    photos = Photos.open(options.images, representation.image_size).load()
    originals = next(photos.batches(len(photos)))[1]
    pairs = EncodedPhotos(representation, photos)
    contestants: dict[str, Inverter] = {"network": network}
    if options.hoggles:
        contestants["HOGgles"] = load_inverter(options.hoggles)
    elif options.train:
        known = EncodedPhotos(representation, Photos.open(options.train, representation.image_size).load())
        contestants["HOGgles"] = PairedDictionary(representation).fit(known)
    for method in ("adam", "mahendran"):
        contestants[f"gradient descent, {method}"] = GradientDescent(representation, method).fit(pairs)

    rows = measure(contestants, originals, options.photos)
    print(f"inverting HOG of {len(rows[0]['seconds'])} images, one at a time, threads: {options.threads}")
    print(f"{'':28} {'s an image':>11} {'over network':>13} {'CPU s':>8} {'over network':>13} {'NRE':>16}")
    for row in rows:
        nre, sem = mean_and_sem(row["nre"])
        by_clock = f"{row['seconds_median']:11.3f} {row['seconds_ratio']:13.0f}"
        by_processor = f"{row['cpu_median']:8.3f} {row['cpu_ratio']:13.0f}"
        print(f"{row['inverter']:28} {by_clock} {by_processor} {nre:8.3f} ± {sem:.3f}")
    if options.json:
        options.json.write_text(json.dumps({"threads": options.threads, "rows": rows}, indent=2) + "\n")


def measure(contestants: dict[str, Inverter], originals: Tensor, count: int) -> list[dict[str, Any]]:
    """For every inverter the seconds and the NRE of each of the first `count` photographs."""
    pairwise = mean_pairwise_distance(originals)
    encode = contestants["network"].representation.encode
    contestants["network"].invert(encode(originals[:1]))  # warm up
    rows: list[dict[str, Any]] = [{"inverter": name, "seconds": [], "cpu": [], "nre": []} for name in contestants]
    for image in originals[:count].split(1):
        features = encode(image)
        for row in rows:
            began, cpu_began = time.perf_counter(), time.process_time()
            reconstruction = contestants[row["inverter"]].invert(features)
            row["seconds"].append(time.perf_counter() - began)
            row["cpu"].append(time.process_time() - cpu_began)
            row["nre"].append(float(distance(image, reconstruction)) / pairwise)
    for row in rows:
        for kind in ("seconds", "cpu"):
            row[f"{kind}_median"] = statistics.median(row[kind])
            row[f"{kind}_ratio"] = row[f"{kind}_median"] / rows[0][f"{kind}_median"]
        row["n"] = len(row["seconds"])
    return rows


if __name__ == "__main__":
    main()

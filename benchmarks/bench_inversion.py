"""Inverting HOG: the shipped network beside gradient descent and HOGgles, same photographs, same cores, in turns.

    python benchmarks/bench_inversion.py [--images PHOTOS] [--photos 4] [--threads 1] [--hoggles FILE] [--train PHOTOS]

Seconds an image (median) by the clock and of processor time, which other programs disturb less; NRE (mean; relative to
the distance between all `--images`). HOGgles' dictionary comes from `--hoggles`, a file of `preimage fit hoggles`, or
is learnt from `--train`; without either its row is left out. `--json FILE` writes the table as JSON too.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch

from preimage.analyses.trade_off import in_turns, tabulated
from preimage.api import load_inverter, sample_files
from preimage.images import Photos
from preimage.interfaces import Inverter
from preimage.inverters import GradientDescent, PairedDictionary
from preimage.metrics import mean_pairwise_distance
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

    chosen = originals[: options.photos]
    records, _ = in_turns(contestants, photos.ids[: len(chosen)], chosen, mean_pairwise_distance(originals))
    rows = tabulated(records, list(contestants), "cpu_seconds")
    print(f"inverting HOG of {len(chosen)} images, one at a time, threads: {options.threads}")
    print(f"{'':28} {'s an image':>11} {'over network':>13} {'CPU s':>8} {'over network':>13} {'NRE':>16}")
    for row in rows:
        by_clock, by_processor = (
            f"{float(row[clock]):{width}.3f} {float(row[clock]) / float(rows[0][clock]):13.0f}"
            for clock, width in (("seconds", 11), ("cpu_seconds", 8))
        )
        print(f"{row['inverter']:28} {by_clock} {by_processor} {row['nre']:8.3f} ± {row['nre_sem']:.3f}")
    if options.json:
        options.json.write_text(
            json.dumps({"threads": options.threads, "rows": rows, "records": records}, indent=2) + "\n"
        )


if __name__ == "__main__":
    main()

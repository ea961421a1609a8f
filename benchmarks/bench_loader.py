"""Photographs per second: the training loader beside bare Pillow decoding, of the same bytes by as many threads.

    python benchmarks/bench_loader.py [--images FOLDER] [--size 256] [--count 128] [--rounds 5]

Without --images, crops of scikit-image's photographs are written as JPEG into a temporary folder. Pillow decodes only;
training also crops, scales, mirrors and makes tensors.
"""

from __future__ import annotations

import argparse
import io
import os
import tempfile
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path

from PIL import Image

from preimage.api import sample_files
from preimage.images import Photos, TrainingStream, find_photos
from timing import in_turns, print_rates

BATCH = 32


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", help="photographs; by default made here")
    parser.add_argument("--size", type=int, default=256, help="pixels")
    parser.add_argument("--count", type=int, default=128, help="photographs, a multiple of 32")
    parser.add_argument("--rounds", type=int, default=5, help="times each is measured")
    options = parser.parse_args()
    if options.count < BATCH:
        parser.error(f"--count is at least {BATCH}, a batch")

    with tempfile.TemporaryDirectory() as folder:
        sources = options.images or write_photographs(Path(folder), options.count)
        photos = find_photos(sources).photos[: options.count // BATCH * BATCH]
        if not photos:
            parser.error(f"--images needs at least {BATCH} photographs, a batch")
        contents = [photo.read() for photo in photos]
        from_files = TrainingStream(Photos(photos, options.size), BATCH, seed=0)
        from_memory = TrainingStream(Photos(photos, options.size).load(), BATCH, seed=0)
        steps, threads = len(photos) // BATCH, os.cpu_count() or 1
        print(f"{len(photos)} photographs at {options.size} pixels, {threads} threads, {options.rounds} rounds in turn")
        with ThreadPoolExecutor(threads) as pool:
            contestants = {
                "Pillow": lambda: list(pool.map(decode, contents)),
                "photographs in order": lambda: list(Photos(photos, options.size).batches(BATCH)),
                "training, from files": lambda: list(islice(from_files.batches(0), steps)),
                "training, from memory": lambda: list(islice(from_memory.batches(0), steps)),
            }
            print_rates(in_turns(contestants, options.rounds), len(photos), "Pillow")


def decode(content: bytes) -> Image.Image:
    return Image.open(io.BytesIO(content)).convert("RGB")


def write_photographs(folder: Path, count: int) -> Path:
    """JPEGs of 400 x 300 pixels cut from the sample photographs."""
    samples = [Image.open(file).convert("RGB").resize((640, 480)) for file in sample_files()]
    for index in range(count):
        x, y = index * 37 % 240, index * 23 % 180
        samples[index % len(samples)].crop((x, y, x + 400, y + 300)).save(folder / f"{index:04d}.jpg", quality=90)
    return folder


if __name__ == "__main__":
    main()

"""Photographs in: folders, files, tar shards, parquet and hub data, all through one decoder. Pictures out: PNG.

Listing is separate from decoding: `find_photos` says what there is, `Photos` reads it at one size.
"""

from __future__ import annotations

from preimage.images.photos import Photos, at_most, split, total_memory, warn_left_out
from preimage.images.pictures import (
    SUFFIXES,
    Fit,
    Pixels,
    decode,
    grey,
    resize,
    save_image,
    to_picture,
    to_pixels,
    to_tensor,
    whole,
)
from preimage.images.sources import Sources, absolute, check_places, find_photos, source_list, sources_in_words
from preimage.images.stream import Augmentation, TrainingStream, in_advance, views_of

__all__ = [
    "SUFFIXES",
    "Augmentation",
    "Fit",
    "Photos",
    "Pixels",
    "Sources",
    "TrainingStream",
    "absolute",
    "at_most",
    "check_places",
    "decode",
    "find_photos",
    "grey",
    "in_advance",
    "resize",
    "save_image",
    "source_list",
    "sources_in_words",
    "split",
    "to_picture",
    "to_pixels",
    "to_tensor",
    "total_memory",
    "views_of",
    "warn_left_out",
    "whole",
]

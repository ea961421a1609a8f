"""The paper's own feature library, called through ctypes: an exact oracle. Debian: apt-get install libvlfeat1."""

from __future__ import annotations

import ctypes
import ctypes.util
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

UOCTTI = 1

Floats = npt.NDArray[np.float32]


def load() -> ctypes.CDLL:
    """The library, or skip the test that needs it."""
    candidates = [ctypes.util.find_library("vl"), *map(str, Path("/usr/lib").glob("*/libvl.so*"))]
    for candidate in filter(None, candidates):
        try:
            return ctypes.CDLL(candidate)
        except OSError:
            continue
    pytest.skip("VLFeat is not installed (Debian: apt-get install libvlfeat1 libvlfeat-dev)")


def hog(grey_image: Floats, cell_size: int = 8, num_orientations: int = 9) -> Floats:
    """Grey image (H, W) -> UoCTTI features (3K + 4, h, w) from `vl_hog_extract`."""
    library = load()
    library.vl_hog_new.restype = ctypes.c_void_p
    for getter in (library.vl_hog_get_width, library.vl_hog_get_height, library.vl_hog_get_dimension):
        getter.restype = ctypes.c_size_t
    size = ctypes.c_size_t
    handle = ctypes.c_void_p(library.vl_hog_new(UOCTTI, size(num_orientations), 0))
    try:
        pixels = np.ascontiguousarray(grey_image, dtype=np.float32)
        height, width = pixels.shape
        library.vl_hog_put_image(
            handle, pixels.ctypes.data_as(ctypes.c_void_p), size(width), size(height), size(1), size(cell_size)
        )
        shape = (
            library.vl_hog_get_dimension(handle),
            library.vl_hog_get_height(handle),
            library.vl_hog_get_width(handle),
        )
        features = np.empty(shape, dtype=np.float32)
        library.vl_hog_extract(handle, features.ctypes.data_as(ctypes.c_void_p))
        return features
    finally:
        library.vl_hog_delete(handle)


def lbp(grey_image: Floats, cell_size: int = 16) -> Floats:
    """Grey image (H, W) -> uniform local binary patterns (58, h, w) from `vl_lbp_process`."""
    library = load()
    library.vl_lbp_new.restype = ctypes.c_void_p
    size = ctypes.c_size_t
    handle = ctypes.c_void_p(library.vl_lbp_new(0, 0))
    try:
        pixels = np.ascontiguousarray(grey_image, dtype=np.float32)
        height, width = pixels.shape
        features = np.zeros((58, height // cell_size, width // cell_size), dtype=np.float32)
        library.vl_lbp_process(
            handle,
            features.ctypes.data_as(ctypes.c_void_p),
            pixels.ctypes.data_as(ctypes.c_void_p),
            size(width),
            size(height),
            size(cell_size),
        )
        return features
    finally:
        library.vl_lbp_delete(handle)


class Keypoint(ctypes.Structure):
    """VlSiftKeypoint of `vl/sift.h`."""

    _fields_ = [
        ("o", ctypes.c_int), ("ix", ctypes.c_int), ("iy", ctypes.c_int), ("is_", ctypes.c_int),
        ("x", ctypes.c_float), ("y", ctypes.c_float), ("s", ctypes.c_float), ("sigma", ctypes.c_float),
    ]  # fmt: skip


class Filter(ctypes.Structure):
    """VlSiftFilt of `vl/sift.h`, up to the keypoints: their accessors are inline, so not in the library."""

    _fields_ = [
        *[(f"parameter{index}", ctypes.c_double) for index in range(4)],
        *[(f"size{index}", ctypes.c_int) for index in range(8)],
        *[(f"buffer{index}", ctypes.c_void_p) for index in range(3)],
        ("octave_width", ctypes.c_int), ("octave_height", ctypes.c_int), ("gauss_filter", ctypes.c_void_p),
        ("gauss_sigma", ctypes.c_double), ("gauss_width", ctypes.c_size_t),
        ("keys", ctypes.POINTER(Keypoint)), ("nkeys", ctypes.c_int),
    ]  # fmt: skip


def sift(grey_image: Floats) -> tuple[Floats, Floats]:
    """Grey image (H, W) -> frames (K, 4) as (x, y, scale, angle) and descriptors (K, 128), as `vl_sift_*` give them."""
    library = load()
    library.vl_sift_new.restype = ctypes.POINTER(Filter)
    pixels = np.ascontiguousarray(grey_image, dtype=np.float32)
    height, width = pixels.shape
    handle = library.vl_sift_new(width, height, -1, 3, 0)
    frames, descriptors = [], []
    try:
        failed = library.vl_sift_process_first_octave(handle, pixels.ctypes.data_as(ctypes.c_void_p))
        while not failed:
            library.vl_sift_detect(handle)
            for index in range(handle.contents.nkeys):
                keypoint = handle.contents.keys[index]
                angles = (ctypes.c_double * 4)()
                count = library.vl_sift_calc_keypoint_orientations(handle, angles, ctypes.byref(keypoint))
                for angle in angles[:count]:
                    descriptor = np.zeros(128, np.float32)
                    library.vl_sift_calc_keypoint_descriptor(
                        handle,
                        descriptor.ctypes.data_as(ctypes.c_void_p),
                        ctypes.byref(keypoint),
                        ctypes.c_double(angle),
                    )
                    frames.append((keypoint.x, keypoint.y, keypoint.sigma, angle))
                    descriptors.append(descriptor)
            failed = library.vl_sift_process_next_octave(handle)
    finally:
        library.vl_sift_delete(handle)
    return np.array(frames, np.float32).reshape(-1, 4), np.array(descriptors, np.float32).reshape(-1, 128)

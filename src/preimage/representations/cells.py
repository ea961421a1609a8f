"""Histograms over square cells with bilinear pooling: what HOG and LBP have in common.

A pixel votes for one bin, and for the four cells around it in proportion to how near their centres lie. So all pixels
between the same four cell centres form a *bag*, and what they give to the cells is a sum over the bag of rows of a
small table: `embedding_bag`, one pass over the pixels instead of one for each bin. (VLFeat pools in the same way:
`vl/hog.c`, `vl/lbp.c`.)
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from preimage.errors import ImageError


def whole_cells(height: int, width: int, cell_size: int) -> tuple[int, int]:
    """(rows, columns) of cells in an image; raises `ImageError` unless they fill it."""
    if height % cell_size or width % cell_size:
        raise ImageError(f"cell_size={cell_size} does not divide an image of {width} x {height} pixels")
    return height // cell_size, width // cell_size


def cell_histograms(codes: Tensor, votes: Tensor, cell_size: int, bin_of_code: Sequence[int], num_bins: int) -> Tensor:
    """Codes (N, H, W) int32 and votes (N, H, W) -> histograms (N, num_bins, H // cell_size, W // cell_size).

    `bin_of_code` says which bin a code stands for; `votes` are the weights of the pixels.
    """
    num_images, height, width = codes.shape
    rows, columns = height // cell_size, width // cell_size

    # The cell centres cut the image into (rows + 1) x (columns + 1) bags; those at the border reach over the edge. What
    # is left over at the right and at the bottom, where no whole cell fits, still votes for the last cells.
    before = cell_size - cell_size // 2
    right, bottom = (columns + 1) * cell_size - before - width, (rows + 1) * cell_size - before - height

    def in_bags(values: Tensor) -> Tensor:
        padded = F.pad(values, (before, right, before, bottom))  # negative padding cuts off what is too far to vote
        bags = padded.view(num_images, rows + 1, cell_size, columns + 1, cell_size).transpose(2, 3)
        return bags.reshape(-1, cell_size, cell_size)

    table, nearness = vote_table(cell_size, tuple(bin_of_code), num_bins, codes.device)
    places = torch.arange(cell_size, dtype=torch.int32, device=codes.device)
    entries = (in_bags(codes) * cell_size + places).flatten(1)
    bagged, histograms = in_bags(votes), torch.zeros((), device=codes.device)
    for lower in (0, 1):
        weights = (bagged * nearness[lower].to(votes.dtype)[:, None]).flatten(1)
        sums = F.embedding_bag(entries, table.to(votes.dtype), per_sample_weights=weights, mode="sum")
        sums = sums.view(num_images, rows + 1, columns + 1, 2, num_bins)
        own = sums[:, :-1] if lower else sums[:, 1:]  # a bag's lower cells are in the row of cells below it
        histograms = histograms + own[:, :, 1:, 0] + own[:, :, :-1, 1]
    return histograms.permute(0, 3, 1, 2)


@lru_cache(maxsize=16)
@torch.inference_mode(False)  # what is kept may be used again where gradients are wanted
def vote_table(
    cell_size: int, bin_of_code: tuple[int, ...], num_bins: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Table (codes * cell_size, 2 * num_bins) and nearness (2, cell_size).

    Nearness says how much a pixel at a place along a bag belongs to the cell before and behind; the table holds it for
    the left and the right cell, in the bin of every code.
    """
    # A bag's first pixel lies half a pixel behind a cell centre (even cell_size) or upon it (odd).
    behind = (torch.arange(cell_size) + cell_size // 2 + 0.5) / cell_size - 0.5
    nearness = torch.stack([1 - behind, behind])
    table = torch.zeros(len(bin_of_code), cell_size, 2, num_bins)
    for code, number in enumerate(bin_of_code):
        table[code, :, :, number] = nearness.T
    return table.flatten(2).flatten(0, 1).to(device), nearness.to(device)

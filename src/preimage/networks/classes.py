"""What the networks here classify into: the 1,000 classes of ILSVRC 2012 (Russakovsky et al. 2015).

They are sets of synonyms in WordNet 3.0 (Princeton University), in the order of its numbers; `classes.txt` holds the
first word of each.
"""

from __future__ import annotations

from functools import cache
from importlib.resources import files


@cache
def class_names() -> list[str]:
    """Their names, in the order of the networks' outputs; two occur twice (crane, maillot)."""
    return files("preimage.networks").joinpath("classes.txt").read_text(encoding="utf-8").splitlines()

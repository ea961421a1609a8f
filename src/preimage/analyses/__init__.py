"""Every analysis by name. A new one is one new file and one line here."""

from __future__ import annotations

from preimage.analyses.confidence import ConfidenceMap
from preimage.analyses.detail import Detail
from preimage.analyses.perturbation import Brightness
from preimage.analyses.place import Place
from preimage.analyses.recognition import Class, Identity
from preimage.analyses.retention import Colour, Lightness
from preimage.findings import Analysis

KINDS: tuple[type[Analysis], ...] = (
    Brightness,
    Detail,
    Place,
    Colour,
    Lightness,
    Identity,
    Class,
    ConfidenceMap,
)

ANALYSES: dict[str, type[Analysis]] = {kind.name: kind for kind in KINDS}

__all__ = ["ANALYSES", "Analysis"]

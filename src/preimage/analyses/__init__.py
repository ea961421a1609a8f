"""Every analysis by name. A new one is one new file and one line here."""

from __future__ import annotations

from typing import Any

from preimage.analyses.attributes import Hue
from preimage.analyses.confidence import ConfidenceMap
from preimage.analyses.detail import Detail
from preimage.analyses.interpolation import Interpolation
from preimage.analyses.perturbation import Brightness, Code, DarkKnowledge
from preimage.analyses.place import Place
from preimage.analyses.recognition import Class, Identity
from preimage.analyses.retention import Colour, Lightness
from preimage.analyses.sampling import RandomFeatures
from preimage.analyses.trade_off import TradeOff
from preimage.errors import UnknownNameError
from preimage.findings import Analysis
from preimage.plain import build

KINDS: tuple[type[Analysis], ...] = (
    Detail,
    Place,
    Colour,
    Lightness,
    Identity,
    Class,
    ConfidenceMap,
    TradeOff,
    Brightness,
    Hue,
    DarkKnowledge,
    Code,
    Interpolation,
    RandomFeatures,
)

ANALYSES: dict[str, type[Analysis]] = {kind.name: kind for kind in KINDS}


def get_analysis(name: str, **settings: Any) -> Analysis:
    """The analysis of that name with the given settings: `get_analysis("brightness", factors=[2, 4])`."""
    if name not in ANALYSES:
        raise UnknownNameError("analysis", name, ANALYSES)
    return build(ANALYSES[name], settings, name)


__all__ = ["ANALYSES", "Analysis", "get_analysis"]

"""Every analysis by name. A new one is one new file and one line here."""

from __future__ import annotations

from preimage.analyses.perturbation import Brightness
from preimage.findings import Analysis

ANALYSES: dict[str, type[Analysis]] = {kind.name: kind for kind in (Brightness,)}

__all__ = ["ANALYSES", "Analysis"]

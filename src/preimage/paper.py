"""What the paper reports, and whether its findings show in what is measured here.

Dosovitskiy & Brox, *Inverting Visual Representations with Convolutional Networks*, CVPR 2016. Its numbers and findings
are recalled, not read off a document at hand; every page says so.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from preimage.metrics import paired_difference
from preimage.words import plus_minus

# NRE on part of ImageNet's validation set: by representation, then method.
NRE: dict[str, dict[str, float]] = {
    "hog": {"upconv": 0.24, "hoggles": 0.61, "gradient-descent": 0.63},
    "sift": {"upconv": 0.28},
    "lbp": {"upconv": 0.38},
    "caffenet.conv5": {"upconv": 0.35, "gradient-descent": 0.71},
    "caffenet.fc6": {"upconv": 0.51, "gradient-descent": 0.80},
    "caffenet.fc7": {"upconv": 0.56, "gradient-descent": 0.82},
    "caffenet.fc8": {"upconv": 0.58, "gradient-descent": 0.84},
}
PHOTOGRAPHS = 1_200_000  # ImageNet's training set
NETWORKS = ("caffenet", "bvlc_alexnet", "alexnet")  # the paper's, and those that can stand for it, nearest first

HARDLY = 0.05  # a difference in NRE up to which the error hardly changes

Errors = Mapping[str, Mapping[str, float]]  # condition or method -> photograph -> NRE


@dataclass(frozen=True)
class Claim:
    """A finding of the paper: under one condition the error is larger than under another, or hardly larger."""

    words: str
    worse: str
    better: str
    hardly: bool = False


OF_METHODS = (
    Claim("A trained network errs less than HOGgles.", "hoggles", "upconv"),
    Claim("A trained network errs less than gradient descent.", "gradient-descent", "upconv"),
    Claim("Features of another photograph do not serve as well.", "other-image", "upconv"),
)
OF_HAND_MADE = (Claim("SIFT keeps less than HOG.", "sift", "hog"), Claim("LBP keeps less than SIFT.", "lbp", "sift"))
OF_BRIGHTNESS = (
    Claim("Ten times as bright, the reconstruction hardly changes.", "×10", "×1", hardly=True),
    Claim("A hundred times as bright, the reconstruction hardly changes.", "×100", "×1", hardly=True),
)
OF_DARK_KNOWLEDGE = (
    Claim("Without the 5 largest scores the reconstruction looks as with all.", "all but the 5 largest", "all scores",
          hardly=True),
    Claim("The 5 largest alone serve worse than all the others.", "only the 5 largest", "all but the 5 largest"),
)  # fmt: skip
OF_CODE = (
    Claim("Dropping at random hurts more than binarising.", "50% dropped", "binarised"),
    Claim("Dropping the least hurts less than dropping at random.", "binarised, 50% dropped",
          "binarised, least 50% dropped"),
    Claim("Dropping the least hurts little.", "binarised, least 50% dropped", "binarised", hardly=True),
)  # fmt: skip
SENSITIVE = Claim("Perturbations harm an autoencoder more.", "autoencoder", "inverter")


def verdict(claim: Claim, errors: Errors) -> tuple[str, str, str]:
    """("shows", difference in NRE with its standard error, n), from differences photograph by photograph.

    What lies within two standard errors is undecided.
    """
    if missing := [name for name in (claim.worse, claim.better) if name not in errors]:
        return f"not measured: {' and '.join(missing)}", "", ""
    difference, sem, n = paired_difference(errors[claim.worse], errors[claim.better])
    margin = HARDLY - difference if claim.hardly else difference
    words = "undecided"
    if abs(margin) > 2 * sem:
        words = "shows" if margin > 0 else "does not show"
    return words, plus_minus(difference, sem, sign="+"), str(n)


def recalled(representation: str) -> dict[str, float]:
    """The paper's errors of a representation by method, those of CaffeNet for the same layer of its kin; or none."""
    network, dot, layer = representation.partition(".")
    return NRE.get(f"{NETWORKS[0]}{dot}{layer}" if network in NETWORKS else representation, {})

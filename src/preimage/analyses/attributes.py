"""One attribute of a photograph changed: does the reconstruction follow, and what does a classifier say?"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from preimage.analyses.conditions import encoded, inverted, records_of, resized
from preimage.analyses.recognition import chance_in_words
from preimage.errors import SettingsError
from preimage.findings import Analysis, Finding, Plot, Record, Sheet, mean_in_words, points, summarise
from preimage.interfaces import Inverter, Representation
from preimage.metrics import COLOURLESS, ab, wilson
from preimage.networks import NETWORKS
from preimage.networks.classes import class_names
from preimage.representations import ModuleLayer, get_representation

CLASSIFIER = "efficientnet_lite0.prob"  # where the inverted network has no class probabilities of its own
FAINT = 1 / 255  # chroma: what is less coloured than one level of one colour has no hue
NEAR = 30.0  # degrees, half the way from red to yellow: a turn so near to another counts as the same


@dataclass(frozen=True)
class Hue(Analysis):
    """Every hue turned by some degrees; the same class? the same turn and colour in the reconstruction?

    `hue_shift` is read off the reconstructions before and after, pixel by pixel: the circular mean of the angles
    between them, weighted by chroma; its standard error is that of leaving out each photograph (jackknife).
    `colour_error` is the mean distance in the a and b of CIELAB between the reconstruction and the turned photograph,
    `grey_error` that of a picture without colour. The sheet shows the `photographs` with the most chroma.
    """

    name: ClassVar[str] = "hue"
    question: ClassVar[str] = "Does the reconstruction follow a change of colour, and does the class?"
    columns: ClassVar[Mapping[str, str]] = {
        "degrees": "hue turned by, degrees",
        "colour_error": "colour error, CIELAB units ↓",
        "grey_error": "the same without any colour",
        "hue_shift": "hue of the reconstructions turned by, degrees",
        "confidence": "probability of the likeliest class",
    }
    degrees: tuple[float, ...] = (0.0, 120.0, 240.0)
    photographs: int = 4

    def __post_init__(self) -> None:
        near = [turn for turn in self.degrees if turn % 360 and abs(wrapped(turn)) <= NEAR]
        if near:
            raise SettingsError(f"a turn of {near[0]:g}° counts as none: take 0, or more than {NEAR:g}°")

    def analyse(self, inverter: Inverter, ids: Sequence[str], images: Tensor) -> Finding:
        classifier = classifier_of(inverter)
        chosen = on_circle(images.cpu()).abs().mean(dim=(1, 2)).argsort(descending=True)[: self.photographs]
        before = inverted(inverter, encoded(inverter.representation, images)).cpu()
        columns: dict[str, Tensor] = {}
        records: list[Record] = []
        turns: dict[float, Tensor] = {}
        for turn in dict.fromkeys(self.degrees):
            turned = turn_hue(images, turn)
            pictures = inverted(inverter, encoded(inverter.representation, turned)).cpu() if turn % 360 else before
            probability, predicted = classifier.probabilities(turned).cpu().max(dim=1)
            turned = turned.cpu()
            columns |= {f"{turn:g}°": turned[chosen], f"{turn:g}°, reconstruction": pictures[chosen]}
            wanted = ab(turned)
            values = {
                "class": predicted,
                "confidence": probability,
                "colour_error": (wanted - ab(pictures)).norm(dim=1).mean(dim=(1, 2)),
                "grey_error": wanted.norm(dim=1).mean(dim=(1, 2)),
            }
            turns[turn] = turned_by(before, pictures)
            values |= {"hue_shift": degrees_of(turns[turn]), "hue_weight": turns[turn].abs()}
            records += records_of(ids, {"degrees": turn}, values)
        table = summarise(records, ["degrees"], ["colour_error", "grey_error", "confidence"])
        for row in table:
            row["hue_shift"], row["hue_shift_sem"] = mean_turn(turns[float(row["degrees"])])
        captions = [caption(ids[place], records, classifier) for place in chosen.tolist()]
        return Finding(
            self.name,
            self.question,
            f"{shifts_in_words(table)} {errors_in_words(table)} {classes_in_words(records, table, classifier.name)}",
            table,
            records,
            [shift_plot(table), error_plot(table)],
            [Sheet(columns, captions)],
        )


# --- in words and figures ---------------------------------------------------------------------------------------------


def shifts_in_words(table: Sequence[Record]) -> str:
    """By how much the hue of the reconstructions turned, and whether that is the turn of the photographs."""
    rows = [row for row in table if float(row["degrees"]) % 360]
    if not rows:
        return "No hue was turned."
    if all(float(row["grey_error"]) < COLOURLESS for row in rows):
        return "The photographs have no colour whose hue could turn."
    if any(math.isnan(float(row["hue_shift"])) for row in rows):
        return "The reconstructions have no colour whose hue could turn."
    read = ", ".join(f"by {mean_in_words(row, 'hue_shift', 1)}° where it was {row['degrees']:g}°" for row in rows)
    return f"The hue of the reconstructions turned {read} (n = {rows[0]['n']}): {verdict(rows)}."


def verdict(rows: Sequence[Record]) -> str:
    """Whether the turns read off are those given, or none."""
    given, found = ([float(row[key]) for row in rows] for key in ("degrees", "hue_shift"))
    near = [min(NEAR, abs(wrapped(turn)) / 2) for turn in given]  # a turn must be nearer to that given than to none
    if not all(float(row["hue_shift_sem"]) < reach for row, reach in zip(rows, near, strict=True)):
        return "too unsure to say whether it follows the photograph's"
    if all(abs(wrapped(one - turn)) <= reach for one, turn, reach in zip(found, given, near, strict=True)):
        return "it follows the photograph's"
    if all(abs(wrapped(one)) <= NEAR for one in found):
        return "it does not follow the photograph's"
    return "it turns otherwise than the photograph's"


def errors_in_words(table: Sequence[Record]) -> str:
    errors = [
        f"{mean_in_words(row, 'colour_error', 1)} at {row['degrees']:g}° "
        f"({mean_in_words(row, 'grey_error', 1)} without colour)"
        for row in table
    ]
    return f"Colour error of the reconstructions, in CIELAB units: {', '.join(errors)}."


def classes_in_words(records: Sequence[Record], table: Sequence[Record], classifier: str) -> str:
    """How many photographs keep their class under every hue, and how sure the classifier is."""
    classes: dict[str | float, set[str | float]] = {}
    for record in records:
        classes.setdefault(record["id"], set()).add(record["class"])
    kept = sum(len(own) == 1 for own in classes.values())
    low, high = wilson(kept / len(classes), len(classes))
    sure = ", ".join(f"{mean_in_words(row, 'confidence')} at {row['degrees']:g}°" for row in table)
    return (
        f"{kept} of {len(classes)} photographs keep their class under every hue (95 % interval {100 * low:.0f} to "
        f"{100 * high:.0f} %), says {classifier}; the probability of the class it names is {sure}."
    )


def caption(one: str, records: Sequence[Record], classifier: Classifier) -> str:
    """A photograph and what it is taken for under every hue."""
    said = [
        f"{record['degrees']:g}°: {classifier.class_name(int(record['class']))}, "
        f"{chance_in_words(float(record['confidence']))}"
        for record in records
        if record["id"] == one
    ]
    return "\n".join([one, *said])


def shift_plot(table: Sequence[Record]) -> Plot:
    """Turns read off reconstructions, as bars; those given are the names of the groups."""
    read = points(table, "hue_shift")
    groups = [f"{row['degrees']:g}°" for row in table]
    x_label, y_label = "hue of the photographs turned by", "turn of the reconstructions, degrees"
    return Plot(x_label, y_label, {"reconstructions": read}, "bars", groups)


def error_plot(table: Sequence[Record]) -> Plot:
    series = {
        "reconstruction": points(table, "colour_error"),
        "without colour": points(table, "grey_error"),
    }
    y_label = "colour error, CIELAB units (lower is better)"
    groups = [f"{row['degrees']:g}°" for row in table]
    return Plot("hue of the photographs turned by", y_label, series, "bars", groups)


# --- what is done to photographs, and asked of them -------------------------------------------------------------------


@dataclass(frozen=True)
class Classifier:
    """A layer that gives class probabilities."""

    layer: Representation
    name: str
    network: str

    def probabilities(self, images: Tensor) -> Tensor:
        """Images (N, 3, S, S) -> class probabilities (N, K)."""
        return encoded(self.layer, resized(images, self.layer.image_size))

    def class_name(self, number: int) -> str:
        return class_names()[number] if self.network in NETWORKS else f"class {number}"


def classifier_of(inverter: Inverter) -> Classifier:
    """The inverted network itself if it gives class probabilities, else another one.

    Of an autoencoder it is the network as it was: the trained one classifies no more.
    """
    own = inverter.origin.uncached
    if isinstance(own, ModuleLayer) and "prob" in dict(own.module.named_children()):
        network = own.name.partition(".")[0]
        layer = ModuleLayer(own.module, "prob", own.preprocessing)
        return Classifier(layer, f"{network}, the network that was inverted", network)
    return Classifier(get_representation(CLASSIFIER), CLASSIFIER, CLASSIFIER.partition(".")[0])


def turn_hue(images: Tensor, degrees: float) -> Tensor:
    """Images (N, 3, H, W) in [0, 1] with every hue turned by an angle; greys stay as they are."""
    from skimage.color import hsv2rgb, rgb2hsv

    hsv = rgb2hsv(images.cpu().numpy(), channel_axis=1)
    hsv[:, 0] = (hsv[:, 0] + degrees / 360) % 1
    turned = torch.from_numpy(hsv2rgb(hsv, channel_axis=1)).to(images)
    return turned.clamp(0, 1)


def on_circle(images: Tensor) -> Tensor:
    """Images (N, 3, H, W) -> complex numbers (N, H, W): the angle is the hue, 0 for red, the length the chroma.

    Exactly that of `turn_hue` for a third of the circle, off by a degree at most between.
    """
    red, green, blue = images.double().unbind(dim=1)
    return torch.complex(red - (green + blue) / 2, math.sqrt(3) / 2 * (green - blue))


def turned_by(before: Tensor, after: Tensor) -> Tensor:
    """From one picture to another, complex (N,): the angle is the mean turn of the hue, 0 where colour is too faint."""
    first, second = on_circle(before), on_circle(after)
    products = (second * first.conj()).mean(dim=(1, 2))
    coloured = (second.abs() * first.abs()).mean(dim=(1, 2)) > FAINT**2
    return torch.where(coloured, products, 0)


def degrees_of(turns: Tensor) -> Tensor:
    """Complex (N,) -> degrees from -90 to 270, so that turns of 0, 120 and 240 are far from the ends; or NaN."""
    degrees = (turns.angle().rad2deg() + 90) % 360 - 90
    return torch.where(turns.abs() > 0, degrees, torch.nan)


def wrapped(degrees: float) -> float:
    """The same angle from -180 to 180 degrees."""
    return (degrees + 180) % 360 - 180


def mean_turn(turns: Tensor) -> tuple[float, float]:
    """Of several photographs (N,) -> degrees and standard error, by leaving out each photograph (jackknife)."""
    whole, n = turns.sum(), len(turns)
    moved = ((whole - turns) * whole.conj()).angle().rad2deg()
    sem = float(((n - 1) / n * (moved - moved.mean()).square().sum()).sqrt()) if n > 1 else math.nan
    return float(degrees_of(whole[None])), sem

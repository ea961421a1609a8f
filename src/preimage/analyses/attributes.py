"""One attribute of a photograph changed: does the reconstruction follow, and what does a classifier say?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from preimage.analyses.perturbation import encoded, inverted
from preimage.analyses.recognition import resized
from preimage.findings import Analysis, Finding, Plot, Record, Sheet, summarise
from preimage.interfaces import Inverter, Representation
from preimage.metrics import ab
from preimage.representations import ModuleLayer, get_representation

CLASSIFIER = "efficientnet_lite0.prob"  # where the inverted network has no class probabilities of its own


@dataclass(frozen=True)
class Hue(Analysis):
    """The hue of the first `photographs` turned by some degrees; the same class? the same colour in the reconstruction?

    `colour_error` is the mean distance in the a and b of CIELAB between the reconstruction and the turned photograph.
    """

    name: ClassVar[str] = "hue"
    question: ClassVar[str] = "Does the reconstruction follow a change of colour, and does the class?"
    degrees: tuple[float, ...] = (0.0, 120.0, 240.0)
    photographs: int = 4

    def analyse(self, inverter: Inverter, ids: Sequence[str], images: Tensor) -> Finding:
        classify, classifier = classifier_of(inverter)
        images, ids = images[: self.photographs], ids[: self.photographs]
        records: list[Record] = []
        columns: dict[str, Tensor] = {}
        for turn in self.degrees:
            turned = turn_hue(images, turn)
            pictures = inverted(inverter, encoded(inverter.representation, turned))
            columns |= {f"{turn:g}°": turned.cpu(), f"{turn:g}°, reconstruction": pictures.cpu()}
            confidence, predicted = classify(turned).max(dim=1)
            off = (ab(turned.cpu()) - ab(pictures.cpu())).norm(dim=1).mean(dim=(1, 2))
            for place, name in enumerate(ids):
                records.append(
                    {
                        "id": name,
                        "degrees": turn,
                        "class": int(predicted[place]),
                        "confidence": float(confidence[place]),
                        "colour_error": float(off[place]),
                    }
                )
        table = summarise(records, ["degrees"], ["colour_error", "confidence"])
        errors = [(float(place), float(row["colour_error"]), float(row["colour_error_sem"]))
                  for place, row in enumerate(table)]  # fmt: skip
        plot = Plot(self.question, "hue turned by", "colour error of the reconstruction, CIELAB units",
                    {"colour error": errors}, "bars", [f"{turn:g}°" for turn in self.degrees])  # fmt: skip
        answer = f"{in_words(records, classifier)} Colour error of the reconstructions, in CIELAB units: "
        answer += ", ".join(f"{row['colour_error']:.1f} at {row['degrees']:g}°" for row in table) + "."
        return Finding(
            self.name, self.question, answer, table, records, [plot], [Sheet(self.question, columns, list(ids))]
        )


def in_words(records: Sequence[Record], classifier: str) -> str:
    """How many photographs keep their class under every hue, and what each was taken for."""
    classes: dict[str | float, list[Record]] = {}
    for record in records:
        classes.setdefault(record["id"], []).append(record)
    kept = sum(len({record["class"] for record in own}) == 1 for own in classes.values())
    said = [
        f"{name}: " + ", ".join(f"class {one['class']} ({one['confidence']:.0%}) at {one['degrees']:g}°" for one in own)
        for name, own in classes.items()
    ]
    start = f"{kept} of {len(classes)} photographs keep their class under every hue, says {classifier}"
    return f"{start} ({'; '.join(said)})."


def classifier_of(inverter: Inverter) -> tuple[Callable[[Tensor], Tensor], str]:
    """Images (N, 3, S, S) -> class probabilities (N, K), by the inverted network itself if it has any; and its name.

    Of an autoencoder it is the network as it was: the trained one classifies no more.
    """
    own = inverter.origin.uncached
    if isinstance(own, ModuleLayer) and "prob" in dict(own.module.named_children()):
        layer: Representation = ModuleLayer(own.module, "prob", own.preprocessing)
        name = f"{own.name.partition('.')[0]}, the network that was inverted"
    else:
        layer, name = get_representation(CLASSIFIER), CLASSIFIER

    def classify(images: Tensor) -> Tensor:
        return encoded(layer, resized(images, layer.image_size))

    return classify, name


def turn_hue(images: Tensor, degrees: float) -> Tensor:
    """Images (N, 3, H, W) in [0, 1] with every hue turned by an angle; greys stay as they are."""
    from skimage.color import hsv2rgb, rgb2hsv

    hsv = rgb2hsv(images.cpu().numpy(), channel_axis=1)
    hsv[:, 0] = (hsv[:, 0] + degrees / 360) % 1
    turned = torch.from_numpy(hsv2rgb(hsv, channel_axis=1)).to(images)
    return turned.clamp(0, 1)

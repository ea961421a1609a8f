"""One synthetic picture, the same everywhere: by its features a file of inverters knows the network it belongs to.

A hash of the weights tells any two networks apart, be it by a rounding. The features of a probe tell how far apart they
are: the same network in float16 or with quantised weights is close, another one is not.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from preimage.files import replace
from preimage.images import Pixels, to_tensor
from preimage.interfaces import Representation

VERSION = 1  # raised when the picture changes
MOST = 4096  # features that are kept
SAME_ARITHMETIC = 1e-4  # relative: the same arithmetic in another order
LIMIT = 0.02  # relative: the same weights rounded to float16 or quantised


def probe_picture(height: int, width: int) -> Pixels:
    """Gradients, edges, stripes, a disc, a ring and a triangle on (height, width, 3), from a formula."""
    x, y = ((np.arange(size) + 0.5) / size for size in (width, height))
    x, y = x[None, :], y[:, None]
    red, green = 0.15 + 0.6 * x + 0 * y, 0.15 + 0.6 * y + 0 * x
    blue = 0.5 + 0.3 * np.cos(2 * np.pi * (x + 0.5 * y))
    picture = np.stack([red, green, blue], axis=-1)
    disc = np.hypot(x - 0.28, y - 0.3)
    ring = np.hypot(x - 0.7, y - 0.66)
    shapes = [
        (disc < 0.16, (0.9, 0.25, 0.1)),
        ((ring > 0.12) & (ring < 0.2), (0.1, 0.2, 0.8)),
        ((y > 0.6) & (y < 0.9) & (np.abs(x - 0.25) < 0.5 * (y - 0.6)), (0.95, 0.9, 0.3)),
        ((x > 0.58) & (x < 0.94) & (y > 0.08) & (y < 0.36) & (np.sin(60 * np.pi * x**2) > 0), (0.05, 0.05, 0.05)),
        ((np.abs(x - y - 0.1) < 0.012), (1.0, 1.0, 1.0)),
    ]
    for inside, colour in shapes:
        picture[inside] = colour
    return np.round(picture * 255).clip(0, 255).astype(np.uint8)


@dataclass(frozen=True)
class Probe:
    """What a representation makes of the probe picture at its own size; of many features, a random part."""

    feature_shape: tuple[int, ...]
    positions: Tensor  # (K,) int32, in the flattened features
    features: Tensor  # (K,) float32

    @classmethod
    def of(cls, representation: Representation) -> Probe:
        features = encode_probe(representation)
        total = features.numel()
        chosen = np.random.default_rng(0).permutation(total)[:MOST]
        positions = torch.from_numpy(np.sort(chosen).astype(np.int32))
        return cls(tuple(features.shape), positions, features.flatten()[positions.long()])

    @property
    def tensors(self) -> dict[str, Tensor]:
        """What a file keeps of it beside `VERSION` and the shape of the features."""
        return {"probe.positions": self.positions, "probe.features": self.features}

    def save(self, file: Path) -> None:
        facts = {"version": str(VERSION), "feature_shape": json.dumps(self.feature_shape)}
        replace(file, save(self.tensors, metadata=facts))

    @classmethod
    def read(cls, file: Path) -> Probe | None:
        """What `save` wrote; None where there is none that can be read, or of another picture."""
        try:
            with safe_open(file, framework="pt") as content:
                facts = content.metadata()
                if facts["version"] != str(VERSION):
                    return None
                tensors = [content.get_tensor(f"probe.{name}") for name in ("positions", "features")]
                return cls(tuple(json.loads(facts["feature_shape"])), *tensors)
        except (OSError, SafetensorError, KeyError, TypeError, ValueError):
            return None

    def difference(self, representation: Representation) -> float:
        """How far features of the probe are from these, relative to their norm; infinite for another shape.

        Features that decoders read by their logarithm are compared by it.
        """
        features = encode_probe(representation)
        if tuple(features.shape) != self.feature_shape:
            return math.inf
        now, then = features.flatten()[self.positions.long()].double(), self.features.double()
        if representation.log_scale:
            now, then = now.clamp(min=1e-12).log(), then.clamp(min=1e-12).log()
        apart = float(torch.linalg.vector_norm(now - then))
        return apart / max(float(torch.linalg.vector_norm(then)), 1e-12) if apart else 0.0


@torch.no_grad()
def encode_probe(representation: Representation) -> Tensor:
    """The features of the probe picture, float32 on the CPU."""
    size = representation.image_size
    return representation.encode(to_tensor([probe_picture(size, size)]))[0].float().cpu()

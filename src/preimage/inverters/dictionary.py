"""Paired dictionaries: a window of HOG cells and the grey patch behind it are written with the same sparse code.

The baseline HOGgles: Vondrick, Khosla, Malisiewicz & Torralba, *HOGgles: Visualizing Object Detection Features*, ICCV
2013, section 4.4. Sparse coding and dictionary learning are scikit-learn's, which takes a second to import: only here.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from typing import Any, ClassVar, Literal, Self

import torch
import torch.nn.functional as F
from torch import Tensor

from preimage.errors import SettingsError
from preimage.images import grey
from preimage.interfaces import Inverter, Pairs, Representation
from preimage.representations.hog import HOG
from preimage.words import shape_in_words

WINDOW = 5  # cells across a window
MARGIN = 1  # cells that its patch shows beyond it, on each side
PADDING = 5  # cells of nothing around the features, so that those at the border too are in 5 x 5 windows
PENALTY = 0.02  # of a code's sum, beside half the squared error
BATCH = 400  # windows in a step of learning
SIGMA = 9 / 8  # cells: how fast a patch fades from its centre (9 pixels, as published)
SWEEPS = {"learning": 30, "inverting": 100}  # of coordinate descent; 100 reach the minimum to seven digits
BASIS_WINDOWS = 10_000  # how many windows decide in which directions atoms may point
SCALE_PHOTOS = 16  # photographs that decide gain and offset


class PairedDictionary(Inverter):
    """HOGgles (Vondrick et al. 2013): sparse codes over paired dictionaries of HOG and grey patches; seconds an image.

    `windows` of the training photographs (all there are, if fewer) teach a dictionary of `atoms`, which point in the
    leading `atoms` principal directions of the windows. Codes know contrast only relative to a window, so grey values
    come out up to gain and offset: with `scale` "fitted" both are numbers, one pair for all images, fitted on the first
    16 training photographs; with "minmax" every image is stretched to [0, 1], as published. For HOG alone; raises
    `SettingsError` for other representations.
    """

    name: ClassVar[str] = "hoggles"

    def __init__(
        self,
        representation: Representation,
        windows: int = 100_000,
        atoms: int = 1024,
        scale: Literal["fitted", "minmax"] = "fitted",
        seed: int = 0,
    ) -> None:
        inner = representation.uncached
        if not isinstance(inner, HOG):
            raise SettingsError(
                f"paired dictionaries invert HOG, got {representation.name!r}. "
                "Inverters for any representation: upconv, ridge, nearest, mean-image"
            )
        if min(inner.feature_shape[1:]) < WINDOW + 2 * MARGIN:
            raise SettingsError(
                f"paired dictionaries learn from {WINDOW + 2 * MARGIN} x {WINDOW + 2 * MARGIN} cells and more, "
                f"got images of {shape_in_words(inner.feature_shape[1:])} cells: raise image_size"
            )
        if not 1 <= atoms <= windows:
            raise SettingsError(f"a dictionary has at least 1 atom and as many windows, got {atoms=} and {windows=}")
        if scale not in ("fitted", "minmax"):
            raise SettingsError(f"scale is 'fitted' or 'minmax', got {scale!r}")
        self.representation = representation
        self.cell_size = inner.cell_size
        self.patch = (WINDOW + 2 * MARGIN) * inner.cell_size  # pixels
        self.settings: dict[str, Any] = {"windows": windows, "atoms": atoms, "scale": scale, "seed": seed}
        self.dictionary: dict[str, Tensor] | None = None

    def fit(self, pairs: Pairs) -> Self:
        atoms, pixels = self.learn(pairs), self.patch**2
        learnt = self.dictionary = {"grey": atoms[:, :pixels].contiguous(), "hog": atoms[:, pixels:].contiguous()}
        if self.settings["scale"] == "fitted":
            learnt["scale"] = self.fit_scale(pairs)
        return self

    def learn(self, pairs: Pairs) -> Tensor:
        """The atoms (K, patch pixels + window features): a patch and its window side by side."""
        from sklearn.decomposition import MiniBatchDictionaryLearning
        from sklearn.exceptions import ConvergenceWarning

        count, seed = self.settings["atoms"], self.settings["seed"]
        basis = leading_directions(self.first_windows(pairs, BASIS_WINDOWS), count, seed)
        windows = torch.cat([part @ basis for part in self.windows(pairs)])
        if len(windows) < count:
            raise SettingsError(
                f"{count} atoms need as many windows, but {len(pairs)} photographs hold {len(windows)}: "
                "give more photographs, or set fewer atoms"
            )
        shuffled = windows[torch.randperm(len(windows), generator=torch.Generator().manual_seed(seed))]
        learner = MiniBatchDictionaryLearning(
            count,
            alpha=PENALTY,
            fit_algorithm="cd",
            positive_code=True,
            dict_init=F.normalize(shuffled[:count]).numpy(),
            transform_max_iter=SWEEPS["learning"],
            random_state=seed,
        )
        for batch in torch.split(shuffled, BATCH):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ConvergenceWarning)  # the sweeps are meant to end early
                learner.partial_fit(batch.numpy())
        return torch.from_numpy(learner.components_).float() @ basis.T

    def first_windows(self, pairs: Pairs, count: int) -> Tensor:
        """At least `count` windows, or all there are."""
        parts, found = [], 0
        for part in self.windows(pairs):
            parts.append(part)
            found += len(part)
            if found >= count:
                break
        return torch.cat(parts)

    def windows(self, pairs: Pairs) -> Iterator[Tensor]:
        """For each photograph windows at random places: patch and features, both normalised, side by side."""
        generator = torch.Generator().manual_seed(self.settings["seed"])
        per_photo = math.ceil(self.settings["windows"] / len(pairs))
        for batch in pairs:
            pictures = grey(batch.images.cpu(), scale=1.0, rounded=False)
            for picture, features in zip(pictures, batch.features.cpu().float(), strict=True):
                yield self.windows_of(picture, features, per_photo, generator)

    def windows_of(self, picture: Tensor, features: Tensor, count: int, generator: torch.Generator) -> Tensor:
        """A grey picture (H, W) and its features (C, h, w) -> (at most count, patch pixels + window features)."""
        patches = picture.unfold(0, self.patch, self.cell_size).unfold(1, self.patch, self.cell_size)
        inside = features[:, MARGIN:-MARGIN, MARGIN:-MARGIN]
        cells = inside.unfold(1, WINDOW, 1).unfold(2, WINDOW, 1).permute(1, 2, 0, 3, 4)  # (rows, columns, C, 5, 5)
        rows, columns = cells.shape[:2]
        places = torch.randperm(rows * columns, generator=generator)[:count]
        row, column = places // columns, places % columns
        halves = patches[row, column].flatten(1), cells[row, column].flatten(1)
        return torch.cat([normalised(half) for half in halves], dim=1)

    def fit_scale(self, pairs: Pairs) -> Tensor:
        """Gain and offset that bring the grey pictures of some photographs closest to them."""
        rebuilt: list[Tensor] = []
        wanted: list[Tensor] = []
        for batch in pairs:
            rebuilt += [self.rebuild(one) for one in batch.features[: SCALE_PHOTOS - len(rebuilt)].cpu().float()]
            wanted.append(grey(batch.images.cpu(), scale=1.0, rounded=False))
            if len(rebuilt) == SCALE_PHOTOS:
                break
        x, y = torch.stack(rebuilt).double(), torch.cat(wanted)[: len(rebuilt)].double()
        gain = ((x - x.mean()) * (y - y.mean())).mean() / x.var(correction=0).clamp(min=1e-12)
        return torch.stack([gain, y.mean() - gain * x.mean()]).float()

    def invert(self, features: Tensor) -> Tensor:
        self.representation.check(features)
        pictures = torch.stack([self.scaled(self.rebuild(one)) for one in features.cpu().float()])
        return pictures[:, None].clamp(0, 1).repeat(1, 3, 1, 1).to(features.device)

    def rebuild(self, features: Tensor) -> Tensor:
        """Features (C, h, w) -> grey picture (H, W) up to gain and offset.

        Patches overlap; each counts as much as it has not yet faded, which divides by the sum of what they count.
        """
        padded = F.pad(features, (PADDING,) * 4)
        codes = self.codes(normalised(F.unfold(padded[None], WINDOW)[0].T))
        fade = gaussian_window(self.patch, SIGMA * self.cell_size).flatten()
        height, width = ((cells + 2 * MARGIN) * self.cell_size for cells in padded.shape[1:])
        patches = codes @ (self.learnt(self.dictionary)["grey"] * fade)

        def laid_out(values: Tensor) -> Tensor:
            return F.fold(values.T[None], (height, width), self.patch, stride=self.cell_size)[0, 0]

        border = (PADDING + MARGIN) * self.cell_size
        picture = laid_out(patches) / laid_out(fade.expand(len(codes), -1))
        return picture[border:-border, border:-border]

    def codes(self, windows: Tensor) -> Tensor:
        """Normalised windows (n, C * 25) -> the codes (n, K) of the non-negative lasso on the HOG half."""
        from sklearn.decomposition import sparse_encode
        from sklearn.exceptions import ConvergenceWarning

        atoms = self.learnt(self.dictionary)["hog"]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            codes = sparse_encode(
                windows.numpy(),
                atoms.numpy(),
                gram=(atoms @ atoms.T).numpy(),
                algorithm="lasso_cd",
                alpha=PENALTY,
                positive=True,
                max_iter=SWEEPS["inverting"],
            )
        return torch.from_numpy(codes).float()

    @property
    def remark(self) -> str:
        if self.settings["scale"] == "fitted":
            return "grey, with one gain and offset for all images, fitted there too"
        return "grey, every image stretched to [0, 1]"

    def scaled(self, picture: Tensor) -> Tensor:
        """What `rebuild` gave -> grey values, most of them in [0, 1]."""
        if self.settings["scale"] == "fitted":
            gain, offset = self.learnt(self.dictionary)["scale"]
            return picture.mul(gain).add(offset)
        low, high = torch.aminmax(picture)
        stretched: Tensor = (picture - low) / (high - low).clamp(min=1e-12)
        return stretched

    def state(self) -> dict[str, Tensor]:
        return self.learnt(self.dictionary)

    def restore(self, state: dict[str, Tensor]) -> Self:
        self.dictionary = {name: value.float() for name, value in state.items()}
        return self


def normalised(rows: Tensor) -> Tensor:
    """Rows less their mean, of norm 1; a row of one value becomes 0."""
    return F.normalize(rows - rows.mean(dim=1, keepdim=True))


def leading_directions(rows: Tensor, count: int, seed: int) -> Tensor:
    """The directions (D, at most count) in which rows (n, D) are largest.

    A dictionary of so many atoms cannot span more directions; within these it is learnt several times as fast.
    """
    from sklearn.utils.extmath import randomized_svd

    _, _, directions = randomized_svd(rows.numpy(), min(count, *rows.shape), n_iter=2, random_state=seed)
    basis: Tensor = torch.from_numpy(directions).float().T.contiguous()
    return basis


def gaussian_window(size: int, deviation: float) -> Tensor:
    """(size, size), largest in the middle; both in pixels."""
    line: Tensor = (-0.5 * ((torch.arange(size) - (size - 1) / 2) / deviation).square()).exp()
    return line[:, None] * line

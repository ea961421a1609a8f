"""Four free photographs through everything that ships, on one page to look at: no network, no other file needed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from preimage import zoo
from preimage.api import evaluate, sample_files
from preimage.errors import PreimageError
from preimage.evaluation import Evaluation, measured
from preimage.files import replace_text
from preimage.gallery import Exhibit, exhibits
from preimage.images import to_picture
from preimage.interfaces import ignore
from preimage.pages import embedded, render

DESCRIBED = "scikit-image's samples"


@dataclass(frozen=True)
class Shown:
    """One inverter in the demonstration: pictures, their measures beside the baselines', and its card."""

    exhibit: Exhibit
    evaluation: Evaluation
    card: dict[str, Any]

    @property
    def name(self) -> str:
        return self.exhibit.name

    @property
    def trained(self) -> dict[str, Any]:
        """The trained inverter's row on its card: many photographs instead of four."""
        return zoo.trained_row(self.card)


def show(
    output: str | Path,
    *,
    overrides: Sequence[str] = (),
    device: str = "cpu",
    tell: Callable[[str], None] = ignore,
) -> list[Shown]:
    """Write `output`/index.html; what ships but cannot be used here is left out and told, with the reason.

    `overrides` are settings of representations, such as `alexnet:weights=FILE`.
    """
    output = Path(output)
    output.mkdir(parents=True, exist_ok=True)
    left_out: list[str] = []

    def leave_out(reason: str) -> None:
        tell(reason)
        left_out.append(reason)

    shown = []
    for exhibit in exhibits(sample_files(), overrides=overrides, device=device, tell=leave_out):
        evaluation = evaluate(
            exhibit.name, sample_files(), images_in_words=DESCRIBED, device=device, loaded=exhibit.kept
        )
        shown.append(Shown(exhibit, evaluation, zoo.card(exhibit.name)))
    if not shown:
        raise PreimageError(f"nothing that ships can be shown here: {'; '.join(left_out) or 'nothing ships'}")
    replace_text(output / "index.html", page(shown, left_out))
    return shown


def page(shown: list[Shown], left_out: list[str]) -> str:
    """The HTML of the demonstration, pictures included."""
    first = shown[0].exhibit.done
    rows = [
        {
            "photograph": name.rpartition(".")[0],
            "picture": as_address(first.photographs[index]),
            "reconstructions": [as_address(each.exhibit.done.reconstructions[index]) for each in shown],
        }
        for index, name in enumerate(first.ids)
    ]
    return render("demo.html", shown=shown, rows=rows, left_out=left_out, measured=measured, best=shown[0].name)


def as_address(image: Tensor) -> str:
    """An image (3, H, W) as the address of itself, for an <img>."""
    return embedded(to_picture(image))

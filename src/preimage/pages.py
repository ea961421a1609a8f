"""Pages from templates: what a page says stands in `templates/`, what it is filled with comes from the caller.

Pictures go into the page itself, so that it is one file and loads nothing.
"""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any, Literal

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from PIL import Image

from preimage.errors import SettingsError

WIDEST = 1600  # pixels
QUALITY = 80  # of photographs: a page with twenty sheets stays below ten megabytes


def render(template: str, **values: Any) -> str:
    """A template of the package, filled; what goes into HTML is escaped, a value that is missing is an error."""
    environment = Environment(
        loader=PackageLoader("preimage"),
        autoescape=select_autoescape(["html"]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template(template).render(**values)


def check_page(file: Path) -> None:
    """Raise `SettingsError` unless a page can be called so: before the work, not after it."""
    if file.suffix not in (".html", ".htm"):
        raise SettingsError(f"a page is an .html file, not {file}")


def embedded(picture: Path | Image.Image, kind: Literal["webp", "png"] = "webp") -> str:
    """A picture as the address of itself, for an <img>: WebP for photographs, PNG for plots; no wider than `WIDEST`."""
    image = (Image.open(picture) if isinstance(picture, Path) else picture).convert("RGB")
    if image.width > WIDEST:
        image = image.resize((WIDEST, round(image.height * WIDEST / image.width)))
    content = io.BytesIO()
    image.save(content, kind, **({"quality": QUALITY} if kind == "webp" else {"optimize": True}))
    return f"data:image/{kind};base64,{base64.b64encode(content.getvalue()).decode()}"

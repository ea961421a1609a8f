"""One photograph: bytes, 8-bit pixels, tensors; brought to a size, made grey, written as PNG."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from preimage.errors import ImageError
from preimage.files import replacing

Pixels = npt.NDArray[np.uint8]  # (H, W, 3), RGB
Fit = Literal["crop", "whole"]
SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".ppm", ".pgm", ".jp2", ".avif"}
)


def decode(content: bytes, name: str, at_least: int | None = None) -> Image.Image:
    """The bytes of a picture file -> an upright RGB image. Raises `ImageError` naming the file.

    EXIF rotation is applied, transparency is laid over white, CMYK, palette, grey and 16-bit become 8-bit RGB. A JPEG
    may be read at a reduced size whose sides are still twice `at_least` pixels or more.
    """
    try:
        image = Image.open(io.BytesIO(content))
        if at_least is not None and image.mode == "RGB":
            image.draft("RGB", (2 * at_least, 2 * at_least))
        image.load()
        return to_rgb(ImageOps.exif_transpose(image), name)
    except ImageError:
        raise
    except UnidentifiedImageError as error:
        advice = ": HEIC is not supported, export it as JPEG" if name.lower().endswith((".heic", ".heif")) else ""
        raise ImageError(f"{name} is not a picture that can be read{advice}") from error
    except Image.DecompressionBombError as error:
        raise ImageError(f"{name} claims too many pixels: refused as a decompression bomb") from error
    except Exception as error:  # what Pillow's many decoders raise for damaged files is not written down anywhere
        raise ImageError(f"{name} is damaged: {error}") from error


def to_rgb(image: Image.Image, name: str) -> Image.Image:
    """Any of Pillow's modes -> 8-bit RGB."""
    if image.mode.startswith("I"):  # 16-bit grey: Pillow itself would cut off everything above 255
        levels = np.asarray(image).astype(np.float64)
        sixteen_bits = image.mode != "I" or levels.max() > 255  # plain "I" has 32 bits: what it holds must be guessed
        levels = levels / 257 if sixteen_bits else levels
        return Image.fromarray(levels.clip(0, 255).round().astype(np.uint8)).convert("RGB")
    if image.mode == "F":
        raise ImageError(f"{name} holds floating-point pixels of unknown range: save it with 8 or 16 bits")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image.convert("RGB")


def resize(image: Image.Image, size: int, fit: Fit = "crop") -> Pixels:
    """An image -> (size, size, 3): its short side resized and the centre cropped, or the whole of it resized."""
    if fit == "crop":
        square = ImageOps.fit(image, (size, size), Image.Resampling.BICUBIC)
    else:
        square = image.resize((size, size), Image.Resampling.BICUBIC)
    return np.asarray(square)


def whole(image: Image.Image, multiple: int) -> Pixels:
    """An image at its own size (H, W, 3), less what is over a multiple of some pixels at the right and the bottom."""
    width, height = (side // multiple * multiple for side in image.size)
    if not width or not height:
        raise ImageError(f"a photograph of {image.width} x {image.height} pixels is smaller than a cell of {multiple}")
    return np.asarray(image)[:height, :width]


def to_tensor(pixels: Pixels | Sequence[Pixels]) -> Tensor:
    """8-bit pictures (N, H, W, 3), or a list of them -> images (N, 3, H, W) in [0, 1], channels last in memory."""
    array = pixels if isinstance(pixels, np.ndarray) else np.stack(pixels)
    return torch.from_numpy(array).permute(0, 3, 1, 2).float().div_(255)


def to_pixels(images: Tensor) -> Pixels:
    """Images (N, 3, H, W) in [0, 1] -> 8-bit pictures (N, H, W, 3)."""
    levels = images.detach().float().clamp(0, 1).mul(255).round().to("cpu", torch.uint8)
    return levels.permute(0, 2, 3, 1).contiguous().numpy()


def to_picture(image: Tensor) -> Image.Image:
    """One image (3, H, W) in [0, 1] -> an 8-bit picture."""
    return Image.fromarray(to_pixels(image[None])[0])


def save_image(image: Tensor, path: str | Path) -> None:
    """One image (3, H, W) in [0, 1] -> an 8-bit file; the suffix says the format."""
    path = Path(path)
    kind = Image.registered_extensions().get(path.suffix.lower())
    if kind is None:
        raise ImageError(f"no picture can be written as {path.suffix or 'a file without suffix'}: {path}")
    with replacing(path) as beside:
        to_picture(image).save(beside, kind)


def grey(images: Tensor, scale: float = 255.0, rounded: bool = True) -> Tensor:
    """Images (N, 3, H, W) in [0, 1] -> grey (N, H, W) in [0, scale], with the weights of ITU-R BT.601.

    MATLAB's `rgb2gray` has them to more digits. `rounded` rounds to the 256 levels of an 8-bit image.
    """
    red, green, blue = images.unbind(1)
    levels = (0.299 * 255) * red + (0.587 * 255) * green + (0.114 * 255) * blue
    if rounded:
        levels = levels.round()
    return levels if scale == 255 else levels * (scale / 255)

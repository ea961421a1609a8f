"""What every representation promises, each promise checked on a few pictures: for those here, and for one of yours."""

from __future__ import annotations

import json
from collections.abc import Callable

import torch
from torch import Tensor

from preimage.errors import FeatureError, ImageError
from preimage.images import to_tensor
from preimage.interfaces import Representation
from preimage.probe import probe_picture
from preimage.representations import get_representation

Promise = Callable[[Representation, Tensor], None]  # raises FeatureError where it is not kept

ABSOLUTE, RELATIVE = 1e-5, 1e-4  # of the largest feature, of each: sums may run in another order


def broken_promises(representation: Representation) -> dict[str, str]:
    """Promise -> what was found instead, for those that are not kept; on pictures made by a formula."""
    images = some_pictures(representation.image_size)
    broken = {}
    for words, check in PROMISES.items():
        try:
            check(representation, images)
        except FeatureError as error:
            broken[words] = str(error)
        except Exception as error:  # the code of somebody else
            broken[words] = f"{type(error).__name__}: {error}"
    return broken


def some_pictures(size: int) -> Tensor:
    """Pictures (4, 3, size, size) in [0, 1], no two alike: the probe, mirrored, in other colours, upside down."""
    picture = to_tensor([probe_picture(size, size)])
    return torch.cat([picture, picture.flip(3), picture.roll(1, dims=1), (1 - picture).flip(2)])


# --- the promises -----------------------------------------------------------------------------------------------------


def declared_shape(representation: Representation, images: Tensor) -> None:
    features, told = representation.encode(images), (len(images), *representation.feature_shape)
    if tuple(features.shape) != told or features.dtype != torch.float32:
        raise FeatureError(f"expected {told} of torch.float32, got {tuple(features.shape)} of {features.dtype}")
    if not torch.isfinite(features).all():
        raise FeatureError("some features are NaN or infinite")


def on_its_own(representation: Representation, images: Tensor) -> None:
    alone = torch.cat([representation.encode(image[None]) for image in images])
    expect_alike(representation.encode(images), alone, "in company and alone")


def repeatable(representation: Representation, images: Tensor) -> None:
    first, second = representation.encode(images), representation.encode(images)
    if not torch.equal(first, second):
        raise FeatureError(f"features of the same images differ by up to {apart(first, second):.2g}")


def telling(representation: Representation, images: Tensor) -> None:
    features = representation.encode(images)
    if len(images) > 1 and all(torch.allclose(features[0], other) for other in features[1:]):
        raise FeatureError("different images have the same features")


def any_layout(representation: Representation, images: Tensor) -> None:
    turned = images.contiguous(memory_format=torch.channels_last)
    expect_alike(representation.encode(images.contiguous()), representation.encode(turned), "in two memory layouts")


def eight_bit_refused(representation: Representation, images: Tensor) -> None:
    for wrong in (images * 255, (images * 255).byte()):
        try:
            representation.encode(wrong)
        except ImageError:
            continue
        raise FeatureError(
            f"{wrong.dtype} values in 0..255 are encoded as if they were in [0, 1]: begin `encode` with "
            "preimage.interfaces.check_images(images)"
        )


def made_again(representation: Representation, images: Tensor) -> None:  # noqa: ARG001 (the same call as the others)
    described = json.loads(json.dumps(representation.description))
    again = get_representation(**described)
    if again.fingerprint != representation.fingerprint:
        raise FeatureError(f"{described} makes another one: fingerprint {again.fingerprint}")


def true_gradients(representation: Representation, images: Tensor) -> None:
    wanted = images[:1].clone().requires_grad_()
    features = representation.encode(wanted)  # no mistake where there is no gradient either
    if not representation.differentiable:
        return
    if not features.requires_grad:
        raise FeatureError("no gradient reaches the images, though `differentiable` says so")
    (gradient,) = torch.autograd.grad(features.sum(), wanted)
    if not torch.isfinite(gradient).all():
        raise FeatureError("the gradient is NaN or infinite in some pixels")


def expect_alike(first: Tensor, second: Tensor, words: str) -> None:
    if first.shape != second.shape:
        raise FeatureError(f"features {words} have shapes {tuple(first.shape)} and {tuple(second.shape)}")
    if not torch.allclose(first, second, atol=ABSOLUTE * float(first.abs().max()), rtol=RELATIVE):
        raise FeatureError(f"features {words} differ by up to {apart(first, second):.2g}")


def apart(first: Tensor, second: Tensor) -> float:
    return float((first - second).abs().max())


PROMISES: dict[str, Promise] = {
    "features have the declared shape and are finite float32": declared_shape,
    "each image is encoded on its own": on_its_own,
    "encoding twice gives the same": repeatable,
    "different images have different features": telling,
    "memory layout does not matter": any_layout,
    "8-bit values are refused": eight_bit_refused,
    "name and settings make it again": made_again,
    "gradients are finite where they are promised": true_gradients,
}

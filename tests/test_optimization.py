"""Gradient descent against answers worked out by hand."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from preimage.cache import CachedRepresentation
from preimage.errors import DivergedError, SettingsError
from preimage.images import Photos
from preimage.inverters import GradientDescent
from preimage.inverters.optimization import SCHEDULES, Energy, noise, sigma, total_variation, usual_tv_weight
from preimage.networks.preprocessing import Preprocessing
from preimage.pairs import EncodedPhotos
from preimage.representations import HOG, LBP, ModuleLayer, get_representation

FED = Preprocessing(image_size=32, white=255.0)
MEAN = torch.full((3, 1, 1), 120.0)


def pooling() -> ModuleLayer:
    """A linear representation: the mean colour of every 4 x 4 pixels."""
    return ModuleLayer(nn.Sequential(nn.AvgPool2d(4)), "0", FED)


@pytest.fixture(scope="module")
def photos(sample_images: Tensor) -> Tensor:
    """The samples at 32 pixels, muted: the prior pulls at pixels that are nearly black or white."""
    return 0.3 + 0.4 * nn.functional.interpolate(sample_images, (32, 32), mode="bilinear", antialias=True)


def fitted(representation: HOG | ModuleLayer, method: str = "mahendran", **settings: float) -> GradientDescent:
    inverter = GradientDescent(representation, method, **settings)  # type: ignore[arg-type]
    return inverter.restore({"mean": MEAN.flatten()})


def relative_distance(a: Tensor, b: Tensor) -> float:
    return float(torch.dist(a, b) / torch.linalg.vector_norm(b))


@pytest.mark.parametrize("method", ["mahendran", "adam"])
def test_what_a_linear_map_keeps_comes_back(method: str, photos: Tensor) -> None:
    features = pooling().encode(photos)
    images = fitted(pooling(), method, tv_weight=0.05).invert(features)
    assert relative_distance(pooling().encode(images), features) < 0.03


def test_total_variation_makes_what_is_left_open_smooth(photos: Tensor) -> None:
    features = pooling().encode(photos)
    rough, smooth = (fitted(pooling(), tv_weight=weight).invert(features) for weight in (0.0, 10.0))
    assert total_variation(smooth).sum() < 0.2 * total_variation(rough).sum()


def test_the_energy_of_a_picture_by_hand() -> None:
    x = torch.zeros(1, 3, 32, 32)
    x[0, 0, 3, 4] = 40.0  # one value apart from the mean: four differences of 40, one extreme
    target = torch.full((1, 3, 8, 8), 100.0)
    energy = Energy(pooling().smooth(), target, MEAN, tv_weight=10.0)
    distance = ((20 + 40 / 16) ** 2 + 191 * 20**2) / (192 * 100**2)
    expected = 68.92**2 * 3072 * distance + 10 / 2 * 4 * 40**2 + 8e-10 / 2 * 40**6
    assert energy(x).item() == pytest.approx(expected, rel=1e-5)


def test_the_published_numbers() -> None:
    assert sigma(227 * 227 * 3) == pytest.approx(27098, rel=1e-4)
    assert [steps for steps, _ in SCHEDULES["network"]] == [100, 200, 100]
    assert [rate for _, rate in SCHEDULES["network"]] == pytest.approx([0.004 * f for f in (1, 0.1, 0.01)])
    assert [steps for steps, _ in SCHEDULES["hog"]] == [200] * 4
    assert [rate for _, rate in SCHEDULES["hog"]] == pytest.approx([0.004 * f for f in (1, 0.1, 0.01, 0.001)])
    assert float(torch.linalg.vector_norm(noise((32, 32), 0))) == pytest.approx(sigma(3 * 32 * 32))


def test_a_schedule_can_be_stretched() -> None:
    assert fitted(HOG()).schedule() == SCHEDULES["hog"]
    assert [steps for steps, _ in fitted(pooling(), iterations=40).schedule()] == [10, 20, 10]
    assert sum(steps for steps, _ in fitted(pooling(), iterations=7).schedule()) == 7


def test_the_published_weights_of_total_variation(shared_alexnet: str) -> None:
    expected = {"conv1": 1, "conv2": 10, "conv3": 10, "conv4": 10, "conv5": 100, "fc6": 100, "fc7": 100, "fc8": 100}
    found = {
        name: usual_tv_weight(get_representation(f"bvlc_alexnet.{name}", weights=shared_alexnet)) for name in expected
    }
    assert found == expected
    assert usual_tv_weight(HOG()) == 1


def test_momentum_starts_anew_with_every_rate() -> None:
    """Two phases of one step each: without momentum between them, both go straight down the gradient."""
    inverter = fitted(pooling(), tv_weight=1.0)
    inverter.schedule = lambda: [(1, 4e-3), (1, 4e-4)]  # type: ignore[method-assign]
    energy = Energy(inverter.smooth, torch.full((1, 3, 8, 8), 100.0), MEAN, tv_weight=1.0)
    x = start = noise((32, 32), 0)
    for rate in (4e-3, 4e-4):
        x = x.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(energy(x).sum(), x)
        x = x - rate * gradient
    torch.testing.assert_close(inverter.mahendran(energy, start.clone()), x.detach())


def test_momentum_carries_on_within_a_rate() -> None:
    inverter = fitted(pooling(), tv_weight=1.0)
    inverter.schedule = lambda: [(2, 4e-3)]  # type: ignore[method-assign]
    energy = Energy(inverter.smooth, torch.full((1, 3, 8, 8), 100.0), MEAN, tv_weight=1.0)
    x, velocity = noise((32, 32), 0), torch.zeros(1, 3, 32, 32)
    start = x.clone()
    for _ in range(2):
        x = x.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(energy(x).sum(), x)
        velocity = 0.9 * velocity - 4e-3 * gradient
        x = x + velocity
    torch.testing.assert_close(inverter.mahendran(energy, start), x.detach())


@pytest.mark.parametrize("method", ["mahendran", "adam"])
def test_an_image_does_not_depend_on_its_batch(method: str, photos: Tensor) -> None:
    inverter = fitted(HOG(image_size=32), method, iterations=20)
    features = inverter.representation.encode(photos)
    alone = torch.cat([inverter.invert(one[None]) for one in features])
    torch.testing.assert_close(inverter.invert(features), alone, atol=1e-4, rtol=1e-3)


def test_another_seed_is_another_start(photos: Tensor) -> None:
    features = pooling().encode(photos)
    one, other = (fitted(pooling(), iterations=5, seed=seed).invert(features) for seed in (0, 1))
    assert not torch.allclose(one, other)


def test_hog_of_the_result_is_nearer_than_that_of_the_mean_image(sample_images: Tensor) -> None:
    hog = HOG(image_size=64)
    images = nn.functional.interpolate(sample_images, (64, 64), mode="bilinear", antialias=True)
    features = hog.encode(images)
    found = hog.encode(fitted(hog, iterations=100).invert(features))
    mean = hog.encode(images.mean(dim=0, keepdim=True)).expand_as(features)
    for own, reached, ignorant in zip(features, found, mean, strict=True):
        assert torch.dist(reached, own) < 0.9 * torch.dist(ignorant, own)


def test_the_mean_colour_is_learnt(samples: Photos, sample_images: Tensor) -> None:
    inverter = GradientDescent(HOG()).fit(EncodedPhotos(HOG(), samples))
    torch.testing.assert_close(inverter.state()["mean"], 255 * sample_images.mean(dim=(0, 2, 3)))


def test_features_of_nothing_are_no_division_by_zero() -> None:
    inverter = fitted(HOG(image_size=32), iterations=5)
    images = inverter.invert(torch.zeros(1, *inverter.representation.feature_shape))
    assert torch.isfinite(images).all()


def test_maps_of_other_sizes_become_images_of_other_sizes() -> None:
    features = HOG(image_size=32).encode(torch.rand(1, 3, 40, 48))
    assert fitted(HOG(image_size=32), iterations=2).invert(features).shape == (1, 3, 40, 48)


def test_it_works_where_gradients_are_off(photos: Tensor) -> None:
    with torch.inference_mode():
        features = pooling().encode(photos)
        images = fitted(pooling(), iterations=3).invert(features)
    assert images.shape == photos.shape


def test_a_cached_representation_is_seen_through(photos: Tensor, tmp_path: Path) -> None:
    hog = HOG(image_size=32)
    cached = CachedRepresentation(hog, tmp_path)
    features = cached.encode(photos)
    inverters = [fitted(kind, iterations=3) for kind in (hog, cached)]  # type: ignore[arg-type]
    assert torch.equal(*(inverter.invert(features) for inverter in inverters))


def test_what_has_no_gradient_is_refused_at_once() -> None:
    with pytest.raises(SettingsError, match=r"cannot invert 'lbp'.*upconv"):
        GradientDescent(LBP())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"method": "newton"}, "'mahendran' or 'adam'"),
        ({"tv_weight": -1}, "tv_weight"),
        ({"iterations": 0}, "at least 1"),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict[str, float], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        GradientDescent(HOG(), **settings)  # type: ignore[arg-type]


def test_a_descent_that_leaves_the_numbers_says_so(photos: Tensor) -> None:
    with pytest.raises(DivergedError, match="try method='adam'"):
        fitted(pooling(), tv_weight=math.ldexp(1, 60)).invert(pooling().encode(photos))


def test_steps_are_told(photos: Tensor) -> None:
    told: list[tuple[int, int]] = []
    inverter = GradientDescent(pooling(), iterations=3, on_step=lambda *step: told.append(step))
    inverter.restore({"mean": MEAN.flatten()}).invert(pooling().encode(photos))
    assert told == [(1, 3), (2, 3), (3, 3)]

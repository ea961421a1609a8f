"""The layer tables are the paper's, and a decoder's cost is what it says."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from preimage.decoders import (
    DECODERS,
    Decoder,
    Join,
    SmoothConvTranspose2d,
    Standardise,
    Up,
    build_decoder,
    cost,
    load_weights,
    output_size,
)
from preimage.errors import SettingsError, UnknownNameError, WeightsError

HOG_SHAPE = (31, 32, 32)
SHAPES = {
    "compact": HOG_SHAPE,
    "multiscale": HOG_SHAPE,
    "two-streams": HOG_SHAPE,
    "smooth": HOG_SHAPE,
    "paper-hog": HOG_SHAPE,
    "paper-lbp": (58, 16, 16),
    "paper-sift": (133, 64, 64),
    "paper-map": (256, 8, 8),
    "paper-vector": (64,),
}


def test_the_papers_hog_network_layer_by_layer() -> None:
    """Channels x height x width after every layer."""
    decoder = build_decoder("paper-hog", HOG_SHAPE, 256)
    sizes: list[tuple[int, ...]] = []
    for module in decoder.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            module.register_forward_hook(lambda _m, _i, output: sizes.append(tuple(output.shape[1:])))
    with torch.no_grad():
        images = decoder(torch.rand(1, *HOG_SHAPE))
    assert sizes == [
        (256, 16, 16), (512, 8, 8), (1024, 4, 4), (512, 8, 8), (256, 16, 16), (128, 32, 32),
        (128, 32, 32), (128, 32, 32),
        (256, 32, 32), (128, 32, 32), (64, 64, 64), (32, 128, 128), (3, 256, 256),
    ]  # fmt: skip
    assert images.shape == (1, 3, 256, 256)


def test_the_papers_hog_network_has_20_million_parameters() -> None:
    assert cost(build_decoder("paper-hog", HOG_SHAPE, 256), HOG_SHAPE).parameters == pytest.approx(20.5e6, rel=0.01)


def test_flops_by_hand() -> None:
    """One 3 x 3 convolution costs 2 x 9 x in x out per pixel; convB2 alone is that over 32 x 32."""
    full = cost(build_decoder("paper-hog", HOG_SHAPE, 256), HOG_SHAPE).flops
    expected = 0
    for kernel, channels, out, side in [
        (5, 31, 256, 16), (5, 256, 512, 8), (3, 512, 1024, 4), (5, 31, 128, 32), (3, 128, 128, 32),
        (3, 256, 256, 32), (3, 256, 128, 32),
        # an up-convolution of kernel 4 meets 4 x 4 weights for every pixel that goes in
        (4, 1024, 512, 4), (4, 512, 256, 8), (4, 256, 128, 16), (4, 128, 64, 32), (4, 64, 32, 64), (4, 32, 3, 128),
    ]:  # fmt: skip
        expected += 2 * kernel**2 * channels * out * side**2
    assert full == expected


@pytest.mark.parametrize("name", sorted(DECODERS))
def test_width_scales_the_channels(name: str) -> None:
    shape = SHAPES[name]
    narrow, wide = (build_decoder(name, shape, 256, width) for width in (0.1, 0.2))
    assert cost(narrow, shape).parameters < 0.4 * cost(wide, shape).parameters
    assert narrow(torch.rand(2, *shape)).shape[:2] == (2, 3)


def test_a_fresh_decoder_keeps_the_scale_of_its_input() -> None:
    decoder = build_decoder("paper-hog", HOG_SHAPE, 256, width=0.25)
    decoder.prepare(torch.rand(16, *HOG_SHAPE), torch.full((16, 3, 256, 256), 0.4))
    with torch.no_grad():
        images = decoder(torch.rand(4, *HOG_SHAPE))
    assert images.mean() == pytest.approx(0.4, abs=0.05)
    assert 0.01 < images.std() < 0.3


def test_features_of_any_scale_and_dead_channels_are_standardised() -> None:
    decoder = build_decoder("paper-hog", (3, 32, 32), 256, width=0.05)
    features = torch.randn(8, 3, 32, 32) * torch.tensor([1e3, 1e-3, 0]).view(1, 3, 1, 1) + 5
    decoder.prepare(features, torch.rand(8, 3, 256, 256))
    standardised = decoder.standardise(features)
    deviations = standardised.transpose(0, 1).flatten(1).std(dim=1)
    torch.testing.assert_close(deviations, torch.tensor([1.0, 1.0, 0.0]), atol=1e-2, rtol=1e-2)


def test_weights_of_another_width_are_refused() -> None:
    narrow, wide = (build_decoder("compact", HOG_SHAPE, 256, width) for width in (0.05, 0.1))
    with pytest.raises(WeightsError, match="another table or width"):
        load_weights(narrow, wide.state_dict())


def test_the_seed_decides_the_weights() -> None:
    first, same, other = (
        build_decoder("paper-hog", HOG_SHAPE, 256, 0.05, seed=seed).output.weight for seed in (0, 0, 1)
    )
    assert torch.equal(first, same)
    assert not torch.equal(first, other)


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'paper-hog'"):
        build_decoder("paper-hg", HOG_SHAPE, 256)
    with pytest.raises(SettingsError, match="width"):
        build_decoder("paper-hog", HOG_SHAPE, 256, width=0)
    with pytest.raises(SettingsError, match="width is a positive factor, got inf"):
        build_decoder("paper-hog", HOG_SHAPE, 256, width=math.inf)
    with pytest.raises(SettingsError, match="'compact' reads any"):
        build_decoder("paper-hog", (4096,), 256)
    with pytest.raises(SettingsError, match="reads feature maps; 'compact' reads vectors"):
        build_decoder("multiscale", (4096,), 256)
    with pytest.raises(SettingsError, match="reads feature maps; 'compact' reads vectors"):
        build_decoder("paper-map", (4096,), 256)
    with pytest.raises(SettingsError, match=r"vectors \(D,\) and feature maps"):
        build_decoder("compact", (7, 7), 256)


@pytest.mark.parametrize(
    ("shape", "size"),
    [((96, 27, 27), 216), ((256, 13, 13), 208), ((384, 13, 13), 208), ((256, 6, 6), 192), ((4096,), 128)],
)
def test_the_papers_networks_for_alexnet_come_out_at_its_sizes(shape: tuple[int, ...], size: int) -> None:
    decoder = build_decoder("paper-map" if len(shape) == 3 else "paper-vector", shape, 227, width=0.1)
    assert decoder(torch.rand(1, *shape)).shape == (1, 3, size, size)


@pytest.mark.parametrize(
    "shape",
    [
        (8,),
        (1000,),
        (5000,),
        (32, 112, 112),
        (40, 28, 28),
        (192, 7, 7),
        (10, 5, 9),
        (3, 1, 1),
        (31, 37, 21),
        (3, 224, 224),
    ],
)
def test_ours_reads_features_of_any_shape(shape: tuple[int, ...]) -> None:
    least = 64 if len(shape) == 1 else 112 / 2**0.5  # half the image's size, to the nearest doubling
    for name in ["compact"] if len(shape) == 1 else ["compact", "multiscale"]:
        images = build_decoder(name, shape, 224, width=0.05)(torch.rand(2, *shape))
        assert images.shape[:2] == (2, 3)
        assert least <= max(images.shape[2:]) <= 224


@pytest.mark.parametrize(
    ("name", "shape", "blurs"),
    [
        ("multiscale", HOG_SHAPE, 1),
        ("two-streams", HOG_SHAPE, 1),
        ("compact", HOG_SHAPE, 1),
        ("compact", (112, 14, 14), 1),
        ("compact", (64,), 4),
    ],
)
def test_up_convolutions_of_maps_are_blurred_once(name: str, shape: tuple[int, ...], blurs: int) -> None:
    decoder = build_decoder(name, shape, 256, width=0.05)
    assert sum(isinstance(module, SmoothConvTranspose2d) for module in decoder.modules()) == blurs


def test_every_place_is_in_sight_of_several_streams_and_few_are_of_one() -> None:
    """How many features change the pixel in the middle."""
    seen = {}
    for name in ("compact", "multiscale", "two-streams"):
        decoder = build_decoder(name, HOG_SHAPE, 256, width=0.1)
        features = torch.zeros(1, *HOG_SHAPE, requires_grad=True)
        images = decoder(features)
        images[0, :, images.shape[2] // 2, images.shape[3] // 2].sum().backward()
        assert features.grad is not None
        seen[name] = (features.grad.abs().sum(dim=(0, 1)) > 0).float().mean().item()
    assert seen["compact"] < 0.1
    assert seen["multiscale"] == seen["two-streams"] == 1


@pytest.mark.parametrize(("name", "scale"), [("compact", 8), ("multiscale", 4)])
def test_a_map_decoder_takes_maps_of_any_size(name: str, scale: int) -> None:
    decoder = build_decoder(name, HOG_SHAPE, 256, width=0.05)
    assert decoder(torch.rand(1, 31, 37, 21)).shape == (1, 3, 37 * scale, 21 * scale)


def test_an_output_is_sized_where_buffers_are_not_saved() -> None:
    class Shifted(nn.Conv2d):
        def __init__(self) -> None:
            super().__init__(4, 3, 3, stride=2)
            self.register_buffer("shift", torch.ones(1, 3, 1, 1), persistent=False)

        def forward(self, features: Tensor) -> Tensor:
            return super().forward(features) + self.shift

    assert output_size(Shifted(), (4, 21, 11)) == (10, 5)


def test_probabilities_are_read_as_logarithms() -> None:
    decoder = build_decoder("compact", (1000,), 224, width=0.05, log=True)
    probabilities = torch.softmax(5 * torch.randn(64, 1000), dim=1)
    decoder.prepare(probabilities, torch.rand(64, 3, 224, 224))
    assert decoder.standardise(probabilities).std() == pytest.approx(1, abs=0.05)
    assert torch.isfinite(decoder(torch.zeros(1, 1000))).all()


def test_a_smooth_up_convolution_is_an_up_convolution_and_a_blur() -> None:
    smooth = Up(5, smooth=True).build(3, 5)
    plain = Up(5).build(3, 5)
    plain.load_state_dict(smooth.state_dict())
    features = torch.rand(2, 3, 6, 6)
    line = torch.tensor([1.0, 2.0, 1.0]) / 6**0.5
    blur = (line[:, None] * line[None]).expand(5, 1, 3, 3)
    assert plain.bias is not None
    with torch.no_grad():
        plain.bias.zero_()
        expected = torch.nn.functional.conv2d(plain(features), blur, smooth.bias, padding=1, groups=5)
        torch.testing.assert_close(smooth(features)[..., 1:-1, 1:-1], expected[..., 1:-1, 1:-1])


@pytest.mark.parametrize("kernel", [4, 5])
def test_a_smooth_up_convolution_has_no_grid_of_its_own(kernel: int) -> None:
    flat = torch.rand(1, 8, 1, 1).expand(1, 8, 10, 10)
    with torch.no_grad():
        smooth, plain = (Up(4, kernel, smooth).build(8, 4)(flat)[..., 4:-4, 4:-4] for smooth in (True, False))
    assert smooth.shape == (1, 4, 12, 12)
    assert smooth.std(dim=(2, 3)).max() < 1e-6
    assert plain.std(dim=(2, 3)).max() > 1e-2


# --- features as they come from anywhere ------------------------------------------------------------------------------


def test_outliers_do_not_set_the_scale_of_the_others() -> None:
    features = torch.randn(256, 4)
    features[:3] *= 1e6
    standardise = Standardise(4)
    standardise.measure(features)
    assert standardise(features)[3:].std() > 0.03  # by the plain deviation it would be 1e-5
    assert standardise(features).abs().max() < 30


def test_outliers_keep_their_order() -> None:
    features = torch.cat([torch.randn(1000), torch.tensor([30.0, 100, 1000, -1000])])[:, None]
    standardise = Standardise(1)
    standardise.measure(features)
    small, large, largest, least = standardise(features)[-4:, 0].tolist()
    assert least < 0 < small < large < largest


def test_usual_features_are_only_shifted_and_scaled() -> None:
    features = torch.randn(256, 5, 4, 4) * 3 + 7
    standardise = Standardise(5)
    standardise.measure(features)
    mean, deviation = features.mean(dim=(0, 2, 3), keepdim=True), features.std(dim=(0, 2, 3), keepdim=True)
    torch.testing.assert_close(standardise(features), (features - mean) / deviation, atol=1e-3, rtol=1e-3)


def test_sparse_features_move_and_dead_ones_stay_silent() -> None:
    features = torch.stack([(torch.rand(2000) < 0.02).float(), torch.randn(2000), torch.full((2000,), 3.0)], 1)
    standardise = Standardise(3)
    standardise.measure(features)
    standardised = standardise(features)
    assert standardised[:, 0].std() == pytest.approx(1, abs=0.05)
    assert standardised[:, 2].abs().max() == 0


def test_a_file_of_before_outliers_were_drawn_in_means_what_it_did() -> None:
    standardise = Standardise(2)
    standardise.load_state_dict({"mean": torch.tensor([1.0, 2.0]), "deviation": torch.tensor([2.0, 0.5])})
    features = torch.tensor([[3.0, 1e6], [-1e6, 2.0]], requires_grad=True)
    expected = (features - torch.tensor([1.0, 2.0])) / torch.tensor([2.0, 0.5])
    assert torch.equal(standardise(features), expected)
    standardise(features).sum().backward()
    assert features.grad is not None
    assert torch.isfinite(features.grad).all()


@pytest.mark.parametrize("shape", [(8,), (100_000,), (20_000, 2, 2), (1, 1, 1), (2, 300, 300)])
def test_features_of_any_length_are_read_within_bounds(shape: tuple[int, ...]) -> None:
    with torch.device("meta"):
        decoder = Decoder(DECODERS["compact"](shape, 224), shape[0])
        images = decoder(torch.empty(2, *shape))
    assert images.shape[:2] == (2, 3)
    assert max(parameter.numel() for parameter in decoder.parameters()) < 20e6


def test_neighbours_of_a_long_vector_are_joined() -> None:
    joined = Join(4).build(10, 4)(torch.arange(10.0)[None])
    sums = torch.tensor([[0.0 + 1 + 2, 3 + 4 + 5, 6 + 7 + 8, 9]])
    torch.testing.assert_close(joined, sums / 3**0.5)


def test_of_skewed_positive_vectors_the_root_is_read() -> None:
    rectified = torch.distributions.Exponential(1.0).sample((512, 1)) * 7
    symmetric, signed = torch.rand(512, 1), torch.randn(512, 1)
    standardise = Standardise(3)
    features = torch.cat([rectified, symmetric, signed], dim=1)
    standardise.measure(features)
    assert (standardise.unit > 0).tolist() == [True, False, False]
    read = standardise(torch.tensor([[1.0, 0, 0], [4.0, 0, 0], [16.0, 0, 0]]))[:, 0]
    assert read.diff()[1] / read.diff()[0] == pytest.approx(2, rel=0.1)  # 1, 2, 4 are the roots
    slope = torch.autograd.functional.jacobian(lambda x: standardise(x).sum(), torch.zeros(1, 3))
    assert slope[0, 0] < 20 / 7  # not infinite at 0


def test_only_hidden_numbers_of_fully_connected_layers_are_dropped() -> None:
    decoder = build_decoder("compact", (64,), 64, width=0.05)
    kinds = [type(module).__name__ for module in decoder.modules() if isinstance(module, nn.Linear | nn.Dropout)]
    assert kinds == ["Linear", "Dropout", "Linear"]
    of_map = build_decoder("compact", HOG_SHAPE, 256, 0.05)
    assert not any(isinstance(module, nn.Dropout) for module in of_map.modules())


def test_blurring_the_kernel_does_not_depend_on_its_layout_in_memory() -> None:
    smooth = Up(5, smooth=True).build(3, 5)
    features = torch.rand(2, 3, 8, 8)
    with torch.no_grad():
        contiguous = smooth(features)
        channels_last = smooth.to(memory_format=torch.channels_last)(features)
    torch.testing.assert_close(contiguous, channels_last)

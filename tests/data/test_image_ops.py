"""Each operation against torchvision's, image by image, and what must hold for any parameters."""

import pytest
import torch
import torchvision.transforms.v2.functional as tv
from torch import Tensor
from torchvision.transforms import InterpolationMode

from ssl_ebm.data import image_ops

N = 12
SHAPES = [(1, 28, 28), (3, 32, 32), (3, 17, 24), (1, 9, 13)]


@pytest.fixture(params=SHAPES, ids=str)
def images(request: pytest.FixtureRequest) -> Tensor:
    """Smooth shapes with noise, some values at 0 and 1, one grey image and one black image."""
    torch.manual_seed(0)
    channels, height, width = request.param
    smooth = torch.nn.functional.interpolate(torch.rand(N, channels, 5, 5), (height, width), mode="bicubic")
    images = (1.4 * smooth - 0.2 + 0.1 * torch.randn(N, channels, height, width)).clamp(0, 1)
    images[0], images[1] = images[0].mean(0), 0
    return images


def uniform(low: float, high: float) -> Tensor:
    return torch.rand(N) * (high - low) + low


def windows(height: int, width: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Random windows; the first is the whole image, then one pixel at each of two corners, then one row."""
    high, wide = torch.randint(1, height + 1, (N,)), torch.randint(1, width + 1, (N,))
    high[:4], wide[:4] = torch.tensor([height, 1, 1, 1]), torch.tensor([width, 1, 1, width])
    top, left = (torch.rand(N) * (height - high + 1)).long(), (torch.rand(N) * (width - wide + 1)).long()
    top[1], left[1], top[2], left[2] = 0, 0, height - 1, width - 1
    return top, left, high, wide


def close(ours: Tensor, theirs: list[Tensor]) -> None:
    torch.testing.assert_close(ours, torch.stack(theirs), rtol=0, atol=5e-6)


@pytest.mark.parametrize("size", [1, 7, 28, 33])
def test_resized_crop(images: Tensor, size: int) -> None:
    box, flip = windows(*images.shape[2:]), torch.rand(N) < 0.5
    expected = [
        tv.resized_crop(
            image, *(int(edge[i]) for edge in box), [size, size], InterpolationMode.BILINEAR, antialias=True
        )
        for i, image in enumerate(images)
    ]
    expected = [tv.horizontal_flip(image) if flipped else image for image, flipped in zip(expected, flip, strict=True)]
    close(image_ops.resized_crop(images, *box, flip, size=size), expected)


def test_resized_crop_scales_uint8(images: Tensor) -> None:
    box, flip = windows(*images.shape[2:]), torch.rand(N) < 0.5
    bytes_ = (images * 255).to(torch.uint8)
    for size in (8, 40):
        scaled = image_ops.resized_crop(bytes_, *box, flip, size=size)
        close(scaled, list(image_ops.resized_crop(bytes_ / 255, *box, flip, size=size)))
        assert 0 <= scaled.min() and scaled.max() <= 1


@pytest.mark.parametrize("size", [6, 40])
def test_resized_crop_reads_nothing_outside_of_the_window(images: Tensor, size: int) -> None:
    top, left, height, width = box = windows(*images.shape[2:])
    outside = images.clone()
    for i in range(N):
        inside = images[i, :, top[i] : top[i] + height[i], left[i] : left[i] + width[i]]
        outside[i] = torch.rand(())
        outside[i, :, top[i] : top[i] + height[i], left[i] : left[i] + width[i]] = inside
    flip = torch.zeros(N, dtype=torch.bool)
    crop, same = (image_ops.resized_crop(x, *box, flip, size=size) for x in (images, outside))
    assert torch.equal(crop, same)


def test_whole_window_is_the_identity_and_two_flips_are() -> None:
    images = torch.rand(N, 3, 16, 16)
    zero, full = torch.zeros(N, dtype=torch.long), torch.full((N,), 16)
    keep, flip = torch.zeros(N, dtype=torch.bool), torch.ones(N, dtype=torch.bool)
    assert torch.equal(image_ops.resized_crop(images, zero, zero, full, full, keep, size=16), images)
    once = image_ops.resized_crop(images, zero, zero, full, full, flip, size=16)
    assert torch.equal(once, images.flip(3))
    assert torch.equal(image_ops.resized_crop(once, zero, zero, full, full, flip, size=16), images)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16])
def test_resized_crop_dtypes(dtype: torch.dtype) -> None:
    images, box = torch.rand(N, 1, 20, 20), windows(20, 20)
    flip = torch.rand(N) < 0.5
    ours = image_ops.resized_crop(images.to(dtype), *box, flip, size=15)
    assert ours.dtype == torch.promote_types(dtype, torch.float32)
    torch.testing.assert_close(
        ours, image_ops.resized_crop(images, *box, flip, size=15), check_dtype=False, rtol=0, atol=1e-3
    )


COLOURS = [("brightness", 0, 2), ("contrast", 0, 2), ("saturation", 0, 2), ("hue", -0.5, 0.5)]


@pytest.mark.parametrize(("name", "low", "high"), COLOURS)
def test_colour(images: Tensor, name: str, low: float, high: float) -> None:
    factor = uniform(low, high)
    factor[2], factor[3] = low, high
    ours = getattr(image_ops, f"adjust_{name}")(images, factor)
    close(ours, [getattr(tv, f"adjust_{name}")(x, f.item()) for x, f in zip(images, factor, strict=True)])
    assert 0 <= ours.min() and ours.max() <= 1


def test_hue_on_all_sides_of_the_hexagon() -> None:
    levels = torch.linspace(0, 1, 6)
    colours = torch.cartesian_prod(levels, levels, levels).T.reshape(1, 3, 12, 18)  # with all ties of the channels
    for shift in torch.linspace(-0.5, 0.5, 13):
        expected = tv.adjust_hue(colours, shift.item())
        torch.testing.assert_close(image_ops.adjust_hue(colours, shift[None]), expected, rtol=0, atol=5e-6)


@pytest.mark.parametrize(("name", "neutral"), [("brightness", 1), ("contrast", 1), ("saturation", 1), ("hue", 0)])
def test_neutral_factor_is_the_identity(images: Tensor, name: str, neutral: float) -> None:
    ours = getattr(image_ops, f"adjust_{name}")(images, torch.full((N,), float(neutral)))
    torch.testing.assert_close(ours, images, rtol=0, atol=2e-6 if name == "hue" else 0)


def test_grey(images: Tensor) -> None:
    close(image_ops.to_grey(images), [tv.rgb_to_grayscale(x, num_output_channels=len(x)) for x in images])


@pytest.mark.parametrize("kernel_size", [1, 3, 9])
def test_gaussian_blur(images: Tensor, kernel_size: int) -> None:
    sigma = uniform(0.1, 2.0)
    ours = image_ops.gaussian_blur(images, sigma, kernel_size=kernel_size)
    close(ours, [tv.gaussian_blur(x, [kernel_size] * 2, [s.item()] * 2) for x, s in zip(images, sigma, strict=True)])


def test_gaussian_blur_keeps_a_constant_and_does_nothing_at_sigma_zero() -> None:
    flat = torch.full((N, 3, 8, 8), 0.7)
    torch.testing.assert_close(image_ops.gaussian_blur(flat, uniform(0.1, 5), kernel_size=7), flat)
    images = torch.rand(N, 3, 8, 8)
    assert torch.equal(image_ops.gaussian_blur(images, torch.full((N,), 1e-2), kernel_size=5), images)


@pytest.mark.parametrize("kernel_size", [4, 11])
def test_gaussian_blur_refuses(kernel_size: int) -> None:
    with pytest.raises(ValueError, match=f"kernel_size must be odd and its half < 5, got {kernel_size}"):
        image_ops.gaussian_blur(torch.rand(2, 1, 5, 9), torch.ones(2), kernel_size=kernel_size)


def test_solarise(images: Tensor) -> None:
    threshold = uniform(0, 1)
    threshold[2] = images[2, 0, 0, 0]  # the threshold itself is inverted
    close(
        image_ops.solarise(images, threshold),
        [tv.solarize(x, t.item()) for x, t in zip(images, threshold, strict=True)],
    )


@pytest.mark.parametrize("value", [0.0, 0.5])
def test_erase(images: Tensor, value: float) -> None:
    box = windows(*images.shape[2:])
    box[2][5] = 0  # an empty box erases nothing
    filling = torch.full((images.shape[1], 1, 1), value)
    ours = image_ops.erase(images, *box, value=value)
    close(ours, [tv.erase(x, *(int(edge[i]) for edge in box), filling) for i, x in enumerate(images)])
    assert torch.equal(ours[5], images[5])


def test_two_channels_are_neither_grey_nor_colour() -> None:
    images, factor = torch.rand(N, 2, 8, 8), torch.rand(N)
    torch.testing.assert_close(image_ops.adjust_brightness(images, factor), images * factor[:, None, None, None])
    for operation in (image_ops.adjust_contrast, image_ops.adjust_saturation, image_ops.adjust_hue):
        with pytest.raises(ValueError, match="1 or 3 channels, got 2"):
            operation(images, factor)

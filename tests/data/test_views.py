"""Distributions against torchvision's, reproducibility, independence of the samples, presets, and users' mistakes."""

import functools
import math
from dataclasses import fields, replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torchvision.transforms import RandomErasing, RandomResizedCrop

from ssl_ebm.data import image_ops, views
from ssl_ebm.data.augmentation import Augmentation, Transform
from ssl_ebm.data.views import LOCAL_PRESETS, PRESETS, MultiCrop, Views, create_views

EVERYTHING = Augmentation(
    crop_scale=(0.3, 1.0),
    flip=0.5,
    jitter=0.7,
    brightness=0.4,
    contrast=0.4,
    saturation=0.4,
    hue=0.1,
    grey=0.3,
    blur=0.5,
    solarise=0.3,
    erase=0.4,
)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def drawn(augmentation: Augmentation, n: int, height: int = 32, width: int = 32, channels: int = 3) -> list[Transform]:
    shape = dict(channels=channels, height=height, width=width, size=32)
    return augmentation.draw(n, **shape, device=torch.device("cpu"), generator=seeded())


def names(steps: list[Transform]) -> list[str]:
    operations = [operation for step in steps for operation, _ in step.operations]
    return [(o.func if isinstance(o, functools.partial) else o).__name__ for o in operations]


@pytest.mark.parametrize("channels", [1, 3])
def test_default_changes_nothing(channels: int) -> None:
    images = torch.rand(5, channels, 12, 12)
    made = Views([Augmentation()] * 2, size=12)(images)
    assert made.shape == (2, 5, channels, 12, 12)
    assert torch.equal(made, images.expand(2, -1, -1, -1, -1))
    scaled = Views([Augmentation()], size=12)((images * 255).byte())[0]
    torch.testing.assert_close(scaled, (images * 255).byte() / 255, rtol=0, atol=1e-6)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", [*PRESETS, "everything"])
@pytest.mark.parametrize("size", [16, 32])
def test_views_are_in_range_reproducible_and_leave_the_images(name: str, channels: int, size: int) -> None:
    images = torch.randint(0, 256, (9, channels, 20, 28), dtype=torch.uint8, generator=seeded())
    before = images.clone()
    make = Views([EVERYTHING] * 3, size=size) if name == "everything" else create_views(name, size=size, views=3)
    first, again, other = make(images, generator=seeded()), make(images, generator=seeded()), make(images)
    assert first.shape == (3, 9, channels, size, size) and first.dtype == torch.float32
    assert 0 <= first.min() and first.max() <= 1 and first.isfinite().all()
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert torch.equal(images, before)
    assert (first[0] != first[1]).flatten(1).any(1).all()  # the views of an image differ, also in one batched call


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_uint8_and_float_agree(dtype: torch.dtype) -> None:
    images = torch.randint(0, 256, (32, 3, 20, 20), dtype=torch.uint8)
    make = Views([replace(EVERYTHING, solarise=0)], size=20)  # solarise cuts, so that a rounding error may show
    ours = make(images.to(dtype) / 255, generator=seeded())
    assert ours.dtype == dtype
    torch.testing.assert_close(make(images, generator=seeded()).to(dtype), ours, rtol=0, atol=1e-5)


def test_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    images = torch.rand(13, 3, 16, 16)
    make = Views([EVERYTHING, EVERYTHING, Augmentation(flip=1)], size=16)
    whole = make(images, generator=seeded())
    monkeypatch.setattr(views, "CHUNK", 5 * 3 * 16 * 16)  # chunks of five samples, which cross from view to view
    torch.testing.assert_close(make(images, generator=seeded()), whole, rtol=0, atol=1e-6)
    torch.testing.assert_close(whole[2], images.flip(3), rtol=0, atol=0)


def test_autocast_changes_nothing() -> None:
    images = torch.rand(8, 3, 16, 16)
    make = Views([EVERYTHING], size=16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        within = make(images, generator=seeded())
    assert torch.equal(within, make(images, generator=seeded()))


@pytest.mark.parametrize("channels", [1, 3])
def test_samples_do_not_depend_on_each_other(channels: int) -> None:
    images = torch.rand(16, channels, 16, 16)
    changed = images.clone()
    changed[3] = torch.rand(channels, 16, 16)
    make = Views([EVERYTHING] * 2, size=16)
    difference = (make(images, generator=seeded()) - make(changed, generator=seeded())).abs().amax((0, 2, 3, 4))
    assert difference[3] > 0.01
    assert difference[torch.arange(16) != 3].max() < 1e-6


def test_a_view_is_its_operations_at_the_drawn_parameters() -> None:
    """The composition, written out sample by sample with the functions of `image_ops`."""
    images = torch.rand(24, 3, 20, 24)
    made = Views([EVERYTHING], size=32)(images, generator=seeded())[0]
    steps = drawn(EVERYTHING, 24, 20, 24)
    for i in range(24):
        expected = images[i : i + 1]
        for operations, chosen in steps:
            if chosen is None or chosen[i]:
                for operation, parameters in operations:
                    expected = operation(expected, *(parameter[i : i + 1] for parameter in parameters))
        torch.testing.assert_close(made[i : i + 1], expected, rtol=0, atol=1e-5)


def test_order_of_the_operations() -> None:
    order = names(drawn(EVERYTHING, 8))
    assert order[0] == "resized_crop" and order[5:] == ["to_grey", "gaussian_blur", "solarise", "erase"]
    assert sorted(order[1:5]) == ["adjust_brightness", "adjust_contrast", "adjust_hue", "adjust_saturation"]
    orders = {tuple(names(EVERYTHING.draw(2, channels=3, height=8, width=8, size=8, device=torch.device("cpu"))))}
    for _ in range(60):
        orders.add(tuple(names(EVERYTHING.draw(2, channels=3, height=8, width=8, size=8, device=torch.device("cpu")))))
    assert 12 < len(orders) <= 24


def test_grey_images_skip_what_is_colour() -> None:
    order = names(drawn(EVERYTHING, 8, channels=1))
    assert sorted(order[1:3]) == ["adjust_brightness", "adjust_contrast"]
    assert order[3:] == ["gaussian_blur", "solarise", "erase"]


def frequency(chosen: Tensor | None) -> float:
    assert chosen is not None
    return chosen.double().mean().item()


def test_probabilities_and_ranges() -> None:
    n = 20_000
    crop, jitter, grey, blur, solarise, erase = drawn(EVERYTHING, n)
    flip = crop.operations[0][1][4]
    for chosen, p in [
        (flip, 0.5),
        *zip((s.chosen for s in (jitter, grey, blur, solarise, erase)), (0.7, 0.3, 0.5, 0.3, 0.4), strict=True),
    ]:
        assert abs(frequency(chosen) - p) < 4.5 * math.sqrt(p * (1 - p) / n)
    ranges = {"brightness": (0.6, 1.4), "contrast": (0.6, 1.4), "saturation": (0.6, 1.4), "hue": (-0.1, 0.1)}
    factors = {operation.__name__.removeprefix("adjust_"): value for operation, (value,) in jitter.operations}
    factors["blur"], ranges["blur"] = blur.operations[0][1][0], (0.1, 2.0)
    for name, (low, high) in ranges.items():
        value, middle, spread = factors[name].double(), (low + high) / 2, (high - low) / math.sqrt(12)
        assert low - 1e-6 <= value.min() and value.max() <= high + 1e-6, name
        assert abs(value.mean() - middle) < 4.5 * spread / math.sqrt(n), name
        assert abs(value.std() / spread - 1) < 0.03, name


def test_strong_jitter_stops_at_zero() -> None:
    (value,) = drawn(Augmentation(jitter=1, brightness=1.5), 5000)[1].operations[0][1]
    assert 0 <= value.min() < 0.01 and 2.49 < value.max() <= 2.5


def test_certain_operations_are_for_all_and_impossible_ones_absent() -> None:
    crop, jitter, blur = drawn(Augmentation(jitter=1, contrast=0.5, blur=1), 4)
    assert crop.chosen is jitter.chosen is blur.chosen is None
    assert names(drawn(Augmentation(brightness=1, hue=0.5), 4)) == ["resized_crop"]
    assert len(drawn(Augmentation(jitter=1, hue=0.5), 4, channels=1)) == 1


def moments(boxes: Tensor) -> Tensor:
    """Means of top, left, height, width and their products: with them the law of the boxes is pinned down."""
    boxes = boxes.double()
    return torch.cat([boxes.mean(1), (boxes @ boxes.T / boxes.shape[1]).flatten()])


@pytest.mark.parametrize(
    ("height", "width", "scale", "ratio"),
    [(32, 32, (0.08, 1.0), (3 / 4, 4 / 3)), (20, 31, (0.5, 1.0), (0.5, 1.0)), (40, 10, (0.9, 1.0), (0.8, 1.2))],
)
def test_crops_follow_random_resized_crop(
    height: int, width: int, scale: tuple[float, float], ratio: tuple[float, float]
) -> None:
    """The last case has no fitting window: torchvision's central one."""
    torch.manual_seed(0)
    n, image = 4000, torch.empty(1, height, width)
    theirs = torch.tensor([RandomResizedCrop.get_params(image, list(scale), list(ratio)) for _ in range(n)]).T
    steps = drawn(Augmentation(crop_scale=scale, crop_ratio=ratio), 10 * n, height, width)
    ours = torch.stack(steps[0].operations[0][1][:4])
    top, left, high, wide = ours
    assert (top >= 0).all() and (left >= 0).all() and (high > 0).all() and (wide > 0).all()
    assert (top + high <= height).all() and (left + wide <= width).all()
    torch.testing.assert_close(moments(ours), moments(theirs), rtol=0.05, atol=0.15)
    if (height, width) == (40, 10):
        assert torch.equal(ours.unique(dim=1), theirs.unique(dim=1))


def test_boxes_follow_random_erasing() -> None:
    torch.manual_seed(0)
    n, image = 4000, torch.empty(1, 32, 32)
    scale, ratio = (0.02, 0.33), (0.2, 1.0)  # a ratio that is not its own inverse tells height from width
    theirs = [RandomErasing.get_params(image, list(scale), list(ratio), [0.0])[:4] for _ in range(n)]
    steps = drawn(Augmentation(erase=1, erase_scale=scale, erase_ratio=ratio), 10 * n)
    ours = torch.stack(steps[1].operations[0][1])
    torch.testing.assert_close(moments(ours), moments(torch.tensor(theirs).T), rtol=0.05, atol=0.15)


def test_box_that_never_fits_erases_nothing() -> None:
    images = torch.rand(4, 1, 8, 8)
    assert torch.equal(Views([Augmentation(erase=1, erase_scale=(1, 1))], size=8)(images)[0], images)


def test_all_operations_certain_on_expanded_grey() -> None:
    """`to_grey` for all, then an operation that writes to a subset."""
    made = Views([Augmentation(grey=1, blur=0.5)], size=8)(torch.rand(16, 3, 8, 8))[0]
    torch.testing.assert_close(made[:, 0], made[:, 2])


@pytest.mark.parametrize(("size", "kernel"), [(8, 3), (28, 3), (32, 3), (96, 9), (224, 23)])
def test_blur_kernel_is_a_tenth_of_the_side(size: int, kernel: int) -> None:
    steps = Augmentation(blur=1).draw(2, channels=3, height=9, width=9, size=size, device=torch.device("cpu"))
    operation = steps[1].operations[0][0]
    assert isinstance(operation, functools.partial) and operation.func is image_ops.gaussian_blur
    assert operation.keywords == {"kernel_size": kernel}


def test_no_images() -> None:
    assert Views([EVERYTHING] * 2, size=8)(torch.rand(0, 3, 10, 10)).shape == (2, 0, 3, 8, 8)


def test_presets_cycle_and_overrides_reach_every_view() -> None:
    strong, weak = PRESETS["byol"]
    assert create_views("byol", size=32, views=3).augmentations == (strong, weak, strong)
    assert (strong.blur, strong.solarise, weak.blur, weak.solarise) == (1, 0, 0.1, 0.2)
    assert create_views("simclr", size=32).augmentations == PRESETS["simclr"] * 2
    plain = create_views("byol", size=32, blur=0.0, crop_scale=[0.2, 1]).augmentations
    assert plain == (replace(strong, blur=0, crop_scale=(0.2, 1)), replace(weak, blur=0, crop_scale=(0.2, 1)))
    assert len(set(plain)) == 2


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", PRESETS)
def test_multi_crop_makes_views_of_two_sizes(name: str, channels: int) -> None:
    images = torch.randint(0, 256, (5, channels, 24, 30), dtype=torch.uint8, generator=seeded())
    make = create_views(name, size=20, views=3, local_views=4, local_size=9)
    assert isinstance(make, MultiCrop)
    assert (make.count, make.global_count, make.size, make.sizes) == (7, 3, 20, (20, 9))
    assert str(make) == "3 of 20 pixels and 4 of 9 pixels"
    large, small = make(images, generator=seeded())
    assert large.shape == (3, 5, channels, 20, 20) and small.shape == (4, 5, channels, 9, 9)
    for made in (large, small):
        assert 0 <= made.min() and made.max() <= 1 and made.isfinite().all()
        assert (made[0] != made[1]).flatten(1).any(1).all()


def test_multi_crop_is_reproducible_and_draws_the_global_views_first() -> None:
    images = torch.rand(5, 3, 24, 24)
    plain, make = create_views("simclr", size=20), create_views("simclr", size=20, local_views=3)
    (large, small), again, other = make(images, generator=seeded()), make(images, generator=seeded()), make(images)
    assert torch.equal(large, again[0]) and torch.equal(small, again[1]) and not torch.equal(small, other[1])
    generator = seeded()
    assert torch.equal(large, plain(images, generator=generator))
    assert torch.equal(small, make.local_views(images, generator=generator))


def test_without_local_views_nothing_changes() -> None:
    make = create_views("grey", size=20, local_views=0, local_size=400, local_crop_scale=(0.1, 0.2))
    assert isinstance(make, Views) and make.augmentations == PRESETS["grey"] * 2
    assert (make.count, make.global_count, make.size, make.sizes) == (2, 2, 20, (20,))
    assert str(make) == "2 of 20 pixels"


@pytest.mark.parametrize(
    ("size", "local"), [(224, 96), (96, 41), (64, 27), (32, 14), (28, 12), (12, 8), (8, 8), (6, 6)]
)
def test_local_size_is_three_sevenths(size: int, local: int) -> None:
    assert create_views("simclr", size=size, local_views=1).sizes == (size, local)


@pytest.mark.parametrize(("scale", "expected"), [({}, (0.05, 0.4)), ({"local_crop_scale": [0.1, 0.14]}, (0.1, 0.14))])
def test_local_crops_have_their_own_areas(scale: dict[str, Any], expected: tuple[float, float]) -> None:
    """Uniform in their range, up to rounding to whole pixels of an image of 200 x 200; the global ones in theirs."""
    make, n = create_views("simclr", size=32, crop_scale=(0.4, 1.0), local_views=2, **scale), 20_000
    for part, (low, high) in ((make.global_views, (0.4, 1.0)), (make.local_views, expected)):
        assert [a.crop_scale for a in part.augmentations] == [(low, high)] * 2
        _, _, high_side, wide_side = drawn(part.augmentations[0], n, 200, 200)[0].operations[0][1][:4]
        area = (high_side * wide_side).double() / 200**2
        if high < 1:  # larger crops do not fit in every shape, so that their areas are not uniform
            assert low - 0.005 < area.min() and area.max() < high + 0.005
            spread = (high - low) / math.sqrt(12)
            assert abs(area.mean() - (low + high) / 2) < 4.5 * spread / math.sqrt(n) + 2e-4
            assert abs(area.std() / spread - 1) < 0.03
        else:
            assert area.min() > 0.39 and area.max() > 0.95


def test_overrides_reach_local_views_and_byol_has_those_of_dino() -> None:
    make = create_views("byol", size=32, crop_scale=(0.4, 1), flip=0, local_views=3)
    strong, weak = (replace(a, crop_scale=(0.4, 1), flip=0) for a in PRESETS["byol"])
    assert make.global_views.augmentations == (strong, weak)
    (local,) = LOCAL_PRESETS["byol"]
    assert (local.blur, local.solarise, local.brightness) == (0.5, 0, 0.4)
    assert make.local_views.augmentations == (replace(local, crop_scale=(0.05, 0.4), flip=0),) * 3


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("flip", 1.5, r"flip must be in \[0, 1\], got 1.5"),
        ("blur", math.nan, r"blur must be in \[0, 1\], got nan"),
        ("hue", 0.6, r"hue must be in \[0, 0.5\], got 0.6"),
        ("contrast", -0.1, r"contrast must be in \[0, inf\], got -0.1"),
        ("crop_scale", (0.5, 0.2), r"crop_scale must have 0 < low <= high <= 1, got \(0.5, 0.2\)"),
        ("crop_scale", (0, 1), "crop_scale must have 0 < low"),
        ("erase_scale", (0.1, 1.1), "erase_scale must have 0 < low"),
        ("crop_ratio", (-1, 1), "crop_ratio must have 0 < low <= high <= inf"),
        ("blur_sigma", (0.0, 2.0), "blur_sigma must have 0 < low"),
        ("crop_scale", (0.5,), "crop_scale must be a pair of numbers"),
    ],
)
def test_fields_out_of_range(field: str, value: Any, message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        Augmentation(**{field: value})


def test_every_field_is_checked() -> None:
    for field in fields(Augmentation):
        with pytest.raises((ValueError, TypeError)):
            Augmentation(**{field.name: (-1.0, 1.0) if isinstance(field.default, tuple) else -1.0})


def test_mistakes_name_the_remedy() -> None:
    with pytest.raises(ValueError, match="unknown views preset 'simlcr': did you mean 'simclr'"):
        create_views("simlcr", size=32)
    with pytest.raises(ValueError, match="unknown views preset 'zzz'; valid: byol, grey, simclr"):
        create_views("zzz", size=32)
    with pytest.raises(TypeError, match="unknown field of views 'crop_scales': did you mean 'crop_scale'"):
        create_views("simclr", size=32, crop_scales=(0.2, 1.0))
    with pytest.raises(ValueError, match="at least one"):
        Views([], size=32)
    with pytest.raises(ValueError, match="size must be >= 1 pixel, got 0"):
        create_views("grey", size=0)
    with pytest.raises(TypeError, match="unknown field of views 'local_view': did you mean 'local_views'"):
        create_views("grey", size=28, local_view=2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"views": 0}, "views must be >= 1, got 0"),
        ({"local_views": -1}, r"local_views must be >= 0 \(0: all views are global\), got -1"),
        ({"local_size": 29}, r"local_size must be in \[1, 28\], the size of the global views, got 29"),
        ({"local_size": 0}, r"local_size must be in \[1, 28\], .* got 0"),
        ({"local_crop_scale": (0.4, 0.05)}, r"local_crop_scale must have 0 < low <= high <= 1, got \(0.4, 0.05\)"),
        ({"local_crop_scale": [0.4]}, r"local_crop_scale must be a pair of numbers \(low, high\), got \[0.4\]"),
    ],
)
def test_mistakes_of_multi_crop(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=f"^{message}$") as error:
        create_views("grey", **{"size": 28, "local_views": 2, **arguments})
    assert "\n" not in str(error.value)

"""The distribution of one view of an image.

Drawing is apart from doing: an `Augmentation` draws `Transform`s, functions of `image_ops` with one parameter per
sample, and `views` applies them. An augmentation of a chosen strength is the same functions with chosen parameters.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ssl_ebm.data import image_ops

BOX_TRIES = 10  # draws of a box until one fits the image, as in torchvision

_UPPER_BOUNDS = {"hue": 0.5} | dict.fromkeys(  # of the fields of `Augmentation` for which it is not 1
    ("brightness", "contrast", "saturation", "crop_ratio", "blur_sigma", "erase_ratio"), math.inf
)

Number = float | int  # users and configuration files write 1 for 1.0
Range = Sequence[Number]
Operation = tuple[Callable[..., Tensor], tuple[Tensor, ...]]


class Transform(NamedTuple):
    """Operations in their order, each with its parameters `[n]`.

    Attributes:
        operations: Functions of `image_ops` with their parameters.
        chosen: Which of the n samples are transformed; None: all.
    """

    operations: Sequence[Operation]
    chosen: Tensor | None = None


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """The distribution of one view: crop and flip, colour jitter, grey, blur, solarise, erase; in this order.

    The defaults change nothing. Crops follow torchvision's `RandomResizedCrop` (area uniform, logarithm of the aspect
    ratio uniform), jitter its `ColorJitter`, boxes its `RandomErasing`. The order of the jitter's operations is drawn
    once a batch, not once a sample. Single-channel images have no saturation, hue or loss of colour.

    Attributes:
        crop_scale: Range of the crop's area, as a fraction of the image's.
        crop_ratio: Range of the crop's width / height.
        flip: Probability of a flip left to right.
        jitter: Probability of colour jitter; its four strengths follow.
        brightness: Factors are uniform in [max(0, 1 - brightness), 1 + brightness].
        contrast: As `brightness`.
        saturation: As `brightness`.
        hue: Shifts are uniform in [-hue, hue] of a full circle; at most ½.
        grey: Probability of loss of colour.
        blur: Probability of Gaussian blur.
        blur_sigma: Range of its standard deviation, in pixels.
        blur_kernel: Side of its kernel as a fraction of the view's (SimCLR: 10 %); made odd, at least 3 pixels.
        solarise: Probability of solarisation.
        solarise_threshold: Values from here on are inverted.
        erase: Probability that a box is erased.
        erase_scale: Range of the box's area, as a fraction of the view's.
        erase_ratio: Range of the box's height / width.
        erase_value: What the box is filled with.

    Raises:
        TypeError: A field is not a number, or not a pair of numbers.
        ValueError: A field is out of its range.
    """

    crop_scale: Range = (1.0, 1.0)
    crop_ratio: Range = (3 / 4, 4 / 3)
    flip: Number = 0.0
    jitter: Number = 0.0
    brightness: Number = 0.0
    contrast: Number = 0.0
    saturation: Number = 0.0
    hue: Number = 0.0
    grey: Number = 0.0
    blur: Number = 0.0
    blur_sigma: Range = (0.1, 2.0)
    blur_kernel: Number = 0.1
    solarise: Number = 0.0
    solarise_threshold: Number = 0.5
    erase: Number = 0.0
    erase_scale: Range = (0.02, 0.33)
    erase_ratio: Range = (0.3, 3.3)
    erase_value: Number = 0.0

    def __post_init__(self) -> None:
        for field in fields(self):
            name, value, upper = field.name, getattr(self, field.name), _UPPER_BOUNDS.get(field.name, 1)
            if not isinstance(field.default, tuple):
                if not isinstance(value, (int, float)):
                    raise TypeError(f"{name} must be a number, got {value!r}")
                if not 0 <= value <= upper:
                    raise ValueError(f"{name} must be in [0, {upper}], got {value}")
                continue
            check_range(name, value, upper)
            object.__setattr__(self, name, tuple(value))  # equal and hashable where a configuration gave a list

    def draw(
        self,
        n: int,
        *,
        channels: int,
        height: int,
        width: int,
        size: int,
        device: torch.device,
        generator: torch.Generator | None = None,
    ) -> list[Transform]:
        """The transforms of n views, of `size` pixels a side, of images of this shape: one draw, made on `device`."""
        rand = partial(torch.rand, device=device, generator=generator)

        def uniform(low: Number, high: Number) -> Tensor:
            return rand(n) * (high - low) + low

        def subset(probability: Number) -> Tensor | None:
            return None if probability == 1 else rand(n) < probability

        crop = partial(image_ops.resized_crop, size=size)
        window = _draw_crops(rand, n, height, width, self.crop_scale, self.crop_ratio)
        steps = [Transform([(crop, (*window, rand(n) < self.flip))])]
        if self.jitter and (colours := self._colours(channels)):
            order = torch.randperm(len(colours), device=device, generator=generator).tolist()
            jitter = [(adjust, (uniform(low, high),)) for adjust, low, high in (colours[i] for i in order)]
            steps.append(Transform(jitter, subset(self.jitter)))
        if self.grey and channels > 1:
            steps.append(Transform([(image_ops.to_grey, ())], subset(self.grey)))
        if self.blur:
            blur = partial(image_ops.gaussian_blur, kernel_size=2 * max(1, int(self.blur_kernel * size) // 2) + 1)
            steps.append(Transform([(blur, (uniform(*self.blur_sigma),))], subset(self.blur)))
        if self.solarise:
            threshold = torch.full((n,), float(self.solarise_threshold), device=device)
            steps.append(Transform([(image_ops.solarise, (threshold,))], subset(self.solarise)))
        if self.erase:
            erase = partial(image_ops.erase, value=float(self.erase_value))
            box = _draw_erasures(rand, n, size, size, self.erase_scale, self.erase_ratio)
            steps.append(Transform([(erase, box)], subset(self.erase)))
        return steps

    def _colours(self, channels: int) -> list[tuple[Callable[..., Tensor], Number, Number]]:
        """The operations of the jitter whose strength is not 0, each with the range of its parameter."""
        colours = [
            (image_ops.adjust_brightness, max(0, 1 - self.brightness), 1 + self.brightness),
            (image_ops.adjust_contrast, max(0, 1 - self.contrast), 1 + self.contrast),
            (image_ops.adjust_saturation, max(0, 1 - self.saturation), 1 + self.saturation),
            (image_ops.adjust_hue, -self.hue, self.hue),
        ]
        return [colour for colour in colours[: 2 if channels == 1 else 4] if colour[1] < colour[2]]


def check_range(name: str, value: Any, upper: Number = 1) -> None:
    """Check a pair (low, high) with 0 < low <= high <= upper.

    Raises:
        TypeError: It is not a pair of numbers.
        ValueError: It is out of its range.
    """
    if not isinstance(value, Sequence) or [isinstance(end, (int, float)) for end in value] != [True, True]:
        raise TypeError(f"{name} must be a pair of numbers (low, high), got {value!r}")
    if not 0 < value[0] <= value[1] <= upper:
        raise ValueError(f"{name} must have 0 < low <= high <= {upper}, got {value}")


def _draw_crops(
    rand: Callable[..., Tensor], n: int, height: int, width: int, scale: Range, ratio: Range
) -> tuple[Tensor, ...]:
    """Top, left, height and width of the windows of n crops; the largest central window where no try has fitted."""
    fitted, box_height, box_width = _draw_boxes(rand, n, height, width, scale, ratio)
    box_height = torch.where(fitted, box_height, max(1, min(height, round(width / ratio[0]))))
    box_width = torch.where(fitted, box_width, max(1, min(width, round(height * ratio[1]))))
    top = torch.where(fitted, rand(n) * (height - box_height + 1), (height - box_height) / 2)
    left = torch.where(fitted, rand(n) * (width - box_width + 1), (width - box_width) / 2)
    return top.long(), left.long(), box_height.long(), box_width.long()


def _draw_erasures(
    rand: Callable[..., Tensor], n: int, height: int, width: int, scale: Range, ratio: Range
) -> tuple[Tensor, ...]:
    """Top, left, height and width of n boxes smaller than the image; an empty box where no try has fitted."""
    # here ratio is height / width
    fitted, box_width, box_height = _draw_boxes(rand, n, width, height, scale, ratio, margin=1)
    top, left = rand(n) * (height - box_height + 1), rand(n) * (width - box_width + 1)
    return top.long(), left.long(), (box_height * fitted).long(), box_width.long()


def _draw_boxes(
    rand: Callable[..., Tensor],
    n: int,
    height: int,
    width: int,
    scale: Range,
    ratio: Range,
    margin: int = 0,
) -> tuple[Tensor, Tensor, Tensor]:
    """For each of n boxes whether one of its tries has fitted, and the height and width of the first that did."""
    area = (rand(BOX_TRIES, n) * (scale[1] - scale[0]) + scale[0]) * (height * width)
    aspect = torch.exp(rand(BOX_TRIES, n) * math.log(ratio[1] / ratio[0]) + math.log(ratio[0]))
    box_height, box_width = (area / aspect).sqrt().round(), (area * aspect).sqrt().round()
    fits = (box_height > 0) & (box_height <= height - margin) & (box_width > 0) & (box_width <= width - margin)
    fitted, first = fits.max(0, keepdim=True)
    return fitted[0], box_height.gather(0, first)[0], box_width.gather(0, first)[0]

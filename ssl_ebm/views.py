"""Views of a batch of images: random augmentation in batches, on the device of the images.

`Augmentation` is the distribution of one view, `PRESETS` are published ones, `Views` makes several views of each image.
Drawing is apart from doing: what is drawn is a list of `Step`s, functions of `image_ops` with one parameter per sample;
an augmentation of a chosen strength is the same functions with parameters of one's own.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from itertools import cycle, groupby, islice
from typing import Any, NamedTuple, final

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from ssl_ebm import image_ops
from ssl_ebm.names import unknown

CHUNK = 2**19  # values in work at a time on the CPU: intermediate results stay in its caches
TRIES = 10  # to draw a box that fits, as torchvision

_MOST = {"hue": 0.5} | dict.fromkeys(  # the upper bounds of `Augmentation`'s fields that are not 1
    ("brightness", "contrast", "saturation", "crop_ratio", "blur_sigma", "erase_ratio"), math.inf
)

Number = float | int  # users and configuration files write 1 for 1.0
Range = Sequence[Number]
Operation = tuple[Callable[..., Tensor], tuple[Tensor, ...]]


class Step(NamedTuple):
    """Operations in their order, each with its parameters `[n]`, for the chosen ones of n samples (None: for all)."""

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
            name, value, most = field.name, getattr(self, field.name), _MOST.get(field.name, 1)
            if not isinstance(field.default, tuple):
                if not isinstance(value, (int, float)):
                    raise TypeError(f"{name} must be a number, got {value!r}")
                if not 0 <= value <= most:
                    raise ValueError(f"{name} must be in [0, {most}], got {value}")
                continue
            if not isinstance(value, Sequence) or [isinstance(end, (int, float)) for end in value] != [True, True]:
                raise TypeError(f"{name} must be a pair of numbers (low, high), got {value!r}")
            if not 0 < value[0] <= value[1] <= most:
                raise ValueError(f"{name} must have 0 < low <= high <= {most}, got {value}")
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
    ) -> list[Step]:
        """Draws, on `device`, the parameters of n views of `size` pixels a side of images of the given shape."""
        rand = partial(torch.rand, device=device, generator=generator)

        def uniform(low: Number, high: Number) -> Tensor:
            return rand(n) * (high - low) + low

        def subset(probability: Number) -> Tensor | None:
            return None if probability == 1 else rand(n) < probability

        crop = partial(image_ops.resized_crop, size=size)
        window = _draw_crops(rand, n, height, width, self.crop_scale, self.crop_ratio)
        steps = [Step([(crop, (*window, rand(n) < self.flip))])]
        if self.jitter and (colours := self._colours(channels)):
            order = torch.randperm(len(colours), device=device, generator=generator).tolist()
            jitter = [(adjust, (uniform(low, high),)) for adjust, low, high in (colours[i] for i in order)]
            steps.append(Step(jitter, subset(self.jitter)))
        if self.grey and channels > 1:
            steps.append(Step([(image_ops.to_grey, ())], subset(self.grey)))
        if self.blur:
            blur = partial(image_ops.gaussian_blur, kernel_size=2 * max(1, int(self.blur_kernel * size) // 2) + 1)
            steps.append(Step([(blur, (uniform(*self.blur_sigma),))], subset(self.blur)))
        if self.solarise:
            threshold = torch.full((n,), float(self.solarise_threshold), device=device)
            steps.append(Step([(image_ops.solarise, (threshold,))], subset(self.solarise)))
        if self.erase:
            erase = partial(image_ops.erase, value=float(self.erase_value))
            box = _draw_erasures(rand, n, size, size, self.erase_scale, self.erase_ratio)
            steps.append(Step([(erase, box)], subset(self.erase)))
        return steps

    def _colours(self, channels: int) -> list[tuple[Callable[..., Tensor], Number, Number]]:
        """The operations of the jitter that do something, each with the range of its parameter."""
        colours = [
            (image_ops.adjust_brightness, max(0, 1 - self.brightness), 1 + self.brightness),
            (image_ops.adjust_contrast, max(0, 1 - self.contrast), 1 + self.contrast),
            (image_ops.adjust_saturation, max(0, 1 - self.saturation), 1 + self.saturation),
            (image_ops.adjust_hue, -self.hue, self.hue),
        ]
        return [colour for colour in colours[: 2 if channels == 1 else 4] if colour[1] < colour[2]]


_BASE = Augmentation(
    crop_scale=(0.08, 1.0),
    flip=0.5,
    jitter=0.8,
    brightness=0.4,
    contrast=0.4,
    saturation=0.2,
    hue=0.1,
    grey=0.2,
)
PRESETS: dict[str, tuple[Augmentation, ...]] = {
    "simclr": (replace(_BASE, brightness=0.8, contrast=0.8, saturation=0.8, hue=0.2, blur=0.5),),
    "byol": (replace(_BASE, blur=1.0), replace(_BASE, blur=0.1, solarise=0.2)),
    "grey": (Augmentation(crop_scale=(0.2, 1.0), flip=0.5, jitter=0.8, brightness=0.4, contrast=0.4),),
}


@final
class Views:
    """Makes one view of each image for each augmentation; equal neighbours are drawn and made together.

    Args:
        augmentations: The distribution of each view.
        size: Side of the views, in pixels.

    Raises:
        ValueError: There is no augmentation, or `size` is not positive.
    """

    def __init__(self, augmentations: Sequence[Augmentation], *, size: int) -> None:
        if not augmentations:
            raise ValueError("augmentations must hold at least one Augmentation, got none")
        if size < 1:
            raise ValueError(f"size must be >= 1 pixel, got {size}")
        self.augmentations, self.size = tuple(augmentations), size

    @torch.no_grad()
    def __call__(
        self,
        images: UInt8[Tensor, "batch channels height width"] | Float[Tensor, "batch channels height width"],
        *,
        generator: torch.Generator | None = None,
    ) -> Float[Tensor, "views batch channels size size"]:
        """Views in [0, 1] of images in [0, 255] (uint8) or [0, 1] (floating point).

        What is drawn depends on the generator and on the shape of the images alone. It is drawn on the generator's
        device: one on the CPU gives the same views on every device, and spares an accelerator the synchronisation.

        Raises:
            TypeError: The images are integers other than uint8.
        """
        if not (images.is_floating_point() or images.dtype == torch.uint8):
            raise TypeError(f"images must be uint8, or floating point in [0, 1], got {images.dtype}")
        batch, channels, height, width = images.shape
        on = images.device
        views = torch.empty(
            (len(self.augmentations), batch, channels, self.size, self.size),
            dtype=torch.promote_types(images.dtype, torch.float32),
            device=on,
        )
        draw = partial(
            Augmentation.draw,
            channels=channels,
            height=height,
            width=width,
            size=self.size,
            device=generator.device if generator is not None else on,
            generator=generator,
        )
        done = 0
        for augmentation, equal in groupby(self.augmentations):
            count = len(list(equal))
            made = views[done : done + count].flatten(0, 1)
            done += count
            steps = draw(augmentation, len(made))
            chunk = max(1, CHUNK // (channels * max(height * width, self.size**2)) if on.type == "cpu" else len(made))
            for start in range(0, len(made), chunk):
                rows = torch.arange(start, min(start + chunk, len(made)), device=on)
                with torch.autocast(on.type, enabled=False):
                    made[start : start + chunk] = _apply(steps, images.index_select(0, rows % batch), start)
        return views


def create_views(name: str, *, size: int, views: int = 2, **overrides: Any) -> Views:
    """Views by the name of a preset; one of fewer augmentations than `views` is cycled.

    - `simclr`: Chen et al. 2020, arXiv:2002.05709, appendix A (for CIFAR-10, B.9: half the jitter, no blur).
    - `byol`: Grill et al. 2020, arXiv:2006.07733, table 6; two augmentations, strong blur against solarisation.
    - `grey`: crop, flip, brightness and contrast, for small grey images such as Fashion-MNIST; this project's choice.

    Args:
        name: One of `PRESETS`.
        size: Side of the views, in pixels.
        views: How many views of each image.
        **overrides: Fields of `Augmentation` that are set in every view.

    Raises:
        ValueError: The preset is unknown, or a value is out of its range.
        TypeError: An override is not a field of `Augmentation`.
    """
    if name not in PRESETS:
        raise ValueError(unknown("views preset", name, PRESETS))
    known = [field.name for field in fields(Augmentation)]
    for override in overrides:
        if override not in known:
            raise TypeError(unknown("field of views", override, known))
    preset = [replace(augmentation, **overrides) for augmentation in PRESETS[name]]
    return Views(list(islice(cycle(preset), views)), size=size)


def _apply(steps: list[Step], images: Tensor, start: int) -> Tensor:
    """Applies the steps to the samples `start ... start + len(images) - 1`; the first step is for all."""
    stop = start + len(images)
    for operations, chosen in steps:
        if chosen is None:
            images = _compose(operations, images, slice(start, stop))
        elif len(here := chosen[start:stop].nonzero().squeeze(1)):
            rows = here.to(images.device)
            images[rows] = _compose(operations, images.index_select(0, rows), here + start)
    return images


def _compose(operations: Sequence[Operation], images: Tensor, samples: slice | Tensor) -> Tensor:
    for operation, parameters in operations:
        images = operation(images, *(parameter[samples].to(images.device) for parameter in parameters))
    return images


def _draw_crops(
    rand: Callable[..., Tensor], n: int, height: int, width: int, scale: Range, ratio: Range
) -> tuple[Tensor, ...]:
    """Top, left, height and width of a window; the largest central one where no try has fitted."""
    found, high, wide = _draw_boxes(rand, n, height, width, scale, ratio)
    high = torch.where(found, high, max(1, min(height, round(width / ratio[0]))))
    wide = torch.where(found, wide, max(1, min(width, round(height * ratio[1]))))
    top = torch.where(found, rand(n) * (height - high + 1), (height - high) / 2)
    left = torch.where(found, rand(n) * (width - wide + 1), (width - wide) / 2)
    return top.long(), left.long(), high.long(), wide.long()


def _draw_erasures(
    rand: Callable[..., Tensor], n: int, height: int, width: int, scale: Range, ratio: Range
) -> tuple[Tensor, ...]:
    """Top, left, height and width of a box smaller than the image; an empty one where no try has fitted."""
    found, wide, high = _draw_boxes(rand, n, width, height, scale, ratio, margin=1)  # here ratio is height / width
    top, left = rand(n) * (height - high + 1), rand(n) * (width - wide + 1)
    return top.long(), left.long(), (high * found).long(), wide.long()


def _draw_boxes(
    rand: Callable[..., Tensor],
    n: int,
    height: int,
    width: int,
    scale: Range,
    ratio: Range,
    margin: int = 0,
) -> tuple[Tensor, Tensor, Tensor]:
    """Whether one of the tries has fitted, and the first that did: its height and width."""
    area = (rand(TRIES, n) * (scale[1] - scale[0]) + scale[0]) * (height * width)
    aspect = torch.exp(rand(TRIES, n) * math.log(ratio[1] / ratio[0]) + math.log(ratio[0]))
    high, wide = (area / aspect).sqrt().round(), (area * aspect).sqrt().round()
    fits = (high > 0) & (high <= height - margin) & (wide > 0) & (wide <= width - margin)
    found, first = fits.max(0, keepdim=True)
    return found[0], high.gather(0, first)[0], wide.gather(0, first)[0]

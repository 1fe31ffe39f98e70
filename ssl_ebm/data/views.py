"""Views of a batch of images: random augmentation in batches, on the device of the images.

`PRESETS` are published distributions of views, `Views` makes several views of each image, and `MultiCrop` a few large
ones and several small ones; `user_views` makes the user's.
"""

from collections.abc import Sequence
from dataclasses import fields, replace
from functools import partial
from itertools import cycle, groupby, islice
from typing import Any, Literal, final, overload

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from ssl_ebm.data.augmentation import Augmentation, Operation, Range, Transform, check_range
from ssl_ebm.registry import unknown_name

CHUNK = 2**19  # values in work at a time on a CPU: intermediate results stay in its caches

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
LOCAL_PRESETS = {"byol": (replace(_BASE, blur=0.5),)}  # local views that differ from the global ones: DINO's
LEAST_LOCAL_SIZE = 8  # pixels, of local views whose size is not given
LOCAL_ARGUMENTS = ("local_views", "local_size", "local_crop_scale")


@final
class Views:
    """Makes one view of each image for each augmentation; equal neighbours are drawn and made together.

    Args:
        augmentations: The distribution of each view.
        size: Side of the views, in pixels.

    Attributes:
        count: How many views of each image.
        global_count: The same number: all are global.
        sizes: The size of all views, alone in a tuple.

    Raises:
        ValueError: There is no augmentation, or `size` is not positive.
    """

    def __init__(self, augmentations: Sequence[Augmentation], *, size: int) -> None:
        if not augmentations:
            raise ValueError("augmentations must hold at least one Augmentation, got none")
        if size < 1:
            raise ValueError(f"size must be >= 1 pixel, got {size}")
        self.augmentations, self.size, self.sizes = tuple(augmentations), size, (size,)
        self.count = self.global_count = len(self.augmentations)

    def __str__(self) -> str:
        return f"{self.count} of {self.size} pixels"

    @torch.no_grad()
    def __call__(
        self,
        images: UInt8[Tensor, "batch channels height width"] | Float[Tensor, "batch channels height width"],
        *,
        generator: torch.Generator | None = None,
    ) -> Float[Tensor, "views batch channels size size"]:
        """Views in [0, 1] of images in [0, 255] (uint8) or [0, 1] (floating point).

        The parameters drawn depend on the generator and on the shape of the images alone. They are drawn on the
        generator's device: a generator on the CPU gives the same views on every device, and spares an accelerator the
        synchronisation.

        Raises:
            TypeError: The images are integers other than uint8.
        """
        if not (images.is_floating_point() or images.dtype == torch.uint8):
            raise TypeError(f"images must be uint8, or floating point in [0, 1], got {images.dtype}")
        batch, channels, height, width = images.shape
        device = images.device
        views = torch.empty(
            (self.count, batch, channels, self.size, self.size),
            dtype=torch.promote_types(images.dtype, torch.float32),
            device=device,
        )
        draw = partial(
            Augmentation.draw,
            channels=channels,
            height=height,
            width=width,
            size=self.size,
            device=generator.device if generator is not None else device,
            generator=generator,
        )
        first = 0
        for augmentation, equal in groupby(self.augmentations):
            count = len(list(equal))
            samples = views[first : first + count].flatten(0, 1)
            first += count
            transforms = draw(augmentation, len(samples))
            chunk = max(1, CHUNK // (channels * max(height * width, self.size**2)))
            chunk = chunk if device.type == "cpu" else len(samples)
            for start in range(0, len(samples), chunk):
                rows = torch.arange(start, min(start + chunk, len(samples)), device=device)
                with torch.autocast(device.type, enabled=False):
                    samples[start : start + chunk] = _apply(transforms, images.index_select(0, rows % batch), start)
        return views


@final
class MultiCrop:
    """Global views, and local ones: smaller crops at a smaller size, which make many views cheap.

    Source: Caron et al. 2020, SwAV, arXiv:2006.09882, section 3.3.

    Args:
        global_views: Large crops; the only ones that a teacher sees.
        local_views: Small crops.

    Attributes:
        count: How many views of each image, global and local.
        global_count: How many of them are global.
        size: Side of the global views, in pixels.
        sizes: Sides of the global and of the local views, in pixels.
    """

    def __init__(self, global_views: Views, local_views: Views) -> None:
        self.global_views, self.local_views = global_views, local_views
        self.count, self.global_count = global_views.count + local_views.count, global_views.count
        self.size, self.sizes = global_views.size, (global_views.size, local_views.size)

    def __str__(self) -> str:
        return f"{self.global_views} and {self.local_views}"

    def __call__(
        self,
        images: UInt8[Tensor, "batch channels height width"] | Float[Tensor, "batch channels height width"],
        *,
        generator: torch.Generator | None = None,
    ) -> tuple[
        Float[Tensor, "global_views batch channels size size"], Float[Tensor, "local_views batch channels small small"]
    ]:
        """Global and local views, as `Views`; the global ones are drawn first and are those without local ones."""
        return self.global_views(images, generator=generator), self.local_views(images, generator=generator)


@overload
def create_views(
    name: str, *, size: int, views: int = ..., local_views: Literal[0] = ..., **overrides: Any
) -> Views: ...
@overload
def create_views(
    name: str,
    *,
    size: int,
    views: int = ...,
    local_views: int,
    local_size: int | None = ...,
    local_crop_scale: Range = ...,
    **overrides: Any,
) -> Views | MultiCrop: ...
def create_views(
    name: str,
    *,
    size: int,
    views: int = 2,
    local_views: int = 0,
    local_size: int | None = None,
    local_crop_scale: Range = (0.05, 0.4),
    **overrides: Any,
) -> Views | MultiCrop:
    """Views by the name of a preset; a preset of fewer augmentations than `views` is repeated in turn.

    - `simclr`: Chen et al. 2020, arXiv:2002.05709, appendix A (for CIFAR-10, B.9: half the jitter, no blur); SwAV too.
    - `byol`: Grill et al. 2020, arXiv:2006.07733, table 6; two augmentations, strong blur against solarisation. DINO's
      too, whose local views are blurred half the time and not solarised.
    - `grey`: crop, flip, brightness and contrast, for small grey images such as Fashion-MNIST; this project's choice.

    With local views the global ones are larger crops than the presets'. (`crop_scale`, `local_crop_scale`) is
    (.4, 1), (.05, .4) in DINO with transformers (arXiv:2104.14294) and (.14, 1), (.05, .14) with ResNets and in SwAV
    (arXiv:2006.09882).

    Args:
        name: One of `PRESETS`.
        size: Side of the (global) views, in pixels.
        views: How many (global) views of each image.
        local_views: How many local views besides. 0 gives `Views`, and the next two are not used; else `MultiCrop`.
        local_size: Their side in pixels, at most `size`. None: 3/7 of it, as in SwAV and DINO (96 of 224), at least 8.
        local_crop_scale: Range of their crop's area, as a fraction of the image's; `crop_scale` is the global views'.
        **overrides: Fields of `Augmentation` that are set in every view.

    Raises:
        ValueError: The preset is unknown, or a value is out of its range.
        TypeError: An override is not a field of `Augmentation`.
    """
    if name not in PRESETS:
        raise ValueError(unknown_name("views preset", name, PRESETS))
    known = [field.name for field in fields(Augmentation)]
    for override in overrides:
        if override not in known:
            raise TypeError(unknown_name("field of views", override, [*known, *LOCAL_ARGUMENTS]))
    if views < 1:
        raise ValueError(f"views must be >= 1, got {views}")
    if local_views < 0:
        raise ValueError(f"local_views must be >= 0 (0: all views are global), got {local_views}")
    global_views = Views(_repeat(PRESETS[name], views, overrides), size=size)
    if not local_views:
        return global_views
    if local_size is None:
        local_size = min(size, max(LEAST_LOCAL_SIZE, round(size * 3 / 7)))
    if not 1 <= local_size <= size:
        raise ValueError(f"local_size must be in [1, {size}], the size of the global views, got {local_size}")
    check_range("local_crop_scale", local_crop_scale)
    overrides["crop_scale"] = local_crop_scale
    local = _repeat(LOCAL_PRESETS.get(name, PRESETS[name]), local_views, overrides)
    return MultiCrop(global_views, Views(local, size=local_size))


def _repeat(preset: Sequence[Augmentation], count: int, overrides: dict[str, Any]) -> list[Augmentation]:
    """As many augmentations as asked for, those of the preset in turn, with fields overridden."""
    return list(islice(cycle([replace(augmentation, **overrides) for augmentation in preset]), count))


def _apply(transforms: list[Transform], images: Tensor, start: int) -> Tensor:
    """The samples `start ... start + len(images) - 1` after the transforms, of which the first is of all samples."""
    stop = start + len(images)
    for operations, chosen in transforms:
        if chosen is None:
            images = _compose(operations, images, slice(start, stop))
        elif len(here := chosen[start:stop].nonzero().squeeze(1)):
            rows = here.to(images.device)
            images[rows] = _compose(operations, images.index_select(0, rows), here + start)
    return images


def _compose(operations: Sequence[Operation], images: Tensor, samples: slice | Tensor) -> Tensor:
    """Images after the operations, each with the parameters of these samples."""
    for operation, parameters in operations:
        images = operation(images, *(parameter[samples].to(images.device) for parameter in parameters))
    return images

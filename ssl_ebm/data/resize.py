"""The size of whole images: one filter, for every image that a network is shown or an energy is asked of.

Crops of views are resized with the same filter by `image_ops.resized_crop`, each from a window of its own.
"""

from __future__ import annotations

from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn import functional as F

CHUNK = 1024  # images held in float32 at a time


def resize(
    images: UInt8[Tensor, "n c h w"] | Float[Tensor, "n c h w"], size: int, *, channels: int | None = None
) -> UInt8[Tensor, "n channels {size} {size}"] | Float[Tensor, "n channels {size} {size}"]:
    """Images of `size` pixels a side, by antialiased bilinear interpolation.

    A new pixel is a weighted mean of the old ones around its place, with weights that fall linearly to 0 at a distance
    of max(1, old size / new size) old pixels: enlarging interpolates, and shrinking misses no pixel. As torchvision's
    `resize(antialias=True)` and Pillow's `BILINEAR`. Images of that size are returned as they are.

    Args:
        images: In [0, 255] (uint8), or [0, 1] (floating point). uint8 images stay so, rounded once, to the nearest.
        size: Height and width of the result.
        channels: Of the result: images of another number become grey, the mean of their channels, in all of these.
            None: as they are.
    """
    if images.shape[2:] == (size, size) and channels in (None, images.shape[1]):
        return images
    if images.is_floating_point():
        return _resize(images, size, channels).clamp(0, 1)
    resized = images.new_empty(len(images), channels or images.shape[1], size, size)
    for old, new in zip(images.split(CHUNK), resized.split(CHUNK), strict=True):
        new.copy_(_resize(old.float(), size, channels).round())
    return resized


def _resize(images: Tensor, size: int, channels: int | None) -> Tensor:
    if channels not in (None, images.shape[1]):
        images = images.mean(1, keepdim=True).expand(-1, channels, -1, -1)
    if images.shape[2:] == (size, size):
        return images
    return F.interpolate(images, (size, size), mode="bilinear", antialias=True)

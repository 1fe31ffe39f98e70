"""Sets of foreign images that need no files: noise, textures and small digits, which no model of photographs learns."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn import functional as F

from ssl_ebm.data.resize import resize

FOREIGN_IMAGES = 1000  # of each set


def outlier_sets(channels: int, size: int, *, count: int = FOREIGN_IMAGES) -> dict[str, UInt8[Tensor, "n c h w"]]:
    """Sets of foreign images that need no files; they are the same on every call.

    `noise` is Gaussian (mean ½, σ ¼), `uniform` is uniform in each pixel, `textures` are drawn by the function of that
    name, and `digits` are the handwritten digits of 8×8 pixels that come with scikit-learn.
    """
    from sklearn.datasets import load_digits  # here, since it takes a second to import

    generator = torch.Generator().manual_seed(0)
    shape = (count, channels, size, size)
    digits = torch.from_numpy(load_digits().images[:count]).float()[:, None] / 16
    sets = {
        "noise": torch.randn(shape, generator=generator) / 4 + 0.5,
        "uniform": torch.rand(shape, generator=generator),
        "textures": textures(count, channels, size, generator),
        "digits": resize(digits, size, channels=channels),
    }
    return {name: to_bytes(images) for name, images in sets.items()}


def textures(
    count: int, channels: int, size: int, generator: torch.Generator
) -> Float[Tensor, "{count} {channels} {size} {size}"]:
    """Textures of three kinds in turn, between two random colours: gratings, checks and smooth noise.

    Gratings and checks have a random direction, and 2 waves a picture up to one wave every 6 pixels.
    """

    def rand(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(count, 1, 1, generator=generator)

    position = torch.linspace(0, 2 * math.pi, size)
    angle, phases = rand(0.0, math.pi), [rand(0.0, 2 * math.pi) for _ in range(2)]
    waves = rand(2.0, max(3.0, size / 6))
    across = torch.cos(angle) * position + torch.sin(angle) * position[:, None]
    along = torch.cos(angle) * position[:, None] - torch.sin(angle) * position
    first, second = (torch.sin(waves * x + phase) for x, phase in zip((across, along), phases, strict=True))
    coarse = torch.rand(count, 1, max(2, size // 4), max(2, size // 4), generator=generator)
    # no image is resized here: bicubic waves between random heights
    smooth = F.interpolate(coarse, (size, size), mode="bicubic", align_corners=False)[:, 0] * 2 - 1
    kind = torch.arange(count)[:, None, None] % 3
    weight = torch.where(kind == 0, first, torch.where(kind == 1, (first * second).sign(), smooth)) / 2 + 0.5
    low, high = (torch.rand(count, channels, 1, 1, generator=generator) for _ in range(2))
    return low + (high - low) * weight.clamp(0, 1)[:, None]


def to_bytes(images: Tensor) -> UInt8[Tensor, "n c h w"]:
    """Images in [0, 1] as uint8, values outside of the range clipped."""
    return (images.clamp(0, 1) * 255).round().to(torch.uint8)

"""Energy against the strength of an augmentation: a good energy rises as an image is changed more."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from ssl_ebm.data import image_ops
from ssl_ebm.energies.pairwise import Energy
from ssl_ebm.evaluation.ranks import spearman

LEVELS = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)

ImageBatch = Float[Tensor, "n c h w"]
Change = Callable[[ImageBatch, float], ImageBatch]


@torch.inference_mode()
def strength(
    embed: Callable[[Tensor], Tensor], energy: Energy, images: ImageBatch, *, levels: Sequence[float] = LEVELS
) -> dict[str, dict[str, Any]]:
    """Curves of energy and recognition over the strength of each augmentation, by its name.

    A curve has the `levels`, and at each of them

    - `energy`: the mean of E(x_i, aug(x_i)) over clean images x_i;
    - `auroc`: P(E(x_i, aug(x_j)) > E(x_i, aug(x_i))) over j ≠ i, mean over i: whether the image is still recognised;

    and `monotone`, Spearman's correlation of level and mean energy, None where the energy is flat. What is random in an
    augmentation is drawn once for each image, and is the same at every level and for every run. Saturation and hue are
    changed where images have colours.

    Args:
        embed: Gives embeddings of images in [0, 1], each independent of the other images.
        energy: E of embeddings.
        images: Held-out images in [0, 1], at least two.
        levels: Strengths in [0, 1]; 0 changes nothing.

    Raises:
        ValueError: There are fewer than two images, or a level is not in [0, 1].
    """
    if len(images) < 2:
        raise ValueError(f"images must be at least two, got {len(images)}")
    if not all(0 <= level <= 1 for level in levels):
        raise ValueError(f"levels must be in [0, 1], got {tuple(levels)}")
    clean = embed(images)
    curves = {}
    for name, change in changes(*images.shape, device=images.device).items():
        points = [_point(energy, clean, clean if level == 0 else embed(change(images, level))) for level in levels]
        means = [mean for mean, _ in points]
        curves[name] = {
            "levels": list(map(float, levels)),
            "energy": means,
            "auroc": [area for _, area in points],
            "monotone": spearman(np.array(levels), np.array(means)),
        }
    return curves


def _point(energy: Energy, clean: Tensor, changed: Tensor) -> tuple[float, float]:
    """Mean energy of clean images with their changed selves, and the AUROC against changed other images."""
    energies = energy.cross(clean, changed).double()
    of_same_image = energies.diagonal()[:, None]
    below, tied = (energies < of_same_image).sum(1), (energies == of_same_image).sum(1) - 1
    area = 1 - (below + tied / 2).double().mean() / (len(energies) - 1)
    return float(of_same_image.mean()), float(area)


def changes(n: int, channels: int, height: int, width: int, *, device: torch.device) -> dict[str, Change]:
    """The augmentations by name: functions of n images and a strength in [0, 1], with what is random drawn already."""
    generator = torch.Generator().manual_seed(0)
    u, v, w = torch.rand(3, n, generator=generator).to(device)
    noise = torch.randn(n, channels, height, width, generator=generator).to(device)
    sign = torch.where(w < 0.5, -1.0, 1.0)
    full = partial(torch.full, (n,), device=device)
    side = min(height, width)
    kernel = 2 * min(side // 2 - 1, max(1, side // 4)) + 1
    augmentations: dict[str, Change] = {
        "crop": lambda x, s: _window(x, 1 - 0.92 * s, u, v),  # area; SimCLR's smallest at 1
        "translation": lambda x, s: _warp(x, full(0.0), s * u.sub(0.5).sign(), s * (2 * v - 1)),
        "rotation": lambda x, s: _warp(x, sign * s * math.pi / 2, full(0.0), full(0.0)),
        "brightness": lambda x, s: image_ops.adjust_brightness(x, full(1 - 0.9 * s)),
        "contrast": lambda x, s: image_ops.adjust_contrast(x, full(1 - 0.9 * s)),
        "blur": lambda x, s: image_ops.gaussian_blur(x, full(max(1e-3, s * side / 10)), kernel_size=kernel),
        "noise": lambda x, s: (x + 0.5 * s * noise).clamp(0, 1),
        "erasing": lambda x, s: _erase(x, 0.5 * s, u, v),
        "solarising": lambda x, s: image_ops.solarise(x, full(1.01 - s)),  # above 1 nothing is inverted
    }
    if channels > 1:
        augmentations["saturation"] = lambda x, s: image_ops.adjust_saturation(x, full(1 - s))
        augmentations["hue"] = lambda x, s: image_ops.adjust_hue(x, sign * s / 2)
    return augmentations


def _box(x: ImageBatch, area: float, u: Tensor, v: Tensor) -> tuple[Tensor, ...]:
    """Top, left, height and width of a box of a fraction of the area, placed by u and v in [0, 1]."""
    height, width = x.shape[2:]
    box_height, box_width = (max(1, round(extent * math.sqrt(area))) for extent in (height, width))
    top, left = (u * (height - box_height)).round(), (v * (width - box_width)).round()
    return top.long(), left.long(), torch.full_like(top, box_height).long(), torch.full_like(left, box_width).long()


def _window(x: ImageBatch, area: float, u: Tensor, v: Tensor) -> ImageBatch:
    """The box of each image, enlarged to the whole image."""
    top, left, height, width = _box(x, area, u, v)
    return image_ops.resized_crop(x, top, left, height, width, torch.zeros_like(u).bool(), size=x.shape[-1])


def _erase(x: ImageBatch, area: float, u: Tensor, v: Tensor) -> ImageBatch:
    """Each image with the box blackened."""
    return image_ops.erase(x, *_box(x, area, u, v)) if area > 0 else x


def _warp(x: ImageBatch, angle: Tensor, right: Tensor, down: Tensor) -> ImageBatch:
    """Images turned by an angle in radians about the centre and moved by fractions of half a side, on black."""
    cos, sin = angle.cos(), angle.sin()
    matrix = torch.stack([torch.stack([cos, -sin, -right], 1), torch.stack([sin, cos, -down], 1)], 1)
    grid = F.affine_grid(matrix, list(x.shape), align_corners=False)
    return F.grid_sample(x, grid, mode="bilinear", padding_mode="zeros", align_corners=False).clamp(0, 1)

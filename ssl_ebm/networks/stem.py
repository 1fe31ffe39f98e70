"""Adapt a backbone made for 224-pixel images to small ones, by its structure and not by its name.

In convolutional networks, strided layers are found by running the network once; those of the highest resolutions lose
their stride (a pooling becomes the identity) until the last feature map is at least `MIN_MAP_WIDTH` wide. Kernels keep
their size, so that the weights still load into the plain timm model. In transformers, the patch size is chosen instead.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from timm.layers import BlurPool2d
from torch import nn

MIN_MAP_WIDTH = 3  # of the last feature map: 28 pixels at stride 8 give 4 (ResNet) or 3 (ConvNeXt, unpadded)
MIN_TOKENS_A_SIDE = 7  # 28 pixels in patches of 4

STRIDED_LAYERS = (nn.Conv2d, nn.MaxPool2d, nn.AvgPool2d, BlurPool2d)


@dataclass(frozen=True)
class Downsampling:
    """A layer that reduces the resolution when the network runs."""

    name: str
    input_size: int
    stride: int


Levels = list[list[Downsampling]]  # by resolution, highest first; layers at one resolution are in parallel branches


def find_downsampling(network: nn.Module, *, in_chans: int, sizes: Sequence[int]) -> Levels:
    """Find the strided layers by running the network on the first of the image sizes that it takes."""
    strided: list[Downsampling] = []

    def hook_for(name: str) -> Any:
        def hook(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
            stride = int(np.max(cast("int", module.stride)))
            if stride > 1 and inputs[0].ndim == 4:
                strided.append(Downsampling(name, inputs[0].shape[-1], stride))

        return hook

    hooks = [m.register_forward_hook(hook_for(n)) for n, m in network.named_modules() if isinstance(m, STRIDED_LAYERS)]
    for size in sizes:
        strided.clear()
        if _last_map_width(network, in_chans, size) is not None:
            break
    for hook in hooks:
        hook.remove()
    resolutions = sorted({layer.input_size for layer in strided}, reverse=True)
    return [[layer for layer in strided if layer.input_size == size] for size in resolutions]


def total_stride(levels: Levels) -> int:
    """Pixels of the image per pixel of the last feature map, along a side.

    Of parallel branches the one of least stride counts, because attention may reduce its keys further.
    """
    return math.prod(min(layer.stride for layer in level) for level in levels)


@torch.no_grad()
def _last_map_width(network: nn.Module, in_chans: int, size: int) -> int | None:
    """Width of the last feature map of an image; None where the network does not run on it."""
    training = network.training
    try:
        features = network.eval().forward_features(torch.zeros(1, in_chans, size, size))  # type: ignore[operator]
    except (RuntimeError, AssertionError):
        return None
    finally:
        network.train(training)
    # maps are square, so that this is a side whether channels come first or last; vectors are as good as a map
    return features.shape[-2] if features.ndim == 4 else MIN_MAP_WIDTH


def _remove(network: nn.Module, name: str) -> str:
    """Take the stride from a convolution, or a pooling from the network; returns what was done."""
    module = network.get_submodule(name)
    if isinstance(module, nn.Conv2d):
        module.stride = (1, 1)
        if module.kernel_size[0] % 2 == 0 and module.padding == (0, 0):  # of patches: keep the map's size, less a pixel
            module.padding = tuple((k - 1) // 2 for k in module.kernel_size)
        return f"stride=(1, 1), padding={module.padding}"
    parent, _, child = name.rpartition(".")
    setattr(network.get_submodule(parent), child, nn.Identity())
    return "Identity()"


def adapt_stem(
    network: nn.Module, levels: Levels, *, in_chans: int, image_size: int, output_stride: int | None = None
) -> dict[str, str]:
    """Remove early downsampling from a convolutional network, in place; returns what was done to which module.

    Args:
        network: A timm model.
        levels: The network's strided layers, by resolution.
        in_chans: Channels of the images.
        image_size: Side of the images in pixels.
        output_stride: The total stride wanted; None: the largest that leaves a map at least `MIN_MAP_WIDTH` wide.

    Raises:
        ValueError: The stride cannot be had, or the network does not run on such images.
    """
    changes: dict[str, str] = {}
    strides = [total_stride(levels[removed:]) for removed in range(len(levels) + 1)]
    if output_stride is not None and output_stride not in strides:
        raise ValueError(f"output_stride must be one of {strides} for this encoder, got {output_stride}")
    for removed, stride in enumerate(strides):
        for layer in levels[removed - 1] if removed else []:
            changes[layer.name] = _remove(network, layer.name)
        width = _last_map_width(network, in_chans, image_size)
        if width is not None and (width >= MIN_MAP_WIDTH if output_stride is None else stride == output_stride):
            return changes
    raise ValueError(
        f"{type(network).__name__} does not run on {image_size}-pixel images, nor with its stem adapted: take a larger "
        "image_size or another encoder"
    )


def choose_patch(image_size: int, wanted: int | None = None, *, largest: int = 16) -> int:
    """The patch size wanted; or the largest up to `largest` that gives at least `MIN_TOKENS_A_SIDE` tokens a side.

    Raises:
        ValueError: There is none, or the one wanted does not divide the image.
    """
    patches = [patch for patch in range(1, image_size + 1) if image_size % patch == 0]
    if wanted is not None:
        if wanted not in patches:
            raise ValueError(f"output_stride must be one of {patches} for {image_size}-pixel images, got {wanted}")
        return wanted
    fitting = [patch for patch in patches if patch <= largest and image_size // patch >= MIN_TOKENS_A_SIDE]
    if not fitting:
        raise ValueError(f"image_size must be at least {MIN_TOKENS_A_SIDE} pixels for a transformer, got {image_size}")
    return fitting[-1]

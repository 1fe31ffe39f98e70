"""Replacements of BatchNorm: by GroupNorm, or by the fixed affine map that it is in eval mode."""

from __future__ import annotations

import torch
from torch import Tensor, nn

BATCH_NORMS = nn.modules.batchnorm._BatchNorm  # BatchNorm1d to 3d, SyncBatchNorm, timm's BatchNormAct2d


class FixedAffine(nn.Module):
    """The map of a BatchNorm in eval mode: x scale + shift for each channel, with fixed statistics."""

    scale: Tensor
    shift: Tensor

    def __init__(self, norm: nn.modules.batchnorm._BatchNorm) -> None:
        super().__init__()
        mean, variance = norm.running_mean, norm.running_var
        if mean is None or variance is None:
            raise ValueError("a BatchNorm without running statistics has no fixed form: convert it to 'group_norm'")
        scale = (variance + norm.eps).rsqrt() * (1 if norm.weight is None else norm.weight.detach())
        self.register_buffer("scale", scale)
        self.register_buffer("shift", -mean * scale + (0 if norm.bias is None else norm.bias.detach()))

    def forward(self, x: Tensor) -> Tensor:
        """Map x of shape [n, channels, ...] to x scale + shift."""
        shape = (-1,) + (1,) * (x.ndim - 2)
        return x * self.scale.view(shape) + self.shift.view(shape)


def convert_batch_norm(network: nn.Module, to: str = "group_norm", *, groups: int = 1) -> nn.Module:
    """Replace every BatchNorm of a network, in place; returns the network.

    "group_norm" is for a network that is still to be trained: GroupNorm with the old scale and shift, which is another
    function. "affine" is for a trained network: the same function as in eval mode, with nothing left to learn in it.

    Args:
        network: Any network.
        to: "group_norm" or "affine".
        groups: Groups of a GroupNorm whose channels they divide; others have 1: LayerNorm over channels and pixels.

    Raises:
        ValueError: Unknown `to`, or a BatchNorm without running statistics made affine.
    """
    if to not in ("group_norm", "affine"):
        raise ValueError(f"to must be 'group_norm' or 'affine', got {to!r}")
    if isinstance(network, BATCH_NORMS):
        return _replacement(network, to, groups)
    for name, child in network.named_children():
        setattr(network, name, convert_batch_norm(child, to, groups=groups))
    return network


def _replacement(norm: nn.modules.batchnorm._BatchNorm, to: str, groups: int) -> nn.Module:
    new: nn.Module
    if to == "affine":
        new = FixedAffine(norm)
    else:
        channels = norm.num_features
        new = nn.GroupNorm(groups if channels % groups == 0 else 1, channels, eps=norm.eps)
        with torch.no_grad():
            for name in ("weight", "bias"):
                if (old := getattr(norm, name)) is not None:
                    getattr(new, name).copy_(old)
        new = new.to(norm.weight if norm.weight is not None else new.weight)
    # timm's BatchNormAct2d holds what follows it
    following = [layer for layer in (getattr(norm, "drop", None), getattr(norm, "act", None)) if layer is not None]
    return nn.Sequential(new, *following) if following else new

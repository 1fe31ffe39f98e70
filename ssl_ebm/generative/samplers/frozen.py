"""Networks made functions of a single image for as long as chains run: eval mode, constant weights, no BatchNorm."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from ssl_ebm.networks.batch_norm import BATCH_NORMS

REMEDY = (
    "take a network with GroupNorm or LayerNorm (encoder.kwargs.norm_layer=groupnorm1 for timm's ResNets, resnet50_gn, "
    "convnext_*, vit_*; objective.projector.hidden_norm=false), or convert it with convert_batch_norm"
)


def require_independent_samples(*networks: nn.Module) -> None:
    """Refuse networks in which the samples of a batch see each other.

    Raises:
        ValueError: There is a BatchNorm.
    """
    for network in networks:
        for name, module in network.named_modules():
            if isinstance(module, BATCH_NORMS):
                raise ValueError(
                    f"{type(module).__name__} ({name or 'the network itself'}) couples the samples of a batch, and an "
                    f"energy of one image must not depend on others: {REMEDY}"
                )


@contextmanager
def frozen(*networks: nn.Module) -> Iterator[None]:
    """Keep networks in eval mode and their parameters without gradients, and restore both at the end.

    Only the input's gradient is then computed, so that a sampling step costs one forward and one half of a backward.

    Raises:
        ValueError: There is a BatchNorm.
    """
    require_independent_samples(*networks)
    modes = [(module, module.training) for network in networks for module in network.modules()]
    flags = [(parameter, parameter.requires_grad) for network in networks for parameter in network.parameters()]
    try:
        for module, _ in modes:
            module.training = False
        for parameter, _ in flags:
            parameter.requires_grad_(False)
        with torch.inference_mode(False), torch.enable_grad():
            yield
    finally:
        for module, mode in modes:
            module.training = mode
        for parameter, flag in flags:
            parameter.requires_grad_(flag)

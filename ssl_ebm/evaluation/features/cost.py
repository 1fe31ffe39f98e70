"""What an encoder costs: training time, speed, operations of one image, parameters."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode


def flops(network: nn.Module, image: Float[Tensor, "1 c h w"]) -> float | None:
    """Floating-point operations of one image's forward: matrix products and convolutions, a multiply-add being two.

    Counted by `torch.utils.flop_counter`; None where it sees none, as in a network of other operations.
    """
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        network(image)
    return float(counter.get_total_flops()) or None


def training_speed(metrics: Sequence[Mapping[str, Any]], batch_size: int) -> dict[str, float | None]:
    """`train_seconds`, the time of all updates, and `images_per_second`, the median; of metrics.jsonl.

    Each measurement's speed is that since the one before, views and updates included, evaluation and checkpoints not.
    None where nothing was measured.
    """
    seconds, last, speeds = 0.0, 0, []
    for line in metrics:
        speed = line.get("images_per_second")
        if speed:
            seconds += (line["step"] - last) * batch_size / speed
            last = line["step"]
            speeds.append(float(speed))
    return {
        "train_seconds": seconds if speeds else None,
        "images_per_second": statistics.median(speeds) if speeds else None,
    }


def cost(
    network: nn.Module, image: Float[Tensor, "1 c h w"], metrics: Sequence[Mapping[str, Any]], batch_size: int
) -> dict[str, float | None]:
    """All of these, and the network's `parameters`."""
    return training_speed(metrics, batch_size) | {
        "flops_per_image": flops(network, image),
        "parameters": sum(parameter.numel() for parameter in network.parameters()),
    }

"""The cost of an encoder: training time, speed, operations of one image, parameters."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode


def flops(network: nn.Module, image: Float[Tensor, "1 c h w"]) -> float | None:
    """Floating-point operations of the forward of one image, as `torch.utils.flop_counter` counts them.

    It counts matrix products and convolutions, a multiply-add as two. None for a network that has neither.
    """
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        network(image)
    return float(counter.get_total_flops()) or None


def training_speed(metrics: Sequence[Mapping[str, Any]], batch_size: int) -> dict[str, float | None]:
    """`train_seconds`, the time of all updates, and the median of `images_per_second`, from the lines of metrics.jsonl.

    The speed in a line is that since the line before, with making views, without evaluation and checkpoints. Both are
    None where no line has one.
    """
    seconds, step_before, speeds = 0.0, 0, []
    for line in metrics:
        speed = line.get("images_per_second")
        if speed:
            seconds += (line["step"] - step_before) * batch_size / speed
            step_before = line["step"]
            speeds.append(float(speed))
    return {
        "train_seconds": seconds if speeds else None,
        "images_per_second": statistics.median(speeds) if speeds else None,
    }


def cost(
    network: nn.Module, image: Float[Tensor, "1 c h w"], metrics: Sequence[Mapping[str, Any]], batch_size: int
) -> dict[str, float | None]:
    """Training time and speed, `flops_per_image`, and the number of the network's `parameters`."""
    return training_speed(metrics, batch_size) | {
        "flops_per_image": flops(network, image),
        "parameters": sum(parameter.numel() for parameter in network.parameters()),
    }

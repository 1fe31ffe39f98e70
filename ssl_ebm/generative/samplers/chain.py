"""What samplers share: the gradient of an energy, what a chain may start from, and what it gives."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

EnergyFunction = Callable[[Tensor], Tensor]
Limits = tuple[float, float]


class Chains(NamedTuple):
    """Where chains ended, and what they did on their way."""

    x: Float[Tensor, "n ..."]
    drift: Float[Tensor, ""] | None  # mean over chains of ‖s ∇E‖ in the last step; s = ε²/2 in HMC; None: binary chains
    acceptance: Float[Tensor, ""] | None = None  # mean share of accepted proposals; None: nothing is rejected


def energy_and_gradient(energy: EnergyFunction, x: Tensor) -> tuple[Tensor, Tensor]:
    """E(x_i) and ∇E(x_i), from one backward of the sum."""
    with torch.enable_grad():
        leaf = x.detach().requires_grad_()
        values = energy(leaf).to(x.dtype)
        (gradient,) = torch.autograd.grad(values.sum(), leaf)
    return values.detach(), gradient


def require_images(x: Tensor, limits: Limits | None = (0.0, 1.0)) -> None:
    """Refuse what a chain cannot start from; reads three numbers back from the device.

    Raises:
        TypeError: Integers or half precision, whose spacing swallows the steps.
        ValueError: Values that are not finite or outside `limits`.
    """
    require_precision(x)
    if not x.numel():
        raise ValueError(f"images to sample from must not be empty, got shape {tuple(x.shape)}")
    low, high = (float(bound) for bound in x.detach().aminmax())
    if not (math.isfinite(low) and math.isfinite(high)):
        raise ValueError(
            f"images must be finite, got {int((~x.isfinite()).sum())} values that are not: drop those images"
        )
    if limits is not None and (low < limits[0] or high > limits[1]):
        raise ValueError(
            f"images must be in [{limits[0]:g}, {limits[1]:g}], got values from {low:g} to {high:g}: divide uint8 "
            "images by 255, and leave normalisation to the encoder"
        )


def require_precision(x: Tensor) -> None:
    """Refuse values too coarse for a chain's steps.

    Raises:
        TypeError: They are integers or of half precision.
    """
    if x.dtype not in (torch.float32, torch.float64):
        raise TypeError(
            f"chains need float32 (or float64) values, got {x.dtype}: near 1 the spacing of bfloat16 is .0039 and that "
            "of uint8 images 1/255, as large as a step's noise; the network may compute in bfloat16, the images may not"
        )


def require_positive(**values: float | None) -> None:
    """Refuse settings, given by name, that are neither finite and > 0 nor None."""
    for name, value in values.items():
        if value is not None and not (math.isfinite(value) and value > 0):
            raise ValueError(f"{name} must be finite and > 0, got {value}")


def require_steps(steps: int, limits: Limits | None) -> None:
    """Refuse a chain without a step, and limits without room between them."""
    if steps < 1:
        raise ValueError(f"steps must be >= 1, got {steps}")
    if limits is not None and not limits[0] < limits[1]:
        raise ValueError(f"limits must be (low, high) with low < high, or None, got {tuple(limits)}")


def each(values: Tensor, like: Tensor) -> Tensor:
    """One value a chain, shaped to multiply [n, ...]."""
    return values.view(-1, *[1] * (like.ndim - 1))


def mean_norm(gradient: Tensor) -> Float[Tensor, ""]:
    """Mean over chains of ‖∇E‖."""
    return gradient.detach().flatten(1).norm(dim=1).mean()

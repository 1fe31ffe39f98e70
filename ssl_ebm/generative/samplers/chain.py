"""A sampler: constants and one pure step, and the loop over steps that all samplers share."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

EnergyFunction = Callable[[Tensor], Tensor]  # from [n, ...] to [n]
Limits = tuple[float, float]


class State(NamedTuple):
    """Chains between two steps.

    Attributes:
        x: Where they are.
        gradient: ∇E that the last step moved along; None before the first step, and for binary chains.
        step_size: s, by which the last step multiplied it; ε²/2 in HMC.
        energy: E(x), of samplers that compare energies.
        accepted: How many proposals of each chain were accepted; None: nothing is rejected.
        noise: σ of each chain, where chains differ in it.
    """

    x: Float[Tensor, "n ..."]
    gradient: Float[Tensor, "n ..."] | None = None
    step_size: float = 0.0
    energy: Float[Tensor, " n"] | None = None
    accepted: Float[Tensor, " n"] | None = None
    noise: Float[Tensor, "n ..."] | None = None


class Chains(NamedTuple):
    """The ends of chains, with two measurements of their way."""

    x: Float[Tensor, "n ..."]
    drift: Float[Tensor, ""] | None  # mean over chains of ‖s ∇E‖ in the last step; s = ε²/2 in HMC; None: binary chains
    acceptance: Float[Tensor, ""] | None = None  # mean share of accepted proposals; None: nothing is rejected


class Sampler(ABC):
    """A Markov chain whose stationary density is p(x) ∝ exp(-E(x) / T). Subclasses are frozen dataclasses of constants.

    Networks go into `frozen` first. Nothing is read back from the device within a chain, and no memory is taken from
    step to step but the network's.

    Attributes:
        steps: Steps of a call.
    """

    steps: int

    @property
    def temperature(self) -> float:
        """T."""
        return 1.0

    def start(self, energy: EnergyFunction, x: Float[Tensor, "n ..."], age: Int[Tensor, " n"] | None) -> State:
        """Chains before their first step, from images x and the number of updates that each chain had before."""
        return State(x)

    @abstractmethod
    def step(self, energy: EnergyFunction, state: State, generator: torch.Generator | None, share: float) -> State:
        """Chains after one more step; `share` of all steps is done, 0 at the first one and 1 at the last."""

    @torch.no_grad()
    def __call__(
        self,
        energy: EnergyFunction,
        x: Float[Tensor, "n ..."],
        *,
        steps: int | None = None,
        generator: torch.Generator | None = None,
        age: Int[Tensor, " n"] | None = None,
        progress: Callable[[int], object] | None = None,
    ) -> Chains:
        """Run chains from x, which is left as it is.

        Args:
            energy: E; its networks frozen.
            x: Where chains start.
            steps: Of each chain; None: the sampler's own.
            generator: Of all random numbers, on x's device.
            age: Updates that each chain had before; None: all are mature.
            progress: Told after each step that it was one.

        Raises:
            TypeError: x has too little precision.
            ValueError: `steps` is less than 1.
        """
        require_precision(x)
        steps = self.steps if steps is None else steps
        require_steps(steps)
        state = self.start(energy, x.detach(), age)
        for k in range(steps):
            state = self.step(energy, state, generator, k / max(1, steps - 1))
            if progress is not None:
                progress(1)
        drift = None if state.gradient is None else state.step_size * state.gradient.flatten(1).norm(dim=1).mean()
        return Chains(state.x, drift, None if state.accepted is None else state.accepted.mean() / steps)


def energy_and_gradient(energy: EnergyFunction, x: Tensor) -> tuple[Tensor, Tensor]:
    """E(x_i) and ∇E(x_i) of independent images, from one backward pass."""
    with torch.enable_grad():
        leaf = x.detach().requires_grad_()
        values = energy(leaf).to(x.dtype)
        (gradient,) = torch.autograd.grad(values, leaf, torch.ones_like(values))
    return values.detach(), gradient


def require_images(x: Tensor, limits: Limits | None = (0.0, 1.0)) -> None:
    """Refuse images that a chain cannot start from; reads three numbers back from the device.

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


def require_steps(steps: int, limits: Limits | None = None) -> None:
    """Refuse a chain without a step, and limits without room between them."""
    if steps < 1:
        raise ValueError(f"steps must be >= 1, got {steps}")
    if limits is not None and not limits[0] < limits[1]:
        raise ValueError(f"limits must be (low, high) with low < high, or None, got {tuple(limits)}")


def each(values: Tensor, like: Tensor) -> Tensor:
    """One value a chain, shaped to multiply [n, ...]."""
    return values.view(-1, *[1] * (like.ndim - 1))

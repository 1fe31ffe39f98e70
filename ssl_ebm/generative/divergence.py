"""Signs that the training of an image energy diverges, measured at every update."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor

LARGEST_GAP = 10.0  # |mean E⁻ - mean E⁺| in standard deviations of E within each group ...
LEAST_GAP = 1.0  # ... of those that are so many nats
LARGEST_DRIFT = 0.25  # s‖∇E‖ / √d: how far a step moves pixels, whose range is 1
LEAST_SPREAD = 1e-6  # standard deviation of E, in nats: a flat energy
MOST_SATURATED = 0.99  # share of pixels at 0 or 1
MOST_DUPLICATES = 0.5  # share of chains with another within one grey level
GREY_LEVEL = 1 / 255


@torch.no_grad()
def measure(
    positive: Float[Tensor, " n"],
    negative: Float[Tensor, " m"] | None = None,
    chains: Float[Tensor, "m ..."] | None = None,
    drift: Float[Tensor, ""] | None = None,
) -> dict[str, Float[Tensor, ""]]:
    """What tells a diverging run from a healthy one, as scalars on the device.

    Gives `energy_std`, within data and within chains; with chains, `gap` = mean E⁻ - mean E⁺, `gap_sigmas` = gap over
    energy_std, and the share `duplicates` of chains; of chains that drift, the share `saturated` of pixels and `drift`,
    by which a step moves a pixel.

    Args:
        positive: E of data.
        negative: E of where chains ended.
        chains: Where they ended.
        drift: Mean ‖s ∇E‖ of their last step; None: they are binary.
    """
    variance = positive.var(correction=0)
    if negative is None or chains is None:
        return {"energy_std": variance.sqrt()}
    spread = ((variance + negative.var(correction=0)) / 2).sqrt()
    gap = negative.mean() - positive.mean()
    flat = chains.flatten(1)
    distance = torch.cdist(flat, flat).fill_diagonal_(math.inf) / math.sqrt(flat.shape[1])
    values = {
        "energy_std": spread,
        "gap": gap,
        "gap_sigmas": gap / spread,
        "duplicates": (distance.amin(1) < GREY_LEVEL).to(flat.dtype).mean(),
    }
    if drift is not None:
        values["drift"] = drift / math.sqrt(flat.shape[1])
        values["saturated"] = ((flat < 1e-3) | (flat > 1 - 1e-3)).to(flat.dtype).mean()
    return values


def sign(values: Mapping[str, float]) -> str | None:
    """What speaks for a divergence in one update's measurements; None where nothing does."""
    bad = [name for name, value in values.items() if not math.isfinite(value) and name != "gap_sigmas"]
    if bad:
        return f"{bad[0]} is not finite"
    if values.get("drift", 0.0) > LARGEST_DRIFT:
        return f"a step moves pixels by {values['drift']:.3g} of their range, so chains jump past what they look for"
    if abs(values.get("gap", 0.0)) > LEAST_GAP and abs(values["gap_sigmas"]) > LARGEST_GAP:
        side = "above" if values["gap"] > 0 else "below"
        return (
            f"chains are {abs(values['gap']):.3g} nats {side} the data in energy, {abs(values['gap_sigmas']):.3g} "
            "standard deviations"
        )
    if values["energy_std"] < LEAST_SPREAD:
        return f"the energy is flat (standard deviation {values['energy_std']:.1e} nats)"
    if values.get("saturated", 0.0) > MOST_SATURATED:
        return f"{values['saturated']:.1%} of the chains' pixels are at 0 or 1"
    if values.get("duplicates", 0.0) > MOST_DUPLICATES:
        return f"{values['duplicates']:.1%} of the chains are copies of others"
    return None


class Alarm:
    """Counts updates in a row with a sign of divergence.

    Attributes:
        sign: That of the last update; None: there is none, and a checkpoint may be written.
        persisted: The sign that was there for `patience` updates in a row: the run should stop.
    """

    def __init__(self, patience: int) -> None:
        self.patience = patience
        self.reset()

    def reset(self) -> None:
        """As before the first update."""
        self.count = 0
        self.sign: str | None = None
        self.persisted: str | None = None

    def watch(self, values: Mapping[str, Tensor]) -> None:
        """Look at one update's measurements; one transfer from the device."""
        numbers = torch.stack([value.float() for value in values.values()]).tolist()
        self.sign = sign(dict(zip(values, numbers, strict=True)))
        self.count = self.count + 1 if self.sign else 0
        self.persisted = self.sign if self.count >= self.patience else None

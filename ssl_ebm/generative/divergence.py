"""What an image energy looks like when its training diverges, measured at every update."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor

LARGEST_GAP = 10.0  # |mean E⁻ - mean E⁺| in standard deviations of E within each group; alarm above this ...
LEAST_GAP = 1.0  # ... if the gap is above this, in nats, too
LARGEST_DRIFT = 0.25  # s‖∇E‖ / √d, how far a step moves pixels, whose range is 1; alarm above this
LEAST_SPREAD = 1e-6  # standard deviation of E, in nats; alarm below this: a flat energy
MOST_SATURATED = 0.99  # share of pixels at 0 or 1; alarm above this
MOST_DUPLICATES = 0.5  # share of chains with another within one grey level; alarm above this
GREY_LEVEL = 1 / 255


@torch.no_grad()
def measure(
    positive: Float[Tensor, " n"],
    negative: Float[Tensor, " m"] | None = None,
    chains: Float[Tensor, "m ..."] | None = None,
    drift: Float[Tensor, ""] | None = None,
) -> dict[str, Float[Tensor, ""]]:
    """Measurements that tell a diverging run from a healthy one, as scalars on the device.

    `energy_std`: standard deviation of E within data and within chains. With chains, `gap` = mean E⁻ - mean E⁺,
    `gap_sigmas` = gap / energy_std, and `duplicates`, the share of chains that are copies of another. With a drift,
    `drift`, by which a step moves a pixel, and `saturated`, the share of pixels at 0 or 1.

    Args:
        positive: E of data.
        negative: E of the images that chains ended at.
        chains: The images that chains ended at.
        drift: Mean ‖s ∇E‖ of the chains' last step; None: the images are binary.
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


def to_floats(values: Mapping[str, Float[Tensor, ""]]) -> dict[str, float]:
    """Scalars of one device as numbers, by one transfer."""
    numbers = torch.stack([value.float() for value in values.values()]).tolist()
    return dict(zip(values, numbers, strict=True))


def divergence_sign(values: Mapping[str, float]) -> str | None:
    """What speaks for a divergence in one update's measurements; None where nothing does."""
    not_finite = [name for name, value in values.items() if not math.isfinite(value) and name != "gap_sigmas"]
    if not_finite:
        return f"{not_finite[0]} is not finite"
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

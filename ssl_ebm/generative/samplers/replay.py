"""Chains that persist from update to update: a buffer of images on the device, drawn from, moved on, and put back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from ssl_ebm.generative.samplers.chain import each

Augment = Callable[[Tensor, torch.Generator | None], Tensor]


def uniform_noise(like: Float[Tensor, "n ..."], generator: torch.Generator | None = None) -> Float[Tensor, "n ..."]:
    """Images of independent uniform pixels in [0, 1], where chains of most of the literature start."""
    return torch.empty_like(like).uniform_(generator=generator)


class Draw(NamedTuple):
    """Chains taken from the buffer, to be put back in their slots."""

    images: Float[Tensor, "n ..."]
    slots: Int[Tensor, " n"]
    age: Int[Tensor, " n"]  # updates since each was last noise


class ReplayBuffer(nn.Module):
    """Persistent chains (Tieleman 2008; Du and Mordatch 2019, arXiv 1903.08689).

    Slots are drawn without replacement, and those very slots get the result. A drawn chain starts anew from noise with
    probability `restart`, so that no chain lives for ever and new modes are found. Images and ages are buffers: they
    move with the module and travel in its state dict.

    Attributes:
        images: One a slot, float32 in [0, 1].
        age: Updates of each since it was last noise.

    Args:
        size: Number of slots.
        shape: Of one image.
        restart: Probability of a restart, for each chain at each draw.
        augment: Changes drawn images, e.g. flips and small crops, so that chains mix (Du et al. 2021, arXiv
            2012.01316); takes images and generator. Restarted ones are left as they are.
        generator: Of the noise that fills it.

    Raises:
        ValueError: There is no slot, or `restart` is not a probability.
    """

    images: Tensor
    age: Tensor

    def __init__(
        self,
        size: int,
        shape: tuple[int, ...],
        *,
        restart: float = 0.05,
        augment: Augment | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        if size < 1:
            raise ValueError(f"a replay buffer needs size >= 1, got {size}")
        if not 0 <= restart <= 1:
            raise ValueError(f"restart is a probability: must be in [0, 1], got {restart}")
        self.restart, self.augment = float(restart), augment
        self.register_buffer("images", uniform_noise(torch.empty(size, *shape), generator))
        self.register_buffer("age", torch.zeros(size, dtype=torch.long))

    def __len__(self) -> int:
        return len(self.images)

    def draw(self, n: int, *, generator: torch.Generator | None = None) -> Draw:
        """`n` different slots' chains; some of them new noise of age 0.

        Raises:
            ValueError: There are fewer slots than `n`.
        """
        if not 1 <= n <= len(self):
            raise ValueError(f"draws are without replacement: need 1 to {len(self)} of the buffer's slots, got {n}")
        on = self.images.device
        slots = torch.randperm(len(self), generator=generator, device=on)[:n]
        images, age = self.images[slots], self.age[slots]
        new = torch.rand(n, generator=generator, device=on) < self.restart
        if self.augment is not None:
            images = self.augment(images, generator)
        images = torch.where(each(new, images), uniform_noise(images, generator), images)
        return Draw(images, slots, age.masked_fill(new, 0))

    @torch.no_grad()
    def store(
        self,
        draw: Draw,
        images: Float[Tensor, "n ..."],
        *,
        drop: Bool[Tensor, " n"] | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        """Put a draw's chains back, one update older.

        Args:
            draw: What was drawn.
            images: Where its chains are now.
            drop: Chains that are lost, e.g. not finite: their slots get noise of age 0. None: none.
            generator: Of that noise.
        """
        age = draw.age + 1
        if drop is not None:
            images = torch.where(each(drop, images), uniform_noise(images, generator), images)
            age = age.masked_fill(drop, 0)
        self.images[draw.slots] = images.detach()
        self.age[draw.slots] = age

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *rest: Any) -> None:
        images, age = (state_dict.get(prefix + name) for name in ("images", "age"))
        if images is None or age is None or not images.numel():
            raise ValueError(
                f"the checkpoint's replay buffer is empty, this one has {len(self)} slots: start a new run"
            )
        if images.shape != self.images.shape or age.shape != self.age.shape:
            raise ValueError(
                f"the checkpoint's replay buffer holds {_shape(images)} images and {len(age)} ages, this one "
                f"{_shape(self.images)}: resume with the same size, image size and channels"
            )
        if not bool(images.isfinite().all()):
            raise ValueError("the checkpoint's replay buffer holds values that are not finite: go back to an older one")
        super()._load_from_state_dict(state_dict, prefix, *rest)

    def extra_repr(self) -> str:
        """What `print` shows."""
        return f"{_shape(self.images)}, restart={self.restart:g}"


def _shape(images: Tensor) -> str:
    return "×".join(str(side) for side in images.shape)

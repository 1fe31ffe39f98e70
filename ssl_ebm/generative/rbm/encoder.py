"""An RBM as an encoder: its hidden units are the features, its free energy is an energy of images."""

from __future__ import annotations

import math
from typing import Any

from jaxtyping import Float
from timm.models import register_model
from torch import Tensor, nn

from ssl_ebm.generative.rbm.machine import RBM


class RBMEncoder(nn.Module):
    """Features p(h_j = 1 | v) of images that are binarised to v; timm's model `rbm`.

    A pixel is on where the normalised image is positive: where it is brighter than its channel on average over the
    data. An image of zeros and ones is its own v.

    Args:
        in_chans: Channels of the images.
        img_size: Their side in pixels; with the channels, the number of visible units.
        hidden: Hidden units.
        spread: Standard deviation of the first weights.

    Raises:
        ValueError: There are no units.
    """

    def __init__(self, *, in_chans: int = 1, img_size: int = 28, hidden: int = 256, spread: float = 0.01) -> None:
        super().__init__()
        self.shape, self.num_features = (in_chans, img_size, img_size), hidden
        self.rbm = RBM(math.prod(self.shape), hidden, spread=spread)

    def visible(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n visible"]:
        """The units v of normalised images.

        Raises:
            ValueError: They are not of the size that the RBM was made for.
        """
        if tuple(images.shape[1:]) != self.shape:
            raise ValueError(
                f"the RBM takes images of {self.shape} (channels, height, width), got {tuple(images.shape[1:])}: set "
                f"encoder.kwargs.img_size={images.shape[-1]} if the data have that size, and leave views.size out"
            )
        return (images > 0).flatten(1).to(self.rbm.weight.dtype)

    def forward_features(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n hidden"]:
        """As `forward`: there is no map to pool."""
        return self.rbm.hidden_probability(self.visible(images))

    def forward(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n hidden"]:
        """p(h_j = 1 | v)."""
        return self.forward_features(images)


@register_model
def rbm(pretrained: bool = False, **kwargs: Any) -> RBMEncoder:
    """`timm.create_model("rbm", in_chans=1, img_size=28, hidden=256)`.

    Raises:
        ValueError: Weights are asked for.
    """
    if pretrained:
        raise ValueError("there are no weights of an RBM to load: set encoder.pretrained=false")
    timm_own = ("num_classes", "pretrained_cfg", "pretrained_cfg_overlay", "cache_dir")
    return RBMEncoder(**{name: value for name, value in kwargs.items() if name not in timm_own})

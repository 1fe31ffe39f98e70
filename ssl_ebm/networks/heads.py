"""Heads: the small MLPs behind a backbone that are an objective's projector and predictor."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from ssl_ebm.registry import unknown_name

Activation = Literal["relu", "gelu", "leaky_relu"]
ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": partial(nn.ReLU, inplace=True),
    "gelu": nn.GELU,
    "leaky_relu": partial(nn.LeakyReLU, inplace=True),
}
OutputNorm = Literal["none", "batch", "batch_no_bias", "batch_no_affine"]


class Prototypes(nn.Module):
    """A layer of cosines with learned directions, the codes of DINO and SwAV.

        s_k = ⟨z / ‖z‖, w_k / ‖w_k‖⟩

    Cosines have the dtype of the weight also under autocast: a temperature of .04 would amplify the rounding of
    bfloat16 to .1.

    Attributes:
        weight: w, drawn uniformly from the unit sphere; only directions count, as in weight normalisation of gain 1.
        frozen: True while the gradient of the weight is zero; z keeps its gradient.

    Source: Caron et al. 2020, arXiv 2006.09882, and 2021, arXiv 2104.14294.
    """

    def __init__(self, dim: int, count: int, *, generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.weight = nn.Parameter(F.normalize(torch.randn(count, dim, generator=generator)))
        self.frozen = False

    def forward(self, z: Float[Tensor, "*batch dim"]) -> Float[Tensor, "*batch count"]:
        """Cosines of each z with each prototype."""
        with torch.autocast(z.device.type, enabled=False):
            weight = self.weight.detach() if self.frozen else self.weight
            dtype = torch.promote_types(z.dtype, weight.dtype)
            cosines = F.linear(F.normalize(z.to(dtype), dim=-1), F.normalize(weight.to(dtype)))
            # zero instead of no gradient, because DistributedDataParallel waits for one of every parameter
            return cosines + 0 * self.weight.sum() if self.frozen else cosines


def drop_frozen_gradients(module: nn.Module) -> None:
    """Set the gradients of frozen prototypes to None, so that the optimiser skips them: no decay, no step counted.

    The official DINO and SwAV do the same; AdamW would else take steps several times too long when prototypes thaw.
    """
    for part in module.modules():
        if isinstance(part, Prototypes) and part.frozen:
            part.weight.grad = None


@dataclass(frozen=True, kw_only=True)
class MLP:
    """Linear layers with BatchNorm and an activation between them, and prototypes behind them where asked for.

    Attributes:
        hidden: Width of each hidden layer; () is one linear layer.
        out: Dimension of the last linear layer.
        hidden_norm: BatchNorm in hidden layers.
        activation: Activation of hidden layers: relu, gelu, or leaky_relu (slope .01).
        output_norm: Norm after the last layer: none, BatchNorm ("batch"), without its shift ("batch_no_bias", SimCLR's)
            or without scale and shift ("batch_no_affine", SimSiam's and Barlow Twins').
        output_bias: Bias of the last linear layer; left out where a norm follows.
        prototypes: Number of `Prototypes` that the output is compared with; 0: none, the output is the embedding.
        frozen_prototypes: Fraction of the training, from its start, in which prototypes do not move.
    """

    hidden: tuple[int, ...] = (2048,)
    out: int = 128
    hidden_norm: bool = True
    activation: Activation = "relu"
    output_norm: OutputNorm = "none"
    output_bias: bool = True
    prototypes: int = 0
    frozen_prototypes: float = 0.0

    def __post_init__(self) -> None:
        widths = (*self.hidden, self.out)
        if min(widths) < 1:
            raise ValueError(f"layer widths must be >= 1, got {widths}")
        if self.activation not in ACTIVATIONS:
            raise ValueError(unknown_name("activation", self.activation, ACTIVATIONS))
        if self.output_norm not in OutputNorm.__args__:  # type: ignore[attr-defined]
            raise ValueError(f"output_norm must be one of {OutputNorm.__args__}, got {self.output_norm!r}")  # type: ignore[attr-defined]
        if self.prototypes < 0:
            raise ValueError(f"prototypes must be >= 0 (0: none), got {self.prototypes}")
        if not 0 <= self.frozen_prototypes <= 1:
            raise ValueError(
                f"frozen_prototypes is a fraction of the training: must be in [0, 1], got {self.frozen_prototypes}"
            )
        if self.frozen_prototypes and not self.prototypes:
            raise ValueError(f"frozen_prototypes={self.frozen_prototypes} without prototypes: give prototypes=K, or 0")

    @property
    def dim(self) -> int:
        """Dimension of the output: `prototypes` where there are any, else `out`."""
        return self.prototypes or self.out

    def build(self, features: int) -> nn.Sequential:
        """Build the network from `features` inputs to `dim` outputs."""
        layers: list[nn.Module] = []
        for width in self.hidden:
            layers.append(nn.Linear(features, width, bias=not self.hidden_norm))
            layers += [nn.BatchNorm1d(width)] if self.hidden_norm else []
            layers.append(ACTIVATIONS[self.activation]())
            features = width
        layers.append(nn.Linear(features, self.out, bias=self.output_bias and self.output_norm == "none"))
        if self.output_norm != "none":
            norm = nn.BatchNorm1d(self.out, affine=self.output_norm != "batch_no_affine")
            if self.output_norm == "batch_no_bias":
                norm.register_parameter("bias", None)
            layers.append(norm)
        if self.prototypes:
            layers.append(Prototypes(self.out, self.prototypes))
        return nn.Sequential(*layers)


@dataclass(frozen=True, kw_only=True)
class HeadSpec:
    """The heads that an objective has behind the backbone: a projector, and a predictor where the paper has one."""

    projector: MLP
    predictor: MLP | None = None

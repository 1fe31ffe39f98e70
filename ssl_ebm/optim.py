"""Optimisers, what they decay, and the learning rate's course."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from timm.optim import Lars
from torch import Tensor, nn
from torch.optim.optimizer import Optimizer

from ssl_ebm.registry import unknown_name

OPTIMIZERS = ("adamw", "sgd", "lars")


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """How parameters are updated.

    Attributes:
        name: adamw, sgd or lars.
        lr: Peak learning rate, as it is: not scaled by the batch size.
        weight_decay: On weight matrices and kernels; norms and biases are not decayed.
        momentum: Of SGD and LARS.
        betas: Of AdamW.
        warmup_epochs: Linear rise from 0, in epochs.
        final_lr: Where the half cosine ends, as a fraction of the peak.
        clip_norm: Largest gradient norm; None: not clipped.
    """

    name: str = "adamw"
    lr: float = 1e-3
    weight_decay: float = 1e-4
    momentum: float = 0.9
    betas: tuple[float, float] = (0.9, 0.999)
    warmup_epochs: float = 1.0
    final_lr: float = 0.0
    clip_norm: float | None = None

    def __post_init__(self) -> None:
        if self.name not in OPTIMIZERS:
            raise ValueError(unknown_name("optimizer", self.name, OPTIMIZERS))
        if not self.lr > 0:
            raise ValueError(f"optimizer.lr must be > 0, got {self.lr}")
        for name in ("weight_decay", "warmup_epochs", "final_lr"):
            if getattr(self, name) < 0:
                raise ValueError(f"optimizer.{name} must be >= 0, got {getattr(self, name)}")
        if not 0 <= self.momentum < 1:
            raise ValueError(f"optimizer.momentum must be in [0, 1), got {self.momentum}")
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"optimizer.betas must be in [0, 1), got {self.betas}")
        if self.clip_norm is not None and not self.clip_norm > 0:
            raise ValueError(f"optimizer.clip_norm must be > 0 or null, got {self.clip_norm}")


def parameter_groups(modules: Iterable[nn.Module], weight_decay: float) -> list[dict[str, Any]]:
    """Two groups: decayed weights; and norms, biases and other parameters of at most one dimension, not decayed."""
    parameters = [p for module in modules for p in module.parameters() if p.requires_grad]
    return [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]


def create_optimizer(modules: Iterable[nn.Module], config: OptimizerConfig) -> Optimizer:
    """The optimiser of all trainable parameters.

    LARS adapts weights only, decayed or not, with η = .001 (You et al. 2017, arXiv 1708.03888, as used since SimCLR).
    """
    groups = [group for group in parameter_groups(modules, config.weight_decay) if group["params"]]
    if config.name == "adamw":
        return torch.optim.AdamW(groups, lr=config.lr, betas=config.betas, fused=True)
    if config.name == "sgd":
        return torch.optim.SGD(groups, lr=config.lr, momentum=config.momentum)
    adapted = [{**group, "always_adapt": group["params"][0].ndim > 1} for group in groups]
    return Lars(adapted, lr=config.lr, momentum=config.momentum, trust_coeff=0.001)


def clip_gradients(optimizer: Optimizer, clip_norm: float | None) -> Float[Tensor, ""]:
    """Scale all gradients to the norm `clip_norm` where theirs is larger; returns the norm they had."""
    parameters = [p for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
    norm = nn.utils.get_total_norm([p.grad for p in parameters])
    if clip_norm is not None:
        nn.utils.clip_grads_with_norm_(parameters, clip_norm, norm)
    return norm


def learning_rate(step: int, *, total: int, warmup: int, config: OptimizerConfig) -> float:
    """Of update number `step` from 0: a linear rise over `warmup` updates, then a half cosine to `final_lr` · lr."""
    if step < warmup:
        return config.lr * (step + 1) / warmup
    progress = (step - warmup) / max(1, total - warmup)
    floor = config.final_lr
    return config.lr * (floor + (1 - floor) * (1 + math.cos(math.pi * min(1.0, progress))) / 2)

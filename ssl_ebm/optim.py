"""Optimisers, the parameters that they decay, and the learning rate of each update."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from timm.optim import Lars, param_groups_weight_decay
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
        weight_decay: On weight matrices and kernels; see `parameter_groups` for what is not decayed.
        momentum: Of SGD and LARS.
        betas: Of AdamW.
        warmup_epochs: Linear rise from 0, in epochs.
        final_lr: The rate of the last update, as a fraction of the peak.
        clip_norm: Largest norm of the whole gradient; None: not clipped.
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
    """Two groups: the decayed weights; and the parameters that are not decayed. Either may be empty.

    Biases, norms and other parameters of at most one dimension are not decayed, nor what a module of timm names in its
    `no_weight_decay()`: a ViT's position embedding and class token, Swin's table of relative positions.
    """
    whole = nn.ModuleList(modules)
    undecayed = {
        f"{path}.{name}"
        for path, module in whole.named_modules()
        if hasattr(module, "no_weight_decay")
        for name in module.no_weight_decay()
    }
    # told apart by a decay of 1, because at 0 timm makes one group
    groups = param_groups_weight_decay(whole, weight_decay=1.0, no_weight_decay_list=undecayed)
    parameters = {group["weight_decay"]: group["params"] for group in groups}
    return [
        {"params": parameters.get(1.0, []), "weight_decay": weight_decay},
        {"params": parameters.get(0.0, []), "weight_decay": 0.0},
    ]


def create_optimizer(modules: Iterable[nn.Module], config: OptimizerConfig) -> Optimizer:
    """The optimiser of all trainable parameters of the modules.

    LARS scales the rate of the first group's parameters, whatever their decay, by η = .001 times the ratio of norms
    (You et al. 2017, arXiv 1708.03888, as used since SimCLR).
    """
    decayed, plain = parameter_groups(modules, config.weight_decay)
    groups = [group for group in (decayed, plain) if group["params"]]
    if config.name == "adamw":
        return torch.optim.AdamW(groups, lr=config.lr, betas=config.betas, fused=True)
    if config.name == "sgd":
        return torch.optim.SGD(groups, lr=config.lr, momentum=config.momentum)
    adapted = [{**group, "always_adapt": group is decayed} for group in groups]
    return Lars(adapted, lr=config.lr, momentum=config.momentum, trust_coeff=0.001)


def clip_gradients(optimizer: Optimizer, clip_norm: float | None) -> Float[Tensor, ""]:
    """Scale all gradients to the norm `clip_norm` where theirs is larger; returns the norm they had."""
    parameters = [p for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
    norm = nn.utils.get_total_norm([p.grad for p in parameters])
    if clip_norm is not None:
        nn.utils.clip_grads_with_norm_(parameters, clip_norm, norm)
    return norm


def learning_rate(step: int, *, total: int, warmup: int, config: OptimizerConfig) -> float:
    """The rate of update `step`, from 0: a linear rise over `warmup` updates, then half a cosine to `final_lr` · lr."""
    if step < warmup:
        return config.lr * (step + 1) / warmup
    progress = (step - warmup) / max(1, total - warmup)
    floor = config.final_lr
    return config.lr * (floor + (1 - floor) * (1 + math.cos(math.pi * min(1.0, progress))) / 2)

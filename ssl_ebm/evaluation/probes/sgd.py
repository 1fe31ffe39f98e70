"""The literature's linear probe: SGD on frozen features, a sweep of learning rates as parallel heads."""

import math
from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor
from tqdm import trange

from ssl_ebm.evaluation.features.bank import Bank
from ssl_ebm.evaluation.probes.classification import Classifiers, classification_scores

RATES = (1e-5, 2e-5, 5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2, 2e-2, 5e-2, 1e-1)  # at a batch of 256
EPOCHS, BATCH_SIZE, MOMENTUM = 100, 256, 0.9
DESCRIPTION = (
    f"where asked: standardised, momentum {MOMENTUM:g}, cosine, {EPOCHS} epochs, batch {BATCH_SIZE}, "
    f"rate of {len(RATES)} by validation, refit"
).replace(" 0.", " .")


class Heads(NamedTuple):
    """Classifiers, one a learning rate, whose logits are x Wᵀ + b."""

    weights: Float[Tensor, "rates classes d"]
    intercepts: Float[Tensor, "rates classes"]


def train_heads(
    x: Float[Tensor, "n d"],
    labels: Int64[Tensor, " n"],
    rates: Sequence[float],
    *,
    classes: int,
    epochs: int = EPOCHS,
    batch_size: int = BATCH_SIZE,
    momentum: float = MOMENTUM,
    seed: int = 0,
) -> Heads:
    """Classifiers by SGD on the mean cross-entropy of softmax(W x + b), side by side for all rates on the same batches.

        v ← momentum v + g,   θ ← θ - ½ rate (1 + cos(π t / T)) v     at update t of T, from θ = v = 0

    without weight decay. One matrix product gives the logits of all heads and one their gradients: a step costs little
    more for thirteen heads than for one. Every epoch is a new permutation, its last batch may be smaller.

    Args:
        x: Features.
        labels: In 0 .. classes - 1.
        rates: Learning rates > 0, as they are: not scaled by the batch.
        classes: Number of classes.
        epochs: Passes over the features.
        batch_size: Features an update.
        momentum: In [0, 1).
        seed: Of the permutations.

    Raises:
        ValueError: If a number is out of its range.
    """
    if not len(rates) or not all(0 < rate < math.inf for rate in rates):
        raise ValueError(f"rates must be finite and > 0, got {tuple(rates)}")
    if epochs < 1 or batch_size < 1:
        raise ValueError(f"epochs and batch_size must be at least 1, got {epochs} and {batch_size}")
    if not 0 <= momentum < 1:
        raise ValueError(f"momentum must lie in [0, 1), got {momentum}")
    n, d = x.shape
    rate = x.new_tensor(rates).repeat_interleave(classes)
    weight, bias = x.new_zeros(len(rates) * classes, d), x.new_zeros(len(rates) * classes)
    velocity, bias_velocity = torch.zeros_like(weight), torch.zeros_like(bias)
    generator, updates = torch.Generator().manual_seed(seed), epochs * math.ceil(n / batch_size)
    update = 0
    for _ in trange(epochs, desc="linear heads", unit="epoch", leave=False, disable=None):
        for batch in torch.randperm(n, generator=generator).to(x.device).split(batch_size):
            features = x[batch]
            residual = torch.addmm(bias, features, weight.T).view(len(batch), len(rates), classes).softmax(2)
            residual.scatter_add_(
                2,
                labels[batch].view(-1, 1, 1).expand(-1, len(rates), 1),
                residual.new_full((len(batch), len(rates), 1), -1.0),
            )
            residual = residual.flatten(1) / len(batch)
            velocity.mul_(momentum).addmm_(residual.T, features)
            bias_velocity.mul_(momentum).add_(residual.sum(0))
            step = rate * (0.5 + 0.5 * math.cos(math.pi * update / updates))
            weight.addcmul_(velocity, step[:, None], value=-1)
            bias.addcmul_(bias_velocity, step, value=-1)
            update += 1
    return Heads(weight.view(len(rates), classes, d), bias.view(len(rates), classes))


def sgd_probe(
    bank: Bank,
    *,
    rates: Sequence[float] = RATES,
    epochs: int = EPOCHS,
    batch_size: int = BATCH_SIZE,
    momentum: float = MOMENTUM,
    seed: int = 0,
) -> dict[str, Any]:
    """The `sgd` protocol: learning rate chosen on validation, refit on train and validation, test read once.

    The rates are DINOv2's, at a batch of 256, and scaled by batch_size / 256 as there; of rates equal on validation the
    smallest is taken, and `at_edge` says that it is the grid's first or last. Features are standardised by the split
    that is fitted, as a BatchNorm without weights before the classifier does (He et al. 2022, arXiv 2111.06377,
    appendix A.1): DINOv2's rates are for the outputs of a LayerNorm, and other networks' features have other scales.

    Source: Oquab et al. 2024, arXiv 2304.07193, and their dinov2/eval/linear.py.

    Raises:
        ValueError: If a number is out of its range or the train split holds one class only.
    """
    scaled = [rate * batch_size / 256 for rate in sorted(rates)]
    options: dict[str, Any] = {"epochs": epochs, "batch_size": batch_size, "momentum": momentum, "seed": seed}
    sweep = Classifiers(bank.train, partial(train_heads, rates=scaled, **options))
    curve = sweep.accuracies(bank.validation, bank.classes)
    best = int(np.argmax(curve))
    final = Classifiers(bank.full_train(), partial(train_heads, rates=scaled[best : best + 1], **options))
    return {
        "protocol": "sgd",
        **options,
        "rate": scaled[best],
        "at_edge": best in (0, len(scaled) - 1),
        "rates": scaled,
        "validation": curve,
        "unseen_classes": final.unseen(bank.classes),
        "test": classification_scores(final.scores(bank.test, bank.classes), bank.test.labels),
    }

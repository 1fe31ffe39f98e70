"""Slow oracles of the objectives with latent codes: see `reference.py`."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from reference import cosine, least, mean, squared_distance, unit
from torch import Tensor

Distribution = Sequence[Tensor]


def softmax(scores: Sequence[Tensor], temperature: float) -> list[Tensor]:
    weights = [torch.exp(score / temperature) for score in scores]
    return [weight / sum(weights) for weight in weights]


def cross_entropy(q: Distribution, p: Distribution) -> Tensor:
    return -sum(a * torch.log(b) for a, b in zip(q, p, strict=True))


def equipartition(weights: Sequence[Sequence[Tensor]], iterations: int) -> list[list[Tensor]]:
    """Caron et al. 2020, algorithm of the appendix: codes to 1/K each, then samples to 1/B each, by turns; times B."""
    b, k = len(weights), len(weights[0])
    total = sum(sum(row) for row in weights)
    q = [[weight / total for weight in row] for row in weights]
    for _ in range(iterations):
        used = [sum(row[code] for row in q) for code in range(k)]
        q = [[row[code] / used[code] / k for code in range(k)] for row in q]
        q = [[weight / sum(row) / b for weight in row] for row in q]
    return [[weight / sum(row) for weight in row] for row in q]


def predict_codes(q: Sequence[Sequence[Distribution]], p: Sequence[Sequence[Distribution]]) -> Tensor:
    """Mean over a view with a target and another view, and over images, of H(q, p)."""
    pairs = [(a, b) for b in range(len(q)) for a in range(len(p)) if a != b]
    return mean([cross_entropy(q[b][i], p[a][i]) for a, b in pairs for i in range(len(p[0]))])


def koleo(features: Tensor) -> Tensor:
    """Oquab et al. 2023: -mean log(min_j ‖u_i - u_j‖ + 1e-8), summed over views."""
    views, n = features.shape[:2]
    total = torch.zeros((), dtype=torch.float64)
    for v in range(views):
        logarithms = []
        for i in range(n):
            distances = [
                squared_distance(unit(features[v, i]), unit(features[v, j])).sqrt() for j in range(n) if j != i
            ]
            logarithms.append(torch.log(least(distances) + 1e-8))
        total = total - mean(logarithms)
    return total


def dino(
    z: Tensor,
    *,
    target: Tensor,
    center: Tensor | None = None,
    features: Tensor | None = None,
    global_views: int | None = None,
    temperature: float = 0.1,
    teacher_temperature: float = 0.04,
    assignment: str = "centring",
    koleo_weight: float = 0.0,
) -> Tensor:
    """Caron et al. 2021, Algorithm 1: H(softmax((t - C)/τ_t), softmax(z/τ_s)); or with Sinkhorn, with KoLeo."""
    target = target[:global_views].detach()
    if assignment == "centring":
        q = [[softmax(t - center, teacher_temperature) for t in view] for view in target]
    else:
        q = [equipartition([[torch.exp(s / teacher_temperature) for s in t] for t in view], 3) for view in target]
    loss = predict_codes(q, [[softmax(x, temperature) for x in view] for view in z])
    return loss + koleo_weight * koleo(features[:global_views]) if koleo_weight else loss


def swav(
    z: Tensor,
    *,
    prototypes: Tensor,
    queues: Sequence[Tensor] = (),
    global_views: int | None = None,
    temperature: float = 0.1,
    epsilon: float = 0.05,
    iterations: int = 3,
) -> Tensor:
    """Caron et al. 2020, eq. 1 to 3; earlier batches' embeddings, one queue a view, join the assignment."""
    q = []
    for v, view in enumerate(z[:global_views].detach()):
        joined = [*view, *(queues[v] if v < len(queues) else [])]
        weights = [[torch.exp(cosine(x, c.detach()) / epsilon) for c in prototypes] for x in joined]
        q.append(equipartition(weights, iterations)[: len(view)])
    return predict_codes(q, [[softmax([cosine(x, c) for c in prototypes], temperature) for x in view] for view in z])


def msn(
    z: Tensor,
    *,
    target: Tensor,
    prototypes: Tensor,
    global_views: int | None = None,
    temperature: float = 0.1,
    target_temperature: float = 0.25,
    entropy_weight: float = 1.0,
    iterations: int = 3,
) -> Tensor:
    """Assran et al. 2022, eq. 1: H(sinkhorn(p_t^{1/T}), p) + λ (log K - H(p̄))."""

    def codes(x: Tensor) -> list[Tensor]:
        return softmax([cosine(x, c) for c in prototypes], temperature)

    q = []
    for view in target[:global_views].detach():
        sharp = [[weight.detach() ** (1 / target_temperature) for weight in codes(t)] for t in view]
        q.append(equipartition([[weight / sum(row) for weight in row] for row in sharp], iterations))
    p = [[codes(x) for x in view] for view in z]
    average = [mean([row[k] for view in p for row in view]) for k in range(len(prototypes))]
    return predict_codes(q, p) + entropy_weight * (math.log(len(prototypes)) - cross_entropy(average, average))


def supervised(z: Tensor, *, label: Sequence[int], temperature: float = 1.0) -> Tensor:
    """LeCun et al. 2006, negative log-likelihood of E(x, y) = -f_y(x) / τ; images without a label cost nothing."""
    views, n = z.shape[:2]
    costs = []
    for v in range(views):
        for i in range(n):
            p = softmax(list(z[v, i]), temperature)
            costs.append(-torch.log(p[label[i]]) if label[i] >= 0 else 0 * z[v, i].sum())
    return mean(costs)


ORACLES: dict[str, Callable[..., Tensor]] = {oracle.__name__: oracle for oracle in (dino, swav, msn, supervised)}

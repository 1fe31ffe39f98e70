"""Slow oracles of the regularised objectives in float64, one number at a time, from the papers' formulas.

As in `reference.py`. What an objective remembers or draws is given: running moments, permutations, frequencies.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from reference import cosine, dot, mean, ordered_pairs, squared_distance, unit
from torch import Tensor

Rows = list[list[Any]]  # a matrix of scalars


def identity(dim: int) -> Rows:
    return [[float(i == j) for j in range(dim)] for i in range(dim)]


def plus(a: Rows, b: Rows, *, times: Any = 1.0) -> Rows:
    return [[x + times * y for x, y in zip(r, s, strict=True)] for r, s in zip(a, b, strict=True)]


def average(samples: Sequence[Tensor]) -> Tensor:
    return sum(samples[1:], start=samples[0]) / len(samples)


def scatter(samples: Sequence[Tensor], centre: Tensor | float = 0.0) -> Rows:
    """Σ (x - centre)(x - centre)ᵀ."""
    dim = len(samples[0])
    return [[sum((x - centre)[i] * (x - centre)[j] for x in samples) for j in range(dim)] for i in range(dim)]


def log_determinant(matrix: Rows) -> Any:
    """Gaussian elimination without pivots: the matrices are positive definite."""
    rows, total = [list(row) for row in matrix], torch.zeros((), dtype=torch.float64)
    for k in range(len(rows)):
        total = total + torch.log(torch.as_tensor(rows[k][k], dtype=torch.float64))
        for i in range(k + 1, len(rows)):
            factor = rows[i][k] / rows[k][k]
            rows[i] = [x - factor * y for x, y in zip(rows[i], rows[k], strict=True)]
    return total


def triangle(matrix: Rows) -> Rows:
    """L of M = L Lᵀ, row by row."""
    factor: Rows = [[0.0] * len(matrix) for _ in matrix]
    for i in range(len(matrix)):
        for j in range(i + 1):
            rest = matrix[i][j] - sum(factor[i][k] * factor[j][k] for k in range(j))
            factor[i][j] = rest.sqrt() if i == j else rest / factor[j][j]
    return factor


def whitened(samples: Sequence[Tensor], *, method: str, eps: float) -> list[Tensor]:
    """W (x - mean): by forward substitution in L, or with the symmetric C^(-1/2)."""
    centre, dim = average(samples), len(samples[0])
    covariance = [[c / (len(samples) - 1) for c in row] for row in scatter(samples, centre)]
    ridge = eps * (mean([covariance[i][i] for i in range(dim)]) + 1e-4)
    covariance = plus(covariance, identity(dim), times=ridge)
    if method == "zca":
        values, vectors = torch.linalg.eigh(torch.stack([torch.stack(row) for row in covariance]))
        root = vectors @ torch.diag(values**-0.5) @ vectors.T
        return [torch.stack([dot(row, x - centre) for row in root]) for x in samples]
    factor, white = triangle(covariance), []
    for x in samples:
        solved: list[Tensor] = []
        for i in range(dim):
            solved.append(((x - centre)[i] - sum(factor[i][k] * solved[k] for k in range(i))) / factor[i][i])
        white.append(torch.stack(solved))
    return white


def wmse(
    z: Tensor,
    *,
    permutations: Sequence[Sequence[int]],
    window: int | None = None,
    method: Literal["cholesky", "zca"] = "cholesky",
    eps: float = 1e-8,
) -> Tensor:
    """Ermolov et al., w_mse.py: 2 - 2 cos of the whitened embeddings, mean over permutations, pairs and images."""
    views, n, d = z.shape
    losses = []
    for order in permutations:
        windows = max(1, n // (window or 2 * d))
        sizes = [n // windows + (w < n % windows) for w in range(windows)]
        for w, size in enumerate(sizes):
            images = [int(i) for i in order[sum(sizes[:w]) : sum(sizes[:w]) + size]]
            white = [whitened([z[v, i] for i in images], method=method, eps=eps) for v in range(views)]
            losses += [2 - 2 * cosine(white[a][i], white[b][i]) for a, b in ordered_pairs(views) for i in range(size)]
    return mean(losses)


def tico(
    z: Tensor,
    *,
    target: Tensor,
    second_moment: Tensor,
    covariance_weight: float = 8.0,
    beta: float = 0.9,
    through_batch: bool = True,
) -> Tensor:
    """Zhu et al., algorithm 1: 1 - z·t + ρ zᵀ C z of the first view, C with the present batch."""
    views, n, d = z.shape
    first = [unit(z[0, i]) for i in range(n)]
    counted = first if through_batch else [x.detach() for x in first]
    batch = scatter(counted)
    moment = [[beta * second_moment[i, j] + (1 - beta) * batch[i][j] / n for j in range(d)] for i in range(d)]
    energies = [sum(moment[i][j] * x[i] * x[j] for i in range(d) for j in range(d)) for x in first]
    attraction = [1 - dot(first[i], unit(target[w, i].detach())) for w in range(1, len(target)) for i in range(n)]
    return mean(attraction) + covariance_weight * mean(energies)


def mmcr(z: Tensor, *, local_weight: float = 0.0) -> Tensor:
    """Yerxa et al., loss_mmcr.py: -‖centroids‖_* + λ/N Σ ‖Z_i‖_*, by singular values."""
    views, n = z.shape[:2]
    sets = [[unit(z[v, i]) for v in range(views)] for i in range(n)]
    overall = torch.linalg.svdvals(torch.stack([average(vectors) for vectors in sets])).sum()
    return -overall + local_weight * mean([torch.linalg.svdvals(torch.stack(vectors)).sum() for vectors in sets])


def corinfomax(
    z: Tensor,
    *,
    covariance: Tensor,
    running_mean: Tensor,
    invariance_weight: float = 250.0,
    old_weight: float = 0.01,
    eps: float = 1e-8,
    views: int | None = 2,
    normalize: bool = True,
) -> Tensor:
    """Ozsoy et al., loss.py: α mse - 1/D Σ logdet(R + ε I), of unit vectors; views None: one R for all views."""
    v, n, d = z.shape
    x = [[unit(z[a, i]) if normalize else z[a, i] for i in range(n)] for a in range(v)]
    squares = [squared_distance(x[a][i], x[b][i]) / d for a, b in ordered_pairs(v) for i in range(n)]
    groups = x if views is not None else [[vector for view in x for vector in view]]
    entropies = []
    for samples, old, centre in zip(groups, covariance, running_mean, strict=True):
        moved = old_weight * centre + (1 - old_weight) * average(samples)
        spread = scatter(samples, moved)
        share = (1 - old_weight) / len(samples)
        matrix = [[old_weight * old[i, j] + share * spread[i][j] for j in range(d)] for i in range(d)]
        entropies.append(log_determinant(plus(matrix, identity(d), times=eps)) / d)
    return invariance_weight * mean(squares) - sum(entropies)


def rate(samples: Sequence[Tensor], eps_squared: float) -> Tensor:
    """½ logdet(I + D / (n ε²) Σ x xᵀ)."""
    dim = len(samples[0])
    return log_determinant(plus(identity(dim), scatter(samples), times=dim / (len(samples) * eps_squared))) / 2


def emp_ssl(
    z: Tensor, *, global_views: int | None = None, invariance_weight: float = 200.0, eps_squared: float = 0.2
) -> Tensor:
    """Tong et al., main.py: -λ mean cos(z_v, z̄) - mean R(Z_v), z̄ the mean of unit vectors, of global views."""
    views, n = z.shape[:2]
    x = [[unit(z[v, i]) for i in range(n)] for v in range(views)]
    centres = [average([view[i] for view in x[:global_views]]) for i in range(n)]
    cosines = [cosine(view[i], centres[i]) for view in x for i in range(n)]
    return -invariance_weight * mean(cosines) - mean([rate(samples, eps_squared) for samples in x])


def mcr2(z: Tensor, *, eps_squared: float = 0.5, expansion: float = 20.0, expansion_weight: float = 0.05) -> Tensor:
    """Yu et al., loss.py: Σ_i V/M R(Z_i) - γ₂ R(Z; ε²/γ₁), an image's views being a class."""
    views, n = z.shape[:2]
    classes = [[unit(z[v, i]) for v in range(views)] for i in range(n)]
    everything = [x for members in classes for x in members]
    compression = sum(len(members) / len(everything) * rate(members, eps_squared) for members in classes)
    return compression - expansion_weight * rate(everything, eps_squared / expansion)


def hsic(
    sets: Sequence[Sequence[Tensor]], *, frequencies: Tensor, phases: Tensor, scale: Tensor, gamma: float
) -> tuple[Any, Any]:
    """HSIC(Z, Y) and HSIC(Z, Z) by random features, sets[v][i] being unit vectors."""
    k, n, count = len(sets), len(sets[0]), frequencies.shape[-1]

    def feature(which: int, f: int, x: Tensor) -> Tensor:
        return math.sqrt(2 / count) * torch.cos(dot(frequencies[which, :, f], x) / scale + phases[which, 0, f])

    table = [[[[feature(w, f, x) for x in view] for view in sets] for f in range(count)] for w in range(2)]
    centre = [[mean([x for view in table[w][f] for x in view]) for f in range(count)] for w in range(2)]
    squares = [sum(table[0][f][v][i] for v in range(k)) ** 2 for f in range(count) for i in range(n)]
    dependence = sum(squares) / (n * k * (k - 1)) - sum(c**2 for c in centre[0])
    itself = 0.0
    for f in range(count):
        for g in range(count):
            products = [
                (table[0][f][v][i] - centre[0][f]) * (table[1][g][v][i] - centre[1][g])
                for v in range(k)
                for i in range(n)
            ]
            itself = itself + (sum(products) / (n * k)) ** 2
    return dependence, itself


def steepness(samples: Sequence[Tensor], scale: Tensor) -> Tensor:
    """Mean over pairs of log |∂/∂d² c (c² + d²)^(-1/2)|."""
    pairs = [squared_distance(a, b) for a in samples for b in samples]
    return mean([torch.log(scale / 2 * (scale**2 + d) ** -1.5) for d in pairs])


def ssl_hsic(
    *, prediction: Tensor, target: Tensor, frequencies: Tensor, phases: Tensor, scale: Tensor, gamma: float = 3.0
) -> Tensor:
    """Li et al., kernels.py: -HSIC(Z, Y) + γ √HSIC(Z, Z); c has the gradient of minus the steepness alone."""
    sets = [[unit(x) for x in view] for view in [*prediction, *target.detach()]]
    dependence, itself = hsic(sets, frequencies=frequencies, phases=phases, scale=scale.detach(), gamma=gamma)
    slope = steepness([x.detach() for view in sets for x in view], scale)
    return -dependence + gamma * itself.sqrt() - (slope - slope.detach())


def koleo(z: Tensor, *, eps: float = 1e-8) -> Tensor:
    """DINOv2, koleo_loss.py: -mean log(min_{j≠i} ‖z_i - z_j‖ + ε), summed over views."""
    total = torch.zeros((), dtype=torch.float64)
    for view in z:
        x = [unit(vector) for vector in view]
        for i in range(len(x)):
            nearest = min((squared_distance(x[i], x[j]) for j in range(len(x)) if j != i), key=Tensor.item)
            total = total - torch.log(nearest.sqrt() + eps) / len(x)
    return total


def mean_entropy(z: Tensor, *, temperature: float) -> Tensor:
    """Assran et al., losses.py: log K - H(p̄) of softmax(z / τ)."""
    views, n, codes = z.shape
    shares = []
    for v in range(views):
        for i in range(n):
            weights = [torch.exp(z[v, i, k] / temperature) for k in range(codes)]
            shares.append([weight / sum(weights) for weight in weights])
    p = [mean([share[k] for share in shares]) for k in range(codes)]
    return math.log(codes) + sum(x * torch.log(x) for x in p)


ORACLES: dict[str, Callable[..., Tensor]] = {
    oracle.__name__: oracle for oracle in (wmse, tico, mmcr, corinfomax, emp_ssl, mcr2, ssl_hsic)
}


def state_of(objective: Any, z: Tensor) -> dict[str, Any]:
    """What the oracles ask for of an objective's state and of its draws for embeddings z; call it on a copy."""
    state: dict[str, Any] = {}
    for regularizer in objective.regularizers.values():
        kind = type(regularizer).__name__
        if kind == "WhitenedDistance":
            state["permutations"] = regularizer.permutations(z.shape[1]).tolist()
        elif kind == "SecondMoment":
            state["second_moment"] = regularizer.second_moment.double()
        elif kind == "LogDetCovariance":
            state |= {"covariance": regularizer.covariance, "running_mean": regularizer.mean}
        elif kind == "HSIC":
            state["frequencies"], state["phases"] = regularizer.frequencies(z)
    return state

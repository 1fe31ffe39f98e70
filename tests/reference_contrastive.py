"""Slow oracles of the contrastive and noise-contrastive objectives: see `reference.py`."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from reference import cosine, dot, least, mean, ordered_pairs, places, sigmoid, squared_distance, unit
from torch import Tensor


def supcon(z: Tensor, *, label: Sequence[int], temperature: float = 0.1) -> Tensor:
    """Khosla et al. eq. 2: mean over anchors of -1/|P| Σ_p log(e^{s_p} / Σ_{a≠i} e^{s_a}), s = cos/τ."""
    losses = []
    for v, i in places(z):
        others = [place for place in places(z) if place != (v, i)]
        weights = {(w, j): torch.exp(cosine(z[v, i], z[w, j]) / temperature) for w, j in others}
        positives = [(w, j) for w, j in others if label[j] == label[i]]
        losses.append(mean([-torch.log(weights[p] / sum(weights.values())) for p in positives]))
    return mean(losses)


def simclr(z: Tensor, *, temperature: float = 0.1) -> Tensor:
    """Chen et al. eq. 1, mean over the 2N anchors; more than two views: every other view is a positive."""
    return supcon(z, label=list(range(z.shape[1])), temperature=temperature)


def moco_v2(z: Tensor, *, target: Tensor, queue: Tensor, temperature: float = 0.2) -> Tensor:
    """He et al. eq. 1: the first view against the teacher's other views, negatives from the queue."""
    losses = []
    for w in range(1, len(target)):
        for i in range(z.shape[1]):
            positive = torch.exp(cosine(z[0, i], target[w, i].detach()) / temperature)
            negatives = [torch.exp(cosine(z[0, i], k) / temperature) for k in queue]
            losses.append(-torch.log(positive / (positive + sum(negatives))))
    return mean(losses)


def triplet(z: Tensor, *, margin: float = 0.2) -> Tensor:
    """Mean over anchors and negatives of [margin + E⁺ - E⁻]₊, E = ‖a - b‖² of unit vectors."""
    losses = []
    for v, i in places(z):
        pulled = mean([squared_distance(unit(z[v, i]), unit(z[w, i])) for w in range(len(z)) if w != v])
        for w, j in places(z):
            if j != i:
                violation = margin + pulled - squared_distance(unit(z[v, i]), unit(z[w, j]))
                losses.append(violation if violation > 0 else 0 * violation)
    return mean(losses)


def align_uniform(z: Tensor, *, alpha: float = 2.0, t: float = 2.0, uniformity_weight: float = 1.0) -> Tensor:
    """Wang & Isola: E‖u - u'‖^α + λ · mean over views of log E_{i≠j} e^{-t‖u_i - u_j‖²}."""
    views, n = z.shape[:2]
    align = [
        squared_distance(unit(z[a, i]), unit(z[b, i])) ** (alpha / 2) for a, b in ordered_pairs(views) for i in range(n)
    ]
    uniform = []
    for v in range(views):
        potentials = [
            torch.exp(-t * squared_distance(unit(z[v, i]), unit(z[v, j]))) for i in range(n) for j in range(i + 1, n)
        ]
        uniform.append(torch.log(mean(potentials)))
    return mean(align) + uniformity_weight * mean(uniform)


def spectral(z: Tensor, *, mu: float = 1.0) -> Tensor:
    """HaoChen et al.: (1/μ) {-2 mean z·z⁺ + mean_{i≠j} (z_i·z'_j)²}, norms clipped to √μ."""

    def clipped(a: Tensor) -> Tensor:
        return a * (math.sqrt(mu) / dot(a, a).sqrt()) if dot(a, a) > mu else a

    n, losses = z.shape[1], []
    for w in range(1, len(z)):
        positive = mean([dot(clipped(z[0, i]), clipped(z[w, i])) for i in range(n)])
        squares = [dot(clipped(z[0, i]), clipped(z[w, j])) ** 2 for i in range(n) for j in range(n) if i != j]
        losses.append((-2 * positive + mean(squares)) / mu)
    return mean(losses)


def nce_partition(z: Tensor, *, memory: Tensor, drawn: Sequence[int], temperature: float = 0.07) -> Tensor:
    """Z = n · mean e^{s/τ} over a batch's noise samples."""
    return len(memory) * mean(
        [torch.exp(cosine(z[v, i], memory[k]) / temperature) for v, i in places(z) for k in drawn]
    )


def nce(
    z: Tensor,
    *,
    index: Sequence[int],
    memory: Tensor,
    drawn: Sequence[int],
    partition: Tensor | None = None,
    temperature: float = 0.07,
) -> Tensor:
    """Wu et al. eq. 6-7: -log h⁺ - Σ_m log(1 - h⁻), h = P/(P + m/n), P = e^{s/τ}/Z."""
    if partition is None:
        partition = nce_partition(z, memory=memory, drawn=drawn, temperature=temperature).detach()
    noise = len(drawn) / len(memory)

    def odds(v: int, i: int, k: int) -> Tensor:
        return torch.exp(cosine(z[v, i], memory[k]) / temperature) / partition / noise

    losses = []
    for v, i in places(z):
        positive = odds(v, i, index[i])
        rejected = [-torch.log(1 / (1 + odds(v, i, k))) for k in drawn]
        losses.append(-torch.log(positive / (1 + positive)) + sum(rejected))
    return mean(losses)


def siglip(z: Tensor, *, scale: Tensor | float = 10.0, bias: Tensor | float = -10.0) -> Tensor:
    """Zhai et al.: -1/N Σ_ij log σ(y_ij (t c_ij + b)), with the authors' code's sign of b."""
    n, losses = z.shape[1], []
    for w in range(1, len(z)):
        for i in range(n):
            signs = [1 if i == j else -1 for j in range(n)]
            logits = [scale * cosine(z[0, i], z[w, j]) + bias for j in range(n)]
            losses.append(sum(-torch.log(sigmoid(y * logit)) for y, logit in zip(signs, logits, strict=True)))
    return mean(losses)


def softmax_cross_entropy(scores: Sequence[Tensor], right: int) -> Tensor:
    """-log of the right score's share among exp(scores)."""
    weights = [torch.exp(score) for score in scores]
    return -torch.log(weights[right] / sum(weights))


def moco_v3(*, prediction: Tensor, target: Tensor, temperature: float = 1.0) -> Tensor:
    """Chen et al. 2021, Algorithm 1: 2τ [CE(p1, t2) + CE(p2, t1)]; the sum is twice the mean over orders."""
    views, n = prediction.shape[:2]
    losses = [
        softmax_cross_entropy(
            [cosine(prediction[a, i], target[b, k].detach()) / temperature for k in range(n)], right=i
        )
        for a, b in ordered_pairs(views, len(target))
        for i in range(n)
    ]
    return 2 * temperature * 2 * mean(losses)


def nearest(a: Tensor, queue: Tensor) -> Tensor:
    similarities = [float(cosine(a, entry)) for entry in queue]
    return queue[similarities.index(max(similarities))]


def nnclr(z: Tensor, *, prediction: Tensor, queue: Tensor, temperature: float = 0.1) -> Tensor:
    """Dwibedi et al. eq. 3 and 4: the neighbour of one view is the row, predictions of another its columns."""
    views, n = z.shape[:2]
    losses = []
    for a, b in ordered_pairs(views):
        for i in range(n):
            neighbour = nearest(z[a, i].detach(), queue).detach()
            scores = [cosine(neighbour, prediction[b, k]) / temperature for k in range(n)]
            losses.append(softmax_cross_entropy(scores, right=i))
    return mean(losses)


def pull(z: Tensor, v: int, i: int) -> Tensor:
    """Mean cosine of a view with the image's others."""
    return mean([cosine(z[v, i], z[w, i]) for w in range(len(z)) if w != v])


def dcl(z: Tensor, *, temperature: float = 0.1, weights: Sequence[Tensor] | None = None) -> Tensor:
    """Yeh et al. eq. 6: -w c⁺/τ + log of the sum over the other images' views of e^{c/τ}."""
    losses = []
    for place, (v, i) in enumerate(places(z)):
        negatives = [torch.exp(cosine(z[v, i], z[w, j]) / temperature) for w, j in places(z) if j != i]
        weight = 1 if weights is None else weights[place]
        losses.append(-weight * pull(z, v, i) / temperature + torch.log(sum(negatives)))
    return mean(losses)


def dclw(z: Tensor, *, temperature: float = 0.1, sigma: float = 0.5) -> Tensor:
    """Yeh et al. eq. 7: DCL with w = 2 - e^{c⁺/σ} / mean e^{c⁺/σ}, a constant."""
    near = [torch.exp(pull(z, v, i).detach() / sigma) for v, i in places(z)]
    return dcl(z, temperature=temperature, weights=[2 - one / mean(near) for one in near])


def square_square(z: Tensor, *, margin: float = 1.0, hardest: bool = False) -> Tensor:
    """LeCun et al. 2006, eq. 13: (E⁺)² + ([m - E⁻]₊)², E the distance of unit vectors."""

    def distance(one: tuple[int, int], other: tuple[int, int]) -> Tensor:
        return squared_distance(unit(z[one]), unit(z[other])).sqrt()

    losses = []
    for v, i in places(z):
        pulled = mean([distance((v, i), (w, i)) ** 2 for w in range(len(z)) if w != v])
        others = [distance((v, i), (w, j)) for w, j in places(z) if j != i]
        if hardest:
            others = [least(others)]
        losses.append(pulled + mean([(margin - e) ** 2 if e < margin else 0 * e for e in others]))
    return mean(losses)


def cpc(z: Tensor, *, matrix: Tensor) -> Tensor:
    """van den Oord et al. eq. 4: -log of exp(zᵀ W z⁺) among exp(zᵀ W z'), the first view against the others."""
    n, d = z.shape[1:]

    def score(i: int, w: int, j: int) -> Tensor:
        return sum(z[0, i, k] * matrix[k, m] * z[w, j, m] for k in range(d) for m in range(d))

    return mean(
        [softmax_cross_entropy([score(i, w, j) for j in range(n)], right=i) for w in range(1, len(z)) for i in range(n)]
    )


def jsd(z: Tensor) -> Tensor:
    """Hjelm et al. eq. 4: E_P softplus(-T) + E_Q softplus(T), T = z·z', both orders of every two views."""
    losses = []
    for a, b in ordered_pairs(len(z)):
        n = z.shape[1]
        joint = [torch.log(1 + torch.exp(-dot(z[a, i], z[b, i]))) for i in range(n)]
        shuffled = [torch.log(1 + torch.exp(dot(z[a, i], z[b, j]))) for i in range(n) for j in range(n) if i != j]
        losses.append(mean(joint) + mean(shuffled))
    return mean(losses)


def nwj(z: Tensor, *, max_norm: float = math.inf) -> Tensor:
    """Poole et al. eq. 6, with the sign of a loss: -E_P T + e⁻¹ E_Q e^T, T = z·z' of norms up to a largest."""

    def clipped(a: Tensor) -> Tensor:
        length = dot(a, a).sqrt()
        return a * (max_norm / length) if length > max_norm else a

    losses = []
    for a, b in ordered_pairs(len(z)):
        n = z.shape[1]
        joint = [dot(clipped(z[a, i]), clipped(z[b, i])) for i in range(n)]
        shuffled = [torch.exp(dot(clipped(z[a, i]), clipped(z[b, j]))) for i in range(n) for j in range(n) if i != j]
        losses.append(-mean(joint) + mean(shuffled) / math.e)
    return mean(losses)


ORACLES: dict[str, Callable[..., Tensor]] = {
    oracle.__name__: oracle
    for oracle in (
        simclr,
        supcon,
        moco_v2,
        moco_v3,
        nnclr,
        dcl,
        dclw,
        triplet,
        square_square,
        align_uniform,
        spectral,
        nce,
        cpc,
        jsd,
        nwj,
        siglip,
    )
}

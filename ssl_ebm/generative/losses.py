"""How an energy of images is trained; every loss gives a `Step`: what to minimise, and detached terms to log.

By maximum likelihood, whose gradient is E_data[∂E] - E_model[∂E], the second mean from chains (`maximum_likelihood`).
Where the chains start names the method: the data, CD-k (Hinton 2002); where they last ended, PCD (Tieleman 2008); noise
each time, short-run (Nijkamp et al. 2019, arXiv 1904.09770). JEM is a classifier plus this loss on its free energy, and
EBCLR is NT-Xent plus .1 times this loss on the joint head: each a sum of an objective and this.

Or without chains: by the score (`denoising_score_matching`, `sliced_score_matching`), or against noise
(`noise_contrastive`, `conditional_noise_contrastive`).
"""

from __future__ import annotations

import math
from contextlib import AbstractContextManager

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from ssl_ebm.generative.samplers.chain import EnergyFunction, each
from ssl_ebm.objectives import Step


def maximum_likelihood(
    positive: Float[Tensor, " n"], negative: Float[Tensor, " m"], *, energy_penalty: float = 0.0
) -> Step:
    """L = mean E⁺ - mean E⁻ + α (mean E⁺² + mean E⁻²): CD-k, PCD, short-run, by where the chains of E⁻ start.

    The penalty keeps energies near zero, which the difference leaves free (Du and Mordatch 2019, arXiv 1903.08689).

    Args:
        positive: E of data.
        negative: E of where chains ended, which are constants.
        energy_penalty: α.

    Raises:
        ValueError: α is negative.
    """
    if not energy_penalty >= 0:
        raise ValueError(f"energy_penalty must be >= 0, got {energy_penalty}")
    loss = positive.mean() - negative.mean()
    terms = {"energy_data": positive.detach().mean(), "energy_chains": negative.detach().mean()}
    if energy_penalty:
        loss = loss + energy_penalty * (positive.square().mean() + negative.square().mean())
    return Step(loss, terms)


def latent_guided(
    positive: Float[Tensor, " n"],
    alignment: Float[Tensor, " n"],
    negative: Float[Tensor, " m"],
    *,
    energy_penalty: float = 0.0,
) -> Step:
    """CLEL: mean E(x, z) - mean E⁻, where E(x, z) = E(x) + alignment and z is the image's contrastive embedding.

    The chains' z is drawn from p(z | x), whose mean points along g(f(x)): its part of the gradient is zero, as a unit
    vector's change is orthogonal to it. Lee et al. 2023, arXiv 2303.03023; see `NormHead`.

    Args:
        positive: E of data.
        alignment: E(x, z) - E(x) of data.
        negative: E of where chains ended.
        energy_penalty: As in `maximum_likelihood`.
    """
    marginal = maximum_likelihood(positive, negative, energy_penalty=energy_penalty)
    return Step(marginal.loss + alignment.mean(), marginal.terms | {"alignment": alignment.detach().mean()})


def chain_divergence(
    energy: EnergyFunction,
    x: Float[Tensor, "n ..."],
    freeze: AbstractContextManager[None],
    *,
    step_size: float,
    noise: float,
    others: Float[Tensor, "m ..."] | None = None,
    generator: torch.Generator | None = None,
) -> Step:
    """The term that contrastive divergence leaves out: KL from where chains end to the model, through their last step.

        x' = x - s ∇E_θ(x) + σ ξ,   L = mean E_θ̄(x') - mean log min_j ‖x' - other_j‖

    θ̄ is constant: L lowers the energy that the dynamics reaches by changing the dynamics. The second part is minus the
    nearest-neighbour estimate of the entropy of x', up to constants and the factor of the dimension. Du et al. 2021,
    arXiv 2012.01316, eq. 7 to 9.

    Args:
        energy: E_θ, with its gradient.
        x: Chains before their last step.
        freeze: Entered for E_θ̄: `frozen(networks)`.
        step_size: s.
        noise: σ.
        others: Samples whose distance measures the entropy, e.g. earlier chains; None: the first part alone.
        generator: Of the noise.
    """
    x = x.detach().requires_grad_()
    (gradient,) = torch.autograd.grad(energy(x).sum(), x, create_graph=True)
    moved = x - step_size * gradient + noise * torch.empty_like(x).normal_(generator=generator)
    with freeze:
        loss = energy(moved).mean()
    terms = {"chain_energy": loss.detach()}
    if others is not None:
        nearest = torch.cdist(moved.flatten(1), others.detach().flatten(1)).amin(1)
        entropy = nearest.clamp(min=torch.finfo(x.dtype).eps).log().mean()
        loss = loss - entropy
        terms["chain_entropy"] = entropy.detach()
    return Step(loss, terms)


def geometric_noises(largest: float, smallest: float, levels: int) -> list[float]:
    """σ from the largest to the smallest in equal ratios.

    Raises:
        ValueError: Not largest ≥ smallest > 0, or no level.
    """
    if not (largest >= smallest > 0 and levels >= 1):
        raise ValueError(f"need largest >= smallest > 0 and levels >= 1, got {largest}, {smallest} and {levels}")
    return [largest * (smallest / largest) ** (i / max(1, levels - 1)) for i in range(levels)]


def denoising_score_matching(
    energy: EnergyFunction,
    x: Float[Tensor, "n ..."],
    *,
    noises: list[float],
    generator: torch.Generator | None = None,
) -> Step:
    """L = ½ mean ‖σ ∇E(x + σ ε) - ε‖², with σ drawn for each image from `noises`.

    The score of x + σε given x is -ε/σ and that of the model -∇E, hence the sign. With one σ the optimum is the energy
    of the data smoothed by N(0, σ²), not of the data; with several, one energy for all is a compromise between them (Li
    et al. 2019, arXiv 1910.07762). Vincent 2011; geometric σ as in Song and Ermon 2019, arXiv 1907.05600.

    Args:
        energy: Twice differentiable.
        x: Data; the noisy ones leave [0, 1].
        noises: Values of σ; see `geometric_noises`.
        generator: Of σ and ε.
    """
    levels = torch.tensor(noises, dtype=x.dtype, device=x.device)
    drawn = torch.randint(len(noises), (len(x),), generator=generator, device=x.device)
    sigma = each(levels[drawn], x)
    epsilon = torch.empty_like(x).normal_(generator=generator)
    noisy = (x.detach() + sigma * epsilon).requires_grad_()
    (gradient,) = torch.autograd.grad(energy(noisy).sum(), noisy, create_graph=True)
    loss = (sigma * gradient - epsilon).flatten(1).square().sum(1).mean() / 2
    return Step(loss, {"denoising": loss.detach()})


def sliced_score_matching(
    energy: EnergyFunction,
    x: Float[Tensor, "n ..."],
    *,
    slices: int = 1,
    generator: torch.Generator | None = None,
) -> Step:
    """L = mean ½‖∇E‖² - vᵀ ∇²E v with v = ±1: unbiased for the implicit loss ½‖∇E‖² - tr ∇²E.

    The variance-reduced form of Song et al. 2019, arXiv 1905.07088, eq. 8; the trace is a sum, not divided by d.

    Args:
        energy: Twice differentiable (not ReLU, whose second derivative is zero).
        x: Data.
        slices: Vectors v an image.
        generator: Of v.

    Raises:
        ValueError: There is no slice.
    """
    if slices < 1:
        raise ValueError(f"slices must be >= 1, got {slices}")
    x = x.detach().requires_grad_()
    (gradient,) = torch.autograd.grad(energy(x).sum(), x, create_graph=True)
    squares = gradient.flatten(1).square().sum(1).mean() / 2
    trace = torch.zeros_like(squares)
    for _ in range(slices):
        v = torch.empty_like(x).bernoulli_(generator=generator).mul_(2).sub_(1)
        (product,) = torch.autograd.grad((gradient * v).sum(), x, create_graph=True)
        trace = trace + (product * v).flatten(1).sum(1).mean() / slices
    return Step(squares - trace, {"score_squared": squares.detach(), "score_divergence": -trace.detach()})


def noise_contrastive(
    positive: Float[Tensor, " n"],
    negative: Float[Tensor, " m"],
    positive_log_noise: Float[Tensor, " n"],
    negative_log_noise: Float[Tensor, " m"],
    log_normalizer: Float[Tensor, ""],
) -> Step:
    """Data told from noise by log p_θ - log p_n, where log p_θ = -E - c: at the optimum c = log Z.

        mean softplus(-G(x⁺)) + ν mean softplus(G(x⁻)),   G = -E - c - log p_n - log ν,   ν = m / n

    Gutmann and Hyvärinen 2010, 2012.

    Args:
        positive: E of n data.
        negative: E of m noise samples.
        positive_log_noise: log p_n of the data.
        negative_log_noise: log p_n of the noise samples.
        log_normalizer: c, a parameter.
    """
    ratio = len(negative) / len(positive)
    prior = log_normalizer + math.log(ratio)
    data = F.softplus(positive + prior + positive_log_noise).mean()
    noise = F.softplus(-negative - prior - negative_log_noise).mean()
    loss = data + ratio * noise
    terms = {"energy_data": positive.detach().mean(), "energy_noise": negative.detach().mean()}
    return Step(loss, terms | {"log_normalizer": log_normalizer.detach()})


def conditional_noise_contrastive(
    energy: EnergyFunction,
    x: Float[Tensor, "n ..."],
    *,
    noise: float,
    generator: torch.Generator | None = None,
) -> Step:
    """An image told from its noisy copy: 2 mean softplus(E(x) - E(x + σ ε)); Z cancels, as does the symmetric noise.

    Ceylan and Gutmann 2018, arXiv 1806.03664.

    Args:
        energy: E.
        x: Data.
        noise: σ.
        generator: Of ε.

    Raises:
        ValueError: σ is not positive.
    """
    if not noise > 0:
        raise ValueError(f"noise must be > 0, got {noise}")
    noisy = x + noise * torch.empty_like(x).normal_(generator=generator)
    positive, negative = energy(torch.cat([x, noisy])).chunk(2)
    loss = 2 * F.softplus(positive - negative).mean()
    terms = {"energy_data": positive.detach().mean(), "energy_noise": negative.detach().mean()}
    return Step(loss, terms)

"""Losses whose optimum is known in closed form, on Gaussians and mixtures; signs included."""

import math
from contextlib import contextmanager

import pytest
import torch

from ssl_ebm.generative.heads import NormHead
from ssl_ebm.generative.image_energy import ImageEnergy
from ssl_ebm.generative.losses import BatchForLoss, LatentGuided, MaximumLikelihood, chain_divergence
from ssl_ebm.generative.samplers.chain import energy_and_gradient
from ssl_ebm.generative.samplers.langevin import SGLD
from ssl_ebm.generative.sampling_free import (
    ConditionalNoiseContrastive,
    DenoisingScore,
    NoiseContrastiveDensity,
    SlicedScore,
)
from ssl_ebm.networks.encoder import create_encoder

LOG_2PI = math.log(2 * math.pi)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def data(n, d, variance, seed=0):
    return math.sqrt(variance) * torch.randn(n, d, generator=generator(seed), dtype=torch.float64)


def parameter(value):
    return torch.tensor(float(value), dtype=torch.float64, requires_grad=True)


def gaussian(a):
    return lambda x: a * x.square().flatten(1).sum(1) / 2


def batch(energy, x, **parts):
    return BatchForLoss(energy=energy, x=x, positive=energy(x), **parts)


def batch_of_chains(energy, chains, **parts):
    return batch(energy, chains[:1], chains=chains, negative=energy(chains), **parts)


def likelihood(positive, negative, **constants):
    """The loss of energies alone."""
    return MaximumLikelihood(**constants)(batch(lambda x: x, positive, chains=negative, negative=negative))


def minimise(loss, parameters, steps=30):
    """L-BFGS; the parameters' values at the minimum."""
    optimizer = torch.optim.LBFGS(
        parameters, max_iter=steps, line_search_fn="strong_wolfe", tolerance_grad=1e-10, tolerance_change=1e-13
    )

    def closure():
        optimizer.zero_grad()
        value = loss()
        value.backward()
        return value

    optimizer.step(closure)
    return [p.item() for p in parameters]


def test_maximum_likelihood_is_the_difference_of_means_and_its_penalty():
    positive, negative = torch.tensor([1.0, 3.0]), torch.tensor([-1.0, 0.0, 4.0])
    assert float(likelihood(positive, negative).loss) == 1.0
    step = likelihood(positive, negative, energy_penalty=0.1)
    assert float(step.loss) == pytest.approx(1 + 0.1 * (5 + 17 / 3))
    assert {name: float(term) for name, term in step.terms.items()} == {"energy_data": 2.0, "energy_chains": 1.0}


def test_its_gradient_is_that_of_the_likelihood():
    """With exact samples of a Gaussian model: d/da of -log p is (mean x² - 1/a)/2."""
    a, x = parameter(0.8), data(300_000, 1, 1.7)
    chains = data(300_000, 1, 1 / 0.8, seed=1)
    likelihood(gaussian(a)(x), gaussian(a)(chains)).loss.backward()
    exact = float(x.square().mean() - 1 / 0.8) / 2
    assert abs(a.grad.item() - exact) < 5 * math.sqrt(2 / 300_000) / 0.8 / 2 and a.grad.item() > 0.1


@pytest.mark.parametrize("k", [1, 3, 10])
def test_contrastive_divergence_has_the_fixed_point_of_its_biased_chain(k):
    """a (1 - α a/4) = 1/s² for every k: the chain's stationary variance, not the model's, becomes that of the data."""
    alpha, variance, n = 0.5, 1.7, 200_000
    x = data(n, 1, variance)
    x = x / x.std(correction=0) * math.sqrt(variance)
    x = x - x.mean()

    def slope(value):
        a = parameter(value)
        chains = SGLD.proper(alpha, steps=k, limits=None)(gaussian(a.detach()), x, generator=generator(3)).x
        likelihood(gaussian(a)(x), gaussian(a)(chains)).loss.backward()
        return a.grad.item()

    low, high = 0.3, 1.2
    assert slope(low) < 0 < slope(high)
    for _ in range(14):
        middle = (low + high) / 2
        low, high = (middle, high) if slope(middle) < 0 else (low, middle)
    expected = (1 - math.sqrt(1 - alpha / variance)) * 2 / alpha
    assert expected == pytest.approx(0.6393, abs=1e-4)
    assert abs(low - expected) < 0.02 and abs(low - 1 / variance) > 0.03


def test_the_chains_divergence_is_the_closed_form_through_the_last_step():
    """E = a x²/2, x' = (1 - s a) x: L = ā (1 - s a)² mean x² / 2, so dL/da = -ā s (1 - s a) mean x²."""
    a, x, s = parameter(0.7), data(50, 3, 1.0), 0.2
    entered = []

    @contextmanager
    def freeze():
        entered.append(a.requires_grad)
        a.requires_grad_(False)
        yield
        a.requires_grad_(True)

    step = chain_divergence(batch_of_chains(gaussian(a), x, freeze=freeze, step_size=s))
    squares = float(x.square().sum(1).mean())
    assert entered == [True]
    assert float(step.terms["chain_energy"]) == pytest.approx(0.7 * (1 - s * 0.7) ** 2 * squares / 2)
    step.loss.backward()
    assert a.grad.item() == pytest.approx(-0.7 * s * (1 - s * 0.7) * squares)


def test_the_chains_entropy_is_that_of_their_nearest_neighbours():
    a, x = parameter(0.7), data(5, 2, 1.0)
    others = data(4, 2, 1.0, seed=1)
    with_entropy = chain_divergence(batch_of_chains(gaussian(a), x, step_size=0.1, past=others))
    without = chain_divergence(batch_of_chains(gaussian(a), x, step_size=0.1))
    moved = (1 - 0.1 * 0.7) * x
    entropy = sum(min(math.log((m - o).norm().item()) for o in others) for m in moved) / 5
    assert float(with_entropy.terms["chain_entropy"]) == pytest.approx(entropy)
    assert float((without.loss - with_entropy.loss).detach()) == pytest.approx(entropy)


@pytest.mark.parametrize(("d", "sigma"), [(2, 0.5), (8, 0.3)])
def test_denoising_score_matching_finds_the_smoothed_density_with_its_sign(d, sigma):
    a, x = parameter(0.1), data(200_000 // d, d, 1.7)
    x = x / x.square().mean().sqrt() * math.sqrt(1.7)
    loss = DenoisingScore(largest=sigma, smallest=sigma, levels=1)
    found = minimise(lambda: loss(batch(gaussian(a), x, generator=generator(1))).loss, [a])
    expected = 1 / (1.7 + sigma**2)
    assert found[0] == pytest.approx(expected, rel=0.02)  # positive: an inverted sign gives -expected
    assert expected != pytest.approx(1 / 1.7, rel=0.04)


def test_denoising_draws_every_noise():
    """One energy for two noises: the least-squares mean of both, Σ σ² / Σ σ² (s² + σ²)."""
    a, x = parameter(0.1), data(200_000, 1, 1.0)
    loss = DenoisingScore(largest=1.0, smallest=0.25, levels=3)
    assert loss.noises == pytest.approx([1.0, 0.5, 0.25])
    found = minimise(lambda: loss(batch(gaussian(a), x, generator=generator(1))).loss, [a])
    squares = [s**2 for s in loss.noises]
    expected = sum(squares) / sum(s * (1 + s) for s in squares)
    assert found[0] == pytest.approx(expected, rel=0.02)


@pytest.mark.parametrize("d", [2, 8])
def test_sliced_score_matching_finds_the_density_itself(d):
    a, x = parameter(0.1), data(20_000, d, 1.7)
    loss = SlicedScore(slices=2)
    found = minimise(lambda: loss(batch(gaussian(a), x, generator=generator(1))).loss, [a])
    assert found[0] == pytest.approx(1 / float(x.square().mean()), rel=0.02)


def test_slices_give_the_trace_of_the_hessian():
    """The mean over all v = ±1 is ½‖∇E‖² - tr ∇²E, for an energy that is not quadratic."""

    def energy(x):
        return x.pow(4).sum(1) + (x[:, 0] * x[:, 1]).square()

    x = data(6, 2, 1.0)
    step = SlicedScore(slices=4000)(batch(energy, x, generator=generator(1)))
    gradient = torch.stack(
        [4 * x[:, 0] ** 3 + 2 * x[:, 0] * x[:, 1] ** 2, 4 * x[:, 1] ** 3 + 2 * x[:, 1] * x[:, 0] ** 2]
    )
    trace = 12 * x.square().sum(1) + 2 * x.square().sum(1)
    exact = float(gradient.square().sum(0).mean() / 2 - trace.mean())
    spread = float((8 * x[:, 0] * x[:, 1]).abs().mean())  # off-diagonal of the Hessian, twice
    assert abs(step.loss.item() - exact) < 5 * spread / math.sqrt(4000)


def test_noise_contrastive_estimation_finds_precision_and_normaliser():
    x, noise = data(200_000, 1, 2.25), data(200_000, 1, 4.0, seed=1)
    a, c = parameter(1.0), parameter(0.0)

    def log_noise(x):
        return -x.square()[:, 0] / 8 - (LOG_2PI + math.log(4)) / 2

    def loss():
        e = gaussian(a)
        return NoiseContrastiveDensity.against(e(x), e(noise), log_noise(x), log_noise(noise), c).loss

    precision, normaliser = minimise(loss, [a, c])
    assert abs(precision - 0.4444) < 0.02 and abs(normaliser - 1.3244) < 0.02
    assert (LOG_2PI + math.log(2.25)) / 2 == pytest.approx(1.3244, abs=1e-4)


def test_noise_contrastive_estimation_with_more_noise_than_data():
    x, noise = data(100_000, 1, 2.25), data(300_000, 1, 4.0, seed=1)
    a, c = parameter(1.0), parameter(0.0)

    def log_noise(x):
        return -x.square()[:, 0] / 8 - (LOG_2PI + math.log(4)) / 2

    e = gaussian(a)
    found = minimise(
        lambda: NoiseContrastiveDensity.against(e(x), e(noise), log_noise(x), log_noise(noise), c).loss, [a, c]
    )
    assert found == pytest.approx([0.4444, 1.3244], abs=0.02)


def test_conditional_noise_contrastive_estimation_needs_no_normaliser():
    a, x = parameter(0.2), data(200_000, 1, 2.25)
    loss = ConditionalNoiseContrastive(noise=1.0)
    shifted = minimise(lambda: loss(batch(lambda x: gaussian(a)(x) + 5.0, x, generator=generator(1))).loss, [a])
    assert shifted[0] == pytest.approx(0.4444, abs=0.02)
    flat = loss(batch(lambda x: 0 * x.sum(1), x))
    assert float(flat.loss) == pytest.approx(2 * math.log(2))


def test_the_score_of_a_mixture_is_the_known_one():
    means = torch.tensor([[-1.0, 0.5], [2.0, 1.0], [0.0, -2.0]], dtype=torch.float64)
    variances = torch.tensor([0.5, 1.0, 0.25], dtype=torch.float64)
    weights = torch.tensor([0.2, 0.5, 0.3], dtype=torch.float64)

    def energy(x):
        squares = (x[:, None] - means).square().sum(2)
        return -(weights.log() - squares / (2 * variances) - (2 * math.pi * variances).log()).logsumexp(1)

    x = data(40, 2, 4.0)
    responsibilities = torch.softmax(
        weights.log() - (x[:, None] - means).square().sum(2) / (2 * variances) - variances.log(), dim=1
    )
    exact = (responsibilities[:, :, None] * (x[:, None] - means) / variances[:, None]).sum(1)
    assert (energy_and_gradient(energy, x)[1] - exact).abs().max() < 1e-12


def test_noise_contrastive_estimation_in_a_run_is_against_uniform_noise():
    """Of a flat energy E = e on [0, 1]², at any c: softplus(e + c) + softplus(-e - c), least at c = log Z = -e."""
    x, c = torch.rand(50, 2, dtype=torch.float64), parameter(0.3)
    step = NoiseContrastiveDensity()(batch(lambda x: 0 * x.sum(1) + 0.7, x, log_normalizer=c))
    assert float(step.loss.detach()) == pytest.approx(math.log1p(math.exp(1.0)) + math.log1p(math.exp(-1.0)))
    assert set(step.terms) == {"energy_data", "energy_noise", "log_normalizer"}


def clel(features, latent, chains):
    """The norm head, and a batch with its energies of features."""
    head = NormHead(2, latent=3, concentration=0.5).double()
    energy = ImageEnergy(create_encoder("rbm", image_size=2, img_size=2), torch.nn.Identity(), head)
    return head, BatchForLoss(
        energy=energy,
        x=torch.rand(2, 3, 2, 2),
        positive=head(features),
        embedding=features,
        latent=latent,
        chains=torch.rand(1, 3, 2, 2),
        negative=head(chains),
    )


def test_latent_guided_adds_the_alignment():
    features, latent, chains = data(2, 2, 1.0), data(2, 3, 1.0, seed=1), data(1, 2, 1.0, seed=2)
    head, full = clel(features, latent, chains)
    cosines = torch.nn.functional.cosine_similarity(head.direction(features), latent)
    gap = features.square().sum(1).mean() / 2 - chains.square().sum() / 2
    step = LatentGuided()(full)
    assert float(step.loss.detach()) == pytest.approx(float((gap - 0.5 * cosines.mean()).detach()))
    assert set(step.terms) == {"energy_data", "energy_chains", "alignment"}
    penalty = LatentGuided(energy_penalty=0.1)(full).loss - step.loss
    squares = full.positive.square().mean() + full.negative.square().mean()
    assert float(penalty.detach()) == pytest.approx(0.1 * float(squares.detach()))


def test_losses_are_scalars_with_detached_terms():
    a, x = parameter(0.7), data(6, 3, 1.0)
    e, chains = gaussian(a), {"step_size": 0.1, "noise": 0.1, "past": x + 1}
    full = batch(e, x, chains=x + 1, negative=e(x + 1), log_normalizer=parameter(0.0), **chains)
    losses = [
        MaximumLikelihood(energy_penalty=0.1, divergence_weight=0.5),
        *(DenoisingScore(), SlicedScore(), NoiseContrastiveDensity(), ConditionalNoiseContrastive()),
    ]
    steps = [chain_divergence(full), *(loss(full) for loss in losses)]
    steps.append(LatentGuided()(clel(data(2, 2, 1.0), data(2, 3, 1.0), data(1, 2, 1.0))[1]))
    for step in steps:
        assert step.loss.shape == () and step.loss.requires_grad and step.terms
        assert all(term.shape == () and not term.requires_grad for term in step.terms.values())


def test_mistakes_are_named():
    for loss in (MaximumLikelihood, LatentGuided):
        with pytest.raises(ValueError, match="energy_penalty must be >= 0, got -1"):
            loss(energy_penalty=-1.0)
    with pytest.raises(ValueError, match="largest >= smallest > 0"):
        DenoisingScore(largest=0.1, smallest=0.2, levels=3)
    with pytest.raises(ValueError, match="slices must be >= 1, got 0"):
        SlicedScore(slices=0)
    with pytest.raises(ValueError, match="noise must be > 0, got 0"):
        ConditionalNoiseContrastive(noise=0.0)

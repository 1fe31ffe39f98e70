"""The RBM against the enumeration of all its states, and log Z by annealing against log Z by enumeration."""

import math

import pytest
import torch

from ssl_ebm.generative.log_partition import gaussian_log_partition, linear_path, rbm_log_partition
from ssl_ebm.generative.losses import BatchForLoss, MaximumLikelihood
from ssl_ebm.generative.rbm.machine import RBM, all_states
from ssl_ebm.generative.samplers.metropolis import HMC, MALA


def machine(visible, hidden, *, spread=0.7, seed=0):
    generator = torch.Generator().manual_seed(seed)
    rbm = RBM(visible, hidden, spread=spread, generator=generator).double()
    with torch.no_grad():
        for bias in (rbm.visible_bias, rbm.hidden_bias):
            bias.normal_(0, 0.5, generator=generator)
    return rbm


def states(units):
    return all_states(units).double()


def exact(rbm):
    """p(v, h) of every pair by the sum over all of them, in loops over states."""
    v, h = states(rbm.weight.shape[0]), states(rbm.weight.shape[1])
    energies = torch.stack([rbm.energy(one.expand(len(h), -1), h) for one in v])
    return v, h, energies, (-energies).flatten().softmax(0).view_as(energies)


def test_states_are_all_and_in_order():
    assert all_states(3).tolist() == [[float(c) for c in f"{n:03b}"] for n in range(8)]


@pytest.mark.parametrize("shape", [(6, 4), (3, 5)])
def test_free_energy_and_log_partition_are_the_enumerated_ones(shape):
    rbm = machine(*shape)
    v, h, energies, _ = exact(rbm)
    with torch.no_grad():
        one = -(v[5] @ rbm.weight @ h[3]) - v[5] @ rbm.visible_bias - h[3] @ rbm.hidden_bias
        assert torch.allclose(energies[5, 3], one, atol=1e-14)
        assert torch.allclose(rbm(v), -(-energies).logsumexp(1), atol=1e-12)
        assert torch.allclose(rbm.log_partition(), (-energies).flatten().logsumexp(0), atol=1e-12)
        odds = torch.linspace(-1, 1, shape[0], dtype=torch.float64)
        tempered = -(-0.3 * energies + 0.7 * (v @ odds)[:, None]).logsumexp(1)
        assert torch.allclose(rbm.tempered(0.3, odds)(v), tempered, atol=1e-12)
        assert torch.allclose(rbm.tempered(0.3)(v), -(-0.3 * energies).logsumexp(1), atol=1e-12)
        assert torch.allclose(rbm(v), -(-energies).logsumexp(1), atol=1e-12)  # and the machine itself is as it was


def test_the_gibbs_kernel_has_the_model_as_its_stationary_density():
    rbm = machine(6, 4)
    v, h, _, joint = exact(rbm)
    with torch.no_grad():

        def table(probability, outcomes):
            return torch.stack([(probability * o + (1 - probability) * (1 - o)).prod(1) for o in outcomes], 1)

        kernel = table(rbm.hidden_probability(v), h) @ table(rbm.visible_probability(h), v)
    marginal = joint.sum(1)
    assert (marginal @ kernel - marginal).abs().max() < 1e-14
    assert (kernel.sum(1) - 1).abs().max() < 1e-14


def chi_square_p(counts, probability):
    """Upper tail of χ²; cells of fewer than 5 expected counts are pooled."""
    expected = probability * counts.sum()
    order = expected.argsort()
    counts, expected = counts[order].double(), expected[order]
    small = int((expected < 5).sum())
    if small:
        counts = torch.cat([counts[:small].sum()[None], counts[small:]])
        expected = torch.cat([expected[:small].sum()[None], expected[small:]])
    statistic = ((counts - expected).square() / expected).sum()
    freedom = torch.tensor((len(counts) - 1) / 2, dtype=torch.float64)
    return float(torch.special.gammaincc(freedom, statistic / 2))


def number(v):
    return (v * 2 ** torch.arange(v.shape[1] - 1, -1, -1)).sum(1).long()


def test_gibbs_keeps_exact_samples_exact():
    rbm, generator = machine(6, 4), torch.Generator().manual_seed(1)
    v, _, _, joint = exact(rbm)
    marginal = joint.sum(1).detach()
    start = v[torch.multinomial(marginal, 200_000, replacement=True, generator=generator)]
    moved = rbm.gibbs(start, sweeps=20, generator=generator)
    counts = torch.bincount(number(moved), minlength=64)
    assert chi_square_p(counts, marginal) > 1e-4
    assert chi_square_p(counts, (2 * marginal).softmax(0)) < 1e-4  # the test sees another density
    assert float((moved != start).double().mean()) > 0.2


def test_the_gradient_of_log_partition_is_minus_the_moments():
    rbm = machine(6, 4)
    v, h, _, joint = exact(rbm)
    gradients = torch.autograd.grad(rbm.log_partition(), (rbm.weight, rbm.visible_bias, rbm.hidden_bias))
    moments = (torch.einsum("ab,ai,bj->ij", joint, v, h), joint.sum(1) @ v, joint.sum(0) @ h)
    for gradient, moment in zip(gradients, moments, strict=True):
        assert (gradient - moment).abs().max() < 1e-12


def test_persistent_contrastive_divergence_learns_bars():
    """Two patterns of eight units: the exact log-likelihood comes near that of two equal states, -log 2."""
    generator = torch.Generator().manual_seed(0)
    rbm = RBM(8, 4, generator=generator)
    data = torch.tensor([[1.0] * 4 + [0.0] * 4, [0.0] * 4 + [1.0] * 4]).repeat(16, 1)
    chains = torch.bernoulli(torch.full((64, 8), 0.5), generator=generator)
    optimizer = torch.optim.SGD(rbm.parameters(), lr=0.2)
    for _ in range(400):
        chains = rbm.gibbs(chains, generator=generator)
        batch = BatchForLoss(energy=rbm, x=data, positive=rbm(data), chains=chains, negative=rbm(chains))
        step = MaximumLikelihood()(batch)
        optimizer.zero_grad()
        step.loss.backward()
        optimizer.step()
    likelihood = float((-rbm(data) - rbm.log_partition()).mean().detach())
    assert -1.2 < likelihood < -math.log(2)


@pytest.mark.parametrize("on", [None, torch.linspace(0.2, 0.9, 8)])
def test_annealed_importance_sampling_finds_log_partition(on):
    rbm = machine(8, 5, spread=1.0)
    estimate = rbm_log_partition(rbm, chains=1000, on=on, generator=torch.Generator().manual_seed(0))
    assert abs(estimate.value - float(rbm.log_partition().detach())) < 5 * estimate.standard_error < 0.5
    assert 100 < estimate.effective_samples <= 1000
    coarse = rbm_log_partition(rbm, chains=1000, betas=[0.0, 1.0], generator=torch.Generator().manual_seed(0))
    assert coarse.effective_samples < estimate.effective_samples


@pytest.mark.parametrize(
    "transition", [MALA(step_size=0.1, steps=2, limits=None), HMC(step_size=0.3, leapfrog=4, steps=1, limits=None)]
)
def test_annealed_importance_sampling_of_a_gaussian_in_ten_dimensions(transition):
    precision = torch.linspace(0.5, 4, 10, dtype=torch.float64)
    estimate = gaussian_log_partition(
        lambda x: ((x - 0.5).square() * precision).sum(1) / 2 + 3.0,
        (10,),
        spread=1.5,
        chains=1000,
        betas=linear_path(200),
        transition=transition,
        generator=torch.Generator().manual_seed(0),
    )
    expected = 5 * math.log(2 * math.pi) - float(precision.log().sum()) / 2 - 3.0
    assert abs(estimate.value - expected) < 0.08 and estimate.standard_error < 0.05


def test_mistakes_are_named():
    with pytest.raises(ValueError, match="visible and hidden must be >= 1, got 0"):
        RBM(0, 3)
    with pytest.raises(ValueError, match="sweeps must be >= 1, got 0"):
        machine(3, 2).gibbs(states(3), sweeps=0)
    with pytest.raises(ValueError, match="enumerated up to 20 units.*log_partition.rbm_log_partition"):
        RBM(30, 25).log_partition()
    with pytest.raises(ValueError, match="betas must rise from 0 to 1, got 2 values from 0 to 0.5"):
        rbm_log_partition(machine(3, 2), betas=[0.0, 0.5])
    with pytest.raises(ValueError, match="temperatures must be >= 1"):
        linear_path(0)
    with pytest.raises(ValueError, match="limits=None, got"):
        gaussian_log_partition(lambda x: x.sum(1), (2,), transition=MALA(step_size=0.1))
    with pytest.raises(ValueError, match="spread must be > 0, got 0"):
        gaussian_log_partition(lambda x: x.sum(1), (2,), spread=0.0, transition=MALA(step_size=0.1, limits=None))

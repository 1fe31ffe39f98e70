"""Heads against loops and closed forms, and the identities that tie them to the rest of the library."""

import math

import pytest
import torch

from ssl_ebm.energies.labels import LabelEnergy
from ssl_ebm.energies.pairwise import Cosine, SquaredEuclidean
from ssl_ebm.energies.rows import Paired
from ssl_ebm.evaluation.probes.linear import logistic_regression
from ssl_ebm.generative.heads import JointHead, LogitsHead, NormHead, ScalarHead
from ssl_ebm.objectives.parts.contrasts import InfoNCE


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_the_scalar_head_is_its_layers():
    torch.manual_seed(0)
    head, h = ScalarHead(5, hidden=(4, 3)).double(), normal(6, 5)
    first, second, last = (head.layers[i] for i in (0, 2, 4))
    for i in range(6):
        x = h[i]
        for layer in (first, second):
            x = layer.weight @ x + layer.bias
            x = x * torch.sigmoid(x)
        assert torch.allclose(head(h)[i], (last.weight @ x + last.bias)[0], atol=1e-14)
    assert ScalarHead(5, hidden=())(torch.rand(2, 5)).shape == (2,)
    with pytest.raises(ValueError, match=r"widths must be >= 1, got \(5, 0\)"):
        ScalarHead(5, hidden=(0,))


@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_the_logits_head_sums_labels_out(temperature):
    logits = normal(6, 4)
    head, energy = LogitsHead(temperature=temperature), LabelEnergy(temperature=temperature)
    for i in range(6):
        energies = [-float(logits[i, y]) / temperature for y in range(4)]
        partition = sum(math.exp(-e) for e in energies)
        assert float(head(logits)[i]) == pytest.approx(-math.log(partition))
        for y in range(4):
            label = torch.full((6,), y)
            assert float(energy.energy(logits, label)[i]) == pytest.approx(energies[y])
            assert float(energy.log_probability(logits)[i, y]) == pytest.approx(-energies[y] - math.log(partition))
    with pytest.raises(ValueError, match="temperature must be > 0, got 0"):
        LabelEnergy(temperature=0.0)


def test_a_constant_moves_the_free_energy_and_not_the_classifier():
    logits, energy = normal(6, 4), LabelEnergy()
    assert torch.allclose(energy.log_probability(logits + 3), energy.log_probability(logits), atol=1e-14)
    assert torch.allclose(energy.free_energy(logits + 3), energy.free_energy(logits) - 3, atol=1e-14)


def test_the_linear_probe_is_a_label_energy_fitted_by_maximum_likelihood():
    """Its solver's objective is ½‖W‖² + C Σ [E(x, y) - F(x)]: at the solution, that gradient is zero."""
    x, labels, strength = normal(90, 5), torch.arange(90) % 3, 0.7
    x = (x - x.mean(0)) / x.std(0, correction=0)
    fit = logistic_regression(x, labels, [strength], classes=3, tolerance=1e-10)
    weight, bias = (part[0].clone().requires_grad_() for part in (fit.weights, fit.intercepts))
    logits, energy = x @ weight.T + bias, LabelEnergy()
    loss = weight.square().sum() / 2 + strength * (energy.energy(logits, labels) - energy.free_energy(logits)).sum()
    for gradient in torch.autograd.grad(loss, (weight, bias)):
        assert gradient.abs().max() < 1e-7


@pytest.mark.parametrize("energy", [Cosine(temperature=0.1), SquaredEuclidean(normalize=True)])
def test_the_joint_head_is_the_marginal_over_a_batch(energy):
    z, bank, tau = normal(5, 3), normal(7, 3, seed=1), 0.3
    head = JointHead(energy, temperature=tau)
    for i in range(5):
        total = sum(math.exp(-float(energy.paired(z[i : i + 1], bank[j : j + 1])[0]) / tau) for j in range(7))
        assert float(head(z, bank)[i]) == pytest.approx(-math.log(total))
    assert not list(head.parameters())
    with pytest.raises(ValueError, match="temperature must be > 0, got -1"):
        JointHead(energy, temperature=-1.0)


def test_infonce_is_the_likelihood_of_the_view_given_the_image():
    """softmax(-E)'s negative log-likelihood, E(x, x') - E(x), is InfoNCE: the bridge between both halves."""
    energy, z, bank = Cosine(temperature=0.1), normal(6, 4), normal(6, 4, seed=1)
    likelihood = energy.paired(z, bank) - JointHead(energy)(z, bank)
    others = ~torch.eye(6, dtype=torch.bool)
    matrix = energy.cross(z, bank)
    for i in range(6):
        row = torch.softmax(-matrix[i], 0)
        assert float(likelihood[i]) == pytest.approx(-math.log(float(row[i])), abs=1e-9)
    negatives = torch.stack([matrix[i][others[i]] for i in range(6)])
    infonce = InfoNCE()(Paired(energy.paired(z, bank)[:, None]), Paired(negatives))
    assert (infonce - likelihood).abs().max() < 1e-6


def log_sphere_integral(direction, concentration):
    """log ∫ exp(β ⟨g, z⟩) dz over the unit sphere in three dimensions, on a grid that knows nothing of g."""
    t = (torch.arange(400, dtype=torch.float64) + 0.5) * torch.pi / 400
    p = (torch.arange(800, dtype=torch.float64) + 0.5) * 2 * torch.pi / 800
    sine, cosine = t.sin()[:, None], t.cos()[:, None].expand(-1, 800)
    z = torch.stack([sine * p.cos(), sine * p.sin(), cosine], dim=2)
    values = torch.exp(concentration * z @ direction) * sine
    return (values.sum() * (torch.pi / 400) * (2 * torch.pi / 800)).log()


def test_the_normaliser_over_the_sphere_does_not_depend_on_the_image():
    """So the marginal of CLEL's p(x, z) over z is exp(-½‖f‖²) up to a constant: log(4π sinh β / β) in 3 dimensions."""
    torch.manual_seed(0)
    head, f, beta = NormHead(5, latent=3, concentration=2.0).double(), normal(8, 5), 2.0
    assert torch.allclose(head(f), torch.tensor([float(x @ x) / 2 for x in f], dtype=torch.float64), atol=1e-14)
    expected = math.log(4 * math.pi * math.sinh(beta) / beta)
    with torch.no_grad():
        for i in range(8):
            g = torch.nn.functional.normalize(head.direction(f[i : i + 1]), dim=1)[0]
            assert float(log_sphere_integral(g, beta)) == pytest.approx(expected, abs=1e-4)
        z = normal(8, 3, seed=1)
        for i in range(8):
            g, unit = torch.nn.functional.normalize(head.direction(f), dim=1)[i], z[i] / z[i].norm()
            assert float(head.alignment(f, z)[i]) == pytest.approx(-beta * float(g @ unit))
    with pytest.raises(ValueError, match="latent must be >= 2"):
        NormHead(5, latent=1)

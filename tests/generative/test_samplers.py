"""Samplers against densities that are known: stationary moments, invariance, and what they must leave alone."""

import math

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from ssl_ebm.generative.samplers.chain import energy_and_gradient, require_images
from ssl_ebm.generative.samplers.langevin import SGLD, AnnealedSGLD
from ssl_ebm.generative.samplers.metropolis import HMC, MALA

CHAINS = 200_000
SIGMAS = 5 * math.sqrt(2 / CHAINS)  # five standard errors of a variance, relative


def quadratic(k=1.0):
    return lambda x: k * x.square().flatten(1).sum(1) / 2


def double_well(x):
    return 2 * (x.square() - 1).square().flatten(1).sum(1)


def normal(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def generator(seed=1):
    return torch.Generator().manual_seed(seed)


def exact_double_well(count, seed=0):
    """Samples by inversion of the quadrature's distribution function."""
    grid = torch.linspace(-3, 3, 400_001, dtype=torch.float64)
    density = (-double_well(grid[:, None])).exp()
    cdf = torch.cumulative_trapezoid(density, grid)
    cdf = torch.cat([cdf.new_zeros(1), cdf]) / cdf[-1]
    uniform = torch.rand(count, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    above = torch.searchsorted(cdf, uniform).clamp(1, len(grid) - 1)
    share = (uniform - cdf[above - 1]) / (cdf[above] - cdf[above - 1]).clamp(min=1e-300)
    second = torch.trapezoid(density * grid.square(), grid) / torch.trapezoid(density, grid)
    return (grid[above - 1] + share * (grid[1] - grid[0]))[:, None], float(second)


@pytest.mark.parametrize(("k", "alpha"), [(1.0, 0.2), (2.5, 0.2)])
def test_the_bias_of_langevin_is_the_known_one(k, alpha):
    sampler = SGLD.proper(alpha, steps=300, limits=None)
    assert sampler.temperature == pytest.approx(1)
    variance = float(sampler(quadratic(k), normal(CHAINS, 1), generator=generator()).x.var())
    expected = 1 / (k * (1 - alpha * k / 4))
    assert abs(variance / expected - 1) < SIGMAS
    assert abs(variance * k - 1) > SIGMAS  # the variance of the density itself is rejected
    assert k != 1 or expected == pytest.approx(1.0526, abs=1e-4)


def test_a_step_beyond_the_stable_ones_diverges():
    at_the_edge = SGLD.proper(4.1, steps=300, limits=None)
    assert float(at_the_edge(quadratic(), normal(100, 1), generator=generator()).x.abs().max()) > 1e6
    stable = SGLD.proper(3.9, steps=300, limits=None)
    assert float(stable(quadratic(), normal(100, 1), generator=generator()).x.abs().max()) < 1e3


@pytest.mark.parametrize(("step_size", "noise", "k"), [(0.1, 0.05, 1.0), (0.5, 0.1, 2.0)])
def test_a_tempered_chain_has_the_variance_of_its_recursion(step_size, noise, k):
    sampler = SGLD(step_size=step_size, noise=noise, steps=120, limits=None)
    variance = float(sampler(quadratic(k), normal(CHAINS, 1), generator=generator()).x.var())
    assert abs(variance * (1 - (1 - step_size * k) ** 2) / noise**2 - 1) < SIGMAS
    assert sampler.temperature == noise**2 / (2 * step_size)


def test_an_annealed_chain_has_the_variance_of_its_recursion():
    sampler = AnnealedSGLD(step_sizes=(0.5, 0.05), noises=(0.8, 0.1), steps=12, limits=None)
    expected = 1.0
    for k in range(12):
        step_size, noise = 0.5 * 0.1 ** (k / 11), 0.8 * 0.125 ** (k / 11)
        expected = (1 - step_size) ** 2 * expected + noise**2
    variance = float(sampler(quadratic(), normal(CHAINS, 1), generator=generator()).x.var())
    assert abs(variance / expected - 1) < SIGMAS
    assert sampler.temperature == pytest.approx(0.1**2 / 0.1)


def test_young_chains_are_noisier():
    """EBCLR's schedule: .01 + .04 max(1 - age/3, 0)."""
    sampler = SGLD(step_size=1e-9, noise=0.01, young_noise=0.05, mature=3.0, steps=1, limits=None)
    age = torch.arange(5).repeat_interleave(40_000)
    moves = sampler(quadratic(), torch.zeros(len(age), 1, dtype=torch.float64), age=age, generator=generator()).x
    spreads = moves.view(5, -1).std(1)
    expected = torch.tensor([0.01 + 0.04 * max(1 - c / 3, 0) for c in range(5)])
    assert ((spreads / expected - 1).abs() < 5 / math.sqrt(2 * 40_000)).all()


def test_adjusted_chains_keep_a_normal_density_where_langevin_does_not():
    start = normal(40_000, 2)
    error = 5 * math.sqrt(2 / start.numel())
    adjusted = MALA(step_size=0.5, steps=40, limits=None)(quadratic(), start, generator=generator())
    assert abs(float(adjusted.x.var()) - 1) < error and 0.5 < float(adjusted.acceptance) < 1
    plain = SGLD.proper(1.0, steps=40, limits=None)(quadratic(), start, generator=generator())
    assert abs(float(plain.x.var()) - 4 / 3) < 4 / 3 * error


@pytest.mark.parametrize("sampler", [MALA(step_size=0.05, steps=30), HMC(step_size=0.2, leapfrog=5, steps=8)])
def test_adjusted_chains_reach_a_normal_density_from_elsewhere(sampler):
    sampler = type(sampler)(**{**vars(sampler), "limits": None, "steps": 150})
    x = sampler(quadratic(4.0), torch.full((10_000, 2), 1.5, dtype=torch.float64), generator=generator()).x
    assert abs(float(x.var()) * 4 - 1) < 5 * math.sqrt(2 / x.numel())
    assert abs(float(x.mean())) < 5 / math.sqrt(4 * x.numel())


@pytest.mark.parametrize(
    "sampler",
    [MALA(step_size=0.08, steps=20, limits=None), HMC(step_size=0.25, leapfrog=4, steps=6, limits=None)],
)
def test_adjusted_chains_leave_the_double_well_invariant(sampler):
    start, second_moment = exact_double_well(100_000)
    assert second_moment == pytest.approx(0.85214, abs=1e-5)
    chains = sampler(double_well, start, generator=generator())
    squares = chains.x.square()
    assert abs(float(squares.mean()) - second_moment) < 5 * float(squares.std()) / math.sqrt(len(squares))
    assert 0.3 < float(chains.acceptance) < 0.999
    langevin = SGLD.proper(0.05, steps=20, limits=None)(double_well, start, generator=generator()).x.square()
    assert abs(float(langevin.mean()) - second_moment) > 5 * float(squares.std()) / math.sqrt(len(squares))


@pytest.mark.parametrize("sampler", [MALA(step_size=0.05, steps=60), HMC(step_size=0.2, leapfrog=4, steps=30)])
def test_adjusted_chains_keep_a_density_on_a_box(sampler):
    """Uniform on [0, 1]²: what leaves the box is rejected, not clamped to its walls."""
    start = torch.rand(20_000, 2, generator=generator(), dtype=torch.float64)
    x = sampler(lambda x: 0 * x.sum(1), start, generator=generator(2)).x
    assert float(x.min()) > 0 and float(x.max()) < 1
    assert abs(float(x.var()) * 12 - 1) < 5 * math.sqrt(0.8 / x.numel())


def test_hmc_with_one_leapfrog_is_mala():
    """The same proposals and acceptance for s = ε²/2 and momenta that are MALA's noise."""
    start, epsilon = normal(50, 3), 0.6
    mala = MALA(step_size=epsilon**2 / 2, steps=4, limits=None)(double_well, start, generator=generator())
    hmc = HMC(step_size=epsilon, leapfrog=1, steps=4, limits=None)(double_well, start, generator=generator())
    assert torch.allclose(mala.x, hmc.x, atol=1e-12) and float(mala.acceptance) == float(hmc.acceptance) < 1


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 4, 3, 2), nn.GroupNorm(2, 4), nn.SiLU(), nn.Flatten(), nn.Linear(36, 1)).double()


def test_the_gradient_of_a_batch_is_that_of_each_image():
    net, x = network(), torch.rand(5, 1, 8, 8, dtype=torch.float64)
    values, gradients = energy_and_gradient(lambda x: net(x)[:, 0], x)
    for i in range(5):
        alone = x[i : i + 1].clone().requires_grad_()
        value = net(alone)[0, 0]
        assert torch.allclose(gradients[i], torch.autograd.grad(value, alone)[0][0], atol=1e-14)
        assert torch.allclose(values[i], value, atol=1e-14)


SAMPLERS = [
    SGLD(step_size=10.0, noise=0.005, steps=3),
    AnnealedSGLD(step_sizes=(1.0, 0.1), noises=(0.1, 0.01), steps=3),
    MALA(step_size=1e-4, steps=3),
    HMC(step_size=1e-2, leapfrog=2, steps=3),
]


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_step_is_pure_and_a_chain_is_its_repetition(sampler):
    net, x, random, told = network(), torch.rand(4, 1, 8, 8, dtype=torch.float64), generator(), []

    def energy(x):
        return net(x)[:, 0]

    state, accepted = sampler.start(energy, x, None), []
    for k in range(5):
        before, seed = [None if part is None else torch.as_tensor(part).clone() for part in state], random.get_state()
        other = sampler.step(energy, state, torch.Generator().set_state(seed), k / 4)
        following = sampler.step(energy, state, random, k / 4)
        assert torch.equal(other.x, following.x)
        for part, value in zip(state, before, strict=True):
            assert part is value is None or torch.equal(torch.as_tensor(part), value)
        accepted.append((following.x != state.x).flatten(1).any(1))
        state = following
    chains = sampler(energy, x, steps=5, generator=generator(), progress=told.append)
    assert torch.equal(chains.x, state.x) and told == [1] * 5
    assert float(chains.drift) == pytest.approx(state.step_size * float(state.gradient.flatten(1).norm(dim=1).mean()))
    if chains.acceptance is not None:
        assert float(chains.acceptance) == float(torch.stack(accepted).double().mean())


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_chain_is_that_of_its_generator_and_leaves_its_start_alone(sampler):
    net, x = network(), torch.rand(4, 1, 8, 8, dtype=torch.float64)
    before = x.clone()
    with torch.no_grad():  # gradients are the sampler's business
        chains = [sampler(lambda x: net(x)[:, 0], x, generator=generator(seed)) for seed in (1, 1, 2)]
    assert torch.equal(x, before) and torch.equal(chains[0].x, chains[1].x)
    assert not torch.equal(chains[0].x, chains[2].x) and not torch.equal(chains[0].x, x)
    assert float(chains[0].x.min()) >= 0 and float(chains[0].x.max()) <= 1
    assert not chains[0].x.requires_grad and float(chains[0].drift) > 0
    assert all(p.grad is None for p in net.parameters())


def test_the_gradient_is_clamped_and_the_drift_is_that_of_the_last_step():
    sampler = SGLD(step_size=0.5, noise=0.0, steps=1, gradient_clamp=0.1, limits=None)
    chains = sampler(quadratic(), torch.tensor([[3.0, -0.05]]))
    assert torch.allclose(chains.x, torch.tensor([[2.95, -0.025]]))
    assert float(chains.drift) == pytest.approx(0.5 * math.hypot(0.1, 0.05))


class Count(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.calls = []

    def __torch_dispatch__(self, function, types, arguments=(), keywords=None):
        self.calls.append(function)
        return function(*arguments, **(keywords or {}))


def operations(sampler, energy, x, age=None):
    with Count() as count:
        sampler(energy, x, age=age)
    return count.calls


@pytest.mark.parametrize(
    "options", [{}, {"gradient_clamp": 1.0}, {"gradient_clamp": 1.0, "young_noise": 0.05}, {"limits": None}]
)
def test_a_step_is_at_most_9_tensor_operations_beside_the_network_and_none_reads_back(options):
    x, age = torch.rand(3, 1, 4, 4), torch.zeros(3, dtype=torch.long)
    chosen = {"step_size": 1.0, "noise": 0.01, **options}

    def energy(x):
        return x.square().flatten(1).sum(1)

    one, eleven = (operations(SGLD(**chosen, steps=n), energy, x, age) for n in (1, 11))
    leaf, ones = x.clone().requires_grad_(), torch.ones(3)
    with Count() as network:
        torch.autograd.grad(energy(leaf), leaf, ones)
    outside = (len(eleven) - len(one)) / 10 - len(network.calls)
    assert 5 <= outside <= 9  # sum and its gradient 3, drift, noise 2, and clamps where asked for
    names = {function.overloadpacket.__name__ for function in eleven}
    assert not names & {"_local_scalar_dense", "item", "nonzero", "_to_copy.device"}


def test_half_precision_networks_move_float32_images():
    net = network().bfloat16()
    x = torch.full((2, 1, 8, 8), 0.99)
    sampler = SGLD(step_size=1e-3, noise=1e-3, steps=1)
    moved = sampler(lambda x: net(x.bfloat16())[:, 0], x, generator=generator()).x
    assert moved.dtype == torch.float32 and float((moved != x).float().mean()) > 0.99


def test_mistakes_are_named():
    with pytest.raises(ValueError, match="step_size must be finite and > 0, got -1"):
        SGLD(step_size=-1.0, noise=0.1)
    with pytest.raises(ValueError, match="noise must be finite and >= 0, got nan"):
        SGLD(step_size=1.0, noise=float("nan"))
    with pytest.raises(ValueError, match="steps must be >= 1, got 0"):
        MALA(step_size=1.0, steps=0)
    with pytest.raises(ValueError, match="low < high"):
        HMC(step_size=1.0, limits=(1.0, 0.0))
    with pytest.raises(ValueError, match="leapfrog must be >= 1"):
        HMC(step_size=1.0, leapfrog=0)
    with pytest.raises(ValueError, match="noises must be finite and > 0"):
        AnnealedSGLD(step_sizes=(1.0, 1.0), noises=(1.0, 0.0))
    with pytest.raises(ValueError, match="steps must be >= 1, got 0"):
        SGLD()(quadratic(), torch.rand(2, 3), steps=0)
    with pytest.raises(TypeError, match="float32.*got torch.bfloat16"):
        SGLD(step_size=1.0, noise=0.1)(quadratic(), torch.rand(2, 3).bfloat16())
    with pytest.raises(ValueError, match="finite, got 2 values"):
        require_images(torch.tensor([0.5, float("nan"), float("inf")]))
    with pytest.raises(ValueError, match="from 0 to 255: divide uint8 images by 255"):
        require_images(torch.tensor([0.0, 255.0]))
    with pytest.raises(ValueError, match="not be empty"):
        require_images(torch.empty(0, 3))
    require_images(torch.tensor([-3.0, 255.0]), limits=None)

"""Each contrast by loops, with any energy and any number of positives and negatives; LeCun et al. 2006's catalogue."""

import math
from collections.abc import Callable, Sequence

import pytest
import torch
from example_energies import ENERGIES
from small import gradients
from torch import Tensor
from torch.nn import functional as F

from ssl_ebm.energies import rows as row_module
from ssl_ebm.energies.pairwise import Cosine, Distance, Dot, Energy, SquaredEuclidean
from ssl_ebm.energies.rows import EnergyMatrix, Listed, Paired, Pairs, Rows, SameKey
from ssl_ebm.objectives.parts.contrasts import (
    Attract,
    Contrast,
    InfoNCE,
    LogLoss,
    Margin,
    Perceptron,
    Spectral,
    SquareSquare,
)
from ssl_ebm.objectives.parts.noise_contrasts import NWJ, JensenShannon, NoiseContrastive, Sigmoid

EXACT = {"rtol": 1e-12, "atol": 1e-12}
Energies = Sequence[Tensor]


def energies(n: int, m: int, seed: int = 0, scale: float = 3.0) -> Tensor:
    return scale * torch.randn(n, m, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def mean(values: Energies) -> Tensor:
    return sum(values) / len(values)


def relu(x: Tensor) -> Tensor:
    return x if x > 0 else 0 * x


def log1p_exp(x: Tensor) -> Tensor:
    return torch.log(1 + torch.exp(x))


def over_negatives(loss: Callable[[Tensor], Tensor], *, hardest: bool) -> Callable[[Energies, Energies], Tensor]:
    """Of E⁺ - E⁻, the mean over negatives or the lowest of them."""

    def of(positive: Energies, negative: Energies) -> Tensor:
        chosen = [min(negative, key=lambda e: float(e.detach()))] if hardest else negative
        return mean([loss(mean(positive) - e) for e in chosen])

    return of


def square_square(margin: float, *, hardest: bool) -> Callable[[Energies, Energies], Tensor]:
    def of(positive: Energies, negative: Energies) -> Tensor:
        chosen = [min(negative, key=lambda e: float(e.detach()))] if hardest else negative
        return mean([e**2 for e in positive]) + mean([relu(margin - e) ** 2 for e in chosen])

    return of


def info_nce(positive: Energies, negative: Energies) -> Tensor:
    """SupCon's L_out: -mean_p log of a positive's share."""
    weights = [torch.exp(-e) for e in [*positive, *negative]]
    return -mean([torch.log(torch.exp(-e) / sum(weights)) for e in positive])


def active(positive: Energies, negative: Energies) -> Tensor:
    violations = [0.4 + mean(positive) - e for e in negative if 0.4 + mean(positive) > e]
    return mean(violations) if violations else 0 * mean(positive)


def discriminated(bias: float) -> Callable[[Energies, Energies], Tensor]:
    return lambda positive, negative: (
        sum(log1p_exp(e - bias) for e in positive) + sum(log1p_exp(bias - e) for e in negative)
    )


def noise_contrastive() -> NoiseContrastive:
    contrast = NoiseContrastive(population=50).double()
    contrast.log_partition.fill_(math.log(30))
    return contrast


CONTRASTS: dict[str, tuple[Callable[[], Contrast], Callable[[Energies, Energies], Tensor]]] = {
    "energy loss": (Attract, lambda p, n: mean(p)),
    "energy loss, squared": (lambda: Attract(power=2.0), lambda p, n: mean([e**2 for e in p])),
    "energy loss, rooted": (lambda: Attract(power=0.5), lambda p, n: mean([e.sqrt() for e in p])),
    "NLL": (InfoNCE, info_nce),
    "decoupled": (
        lambda: InfoNCE(decoupled=True),
        lambda p, n: mean(p) + torch.log(sum(torch.exp(-e) for e in n)),
    ),
    "hinge": (lambda: Margin(margin=0.4), over_negatives(lambda x: relu(0.4 + x), hardest=False)),
    "hinge, hardest": (
        lambda: Margin(margin=0.4, hardest=True),
        over_negatives(lambda x: relu(0.4 + x), hardest=True),
    ),
    "hinge, active": (lambda: Margin(margin=0.4, active_only=True), active),
    "perceptron": (Perceptron, over_negatives(relu, hardest=True)),
    "perceptron, mean": (lambda: Perceptron(hardest=False), over_negatives(relu, hardest=False)),
    "log": (LogLoss, over_negatives(log1p_exp, hardest=False)),
    "log, hardest": (lambda: LogLoss(hardest=True), over_negatives(log1p_exp, hardest=True)),
    "square-square": (lambda: SquareSquare(margin=1.7), square_square(1.7, hardest=False)),
    "square-square, hardest": (lambda: SquareSquare(margin=1.7, hardest=True), square_square(1.7, hardest=True)),
    "spectral": (lambda: Spectral(mu=3.0), lambda p, n: (2 * mean(p) + mean([e**2 for e in n])) / 3),
    "JSD": (
        JensenShannon,
        lambda p, n: mean([log1p_exp(e) for e in p]) + mean([log1p_exp(-e) for e in n]),
    ),
    "NWJ": (NWJ, lambda p, n: mean(p) + mean([torch.exp(-e - 1) for e in n])),
    "sigmoid": (lambda: Sigmoid(bias=-1.5), discriminated(-1.5)),
    "NCE": (noise_contrastive, lambda p, n: discriminated(math.log(50 / 30 / len(n)))(p, n)),
}
WITHOUT_NEGATIVES = {  # the loss of an anchor that has no negatives
    "energy loss": lambda p: mean(p),
    "NLL": lambda p: info_nce(p, []),
    "decoupled": lambda p: mean(p),
    "square-square": lambda p: mean([e**2 for e in p]),
    "square-square, hardest": lambda p: mean([e**2 for e in p]),
    "spectral": lambda p: 2 * mean(p) / 3,
    "JSD": lambda p: mean([log1p_exp(e) for e in p]),
    "NWJ": lambda p: mean(p),
    "sigmoid": lambda p: sum(log1p_exp(e + 1.5) for e in p),
}

every_contrast = pytest.mark.parametrize("name", CONTRASTS)
ANCHORS, CANDIDATES, DIM = 7, 9, 5
KEYS = SameKey(torch.tensor([0, 0, 1, 2, 2, 3, 7]), torch.tensor([0, 0, 0, 1, 1, 2, 4, 4, 4]))  # nobody has 3 and 7


def inputs() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(3)
    shapes = (ANCHORS, DIM), (CANDIDATES, DIM)
    a, b = (torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes)
    return a.requires_grad_(), b.requires_grad_()


def rows(energy: Energy, a: Tensor, b: Tensor, *, listed: bool) -> tuple[Rows, Rows]:
    agree = KEYS[0][:, None] == KEYS[1]
    if not listed:
        return EnergyMatrix(energy, a, b, only=KEYS), EnergyMatrix(energy, a, b, excluded=KEYS)
    i, j = agree.nonzero(as_tuple=True)
    return Listed(energy.paired(a[i], b[j]), i, ANCHORS), EnergyMatrix(energy, a, b, excluded=Pairs(i, j))


WITH_LINKS = ("cosine, τ .2", "distance, unit", "inverse multiquadratic")


@pytest.mark.parametrize(
    ("chosen", "kind"),
    [*((name, "dense") for name in ENERGIES), *((name, kind) for name in WITH_LINKS for kind in ("tiled", "listed"))],
)
@every_contrast
def test_value_and_gradient_by_loops(name: str, chosen: str, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Any energy; from no positive to three; anchors without one count as 0."""
    build, formula = ENERGIES[chosen]
    if kind == "tiled":
        monkeypatch.setattr(row_module, "DENSE", 0)
        monkeypatch.setattr(row_module, "DENSE_LOGSUMEXP", 0)
        monkeypatch.setattr(row_module, "CHUNK", 12)
    contrast, energy = CONTRASTS[name][0]().double(), build()
    if contrast.needs_nonnegative and not energy.nonnegative:
        return  # refused by the objective
    a, b = inputs()
    expected = []
    for i in range(ANCHORS):
        agree = [KEYS[0][i] == KEYS[1][j] for j in range(CANDIDATES)]
        each = [formula(a[i], b[j]) for j in range(CANDIDATES)]
        positive = [e for e, same in zip(each, agree, strict=True) if same]
        negative = [e for e, same in zip(each, agree, strict=True) if not same]
        counted = positive or name in ("sigmoid", "NCE")  # these judge every pair by itself
        expected.append(CONTRASTS[name][1](positive, negative) if counted else 0 * each[0])
    positive, negative = rows(energy, a, b, listed=kind == "listed")
    value = contrast(positive, negative)
    torch.testing.assert_close(value, torch.stack(expected), rtol=1e-10, atol=1e-10)
    weights = torch.linspace(-1, 2, ANCHORS, dtype=torch.float64)
    got = gradients((weights * value).sum(), [a, b])
    for one, two in zip(got, gradients((weights * torch.stack(expected)).sum(), [a, b]), strict=True):
        torch.testing.assert_close(one, two, rtol=1e-8, atol=1e-9)


@every_contrast
def test_one_positive_of_its_own(name: str) -> None:
    contrast, formula = CONTRASTS[name][0]().double(), CONTRASTS[name][1]
    positive, negative = energies(5, 1).abs(), energies(5, 4, seed=1).abs()
    value = contrast(Paired(positive), Paired(negative))
    expected = [formula(list(p), list(n)) for p, n in zip(positive, negative, strict=True)]
    torch.testing.assert_close(value, torch.stack(expected), **EXACT)


@pytest.mark.parametrize("several", [1, 3])
@every_contrast
def test_anchor_without_negatives(name: str, several: int) -> None:
    """A class that is the whole batch: pulled where pulls are separate, nothing where they are differences."""
    contrast = CONTRASTS[name][0]().double()
    a = inputs()[0].detach()[:3].requires_grad_()
    one = torch.zeros(3, dtype=torch.long)
    positive = SquaredEuclidean().cross(a, a)[:, :several] + 0.1
    negative = EnergyMatrix(SquaredEuclidean(), a, a, excluded=SameKey(one, one)) if contrast.needs_negatives else None
    value = contrast(Paired(positive), negative)
    formula = WITHOUT_NEGATIVES.get(name, lambda p: 0 * p[0])
    if name == "NCE":  # has draws always
        assert value.isfinite().all()
    elif name in ("energy loss, squared", "energy loss, rooted"):
        torch.testing.assert_close(value, torch.stack([CONTRASTS[name][1](list(p), []) for p in positive]), **EXACT)
    else:
        torch.testing.assert_close(value, torch.stack([formula(list(p)) for p in positive]), **EXACT)
    if value.requires_grad:
        assert gradients(value.sum(), [a])[0].isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@every_contrast
def test_flat_energies_have_finite_gradients(name: str, dtype: torch.dtype) -> None:
    contrast = CONTRASTS[name][0]()
    a = torch.ones(4, 3, dtype=dtype, requires_grad=True)
    b = torch.ones(5, 3, dtype=dtype, requires_grad=True)
    keys = SameKey(torch.arange(4), torch.tensor([0, 0, 1, 2, 3]))
    for energy in (Distance(), SquaredEuclidean(normalize=True), Cosine(temperature=0.1), Dot()):
        if energy.nonnegative or not contrast.needs_nonnegative:
            value = contrast(EnergyMatrix(energy, a, b, only=keys), EnergyMatrix(energy, a, b, excluded=keys))
            assert value.isfinite().all()
            assert all(gradient.isfinite().all() for gradient in gradients(value.sum(), [a, b]))


def test_equal_energies_cost_the_log_of_the_number() -> None:
    same = torch.full((3, 7), 2.5, dtype=torch.float64)
    value = InfoNCE()(Paired(same[:, :1]), Paired(same))
    torch.testing.assert_close(value, torch.full((3,), math.log(8), dtype=torch.float64), **EXACT)


def test_nt_xent_is_softplus_of_the_decoupled_loss() -> None:
    positive, negative = Paired(energies(5, 1) - 8), Paired(energies(5, 9, seed=1))
    decoupled = InfoNCE(decoupled=True)(positive, negative)
    torch.testing.assert_close(InfoNCE()(positive, negative), F.softplus(decoupled), **EXACT)
    assert (decoupled < 0).any()


def test_one_negative_is_logistic_regression_on_the_difference() -> None:
    """InfoNCE at N = 2, and LeCun's log loss."""
    positive, negative = energies(5, 1), energies(5, 1, seed=1)
    expected = F.softplus(positive - negative)[:, 0]
    for contrast in (InfoNCE(), LogLoss(), LogLoss(hardest=True)):
        torch.testing.assert_close(contrast(Paired(positive), Paired(negative)), expected, **EXACT)


def test_hinge_without_margin_is_the_perceptron() -> None:
    """E⁺ less the lowest of all energies, its own among them."""
    positive, negative = energies(5, 1), energies(5, 4, seed=1)
    value = Perceptron()(Paired(positive), Paired(negative))
    torch.testing.assert_close(value, positive[:, 0] - torch.cat([positive, negative], 1).amin(1), **EXACT)
    hinge = Margin(margin=1e-13, hardest=True)(Paired(positive), Paired(negative))
    torch.testing.assert_close(value, hinge, rtol=0, atol=1e-12)


def test_losses_of_the_hardest_negative_are_upper_bounds_of_the_mean() -> None:
    positive, negative = Paired(energies(5, 1)), Paired(energies(5, 4, seed=1))
    for build in (lambda hard: LogLoss(hardest=hard), lambda hard: Margin(margin=0.4, hardest=hard)):
        assert (build(True)(positive, negative) >= build(False)(positive, negative)).all()


def test_mined_square_square_has_the_largest_push() -> None:
    positive, negative = Paired(energies(5, 1).abs()), Paired(energies(5, 4, seed=1).abs())
    mined, every = (SquareSquare(margin=2.0, hardest=hardest)(positive, negative) for hardest in (True, False))
    assert (mined >= every).all() and (mined > every).any()


def test_margin_of_active_negatives_only() -> None:
    positive = torch.tensor([[1.0], [1.0]], dtype=torch.float64)
    negative = torch.tensor([[0.5, 1.1, 9.0, 9.0], [2.0, 3.0, 4.0, 5.0]], dtype=torch.float64)
    everything = Margin(margin=0.2)(Paired(positive), Paired(negative))
    torch.testing.assert_close(everything, torch.tensor([0.8 / 4, 0.0], dtype=torch.float64), **EXACT)
    only = Margin(margin=0.2, active_only=True)(Paired(positive), Paired(negative))
    torch.testing.assert_close(only, torch.tensor([0.8 / 2, 0.0], dtype=torch.float64), **EXACT)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_small_losses_keep_their_relative_precision(dtype: torch.dtype) -> None:
    positive = torch.full((1, 1), -20.0, dtype=dtype, requires_grad=True)
    value = InfoNCE()(Paired(positive), Paired(torch.full((1, 3), 20.0, dtype=dtype)))
    expected = 3 * math.exp(-40)
    assert value.item() == pytest.approx(expected, rel=1e-5, abs=0)
    assert gradients(value.sum(), [positive])[0].item() == pytest.approx(expected, rel=1e-5, abs=0)


def test_pulls_are_weighted_by_how_far_positives_are() -> None:
    """DCLW: 2 - e^{-κE⁺} / mean, which is 1 on average and constant to the gradient."""
    positive = energies(6, 1).requires_grad_()
    negative, kappa = energies(6, 3, seed=1), 0.2
    near = torch.exp(-kappa * positive.detach()[:, 0])
    weight = 2 - near / near.mean()
    value = InfoNCE(decoupled=True, reweight=kappa)(Paired(positive), Paired(negative))
    expected = weight * positive[:, 0] + torch.logsumexp(-negative, 1)
    torch.testing.assert_close(value, expected, **EXACT)
    torch.testing.assert_close(weight.mean(), torch.tensor(1.0).double(), **EXACT)
    torch.testing.assert_close(gradients(value.sum(), [positive])[0][:, 0], weight, **EXACT)


def test_sigmoid_with_the_bias_of_its_negatives_is_nce() -> None:
    m, n = 9, 50
    positive, negative = Paired(energies(5, 1)), Paired(energies(5, m, seed=1))
    nce = NoiseContrastive(population=n).double()
    nce.log_partition.fill_(math.log(n))  # the model is normalised under the noise
    sigmoid = Sigmoid(bias=0.0).double()
    sigmoid.bias.data.fill_(-math.log(m))
    torch.testing.assert_close(nce(positive, negative), sigmoid(positive, negative), **EXACT)


def test_gradient_of_the_sigmoid_loss() -> None:
    n, t, b = 6, 4.0, -1.5
    c = energies(n, n, scale=0.4).requires_grad_()
    off_diagonal = ~torch.eye(n, dtype=torch.bool)
    value = Sigmoid(bias=b)(Paired(-t * c.diagonal()[:, None]), Paired(-t * c[off_diagonal].view(n, n - 1))).mean()
    y = 2 * torch.eye(n, dtype=torch.float64) - 1
    expected = -t * y * torch.sigmoid(-y * (t * c + b)) / n
    torch.testing.assert_close(gradients(value, [c])[0], expected.detach(), **EXACT)


def test_jsd_and_nwj_are_bounds_that_independence_makes_zero() -> None:
    flat = torch.zeros(3, 4, dtype=torch.float64)
    value = JensenShannon()(Paired(flat[:, :1]), Paired(flat))
    torch.testing.assert_close(value, torch.full_like(value, 2 * math.log(2)), **EXACT)
    torch.testing.assert_close(NWJ()(Paired(flat[:, :1] - 1), Paired(flat - 1)), torch.zeros(3).double(), **EXACT)


def test_partition_is_estimated_from_the_first_batch_in_training() -> None:
    contrast = NoiseContrastive(population=20).double()
    first, second = (Paired(energies(3, 4, seed=seed, scale=1.0)) for seed in range(2))
    positive = Paired(energies(3, 1))
    expected = (20 * torch.exp(-first.energies).mean()).log()
    contrast.eval()
    untrained = contrast(positive, first)
    assert contrast.log_partition.isnan()
    contrast.train()
    torch.testing.assert_close(contrast(positive, first), untrained, **EXACT)
    torch.testing.assert_close(contrast.log_partition, expected, **EXACT)
    contrast(positive, second)
    torch.testing.assert_close(contrast.log_partition, expected, **EXACT)
    resumed = NoiseContrastive(population=20).double()
    resumed.load_state_dict(contrast.state_dict())
    torch.testing.assert_close(resumed(positive, second), contrast(positive, second), **EXACT)


@pytest.mark.parametrize("alpha", [0.5, 1.0, 1.9])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_alignment_of_equal_views_has_a_gradient(alpha: float, dtype: torch.dtype) -> None:
    a, b = (torch.ones(3, 4, dtype=dtype, requires_grad=True) for _ in range(2))
    value = Attract(power=alpha / 2)(Paired(SquaredEuclidean().paired(a, b)[:, None]), None)
    value.sum().backward()
    assert (a.grad == 0).all() and (b.grad == 0).all() and (value < 1e-9).all()


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Attract(power=0.0), "power must be > 0, got 0"),
        (lambda: InfoNCE(reweight=0.5), "reweight must be > 0 and needs decoupled=True, got 0.5 and False"),
        (lambda: InfoNCE(decoupled=True, reweight=0.0), "reweight must be > 0"),
        (lambda: Margin(margin=0.0), "margin must be > 0, got 0"),
        (lambda: Margin(active_only=True, hardest=True), "choose either"),
        (lambda: SquareSquare(margin=-1.0), "margin must be > 0, got -1"),
        (lambda: Spectral(mu=0.0), "mu must be > 0, got 0"),
        (lambda: NoiseContrastive(population=0), "population must be >= 1, got 0"),
    ],
)
def test_mistakes_name_the_argument(build: Callable[[], Contrast], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build()

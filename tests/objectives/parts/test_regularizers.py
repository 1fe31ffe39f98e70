"""Each regularizer against its oracle, in closed form, and at its edges; and the objectives made of them."""

import copy
import inspect
import io
import math
from typing import Any

import pytest
import torch
from reference_regularized import ORACLES, koleo, mean_entropy, state_of
from small import constant_batch, gradients, random_batch, select, with_gradients
from torch import Tensor
from torch.nn import functional as F

from ssl_ebm.energies import rows as row_module
from ssl_ebm.energies.codes import Codes
from ssl_ebm.energies.pairwise import InverseMultiquadratic
from ssl_ebm.energies.whitening import Whitened
from ssl_ebm.networks.embeddings import Embeddings
from ssl_ebm.networks.heads import MLP
from ssl_ebm.objectives import Objective
from ssl_ebm.objectives.parts.regularizers import (
    HSIC,
    CodingRate,
    Covariance,
    CrossCorrelation,
    KoLeo,
    LogDetCovariance,
    MeanEntropy,
    NuclearNorm,
    RateReduction,
    Regularizer,
    SecondMoment,
    SlicedGaussianity,
    Uniformity,
    Variance,
    WhitenedDistance,
)
from ssl_ebm.objectives.parts.regularizers.volume import coding_rate, nuclear_norm
from ssl_ebm.objectives.presets import regularized

EXACT = {"rtol": 1e-12, "atol": 1e-12}
DIM = 4

OTHER_CONSTANTS: dict[str, dict[str, Any]] = {
    "wmse": {"method": "zca", "eps": 1e-3, "iterations": 2},
    "tico": {"beta": 0.6, "covariance_weight": 3.0, "through_batch": False},
    "mmcr": {"local_weight": 0.7},
    "corinfomax": {"invariance_weight": 3.0, "old_weight": 0.3, "eps": 1e-2, "views": None, "normalize": False},
    "emp_ssl": {"invariance_weight": 3.0, "eps_squared": 1.3},
    "mcr2": {"eps_squared": 1.3, "expansion": 3.0, "expansion_weight": 0.4},
    "ssl_hsic": {"gamma": 0.6, "kernel_scale": 0.4},
}


def small(name: str, *, dim: int = DIM, **constants: Any) -> Objective:
    build = getattr(regularized, name)
    arguments = {"features": 3, "projector": MLP(hidden=(8,), out=dim), "predictor": MLP(hidden=(8,), out=dim)}
    return build(**{k: v for k, v in (arguments | constants).items() if k in inspect.signature(build).parameters})


def every_regularizer(dim: int = DIM) -> list[Regularizer]:
    """One of each, on embeddings of `dim`; those of two sets take four."""
    kernel = InverseMultiquadratic(learnable=True)
    return [
        Variance(),
        Covariance(),
        CrossCorrelation(),
        SecondMoment(dim=dim),
        Uniformity(),
        KoLeo(),
        MeanEntropy(Codes(temperature=0.1)),
        SlicedGaussianity(slices=3),
        WhitenedDistance(),
        WhitenedDistance(method="zca"),
        LogDetCovariance(dim=dim),
        LogDetCovariance(dim=dim, views=None, normalize=False),
        CodingRate(),
        RateReduction(),
        NuclearNorm(local_weight=0.5),
        HSIC(kernel, features=5),
    ]


each = pytest.mark.parametrize("number", range(len(every_regularizer())), ids=lambda i: repr(every_regularizer()[i]))


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def tensor(value: float) -> Tensor:
    return torch.tensor(value, dtype=torch.float64)


def assert_close_gradients(one: list[Tensor], two: list[Tensor]) -> None:
    for a, b in zip(one, two, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9 * max(1e-3, float(b.abs().max())))


@pytest.mark.parametrize("shape", [(2, 6, 4), (3, 13, 4), (2, 3, 7)], ids=str)
@pytest.mark.parametrize("constants", ["paper's", "other"])
@pytest.mark.parametrize("name", ORACLES)
def test_value_and_gradient_of_the_oracle(name: str, constants: str, shape: tuple[int, int, int]) -> None:
    views, images, dim = shape
    if name == "wmse" and images < dim + 2:
        pytest.skip("fewer images than W-MSE takes")
    other = OTHER_CONSTANTS[name] if constants == "other" else {"views": views}
    objective = small(name, dim=dim, **({"window": 6} if name == "wmse" else {}), **other).double()
    asked = inspect.signature(ORACLES[name]).parameters
    for seed in range(3):  # later batches meet a state
        batch = with_gradients(random_batch(seed, views=views, images=images, dim=dim))
        leaves = [batch.projection, batch.prediction, *objective.parameters()]
        given: dict[str, Any] = {"z": batch.projection, "prediction": batch.prediction, "target": batch.target}
        given |= state_of(copy.deepcopy(objective), batch.projection) | {"window": 6} | other
        if name == "ssl_hsic":
            given["scale"] = objective.energy.log_scale.exp()
        expected = ORACLES[name](**{k: v for k, v in given.items() if k in asked})
        loss = objective(batch).loss
        torch.testing.assert_close(loss, expected, rtol=1e-9, atol=1e-12)
        assert_close_gradients(gradients(loss, leaves), gradients(expected, leaves))


@pytest.mark.parametrize("shape", [(2, 6, 4), (3, 4, 7)], ids=str)
def test_koleo_and_mean_entropy_of_the_oracle(shape: tuple[int, int, int]) -> None:
    z = random(*shape).requires_grad_()
    for value, expected in (
        (KoLeo()(z), koleo(z)),
        (MeanEntropy(Codes(temperature=0.3))(z), mean_entropy(z, temperature=0.3)),
    ):
        torch.testing.assert_close(value, expected, rtol=1e-9, atol=1e-12)
        assert_close_gradients(gradients(value, [z]), gradients(expected, [z]))


@pytest.mark.parametrize("name", ORACLES)
def test_duplicated_images(name: str) -> None:
    batch = select(random_batch(), torch.tensor([0, 1, 1, 2, 0, 3, 4, 5]))
    objective = small(name).double()
    given = {"z": batch.projection, "prediction": batch.prediction, "target": batch.target, "scale": tensor(1.0)}
    given |= state_of(copy.deepcopy(objective), batch.projection)
    expected = ORACLES[name](**{k: v for k, v in given.items() if k in inspect.signature(ORACLES[name]).parameters})
    leaf = with_gradients(batch)
    loss = objective(leaf).loss
    torch.testing.assert_close(loss.detach(), expected, rtol=1e-9, atol=1e-12)
    assert all(g.isfinite().all() for g in gradients(loss, [leaf.projection, leaf.prediction]))


@each
@pytest.mark.parametrize("value", [1.0, 0.1, 0.0, 1e-8, 1e4])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_constant_batches_are_finite(number: int, value: float, dtype: torch.dtype) -> None:
    regularizer = every_regularizer()[number]
    z = torch.full((2, 8, DIM), value, dtype=dtype, requires_grad=True)
    for _ in range(20):
        loss = regularizer(z)
        loss.backward()
        regularizer.update()
        assert loss.isfinite() and z.grad.isfinite().all() and loss.dtype == dtype


@each
def test_badly_scaled_batches_are_finite(number: int) -> None:
    regularizer = every_regularizer()[number]
    scales = torch.tensor([1e6, 1.0, 1e-6, 0.0], dtype=torch.float64)
    z = (random(2, 8, DIM) * scales).requires_grad_()
    loss = regularizer(z)
    loss.backward()
    assert loss.isfinite() and z.grad.isfinite().all()


@each
@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_a_batch_that_is_not_finite_gives_no_exception(number: int, bad: float) -> None:
    regularizer = every_regularizer()[number]
    z = random(2, 8, DIM)
    z[0, 3, 1] = bad
    assert not regularizer(z).isfinite()


@each
def test_least_batch(number: int) -> None:
    regularizer = every_regularizer()[number]
    least = regularizer.least_batch(DIM)
    z = random(2, least, DIM).requires_grad_()
    loss = regularizer(z)
    loss.backward()
    assert loss.isfinite() and z.grad.isfinite().all()
    with pytest.raises(ValueError, match=rf"batch of at least {least} images.*, got {least - 1}: use a larger batch"):
        regularizer(z[:, 1:])


@each
def test_forward_alone_changes_nothing(number: int) -> None:
    regularizer = every_regularizer()[number].eval()
    before, z = copy.deepcopy(regularizer.state_dict()), random(2, 8, DIM)
    first, second = regularizer(z), regularizer(z)
    assert torch.equal(first, second)
    for name, value in regularizer.state_dict().items():
        assert torch.equal(torch.as_tensor(value), torch.as_tensor(before[name])), name


@each
def test_state_resumes_bitwise(number: int) -> None:
    original, resumed = every_regularizer()[number], every_regularizer()[number]
    assert [name for name, _ in original.named_parameters()] == []
    for seed in range(3):
        original(random(2, 8, DIM, seed=seed))
        original.update()
    file = io.BytesIO()
    torch.save(original.state_dict(), file)
    file.seek(0)
    resumed.load_state_dict(torch.load(file, weights_only=True))
    for seed in range(3, 6):
        z = random(2, 8, DIM, seed=seed)
        assert torch.equal(resumed(z), original(z))
        resumed.update()
        original.update()
    assert original.pending == {}


@each
def test_update_twice_is_update_once(number: int) -> None:
    regularizer = every_regularizer()[number]
    regularizer(random(2, 8, DIM))
    regularizer.update()
    before = copy.deepcopy(dict(regularizer.named_buffers()))
    regularizer.update()
    assert all(torch.equal(buffer, before[name]) for name, buffer in regularizer.named_buffers())


@each
def test_order_of_images_and_precision(number: int) -> None:
    z = random(2, 6, DIM)
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    value = every_regularizer()[number](z)
    torch.testing.assert_close(every_regularizer()[number](z[:, order]), value, rtol=1e-11, atol=1e-11)
    if not isinstance(every_regularizer()[number], SlicedGaussianity):  # draws others in float32
        single = every_regularizer()[number](z.float())
        torch.testing.assert_close(single.double(), value, rtol=1e-4, atol=1e-5)


def test_other_dimensions_than_the_statistics() -> None:
    for regularizer in (SecondMoment(dim=3), LogDetCovariance(dim=3)):
        with pytest.raises(ValueError, match="embeddings have 4 dimensions and the statistics of .* 3: give"):
            regularizer(random(2, 5, 4))
    with pytest.raises(ValueError, match="embeddings have 4 dimensions and the running statistics 3: give"):
        Whitened(dim=3).paired(random(5, 4), random(5, 4))


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: SecondMoment(dim=3, beta=1.0), r"beta must be in \[0, 1\), got 1"),
        (lambda: LogDetCovariance(dim=3, views=0), "views must be >= 1, or None .* got 0"),
        (lambda: LogDetCovariance(dim=3, old_weight=1.0), r"old_weight must be in \[0, 1\), got 1"),
        (lambda: LogDetCovariance(dim=3, eps=0.0), "eps must be > 0, got 0"),
        (lambda: CodingRate(eps_squared=0.0), "eps_squared must be > 0, got 0"),
        (lambda: RateReduction(expansion=-1.0), "expansion must be > 0, got -1"),
        (lambda: RateReduction(eps_squared=0.0), "eps_squared must be > 0, got 0"),
        (lambda: NuclearNorm(local_weight=-1.0), "local_weight must be >= 0, got -1"),
        (lambda: KoLeo(eps=0.0), "eps must be > 0, got 0"),
        (lambda: WhitenedDistance(method="pca"), "method must be one of .*'zca'.*, got 'pca'"),
        (lambda: WhitenedDistance(iterations=0), "iterations must be >= 1, got 0"),
        (lambda: WhitenedDistance(eps=0.0), "eps must be > 0, got 0"),
        (lambda: WhitenedDistance(window=5)(random(2, 9, 4)), "window must be >= 6 at 4 dimensions, got 5: use 8"),
        (lambda: LogDetCovariance(dim=4)(random(3, 9, 4)), "statistics of 2 views, got 3: give views=3, or views=None"),
        (lambda: HSIC(InverseMultiquadratic(), features=0), "features must be >= 1, got 0"),
        (lambda: HSIC(InverseMultiquadratic(), gamma=-1.0), "gamma must be >= 0, got -1"),
        (lambda: HSIC(InverseMultiquadratic())(random(1, 5, 4)), "at least 2 sets of embeddings, got 1"),
        (lambda: Whitened(dim=3, momentum=1.0), r"momentum must be in \[0, 1\), got 1"),
    ],
)
def test_mistakes(build: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build()


def test_second_moment_is_a_moving_average() -> None:
    """C_n = (1 - β) Σ_t β^(n-t) B_t, B = ZᵀZ/N of the first view's unit vectors; the value is tr(C B)."""
    regularizer, beta, batches = SecondMoment(dim=4, beta=0.7).double(), 0.7, []
    for seed in range(5):
        z = random(2, 8, 4, seed=seed)
        value = regularizer(z)
        regularizer.update()
        unit = F.normalize(z[0], dim=1)
        batches.append(unit.T @ unit / 8)
        expected = sum((1 - beta) * beta ** (seed - t) * b for t, b in enumerate(batches))
        torch.testing.assert_close(regularizer.second_moment, expected, **EXACT)
        torch.testing.assert_close(value, (expected * batches[-1]).sum(), **EXACT)


def test_second_moment_of_a_collapse_and_of_a_spread() -> None:
    collapsed, spread = constant_batch(dim=4).projection, torch.eye(4, dtype=torch.float64).repeat(2, 2, 1)
    for z, value in ((collapsed, 1.0), (spread, 1 / 4)):
        regularizer = SecondMoment(dim=4, beta=0.5).double()
        for _ in range(60):
            got = regularizer(z)
            regularizer.update()
        torch.testing.assert_close(got, tensor(value), **EXACT)


def test_gradient_of_the_batch_in_the_second_moment_is_twice_the_detached_one() -> None:
    z = random(2, 8, 4).requires_grad_()
    through, detached = (SecondMoment(dim=4, through_batch=way).double()(z) for way in (True, False))
    assert torch.equal(through, detached)
    torch.testing.assert_close(gradients(through, [z])[0], 2 * gradients(detached, [z])[0], **EXACT)


def test_log_determinant_at_the_identity() -> None:
    """R = I and μ = 0 are kept by a batch of mean 0 and covariance I: the value is -V log(1 + ε)."""
    z = math.sqrt(3) * torch.cat([torch.eye(3), -torch.eye(3)]).double().expand(2, -1, -1)
    regularizer = LogDetCovariance(dim=3, eps=0.5, normalize=False)
    torch.testing.assert_close(regularizer(z), tensor(-2 * math.log(1.5)), **EXACT)
    regularizer.update()
    torch.testing.assert_close(regularizer.covariance, torch.eye(3).double().repeat(2, 1, 1), **EXACT)
    shared = LogDetCovariance(dim=3, eps=0.5, normalize=False, views=None)
    torch.testing.assert_close(shared(z), tensor(-math.log(1.5)), **EXACT)


def test_log_determinant_in_the_long_run() -> None:
    spread = torch.cat([torch.eye(4), -torch.eye(4)]).double().expand(2, -1, -1)
    for z, eps, value in ((spread, 1e-12, 2 * math.log(4)), (torch.ones_like(spread), 1e-4, -2 * math.log(1e-4))):
        regularizer = LogDetCovariance(dim=4, eps=eps)
        for _ in range(40):
            got = regularizer(z)
            regularizer.update()
        torch.testing.assert_close(got, tensor(value), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("shape", [(7, 3), (3, 7)], ids=str)
def test_coding_rate_is_the_same_on_both_sides(shape: tuple[int, int]) -> None:
    z, (n, d) = random(*shape), shape
    eigenvalues = torch.linalg.eigvalsh(z.T @ z)
    expected = (1 + d / (n * 0.2) * eigenvalues).log().sum() / 2
    torch.testing.assert_close(coding_rate(z, eps_squared=0.2), expected, **EXACT)


@pytest.mark.parametrize(("images", "dim"), [(12, 4), (4, 4), (3, 8)])
def test_coding_rate_of_orthogonal_and_of_collapsed_images(images: int, dim: int) -> None:
    least = min(images, dim)
    spread = torch.eye(dim, dtype=torch.float64).repeat(-(-images // dim), 1)[:images].expand(2, -1, -1)
    torch.testing.assert_close(CodingRate()(spread), tensor(-least / 2 * math.log(1 + dim / (least * 0.2))), **EXACT)
    collapsed = torch.ones_like(spread)
    torch.testing.assert_close(CodingRate()(collapsed), tensor(-math.log(1 + dim / 0.2) / 2), **EXACT)


def test_rate_reduction_in_closed_form() -> None:
    """Equal views: R(Z_i) = ½ log(1 + D/ε²); orthogonal images, M = 2D: γ₂ D/2 log(1 + γ₁/ε²)."""
    spread = torch.eye(5, dtype=torch.float64).expand(2, -1, -1)
    expected = math.log(1 + 5 / 0.5) / 2 - 0.05 * 5 / 2 * math.log(1 + 20 / 0.5)
    torch.testing.assert_close(RateReduction()(spread), tensor(expected), **EXACT)


@pytest.mark.parametrize(("images", "dim"), [(12, 4), (4, 4), (3, 8)])
def test_floor_and_collapse_of_the_nuclear_norm(images: int, dim: int) -> None:
    spread = torch.eye(dim, dtype=torch.float64).repeat(-(-images // dim), 1)[:images].expand(2, -1, -1)
    torch.testing.assert_close(NuclearNorm()(spread), tensor(-math.sqrt(images * min(images, dim))), **EXACT)
    assert NuclearNorm()(random(2, images, dim)) > NuclearNorm()(spread)
    collapsed = torch.ones_like(spread)
    torch.testing.assert_close(NuclearNorm()(collapsed), tensor(-math.sqrt(images)), **EXACT)
    both = NuclearNorm(local_weight=0.3)(collapsed)  # an image's two views, equal: √2
    torch.testing.assert_close(both, tensor(-math.sqrt(images) + 0.3 * math.sqrt(2)), **EXACT)


@pytest.mark.parametrize("shape", [(5, 3), (3, 5), (4, 4), (2, 6, 3)], ids=str)
def test_nuclear_norm_is_the_sum_of_singular_values(shape: tuple[int, ...]) -> None:
    x = random(*shape).requires_grad_()
    value, expected = nuclear_norm(x), torch.linalg.svdvals(x).sum(-1)
    torch.testing.assert_close(value, expected, rtol=1e-10, atol=1e-10)
    assert_close_gradients(gradients(value.sum(), [x]), gradients(expected.sum(), [x]))


def test_gradient_of_the_nuclear_norm_has_no_noise() -> None:
    """At rank 1 it is u vᵀ; an SVD adds a rotation of what is left."""
    x = torch.ones(6, 4, dtype=torch.float64, requires_grad=True)
    torch.testing.assert_close(gradients(nuclear_norm(x), [x])[0], x.detach() / math.sqrt(24), **EXACT)
    repeated = (2 * torch.eye(4).double()).requires_grad_()  # equal singular values
    torch.testing.assert_close(gradients(nuclear_norm(repeated), [repeated])[0], torch.eye(4).double(), **EXACT)


def kernel_statistics(sets: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """Exact HSIC(Z, Y) and HSIC(Z, Z) of [sets, images, dim] under c / √(c² + d²)."""
    k, n = sets.shape[:2]
    flat = F.normalize(sets, dim=-1).transpose(0, 1).flatten(0, 1)  # an image's embeddings one after another
    gram = scale / (scale**2 + torch.cdist(flat, flat).square()).sqrt()
    image = torch.arange(n).repeat_interleave(k)
    within = gram[image[:, None] == image].sum() / (n * k * (k - 1))
    centring = torch.eye(n * k).double() - 1 / (n * k)
    centred = centring @ gram @ centring
    return within - gram.mean(), centred.square().sum() / (n * k) ** 2


@pytest.mark.parametrize("scale", [0.3, 1.0, 2.0])
def test_random_features_give_the_kernel(scale: float) -> None:
    regularizer = HSIC(InverseMultiquadratic(scale=scale), features=20000).double()
    x = F.normalize(random(12, 5), dim=1)
    omega, phases = regularizer.frequencies(x)
    kernel = -InverseMultiquadratic(scale=scale).cross(x, x)
    for w, b in zip(omega, phases, strict=True):
        phi = (2 / 20000) ** 0.5 * (x @ w / scale + b).cos()
        torch.testing.assert_close(phi @ phi.T, kernel.detach(), rtol=0, atol=6 / 20000**0.5)


@pytest.mark.parametrize("scale", [0.3, 1.0])
def test_many_features_give_the_kernel_statistics(scale: float) -> None:
    sets = random(4, 10, 5)
    dependence, itself = kernel_statistics(sets, scale)
    kernel = InverseMultiquadratic(scale=scale)
    value = torch.stack([HSIC(kernel, features=3000, gamma=gamma).double()(sets) for gamma in (0.0, 3.0)])
    torch.testing.assert_close(-value[0], dependence, rtol=0, atol=0.01)
    torch.testing.assert_close((value[1] - value[0]) / 3, itself.sqrt(), rtol=0.03, atol=0)


def test_dependence_of_a_collapse_and_of_separate_images() -> None:
    """Within an image v = v' is kept: k(k - 1) pairs are divided into k² of kernel 1."""
    collapsed = torch.ones(4, 6, 3, dtype=torch.float64)
    many = HSIC(InverseMultiquadratic(scale=1e-2), features=2000, gamma=0.0).double()
    torch.testing.assert_close(many(collapsed), tensor(-4 / 3 + 1), rtol=0, atol=0.1)
    separate = torch.eye(6, dtype=torch.float64).expand(4, -1, -1)
    torch.testing.assert_close(many(separate), tensor(-4 / 3 + 1 / 6), rtol=0, atol=0.1)


@pytest.mark.parametrize(("directions", "leaves"), [(3, False), (36, True)])
def test_more_than_gamma_squared_directions_lead_out_of_a_collapse(directions: int, leaves: bool) -> None:
    axes = torch.eye(40, dtype=torch.float64)
    images = torch.cat([axes[0] + sign * 0.3 * axes[1 : directions + 1] for sign in (1, -1)]).expand(4, -1, -1)
    regularizer = HSIC(InverseMultiquadratic(), features=4000).double().eval()
    gain = regularizer(axes[0].expand_as(images)) - regularizer(images)
    assert (gain > 0) == leaves and gain.abs() > 5e-3


@pytest.mark.parametrize("start", [0.05, 20.0])
def test_kernel_scale_follows_the_distances(start: float) -> None:
    """The slope is steepest where mean c²/(c² + d²) = 1/3."""
    kernel = InverseMultiquadratic(scale=start, learnable=True)
    regularizer, z = HSIC(kernel, features=3, gamma=0.0), random(2, 12, 8)
    optimizer = torch.optim.Adam(kernel.parameters(), lr=0.1)
    for _ in range(100):
        optimizer.zero_grad()
        regularizer(z).backward()
        optimizer.step()
    unit = F.normalize(z, dim=-1).flatten(0, 1)
    shares = kernel.scale.detach().square() / (kernel.scale.detach().square() + torch.cdist(unit, unit).square())
    assert shares.mean().item() == pytest.approx(1 / 3, abs=0.01)


def test_scale_of_the_kernel_is_constant_to_the_embeddings_and_the_other_way_round() -> None:
    kernel = InverseMultiquadratic(scale=0.7, learnable=True)
    fixed = InverseMultiquadratic(scale=0.7)
    z = random(4, 6, 3).requires_grad_()
    learned, constant = HSIC(kernel, features=5)(z), HSIC(fixed, features=5)(z)
    assert torch.equal(learned.detach(), constant.detach())
    assert torch.equal(gradients(learned, [z])[0], gradients(constant, [z])[0])
    gradient = gradients(learned, [kernel.log_scale])[0]
    unit = F.normalize(z.detach(), dim=-1).flatten(0, 1)
    squares = torch.cdist(unit, unit).square()
    torch.testing.assert_close(gradient.double(), (3 * 0.49 / (0.49 + squares) - 1).mean(), rtol=1e-5, atol=1e-6)


def test_objective_and_regularizer_share_the_kernel() -> None:
    objective = small("ssl_hsic")
    assert [name for name, _ in objective.named_parameters()] == ["energy.log_scale"]
    copied = copy.deepcopy(objective)
    assert copied.regularizers["hsic"].kernel.module is copied.energy is not objective.energy


def test_koleo_in_closed_form() -> None:
    square = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.0, -1.0]]).double()[None]
    torch.testing.assert_close(KoLeo()(square), tensor(-math.log(math.sqrt(2) + 1e-8)), **EXACT)
    torch.testing.assert_close(KoLeo()(square.repeat(2, 1, 1)), 2 * KoLeo()(square), **EXACT)
    collapsed = torch.ones(2, 5, 3).double().requires_grad_()
    torch.testing.assert_close(KoLeo()(collapsed), tensor(-2 * math.log(1e-8)), **EXACT)
    assert (gradients(KoLeo()(collapsed), [collapsed])[0] == 0).all()


def test_mean_entropy_in_closed_form() -> None:
    codes = Codes(temperature=1.0)
    torch.testing.assert_close(MeanEntropy(codes)(torch.zeros(2, 6, 4).double()), tensor(0.0), **EXACT)
    sure = 1e3 * torch.eye(4).double().expand(2, -1, -1)  # each image sure of another code
    torch.testing.assert_close(MeanEntropy(codes)(sure), tensor(0.0), **EXACT)
    same = sure[:, :1].expand(-1, 6, -1).clone().requires_grad_()
    value = MeanEntropy(codes)(same)
    torch.testing.assert_close(value, tensor(math.log(4)), **EXACT)
    assert gradients(value, [same])[0].isfinite().all()


@pytest.mark.parametrize("build", [Uniformity, lambda: SlicedGaussianity(slices=5), KoLeo], ids=["u", "s", "k"])
def test_tiles_change_nothing(build: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for dense in (row_module.DENSE, 0):
        monkeypatch.setattr(row_module, "DENSE", dense)
        monkeypatch.setattr(row_module, "DENSE_LOGSUMEXP", dense)
        monkeypatch.setattr(row_module, "CHUNK", 1 << 20 if dense else 20)
        z = random(2, 9, 4).requires_grad_()
        value = build()(z)
        found.append([value.detach(), *gradients(value, [z])])
    for one, two in zip(*found, strict=True):
        torch.testing.assert_close(one, two, **EXACT)


def test_mean_of_the_views_is_of_unit_vectors() -> None:
    """z̄ of EMP-SSL weighs the views of an image equally, however long they are."""
    batch = random_batch(views=3)
    lengths = torch.linspace(0.1, 7, 18).view(3, 6, 1).double()
    longer = Embeddings(projection=batch.projection * lengths)
    torch.testing.assert_close(small("emp_ssl")(longer).loss, small("emp_ssl")(batch).loss, **EXACT)
    equal = Embeddings(projection=batch.projection[:1].repeat(2, 1, 1) * torch.tensor([1.0, 5.0]).view(2, 1, 1))
    torch.testing.assert_close(small("emp_ssl")(equal).terms["energy_positive"], tensor(-1.0), **EXACT)


def test_which_embeddings_become_white() -> None:
    white = {"Covariance", "CrossCorrelation", "SlicedGaussianity", "WhitenedDistance", "LogDetCovariance"}
    assert {type(r).__name__ for r in every_regularizer() if r.gaussian} == white


def test_heads_and_constants_of_the_papers() -> None:
    byol = MLP(hidden=(4096,), out=256, output_bias=False)
    heads = {
        "wmse": (MLP(hidden=(1024,), out=64), None),
        "tico": (MLP(hidden=(4096,), out=256), None),
        "mmcr": (MLP(hidden=(512,), out=128, output_bias=False), None),
        "corinfomax": (MLP(hidden=(2048, 2048), out=64, hidden_norm=False, output_bias=False), None),
        "emp_ssl": (MLP(hidden=(4096, 4096), out=1024), None),
        "mcr2": (MLP(hidden=(512,), out=128), None),
        "ssl_hsic": (byol, byol),
    }
    for name, expected in heads.items():
        objective = getattr(regularized, name)()
        assert (objective.heads.projector, objective.heads.predictor) == expected, name
        assert objective.teacher_momentum == (0.99 if name in ("tico", "ssl_hsic") else None)
        assert objective.conservative == (name not in ("tico", "ssl_hsic"))
        assert objective.surrogate == (name in ("wmse", "mmcr", "mcr2", "ssl_hsic"))
    assert regularized.ssl_hsic().regularizers["hsic"].features == 512
    assert regularized.wmse().least_batch() == 66

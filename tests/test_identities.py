"""Values known in closed form, what leaves an objective unchanged, and how objectives are related."""

import math
from dataclasses import replace

import pytest
import torch
from small import BANK, constant_batch, gradients, random_batch, small_objective
from torch import Tensor
from torch.nn import functional as F

from ssl_ebm.contrasts import Attract, InfoNCE, Margin, NoiseContrastive, Sigmoid
from ssl_ebm.embeddings import Embeddings
from ssl_ebm.energies import SquaredEuclidean
from ssl_ebm.heads import MLP
from ssl_ebm.negatives import QueueNegatives
from ssl_ebm.objectives import OBJECTIVES, create_objective
from ssl_ebm.regularizers import Covariance, CrossCorrelation, SlicedGaussianity, Uniformity, Variance
from ssl_ebm.tiles import Crossed, Paired

EXACT = {"rtol": 1e-12, "atol": 1e-12}


def loss(name: str, projection: Tensor, **constants: float) -> Tensor:
    batch = random_batch(images=projection.shape[1], dim=projection.shape[2])
    return (
        small_objective(name, dim=projection.shape[2], **constants).double()(replace(batch, projection=projection)).loss
    )


def energies(n: int, m: int, seed: int = 0, scale: float = 3.0) -> Tensor:
    return scale * torch.randn(n, m, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def random_rotation(dim: int) -> Tensor:
    return torch.linalg.qr(energies(dim, dim, seed=5)).Q


@pytest.mark.parametrize("images", [2, 5, 16])
def test_values_at_the_collapse(images: int) -> None:
    n, dim, collapsed = images, 6, constant_batch(images=images, dim=6).projection
    values = {
        "simclr": math.log(2 * n - 1),
        "vicreg": 24.75,
        "siglip": n * math.log(2),  # t + b = 0 by default
        "barlow_twins": dim,
        "align_uniform": 0.0,
        "triplet": 0.2,
        "spectral": -1.0,
        "simsiam": -1.0,
        "byol": 0.0,
    }
    for name, value in values.items():
        batch = replace(constant_batch(images=n, dim=dim), projection=collapsed)
        constants = {"learnable": False} if name == "siglip" else {}
        got = small_objective(name, dim=dim, **constants).double()(batch).loss
        torch.testing.assert_close(got, torch.tensor(value, dtype=torch.float64), **EXACT)


def test_regularizers_at_the_collapse() -> None:
    z = constant_batch(images=5, dim=6).projection
    for regularizer, value in ((Variance(), 0.99), (Covariance(), 0.0), (CrossCorrelation(), 6.0), (Uniformity(), 0.0)):
        torch.testing.assert_close(regularizer(z), torch.tensor(value, dtype=torch.float64), **EXACT)


def test_contrast_with_equal_energies_is_log_of_the_number() -> None:
    same = torch.full((3, 7), 2.5, dtype=torch.float64)
    value = InfoNCE()(Paired(same[:, :1]), Paired(same))
    torch.testing.assert_close(value, torch.full((3,), math.log(8), dtype=torch.float64), **EXACT)


def test_nt_xent_is_softplus_of_the_decoupled_loss() -> None:
    positive, negative = Paired(energies(5, 1) - 8), Paired(energies(5, 9, seed=1))
    decoupled = InfoNCE(decoupled=True)(positive, negative)
    torch.testing.assert_close(InfoNCE()(positive, negative), F.softplus(decoupled), **EXACT)
    assert (decoupled < 0).any()


def test_one_negative_is_logistic_regression_on_the_difference() -> None:
    positive, negative = energies(5, 1), energies(5, 1, seed=1)
    value = InfoNCE()(Paired(positive), Paired(negative))
    torch.testing.assert_close(value, F.softplus(positive - negative)[:, 0], **EXACT)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_small_losses_keep_their_relative_precision(dtype: torch.dtype) -> None:
    positive = torch.full((1, 1), -20.0, dtype=dtype, requires_grad=True)
    value = InfoNCE()(Paired(positive), Paired(torch.full((1, 3), 20.0, dtype=dtype)))
    expected = 3 * math.exp(-40)
    assert value.item() == pytest.approx(expected, rel=1e-5, abs=0)
    assert gradients(value.sum(), [positive])[0].item() == pytest.approx(expected, rel=1e-5, abs=0)


def test_instance_labels_make_supcon_nt_xent() -> None:
    batch = random_batch(images=6)
    supcon = small_objective("supcon")(replace(batch, label=torch.tensor([5, 3, 9, 0, 1, 7])))
    simclr = small_objective("simclr")(batch)
    torch.testing.assert_close(supcon.loss, simclr.loss, **EXACT)
    for term in simclr.terms:
        torch.testing.assert_close(supcon.terms[term], simclr.terms[term], **EXACT)


def test_one_class_has_no_negatives() -> None:
    batch = replace(random_batch(images=6), label=torch.zeros(6).long())
    step = small_objective("supcon")(batch)
    assert step.loss.isfinite() and step.terms["energy_negative"].abs() < 1e-12


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
    rows = Paired(-t * c.diagonal()[:, None]), Paired(-t * c[off_diagonal].view(n, n - 1))
    value = Sigmoid(bias=b)(*rows).mean()
    y = 2 * torch.eye(n, dtype=torch.float64) - 1
    expected = -t * y * torch.sigmoid(-y * (t * c + b)) / n
    torch.testing.assert_close(gradients(value, [c])[0], expected.detach(), **EXACT)


def test_byol_is_simsiam_shifted_and_scaled() -> None:
    batch = random_batch()
    byol = small_objective("byol")(replace(batch, target=batch.projection)).loss
    torch.testing.assert_close(byol, 4 + 4 * small_objective("simsiam")(batch).loss, **EXACT)


def test_spectral_loss_factorises_the_covariance() -> None:
    """At Z = Z', diagonal included and μ = 1: ‖Σ - I‖² - D."""
    n, dim = 7, 4
    z = 0.2 * random_batch(images=n).projection[0]
    squares, norms = (z @ z.T).square(), z.square().sum(1)
    without_diagonal = loss("spectral", z.expand(2, -1, -1))
    off_diagonal = without_diagonal + 2 * norms.mean()
    complete = -2 * norms.mean() + (n * (n - 1) * off_diagonal + squares.diagonal().sum()) / n**2
    covariance = z.T @ z / n
    torch.testing.assert_close(complete, (covariance - torch.eye(dim)).square().sum() - dim, **EXACT)


@pytest.mark.parametrize(("images", "dim"), [(4, 9), (9, 4), (5, 5), (2, 3)])
def test_either_gram_matrix_gives_the_statistic(images: int, dim: int) -> None:
    z = random_batch(images=images, dim=dim).projection
    off_diagonal = ~torch.eye(dim, dtype=torch.bool)
    covariances = [torch.cov(view.T)[off_diagonal].square().sum() / dim for view in z]
    torch.testing.assert_close(Covariance()(z), sum(covariances), **EXACT)
    x, y = ((view - view.mean(0)) / (view.var(0, correction=0) + 1e-5).sqrt() for view in z)
    c = x.T @ y / images
    expected = (1 - c.diagonal()).square().sum() + 0.3 * c[off_diagonal].square().sum()
    torch.testing.assert_close(CrossCorrelation(off_diagonal=0.3)(z), expected, **EXACT)


def test_identical_views_correlate_fully() -> None:
    z = 100 * random_batch(images=5).projection[:1].expand(2, -1, -1)
    assert CrossCorrelation(off_diagonal=0.0)(z) < 1e-12  # C_ii = 1, not (N - 1) / N


def test_vicreg_of_twice_the_dimensions() -> None:
    """A copy of every dimension leaves the means alone; only the covariance sees it, in D off-diagonal pairs."""
    z = 0.3 * random_batch(images=8).projection
    double = torch.cat([z, z], dim=2)
    torch.testing.assert_close(Variance()(double), Variance()(z), **EXACT)
    alone = {"covariance_weight": 0.0}
    torch.testing.assert_close(loss("vicreg", double, **alone), loss("vicreg", z, **alone), **EXACT)
    variances = sum(view.var(0).square().sum() / 4 for view in z)
    torch.testing.assert_close(Covariance()(double), 2 * Covariance()(z) + variances, **EXACT)


@pytest.mark.parametrize("name", ["simclr", "supcon", "siglip", "triplet", "align_uniform", "spectral", "moco_v2"])
def test_rotation_changes_nothing(name: str) -> None:
    batch, rotation = random_batch(), random_rotation(4)
    objective = small_objective(name).double()
    turned = replace(batch, projection=batch.projection @ rotation, target=batch.target @ rotation)
    expected = objective.eval()(batch).loss
    if isinstance(objective.negatives, QueueNegatives):
        objective.negatives.queue.copy_(objective.negatives.queue @ rotation)
    torch.testing.assert_close(objective(turned).loss, expected, **EXACT)


@pytest.mark.parametrize(
    "name", ["simclr", "supcon", "siglip", "triplet", "align_uniform", "moco_v2", "nce", "byol", "simsiam"]
)
def test_lengths_change_nothing(name: str) -> None:
    batch = random_batch()
    lengths = torch.linspace(0.1, 7, batch.projection[..., 0].numel()).view(2, -1, 1).double()
    scaled = [getattr(batch, part) * lengths for part in ("projection", "prediction", "target")]
    objective = small_objective(name).double().eval()
    longer = replace(batch, projection=scaled[0], prediction=scaled[1], target=scaled[2])
    torch.testing.assert_close(objective(longer).loss, objective(batch).loss, **EXACT)


def test_barlow_twins_ignores_affine_changes_of_a_dimension() -> None:
    z = 1e3 * random_batch(images=9).projection  # so large that ε = 1e-5 does not show
    scale, shift = torch.tensor([0.5, 20.0, 3.0, 1.0]).double(), torch.tensor([5.0, -2.0, 0.0, 100.0]).double()
    torch.testing.assert_close(loss("barlow_twins", z * scale + shift), loss("barlow_twins", z), rtol=1e-9, atol=1e-9)
    shifted_apart = torch.stack([z[0] * scale + shift, z[1]])
    torch.testing.assert_close(loss("barlow_twins", shifted_apart), loss("barlow_twins", z), rtol=1e-9, atol=1e-9)


def test_vicreg_ignores_a_common_shift() -> None:
    z = random_batch(images=9).projection
    torch.testing.assert_close(loss("vicreg", z + torch.tensor([5.0, -2.0, 0.0, 1.0])), loss("vicreg", z), **EXACT)
    apart = z + torch.tensor([[[1.0]], [[0.0]]])
    assert (loss("vicreg", apart) - loss("vicreg", z)).abs() > 1  # the invariance term sees it


@pytest.mark.parametrize(
    "name", ["simclr", "supcon", "triplet", "align_uniform", "vicreg", "barlow_twins", "lejepa", "nce"]
)
def test_order_of_the_views_does_not_matter(name: str) -> None:
    batch = random_batch(views=3)
    turned = replace(batch, projection=batch.projection.roll(1, 0))
    objectives = [small_objective(name).double() for _ in range(2)]
    torch.testing.assert_close(objectives[0](turned).loss, objectives[1](batch).loss, **EXACT)


@pytest.mark.parametrize("images", [32, 256, 2048])
def test_sigreg_of_normal_embeddings_is_independent_of_their_number(images: int) -> None:
    """N ∫ E|φ̂ - φ|² w = ∫ (1 - e^{-u²}) e^{-u²/2} du over [-3, 3] = 1.0527."""
    z = torch.randn(8, images, 32, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    value = SlicedGaussianity(slices=256)(z)
    expected = math.sqrt(2 * math.pi) * (math.erf(3 / math.sqrt(2)) - math.erf(3 * math.sqrt(1.5)) / math.sqrt(3))
    assert expected == pytest.approx(1.05, abs=0.01)
    assert value.item() == pytest.approx(expected, rel=0.15)
    assert SlicedGaussianity()(0.5 * z) > 2 * value and SlicedGaussianity()(z + 1) > 2 * value


def test_slices_are_unit_and_drawn_anew_in_training() -> None:
    regularizer, z = SlicedGaussianity(slices=5), random_batch().projection
    first, second = regularizer.directions(z), regularizer.directions(z)
    torch.testing.assert_close(first.norm(dim=0), torch.ones(5).double(), **EXACT)
    assert not torch.equal(first, second)
    regularizer.eval()
    assert torch.equal(regularizer.directions(z), regularizer.directions(z))


def test_uniformity_is_bounded() -> None:
    opposite = torch.tensor([[[1.0, 0.0], [-1.0, 0.0]]], dtype=torch.float64)
    torch.testing.assert_close(Uniformity(t=2.0)(opposite), torch.tensor(-8.0).double(), **EXACT)


@pytest.mark.parametrize("alpha", [0.5, 1.0, 1.9])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_alignment_of_equal_views_has_a_gradient(alpha: float, dtype: torch.dtype) -> None:
    a, b = (torch.ones(3, 4, dtype=dtype, requires_grad=True) for _ in range(2))
    value = Attract(power=alpha / 2)(Paired(SquaredEuclidean().paired(a, b)[:, None]), None)
    value.sum().backward()
    assert (a.grad == 0).all() and (b.grad == 0).all() and (value < 1e-9).all()


def test_margin_of_active_negatives_only() -> None:
    positive = torch.tensor([[1.0], [1.0]], dtype=torch.float64)
    negative = torch.tensor([[0.5, 1.1, 9.0, 9.0], [2.0, 3.0, 4.0, 5.0]], dtype=torch.float64)
    everything = Margin(margin=0.2)(Paired(positive), Paired(negative))
    torch.testing.assert_close(everything, torch.tensor([0.8 / 4, 0.0], dtype=torch.float64), **EXACT)
    active = Margin(margin=0.2, active_only=True)(Paired(positive), Paired(negative))
    torch.testing.assert_close(active, torch.tensor([0.8 / 2, 0.0], dtype=torch.float64), **EXACT)


@pytest.mark.parametrize("contrast", [InfoNCE(), Margin()])
def test_anchor_without_a_positive_counts_as_zero(contrast: InfoNCE | Margin) -> None:
    a = random_batch().projection[0].requires_grad_()
    key = torch.tensor([0, 0, 1, 2, 2, 2])  # the third has no other of its class
    rows = {"keys": (key, key)}
    positive = Crossed(SquaredEuclidean(), a, a, **rows, same=True, itself=torch.arange(6))
    value = contrast(positive, Crossed(SquaredEuclidean(), a, a, **rows))
    assert value[2] == 0 and (value[[0, 1, 3]] > 0).any()
    value.sum().backward()
    assert a.grad.isfinite().all()


def test_queue_is_scored_before_it_is_filled() -> None:
    batch = random_batch()
    objective = small_objective("moco_v2", queue_size=6).double()
    initial = objective.negatives.queue.clone()
    torch.testing.assert_close(initial.norm(dim=1), torch.ones(6).double(), rtol=1e-6, atol=1e-6)
    first = objective(batch).loss  # the queue does not hold this batch's targets
    fresh = small_objective("moco_v2", queue_size=6).double().eval()
    assert torch.equal(fresh(batch).loss, first) and torch.equal(fresh.negatives.queue, initial)
    torch.testing.assert_close(objective.negatives.queue, F.normalize(batch.target[1], dim=1), **EXACT)
    # now it does: the positive is also a negative, and its role as positive is what it was
    again = objective(batch)
    logits = F.normalize(batch.projection[0], dim=1) @ F.normalize(batch.target[1], dim=1).T / 0.2
    expected = -logits.diagonal() + torch.cat([logits.diagonal()[:, None], logits], dim=1).logsumexp(1)
    torch.testing.assert_close(again.loss, expected.mean(), **EXACT)
    torch.testing.assert_close(again.terms["energy_positive"], -logits.diagonal().mean(), **EXACT)


@pytest.mark.parametrize(("size", "images"), [(7, 3), (6, 3), (4, 6), (3, 6), (1, 2)])
def test_queue_wraps(size: int, images: int) -> None:
    objective = small_objective("moco_v2", queue_size=size).double()
    ring, place = list(objective.negatives.queue.clone()), 0
    for seed in range(5):
        batch = random_batch(seed, images=images)
        objective(batch)
        for target in F.normalize(batch.target[1], dim=1)[-size:]:
            ring[place], place = target, (place + 1) % size
    torch.testing.assert_close(objective.negatives.queue, torch.stack(ring), **EXACT)
    assert objective.negatives.position == place


def test_memory_is_a_moving_average_of_unit_vectors() -> None:
    objective = small_objective("nce", bank_momentum=0.7).double()
    vectors = objective.target.vectors.clone()
    assert vectors.abs().max() <= (3 / 4) ** 0.5 and len(vectors) == BANK
    for seed in range(4):
        batch = random_batch(seed)
        objective(batch)
        for i, k in enumerate(batch.index.tolist()):
            z = sum(view[i] / view[i].norm() for view in batch.projection) / 2
            v = 0.7 * vectors[k] + 0.3 * z
            vectors[k] = v / v.norm()
    torch.testing.assert_close(objective.target.vectors, vectors, **EXACT)


def test_partition_is_that_of_the_first_batch() -> None:
    objective = small_objective("nce", temperature=0.5).double()
    batch, vectors = random_batch(), objective.target.vectors.clone()
    drawn = torch.randint(BANK, (7,), generator=torch.Generator().manual_seed(0))
    similarities = F.normalize(batch.projection.flatten(0, 1), dim=1) @ F.normalize(vectors[drawn], dim=1).T
    objective(batch)
    expected = (BANK * (similarities / 0.5).exp().mean()).log()
    torch.testing.assert_close(objective.contrast.log_partition, expected, **EXACT)
    frozen = objective.contrast.log_partition.clone()
    objective(random_batch(1))
    assert torch.equal(objective.contrast.log_partition, frozen)


def test_noise_is_drawn_anew_in_training() -> None:
    objective = small_objective("nce")
    batch = random_batch()
    objective.eval()
    assert torch.equal(objective(batch).loss, objective(batch).loss)
    draws = [torch.randint(100, (9,), generator=objective.negatives.draws.generator()) for _ in range(2)]
    assert torch.equal(*draws)
    objective.train()
    draws = [torch.randint(100, (9,), generator=objective.negatives.draws.generator()) for _ in range(2)]
    assert not torch.equal(*draws)


def test_teacher_momentum() -> None:
    byol, moco = small_objective("byol"), small_objective("moco_v2")
    for progress, expected in ((0.0, 0.996), (0.5, 0.998), (1.0, 1.0), (0.25, 1 - 0.004 * (1 + math.sqrt(0.5)) / 2)):
        byol.set_progress(progress)
        moco.set_progress(progress)
        assert byol.teacher_momentum == pytest.approx(expected, abs=1e-12)
        assert moco.teacher_momentum == 0.999
    for name in OBJECTIVES:
        objective = small_objective(name)
        assert (objective.teacher_momentum is None) == ("target" not in objective.uses)


def test_heads_of_the_papers() -> None:
    wide = (8192, 8192)
    expected = {
        "simclr": (MLP(hidden=(2048, 2048), out=128, output_norm="batch_no_bias"), None),
        "supcon": (MLP(hidden=(2048,), out=128, hidden_norm=False), None),
        "moco_v2": (MLP(hidden=(2048,), out=128, hidden_norm=False), None),
        "spectral": (MLP(hidden=(2048,), out=1000, output_norm="batch"), None),
        "nce": (MLP(hidden=(), out=128), None),
        "vicreg": (MLP(hidden=wide, out=8192, output_bias=False), None),
        "barlow_twins": (MLP(hidden=wide, out=8192, output_norm="batch_no_affine"), None),
        "lejepa": (MLP(hidden=(2048, 2048), out=16), None),
        "byol": (MLP(hidden=(4096,), out=256, output_bias=False),) * 2,
        "simsiam": (MLP(hidden=(2048, 2048), out=2048, output_norm="batch_no_affine"), MLP(hidden=(512,), out=2048)),
    }
    for name, heads in expected.items():
        objective = create_objective(name, **({"bank_size": 10} if name == "nce" else {}))
        assert (objective.heads.projector, objective.heads.predictor) == heads, name


def test_sizes_of_the_papers() -> None:
    moco, nce = create_objective("moco_v2"), create_objective("nce", bank_size=10)
    assert moco.negatives.queue.shape == (65536, 128)
    assert nce.negatives.count == 4096 and nce.target.momentum == 0.5
    lejepa = create_objective("lejepa").regularizers["gaussianity"]
    assert (lejepa.slices, lejepa.knots) == (256, 17)
    siglip = create_objective("siglip")
    assert siglip.energy.log_scale.item() == pytest.approx(math.log(10)) and siglip.contrast.bias == -10


def test_small_batches_of_statistics_are_refused() -> None:
    one = torch.zeros(2, 1, 3)
    for regularizer in (Variance(), Covariance(), CrossCorrelation(), Uniformity()):
        with pytest.raises(ValueError, match="batch of at least 2 images, got 1"):
            regularizer(one)
    with pytest.raises(ValueError, match="at least 2 views, got 1"):
        CrossCorrelation()(torch.zeros(1, 4, 3))


def test_half_precision_parts_become_float32() -> None:
    batch = random_batch(dtype=torch.bfloat16).float()
    assert batch.projection.dtype == batch.target.dtype == torch.float32
    assert batch.index.dtype == torch.int64
    assert Embeddings(projection=random_batch().projection).float().projection.dtype == torch.float64

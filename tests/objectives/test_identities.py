"""Values known in closed form, what leaves an objective unchanged, and how objectives are related."""

import math
from dataclasses import replace

import pytest
import torch
from small import DIM, constant_batch, random_batch, small_objective
from torch import Tensor
from torch.nn import functional as F

from ssl_ebm.networks.embeddings import Embeddings
from ssl_ebm.networks.heads import MLP
from ssl_ebm.objectives import create_objective
from ssl_ebm.objectives.parts.regularizers import Covariance, CrossCorrelation, SlicedGaussianity, Uniformity, Variance

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
        "dcl": math.log(2 * n - 2),
        "dclw": math.log(2 * n - 2),
        "moco_v3": 4 * math.log(n),
        "nnclr": math.log(n),
        "cpc": math.log(n),
        "square_square": 1.0,
        "vicreg": 24.75,
        "siglip": n * math.log(2),  # t + b = 0 by default
        "barlow_twins": dim,
        "align_uniform": 0.0,
        "triplet": 0.2,
        "spectral": -1.0,
        "simsiam": -1.0,
        "byol": 0.0,
        "directpred": 0.0,
        "dino": math.log(dim),
    }
    for name, value in values.items():
        batch = replace(constant_batch(images=n, dim=dim), projection=collapsed)
        constants = {"learnable": False} if name == "siglip" else {}
        got = small_objective(name, dim=dim, **constants).double()(batch).loss
        torch.testing.assert_close(got, torch.tensor(value, dtype=torch.float64), **EXACT)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("jsd", 2 * math.log(2)),
        ("nwj", math.exp(-1)),
        ("dino", math.log(DIM)),
        ("swav", math.log(5)),
        ("msn", math.log(5)),
        ("supervised", math.log(DIM)),
    ],
)
def test_values_without_information(name: str, value: float) -> None:
    """At E = 0, a classifier's chance level; at uniform codes their entropy, and none is used more than another."""
    got = small_objective(name).double()(constant_batch(0.0)).loss
    torch.testing.assert_close(got, torch.tensor(value, dtype=torch.float64), **EXACT)


def test_largest_bound_without_information_is_zero() -> None:
    """NWJ at its optimum for independent views, E = -1: no mutual information."""
    one = constant_batch(DIM**-0.5).projection
    torch.testing.assert_close(loss("nwj", one), torch.tensor(0.0, dtype=torch.float64), **EXACT)


def test_regularizers_at_the_collapse() -> None:
    z = constant_batch(images=5, dim=6).projection
    for regularizer, value in ((Variance(), 0.99), (Covariance(), 0.0), (CrossCorrelation(), 6.0), (Uniformity(), 0.0)):
        torch.testing.assert_close(regularizer(z), torch.tensor(value, dtype=torch.float64), **EXACT)


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


def test_byol_is_simsiam_shifted_and_scaled() -> None:
    batch = random_batch()
    byol = small_objective("byol")(replace(batch, target=batch.projection)).loss
    torch.testing.assert_close(byol, 4 + 4 * small_objective("simsiam")(batch).loss, **EXACT)


def test_directpred_starts_as_byol_without_a_predictor() -> None:
    batch = random_batch()
    byol = small_objective("byol")(replace(batch, prediction=batch.projection)).loss
    torch.testing.assert_close(small_objective("directpred")(batch).loss, byol, rtol=1e-6, atol=1e-6)


def test_moco_v3_is_weighted_cpc_of_unit_vectors() -> None:
    """Without predictor and teacher: CE both ways, 2τ · (CE + CE), E = -<z, z'> / τ."""
    batch, temperature = random_batch(), 0.3
    unit = F.normalize(batch.projection, dim=2)
    objective = small_objective("moco_v3", temperature=temperature).double()
    expected = [loss("cpc", torch.stack([unit[v] / temperature, unit[1 - v]])) for v in range(2)]
    got = objective(replace(batch, prediction=batch.projection, target=batch.projection)).loss
    torch.testing.assert_close(got, 2 * temperature * sum(expected), **EXACT)


def test_nnclr_with_the_batch_in_its_queue_is_moco_v3() -> None:
    """The neighbour of a projection that the queue holds is itself: the roles of rows and columns differ."""
    batch = random_batch(images=9)
    nnclr = small_objective("nnclr", temperature=1.0).double()
    nnclr.target.queue.push(batch.projection[0])
    same = replace(batch, projection=batch.projection[:1].expand(2, -1, -1))
    transposed = replace(same, prediction=same.projection, target=batch.prediction)
    moco = small_objective("moco_v3", temperature=1.0).double()
    swapped = replace(transposed, target=transposed.target.flip(0))  # view v of the predictions against the other's row
    assert nnclr(same).loss.isfinite()
    torch.testing.assert_close(4 * nnclr.eval()(same).loss, moco(swapped).loss, **EXACT)


def test_codes_of_equal_views_cost_their_entropy() -> None:
    """H(q, p) ≥ H(q), with equality where both temperatures are one and nothing is centred."""
    batch = random_batch()
    objective = small_objective("dino", temperature=0.7, teacher_temperature=0.7).double()
    p = F.softmax(batch.projection[0] / 0.7, dim=1)
    same = batch.projection[:1].expand(2, -1, -1)
    entropy = -(p * p.log()).sum(1).mean()
    torch.testing.assert_close(objective(replace(batch, projection=same, target=same)).loss, entropy, **EXACT)
    objective.target.center.zero_()
    assert objective(replace(batch, projection=batch.projection[1:].expand(2, -1, -1), target=same)).loss > entropy


def test_swav_and_msn_share_codes_with_dino() -> None:
    """Their prototypes as a layer of the network, and Sinkhorn as its target."""
    batch = random_batch()
    swav = small_objective("swav", temperature=0.2, epsilon=0.3).double()
    logits = swav.energy.codes.logits(batch.projection)
    dino = small_objective("dino", dim=5, temperature=0.2, teacher_temperature=0.3, assignment="sinkhorn").double()
    expected = dino(replace(random_batch(dim=5), projection=logits, target=logits)).loss
    torch.testing.assert_close(swav(batch).loss, expected, **EXACT)
    msn = small_objective("msn", temperature=0.2, target_temperature=0.5, iterations=0, entropy_weight=0.0).double()
    logits, target = (msn.energy.codes.logits(z) for z in (batch.projection, batch.target))
    dino = small_objective("dino", dim=5, temperature=0.2, teacher_temperature=0.1).double()
    expected = dino(replace(random_batch(dim=5), projection=logits, target=target)).loss
    torch.testing.assert_close(msn(batch).loss, expected, **EXACT)


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


ON_SPHERE = [
    *("simclr", "supcon", "moco_v2", "moco_v3", "nnclr", "dcl", "dclw", "triplet", "square_square", "align_uniform"),
    *("nce", "siglip", "byol", "simsiam"),
]


@pytest.mark.parametrize("name", [*ON_SPHERE, "spectral", "cpc", "jsd", "nwj", "directpred"])
def test_rotation_changes_nothing(name: str) -> None:
    batch, rotation = random_batch(), random_rotation(4)
    objective = small_objective(name).double().eval()
    parts = {part: getattr(batch, part) @ rotation for part in ("projection", "prediction", "target")}
    expected = objective(batch).loss
    for vectors in (buffer for name, buffer in objective.named_buffers() if name.endswith("vectors")):
        vectors.copy_(vectors @ rotation)
    torch.testing.assert_close(objective(replace(batch, **parts)).loss, expected, **EXACT)


@pytest.mark.parametrize("name", [*ON_SPHERE, "directpred", "swav", "msn"])
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


@pytest.mark.parametrize("images", [32, 256, 1024])
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


def test_queue_is_scored_before_it_is_filled() -> None:
    batch = random_batch()
    objective = small_objective("moco_v2", queue_size=6).double()
    queue = objective.negatives.queue
    initial = queue.vectors.clone()
    first = objective(batch).loss  # the queue does not hold this batch's targets
    fresh = small_objective("moco_v2", queue_size=6).double().eval()
    assert torch.equal(fresh(batch).loss, first) and torch.equal(fresh.negatives.queue.vectors, initial)
    torch.testing.assert_close(queue.vectors, F.normalize(batch.target[1], dim=1), **EXACT)
    # now it does: the positive is also a negative, and its role as positive is what it was
    again = objective(batch)
    logits = F.normalize(batch.projection[0], dim=1) @ F.normalize(batch.target[1], dim=1).T / 0.2
    expected = -logits.diagonal() + torch.cat([logits.diagonal()[:, None], logits], dim=1).logsumexp(1)
    torch.testing.assert_close(again.loss, expected.mean(), **EXACT)
    torch.testing.assert_close(again.terms["energy_positive"], -logits.diagonal().mean(), **EXACT)


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
        "moco_v3": (
            MLP(hidden=(4096,), out=256, output_norm="batch_no_affine"),
            MLP(hidden=(4096,), out=256, output_bias=False),
        ),
        "nnclr": (MLP(hidden=(2048, 2048), out=256, output_norm="batch"), MLP(hidden=(4096,), out=256)),
        "wmse": (MLP(hidden=(1024,), out=64), None),
        "tico": (MLP(hidden=(4096,), out=256), None),
        "ssl_hsic": (MLP(hidden=(4096,), out=256, output_bias=False),) * 2,
        "byol": (MLP(hidden=(4096,), out=256, output_bias=False),) * 2,
        "directpred": (MLP(hidden=(4096,), out=256, output_bias=False), None),
        "dino": (
            MLP(
                hidden=(2048, 2048),
                out=256,
                activation="gelu",
                hidden_norm=False,
                prototypes=65536,
                frozen_prototypes=0.01,
            ),
            None,
        ),
        "swav": (MLP(hidden=(2048,), out=128), None),
        "msn": (MLP(hidden=(2048, 2048), out=256, activation="gelu"), None),
        "supervised": (MLP(hidden=(), out=10), None),
        "simsiam": (MLP(hidden=(2048, 2048), out=2048, output_norm="batch_no_affine"), MLP(hidden=(512,), out=2048)),
    }
    for name, heads in expected.items():
        objective = create_objective(name)
        assert (objective.heads.projector, objective.heads.predictor) == heads, name


def test_sizes_of_the_papers() -> None:
    moco, nce = create_objective("moco_v2"), create_objective("nce")
    assert moco.negatives.queue.vectors.shape == (65536, 128)
    assert create_objective("nnclr").target.queue.vectors.shape == (98304, 256)
    assert create_objective("swav").energy.codes.prototypes.shape == (3000, 128)
    assert create_objective("msn").energy.codes.prototypes.shape == (1024, 256)
    assert create_objective("dino").target.center.shape == (65536,)
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

"""What energies mean at their optimum: each contrast is minimised where the pointwise mutual information is known."""

import itertools
import math
from collections.abc import Callable

import pytest
import torch
from small import DIM, batch_for, random_batch, small_objective
from torch import Tensor
from torch.distributions import MultivariateNormal

from ssl_ebm.energies.canonical import (
    CanonicalCorrelation,
    CanonicalForm,
    Gaussian,
    LogRatio,
    Offset,
    Partition,
    Ratio,
    Shifted,
    WithUnitMarginals,
    mutual_information,
)
from ssl_ebm.energies.codes import Codes, SharedCode
from ssl_ebm.energies.index import EnergyIndex
from ssl_ebm.energies.pairwise import Bilinear, Cosine, Distance, Dot, Energy, SquaredEuclidean
from ssl_ebm.energies.rows import Paired
from ssl_ebm.objectives import OBJECTIVES
from ssl_ebm.objectives.parts.contrasts import Contrast, InfoNCE, Spectral
from ssl_ebm.objectives.parts.noise_contrasts import NWJ, JensenShannon, NoiseContrastive, Sigmoid

EXACT = {"rtol": 1e-12, "atol": 1e-12}

# how often x and y occur together, in 36; y is uniform, as instances are
COUNTS = torch.tensor([[6.0, 1, 1, 1], [1, 5, 2, 1], [1, 1, 3, 6], [1, 2, 3, 1]], dtype=torch.float64)
JOINT = COUNTS / COUNTS.sum()
SIZE = len(JOINT)
PMI = (JOINT / (JOINT.sum(1, keepdim=True) * JOINT.sum(0))).log()
ONE_HOT = torch.eye(SIZE, dtype=torch.float64)


def views(images: int, *, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    z = torch.randn(images, DIM, generator=generator, dtype=torch.float64)
    return torch.stack([z, z + torch.randn(images, DIM, generator=generator, dtype=torch.float64)])


def table(energies: Tensor) -> Bilinear:
    """The energy of one-hot embeddings, E(x, y) as listed."""
    energy = Bilinear(dim=SIZE).double()
    energy.weight.data.copy_(-energies)
    return energy


def bank(copies: int = 50) -> tuple[Tensor, Tensor]:
    """Pairs as often as they occur."""
    x, y = (COUNTS > 0).nonzero(as_tuple=True)
    times = (COUNTS[x, y] * copies).long()
    return ONE_HOT[x.repeat_interleave(times)], ONE_HOT[y.repeat_interleave(times)]


def optimum(contrast: Contrast, *, negatives: int | None) -> Tensor:
    """A free table of energies, minimised over all pairs and all draws of so many negatives.

    None: the negatives are the whole population.
    """
    x, y = (COUNTS > 0).nonzero(as_tuple=True)
    prior = JOINT.sum(0)
    if negatives is None:
        draws = torch.arange(SIZE).repeat_interleave(COUNTS.sum(0).long())[None]
        chance = torch.ones(1, dtype=torch.float64)
    else:
        draws = torch.tensor(list(itertools.product(range(SIZE), repeat=negatives)))
        chance = prior[draws].prod(1)
    weight = (JOINT[x, y][:, None] * chance).flatten()
    energies = torch.zeros(SIZE, SIZE, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS(
        [energies], max_iter=500, tolerance_grad=1e-9, tolerance_change=0, line_search_fn="strong_wolfe"
    )

    def loss() -> Tensor:
        optimizer.zero_grad()
        positive = energies[x, y].repeat_interleave(len(draws))[:, None]
        negative = energies[x[:, None, None], draws].flatten(0, 1)
        value = (weight * contrast(Paired(positive), Paired(negative))).sum()
        value.backward()
        return value.detach()

    optimizer.step(loss)
    assert energies.grad.abs().max() < 1e-6
    return energies.detach()


CONTRASTS: dict[str, tuple[Callable[[], Contrast], int | None]] = {
    "InfoNCE of one negative": (InfoNCE, 1),
    "InfoNCE": (InfoNCE, 3),
    "DCL": (lambda: InfoNCE(decoupled=True), None),
    "SigLIP": (lambda: Sigmoid(bias=-1.5, learnable=False), 3),
    "NCE": (lambda: NoiseContrastive(population=SIZE), 3),
    "JSD": (JensenShannon, 2),
    "NWJ": (NWJ, 2),
    "spectral": (Spectral, 2),
    "spectral, scaled": (lambda: Spectral(mu=4.0), 2),
}


@pytest.mark.parametrize("name", CONTRASTS)
def test_canonical_energy_at_the_optimum_is_minus_the_pmi(name: str) -> None:
    build, negatives = CONTRASTS[name]
    contrast = build().double()
    energies = optimum(contrast, negatives=negatives)
    canonical = contrast.canonical_form.fit(table(energies), *bank()).double()
    tolerance = 1e-2 if isinstance(contrast.canonical_form, Partition) else 1e-5  # a bank leaves own pairs out
    torch.testing.assert_close(canonical.cross(ONE_HOT, ONE_HOT), -PMI, rtol=0, atol=tolerance)
    torch.testing.assert_close(mutual_information(canonical, *bank()), (JOINT * PMI).sum(), rtol=0, atol=tolerance)


@pytest.mark.parametrize(
    ("name", "relation"),
    [
        ("InfoNCE", lambda e: (-e - PMI) - (-e - PMI)[:, :1]),  # PMI + c(x)
        ("DCL", lambda e: (-e - PMI) - (-e - PMI)[:, :1]),
        ("SigLIP", lambda e: -e - (PMI - math.log(3) + 1.5)),  # PMI - log m - b
        ("NCE", lambda e: -e - PMI - (-e - PMI).mean()),  # PMI + log(Z / n)
        ("JSD", lambda e: -e - PMI),
        ("NWJ", lambda e: -e - (PMI + 1)),
        ("spectral", lambda e: -e - PMI.exp()),
    ],
)
def test_what_the_optimum_means(name: str, relation: Callable[[Tensor], Tensor]) -> None:
    build, negatives = CONTRASTS[name]
    difference = relation(optimum(build().double(), negatives=negatives))
    torch.testing.assert_close(difference, torch.zeros_like(difference), rtol=0, atol=1e-5)


def test_optimal_losses_are_bounds_on_the_mutual_information() -> None:
    information = float((JOINT * PMI).sum())
    x, y = (COUNTS > 0).nonzero(as_tuple=True)
    population = (-PMI - 1).repeat_interleave(COUNTS.sum(0).long(), dim=1)
    nwj = NWJ()(Paired((-PMI - 1)[x, y][:, None]), Paired(population[x]))
    assert -float((JOINT[x, y] * nwj).sum()) == pytest.approx(information, abs=1e-9)
    info_nce = InfoNCE()(Paired(-PMI[x, y][:, None]), Paired(-PMI.repeat_interleave(COUNTS.sum(0).long(), dim=1)[x]))
    bound = math.log(COUNTS.sum() + 1) - float((JOINT[x, y] * info_nce).sum())
    assert 0 < bound < information


@pytest.mark.parametrize("temperature", [0.8, 3.0])
def test_offsets_of_either_side_change_no_referred_energy(temperature: float) -> None:
    generator = torch.Generator().manual_seed(0)
    a, b = views(40)
    c, d = (torch.randn(SIZE, generator=generator, dtype=torch.float64) for _ in range(2))
    plain = table(-torch.randn(SIZE, SIZE, generator=generator, dtype=torch.float64) / temperature)

    class Moved(Bilinear):
        def factor(self, x: Tensor, side: str) -> tuple[Tensor, Tensor]:
            vectors, _ = super().factor(x, side)
            return type(plain.factor(x, side))(vectors, x @ (c if side == "anchor" else d))

    moved = Moved(dim=SIZE).double()
    moved.weight.data.copy_(plain.weight)
    expected = WithUnitMarginals(plain, a, b, iterations=200).cross(a[:5], b[5:9])
    assert (moved.cross(a[:5], b[5:9]) - plain.cross(a[:5], b[5:9])).abs().max() > 1
    torch.testing.assert_close(
        WithUnitMarginals(moved, a, b, iterations=200).cross(a[:5], b[5:9]), expected, rtol=0, atol=1e-6
    )


@pytest.mark.parametrize("energy", [Cosine(temperature=0.1), SquaredEuclidean(scale=0.2), table(PMI)], ids=repr)
def test_referred_energies_have_mean_one_over_other_images(energy: Energy) -> None:
    a, b = views(60)
    image = torch.arange(60)
    referred = WithUnitMarginals(energy.double(), a, b, iterations=200)
    if energy.symmetric:
        a, b, image = torch.cat([a, b]), torch.cat([a, b]), image.repeat(2)
    f, g = energy.factor(a, "anchor").vectors, energy.factor(b, "candidate").vectors
    torch.testing.assert_close(referred.anchors[:, :-1], f)
    torch.testing.assert_close(referred.candidates[:, :-1], g)
    density = torch.exp(f @ g.T + referred.anchors[:, -1:] + referred.candidates[:, -1])
    density = density.masked_fill(image[:, None] == image, 0) / (image != 0).sum()
    for dim in (0, 1):
        torch.testing.assert_close(density.sum(dim), torch.ones(len(a)).double(), rtol=0, atol=1e-6)
    # and what it gives to others is the same average
    new = torch.randn(5, DIM, generator=torch.Generator().manual_seed(7), dtype=torch.float64)
    density = torch.exp(energy.factor(new, "anchor").vectors @ g.T + referred.candidates[:, -1])
    torch.testing.assert_close(referred.factor(new, "anchor").offset, density.mean(1).log(), rtol=1e-10, atol=1e-10)


def test_information_is_bounded_by_the_size_of_the_bank() -> None:
    a, b = views(20)
    for scale in (0.1, 1.0, 100.0):
        value = mutual_information(SquaredEuclidean(scale=scale), a, a + 0.01 * b)
        assert value < math.log(20) + 1e-12
    torch.testing.assert_close(value.item(), math.log(20))
    torch.testing.assert_close(mutual_information(Cosine(temperature=1e6), a, b).item(), 0.0, rtol=0, atol=1e-5)


def canonical_energies() -> dict[str, Energy]:
    a, b = views(40)
    codes = SharedCode(Codes(temperature=0.5), count=4).double()
    return {
        "as it is": CanonicalForm().fit(Cosine(temperature=0.5), a, b),
        "shifted": Offset(0.7, meaning="").fit(Cosine(temperature=0.5), a, b),
        "shifted, with a link": Shifted(Distance(), torch.tensor(0.7)),
        "referred": Partition().fit(Cosine(temperature=0.2), a, b),
        "referred, with offsets": Partition().fit(SquaredEuclidean(scale=0.5), a, b),
        "referred, not symmetric": Partition().fit(Bilinear(dim=4).double(), a, b),
        "ratio": Ratio().fit(Dot(max_norm=1.0), a, b),
        "canonical correlations": Gaussian().fit(SquaredEuclidean(), a, b),
        "codes": CanonicalForm().fit(codes, a, b),
    }


@pytest.mark.parametrize("name", canonical_energies())
def test_canonical_energies_are_energies(name: str) -> None:
    energy = canonical_energies()[name].double()
    if name == "referred, not symmetric":
        energy.energy.weight.data.copy_(PMI)
    a, b = views(12, seed=3)
    matrix = energy.cross(a, b)
    torch.testing.assert_close(energy.paired(a, b), matrix.diagonal(), rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(energy.paired(a[:1], b[:1])[0], matrix[0, 0], rtol=1e-10, atol=1e-10)
    if energy.symmetric:
        torch.testing.assert_close(matrix, energy.cross(b, a).T, rtol=1e-10, atol=1e-10)
    f, g = energy.factor(a, "anchor"), energy.factor(b, "candidate")
    raw = -f.vectors @ g.vectors.T
    raw = raw + (0 if f.offset is None else f.offset[:, None]) + (0 if g.offset is None else g.offset)
    torch.testing.assert_close(energy.link(raw), matrix, rtol=1e-10, atol=1e-10)
    single = energy.float()
    found, positions = EnergyIndex(single, b.float()).search(a.float(), 12)
    expected = matrix.gather(1, positions).float()
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)
    assert (found.diff(dim=1) >= -1e-4).all()


@pytest.mark.parametrize("correlations", [[0.9, 0.5, -0.7], [0.0, 0.3, 0.99], [-0.2, -0.4, -0.6]], ids=str)
def test_canonical_correlations_by_the_density(correlations: list[float]) -> None:
    """The bank's moments are made exact; any coordinates and any mean."""
    generator = torch.Generator().manual_seed(0)
    n, rho = 200, torch.tensor(correlations, dtype=torch.float64)
    white = torch.randn(n, 6, generator=generator, dtype=torch.float64)
    white = white - white.mean(0)
    white = torch.linalg.solve_triangular(torch.linalg.cholesky(white.T @ white / n), white.T, upper=False).T
    u, v = white[:, :3], white[:, :3] * rho + white[:, 3:] * (1 - rho**2).sqrt()
    mixing = torch.randn(3, 3, generator=generator, dtype=torch.float64)
    mean = torch.tensor([5.0, -3.0, 0.5], dtype=torch.float64)
    energy = CanonicalCorrelation(u @ mixing + mean, v @ mixing + mean)
    within, across = mixing.T @ mixing, mixing.T @ (rho[:, None] * mixing)
    joint = MultivariateNormal(
        mean.repeat(2), torch.cat([torch.cat([within, across], 1), torch.cat([across, within], 1)])
    )
    alone = MultivariateNormal(mean, within)
    a, b = (torch.randn(7, 3, generator=generator, dtype=torch.float64) @ mixing + mean for _ in range(2))
    pmi = joint.log_prob(torch.cat([a, b], 1)) - alone.log_prob(a) - alone.log_prob(b)
    torch.testing.assert_close(energy.paired(a, b), -pmi, rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(energy.correlations.sort().values, rho.sort().values, rtol=1e-9, atol=1e-9)
    information = -(1 - rho**2).log().sum() / 2
    value = mutual_information(energy, u @ mixing + mean, v @ mixing + mean)
    torch.testing.assert_close(value, information, rtol=0, atol=0.05)


def test_canonical_correlations_of_degenerate_banks() -> None:
    a, b = views(40)
    flat = torch.cat([a, a[:, :1]], 1), torch.cat([b, b[:, :1]], 1)  # one dimension twice
    plain, doubled = CanonicalCorrelation(a, b), CanonicalCorrelation(*flat)
    torch.testing.assert_close(doubled.paired(*flat), plain.paired(a, b), rtol=1e-7, atol=1e-7)
    same = CanonicalCorrelation(a, a)
    assert same.paired(a, a).isfinite().all() and same.correlations.max() == 0.9999
    constant = CanonicalCorrelation(torch.ones(40, 4), torch.ones(40, 4))
    assert (constant.paired(a, b) == 0).all()
    with pytest.raises(ValueError, match="canonical correlations of 4 dimensions need more than 8 pairs, got 8"):
        CanonicalCorrelation(a[:8], b[:8])


def test_shared_code_is_the_pmi_of_views_that_a_code_explains() -> None:
    generator = torch.Generator().manual_seed(0)
    prior = torch.tensor([0.2, 0.3, 0.5], dtype=torch.float64)
    given_code = torch.rand(3, 5, generator=generator, dtype=torch.float64)
    given_code = given_code / given_code.sum(1, keepdim=True)
    joint = torch.einsum("k,kx,ky->xy", prior, given_code, given_code)
    single = joint.sum(0)
    posterior = (prior[:, None] * given_code / single).T
    energy = SharedCode(Codes(temperature=0.3), count=3).double()
    energy.marginal.copy_(prior)
    z = 0.3 * posterior.log()
    pmi = (joint / (single[:, None] * single)).log()
    torch.testing.assert_close(energy.cross(z, z), -pmi, rtol=1e-9, atol=1e-9)


def test_density_ratios_have_a_floor() -> None:
    energy = LogRatio(Dot(), floor=0.1)
    a, b = torch.tensor([[1.0], [1.0], [2.0]]), torch.tensor([[-3.0], [0.01], [1.0]])
    torch.testing.assert_close(energy.paired(a, b), -torch.tensor([0.1, 0.1, 2.0]).log())


def test_energies_with_a_link_cannot_be_referred() -> None:
    a, b = views(6)
    with pytest.raises(ValueError, match="Distance has a link: no offsets of its own can be taken from it"):
        Partition().fit(Distance(), a, b)
    with pytest.raises(ValueError, match="a bank needs at least 2 images, got 1"):
        Partition().fit(Cosine(), a[:1], b[:1])


GAUGES: dict[type[CanonicalForm] | None, list[str]] = {
    Partition: ["simclr", "supcon", "moco_v2", "dcl", "cpc"],
    Offset: ["nce", "nwj", "siglip"],
    Ratio: ["spectral"],
    Gaussian: ["vicreg", "barlow_twins", "wmse", "corinfomax", "lejepa"],
    CanonicalForm: ["jsd", "dino", "swav", "msn", "supervised"],
    None: [
        *("moco_v3", "nnclr", "dclw", "triplet", "square_square", "align_uniform"),
        *("tico", "mmcr", "mcr2", "emp_ssl", "ssl_hsic", "byol", "simsiam", "directpred"),
    ],
}


@pytest.mark.parametrize("name", OBJECTIVES)
def test_gauge_of_every_objective(name: str) -> None:
    objective = small_objective(name).double()
    objective(batch_for(objective))
    kind = next(kind for kind, names in GAUGES.items() if name in names)
    canonical_form = objective.canonical_form
    assert (None if canonical_form is None else type(canonical_form)) is kind
    if canonical_form is not None:
        energy = canonical_form.fit(objective.scorer, *views(40, seed=5))
        assert energy.paired(*views(6, seed=6)).isfinite().all()


def test_constants_of_training_are_in_the_gauge() -> None:
    batch = random_batch()
    siglip = small_objective("siglip", bias=-2.5)
    siglip(batch)
    assert siglip.canonical_form.offset.item() == pytest.approx(2.5 - math.log(5))
    by_label = small_objective("siglip", bias=-2.5, graph="labels")
    by_label(batch)
    positives = (batch.label[:, None] == batch.label).sum().item()
    assert by_label.canonical_form.offset.item() == pytest.approx(2.5 - math.log((36 - positives) / positives))
    nce = small_objective("nce")
    nce(batch)
    assert nce.canonical_form.offset.item() == pytest.approx(nce.contrast.log_partition.item() - math.log(20), rel=1e-6)
    assert small_objective("nwj").canonical_form.offset == 1

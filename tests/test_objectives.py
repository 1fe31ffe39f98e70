"""What every objective promises; what each is, is in the tests of its parts and in `test_identities.py`."""

import copy
import inspect
import io
from dataclasses import replace
from typing import Any

import pytest
import torch
from reference import ORACLES
from small import constant_batch, gradients, random_batch, select, small_objective, transform, with_gradients
from torch import Tensor

from ssl_ebm import tiles
from ssl_ebm.contrasts import Attract, InfoNCE, NoiseContrastive
from ssl_ebm.embeddings import Embeddings
from ssl_ebm.energies import Cosine
from ssl_ebm.evaluation.diagnostics import rankme
from ssl_ebm.heads import MLP, HeadSpec
from ssl_ebm.negatives import BatchNegatives, MemoryNegatives, QueueNegatives
from ssl_ebm.objectives import FAMILIES, OBJECTIVES, Objective, Step, create_objective, list_objectives

every_objective = pytest.mark.parametrize("name", OBJECTIVES)
every_collapsing_objective = pytest.mark.parametrize(
    "name", [name for family, members in FAMILIES.items() if family != "asymmetric" for name in members]
)

OTHER_CONSTANTS: dict[str, dict[str, Any]] = {
    "simclr": {"temperature": 0.5},
    "supcon": {"temperature": 0.3},
    "moco_v2": {"temperature": 0.4},
    "triplet": {"margin": 1.5},
    "align_uniform": {"alpha": 3.0, "t": 0.7, "uniformity_weight": 0.4},
    "spectral": {"mu": 4.0},
    "nce": {"temperature": 0.3},
    "siglip": {"temperature": 0.5, "bias": 0.3},
    "vicreg": {"invariance_weight": 3.0, "variance_weight": 7.0, "covariance_weight": 2.0},
    "barlow_twins": {"off_diagonal": 0.3, "weight": 0.024},
    "lejepa": {"gaussianity_weight": 0.4, "knots": 9},
    "byol": {},
    "simsiam": {},
}


def oracle_loss(name: str, objective: Objective, batch: Embeddings, constants: dict[str, Any]) -> Tensor:
    """The oracle's loss of a batch that the objective has not seen, with its memory, draws and parameters."""
    arguments: dict[str, Any] = dict(constants, z=batch.projection, prediction=batch.prediction, target=batch.target)
    arguments |= {"label": batch.label.tolist(), "index": batch.index.tolist()}
    frozen = copy.deepcopy(objective)  # so that the draws are not used up
    if isinstance(frozen.negatives, QueueNegatives):
        arguments["queue"] = frozen.negatives.queue
    if isinstance(frozen.negatives, MemoryNegatives):
        generator = frozen.negatives.draws.generator()
        arguments["memory"] = frozen.target.vectors
        arguments["drawn"] = torch.randint(len(frozen.target.vectors), (7,), generator=generator).tolist()
    if isinstance(frozen.contrast, NoiseContrastive) and not frozen.contrast.log_partition.isnan():
        arguments["partition"] = frozen.contrast.log_partition.exp()
    if "gaussianity" in frozen.regularizers:
        arguments["directions"] = frozen.regularizers["gaussianity"].directions(batch.projection)
    parameters = dict(objective.named_parameters())
    if "energy.log_scale" in parameters:
        arguments |= {"scale": parameters["energy.log_scale"].exp(), "bias": parameters["contrast.bias"]}
    oracle = ORACLES[name]
    return oracle(**{k: v for k, v in arguments.items() if k in inspect.signature(oracle).parameters})


def assert_same_state(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    assert one.keys() == other.keys()
    for name in one:
        assert torch.equal(one[name].nan_to_num(nan=-1.0), other[name].nan_to_num(nan=-1.0)), name


def snapshot(objective: Objective) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in objective.state_dict().items()}


def anchors(batch: Embeddings, objective: Objective) -> Tensor:
    part = batch.prediction if "prediction" in objective.uses else batch.projection
    assert part is not None
    return part


def test_every_objective_has_an_oracle() -> None:
    assert list(ORACLES) and set(ORACLES) == set(OTHER_CONSTANTS) == set(OBJECTIVES)


@pytest.mark.parametrize("shape", [(2, 6, 4), (3, 4, 3), (2, 3, 7)], ids=str)
@pytest.mark.parametrize("constants", ["paper's", "other"])
@every_objective
def test_value_and_gradient_of_the_oracle(name: str, constants: str, shape: tuple[int, int, int]) -> None:
    other = OTHER_CONSTANTS[name] if constants == "other" else {}
    views, images, dim = shape
    objective = small_objective(name, dim=dim, **other).double()
    for seed in range(2):  # the second batch meets a state
        batch = with_gradients(random_batch(seed, views=views, images=images, dim=dim))
        leaves = [batch.projection, batch.prediction, *objective.parameters()]
        expected = oracle_loss(name, objective, batch, other)
        loss = objective(batch).loss
        torch.testing.assert_close(loss, expected, rtol=1e-9, atol=1e-12)
        for one, two in zip(gradients(loss, leaves), gradients(expected, leaves), strict=True):
            torch.testing.assert_close(one, two, rtol=1e-9, atol=1e-9 * float(two.abs().max()))


@every_objective
def test_value_with_duplicated_images(name: str) -> None:
    objective = small_objective(name).double()
    batch = with_gradients(select(random_batch(), torch.tensor([0, 1, 1, 2, 0])))
    expected = oracle_loss(name, objective, batch, {})
    torch.testing.assert_close(objective(batch).loss, expected, rtol=1e-9, atol=1e-12)


@every_objective
def test_gradient_reaches_every_anchor_and_no_target(name: str) -> None:
    objective = small_objective(name)
    batch = with_gradients(random_batch())
    objective(batch).loss.backward()
    gradient = anchors(batch, objective).grad
    assert gradient.isfinite().all() and (gradient[0].abs().sum(1) > 0).all()
    assert batch.target.grad is None
    if "prediction" in objective.uses:
        assert batch.projection.grad is None
    for parameter in objective.parameters():
        assert parameter.grad.isfinite().all() and parameter.grad.abs().sum() > 0


@every_objective
def test_order_of_the_batch_does_not_matter(name: str) -> None:
    one, other = small_objective(name).double(), small_objective(name).double()
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    for seed in range(2):
        batch = random_batch(seed)
        step, permuted = one(batch), other(select(batch, order))
        torch.testing.assert_close(permuted.loss, step.loss, rtol=1e-12, atol=1e-12)
        for term in step.terms:
            torch.testing.assert_close(permuted.terms[term], step.terms[term], rtol=1e-10, atol=1e-12)
        if hasattr(one.negatives, "queue"):  # an order of its own, which no loss depends on
            other.load_state_dict(one.state_dict())


@every_objective
def test_precision_of_the_loss(name: str) -> None:
    objective = small_objective(name)
    for dtype, expected in (
        (torch.float64, torch.float64),
        (torch.float32, torch.float32),
        (torch.bfloat16, torch.float32),
        (torch.float16, torch.float32),
    ):
        step = objective(random_batch(dtype=dtype))
        assert step.loss.dtype == expected
        assert all(value.dtype == expected for value in step.terms.values())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@every_objective
def test_autocast_changes_nothing(name: str, dtype: torch.dtype) -> None:
    sharp = {"temperature": 0.05} if "temperature" in OTHER_CONSTANTS[name] else {}
    outside, inside, exact = (small_objective(name, **sharp) for _ in range(3))
    batch = random_batch(dtype=dtype, images=16)
    one, two = with_gradients(batch), with_gradients(batch)
    step = outside(one)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        again = inside(two)
    step.loss.backward()
    again.loss.backward()
    assert torch.equal(again.loss, step.loss)
    assert torch.equal(anchors(two, inside).grad, anchors(one, outside).grad)
    if "gaussianity" not in exact.regularizers:  # which draws other directions in float64
        precise = with_gradients(transform(batch, lambda part: part.double() if part.is_floating_point() else part))
        exact(precise).loss.backward()
        wanted = anchors(precise, exact).grad
        error = (anchors(two, inside).grad.double() - wanted).norm() / wanted.norm()
        assert error < (1e-4 if dtype == torch.float32 else 1e-2)  # a bfloat16 gradient has 8 bits


@every_objective
def test_terms(name: str) -> None:
    objective = small_objective(name)
    step = objective(with_gradients(random_batch()))
    assert isinstance(step, Step) and step.loss.ndim == 0 and step.loss.requires_grad
    assert "energy_positive" in step.terms
    assert ("energy_negative" in step.terms) == (type(objective.negatives).__name__ != "Negatives")
    assert all(value.ndim == 0 and not value.requires_grad and value.isfinite() for value in step.terms.values())
    parts = {"contrast": objective.weight} if objective.contrast is not None else {}
    parts |= {part: regularizer.weight for part, regularizer in objective.regularizers.items()}
    total = sum(weight * step.terms[part] for part, weight in parts.items())
    torch.testing.assert_close(total, step.loss.detach())


@every_objective
def test_energy_terms_are_means_over_pairs(name: str) -> None:
    objective, batch = small_objective(name).double(), random_batch()
    step = objective(batch)
    positive = anchors(batch, objective)[0]
    if objective.pairing == "mean":
        partner = batch.projection.mean(0)
        expected = torch.stack([objective.energy.paired(z, partner) for z in batch.projection]).mean()
    elif objective.uses & {"index", "label"}:
        return  # their partners are not the other view: see the tests of the memory and of supcon
    else:
        partner = batch.target if "target" in objective.uses else batch.projection
        expected = objective.energy.paired(positive, partner[1])
        if objective.pairing == "both":
            expected = torch.cat([expected, objective.energy.paired(anchors(batch, objective)[1], partner[0])])
        expected = expected.mean()
    torch.testing.assert_close(step.terms["energy_positive"], expected)


@every_objective
def test_state_round_trip(name: str) -> None:
    original = small_objective(name)
    for seed in range(3):
        original(random_batch(seed, dtype=torch.float32))
    file = io.BytesIO()
    torch.save(original.state_dict(), file)
    file.seek(0)
    resumed = small_objective(name)
    resumed.load_state_dict(torch.load(file, weights_only=True))
    for seed in range(3, 6):
        batch = random_batch(seed, dtype=torch.float32)
        assert torch.equal(resumed(batch).loss, original(batch).loss)
    assert_same_state(resumed.state_dict(), original.state_dict())


@every_objective
def test_evaluation_changes_no_state(name: str) -> None:
    objective, undisturbed = small_objective(name), small_objective(name)
    for seed in range(3):  # before the first training batch, too
        before, batch = snapshot(objective), random_batch(seed, dtype=torch.float32)
        objective.eval()
        first, second = objective(batch), objective(batch)
        assert torch.equal(first.loss, second.loss) and first.loss.isfinite()
        assert_same_state(objective.state_dict(), before)
        objective.train()
        assert torch.equal(objective(batch).loss, undisturbed(batch).loss)


@every_objective
def test_state_is_made_of_buffers(name: str) -> None:
    objective = small_objective(name).to("meta")
    assert all(tensor.is_meta for tensor in [*objective.parameters(), *objective.buffers()])
    persistent = {name for name in objective.state_dict() if not name.endswith("_extra_state")}
    assert persistent == {name for name, _ in [*objective.named_parameters(), *objective.named_buffers()]}


@every_objective
def test_smallest_batch(name: str) -> None:
    batch = with_gradients(random_batch(images=2))
    objective = small_objective(name)
    loss = objective(batch).loss
    loss.backward()
    assert loss.isfinite() and anchors(batch, objective).grad.isfinite().all()
    with pytest.raises(ValueError, match="batch of 1 image .* at least 2"):
        small_objective(name)(random_batch(images=1))


@every_objective
def test_number_of_views(name: str) -> None:
    objective, single = small_objective(name), random_batch(views=1)
    if objective.target.same_view:
        assert objective(single).loss.isfinite()
    else:
        with pytest.raises(ValueError, match="at least 2 an image, got 1"):
            objective(single)


@pytest.mark.parametrize("value", [1.0, 0.0, 1e-8])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@every_objective
def test_collapse_is_finite(name: str, dtype: torch.dtype, value: float) -> None:
    objective = small_objective(name)
    batch = with_gradients(
        transform(constant_batch(value), lambda part: part.to(dtype) if part.is_floating_point() else part)
    )
    loss = objective(batch).loss
    loss.backward()
    assert loss.isfinite() and anchors(batch, objective).grad.isfinite().all()


@every_objective
def test_memory_layout_does_not_matter(name: str) -> None:
    batch = random_batch()
    strided = transform(
        batch,
        lambda part: part.transpose(0, 2).contiguous().transpose(0, 2) if part.is_floating_point() else part,
    )
    assert not strided.projection.is_contiguous()
    expected = small_objective(name).double()(batch).loss
    torch.testing.assert_close(small_objective(name).double()(strided).loss, expected, rtol=1e-13, atol=1e-13)


@every_objective
def test_tiles_change_nothing(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even where the backward recomputes them after a queue was updated."""
    found = []
    for dense in (tiles.DENSE, 0):
        monkeypatch.setattr(tiles, "DENSE", dense)
        monkeypatch.setattr(tiles, "TILE", 20)
        objective, batch = small_objective(name).double(), with_gradients(random_batch())
        loss = objective(batch).loss
        found.append([loss.detach(), *gradients(loss, [anchors(batch, objective), *objective.parameters()])])
    for one, two in zip(*found, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-12, atol=1e-12)


@every_objective
def test_missing_parts_are_named(name: str) -> None:
    objective, batch = small_objective(name), random_batch()
    for part in objective.uses:
        with pytest.raises(ValueError, match=rf"Embeddings\({part}=\.\.\.\), got None"):
            objective(replace(batch, **{part: None}))
    bare = Embeddings(projection=batch.projection, **{part: getattr(batch, part) for part in objective.uses})
    assert torch.equal(objective.eval()(bare).loss, objective(batch).loss)


@every_objective
def test_scoring_energy_is_independent_of_the_batch(name: str) -> None:
    energy, batch = small_objective(name).double().energy.eval(), random_batch()
    a, b = batch.projection
    torch.testing.assert_close(energy.paired(a, b), energy.cross(a, b).diagonal(), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(energy.paired(a, b)[:1], energy.paired(a[:1], b[:1]), rtol=1e-12, atol=1e-12)


def optimise(objective: Objective, steps: int = 300) -> tuple[float, float]:
    """RankMe of free embeddings before and after, from a slightly perturbed collapse."""
    torch.manual_seed(0)
    z = (torch.ones(8) + 1e-2 * torch.randn(2, 16, 8)).requires_grad_()
    optimizer = torch.optim.Adam([z], lr=0.05)
    parts = {"index": torch.arange(16), "label": torch.arange(16) % 4}
    before = float(rankme(z.detach().flatten(0, 1)))
    for _ in range(steps):
        optimizer.zero_grad()
        objective(Embeddings(projection=z, target=z.detach(), **parts)).loss.backward()
        optimizer.step()
    return before, float(rankme(z.detach().flatten(0, 1)))


@every_collapsing_objective
def test_optimisation_leaves_the_collapse(name: str) -> None:
    before, after = optimise(small_objective(name, dim=8))
    assert before < 1.5 and after > 3


def test_attraction_alone_collapses() -> None:
    heads = HeadSpec(projector=MLP(out=8))
    before, after = optimise(Objective(energy=Cosine(), heads=heads, contrast=Attract()))
    assert after < before + 0.1


@every_collapsing_objective
def test_collapse_costs_more_than_spread(name: str) -> None:
    images = dim = 8
    spread = (torch.eye(images, dtype=torch.float64) * dim**0.5).expand(2, -1, -1)
    collapsed = torch.ones_like(spread)
    losses = []
    for z in (spread, collapsed):
        objective = small_objective(name, dim=dim, bank_size=images)
        batch = Embeddings(projection=z, target=z, index=torch.arange(images), label=torch.arange(images))
        for _ in range(10):  # until queue and memory hold what the batch holds
            step = objective(batch)
        losses.append(step.loss)
    assert losses[1] > losses[0]


@pytest.mark.parametrize(
    "name", [name for name in OBJECTIVES if "weight" in inspect.signature(OBJECTIVES[name]).parameters]
)
def test_weight_multiplies_the_loss(name: str) -> None:
    batch = random_batch()
    one, three = (small_objective(name, weight=weight)(batch).loss for weight in (1.0, 3.0))
    torch.testing.assert_close(three, 3 * one)


def test_catalogue() -> None:
    assert list_objectives() == list(OBJECTIVES)
    assert [name for family in FAMILIES for name in list_objectives(family)] == list(OBJECTIVES)
    with pytest.raises(ValueError, match="unknown family 'contrastiv': did you mean 'contrastive'"):
        list_objectives("contrastiv")


@every_objective
def test_flags(name: str) -> None:
    objective = small_objective(name)
    assert objective.conservative == ("target" not in objective.uses and name not in FAMILIES["asymmetric"])
    assert objective.surrogate == (name == "barlow_twins")
    assert (objective.heads.predictor is not None) == (name in FAMILIES["asymmetric"])


def test_mistakes_name_the_nearest() -> None:
    with pytest.raises(ValueError, match="unknown objective 'simcrl': did you mean 'simclr'"):
        create_objective("simcrl")
    with pytest.raises(
        TypeError, match="unknown argument of objective 'simclr' 'temprature': did you mean 'temperature'"
    ):
        create_objective("simclr", temprature=0.1)
    with pytest.raises(TypeError, match=r"objective 'nce' needs bank_size="):
        create_objective("nce")
    with pytest.raises(TypeError, match=r"unknown field of simclr\.projector 'hiden': did you mean 'hidden'"):
        create_objective("simclr", projector={"hiden": [3]})
    with pytest.raises(TypeError, match="simclr.projector must be an MLP or a mapping"):
        create_objective("simclr", projector="small")


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("simclr", {"temperature": 0.0}, "temperature must be > 0, got 0"),
        ("triplet", {"margin": -1.0}, "margin must be > 0, got -1"),
        ("align_uniform", {"alpha": -1.0}, "alpha must be > 0, got -1"),
        ("align_uniform", {"t": 0.0}, "t must be > 0, got 0"),
        ("spectral", {"mu": -1.0}, "mu must be > 0, got -1"),
        ("moco_v2", {"queue_size": 0}, "queue.size must be >= 1, got 0"),
        ("moco_v2", {"teacher_momentum": 1.5}, r"teacher momentum must be in \[0, 1\], got 1.5"),
        ("nce", {"bank_size": 0}, "bank_size must be >= 1, got 0"),
        ("nce", {"bank_size": 9, "draws": 0}, "draws must be >= 1, got 0"),
        ("nce", {"bank_size": 9, "bank_momentum": 1.0}, r"bank_momentum must be in \[0, 1\), got 1"),
        ("lejepa", {"gaussianity_weight": 1.0}, r"gaussianity_weight must be in \(0, 1\), got 1"),
        ("lejepa", {"slices": 0}, "slices must be >= 1"),
        ("byol", {"final_teacher_momentum": -0.1}, r"final_momentum must be in \[0, 1\], got -0.1"),
        ("simclr", {"projector": {"out": 0}}, "layer widths must be >= 1"),
    ],
)
def test_values_out_of_range(name: str, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        create_objective(name, **arguments)


def test_heads_may_be_overridden_in_part() -> None:
    assert create_objective("simclr", projector={"out": 7}).heads.projector == MLP(
        hidden=(2048, 2048), out=7, output_norm="batch_no_bias"
    )
    assert create_objective("byol", predictor={"hidden": [3]}).heads.predictor.hidden == (3,)
    assert create_objective("simclr", projector=MLP(out=9)).heads.projector == MLP(out=9)


def test_parts_that_do_not_fit_are_refused() -> None:
    heads = HeadSpec(projector=MLP(out=4))
    queue = QueueNegatives(size=3, dim=4)
    with pytest.raises(ValueError, match="InfoNCE needs negatives"):
        Objective(energy=Cosine(), heads=heads, contrast=InfoNCE())
    with pytest.raises(ValueError, match="BatchNegatives without a contrast that reads negatives"):
        Objective(energy=Cosine(), heads=heads, contrast=Attract(), negatives=BatchNegatives())
    with pytest.raises(ValueError, match="by_label needs BatchNegatives, got QueueNegatives"):
        Objective(energy=Cosine(), heads=heads, contrast=InfoNCE(), negatives=queue, by_label=True)
    with pytest.raises(ValueError, match="a contrast, a regularizer, or both"):
        Objective(energy=Cosine(), heads=heads, contrast=None)
    with pytest.raises(ValueError, match="views must be 'all' or 'other', got 'some'"):
        BatchNegatives(views="some")


def test_embeddings_of_another_dimension_than_the_queue() -> None:
    with pytest.raises(ValueError, match="embeddings have 5 dimensions and the queue 4"):
        small_objective("moco_v2")(random_batch(dim=5))

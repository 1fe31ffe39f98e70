"""What every objective promises; what each is, is in the tests of its parts and in `test_identities.py`."""

import contextlib
import copy
import inspect
import io
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import reference
import reference_codes
import reference_contrastive
import reference_regularized
import torch
from small import (
    batch_for,
    constant,
    gradients,
    random_batch,
    select,
    slow_but_for,
    small_objective,
    transform,
    with_gradients,
)
from torch import Tensor

from ssl_ebm.energies import rows as row_module
from ssl_ebm.energies.pairwise import Cosine
from ssl_ebm.evaluation.features.health import rankme
from ssl_ebm.networks.embeddings import Embeddings
from ssl_ebm.networks.heads import MLP, HeadSpec
from ssl_ebm.objectives import FAMILIES, OBJECTIVES, Objective, Step, create_objective, list_objectives
from ssl_ebm.objectives.parts.code_targets import Centred, Equipartition
from ssl_ebm.objectives.parts.contrasts import Attract, InfoNCE
from ssl_ebm.objectives.parts.memory import MemoryNegatives
from ssl_ebm.objectives.parts.negatives import BatchNegatives
from ssl_ebm.objectives.parts.noise_contrasts import NoiseContrastive
from ssl_ebm.objectives.parts.queue import Queue

ORACLES: dict[str, Callable[..., Tensor]] = {
    **reference.ORACLES,
    **reference_contrastive.ORACLES,
    **reference_regularized.ORACLES,
    **reference_codes.ORACLES,
}

every_objective = pytest.mark.parametrize("name", OBJECTIVES)

OTHER_CONSTANTS: dict[str, dict[str, Any]] = {
    "simclr": {"temperature": 0.5},
    "supcon": {"temperature": 0.3},
    "moco_v2": {"temperature": 0.4},
    "moco_v3": {"temperature": 0.3},
    "nnclr": {"temperature": 0.3},
    "dcl": {"temperature": 0.5},
    "dclw": {"temperature": 0.3, "sigma": 0.7},
    "triplet": {"margin": 1.5},
    "square_square": {"margin": 1.8, "hardest": True},
    "align_uniform": {"alpha": 3.0, "t": 0.7, "uniformity_weight": 0.4},
    "spectral": {"mu": 4.0},
    "nce": {"temperature": 0.3},
    "cpc": {},
    "jsd": {},
    "nwj": {"max_norm": 1.2},
    "siglip": {"temperature": 0.5, "bias": 0.3},
    "vicreg": {"invariance_weight": 3.0, "variance_weight": 7.0, "covariance_weight": 2.0},
    "barlow_twins": {"off_diagonal": 0.3, "weight": 0.024},
    "wmse": {"method": "zca", "eps": 1e-3, "iterations": 2},
    "tico": {"beta": 0.6, "covariance_weight": 3.0, "through_batch": False},
    "mmcr": {"local_weight": 0.7},
    "corinfomax": {"invariance_weight": 3.0, "old_weight": 0.3, "eps": 1e-2, "views": None, "normalize": False},
    "emp_ssl": {"invariance_weight": 3.0, "eps_squared": 1.3},
    "mcr2": {"eps_squared": 1.3, "expansion": 3.0, "expansion_weight": 0.4},
    "lejepa": {"gaussianity_weight": 0.4, "knots": 9},
    "ssl_hsic": {"gamma": 0.6, "kernel_scale": 0.4},
    "byol": {},
    "simsiam": {},
    "directpred": {},
    "dino": {"temperature": 0.2, "teacher_temperature": 0.3, "assignment": "sinkhorn", "koleo_weight": 0.1},
    "swav": {"temperature": 0.2, "epsilon": 0.3, "iterations": 2},
    "msn": {"temperature": 0.3, "target_temperature": 0.5, "entropy_weight": 0.4, "iterations": 0},
    "supervised": {"temperature": 0.4},
}


def known(objective: Objective, batch: Embeddings) -> dict[str, Any]:
    """What oracles ask for: of the batch, and of the objective's parameters, memory and draws at this moment."""
    frozen = copy.deepcopy(objective)  # so that the draws are not used up
    found: dict[str, Any] = {name: getattr(batch, name) for name in ("prediction", "target", "features")}
    found |= {"z": batch.projection, "global_views": batch.global_views}
    found |= {"label": batch.label.tolist(), "index": batch.index.tolist()}
    found |= reference_regularized.state_of(frozen, batch.projection)
    energy, target, negatives, contrast = objective.energy, frozen.target, frozen.negatives, objective.contrast
    parameters = dict(energy.named_parameters())
    if getattr(energy, "log_scale", None) is not None:
        found["scale"] = energy.log_scale.exp()
    if hasattr(energy, "weight"):
        found["matrix"] = parameters.get("weight", frozen.energy.weight)
    if hasattr(energy, "codes"):
        found["prototypes"] = energy.codes.prototypes
    if hasattr(contrast, "bias"):
        found["bias"] = contrast.bias
    for owner in (target, negatives):
        if hasattr(owner, "queue"):
            found["queue"] = owner.queue.vectors
    if isinstance(target, Centred):
        found["center"] = target.center
    if isinstance(target, Equipartition):
        found["queues"] = [queue.vectors for queue in target.queues if queue.pushed >= len(queue)]
    if isinstance(negatives, MemoryNegatives):
        generator = negatives.draws.generator()
        found["memory"] = target.vectors
        found["drawn"] = torch.randint(len(target.vectors), (negatives.count,), generator=generator).tolist()
    if isinstance(contrast, NoiseContrastive) and not contrast.log_partition.isnan():
        found["partition"] = contrast.log_partition.exp()
    if "gaussianity" in frozen.regularizers:
        found["directions"] = frozen.regularizers["gaussianity"].directions(batch.projection)
    return found


def oracle_loss(name: str, objective: Objective, batch: Embeddings, constants: dict[str, Any]) -> Tensor:
    """The oracle's loss of a batch that the objective has not seen."""
    arguments, oracle = constants | known(objective, batch), ORACLES[name]
    return oracle(**{k: v for k, v in arguments.items() if k in inspect.signature(oracle).parameters})


def leaves(objective: Objective, batch: Embeddings) -> list[Tensor]:
    """What a loss may have a gradient to."""
    parameters = [parameter for parameter in objective.parameters() if parameter.requires_grad]
    return [batch.projection, batch.prediction, batch.features, *parameters]


def assert_same_loss(loss: Tensor, expected: Tensor, wanted: list[Tensor]) -> None:
    """Value and gradients."""
    torch.testing.assert_close(loss, expected, rtol=1e-9, atol=1e-12)
    for one, two in zip(gradients(loss, wanted), gradients(expected, wanted), strict=True):
        torch.testing.assert_close(one, two, rtol=1e-9, atol=1e-9 * max(1e-3, float(two.abs().max())))


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


def queues(objective: Objective) -> list[Queue]:
    return [module for module in objective.modules() if isinstance(module, Queue)]


every_collapsing_objective = pytest.mark.parametrize(
    "name",
    [
        name
        for name, objective in ((name, small_objective(name)) for name in OBJECTIVES)
        if objective.target.classes is None  # labels are data that keep it from collapsing
        and (objective.regularizers or objective.contrast.needs_negatives or objective.target.distribution)
    ],
)
LEAVING = (
    "simclr",
    "moco_v2",
    "triplet",
    "spectral",
    "nce",
    "siglip",
    "vicreg",
    "barlow_twins",
    "wmse",
    "lejepa",
    "dino",
)
every_queue = pytest.mark.parametrize("name", [name for name in OBJECTIVES if queues(small_objective(name))])


def test_every_objective_has_an_oracle() -> None:
    assert list(ORACLES) and set(ORACLES) == set(OTHER_CONSTANTS) == set(OBJECTIVES)


@pytest.mark.parametrize("shape", [(2, 6, 4), (3, 4, 3), (2, 3, 7)], ids=str)
@pytest.mark.parametrize("constants", ["paper's", "other"])
@every_objective
def test_value_and_gradient_of_the_oracle(name: str, constants: str, shape: tuple[int, int, int]) -> None:
    other = OTHER_CONSTANTS[name] if constants == "other" else {}
    views, images, dim = shape
    objective = small_objective(name, dim=dim, **{"views": views} | other).double()
    for seed in range(2):  # the second batch meets a state
        batch = with_gradients(batch_for(objective, seed, views=views, images=images))
        expected = oracle_loss(name, objective, batch, {"views": views} | other)
        assert_same_loss(objective(batch).loss, expected, leaves(objective, batch))


@every_objective
def test_value_and_gradient_of_multi_crop(name: str) -> None:
    """Two global and two local views; teachers see the global ones only."""
    objective = small_objective(name, views=4).double()
    batch = with_gradients(batch_for(objective, views=4, global_views=2, images=3))
    expected = oracle_loss(name, objective, batch, {"views": 4})
    loss = objective(batch).loss
    gradient = gradients(loss, [anchors(batch, objective)], retain_graph=True)[0]
    assert_same_loss(loss, expected, leaves(objective, batch))
    if objective.pairing != "first" or "target" not in objective.uses:
        assert (gradient.abs().sum((1, 2)) > 0).all()


@every_queue
@pytest.mark.parametrize("size", [4, 6, 7])
def test_value_with_a_queue_of_any_size(name: str, size: int) -> None:
    """Smaller than the batch, as large, and no multiple of it; full from the third batch on."""
    objective = small_objective(name, queue_size=size).double()
    for seed in range(4):
        batch = with_gradients(batch_for(objective, seed))
        expected = oracle_loss(name, objective, batch, {})
        assert_same_loss(objective(batch).loss, expected, leaves(objective, batch))
    assert all(queue.pushed >= size for queue in queues(objective))


@every_objective
def test_value_with_duplicated_images(name: str) -> None:
    objective = small_objective(name).double()
    batch = batch_for(objective)
    repeated = torch.arange(len(batch.label)).repeat(2)[: len(batch.label) + 2]
    repeated[2] = 1
    batch = with_gradients(select(batch, repeated))
    expected = oracle_loss(name, objective, batch, {})
    loss = objective(batch).loss
    torch.testing.assert_close(loss, expected, rtol=1e-9, atol=1e-12)
    assert all(gradient.isfinite().all() for gradient in gradients(loss, leaves(objective, batch)))


@every_objective
def test_gradient_reaches_every_anchor_and_no_target(name: str) -> None:
    objective = small_objective(name)
    batch = with_gradients(batch_for(objective))
    objective(batch).loss.backward()
    gradient = anchors(batch, objective).grad
    assert gradient.isfinite().all() and (gradient[0].abs().sum(1) > 0).all()
    assert batch.target.grad is None
    if "prediction" in objective.uses:
        assert batch.projection.grad is None
    for parameter in objective.parameters():
        if parameter.requires_grad:
            assert parameter.grad.isfinite().all() and parameter.grad.abs().sum() > 0


@every_objective
def test_order_of_the_batch_does_not_matter(name: str) -> None:
    one, other = small_objective(name).double(), small_objective(name).double()
    for seed in range(2):
        batch = batch_for(one, seed)
        order = torch.randperm(len(batch.label), generator=torch.Generator().manual_seed(seed))
        step, permuted = one(batch), other(select(batch, order))
        torch.testing.assert_close(permuted.loss, step.loss, rtol=1e-11, atol=1e-11)
        for term in step.terms:
            torch.testing.assert_close(permuted.terms[term], step.terms[term], rtol=1e-10, atol=1e-11)
        if queues(one):  # an order of its own, which no loss depends on
            other.load_state_dict(one.state_dict())


@every_objective
def test_order_of_the_views_does_not_matter(name: str) -> None:
    """Where the first is not set apart."""
    one, other = (small_objective(name, views=3).double() for _ in range(2))
    batch = batch_for(one, views=3)
    turned = transform(batch, lambda part: part.roll(1, 0) if part.is_floating_point() else part)
    losses = [one(batch).loss, other(turned).loss]
    assert torch.isclose(*losses, rtol=1e-11, atol=1e-11) == (one.pairing != "first")


@every_objective
def test_precision_of_the_loss(name: str) -> None:
    objective = small_objective(name)
    for dtype, expected in (
        (torch.float64, torch.float64),
        (torch.float32, torch.float32),
        (torch.bfloat16, torch.float32),
        (torch.float16, torch.float32),
    ):
        batch = with_gradients(batch_for(objective, dtype=dtype))
        step = objective(batch)
        step.loss.backward()
        assert step.loss.dtype == expected and step.loss.isfinite()
        assert all(value.dtype == expected for value in step.terms.values())
        gradient = anchors(batch, objective).grad
        assert gradient.dtype == dtype and gradient.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@every_objective
def test_autocast_changes_nothing(name: str, dtype: torch.dtype) -> None:
    sharp = {"temperature": 0.05} if "temperature" in OTHER_CONSTANTS[name] else {}
    outside, inside, exact = (small_objective(name, **sharp) for _ in range(3))
    batch = batch_for(outside, dtype=dtype, images=16)
    one, two = with_gradients(batch), with_gradients(batch)
    step = outside(one)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        again = inside(two)
    step.loss.backward()
    again.loss.backward()
    assert torch.equal(again.loss, step.loss)
    assert torch.equal(anchors(two, inside).grad, anchors(one, outside).grad)
    precise = with_gradients(transform(batch, lambda part: part.double() if part.is_floating_point() else part))
    exact(precise).loss.backward()
    wanted = anchors(precise, exact).grad
    error = (anchors(two, inside).grad.double() - wanted).norm() / wanted.norm()
    assert error < (1e-4 if dtype == torch.float32 else 1e-2)  # a bfloat16 gradient has 8 bits


@every_objective
def test_terms(name: str) -> None:
    objective = small_objective(name)
    step = objective(with_gradients(batch_for(objective)))
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
    objective = small_objective(name).double()
    batch = batch_for(objective)
    views, label = range(len(batch.projection)), batch.label.tolist()
    a, b = anchors(batch, objective), objective.target(batch)
    if objective.pairing == "mean":
        pairs = [(view, 0) for view in views]
        b = b.mean(0, keepdim=True)
    else:
        same = objective.target.same_view
        pairs = [(v, w) for v in (views if objective.pairing == "both" else [0]) for w in views if (v == w) == same]
    if objective.transposed:
        a, b, pairs = b, a, [(w, v) for v, w in pairs]

    def compatible(i: int) -> list[int]:
        return [j for j in range(len(label)) if (label[i] == label[j] if objective.by_label else i == j)]

    means = []
    for v in sorted({v for v, _ in pairs}):
        for i in range(len(label)):
            partners = [b[w, j] for w in views for j in compatible(i) if (v, w) in pairs or (w == v and i != j)]
            means.append(torch.stack([objective.energy.paired(a[v, i][None], x[None])[0] for x in partners]).mean())
    torch.testing.assert_close(objective(batch).terms["energy_positive"], torch.stack(means).mean())


@every_objective
def test_state_round_trip(name: str) -> None:
    original = small_objective(name)
    for seed in range(3):
        original(batch_for(original, seed, dtype=torch.float32))
    file = io.BytesIO()
    torch.save(original.state_dict(), file)
    file.seek(0)
    resumed = small_objective(name)
    resumed.load_state_dict(torch.load(file, weights_only=True))
    for seed in range(3, 6):
        batch = batch_for(original, seed, dtype=torch.float32)
        assert torch.equal(resumed(batch).loss, original(batch).loss)
    assert_same_state(resumed.state_dict(), original.state_dict())


@every_objective
def test_evaluation_changes_no_state(name: str) -> None:
    objective, undisturbed = small_objective(name), small_objective(name)
    for seed in range(3):  # before the first training batch, too
        before, batch = snapshot(objective), batch_for(objective, seed, dtype=torch.float32)
        objective.eval()
        first, second = objective(batch), objective(batch)
        assert torch.equal(first.loss, second.loss) and first.loss.isfinite()
        assert_same_state(objective.state_dict(), before)
        objective.train()
        assert torch.equal(objective(batch).loss, undisturbed(batch).loss)


@every_objective
def test_batch_of_nan_is_not_remembered(name: str) -> None:
    objective, undisturbed = small_objective(name), small_objective(name)
    for seed in range(2):
        batch = batch_for(objective, seed, dtype=torch.float32)
        assert torch.equal(objective(batch).loss, undisturbed(batch).loss)
        draws = [module for module in objective.modules() if type(module).__name__ == "Draws"]
        others = [module for module in undisturbed.modules() if type(module).__name__ == "Draws"]
        assert not objective(constant(batch, torch.nan)).loss.isfinite()
        for one, other in zip(draws, others, strict=True):  # numbers are drawn for every batch
            other.count = one.count
        assert_same_state(objective.state_dict(), undisturbed.state_dict())


@every_objective
def test_state_is_made_of_buffers(name: str) -> None:
    objective = small_objective(name).to("meta")
    assert all(tensor.is_meta for tensor in [*objective.parameters(), *objective.buffers()])
    persistent = {name for name in objective.state_dict() if not name.endswith("_extra_state")}
    tensors = [objective.named_parameters(remove_duplicate=False), objective.named_buffers(remove_duplicate=False)]
    assert persistent == {name for named in tensors for name, _ in named}


@every_objective
def test_smallest_batch(name: str) -> None:
    objective = small_objective(name)
    least = objective.least_batch()
    batch = with_gradients(random_batch(images=least))
    loss = objective(batch).loss
    loss.backward()
    assert loss.isfinite() and anchors(batch, objective).grad.isfinite().all()
    with pytest.raises(ValueError, match="batch of 1 image .* at least 2"):
        small_objective(name)(random_batch(images=1))
    if least > 2:
        with pytest.raises(ValueError, match=f"batch of at least {least} images .* got {least - 1}"):
            small_objective(name)(random_batch(images=least - 1))


@every_objective
def test_number_of_views(name: str) -> None:
    objective = small_objective(name)
    single = batch_for(objective, views=1)
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
    batch = with_gradients(constant(batch_for(objective, dtype=dtype), value))
    loss = objective(batch).loss
    loss.backward()
    assert loss.isfinite() and anchors(batch, objective).grad.isfinite().all()


@every_objective
def test_some_zero_vectors_are_finite(name: str) -> None:
    objective = small_objective(name)

    def zeros(part: Tensor) -> Tensor:
        return torch.cat([torch.zeros_like(part[:, :2]), part[:, 2:]], dim=1) if part.is_floating_point() else part

    batch = with_gradients(transform(batch_for(objective, dtype=torch.float32), zeros))
    loss = objective(batch).loss
    loss.backward()
    assert loss.isfinite() and anchors(batch, objective).grad.isfinite().all()


@every_objective
def test_memory_layout_does_not_matter(name: str) -> None:
    objective = small_objective(name).double()
    batch = batch_for(objective)
    strided = transform(
        batch,
        lambda part: part.transpose(0, 2).contiguous().transpose(0, 2) if part.is_floating_point() else part,
    )
    assert not strided.projection.is_contiguous()
    expected = small_objective(name).double()(batch).loss
    torch.testing.assert_close(objective(strided).loss, expected, rtol=1e-12, atol=1e-12)


@every_objective
def test_tiles_change_nothing(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even where the backward recomputes them after a queue was updated."""
    found = []
    for dense in (row_module.MAX_DENSE_ENTRIES, 0):
        monkeypatch.setattr(row_module, "MAX_DENSE_ENTRIES", dense)
        monkeypatch.setattr(row_module, "MAX_DENSE_LOGSUMEXP_ENTRIES", dense)
        monkeypatch.setattr(row_module, "CHUNK_ENTRIES", 20)
        objective = small_objective(name).double()
        batch = with_gradients(batch_for(objective))
        loss = objective(batch).loss
        found.append([loss.detach(), *gradients(loss, leaves(objective, batch))])
    for one, two in zip(*found, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-11, atol=1e-11)


@every_objective
def test_missing_parts_are_named(name: str) -> None:
    objective = small_objective(name)
    batch = batch_for(objective)
    for part in objective.uses:
        with pytest.raises(ValueError, match=rf"Embeddings\({part}=\.\.\.\), got None"):
            objective(replace(batch, **{part: None}))
    bare = Embeddings(projection=batch.projection, **{part: getattr(batch, part) for part in objective.uses})
    assert torch.equal(objective.eval()(bare).loss, objective(batch).loss)


@every_objective
def test_scoring_energy_is_independent_of_the_batch(name: str) -> None:
    objective = small_objective(name).double()
    for seed in range(2):  # running statistics are taken in
        objective(batch_for(objective, seed))
    energy, (a, b) = objective.eval().scorer, batch_for(objective, 2).projection
    matrix = energy.cross(a, b)
    torch.testing.assert_close(energy.paired(a, b), matrix.diagonal(), rtol=1e-11, atol=1e-11)
    torch.testing.assert_close(energy.paired(a, b)[:1], energy.paired(a[:1], b[:1]), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(energy.cross(a[:2], b[1:3]), matrix[:2, 1:3], rtol=1e-11, atol=1e-11)
    assert torch.allclose(matrix, energy.cross(b, a).T, rtol=1e-11, atol=1e-11) or not energy.symmetric
    objective(batch_for(objective, 3))
    assert torch.equal(energy.cross(a, b), matrix)  # evaluation moves nothing


def optimise(objective: Objective, steps: int = 100) -> tuple[float, float]:
    """RankMe of free embeddings before and after, from a slightly perturbed collapse."""
    torch.manual_seed(0)
    z = (torch.full((8,), 0.35) + 3e-3 * torch.randn(2, 16, 8)).requires_grad_()
    optimizer = torch.optim.Adam([z, *(p for p in objective.parameters() if p.requires_grad)], lr=0.05)
    parts = {"index": torch.arange(16), "label": torch.arange(16) % 4}
    before = float(rankme(z.detach().flatten(0, 1)))
    for _ in range(steps):
        optimizer.zero_grad()
        objective(Embeddings(projection=z, prediction=z, target=z.detach(), features=z, **parts)).loss.backward()
        optimizer.step()
    return before, float(rankme(z.detach().flatten(0, 1)))


@pytest.mark.parametrize("name", slow_but_for(every_collapsing_objective.args[1], *LEAVING))
def test_optimisation_leaves_the_collapse(name: str) -> None:
    before, after = optimise(small_objective(name, dim=8))
    assert before < 1.5 and after > 3


def test_attraction_alone_collapses() -> None:
    heads = HeadSpec(projector=MLP(out=8))
    before, after = optimise(Objective(energy=Cosine(), heads=heads, contrast=Attract()))
    assert after < before + 1


@every_collapsing_objective
def test_collapse_costs_more_than_spread(name: str) -> None:
    dim = 8
    axes = torch.eye(dim, dtype=torch.float64) * dim**0.5
    spread = torch.cat([axes, -axes]).expand(2, -1, -1)
    losses = []
    for z in (spread, torch.ones_like(spread)):
        objective = small_objective(name, dim=dim, queue_size=2 * dim)
        names = torch.arange(2 * dim)
        batch = Embeddings(projection=z, prediction=z, target=z, features=z, index=names, label=names)
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


@every_objective
def test_conservative_updates_have_a_symmetric_jacobian(name: str) -> None:
    """An update is the gradient of a function where its Jacobian is symmetric; the teacher is the network itself."""
    objective = small_objective(name).double()
    objective(batch_for(objective))
    objective.eval()
    batch = batch_for(objective, 1)
    predictor = torch.linalg.qr(batch_for(objective, 2).projection[0, :4]).Q  # constant here
    u, v = (batch_for(objective, seed).projection for seed in (3, 4))

    def update(z: Tensor) -> Tensor:
        z = z.detach().requires_grad_()
        given = replace(batch, projection=z, prediction=z @ predictor, target=z.detach(), features=z)
        return gradients(objective(given).loss, [z])[0]

    step = 1e-5
    along = [(update(batch.projection + step * x) - update(batch.projection - step * x)) / (2 * step) for x in (u, v)]
    one, other = (v * along[0]).sum(), (u * along[1]).sum()
    assert torch.isclose(one, other, rtol=1e-5, atol=1e-8) == objective.conservative


def test_catalogue() -> None:
    assert list_objectives() == list(OBJECTIVES)
    assert [name for family in FAMILIES for name in list_objectives(family)] == list(OBJECTIVES)
    with pytest.raises(ValueError, match="unknown family 'contrastiv': did you mean 'contrastive'"):
        list_objectives("contrastiv")


@every_objective
def test_flags(name: str) -> None:
    objective = small_objective(name)
    assert objective.surrogate == (objective.contrast is None)
    assert (objective.teacher_momentum is not None) == ("target" in objective.uses)
    assert objective.by_label == ("label" in objective.uses) == (name in ("supcon", "supervised"))
    assert ("prediction" in objective.uses) == (objective.heads.predictor is not None)


def test_mistakes_name_the_nearest() -> None:
    with pytest.raises(ValueError, match="unknown objective 'simcrl': did you mean 'simclr'"):
        create_objective("simcrl")
    with pytest.raises(
        TypeError, match="unknown argument of objective 'simclr' 'temprature': did you mean 'temperature'"
    ):
        create_objective("simclr", temprature=0.1)
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
        ("nnclr", {"queue_size": 0}, "queue.size must be >= 1, got 0"),
        ("moco_v3", {"final_teacher_momentum": 1.5}, r"teacher final_momentum must be in \[0, 1\], got 1.5"),
        ("dcl", {"temperature": -1.0}, "temperature must be > 0, got -1"),
        ("dclw", {"sigma": 0.0}, "temperature and sigma must be > 0, got 0.1 and 0"),
        ("square_square", {"margin": 0.0}, "margin must be > 0, got 0"),
        ("nwj", {"max_norm": -1.0}, "max_norm must be > 0 or None, got -1"),
        ("directpred", {"epsilon": -1.0}, "epsilon must be >= 0, got -1"),
        ("directpred", {"old_weight": 1.0}, r"old_weight must be in \[0, 1\), got 1"),
        ("dino", {"temperature": 0.0}, "temperature must be > 0, got 0"),
        ("dino", {"teacher_temperature": 0.0}, "target temperatures must be > 0, got 0"),
        ("dino", {"teacher_temperature": 0.0, "assignment": "sinkhorn"}, "epsilon must be > 0"),
        ("dino", {"warmup": 2.0}, r"warmup must be a fraction in \[0, 1\], got 2"),
        ("dino", {"center_momentum": 1.0}, r"center_momentum must be in \[0, 1\) or None, got 1"),
        ("dino", {"assignment": "sinkhron"}, "assignment must be 'centring' or 'sinkhorn', got 'sinkhron'"),
        ("swav", {"prototypes": 1}, "prototypes must be >= 2"),
        ("swav", {"epsilon": 0.0}, "epsilon must be > 0 and iterations >= 0, got 0.0 and 3"),
        ("swav", {"frozen_prototypes": 1.0}, r"frozen must be a fraction in \[0, 1\), got 1"),
        ("msn", {"target_temperature": 0.0}, "target_temperature must be > 0, got 0"),
        ("msn", {"iterations": -1}, "epsilon must be > 0 and iterations >= 0"),
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
    with pytest.raises(ValueError, match="InfoNCE needs negatives"):
        Objective(energy=Cosine(), heads=heads, contrast=InfoNCE())
    with pytest.raises(ValueError, match="BatchNegatives without a contrast that reads negatives"):
        Objective(energy=Cosine(), heads=heads, contrast=Attract(), negatives=BatchNegatives())
    with pytest.raises(ValueError, match="a contrast, a regularizer, or both"):
        Objective(energy=Cosine(), heads=heads, contrast=None)
    with pytest.raises(ValueError, match="views must be 'all' or 'other', got 'some'"):
        BatchNegatives(views="some")


@every_objective
def test_embeddings_of_another_dimension_are_taken_or_named(name: str) -> None:
    objective = small_objective(name)
    with contextlib.suppress(ValueError):
        objective(random_batch(images=8, dim=5))
        return
    with pytest.raises(ValueError, match="embeddings have 5 dimensions and .* 4: give the objective the projector"):
        objective(random_batch(images=8, dim=5))

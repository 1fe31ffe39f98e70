"""Objectives as plain losses, objectives that are not made of parts, and how a memory learns its size."""

import pytest
import torch
from small import BANK, batch_for, small_objective
from torch import nn
from torch.nn import functional as F

from ssl_ebm.energies import Cosine, Dot
from ssl_ebm.networks import Embeddings, HeadSpec
from ssl_ebm.networks.heads import MLP
from ssl_ebm.objectives import Objective, PlainObjective, Step, build_objective, create_objective, list_objectives
from ssl_ebm.objectives.catalogue import traits
from ssl_ebm.objectives.from_module import FromModule


def projections(views=2, batch=16, dim=4):
    return torch.randn(views, batch, dim, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def reads_projections_only(name):
    return not small_objective(name).uses


@pytest.mark.parametrize("name", list(filter(reads_projections_only, list_objectives())))
def test_views_are_taken_as_tensors_too(name):
    """The same loss and state as of the same embeddings, in training and out of it."""
    z = projections()
    for training in (True, False):
        torch.manual_seed(0)
        alone, together = small_objective(name).train(training), small_objective(name).train(training)
        together.load_state_dict(alone.state_dict())
        steps = [alone(*z), together(Embeddings(projection=z))]
        assert torch.equal(steps[0].loss, steps[1].loss) and steps[0].terms.keys() == steps[1].terms.keys()
        assert isinstance(steps[0], Step)


def test_a_plain_loss_has_a_gradient_and_takes_more_views():
    z = projections(3).requires_grad_()
    loss = create_objective("simclr", temperature=0.5)(*z).loss
    loss.backward()
    assert z.grad is not None and bool((z.grad.flatten(1).norm(dim=1) > 0).all())
    a, b = (F.normalize(view, dim=1) for view in projections())
    both = torch.cat([a, b]) @ torch.cat([a, b]).T / 0.5
    both.fill_diagonal_(-torch.inf)
    expected = F.cross_entropy(both, torch.arange(32).roll(16))
    assert torch.allclose(create_objective("simclr", temperature=0.5)(*projections()).loss, expected)


def test_what_is_no_batch_of_views_is_refused():
    z = projections()
    objective = create_objective("simclr")
    with pytest.raises(ValueError, match="compares views: needs at least 2 an image, got 1"):
        objective(z[0])
    with pytest.raises(ValueError, match="Embeddings alone, or one tensor"):
        objective(Embeddings(projection=z), z[0])
    with pytest.raises(ValueError, match=r"projections \[batch, dim\] of one shape, got \[\(16, 4\), \(15, 4\)\]"):
        Embeddings.of_views(z[0], z[1, 1:])
    with pytest.raises(ValueError, match="an objective with a predictor needs"):
        small_objective("byol")(*z)


def test_a_memory_learns_its_size():
    given, told = small_objective("nce"), small_objective("nce", bank_size=None)
    with pytest.raises(ValueError, match=r"call objective.fit_to\(number of images\)"):
        told(batch_for(told))
    told.fit_to(BANK)
    given.fit_to(BANK)
    assert told.target.vectors.shape == (BANK, 4) and told.contrast.population == BANK
    batch = batch_for(given)
    for _ in range(2):
        assert torch.equal(given(batch).loss, told(batch).loss)
    assert all(torch.equal(a, b) for a, b in zip(given.buffers(), told.buffers(), strict=True))
    larger = small_objective("nce", bank_size=BANK + 5)
    larger.fit_to(BANK)
    assert len(larger.target.vectors) == larger.contrast.population == BANK + 5
    with pytest.raises(ValueError, match=f"objective.bank_size={BANK} is less than the {BANK + 1} training images"):
        given.fit_to(BANK + 1)


def test_a_memory_of_a_config_learns_its_size():
    arguments = {"negatives": "memory", "contrast": "noise_contrastive", "projector": {"out": 4}}
    objective = create_objective("custom", target="memory", **arguments)
    objective.fit_to(BANK)
    assert objective.target.vectors.shape == (BANK, 4) and objective.contrast.population == BANK
    assert torch.isfinite(objective(batch_for(objective)).loss)


@pytest.mark.parametrize("name", list_objectives())
def test_every_objective_is_told_the_number_of_images(name):
    objective = create_objective(name)
    before = {key: value.clone() for key, value in objective.state_dict().items()}
    objective.fit_to(50)
    changed = [
        key
        for key, value in objective.state_dict().items()
        if not torch.equal(value.nan_to_num(), before[key].nan_to_num())
    ]
    assert changed == (["target.vectors"] if name == "nce" else [])


class Pull(nn.Module):
    """The least: no more than a forward."""

    def forward(self, embeddings):
        return Step(embeddings.projection.var(0).sum(), {})


class Whole(Pull):
    heads = HeadSpec(projector=MLP(hidden=(3,), out=2), predictor=MLP(hidden=(), out=2))
    uses = ("label", "target")
    teacher_momentum = 0.9

    def __init__(self, size=3):
        super().__init__()
        self.scorer, self.size, self.told = Dot(), size, []
        self.scale = nn.Parameter(torch.ones(()))

    def set_progress(self, fraction):
        self.told.append(fraction)

    def fit_to(self, dataset_size):
        self.told.append(dataset_size)

    def least_batch(self):
        return self.size


def test_the_least_objective_has_defaults_for_everything():
    objective = build_objective({"name": "Pull", "external": True}, Pull())
    assert isinstance(objective, FromModule) and isinstance(Pull(), PlainObjective)
    assert objective.heads == HeadSpec(projector=MLP()) and objective.uses == frozenset()
    assert isinstance(objective.scorer, Cosine) and objective.surrogate and objective.canonical_form is None
    assert objective.teacher_momentum is None and objective.least_batch() == 2 and not objective.by_label
    objective.set_progress(0.5)
    objective.fit_to(9)
    assert list(objective.state_dict()) == []
    z = projections()
    assert torch.equal(objective(Embeddings(projection=z)).loss, z.var(0).sum())


def test_what_an_objective_says_of_itself_is_used():
    objective = build_objective({"name": "Whole", "size": 5, "external": True}, Whole)
    assert objective.uses == {"label", "target", "prediction"} and objective.by_label
    assert objective.heads is Whole.heads and objective.teacher_momentum == 0.9 and objective.least_batch() == 5
    assert isinstance(objective.scorer, Dot) and not objective.surrogate
    objective.set_progress(0.25)
    objective.fit_to(7)
    assert objective.loss.told == [0.25, 7] and [name for name, _ in objective.named_parameters()] == ["loss.scale"]
    assert traits(objective)["projector"]["hidden"] == (3,) and traits(objective)["reads_labels"]


def test_half_precision_is_computed_with_in_float32():
    seen = []

    class Sees(Pull):
        def forward(self, embeddings):
            seen.append((embeddings.projection.dtype, torch.is_autocast_enabled("cpu")))
            return super().forward(embeddings)

    with torch.autocast("cpu", dtype=torch.bfloat16):
        FromModule(Sees())(Embeddings(projection=projections().bfloat16()))
    assert seen == [(torch.float32, False)]


def test_a_function_makes_an_objective_like_a_built_in_one():
    def make(*, temperature: float, projector: MLP = MLP(hidden=(5,), out=3)) -> Objective:
        return create_objective("simclr", temperature=temperature, projector=projector)

    objective = create_objective(
        make, temperature=0.3, projector={"out": 7}, negatives={"name": "batch", "views": "other"}
    )
    assert objective.heads.projector == MLP(hidden=(5,), out=7) and objective.energy.temperature == 0.3
    assert objective.negatives.views == "other"
    with pytest.raises(TypeError, match="make' needs temperature: objective.temperature="):
        create_objective(make)
    with pytest.raises(TypeError, match="'temprature': did you mean 'temperature'"):
        create_objective(make, temprature=0.1)
    with pytest.raises(TypeError, match="is not made of parts that energy could replace"):
        create_objective(Whole, energy="cosine")


@pytest.mark.parametrize(
    ("objective", "section", "kind", "message"),
    [
        (Pull(), {"temperature": 1.0}, TypeError, "objective mine is made already and takes no temperature"),
        (None, {}, ValueError, "objective mine is code of the user's: give it with objective="),
        (lambda: 3, {}, TypeError, "an objective must be callable with Embeddings, got int"),
        (type("Odd", (Pull,), {"heads": MLP()}), {}, TypeError, "heads of Odd must be a HeadSpec"),
        (type("Blind", (Pull,), {"uses": {"target"}}), {}, ValueError, "give it a teacher_momentum"),
    ],
)
def test_mistakes_are_named(objective, section, kind, message):
    with pytest.raises(kind, match=message):
        build_objective({"name": "mine", "external": True, **section}, objective)


@pytest.mark.parametrize("returned", [torch.zeros(()), None], ids=["tensor", "none"])
def test_a_loss_returns_a_step(returned):
    class Returns(Pull):
        def forward(self, embeddings):
            return returned

    with pytest.raises(TypeError, match=r"Returns must return Step\(scalar loss, terms\), got"):
        FromModule(Returns())(Embeddings(projection=projections()))

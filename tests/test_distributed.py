"""Several processes with a share of the batch each do what one does with the whole: gradients, losses, states."""

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from functools import cache
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import torch
import torch.distributed as dist
from small import BANK, FEATURES, gradients, random_batch, select, small_objective
from torch import Tensor, nn
from torch.multiprocessing import spawn

from ssl_ebm import distributed
from ssl_ebm.networks.embeddings import Embeddings
from ssl_ebm.objectives import OBJECTIVES, Objective
from ssl_ebm.objectives.parts.compatibility import Adjacency, SameLabel

INPUTS, DIM, STEPS = 5, 4, 3


def neighbours() -> Adjacency:
    """Directed: the next sample and the one after three."""
    sample = torch.arange(BANK)
    return Adjacency.of_neighbours(torch.stack([(sample + 1) % BANK, (sample + 3) % BANK], dim=1))


CASES: dict[str, Callable[[], Objective]] = {
    **{name: lambda name=name: small_objective(name, dim=DIM) for name in OBJECTIVES},
    "dino, sinkhorn, koleo": lambda: small_objective("dino", assignment="sinkhorn", koleo_weight=0.3),
    "swav, small queue": lambda: small_objective("swav", queue_size=5),
    "triplet, active": lambda: small_objective("triplet", margin=1.5, active_only=True),
    "square_square, hardest": lambda: small_objective("square_square", hardest=True),
    **{
        f"{name}, {kind}": lambda name=name, graph=graph: small_objective(name).replace(graph=graph())
        for name in ("simclr", "spectral", "moco_v2", "align_uniform", "siglip", "dclw")
        for kind, graph in (("labels", SameLabel), ("adjacency", neighbours))
    },
}
BY_FOUR = ("moco_v2", "vicreg", "dino", "siglip, labels")  # a queue, gathered moments, codes, labels of all ranks
GROUPS = (2, tuple(CASES)), (4, BY_FOUR), (4, tuple(name for name in CASES if name not in BY_FOUR))  # processes, cases
MARKS = (), (), (pytest.mark.slow,)
every_case = pytest.mark.parametrize(
    ("ranks", "name"),
    [
        pytest.param(group, name, marks=marks, id=f"{group[0]} ranks-{name}")
        for group, marks in zip(GROUPS, MARKS, strict=True)
        for name in group[1]
    ],
    indirect=["ranks"],
)
several = pytest.mark.parametrize("ranks", GROUPS[:2], indirect=True, ids=lambda group: f"{group[0]} ranks")


class Networks(nn.Module):
    """Linear encoder, projector, predictor and teacher."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(1)
        shapes = {
            "encoder": (INPUTS, FEATURES),
            "projector": (FEATURES, DIM),
            "predictor": (DIM, DIM),
            "teacher": (INPUTS, DIM),
        }
        for name, shape in shapes.items():
            weight = torch.randn(shape, generator=generator, dtype=torch.float64)
            self.register_parameter(name, nn.Parameter(weight, requires_grad=name != "teacher"))

    def forward(self, inputs: Embeddings) -> Embeddings:
        features = inputs.projection @ self.encoder
        z = features @ self.projector
        parts = {"features": features, "projection": z, "prediction": z @ self.predictor}
        return replace(inputs, **parts, target=inputs.projection @ self.teacher)


def share(images: int) -> slice:
    """This rank's part of a batch."""
    size = images // distributed.world_size()
    return slice(distributed.rank() * size, (distributed.rank() + 1) * size)


def train(name: str) -> dict[str, Any]:
    """Gradients and losses of a few batches, of which this process sees its share; the state at the end."""
    objective, networks = CASES[name]().double(), Networks()
    images = 8 if objective.least_batch() <= 8 else 16
    parameters = [p for p in [*networks.parameters(), *objective.parameters()] if p.requires_grad]
    found: dict[str, Any] = {"gradients": [], "losses": [], "terms": []}
    for seed in range(STEPS):
        batch = select(random_batch(seed, images=images, dim=INPUTS), share(images))
        for parameter in parameters:
            parameter.grad = None
        step = objective(networks(batch))
        step.loss.backward()
        distributed.average_gradients(parameters)
        found["gradients"].append([torch.zeros(()) if p.grad is None else p.grad.clone() for p in parameters])
        found["losses"].append(distributed.mean(step.loss.detach()))
        found["terms"].append({term: distributed.mean(value) for term, value in step.terms.items()})
    found["state"] = state(objective)
    found["after a batch of NaN"] = after_nan(objective, images)
    return found


def state(objective: Objective) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in objective.state_dict().items()}


def after_nan(objective: Objective, images: int) -> dict[str, Tensor]:
    """The state after a batch with a NaN in its last image, which one rank has."""
    batch = random_batch(images=images, dim=DIM)
    for part in (batch.projection, batch.prediction, batch.features):
        part[:, -1] = torch.nan
    objective(select(batch, share(images)))
    return state(objective)


def check_collectives(rank: int) -> dict[str, Tensor]:
    x = torch.full((2, 3), float(rank), requires_grad=True)
    gathered = distributed.gather(x, dim=1)
    (gathered * torch.arange(3.0 * distributed.world_size())).sum().backward()
    parameters = [nn.Parameter(torch.zeros(2)), nn.Parameter(torch.zeros(2))]
    parameters[0].grad = torch.full((2,), float(rank))
    distributed.average_gradients(parameters)
    return {
        "gathered": gathered.detach(),
        "gradient": x.grad,
        "integers": distributed.gather(torch.tensor([rank, 10 * rank])),
        "mean": distributed.mean(torch.tensor([float(rank), 4.0])),
        "average": parameters[0].grad,
        "place": torch.tensor([distributed.rank(), distributed.world_size(), distributed.is_distributed()]),
    }


def work(rank: int, size: int, cases: tuple[str, ...], folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo",
        init_method=f"file://{folder}/rendezvous",
        rank=rank,
        world_size=size,
        timeout=timedelta(seconds=120),
    )
    found = {name: train(name) for name in cases}
    torch.save({"cases": found, "collectives": check_collectives(rank)}, f"{folder}/{rank}.pt")
    distributed.barrier()
    distributed.stop()


@cache
def found_by(size: int, cases: tuple[str, ...]) -> list[dict[str, Any]]:
    """What each of several processes found, started once for all tests."""
    with TemporaryDirectory() as folder:
        spawn(work, args=(size, cases, folder), nprocs=size)
        return [torch.load(f"{folder}/{rank}.pt", weights_only=True) for rank in range(size)]


@pytest.fixture
def ranks(request: pytest.FixtureRequest) -> list[dict[str, Any]]:
    return found_by(*request.param)


@cache
def alone(name: str) -> dict[str, Any]:
    """What one process finds."""
    return train(name)


@every_case
def test_gradient_is_that_of_one_process(ranks: list[dict[str, Any]], name: str) -> None:
    whole = alone(name)
    for rank in ranks:
        for one, two in zip(whole["gradients"], rank["cases"][name]["gradients"], strict=True):
            for expected, got in zip(one, two, strict=True):
                torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-9 * float(expected.abs().max()))
    assert any(gradient.abs().sum() > 0 for gradient in whole["gradients"][-1])


@every_case
def test_mean_loss_is_that_of_one_process(ranks: list[dict[str, Any]], name: str) -> None:
    whole = alone(name)
    for rank in ranks:
        found = rank["cases"][name]
        torch.testing.assert_close(found["losses"], whole["losses"], rtol=1e-10, atol=1e-10)
        torch.testing.assert_close(found["terms"], whole["terms"], rtol=1e-10, atol=1e-10)


@every_case
@pytest.mark.parametrize("moment", ["state", "after a batch of NaN"])
def test_state_is_that_of_one_process(ranks: list[dict[str, Any]], name: str, moment: str) -> None:
    states = [rank["cases"][name][moment] for rank in ranks]
    for key, expected in alone(name)[moment].items():
        assert all(torch.equal(states[0][key], other[key]) for other in states[1:]), key
        torch.testing.assert_close(states[0][key], expected, rtol=1e-10, atol=1e-12)
        assert expected.isfinite().all()


@several
def test_collectives(ranks: list[dict[str, Any]]) -> None:
    size = len(ranks)
    for number, rank in enumerate(ranks):
        found = rank["collectives"]
        assert found["gathered"].tolist() == [[float(r) for r in range(size) for _ in range(3)]] * 2
        assert found["gradient"].tolist() == [[size * (3.0 * number + k) for k in range(3)]] * 2  # on all ranks: summed
        assert found["integers"].tolist() == [n for r in range(size) for n in (r, 10 * r)]
        assert found["mean"].tolist() == [(size - 1) / 2, 4.0]
        assert found["average"].tolist() == [(size - 1) / 2] * 2
        assert found["place"].tolist() == [number, size, 1]


def test_one_process_needs_no_group() -> None:
    x = torch.ones(2, requires_grad=True)
    assert distributed.gather(x) is x and distributed.mean(x) is x
    assert (distributed.rank(), distributed.world_size(), distributed.is_distributed()) == (0, 1, False)
    assert distributed.start() == 0
    distributed.barrier()
    distributed.stop()
    parameter = nn.Parameter(torch.zeros(2))
    distributed.average_gradients([parameter])
    assert parameter.grad is None
    assert gradients(distributed.gather(x).sum(), [x])[0].tolist() == [1, 1]

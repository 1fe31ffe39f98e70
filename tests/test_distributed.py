"""Two processes with half the batch each do what one does with the whole: gradients, losses, states."""

from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from small import gradients, random_batch, select, small_objective
from torch import Tensor, nn
from torch.multiprocessing import spawn

from ssl_ebm import distributed
from ssl_ebm.embeddings import Embeddings
from ssl_ebm.objectives import OBJECTIVES, Objective

RANKS, IMAGES, INPUTS, DIM, STEPS = 2, 8, 5, 4, 3
every_objective = pytest.mark.parametrize("name", OBJECTIVES)


class Networks(nn.Module):
    """Linear encoder, predictor and teacher."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(1)
        shapes = {"encoder": (INPUTS, DIM), "predictor": (DIM, DIM), "teacher": (INPUTS, DIM)}
        for name, shape in shapes.items():
            weight = torch.randn(shape, generator=generator, dtype=torch.float64)
            self.register_parameter(name, nn.Parameter(weight, requires_grad=name != "teacher"))

    def forward(self, inputs: Embeddings) -> Embeddings:
        z = inputs.projection @ self.encoder
        return replace(inputs, projection=z, prediction=z @ self.predictor, target=inputs.projection @ self.teacher)


def rank_images(rank: int) -> slice:
    share = IMAGES // RANKS
    return slice(rank * share, (rank + 1) * share)


def train(name: str, images: slice) -> dict[str, Any]:
    """Gradients and losses of a few batches, of which this process sees some images; the state at the end."""
    objective, networks = small_objective(name, dim=DIM).double(), Networks()
    parameters = [p for p in [*networks.parameters(), *objective.parameters()] if p.requires_grad]
    found: dict[str, Any] = {"gradients": [], "losses": [], "terms": []}
    for seed in range(STEPS):
        batch = select(random_batch(seed, images=IMAGES, dim=INPUTS), images)
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


def after_nan(objective: Objective, images: slice) -> dict[str, Tensor]:
    """The state after a batch with a NaN in its last image, which one rank has."""
    batch = random_batch(images=IMAGES, dim=DIM)
    batch.projection[:, -1], batch.prediction[:, -1] = torch.nan, torch.nan
    objective(select(batch, images))
    return state(objective)


def check_collectives(rank: int) -> dict[str, Tensor]:
    x = torch.full((2, 3), float(rank), requires_grad=True)
    gathered = distributed.gather(x, dim=1)
    (gathered * torch.arange(6.0)).sum().backward()  # on both ranks: summed
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


def work(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo",
        init_method=f"file://{folder}/rendezvous",
        rank=rank,
        world_size=RANKS,
        timeout=timedelta(seconds=60),
    )
    found = {name: train(name, rank_images(rank)) for name in OBJECTIVES}
    torch.save({"objectives": found, "collectives": check_collectives(rank)}, f"{folder}/{rank}.pt")
    distributed.barrier()
    distributed.stop()


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What each of two processes found, started once for all tests."""
    folder: Path = tmp_path_factory.mktemp("ranks")
    spawn(work, args=(str(folder),), nprocs=RANKS)
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(RANKS)]


@every_objective
def test_gradient_is_that_of_one_process(ranks: list[dict[str, Any]], name: str) -> None:
    whole = train(name, slice(None))
    for rank in ranks:
        for one, two in zip(whole["gradients"], rank["objectives"][name]["gradients"], strict=True):
            for expected, got in zip(one, two, strict=True):
                torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-9 * float(expected.abs().max()))
    assert any(gradient.abs().sum() > 0 for gradient in whole["gradients"][-1])


@every_objective
def test_mean_loss_is_that_of_one_process(ranks: list[dict[str, Any]], name: str) -> None:
    whole = train(name, slice(None))
    for rank in ranks:
        found = rank["objectives"][name]
        torch.testing.assert_close(found["losses"], whole["losses"], rtol=1e-10, atol=1e-10)
        torch.testing.assert_close(found["terms"], whole["terms"], rtol=1e-10, atol=1e-10)


@every_objective
@pytest.mark.parametrize("moment", ["state", "after a batch of NaN"])
def test_state_is_that_of_one_process(ranks: list[dict[str, Any]], name: str, moment: str) -> None:
    whole = train(name, slice(None))
    states = [rank["objectives"][name][moment] for rank in ranks]
    for key, expected in whole[moment].items():
        assert torch.equal(states[0][key], states[1][key]), key
        torch.testing.assert_close(states[0][key], expected, rtol=1e-12, atol=1e-12)
        assert expected.isfinite().all()


def test_collectives(ranks: list[dict[str, Any]]) -> None:
    for number, rank in enumerate(ranks):
        found = rank["collectives"]
        assert found["gathered"].tolist() == [[0, 0, 0, 1, 1, 1]] * 2
        assert found["gradient"].tolist() == [[[0, 2, 4], [6, 8, 10]][number]] * 2
        assert found["integers"].tolist() == [0, 0, 1, 10]
        assert found["mean"].tolist() == [0.5, 4.0]
        assert found["average"].tolist() == [0.5, 0.5]
        assert found["place"].tolist() == [number, 2, 1]


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

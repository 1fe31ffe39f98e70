import io

import pytest
import torch
from small import random_batch, small_objective
from torch import Tensor
from torch.nn import functional as F

from ssl_ebm.objectives.parts.queue import Queue

EXACT = {"rtol": 1e-12, "atol": 1e-12}
DIM = 4


def normal(n: int, seed: int = 0) -> Tensor:
    return torch.randn(n, DIM, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_begins_with_unit_vectors_that_nobody_has() -> None:
    queue = Queue(size=7, dim=DIM)
    torch.testing.assert_close(queue.vectors.norm(dim=1), torch.ones(7))
    assert torch.equal(queue.vectors, Queue(size=7, dim=DIM).vectors)  # on all ranks
    assert len(queue) == 7 and queue.pushed == 0 and queue.samples is None
    queue.remember_samples()
    assert queue.samples.tolist() == [-1] * 7


@pytest.mark.parametrize(("size", "images"), [(7, 3), (6, 3), (4, 6), (3, 6), (1, 2), (5, 5)])
def test_oldest_entries_are_overwritten(size: int, images: int) -> None:
    queue = Queue(size=size, dim=DIM).double()
    queue.remember_samples()
    ring, names, place = list(queue.vectors.clone()), [-1] * size, 0
    for seed in range(5):
        z, samples = normal(images, seed), torch.arange(images) + 10 * seed
        queue.push(z, samples)
        for vector, sample in list(zip(F.normalize(z, dim=1), samples.tolist(), strict=True))[-size:]:
            ring[place], names[place], place = vector, sample, (place + 1) % size
    torch.testing.assert_close(queue.vectors, torch.stack(ring), **EXACT)
    assert queue.samples.tolist() == names
    assert queue.pushed == 5 * min(images, size)


def test_snapshot_outlives_a_push() -> None:
    queue = Queue(size=3, dim=DIM).double()
    before, expected = queue.snapshot(torch.float64), queue.vectors.clone()
    queue.push(normal(3))
    assert torch.equal(before, expected) and not torch.equal(queue.vectors, expected)
    assert queue.snapshot(torch.float32).dtype == torch.float32


def test_nothing_pushed_has_a_gradient() -> None:
    queue = Queue(size=3, dim=DIM).double()
    queue.push(normal(2).requires_grad_())
    assert not queue.vectors.requires_grad


def test_state_round_trip() -> None:
    queue, other = (Queue(size=5, dim=DIM) for _ in range(2))
    for each in (queue, other):
        each.remember_samples()
    queue.push(normal(3).float(), torch.arange(3))
    file = io.BytesIO()
    torch.save(queue.state_dict(), file)
    file.seek(0)
    other.load_state_dict(torch.load(file, weights_only=True))
    for each in (queue, other):
        each.push(normal(4, seed=1).float(), torch.arange(4) + 3)
    assert torch.equal(queue.vectors, other.vectors) and torch.equal(queue.samples, other.samples)
    assert queue.pushed == other.pushed == 7
    assert set(queue.state_dict()) == {"vectors", "pushed", "samples"}
    assert set(Queue(size=5, dim=DIM).state_dict()) == {"vectors", "pushed"}


def test_needs_an_entry() -> None:
    with pytest.raises(ValueError, match="queue size must be >= 1, got 0"):
        Queue(size=0, dim=DIM)
    assert "size=3" in repr(Queue(size=3, dim=DIM))


def test_moco_enqueues_the_teacher_and_nnclr_the_first_view() -> None:
    batch = random_batch()
    moco, nnclr = (small_objective(name, queue_size=6).double() for name in ("moco_v2", "nnclr"))
    moco(batch)
    nnclr(batch)
    torch.testing.assert_close(moco.negatives.queue.vectors, F.normalize(batch.target[1], dim=1), **EXACT)
    torch.testing.assert_close(nnclr.target.queue.vectors, F.normalize(batch.projection[0], dim=1), **EXACT)
    swav = small_objective("swav", queue_size=6).double()
    swav(batch)
    for view, queue in enumerate(swav.target.queues):
        torch.testing.assert_close(queue.vectors, F.normalize(batch.projection[view], dim=1), **EXACT)

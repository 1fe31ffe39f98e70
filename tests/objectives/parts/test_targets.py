"""What an anchor is compared with."""

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from small import BANK, DIM, random_batch, small_objective
from torch.nn import functional as F

from ssl_ebm.energies.codes import Codes
from ssl_ebm.networks.embeddings import Embeddings
from ssl_ebm.objectives import OBJECTIVES
from ssl_ebm.objectives.parts.code_targets import Centred, Equipartition, LabelTarget
from ssl_ebm.objectives.parts.memory import Memory
from ssl_ebm.objectives.parts.targets import NearestNeighbour, StopGradient, Target, Teacher

EXACT = {"rtol": 1e-12, "atol": 1e-12}


def test_where_targets_come_from() -> None:
    batch = random_batch()
    z = batch.projection.requires_grad_()
    batch.target.requires_grad_()
    assert Target()(batch) is z and Target().conservative
    for target, part in ((StopGradient(), z), (Teacher(), batch.target)):
        found = target(batch)
        assert torch.equal(found, part) and not found.requires_grad and not target.conservative
    with pytest.raises(ValueError, match=r"a teacher objective needs Embeddings\(target=\.\.\.\), got None"):
        Teacher()(replace(batch, target=None))


@pytest.mark.parametrize(
    ("schedule", "halfway", "quarter"), [("cosine", 0.5, (1 - math.sqrt(0.5)) / 2), ("linear", 0.5, 0.25)]
)
def test_momentum_rises(schedule: str, halfway: float, quarter: float) -> None:
    teacher = Teacher(momentum=0.9, final_momentum=0.98, schedule=schedule)
    for progress, share in ((0.0, 0.0), (0.25, quarter), (0.5, halfway), (1.0, 1.0)):
        assert teacher.teacher_momentum(progress) == pytest.approx(0.9 + 0.08 * share, abs=1e-12)
    constant = Teacher(momentum=0.7, final_momentum=0.7, schedule=schedule)
    assert {constant.teacher_momentum(progress) for progress in (0.0, 0.3, 1.0)} == {0.7}


def test_momentum_of_the_papers() -> None:
    expected = {  # at the beginning, halfway, at the end
        "moco_v2": (0.999, 0.999, 0.999),
        "moco_v3": (0.99, 0.995, 1.0),
        "tico": (0.99, 0.995, 1.0),
        "ssl_hsic": (0.99, 0.995, 1.0),
        "byol": (0.996, 0.998, 1.0),
        "directpred": (0.996, 0.996, 0.996),
        "dino": (0.996, 0.998, 1.0),
        "msn": (0.996, 0.998, 1.0),
    }
    assert set(expected) == {name for name in OBJECTIVES if "target" in small_objective(name).uses}
    for name, values in expected.items():
        objective = small_objective(name)
        for progress, value in zip((0.0, 0.5, 1.0), values, strict=True):
            objective.set_progress(progress)
            assert objective.teacher_momentum == pytest.approx(value, abs=1e-12)
    msn = small_objective("msn")
    msn.set_progress(0.25)
    assert msn.teacher_momentum == pytest.approx(0.997, abs=1e-12)  # linear


def test_labels_are_codes() -> None:
    batch = replace(random_batch(images=4), label=torch.tensor([2, 0, -1, 1]))
    expected = torch.tensor([[0, 0, 1], [1, 0, 0], [0, 0, 0], [0, 1, 0]]).double()
    assert torch.equal(LabelTarget(count=3)(batch), expected.expand(2, -1, -1))
    with pytest.raises(ValueError, match=r"a target of labels needs Embeddings\(label=\.\.\.\), got None"):
        LabelTarget(count=3)(replace(batch, label=None))


@pytest.mark.parametrize("chunk", [3, 4, 9, 100])
def test_nearest_neighbours_by_search(chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(NearestNeighbour, "CHUNK_ENTRIES", chunk)
    target, batch = NearestNeighbour(size=9, dim=DIM).double(), random_batch()
    target.queue.push(random_batch(1, images=7).projection[0])
    found = target(batch)
    for v in range(2):
        for i in range(6):
            z, entries = batch.projection[v, i], target.queue.vectors
            cosines = [float(F.cosine_similarity(z, entry, dim=0)) for entry in entries]
            assert torch.equal(found[v, i], entries[cosines.index(max(cosines))])
    assert not found.requires_grad


def test_memory_is_that_of_the_image() -> None:
    memory, batch = Memory(size=BANK, dim=DIM).double(), random_batch(views=3)
    assert memory.vectors.abs().max() <= (3 / DIM) ** 0.5 and len(memory.vectors) == BANK
    assert torch.equal(memory(batch), memory.vectors[batch.index].expand(3, -1, -1))
    assert memory.same_view and memory.uses == {"index"}


def test_memory_is_a_moving_average_of_unit_vectors() -> None:
    objective = small_objective("nce", bank_momentum=0.7).double()
    vectors = objective.target.vectors.clone()
    for seed in range(4):
        batch = random_batch(seed)
        objective(batch)
        for i, k in enumerate(batch.index.tolist()):
            z = sum(view[i] / view[i].norm() for view in batch.projection) / 2
            v = 0.7 * vectors[k] + 0.3 * z
            vectors[k] = v / v.norm()
    torch.testing.assert_close(objective.target.vectors, vectors, **EXACT)


def test_centre_is_a_running_mean_of_the_teacher_after_scoring() -> None:
    objective = small_objective("dino", center_momentum=0.8).double()
    center = torch.zeros(DIM, dtype=torch.float64)
    for seed in range(4):
        batch = random_batch(seed, views=3, global_views=2)
        expected = F.softmax((batch.target - center) / 0.04, dim=-1)
        torch.testing.assert_close(objective.target(batch), expected, **EXACT)
        objective(batch)
        center = 0.8 * center + 0.2 * sum(view.mean(0) for view in batch.target) / 2
        torch.testing.assert_close(objective.target.center, center, **EXACT)


def test_sharpening_without_centring() -> None:
    target, batch = Centred(of=Teacher(), codes=Codes(), count=DIM, center_momentum=None), random_batch()
    target.update(batch)
    assert (target.center == 0).all()
    torch.testing.assert_close(target(batch), F.softmax(batch.target / 0.04, dim=-1), **EXACT)


def test_temperature_rises_at_the_beginning() -> None:
    target = Centred(of=Teacher(), codes=Codes(), count=3, temperature=0.07, warmup_temperature=0.04, warmup=0.3)
    assert target.temperature == 0.04
    for progress, expected in ((0.0, 0.04), (0.1, 0.05), (0.3, 0.07), (0.9, 0.07)):
        target.set_progress(progress)
        assert target.temperature == pytest.approx(expected, abs=1e-12)
    target = Centred(of=Teacher(), codes=Codes(), count=3, temperature=0.07)
    target.set_progress(0.0)
    assert target.temperature == 0.07


def test_equipartition_uses_all_codes_equally() -> None:
    batch = random_batch(images=12)
    target = Equipartition(of=StopGradient(), codes=Codes(), epsilon=0.5, iterations=200)
    q = target(batch)
    torch.testing.assert_close(q.sum(2), torch.ones(2, 12).double(), **EXACT)
    torch.testing.assert_close(q.sum(1), torch.full((2, DIM), 12 / DIM).double(), rtol=1e-9, atol=1e-9)


def test_queue_joins_once_it_is_full_and_due() -> None:
    codes = Codes(prototypes=5, dim=DIM).double()
    options = {"of": StopGradient(), "codes": codes, "epsilon": 0.3}
    plain = Equipartition(**options).double()
    target = Equipartition(**options, queue_size=9, dim=DIM, queue_start=0.5).double()
    target.set_progress(0.5)
    for seed, joins in ((0, False), (1, False), (2, True)):  # six images each
        batch = random_batch(seed)
        assert torch.equal(target(batch), plain(batch)) != joins
        if joins:
            together = torch.cat([batch.projection, torch.stack([queue.vectors for queue in target.queues])], dim=1)
            torch.testing.assert_close(target(batch), plain(Embeddings(projection=together))[:, :6], **EXACT)
            target.set_progress(0.4)
            assert torch.equal(target(batch), plain(batch))
        target.update(batch)


def test_only_global_views_are_targets() -> None:
    batch = random_batch(views=4, global_views=2)
    for target in (
        Equipartition(of=StopGradient(), codes=Codes(), queue_size=3, dim=DIM),
        Centred(of=Teacher(), codes=Codes(), count=DIM),
    ):
        target = target.double()
        assert target(batch).shape == (2, 6, DIM)
        target.update(batch)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Teacher(momentum=1.5), r"teacher momentum must be in \[0, 1\], got 1.5"),
        (lambda: Teacher(final_momentum=-0.5), r"teacher final_momentum must be in \[0, 1\], got -0.5"),
        (lambda: NearestNeighbour(size=0, dim=3), "queue size must be >= 1, got 0"),
        (lambda: Memory(size=0, dim=3), "bank_size must be >= 1, got 0"),
        (lambda: Memory(size=3, dim=3, momentum=1.0), r"bank_momentum must be in \[0, 1\), got 1"),
        (lambda: Centred(of=Teacher(), codes=Codes(), count=3, temperature=0.0), "temperatures must be > 0, got 0"),
        (lambda: Centred(of=Teacher(), codes=Codes(), count=3, warmup=1.5), r"fraction in \[0, 1\], got 1.5"),
        (lambda: Equipartition(of=Teacher(), codes=Codes(), epsilon=0.0), "epsilon must be > 0"),
        (lambda: Equipartition(of=Teacher(), codes=Codes(), iterations=-1), "iterations >= 0, got 0.05 and -1"),
        (lambda: Equipartition(of=Teacher(), codes=Codes(), queue_size=3), "a queue needs the dim"),
    ],
)
def test_mistakes_name_the_argument(build: Callable[[], Target], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build()

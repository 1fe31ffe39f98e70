import json
import math

import pytest
import torch
from clusters import bank, blind, clusters, without
from torch.nn import functional as F

from ssl_ebm.evaluation.probes.classification import Standardisation
from ssl_ebm.evaluation.probes.sgd import RATES, sgd_probe, train_heads

QUICK = {"epochs": 3, "batch_size": 32}


def problem(n=90, dtype=torch.float64):
    split = clusters(n)
    return torch.from_numpy(split.features).to(dtype), torch.from_numpy(split.labels)


def one_head(x, labels, rate, *, epochs, batch_size, momentum, seed, classes=4):
    """One head at a time by torch's own layer, loss, optimiser and schedule."""
    head = torch.nn.Linear(x.shape[1], classes, dtype=x.dtype)
    torch.nn.init.zeros_(head.weight), torch.nn.init.zeros_(head.bias)
    optimizer = torch.optim.SGD(head.parameters(), lr=rate, momentum=momentum)
    updates = epochs * math.ceil(len(x) / batch_size)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, updates)
    generator = torch.Generator().manual_seed(seed)
    for _ in range(epochs):
        for batch in torch.randperm(len(x), generator=generator).split(batch_size):
            optimizer.zero_grad()
            F.cross_entropy(head(x[batch]), labels[batch]).backward()
            optimizer.step()
            schedule.step()
    return head


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_heads_together_equal_one_at_a_time(momentum):
    x, labels = problem()
    options = {"epochs": 4, "batch_size": 32, "momentum": momentum, "seed": 5}  # the last batch has 26
    heads = train_heads(x, labels, [1e-3, 0.1, 2.0], classes=4, **options)
    for i, rate in enumerate((1e-3, 0.1, 2.0)):
        expected = one_head(x, labels, rate, **options)
        assert heads.weights[i].numpy() == pytest.approx(expected.weight.detach().numpy(), rel=1e-9, abs=1e-12)
        assert heads.intercepts[i].numpy() == pytest.approx(expected.bias.detach().numpy(), rel=1e-9, abs=1e-12)


def test_the_first_update_in_closed_form():
    x, labels = problem()
    heads = train_heads(x, labels, [0.5], classes=4, epochs=1, batch_size=len(x))
    residual = 0.25 - F.one_hot(labels, 4).double()
    assert heads.weights[0].numpy() == pytest.approx((-0.5 * residual.T @ x / len(x)).numpy())
    assert heads.intercepts[0].numpy() == pytest.approx((-0.5 * residual.mean(0)).numpy())


def test_one_seed_gives_one_answer():
    x, labels = problem()
    first, again, other = (train_heads(x, labels, [0.1], classes=4, seed=seed, **QUICK) for seed in (0, 0, 1))
    assert torch.equal(first.weights, again.weights) and not torch.equal(first.weights, other.weights)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rates": []}, "rates must be finite and > 0"),
        ({"rates": [0.1, 0.0]}, "rates must be finite and > 0"),
        ({"rates": [math.inf]}, "rates must be finite and > 0"),
        ({"epochs": 0}, "at least 1, got 0 and 256"),
        ({"batch_size": 0}, "at least 1, got 100 and 0"),
        ({"momentum": 1.0}, r"momentum must lie in \[0, 1\), got 1.0"),
    ],
)
def test_impossible_numbers_are_refused(change, message):
    x, labels = problem()
    with pytest.raises(ValueError, match=message):
        train_heads(x, labels, **{"rates": [0.1], "classes": 4} | change)


def test_probe_equals_the_protocol_spelled_out():
    b = bank()
    result = sgd_probe(b, rates=[0.8, 0.008, 0.08], **QUICK)

    def fit(part, rate):
        x = torch.from_numpy(part.features)
        standardise = Standardisation(x)
        options = {"epochs": 3, "batch_size": 32, "momentum": 0.9, "seed": 0}
        head = one_head(standardise(x), torch.from_numpy(part.labels), rate, **options)
        return lambda other: head(standardise(torch.from_numpy(other.features))).argmax(1).numpy()

    curve = [float((fit(b.train, rate)(b.validation) == b.validation.labels).mean()) for rate in (0.001, 0.01, 0.1)]
    assert result["rates"] == pytest.approx([0.001, 0.01, 0.1])  # an eighth of the batch, an eighth of the rate
    assert result["validation"] == pytest.approx(curve)
    assert result["rate"] == result["rates"][curve.index(max(curve))]
    assert result["test"]["predictions"] == fit(b.full_train(), result["rate"])(b.test).tolist()
    assert (result["epochs"], result["batch_size"], result["momentum"]) == (3, 32, 0.9)
    assert json.loads(json.dumps(result)) == result


def test_the_whole_protocol_learns():
    result = sgd_probe(bank(sizes=(400, 100, 200)), epochs=20)
    assert len(RATES) == 13 == len(result["rates"]) and result["rates"] == list(RATES)
    assert result["test"]["top1"] > 0.5


def test_probe_chooses_without_the_test_labels():
    plain, other = sgd_probe(bank(), **QUICK), sgd_probe(blind(bank()), **QUICK)
    assert plain.pop("test")["predictions"] == other.pop("test")["predictions"]
    assert plain == other


def test_absent_classes_and_one_class():
    b = bank()
    result = sgd_probe(bank(train=without(b.train, 3), validation=without(b.validation, 3)), **QUICK)
    assert result["unseen_classes"] == [3] and 3 not in result["test"]["predictions"]
    alone = b.train
    for label in (0, 1, 3):
        alone = without(alone, label)
    with pytest.raises(ValueError, match="at least two classes, got class 2 only"):
        sgd_probe(bank(train=alone), **QUICK)

import pytest
import torch
from torch import nn

from ssl_ebm.evaluation.features.cost import cost, flops, training_speed


def test_operations_of_known_layers():
    assert flops(nn.Linear(30, 7), torch.zeros(1, 1, 1, 30)) == 2 * 30 * 7
    image = torch.zeros(1, 3, 8, 8)
    assert flops(nn.Conv2d(3, 5, 3, padding=1), image) == 2 * 5 * 8 * 8 * 3 * 9
    assert flops(nn.ReLU(), image) is None


def test_time_is_the_sum_over_measurements():
    metrics = [
        {"step": 10, "images_per_second": 100.0},
        {"step": 15, "knn_validation": 0.5},
        {"step": 30, "images_per_second": 50.0},
        {"step": 40, "images_per_second": 200.0},
    ]
    found = training_speed(metrics, 64)
    assert found["train_seconds"] == pytest.approx(10 * 64 / 100 + 20 * 64 / 50 + 10 * 64 / 200)
    assert found["images_per_second"] == 100
    assert training_speed([], 64) == {"train_seconds": None, "images_per_second": None}


def test_cost_of_an_encoder():
    found = cost(nn.Linear(4, 3), torch.zeros(1, 1, 1, 4), [], 8)
    assert found == {"train_seconds": None, "images_per_second": None, "flops_per_image": 24.0, "parameters": 15}

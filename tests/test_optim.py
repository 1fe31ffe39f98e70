import math
from typing import Any

import pytest
import timm
import torch
from small import small_objective
from torch import nn

from ssl_ebm.optim import OptimizerConfig, clip_gradients, create_optimizer, learning_rate, parameter_groups


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(12, 4)).double()


def test_norms_and_biases_are_not_decayed() -> None:
    net, objective = network(), small_objective("siglip")
    net[0].bias.requires_grad_(False)
    decayed, plain = parameter_groups([net, objective], weight_decay=0.3)
    assert decayed["weight_decay"] == 0.3 and plain["weight_decay"] == 0.0
    assert [id(p) for p in decayed["params"]] == [id(net[0].weight), id(net[3].weight)]
    expected = [net[1].weight, net[1].bias, net[3].bias, objective.energy.log_scale, objective.contrast.bias]
    assert [id(p) for p in plain["params"]] == [id(p) for p in expected]


@pytest.mark.parametrize("weight_decay", [0.3, 0.0])
def test_what_timm_names_is_not_decayed(weight_decay: float) -> None:
    """A ViT's tokens and positions, though they have three dimensions, wherever the ViT lies in the modules."""
    vit = timm.create_model("vit_tiny_patch16_224", img_size=16, patch_size=8, depth=1, embed_dim=12, num_classes=0)
    decayed, plain = parameter_groups([nn.Linear(2, 2), nn.Sequential(vit)], weight_decay)
    assert (decayed["weight_decay"], plain["weight_decay"]) == (weight_decay, 0.0)
    names = {id(p): name for name, p in vit.named_parameters()}
    kept = [names[id(p)] for p in plain["params"] if id(p) in names]
    assert kept[:2] == ["cls_token", "pos_embed"] and all(vit.get_parameter(name).ndim == 1 for name in kept[2:])
    assert [names[id(p)] for p in decayed["params"][1:]] == [name for name in names.values() if name not in kept]


def test_lars_adapts_no_token() -> None:
    vit = timm.create_model("vit_tiny_patch16_224", img_size=16, patch_size=8, depth=1, embed_dim=12, num_classes=0)
    decayed, plain = create_optimizer([vit], OptimizerConfig(name="lars", weight_decay=0.0)).param_groups
    assert decayed["always_adapt"] and not plain["always_adapt"] and plain["params"][0] is vit.cls_token


@pytest.mark.parametrize("name", ["adamw", "sgd", "lars"])
def test_zero_gradients_only_decay_the_weights(name: str) -> None:
    net = network()
    before = {key: p.detach().clone() for key, p in net.named_parameters()}
    optimizer = create_optimizer([net], OptimizerConfig(name=name, lr=0.1, weight_decay=0.5))
    for parameter in net.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    # without a gradient LARS has no trust ratio, and none of the three an adaptive one
    for key, parameter in net.named_parameters():
        factor = 1 - 0.1 * 0.5 if parameter.ndim > 1 else 1
        torch.testing.assert_close(parameter.detach(), factor * before[key], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("weight_decay", [1e-2, 0.0])
def test_lars_by_hand(weight_decay: float) -> None:
    net = network()
    config = OptimizerConfig(name="lars", lr=0.4, weight_decay=weight_decay, momentum=0.8)
    optimizer = create_optimizer([net], config)
    parameters = list(net.parameters())
    values, buffers = [p.detach().clone() for p in parameters], [torch.zeros_like(p) for p in parameters]
    generator = torch.Generator().manual_seed(3)
    for _ in range(3):
        for i, parameter in enumerate(parameters):
            gradient = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            parameter.grad, update = gradient.clone(), gradient
            if parameter.ndim > 1:
                norm = values[i].square().sum().sqrt()
                ratio = 0.001 * norm / (gradient.square().sum().sqrt() + weight_decay * norm)
                update = ratio * (gradient + weight_decay * values[i])
            buffers[i] = 0.8 * buffers[i] + update
            values[i] = values[i] - 0.4 * buffers[i]
        optimizer.step()
    for parameter, expected in zip(parameters, values, strict=True):
        torch.testing.assert_close(parameter.detach(), expected, rtol=1e-7, atol=1e-9)


def test_sgd_by_hand() -> None:
    net = network()
    optimizer = create_optimizer([net], OptimizerConfig(name="sgd", lr=0.1, weight_decay=0.2, momentum=0.5))
    weight = net[3].weight
    value, buffer = weight.detach().clone(), torch.zeros_like(weight)
    for step in range(3):
        weight.grad = torch.full_like(weight, step + 1.0)
        buffer = 0.5 * buffer + weight.grad + 0.2 * value
        value = value - 0.1 * buffer
        optimizer.step()
    torch.testing.assert_close(weight.detach(), value, rtol=1e-12, atol=1e-12)


def test_adamw_takes_its_betas() -> None:
    optimizer = create_optimizer([network()], OptimizerConfig(betas=(0.8, 0.95), lr=3e-4))
    assert all(group["betas"] == (0.8, 0.95) and group["lr"] == 3e-4 for group in optimizer.param_groups)


def test_a_network_without_norms_and_biases_has_one_group() -> None:
    optimizer = create_optimizer([nn.Linear(2, 2, bias=False)], OptimizerConfig(name="lars"))
    assert len(optimizer.param_groups) == 1


def test_learning_rate_rises_and_falls() -> None:
    config = OptimizerConfig(lr=0.8, final_lr=0.1)
    rate = [learning_rate(step, total=110, warmup=10, config=config) for step in range(111)]
    torch.testing.assert_close(rate[:10], [0.08 * (step + 1) for step in range(10)])
    closed = [0.08 + 0.72 * (1 + math.cos(math.pi * (step - 10) / 100)) / 2 for step in range(10, 111)]
    torch.testing.assert_close(rate[10:], closed)
    assert rate[9] == rate[10] == max(rate) == 0.8
    assert rate[60] == pytest.approx(0.44) and rate[110] == pytest.approx(0.08)


def test_learning_rate_at_the_edges() -> None:
    config = OptimizerConfig(lr=1.0)
    assert learning_rate(0, total=10, warmup=0, config=config) == 1.0
    assert learning_rate(10, total=10, warmup=0, config=config) == pytest.approx(0.0)
    assert learning_rate(15, total=10, warmup=0, config=config) == pytest.approx(0.0)
    assert learning_rate(4, total=3, warmup=9, config=config) == pytest.approx(5 / 9)  # a run shorter than its warm-up
    assert learning_rate(3, total=3, warmup=3, config=config) == 1.0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "adam"}, "unknown optimizer 'adam': did you mean 'adamw'"),
        ({"lr": 0.0}, r"optimizer\.lr must be > 0, got 0"),
        ({"lr": math.nan}, r"optimizer\.lr must be > 0, got nan"),
        ({"weight_decay": -1.0}, r"optimizer\.weight_decay must be >= 0, got -1"),
        ({"warmup_epochs": -1.0}, r"optimizer\.warmup_epochs must be >= 0, got -1"),
        ({"final_lr": -0.5}, r"optimizer\.final_lr must be >= 0, got -0.5"),
        ({"clip_norm": 0.0}, r"optimizer\.clip_norm must be > 0 or null, got 0"),
        ({"momentum": 1.0}, r"optimizer\.momentum must be in \[0, 1\), got 1"),
        ({"betas": (0.9, 1.0)}, r"optimizer\.betas must be in \[0, 1\), got \(0.9, 1.0\)"),
    ],
)
def test_mistakes_name_the_key(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        OptimizerConfig(**arguments)


@pytest.mark.parametrize(("clip_norm", "scale"), [(None, 1.0), (20.0, 1.0), (1.0, 0.1)])
def test_gradients_are_clipped_to_a_norm_over_all_parameters(clip_norm, scale):
    gradients = [torch.tensor([[6.0]]), torch.tensor([8.0, 0.0])]
    parameters = [torch.nn.Parameter(torch.zeros_like(gradient)) for gradient in gradients]
    unused = torch.nn.Parameter(torch.zeros(1))
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.grad = gradient.clone()
    optimizer = torch.optim.SGD([{"params": parameters[:1]}, {"params": [*parameters[1:], unused]}], lr=1.0)
    assert clip_gradients(optimizer, clip_norm).item() == pytest.approx(10.0)
    for parameter, gradient in zip(parameters, gradients, strict=True):
        torch.testing.assert_close(parameter.grad, scale * gradient, rtol=1e-5, atol=0)

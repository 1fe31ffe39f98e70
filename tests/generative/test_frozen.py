"""A network is a function of its input while it is sampled from, and what it was afterwards."""

import pytest
import timm
import torch
from torch import nn

from ssl_ebm.generative.samplers.frozen import frozen, require_independent_samples
from ssl_ebm.generative.samplers.langevin import SGLD
from ssl_ebm.networks.batch_norm import convert_batch_norm


def network(norm=None):
    torch.manual_seed(0)
    norm = norm or nn.GroupNorm(2, 4)
    return nn.Sequential(nn.Conv2d(1, 4, 3), norm, nn.Dropout(0.5), nn.SiLU(), nn.Flatten(), nn.Linear(4 * 36, 1))


def test_modes_flags_and_gradients_are_restored():
    net = network()
    net[5].bias.requires_grad_(False)
    net[2].eval()
    net(torch.rand(2, 1, 8, 8)).sum().backward()
    gradients = [None if p.grad is None else p.grad.clone() for p in net.parameters()]
    modes, flags = [m.training for m in net.modules()], [p.requires_grad for p in net.parameters()]
    with torch.no_grad(), frozen(net):
        assert not any(m.training for m in net.modules()) and not any(p.requires_grad for p in net.parameters())
        SGLD(step_size=1.0, noise=0.1, steps=2)(lambda x: net(x)[:, 0], torch.rand(2, 1, 8, 8))
    with pytest.raises(KeyError), frozen(net):
        raise KeyError
    assert [m.training for m in net.modules()] == modes and [p.requires_grad for p in net.parameters()] == flags
    for before, parameter in zip(gradients, net.parameters(), strict=True):
        assert (before is None and parameter.grad is None) or torch.equal(before, parameter.grad)


def test_a_graph_built_before_sampling_still_reaches_the_parameters():
    net = network()
    net[2].p = 0.0
    x = torch.rand(2, 1, 8, 8)
    net(x).sum().backward()
    expected = [p.grad.clone() for p in net.parameters()]
    net.zero_grad()
    loss = net(x).sum()
    with frozen(net):
        SGLD(step_size=1.0, noise=0.1, steps=2)(lambda x: net(x)[:, 0], x)
    loss.backward()
    assert all(torch.equal(a, p.grad) for a, p in zip(expected, net.parameters(), strict=True))


def test_sampling_leaves_batch_norm_elsewhere_alone():
    """Statistics do not move: of a network that is sampled from there are none, others are in nobody's way."""
    net, head = network(), nn.BatchNorm1d(1)
    before = {name: value.clone() for name, value in head.state_dict().items()}
    with frozen(net):
        SGLD(step_size=1.0, noise=0.1, steps=2)(lambda x: net(x)[:, 0], torch.rand(2, 1, 8, 8))
    assert all(torch.equal(value, head.state_dict()[name]) for name, value in before.items())


@pytest.mark.parametrize("norm", [nn.BatchNorm2d(4), nn.SyncBatchNorm(4), timm.layers.BatchNormAct2d(4)])
def test_batch_norm_is_refused_with_the_way_out(norm):
    net = network(norm)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    with pytest.raises(
        ValueError, match=r"BatchNorm.*\(1\) couples.*GroupNorm or LayerNorm.*convert_batch_norm"
    ) as error:
        with frozen(net):
            pass
    assert "\n" not in str(error.value) and net.training
    assert all(torch.equal(value, net.state_dict()[name]) for name, value in before.items())


@pytest.mark.parametrize("model", ["test_resnet", "test_efficientnet"])
def test_conversion_for_a_trained_network_keeps_its_function(model):
    torch.manual_seed(0)
    net = timm.create_model(model, num_classes=0)
    for _ in range(3):
        net(torch.rand(8, 3, 64, 64))
    x = torch.rand(4, 3, 64, 64)
    with torch.no_grad():
        expected = net.eval()(x)
        convert_batch_norm(net, "affine")
        require_independent_samples(net)
        assert torch.allclose(net(x), expected, atol=1e-5)
        assert torch.allclose(net.train()(x)[:1], net(x[:1]), atol=1e-5)


@pytest.mark.parametrize("model", ["test_resnet", "test_efficientnet"])
def test_conversion_for_a_new_network_makes_samples_independent(model):
    torch.manual_seed(0)
    net = convert_batch_norm(timm.create_model(model, num_classes=0, in_chans=1), groups=4)
    require_independent_samples(net)
    assert any(isinstance(m, nn.GroupNorm) and m.num_groups == 4 for m in net.modules())
    x = torch.rand(4, 1, 32, 32)
    with frozen(net):
        assert torch.allclose(net(x)[:1], net(x[:1]), atol=1e-5)
    alone = convert_batch_norm(nn.BatchNorm1d(3))
    assert isinstance(alone, nn.GroupNorm) and alone(torch.rand(2, 3)).shape == (2, 3)


def test_mistakes_are_named():
    with pytest.raises(ValueError, match="'group_norm' or 'affine', got 'layer'"):
        convert_batch_norm(nn.BatchNorm1d(3), "layer")
    with pytest.raises(ValueError, match="without running statistics"):
        convert_batch_norm(nn.BatchNorm1d(3, track_running_stats=False), "affine")

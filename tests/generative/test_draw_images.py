"""Images drawn under each energy of trained networks; the whole way from a run is in test_term.py."""

import pytest
import torch
from torch import nn

from ssl_ebm.energies.pairwise import Cosine
from ssl_ebm.generative.config import GenerativeConfig
from ssl_ebm.generative.draw_images import TrainedEnergies, draw_images
from ssl_ebm.generative.heads import LogitsHead, ScalarHead
from ssl_ebm.networks.encoder import create_encoder

SHAPE = (1, 8, 8)
SGLD = {"name": "sgld", "step_size": 0.1, "noise": 0.01, "steps": 3}


def energies(head=None, norm="groupnorm1"):
    torch.manual_seed(0)
    kwargs = {"norm_layer": norm} if norm else {}
    encoder = create_encoder("test_resnet", in_chans=1, image_size=8, **kwargs)
    projector = nn.Linear(encoder.num_features, 4)
    built = {"scalar": lambda: ScalarHead(encoder.num_features), "logits": LogitsHead}.get(head, lambda: None)()
    parts = TrainedEnergies(encoder, projector, Cosine(temperature=0.1), built)
    for part in (encoder, projector):
        part.eval()
    return parts


def images(count):
    return torch.rand(count, *SHAPE, generator=torch.Generator().manual_seed(1))


def test_chains_lower_the_energy_that_was_asked_for() -> None:
    config, start = GenerativeConfig(sampler={**SGLD, "step_size": 1.0, "noise": 0.0}), images(3)
    parts = energies("logits")
    for choice, energy in (
        ({}, parts.of_images(None)),
        ({"label": 2}, parts.of_class(2)),
        ({"given": images(3).flip(0)}, parts.of_pairs(images(3).flip(0))),
    ):
        samples = draw_images(parts, config, SHAPE, x0=start, steps=20, **choice)
        with torch.no_grad():
            torch.testing.assert_close(samples.energy, energy(samples.images))
            assert float(samples.energy.mean()) < float(energy(start).mean())
        assert not samples.adversarial


def test_energies_that_are_not_finite_are_refused() -> None:
    parts = energies("scalar")
    with torch.no_grad():
        parts.head.layers[-1].bias.fill_(float("inf"))
    with pytest.raises(ValueError, match="chains ran into energies that are not finite: lower the sampler's step_size"):
        draw_images(parts, GenerativeConfig(sampler=SGLD), SHAPE, n=2, steps=1)


def test_batch_norm_is_converted_in_a_copy() -> None:
    parts, x = energies(norm=None), images(2)
    with pytest.raises(ValueError, match="BatchNorm"):
        draw_images(parts, None, SHAPE, given=x, steps=2)
    assert draw_images(parts.without_batch_norm(), None, SHAPE, given=x, steps=2).adversarial
    assert any(isinstance(module, nn.BatchNorm2d) for module in parts.encoder.modules())
    with torch.no_grad():
        torch.testing.assert_close(parts.without_batch_norm().embed(x), parts.embed(x))


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ({"n": 0}, "needs n >= 1, and x0 and given of n images each, got n=0"),
        ({"n": 3, "given": images(2)}, "needs n >= 1, and x0 and given of n images each, got n=3"),
        ({"n": 2, "steps": 0}, "steps must be >= 1, got 0"),
        ({"n": 2, "label": 4}, r"label must be in \[0, 3\], got 4"),
    ],
)
def test_mistakes_are_named(choice, message) -> None:
    with pytest.raises(ValueError, match=message):
        draw_images(energies("logits"), GenerativeConfig(sampler=SGLD), SHAPE, **choice)

"""An RBM as encoder and energy of images, from its units to what is said of a trained one."""

import pytest
import timm
import torch

from ssl_ebm.data.datasets import Images, Splits
from ssl_ebm.energies.pairwise import Cosine
from ssl_ebm.evaluation.energy.of_images import filters, log_likelihood
from ssl_ebm.generative.config import ChainsConfig, GenerativeConfig
from ssl_ebm.generative.draw_images import chain_length
from ssl_ebm.generative.heads import FreeEnergyHead, ScalarHead
from ssl_ebm.generative.image_energy import ImageEnergy
from ssl_ebm.generative.samplers.frozen import frozen
from ssl_ebm.generative.samplers.gibbs import Gibbs
from ssl_ebm.generative.samplers.langevin import SGLD
from ssl_ebm.networks.encoder import create_encoder

SIZE, MEAN = 4, 0.3


@pytest.fixture
def energy():
    torch.manual_seed(0)
    encoder = create_encoder(
        "rbm", in_chans=1, image_size=SIZE, mean=[MEAN], std=[0.2], img_size=SIZE, hidden=5, spread=1.0
    )
    return ImageEnergy(encoder, torch.nn.Identity(), FreeEnergyHead(encoder))


def images(count, seed=0):
    return torch.rand(count, 1, SIZE, SIZE, generator=torch.Generator().manual_seed(seed))


def test_features_are_hidden_probabilities_and_the_energy_is_the_free_energy(energy):
    x, rbm = images(6), energy.head.rbm
    v = (x > MEAN).float().flatten(1)
    with torch.no_grad():
        assert torch.equal(energy.encoder(x), rbm.hidden_probability(v))
        assert torch.equal(energy(x), rbm(v)) and torch.equal(energy(x.round()), rbm(x.round().flatten(1)))
        assert torch.equal(energy.embed(x), x)
    assert energy.encoder.num_features == 5 and energy.encoder.output_stride == 1
    assert not list(energy.head.parameters())


def test_gibbs_moves_images_as_the_machine_moves_units(energy):
    x, rbm = images(6), energy.head.rbm
    with frozen(energy):
        chains = Gibbs(steps=3)(energy, x, generator=torch.Generator().manual_seed(1))
    moved = rbm.gibbs((x > MEAN).float().flatten(1), sweeps=3, generator=torch.Generator().manual_seed(1))
    assert torch.equal(chains.x.flatten(1), moved) and chains.x.shape == x.shape and chains.drift is None
    assert set(chains.x.unique().tolist()) == {0.0, 1.0}


def test_the_expected_image_is_the_probability_of_pixels(energy):
    x, rbm = images(3), energy.head.rbm
    v = (x > MEAN).float().flatten(1)
    odds = torch.sigmoid(v @ rbm.weight + rbm.hidden_bias) @ rbm.weight.T + rbm.visible_bias
    assert torch.allclose(energy.head.expected(x).flatten(1), torch.sigmoid(odds), atol=1e-6)


def test_gibbs_is_for_an_rbm(energy):
    other = ImageEnergy(energy.encoder, torch.nn.Identity(), ScalarHead(5))
    for wrong in (other, lambda x: Cosine()(x, x)):
        with pytest.raises(ValueError, match="moves the units of an RBM"):
            Gibbs()(wrong, images(2))
    with pytest.raises(ValueError, match="steps must be >= 1, got 0"):
        Gibbs(steps=0)


def test_timm_knows_it():
    network = timm.create_model("rbm", in_chans=3, img_size=2, hidden=7, num_classes=0)
    assert network(torch.randn(2, 3, 2, 2)).shape == (2, 7)


def test_the_log_likelihood_is_the_enumerated_one(energy):
    def part(count, seed):
        return Images((images(count, seed) * 255).byte(), torch.zeros(count, dtype=torch.long), ("any",))

    splits = Splits(train=part(40, 0), validation=part(10, 1), test=part(20, 2), name="random")
    found = log_likelihood(energy.head, splits, temperatures=300)
    with torch.no_grad():
        test, train = (energy.head.visible(own.images.float() / 255) for own in (splits.test, splits.train))
        exact = (-energy.head.rbm(test) - energy.head.rbm.log_partition()).mean()
    assert abs(found["test"] - float(exact)) < 5 * found["standard_error"] < 0.3
    on = (train[torch.linspace(0, 39, 20).long()].sum(0) + 1) / 22  # as many images as test has
    assert found["independent"] == pytest.approx(
        float(torch.distributions.Bernoulli(on).log_prob(test).sum(1).mean()), rel=0.05
    )
    assert found["independent"] > found["test"]  # untrained, of large weights


def test_filters_are_the_largest_weights(energy):
    found = filters(energy.head, (1, SIZE, SIZE))
    weight = energy.head.rbm.weight.detach()
    largest = weight[:, weight.norm(dim=0).argmax()]
    assert found.shape == (5, 1, SIZE, SIZE)
    assert int(found[0].flatten()[largest.abs().argmax()]) == (255 if largest[largest.abs().argmax()] > 0 else 0)


@pytest.mark.parametrize(
    ("sampler", "chains", "steps"),
    [
        (Gibbs(steps=1), {"restart": 0.0}, 10_000),
        (Gibbs(steps=2), {"restart": 0.01}, 200),
        (SGLD(steps=10), {"restart": 0.0}, 1000),
        (SGLD(steps=10), {"restart": 0.05}, 200),
        (SGLD(steps=10), {"start": "noise"}, 10),
    ],
)
def test_chains_from_noise_are_as_long_as_the_trainings_live(sampler, chains, steps):
    gibbs = {"head": {"name": "free_energy"}, "sampler": {"name": "gibbs"}} if isinstance(sampler, Gibbs) else {}
    assert chain_length(sampler, GenerativeConfig(chains=ChainsConfig(**chains), **gibbs)) == steps

"""Energies of single images: of data, samples and foreign sets, for the heads that read features or projections."""

import json

import numpy as np
import pytest
import torch

from ssl_ebm.config import load_config
from ssl_ebm.data.datasets import Images, Splits
from ssl_ebm.data.resize import resize
from ssl_ebm.evaluation.described_json import mismatches
from ssl_ebm.evaluation.energy import of_images as module
from ssl_ebm.evaluation.energy.of_images import image_measures
from ssl_ebm.evaluation.energy.verification import histograms
from ssl_ebm.evaluation.results import ImageEnergies
from ssl_ebm.generative.term import create_head
from ssl_ebm.model import EnergyModel
from ssl_ebm.networks.encoder import build_encoder
from ssl_ebm.objectives import create_objective

GIVEN = {
    "views": {"name": "grey", "size": 12},
    "encoder": {"name": "test_resnet", "kwargs": {"channels": [4, 4, 8, 8], "norm_layer": "groupnorm1"}},
    "objective": {
        "name": "simclr",
        "projector": {"hidden": [8], "out": 6, "hidden_norm": False, "output_norm": "none"},
    },
}
SGLD = {"name": "sgld", "step_size": 0.01, "noise": 0.01, "steps": 2}


def some(n, seed):
    images = torch.randint(0, 256, (n, 1, 16, 16), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)
    return Images(images, torch.arange(n) % 3, ("a", "b", "c"))


@pytest.fixture(scope="module")
def splits():
    return Splits(train=some(60, 0), validation=some(12, 1), test=some(40, 2), name="fashion_mnist")


def build(splits, head, step_size=0.01):
    generative = None if head is None else {"head": {"name": head}, "sampler": SGLD | {"step_size": step_size}}
    config = load_config(GIVEN | ({"generative": generative} if generative else {}), ["run_dir=nowhere"])
    torch.manual_seed(0)
    encoder = build_encoder(config.encoder, in_chans=1, image_size=16, mean=[0.5], std=[0.25])
    objective = create_objective(**config.objective)
    projector = objective.heads.projector.build(encoder.num_features)
    built = None
    if config.generative is not None:
        built = create_head(config.generative, encoder, dim=6, energy=objective.scorer)
    return EnergyModel(encoder, projector, objective.scorer, config, head=built)


@pytest.mark.parametrize("head", ["scalar", "joint", "norm"])
def test_energies_of_single_images(splits, head, monkeypatch):
    seen = []

    def foreign(config, splits, *, size):
        seen.append(size)
        return {"same": splits.test.images[::2], "blank": torch.zeros(9, 1, size, size, dtype=torch.uint8)}

    monkeypatch.setattr(module, "foreign_sets", foreign)
    model = build(splits, head)
    metrics = [{"step": 1}, *({"image_gradient_cosine": value} for value in (0.9, None, 0.5, 0.1, 0.3))]
    found = image_measures(model, splits, metrics)
    assert json.loads(json.dumps(found, allow_nan=False)) == found and seen == [12]
    assert list(mismatches(found, ImageEnergies)) == [("unknown", "ood")], "which stands beside the pairs' scores"
    assert found["gradient_cosine"] == pytest.approx(0.2)  # of .9, .5, .1, .3 the last two
    assert {name: sum(counts) for name, counts in found["histograms"].items()} == {
        **{"test": 40, "samples": module.SAMPLE_CHAINS},
        **{"same": 20, "blank": 9},
    }
    assert found["temperature"] == pytest.approx(0.005) and found["steps"] >= 2
    assert 0.3 < found["ood"]["same"]["auroc"] < 0.7  # test images are not foreign
    assert found["std"]["blank"] == pytest.approx(0, abs=1e-5)
    x, bank = (resize(part.images.float() / 255, 12) for part in (splits.test, splits.train))
    with torch.no_grad():
        expected = model.image_energy(x, bank=bank if head == "joint" else None)
    assert found["mean"]["test"] == pytest.approx(float(expected.mean()), rel=1e-5)


def test_the_logits_head_is_judged_as_a_classifier(splits, monkeypatch):
    monkeypatch.setattr(module, "foreign_sets", lambda config, splits, *, size: {})
    model = build(splits, "logits")
    found = image_measures(model, splits)
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert list(mismatches(found, ImageEnergies)) == [("unknown", "ood")]
    x = resize(splits.test.images.float() / 255, 12)
    logits = model.projector(model.encoder.at_any_size(x))
    assert found["classifier"]["top1"] == pytest.approx(float((logits.argmax(1) == splits.test.labels).float().mean()))
    assert 0 <= found["classifier"]["ece"] <= 1


def test_a_run_without_a_head_has_none(splits):
    assert image_measures(build(splits, None), splits) is None


def test_chains_that_diverge_are_a_result(splits, monkeypatch):
    monkeypatch.setattr(module, "foreign_sets", lambda config, splits, *, size: {})

    def diverges(*args, **kwargs):
        raise ValueError("chains ran into energies that are not finite: lower the sampler's step_size")

    model = build(splits, "scalar")
    monkeypatch.setattr(model, "sample", diverges)
    found = image_measures(model, splits)
    assert found["gradient_cosine"] is None
    assert found["sampling_failed"].startswith("chains ran into") and set(found["histograms"]) == {"test"}


def test_histograms_have_common_edges():
    found = histograms({"a": np.array([0.0, 1.0]), "b": np.array([3.0])}, bins=3)
    assert found == {"edges": [0.0, 1.0, 2.0, 3.0], "histograms": {"a": [1, 1, 0], "b": [0, 0, 1]}}
    assert sum(histograms({"flat": np.ones(5)})["histograms"]["flat"]) == 5
    far = histograms({"a": np.array([0.0, 1.0]), "b": np.array([300.0, 1.5])}, bins=2, limits=(-4.0, 2.0))
    assert far == {"edges": [0.0, 1.0, 2.0], "histograms": {"a": [1, 1], "b": [0, 2]}}

"""Measures of a run's energy on a small untrained model and made-up images."""

import json

import numpy as np
import pytest
import torch

from ssl_ebm.config import load_config
from ssl_ebm.data.datasets import Images, Splits
from ssl_ebm.energies.pairwise import Cosine
from ssl_ebm.evaluation.energy import of_pairs as measures
from ssl_ebm.evaluation.energy.of_pairs import (
    encode_views,
    evenly_spaced,
    foreign_sets,
    held_out,
    measure_energy,
    outlier_detection,
    project,
    two_views,
)
from ssl_ebm.evaluation.features.bank import Bank, Split, extract
from ssl_ebm.model import EnergyModel
from ssl_ebm.networks.encoder import build_encoder
from ssl_ebm.objectives import create_objective
from ssl_ebm.report.similarity_of_runs import similarities

GIVEN = {"views": {"name": "grey"}, "encoder": {"name": "test_resnet", "kwargs": {"channels": [4, 4, 8, 8]}}}
HEAD = {"hidden": [8], "out": 6}


def some(n, seed, size=16):
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(n, 1, 4, 4, generator=generator)
    images = torch.nn.functional.interpolate(coarse, (size, size), mode="bilinear")
    return Images((255 * images).to(torch.uint8), torch.arange(n) % 3, ("a", "b", "c"))


@pytest.fixture(scope="module")
def splits():
    return Splits(train=some(90, 0), validation=some(12, 1), test=some(40, 2), name="fashion_mnist")


def build(name, splits):
    config = load_config(GIVEN | {"objective": {"name": name, "projector": HEAD}}, ["run_dir=nowhere"])
    torch.manual_seed(0)
    encoder = build_encoder(config.encoder, in_chans=1, image_size=splits.image_size, mean=[0.5], std=[0.25])
    objective = create_objective(**config.objective)
    projector = objective.heads.projector.build(encoder.num_features)
    return EnergyModel(encoder, projector, objective.scorer, config, canonical_form=objective.canonical_form)


def measured(model, splits):
    features = encode_views(model.features, two_views(model.config, splits.image_size, held_out(splits.test).images))
    return *measure_energy(model, splits, features, project(model, features)), features


@pytest.fixture(scope="module")
def simclr(splits):
    return build("simclr", splits)


def test_positions_are_spread_and_at_most_all():
    assert evenly_spaced(10, 3).tolist() == [0, 4, 9] and evenly_spaced(4, 9).tolist() == [0, 1, 2, 3]
    assert evenly_spaced(10_000, 2000).unique().numel() == 2000


def test_every_measure_of_a_run(simclr, splits):
    results, pairs, features = measured(simclr, splits)
    assert json.loads(json.dumps(results, allow_nan=False)) == results
    assert set(results) == {"trained", "canonical", "strength"}
    assert set(results["trained"]["calibration"]) == {
        *("nll_before", "nll_after", "ece_before", "ece_after", "beta", "bias")
    }
    assert set(results["canonical"]["information"]) == {"infonce", "nwj", "jsd", "pairs"}
    assert results["canonical"]["information"]["pairs"] == 40 and results["trained"]["images"] == 40
    assert set(pairs) == {"trained", "features", "kind"} and np.bincount(pairs["kind"]).tolist() == [40, 40, 40]
    cosine = torch.nn.functional.cosine_similarity(*features, dim=1)
    assert torch.allclose(torch.from_numpy(pairs["features"][:40]), -cosine, atol=1e-6)
    views = two_views(simclr.config, 16, splits.test.images)
    with torch.no_grad():
        assert torch.allclose(torch.from_numpy(pairs["trained"][:40]), simclr.energy(*views), atol=1e-5)
    assert similarities([features[0].numpy()] * 2, [pairs["trained"], pairs["features"]])["cka"][0][1] == pytest.approx(
        1
    )


def test_energies_without_a_canonical_form_say_why(splits):
    assert measured(build("byol", splits), splits)[0]["canonical"] == {"meaning": "order"}
    few = Splits(train=some(9, 0), validation=splits.validation, test=splits.test, name="fashion_mnist")
    reason = measured(build("vicreg", few), few)[0]["canonical"]["reason"]
    assert reason == "canonical correlations of 6 dimensions need more than 6 pairs, got 5"


def test_measuring_leaves_the_model_as_it_was(simclr, splits):
    before = {name: tensor.clone() for name, tensor in simclr.state_dict().items()}
    scorer = simclr.scorer
    measured(simclr, splits)
    assert simclr.scorer is scorer
    assert all(torch.equal(before[name], tensor) for name, tensor in simclr.state_dict().items())


def test_numbers_do_not_depend_on_batches_or_threads(simclr, splits):
    results, pairs, features = measured(simclr, splits)
    images = two_views(simclr.config, 16, splits.test.images)
    alone = torch.stack([torch.cat([simclr.features(x[None]) for x in view]) for view in images])
    assert torch.allclose(alone, features, atol=1e-5)
    threads = torch.get_num_threads()
    torch.set_num_threads(threads + 1)
    try:
        again = measured(simclr, splits)
    finally:
        torch.set_num_threads(threads)
    for name in ("anchor_auroc", "global_auroc", "d_prime"):
        assert again[0]["trained"][name] == pytest.approx(results["trained"][name], rel=1e-4)
    assert np.allclose(again[1]["trained"], pairs["trained"], atol=1e-5)


def test_outliers_are_scored_against_training_images(simclr, splits, monkeypatch):
    parts = {
        name: Split(extract(simclr.features, part.images), part.labels.numpy())
        for name, part in (("train", splits.train), ("validation", splits.validation), ("test", splits.test))
    }
    bank = Bank(**parts, classes=3)
    monkeypatch.setattr(measures, "foreign_sets", lambda config, splits: {"same": splits.test.images[::2]})
    found = outlier_detection(simclr, bank, splits, beta=2.0)
    assert set(found["same"]) == {"free_energy", "free_energy_calibrated", "knn", "mahalanobis"}
    for score in found["same"].values():
        assert 0.3 < score["auroc"] < 0.7  # test images are not foreign
    assert "free_energy_calibrated" not in outlier_detection(simclr, bank, splits, beta=-1.0)["same"]
    assert json.loads(json.dumps(found)) == found


def test_other_data_sets_count_where_they_are_on_the_machine(simclr, splits, monkeypatch):
    def load(config):
        assert not config.download and config.name != "fashion_mnist"
        if config.name != "mnist":
            raise measures.DataError("it is not here")
        return Splits(train=some(9, 0), validation=some(9, 1), test=some(7, 2, size=20), name="mnist")

    monkeypatch.setattr(measures, "load_data", load)
    sets = foreign_sets(simclr.config.data, splits)
    assert set(sets) == {"noise", "uniform", "textures", "digits", "mnist"}
    assert all(images.shape[1:] == (1, 16, 16) and images.dtype == torch.uint8 for images in sets.values())
    assert len(sets["mnist"]) == 7


def test_verification_reports_the_half_that_it_was_not_fitted_on():
    generator = torch.Generator().manual_seed(0)
    a = torch.randn(60, 5, generator=generator)
    views = torch.stack([a, a + 0.5 * torch.randn(60, 5, generator=generator)])
    changed = views.clone()
    changed[:, :30] = views[:, :30].flip(2)  # the fitted half alone
    first, second = (measures.verification(Cosine(), v, torch.arange(60) % 3)["calibration"] for v in (views, changed))
    assert first["nll_before"] == pytest.approx(second["nll_before"], abs=1e-9)
    broken = views.clone()
    broken[1, :30] = broken[1, :30].roll(1, 0)
    third = measures.verification(Cosine(), broken, torch.arange(60) % 3)["calibration"]
    assert third["nll_before"] == pytest.approx(first["nll_before"]) and third["beta"] < first["beta"] - 0.5

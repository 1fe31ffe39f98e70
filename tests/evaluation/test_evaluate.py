"""Results of a run: features and numbers are kept, and made anew where the weights changed."""

import json
from dataclasses import fields

import numpy as np
import pytest
import torch

import ssl_ebm.evaluation.encoder_rows as rows
import ssl_ebm.evaluation.evaluate as module
from ssl_ebm.config import load_config, save_config
from ssl_ebm.data.datasets import DataError
from ssl_ebm.evaluation import sgd_probe
from ssl_ebm.evaluation.described_json import mismatches
from ssl_ebm.evaluation.evaluate import evaluate
from ssl_ebm.evaluation.features.bank import Bank
from ssl_ebm.evaluation.results import EncoderRow, PairEnergies, Results
from ssl_ebm.evaluation.stored import read_results
from ssl_ebm.training.run import prepare, save

PROBES = {"knn", "linear", "ridge", "few_shot"}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """An untrained run with a checkpoint."""
    path = tmp_path_factory.mktemp("runs") / "run"
    given = {
        "run_dir": str(path),
        "data": {"limit": 150, "image_size": 14, "download": False},
        "views": {"name": "grey"},
        "encoder": {"name": "test_resnet", "kwargs": {"channels": [8, 8, 16, 16]}},
        "training": {"batch_size": 64},
    }
    try:
        prepared = prepare(load_config(given))
    except DataError as error:
        pytest.skip(str(error))
    path.mkdir()
    save_config(prepared.config, path / "config.yaml")
    save(prepared)
    return prepared


@pytest.fixture
def extracted(monkeypatch):
    """Names of the encoders whose features were extracted."""
    names = []
    extract = module.extract_bank

    def count(encode, splits, device, protocol, name="features"):
        names.append(name)
        return extract(encode, splits, device, protocol, name)

    for place in (module, rows):
        monkeypatch.setattr(place, "extract_bank", count)
    return names


def test_features_are_extracted_once_for_each_state_of_the_weights(run, extracted):
    path = run.directory.path
    first = evaluate(path)
    assert extracted == ["features", "random encoder", "raw pixels"]
    assert PROBES < set(first["rows"]["encoder"]) and "sgd" not in first["rows"]["encoder"]
    assert all(PROBES < set(row) for row in first["rows"].values())
    with np.load(path / "predictions.npz") as predictions:
        assert set(predictions) >= {"knn", "knn_chosen", "linear", "ridge"}
        labels = np.load(path / "features" / "test_labels.npy")
        assert (predictions["ridge"] == labels).mean() == first["rows"]["encoder"]["ridge"]["test"]["top1"]
    assert evaluate(path) == json.loads(json.dumps(first)) and len(extracted) == 3
    assert evaluate(path, force=True)["rows"]["encoder"]["linear"] == first["rows"]["encoder"]["linear"]
    assert len(extracted) == 3  # numbers are computed again, from the features that are there

    with torch.no_grad():
        for parameter in run.model.parameters():
            parameter += torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0)) / 10
    run.step += 1
    save(run)
    changed = evaluate(path)
    assert extracted[3:] == ["features"]  # baselines are those of the initial weights
    assert changed["protocol"]["weights"] != first["protocol"]["weights"] and changed["protocol"]["step"] == 1
    assert Bank.load(path / "features").protocol["weights"] == changed["protocol"]["weights"]


def test_the_file_is_what_its_schema_describes(run):
    evaluate(run.directory.path)
    content = read_results(run.directory.evaluation)
    assert list(mismatches(content, Results)) == [], "nothing is missing or undescribed"
    parts = ((content, Results), (content["rows"]["encoder"], EncoderRow), (content["energy"], PairEnergies))
    absent = {field.name for part, kind in parts for field in fields(kind)} - {key for part, _ in parts for key in part}
    assert absent <= {"sgd", "missing"}, "the report's tests would not see a part that is no longer written"


def test_the_sgd_probe_is_added_where_asked_once_and_from_the_kept_features(run, extracted, monkeypatch):
    path = run.directory.path
    evaluate(path)
    extracted.clear()
    asked = []

    def quick(bank):
        asked.append(len(bank.test))
        return sgd_probe(bank, epochs=1, batch_size=64)

    monkeypatch.setattr(module, "sgd_probe", quick)
    results = evaluate(path, sgd=True)
    assert results["rows"]["encoder"]["sgd"]["test"]["size"] == asked[0]
    assert "predictions" not in results["rows"]["encoder"]["sgd"]["test"]
    assert list(mismatches(read_results(path / "evaluation.json"), Results)) == []
    assert evaluate(path, sgd=True) == evaluate(path) == json.loads(json.dumps(results))
    assert len(asked) == 1 and extracted == []

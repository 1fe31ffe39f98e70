"""timm models and files of features, as a user evaluates them from the command line."""

import json

import numpy as np
import pytest
import timm
import torch
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as tv

import ssl_ebm
from ssl_ebm.cli import main
from ssl_ebm.data.datasets import DataConfig, DataError, load_data
from ssl_ebm.evaluation import evaluate_features, external
from ssl_ebm.evaluation.external import evaluate_file, evaluate_timm, timm_encoder
from ssl_ebm.evaluation.features.bank import Bank


def called(capsys, *arguments):
    try:
        code = main(["evaluate", *map(str, arguments)])
    except SystemExit as stop:
        code = stop.code
    return (code, *capsys.readouterr())


def arrays(seed=0, classes=3, **sizes):
    random = np.random.default_rng(seed)
    centres = 2 * random.standard_normal((classes, 6))
    found = {}
    for name, n in ({"train": 90, "test": 30} | sizes).items():
        labels = random.permutation(np.arange(n) % classes)
        found |= {name: np.float32(centres[labels] + random.standard_normal((n, 6))), f"{name}_labels": labels}
    return found


def test_a_file_of_features_gives_the_numbers_of_the_function(tmp_path, capsys):
    given = arrays(validation=30)
    np.savez(tmp_path / "given.npz", **given)
    code, shown, _ = called(capsys, "--features", tmp_path / "given.npz", "--out", tmp_path / "out")
    assert code == 0 and "ridge" in shown and "30 test images" in shown
    record = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    validation = given.pop("validation"), given.pop("validation_labels")
    expected = evaluate_features(**given, validation=validation)
    predictions = expected.pop("predictions")
    for name in ("knn", "linear", "ridge", "few_shot"):
        assert record["rows"]["encoder"][name] == json.loads(json.dumps(expected[name]))
    assert record["protocol"]["sizes"] == {"train": 90, "validation": 30, "test": 30}
    with np.load(tmp_path / "out" / "predictions.npz") as stored:
        assert set(stored) == set(predictions)
        assert all(np.array_equal(stored[name], predictions[name]) for name in predictions)


def test_an_array_with_labels_is_split(tmp_path):
    given = arrays()
    np.save(tmp_path / "x.npy", given["train"])
    np.save(tmp_path / "y.npy", given["train_labels"])
    record = evaluate_file(tmp_path / "x.npy", labels=tmp_path / "y.npy", out=tmp_path / "out", protocols=("ridge",))
    assert record["protocol"]["sizes"] == {"train": 65, "validation": 7, "test": 18}
    assert record["protocol"]["test"].startswith("20%") and record["rows"]["encoder"]["ridge"]["test"]["top1"] > 0.5


def test_mistakes_with_files_are_one_line(tmp_path, capsys):
    given = arrays()
    np.savez(tmp_path / "good.npz", **given)
    np.savez(tmp_path / "short.npz", train=given["train"], test=given["test"], test_labels=given["test_labels"])
    np.savez(tmp_path / "half.npz", **given, validation=given["test"])
    np.savez(tmp_path / "pickled.npz", **given | {"train": given["train"].astype(object)})
    np.save(tmp_path / "x.npy", given["train"])
    np.save(tmp_path / "y.npy", given["test_labels"])
    (tmp_path / "broken.npz").write_bytes(b"PK nothing")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml").touch()
    for options, message in [
        ([tmp_path / "none.npz"], "no features at"),
        ([tmp_path / "none.npy", "--labels", tmp_path / "y.npy"], "no array at"),
        ([tmp_path / "short.npz"], "lacks train_labels: it holds train, test, test_labels"),
        ([tmp_path / "half.npz"], "lacks validation_labels"),
        ([tmp_path / "pickled.npz"], "cannot be read"),
        ([tmp_path / "broken.npz"], "cannot be read"),
        ([tmp_path / "x.npy"], "give --labels"),
        ([tmp_path / "x.npy", "--labels", tmp_path / "y.npy"], "one integer from 0 for each of 90 features"),
        ([tmp_path / "good.npz", "--labels", tmp_path / "y.npy"], "holds its own labels"),
        ([tmp_path / "x.csv"], "ending in .npz or .npy"),
        ([tmp_path / "good.npz", "--timm", "resnet18"], "stands alone"),
        ([tmp_path / "good.npz", "--out", tmp_path / "run"], "a run's directory"),
        ([tmp_path / "good.npz", "--out", tmp_path / "x.npy"], "is a file"),
    ]:
        out = [] if "--out" in options else ["--out", tmp_path / "out"]
        code, _, error = called(capsys, "--features", *options, *out)
        assert code == 2 and message in error and len(error.strip().splitlines()) == 1, error
        assert not (tmp_path / "out").exists()


def test_results_are_not_overwritten_without_force(tmp_path, capsys):
    np.savez(tmp_path / "given.npz", **arrays())
    options = ["--features", tmp_path / "given.npz", "--out", tmp_path / "out"]
    assert called(capsys, *options)[0] == 0
    before = (tmp_path / "out" / "evaluation.json").read_bytes()
    np.savez(tmp_path / "given.npz", **arrays(seed=1))
    code, _, error = called(capsys, *options)
    assert code == 2 and "--force" in error and (tmp_path / "out" / "evaluation.json").read_bytes() == before
    assert called(capsys, *options, "--force")[0] == 0
    assert (tmp_path / "out" / "evaluation.json").read_bytes() != before


def test_nothing_to_evaluate_is_said(capsys):
    code, _, error = called(capsys)
    assert code == 2 and "--timm NAME or --features FILE" in error


def small_data(**change):
    try:
        load_data(DataConfig(limit=200, download=False))
    except DataError as error:
        pytest.skip(str(error))
    return DataConfig(limit=200, **change)


def test_a_timm_model_from_the_command_line(tmp_path, capsys):
    small_data()
    out = tmp_path / "out"
    changes = ["--data", "fashion_mnist", "data.limit=200", "data.image_size=40"]
    options = ["--timm", "test_resnet", "--no-pretrained", *changes, "--out", out]
    code, shown, error = called(capsys, *options)
    assert code == 0, error
    assert "linear" in shown and "100 test images" in shown
    record = json.loads((out / "evaluation.json").read_text())
    assert record["protocol"]["encoder"] == "test_resnet" and record["protocol"]["input_size"] == 40
    assert record["rows"]["encoder"]["knn"]["headline"]["accuracy"] > 0.2
    assert len(Bank.load(out / "features").test) == 100
    code, _, error = called(capsys, *options)
    assert code == 2 and "exists" in error


def test_features_are_those_of_the_model_on_its_own_input():
    torch.manual_seed(0)
    encoder = timm_encoder("test_resnet", pretrained=False).eval()
    config = timm.get_pretrained_cfg("test_resnet")
    assert encoder.in_chans == 3 and encoder.image_size == config.input_size[-1]
    grey = torch.rand(2, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    size = [encoder.image_size] * 2
    resized = tv.resize(grey.expand(-1, 3, -1, -1), size, InterpolationMode.BILINEAR, antialias=True).clamp(0, 1)
    mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (config.mean, config.std))
    with torch.no_grad():
        assert torch.allclose(external._encode(encoder, grey), encoder.backbone((resized - mean) / std), atol=1e-5)


def test_the_size_of_the_images_may_be_chosen(tmp_path):
    data = small_data(image_size=32)
    record = evaluate_timm("test_vit", data, pretrained=False, out=tmp_path, protocols=("knn",))
    assert record["protocol"]["input_size"] == 32


def test_weights_from_a_file_with_or_without_classifier(tmp_path):
    network = timm.create_model("test_resnet")
    torch.save(network.state_dict(), tmp_path / "whole.pth")
    bare = {key: value for key, value in network.state_dict().items() if not key.startswith("fc.")}
    torch.save(bare, tmp_path / "bare.pth")
    x = torch.rand(2, 3, 160, 160, generator=torch.Generator().manual_seed(0))
    for name in ("whole.pth", "bare.pth"):
        encoder = timm_encoder("test_resnet", checkpoint=tmp_path / name).eval()
        assert all(torch.equal(value, bare[key]) for key, value in encoder.backbone.state_dict().items())
    with torch.no_grad():
        expected = network.eval().forward_head(
            network.forward_features((x - encoder.mean) / encoder.std), pre_logits=True
        )
        assert torch.allclose(encoder(x), expected, atol=1e-5)
    bare.pop("conv1.0.weight")
    torch.save(bare, tmp_path / "part.pth")
    with pytest.raises(ValueError, match=r"does not fit the timm model: .*conv1\.0\.weight"):
        timm_encoder("test_resnet", checkpoint=tmp_path / "part.pth")
    (tmp_path / "broken.pth").write_bytes(b"nothing")
    with pytest.raises(ValueError, match="cannot be read"):
        timm_encoder("test_resnet", checkpoint=tmp_path / "broken.pth")


def test_mistakes_with_timm_are_one_line(tmp_path, capsys, monkeypatch):
    create = timm.create_model

    def offline(name, pretrained=False, **arguments):
        if pretrained:
            raise ConnectionError("no route\nto the hub")
        return create(name, **arguments)

    monkeypatch.setattr(timm, "create_model", offline)
    for options, message in [
        (["test_resnet"], "--checkpoint, or take random weights with --no-pretrained"),
        (["resnet19"], "did you mean 'resnet18'"),
        (["test_resnet", "--data", "fashion"], "fashion_mnist"),
        (["test_resnet", "--no-pretrained", "seed=1"], "only data.x=y can be changed, got 'seed=1'"),
        (["test_resnet", "--no-pretrained", "data.limt=1"], "did you mean 'data.limit'"),
        (["test_resnet", "--checkpoint", tmp_path / "none.pth"], "no checkpoint at"),
    ]:
        code, _, error = called(capsys, "--timm", *options, "--out", tmp_path / "out")
        assert code == 2 and message in error and len(error.strip().splitlines()) == 1, error
        assert not (tmp_path / "out").exists()


def test_an_export_of_a_run_is_a_checkpoint(tmp_path):
    encoder = ssl_ebm.create_encoder("test_resnet", in_chans=3, image_size=160)
    model = ssl_ebm.EnergyModel(encoder, torch.nn.Identity(), ssl_ebm.Cosine(), ssl_ebm.Config())
    path = model.export(tmp_path / "encoder.safetensors")
    loaded = timm_encoder("test_resnet", checkpoint=path).backbone.state_dict()
    assert all(torch.equal(loaded[key], value) for key, value in encoder.backbone.state_dict().items())

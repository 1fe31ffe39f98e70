"""The picture of samples: its blocks, and what it says of them."""

import numpy as np
import pytest
import torch
from PIL import Image

from ssl_ebm.cli import main
from ssl_ebm.config import load_config
from ssl_ebm.data.datasets import Images, Splits
from ssl_ebm.report import samples as sample_module
from ssl_ebm.report.samples import GAP, grid
from ssl_ebm.training import run as run_module
from ssl_ebm.training.loop import pretrain

SIZE = 12


def test_a_grid_has_its_images_where_they_belong():
    block = torch.rand(5, 1, 20, 20)
    picture = grid([block, block[:2]], columns=3)
    side = 40 + GAP
    assert picture.shape == (3 * side + 3 * GAP, 3 * side + GAP, 3)
    for i in range(5):
        top, left = GAP + side * (i // 3), GAP + side * (i % 3)
        cell = picture[top : top + 40 : 2, left : left + 40 : 2, 1]
        assert np.array_equal(cell, (block[i, 0] * 255).round().byte().numpy())
    assert (picture[side:, 2 * side :][:side] == 255).all()  # the sixth place is empty
    assert grid([torch.rand(2, 3, 50, 50)]).shape == (50 + 2 * GAP, 2 * 50 + 3 * GAP, 3)
    assert grid([torch.rand(3, 2, 40, 40)], columns=1).shape == (3 * side + GAP, side + GAP, 3), (
        "the first channel, grey"
    )


@pytest.fixture
def finished_run(tmp_path, monkeypatch):
    x = torch.randint(0, 256, (72, 1, SIZE, SIZE), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    part = Images(x, torch.arange(72) % 3, ("a", "b", "c"))
    for module in (run_module, sample_module):
        monkeypatch.setattr(module, "load_data", lambda config, data=None: Splits(part, part, part, "noise", "memory"))

    def train(generative, norm="groupnorm1", objective="none"):
        config = {
            "run_dir": str(tmp_path / "run"),
            "views": {"name": "grey", "size": 10},
            "encoder": {"name": "test_resnet", "kwargs": {"norm_layer": norm} if norm else {}},
            "objective": {"name": objective, "projector": {"out": 8}},
            "generative": generative,
            "training": {"epochs": 0.2, "batch_size": 24, "knn_every_epochs": 0, "device": "cpu"},
        }
        return pretrain(load_config(config))

    return train


def test_samples_are_written_once_and_described(finished_run, capsys):
    path = finished_run({"sampler": {"name": "sgld", "steps": 2}, "chains": {"size": 40, "restart": 0.5}})
    capsys.readouterr()
    assert main(["sample", str(path), "--count", "3"]) == 0
    captured = capsys.readouterr()
    lines = captured.out.splitlines()
    assert lines[0].startswith("from noise: 4 steps, effective temperature 5e-05, energy ")
    assert lines[1].startswith("from images: 2 steps") and lines[2].startswith(
        "compatible with the images above: 4 steps"
    )
    assert "adversarial" not in captured.out and "step" in captured.err  # and a progress bar
    file = path / "samples" / "update_0000001.png"
    assert lines[3] == f"wrote {file}"
    with Image.open(file) as picture:
        assert picture.size == (3 * (40 + GAP) + GAP, 4 * (40 + 2 * GAP) + 3 * GAP)
    before = file.read_bytes()
    assert main(["sample", str(path)]) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error == f"ssl-ebm sample: {file} exists: overwrite it with --force" and file.read_bytes() == before
    assert main(["sample", str(path), "--count", "2", "--steps", "1", "--force"]) == 0
    assert "from noise: 1 steps" in capsys.readouterr().out and file.read_bytes() != before


def test_a_joint_embedding_alone_gives_an_adversarial_probe(finished_run, capsys):
    path = finished_run(None, norm=None, objective="simclr")
    assert main(["sample", str(path), "--count", "2", "--steps", "1"]) == 2
    assert "BatchNorm" in capsys.readouterr().err.splitlines()[-1] and not (path / "samples").exists()
    assert main(["sample", str(path), "--count", "2", "--steps", "1", "--convert-batch-norm"]) == 0
    assert "an adversarial probe: the energy was never contrasted in x" in capsys.readouterr().out


def test_mistakes_are_named(tmp_path, capsys):
    assert main(["sample", str(tmp_path)]) == 2
    assert "is not a run directory" in capsys.readouterr().err
    assert main(["sample", str(tmp_path), "--count", "0"]) == 2
    assert "count must be >= 1, got 0" in capsys.readouterr().err


def test_samples_are_judged_in_the_features_of_another_run(finished_run, capsys):
    path = finished_run({"sampler": {"name": "sgld", "steps": 2}, "chains": {"size": 40, "restart": 0.5}})
    capsys.readouterr()
    assert main(["sample", str(path), "--count", "70", "--steps", "1", "--judge", str(path)]) == 0
    line = capsys.readouterr().out.splitlines()[1]
    assert line.startswith("Fréchet distance of these 70 to training images: ")
    noise, data = (float(part.split(",")[0].split()[0]) for part in line.split("images: ")[1:3])
    assert noise > 10 * data  # validation images are the training images here, but for their number
    assert "test_resnet" in line
    with Image.open(path / "samples" / "update_0000001.png") as picture:
        assert picture.size[0] == 16 * (40 + GAP) + GAP
    assert main(["sample", str(path), "--count", "1", "--judge", str(path), "--force"]) == 2
    assert "--count of at least 2" in capsys.readouterr().err

"""The commands, as a user runs them: real subprocesses on a small slice of real Fashion-MNIST."""

import json
import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import timm
import torch
from tqdm import tqdm

import ssl_ebm
from ssl_ebm import cli
from ssl_ebm.cli import main

ROOT = Path(__file__).parent.parent
QUICK = [
    "data.limit=400",
    "encoder.name=test_resnet",
    "encoder.kwargs.channels=[8,8,16,16]",
    "training.epochs=2",
    "training.batch_size=64",
    "training.log_every_steps=1",
    "training.checkpoint_every_steps=2",
]


def run(*arguments, check=True):
    command = [sys.executable, "-m", "ssl_ebm.cli", *map(str, arguments)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert not check or done.returncode == 0, done.stderr
    return done


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two runs; the first is killed after its first checkpoint and resumed."""
    folder = tmp_path_factory.mktemp("runs")
    command = ["pretrain", "configs/quickstart/simclr.yaml", *QUICK, f"run_dir={folder}/simclr"]
    started = subprocess.Popen(
        [sys.executable, "-m", "ssl_ebm.cli", *command], cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    checkpoint, deadline = folder / "simclr" / "checkpoints" / "last.pt", time.monotonic() + 240
    while not checkpoint.exists() and started.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    started.send_signal(signal.SIGKILL)
    started.wait()
    run(*command, "--resume")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        assert main(["pretrain", "configs/quickstart/vicreg.yaml", *QUICK, f"run_dir={folder}/vicreg"]) == 0
    return folder


def test_a_killed_run_is_resumed_to_its_end(runs):
    steps = [json.loads(line)["step"] for line in (runs / "simclr" / "metrics.jsonl").read_text().splitlines()]
    assert steps == list(range(1, 2 * (440 // 64) + 1)) or steps == list(range(1, 2 * (480 // 64) + 1))
    assert {"config.yaml", "metrics.jsonl", "checkpoints", "encoder.safetensors"} <= set(os.listdir(runs / "simclr"))


def test_evaluate_and_compare(runs, tmp_path):
    shown = run("evaluate", runs / "simclr").stdout
    assert "simclr" in shown and "raw pixels" in shown and "random" in shown
    results = json.loads((runs / "simclr" / "evaluation.json").read_text())
    assert set(results["rows"]) == {"encoder", "random_encoder", "raw_pixels"}
    for row in results["rows"].values():
        assert 0.2 < row["knn"]["headline"]["accuracy"] <= 1
        assert 0.2 < row["linear"]["test"]["top1"] <= 1
        assert 0.5 < row["energy"]["anchor_auroc"] <= 1
    before = (runs / "simclr" / "evaluation.json").stat().st_mtime_ns
    page = tmp_path / "report.html"
    shown = run("compare", runs / "simclr", runs / "vicreg", "--report", page).stdout
    assert "simclr" in shown and "vicreg" in shown and str(page) in shown
    assert (runs / "simclr" / "evaluation.json").stat().st_mtime_ns == before  # not evaluated twice
    text = page.read_text()
    assert text.lstrip().lower().startswith("<!doctype html>") and "vicreg" in text and 'src="http' not in text


def test_exported_weights_load_strictly_in_timm_and_give_equal_features(runs, tmp_path):
    path = tmp_path / "encoder.safetensors"
    run("export", runs / "simclr", path)
    recipe = json.loads(path.with_suffix(".json").read_text())
    changes, mean, std = recipe.pop("stem_changes"), torch.tensor(recipe.pop("mean")), torch.tensor(recipe.pop("std"))
    network = timm.create_model(**recipe, checkpoint_path=path).eval()
    x = torch.rand(4, 1, 28, 28)
    assert changes == {"conv1.0": "stride=(1, 1), padding=(1, 1)"}
    network.conv1[0].stride = (1, 1)
    with torch.no_grad():
        features = network((x - mean.view(-1, 1, 1)) / std.view(-1, 1, 1))
    assert torch.allclose(features, ssl_ebm.load(runs / "simclr").features(x), atol=1e-6)


def called(capsys, *arguments):
    """The same command within this process: importing torch takes seconds."""
    try:
        code = main([str(argument) for argument in arguments])
    except SystemExit as stop:
        code = stop.code
    return (code, *capsys.readouterr())


def test_objectives_lists_all_of_them(capsys):
    shown = called(capsys, "objectives")[1]
    assert all(name in shown for name in ssl_ebm.list_objectives())
    assert "arXiv 2002.05709" in called(capsys, "objectives", "simclr")[1]


def test_help_teaches(capsys):
    for command in ([], ["pretrain"], ["evaluate"], ["compare"], ["export"], ["objectives"]):
        code, shown, _ = called(capsys, *command, "--help")
        assert code == 0 and "ssl-ebm" in shown and len(shown) > 200


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["optimiser.lr=1"], "unknown config key 'optimiser': did you mean 'optimizer'?"),
        (["optimizer.learning_rate=1"], "unknown config key 'optimizer.learning_rate'"),
        (["optimizer.lr=fast"], "optimizer.lr"),
        (["optimizer.lr"], "key=value"),
        (["objective.name=simcrl"], "did you mean 'simclr'"),
        (["objective.temprature=1"], "did you mean 'temperature'"),
        (["objective.temperature=-1.5"], "temperature must be > 0, got -1.5"),
        (["encoder.name=resnet19"], "did you mean 'resnet18'"),
        (["data.name=fashion"], "fashion_mnist"),
        (["data.name=folder", "data.root=/nowhere", "data.image_size=32"], "/nowhere"),
        (["training.batch_size=100000"], "larger than the data set's"),
        (["views.crop_scale=[2,3]"], "crop_scale"),
    ],
)
def test_a_users_mistake_is_one_line(arguments, message, tmp_path, capsys):
    config = ROOT / "configs" / "quickstart" / "simclr.yaml"
    code, _, error = called(capsys, "pretrain", config, f"run_dir={tmp_path}/run", *arguments)
    assert code == 2 and message in error and len(error.strip().splitlines()) == 1
    assert not (tmp_path / "run").exists()


def test_other_mistakes_are_one_line_too(runs, tmp_path, capsys):
    for arguments, message in [
        (["pretrain", "nothing.yaml"], "unknown config file"),
        (["pretrain", ROOT / "configs/quickstart/simclr.yaml", f"run_dir={runs}/simclr"], "--resume"),
        (["evaluate", tmp_path], "not a run directory"),
        (["compare", runs / "simclr", runs / "simclr"], "twice"),
        (["export", runs / "simclr", tmp_path / "weights.bin"], ".safetensors"),
        (["objectives", "simcrl"], "did you mean"),
    ]:
        code, _, error = called(capsys, *arguments)
        assert code == 2 and message in error and len(error.strip().splitlines()) == 1
    done = run("evaluate", tmp_path, check=False)
    assert done.returncode == 2 and "Traceback" not in done.stderr


def test_messages_go_to_the_terminal_while_a_command_runs(monkeypatch, capsys):
    def command(options):
        logger = logging.getLogger("ssl_ebm.somewhere")
        for _ in tqdm(range(1)):
            logger.info("what it does: 100%")
            logger.warning("what goes wrong")
            logger.debug("what nobody asked for")
        return 0

    monkeypatch.setitem(cli._COMMANDS, "objectives", command)
    for _ in range(2):  # and a second command does not show them twice
        code, shown, error = called(capsys, "objectives")
        assert code == 0 and shown == "what it does: 100%\n"
        assert error.replace("\r", "\n").splitlines().count("what goes wrong") == 1
    assert not logging.getLogger("ssl_ebm").handlers


@pytest.mark.parametrize(
    "path",
    sorted(p for p in (ROOT / "configs").glob("**/*.yaml") if p.parent.name != "studies" and p.stem != "base"),
    ids=lambda path: f"{path.parent.name}-{path.stem}",
)
def test_every_config_is_valid_and_whole(path):
    config = ssl_ebm.load_config(path)
    assert config.run_dir == f"runs/{path.parent.name}/{path.stem}"
    objective = dict(config.objective)
    ssl_ebm.create_objective(**objective | ({"bank_size": 10} if objective["name"] == "nce" else {}))

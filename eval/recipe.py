"""Search a recipe on the validation split: short pretrainings, kNN and linear probe on validation; test is never read.

    python eval/recipe.py configs/recipes/fashion_mnist_simclr_15min.yaml --seconds 120 "" "objective.temperature=0.5"

Each argument is one candidate: overrides of the config, separated by blanks; "" is the config itself. Every candidate
trains for the same number of seconds (measured on its own first updates), so a faster network sees more images.
"""

from __future__ import annotations

import argparse
import json
import shlex
import tempfile
import time
from functools import partial

import numpy as np
import torch

import ssl_ebm
from ssl_ebm.evaluation.features.bank import Split, extract
from ssl_ebm.evaluation.probes.classification import Classifiers
from ssl_ebm.evaluation.probes.knn import knn_grid
from ssl_ebm.evaluation.probes.linear import logistic_regression
from ssl_ebm.training.loop import update
from ssl_ebm.training.run import prepare


def speed(config_file: str, overrides: list[str], seconds: float) -> float:
    """Epochs that a candidate trains in `seconds`."""
    with tempfile.TemporaryDirectory() as folder:
        run = prepare(ssl_ebm.load_config(config_file, [*overrides, f"run_dir={folder}/run"]))
    times = []
    for _ in range(6):
        started = time.perf_counter()
        update(run, run.model)
        times.append(time.perf_counter() - started)
    return seconds / (np.median(times[2:]) * run.steps_per_epoch)


def candidate(config_file: str, overrides: list[str]) -> dict[str, float]:
    """Train one candidate and measure it on validation."""
    with tempfile.TemporaryDirectory() as folder:
        settings = ["training.knn_every_epochs=0", "training.checkpoint_every_steps=1000000", f"run_dir={folder}/run"]
        started = time.perf_counter()
        config = ssl_ebm.load_config(config_file, [*overrides, *settings])
        model = ssl_ebm.load(ssl_ebm.pretrain(config))
        seconds = time.perf_counter() - started
    splits = ssl_ebm.load_data(config.data)
    train, held = splits.train.subset(torch.arange(20000)), splits.validation
    parts = [Split(extract(model.features, part.images), part.labels.numpy()) for part in (train, held)]
    grid = knn_grid(parts[0].features, parts[0].labels, parts[1].features, parts[1].labels, classes=splits.num_classes)
    fit = partial(logistic_regression, strengths=[1e-4, 1e-3, 1e-2, 1e-1], max_iterations=200)
    linear = Classifiers(parts[0], fit).accuracies(parts[1], splits.num_classes)
    knn = grid.weighted[grid.ks.index(20)][grid.temperatures.index(0.07)]
    return {
        "knn": knn,
        "knn_best": float(np.max(grid.weighted)),
        "linear": max(linear),
        "seconds": round(seconds),
    }


def main() -> None:
    """Run the candidates one after the other; one JSON line each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config")
    parser.add_argument("candidates", nargs="+")
    parser.add_argument("--seconds", type=float, default=120)
    parser.add_argument("--epochs", type=float, help="train for so many epochs instead")
    options = parser.parse_args()
    for text in options.candidates:
        overrides = shlex.split(text)
        epochs = options.epochs or speed(options.config, overrides, options.seconds)
        result = candidate(options.config, [*overrides, f"training.epochs={epochs}"])
        print(json.dumps({"candidate": text, "epochs": round(epochs, 2)} | result), flush=True)


if __name__ == "__main__":
    main()

"""Run directories as training and evaluation leave them, with made-up numbers: what `compare` and the report read."""

import dataclasses
import hashlib
import json
from pathlib import Path

import numpy as np

from ssl_ebm.config import load_config, save_config
from ssl_ebm.evaluation.evaluate import describe_objective
from ssl_ebm.evaluation.results import VERSION

KS, TEMPERATURES, STRENGTHS = [10, 20, 100, 200], [0.07, 0.1, 0.2], [10.0**p for p in range(-5, 3)]
KINDS = {"positive": 0.0, "same_class": 1.0, "different_class": 2.0}


def roc(auroc):
    """A curve of this area: tpr = fpr^a has the area 1 / (1 + a)."""
    fpr = np.concatenate(([0.0], np.logspace(-4, 0, 40)))
    return {"fpr": fpr.tolist(), "tpr": (fpr ** (1 / auroc - 1)).tolist()}


def energy(auroc, *, images=2000, low=-5.0, high=1.0):
    """An EnergyResult as JSON, of normal energies."""
    edges = np.linspace(low, high, 101)
    middle = (edges[1:] + edges[:-1]) / 2
    bumps = {
        kind: np.exp(-0.5 * ((middle - low) / (high - low) * 8 - 2 - 4 * (auroc - 0.5) * shift) ** 2)
        for kind, shift in KINDS.items()
    }
    return {
        "images": images,
        "anchor_auroc": auroc,
        "global_auroc": auroc - 0.01,
        "gauge_gap": 0.01,
        "recall": {"1": auroc / 2, "5": auroc / 1.5, "10": auroc / 1.2},
        "d_prime": 4 * (auroc - 0.5),
        "mean": {"positive": -4.0, "negative": 0.0},
        "std": {"positive": 0.5, "negative": 1.0},
        "roc": roc(auroc),
        "edges": edges.tolist(),
        "histograms": {kind: (1000 * bump).round().astype(int).tolist() for kind, bump in bumps.items()},
    }


def row(accuracy, *, classes=10, test=10_000, auroc=0.9, images=2000):
    """One row of evaluation.json."""
    weighted = [[accuracy - 0.01 * i - 0.002 * j for j in range(3)] for i in range(4)]
    grid = {"ks": KS, "ks_used": KS, "temperatures": TEMPERATURES, "weighted": weighted}
    grid |= {"uniform": [line[0] - 0.01 for line in weighted], "bank_size": 60_000, "queries": test}
    grid |= {"bank_zeros": 0, "query_zeros": 0}
    per_class = [min(1.0, accuracy + 0.01 * (c - classes // 2)) for c in range(classes)]
    cell = {"k": 20, "temperature": 0.07, "accuracy": accuracy, "validation_accuracy": accuracy, "per_class": per_class}
    confusion = np.full((classes, classes), 1)
    confusion[np.arange(classes), np.arange(classes)] = 90
    confusion[0, 1] = 20
    return {
        "num_features": 256,
        "knn": {"headline": cell, "chosen": cell | {"k": 10, "temperature": None}, "validation": grid, "test": grid},
        "linear": {
            "protocol": "lbfgs",
            "strength": 0.1,
            "at_edge": False,
            "strengths": STRENGTHS,
            "validation": [accuracy + 0.02 - 0.01 * abs(i - 4) for i in range(8)],
            "converged": [True] * 8,
            "iterations": [40] * 8,
            "refit_converged": True,
            "refit_iterations": 20,
            "unseen_classes": [],
            "test": {
                "top1": accuracy + 0.02,
                "top5": 0.99,
                "per_class": per_class,
                "confusion": confusion.tolist(),
                "ece": 0.03,
                "nll": 0.3,
                "size": test,
            },
        },
        "health": {"rankme": 40.0, "alignment": 0.1, "uniformity": -2.0, "std": 0.8, "dead": 0.0},
        "energy": energy(auroc, images=images, low=-1.0),
    }


def metrics(steps=100, steps_per_epoch=10, accuracy=0.9, negatives=True):
    """Lines of metrics.jsonl, one an epoch."""
    lines = []
    for step in range(steps_per_epoch, steps + 1, steps_per_epoch):
        part = step / steps
        line = {"step": step, "epoch": step / steps_per_epoch, "loss": 5 - 2 * part, "energy_positive": -1 - 3 * part}
        line |= {"energy_negative": -0.1 * part} if negatives else {}
        line |= {"rankme": 10 + 50 * part, "images_per_second": 1000 + step, "knn_validation": accuracy * part**0.2}
        lines.append(line)
    return lines


def gallery(classes, *, queries=3, neighbours=4, channels=1, size=8, seed=0):
    """Arrays of gallery.npz: one neighbour of the first query is of another class."""
    random = np.random.default_rng(seed)
    labels = np.repeat(np.arange(queries)[:, None], 1 + neighbours, axis=1)
    labels[0, -1] = 1
    return {
        "images": random.integers(0, 256, (queries, 1 + neighbours, channels, size, size), dtype=np.uint8),
        "labels": labels,
        "energies": np.sort(random.normal(size=(queries, 1 + neighbours))).astype(np.float32),
        "classes": np.array(classes),
    }


def write_run(
    path,
    *overrides,
    accuracy=0.9,
    auroc=0.9,
    test=10_000,
    images=2000,
    finished=True,
    steps=100,
    lines=None,
    pictures=None,
):
    """A run directory whose stored results are current; overrides are of its config, e.g. `objective.name=byol`."""
    path = Path(path)
    path.mkdir(parents=True)
    given = {"views": {"name": "grey"}, "encoder": {"name": "resnet18"}, "objective": {"name": "simclr"}}
    config = load_config(given, [f"run_dir={path}", *overrides])
    save_config(config, path / "config.yaml")
    weights = str(path).encode()
    (path / "encoder.safetensors").write_bytes(weights)
    lines = metrics(steps=steps, accuracy=accuracy) if lines is None else lines
    (path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    results = {
        "run": str(path),
        "objective": describe_objective(config),
        "protocol": {
            "version": VERSION,
            "data": config.data.name,
            "split_seed": config.data.split_seed,
            "sizes": {"train": 54_000, "validation": 6_000, "test": test},
            "layer": "backbone, pooled",
            "energy": f"two training views of {images} test images",
            "seed": config.seed,
            "step": steps,
            "finished": finished,
            "weights": hashlib.sha256(weights).hexdigest(),
        },
        "rows": {
            "encoder": row(accuracy, test=test, auroc=auroc, images=images),
            "random_encoder": row(0.7, test=test, auroc=0.7, images=images),
            "raw_pixels": row(0.75, test=test, auroc=0.6, images=images),
        },
        "energy": {"trained": energy(auroc, images=images), "features": energy(auroc - 0.02, images=images)},
        "config": dataclasses.asdict(config),
    }
    (path / "evaluation.json").write_text(json.dumps(results))
    names = [f"class {c}" for c in range(10)]
    np.savez(path / "gallery.npz", **(gallery(names) if pictures is None else pictures))
    return path

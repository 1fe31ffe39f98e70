"""What evaluation may add to a run's results, with made-up numbers; and studies of such runs."""

import json
from pathlib import Path

import numpy as np
from example_runs import gallery, roc, write_run
from PIL import Image

from ssl_ebm.evaluation.features.bank import Bank, Split
from ssl_ebm.report.runs import Study

AUGMENTATIONS = ("crop", "color_jitter", "blur")
OUTLIERS = ("digits", "noise", "uniform", "textures")


def extend(run, *, accuracy=0.9, auroc=0.9, seconds=100.0, seed=0):
    """Add every optional part to a run's evaluation.json; its bank, mistakes and samples; returns the run."""
    random = np.random.default_rng(seed)
    path = Path(run) / "evaluation.json"
    results = json.loads(path.read_text())
    for kind, row in results["rows"].items():
        own = accuracy if kind == "encoder" else 0.7
        row["ridge"] = {
            **{"protocol": "ridge", "strength": 1.0, "at_edge": False, "strengths": [0.1, 1.0, 10.0]},
            **{"validation": [own - 0.1, own, own - 0.1], "unseen_classes": []},
            "test": row["linear"]["test"] | {"top1": own - 0.01, "ece": None, "nll": None},
        }
        row["few_shot"] = {
            str(n): {"accuracies": [own - 0.3 / n], "mean": own - 0.3 / n, "std": 0.01, "short_classes": 0}
            for n in (1, 5, 10, 100)
        }
        row["clusters"] = {"nmi": own - 0.3, "ari": own - 0.4, "accuracy": own - 0.2}
        steep = 0.05 + 0.1 * random.random()
        spectrum = np.exp(-steep * np.arange(64))
        row["health"] |= {"alpha_req": 1.1, "lidar": 30.0, "spectrum": (spectrum / spectrum.sum()).tolist()}
    energy = results["energy"]
    energy["trained"]["calibration"] = {
        "nll_before": 0.9,
        "nll_after": 0.3,
        "ece_before": 0.2,
        "ece_after": 0.01,
        "beta": 2.0,
        "bias": -1.0,
    }
    energy["canonical"] = {"meaning": "PMI", "information": {"infonce": 4.2, "nwj": 3.9, "jsd": 4.0, "pairs": 1000}}
    levels = np.linspace(0, 1, 6)
    energy["strength"] = {
        name: {
            "levels": levels.tolist(),
            "energy": (-5 + 3 * auroc * levels ** (1 + i) + 0.1 * random.random(6)).tolist(),
            "auroc": (1 - 0.3 * levels).tolist(),
            "monotone": 1.0 - 0.1 * i,
        }
        for i, name in enumerate(AUGMENTATIONS)
    }
    results["ood"] = {
        data: {
            score: {"auroc": part, "fpr95": 1 - part, "roc": roc(part)}
            for j, score in enumerate(("free_energy", "knn", "mahalanobis"))
            if (part := auroc - 0.03 * i - 0.02 * j)
        }
        for i, data in enumerate(OUTLIERS)
    }
    results["cost"] = {
        "train_seconds": seconds,
        "images_per_second": 54_000 / seconds,
        "flops_per_image": 1e7 * (1 + seconds % 3),
        "parameters": 690_000,
    }
    path.write_text(json.dumps(results))
    _write_files(Path(run), random)
    return run


def _write_files(run, random, images=120):
    labels = np.arange(images) % 10
    centres = np.random.default_rng(0).normal(size=(10, 16))
    features = (centres[labels] + 0.4 * random.normal(size=(images, 16))).astype(np.float32)
    Bank(**{s: Split(features, labels) for s in ("train", "validation", "test")}, classes=10).save(run / "features")
    with np.load(run / "gallery.npz") as stored:
        arrays = dict(stored)
    shape = (3, 2, *arrays["images"].shape[2:])
    arrays["mistakes"] = random.integers(0, 256, shape, dtype=np.uint8)
    arrays["mistake_labels"] = np.array([[0, 1], [1, 2], [2, 3]])
    arrays["mistake_energies"] = np.array([-9.0, -8.5, -8.0], dtype=np.float32)
    np.savez(run / "gallery.npz", **arrays)
    np.savez(run / "pairs.npz", trained=random.normal(size=50).astype(np.float32), kind=np.arange(50) % 3)
    (run / "samples").mkdir()
    Image.fromarray(random.integers(0, 256, (8, 16), dtype=np.uint8)).save(run / "samples" / "grid.png")


def matrices(names, seed=0):
    """Similarities of what is shown."""
    random, count = np.random.default_rng(seed), len(names)
    whole = {"names": list(names)}
    for key, low in (("cka", 0.5), ("overlap", 0.1), ("spearman", -0.2)):
        half = low + 0.4 * random.random((count, count))
        square = (half + half.T) / 2
        np.fill_diagonal(square, 1.0)
        whole[key] = square.tolist()
    return whole


def write_study(path, objectives, seeds=(0, 1, 2), **options):
    """Runs of every objective and seed, later objectives worse by half a point, and their study."""
    runs, table = {}, {}
    for i, name in enumerate(objectives):
        accuracy = 0.9 - 0.005 * i
        directories = {seed: path / f"{name}-s{seed}" for seed in seeds}
        for seed, run in directories.items():
            own = accuracy + 0.001 * seed
            write_run(run, f"objective.name={name}", f"seed={seed}", accuracy=own, auroc=own, **options)
            extend(run, accuracy=own, auroc=own, seconds=100.0 + 7 * i, seed=100 * i + seed)
        runs[name] = {str(seed): str(run) for seed, run in directories.items()}
        cell = {"mean": accuracy, "low": accuracy - 0.004, "high": accuracy + 0.004, "seeds": [accuracy] * len(seeds)}
        table[name] = {metric: cell for metric in ("knn", "linear", "auroc")}
        table[name]["rankme"] = {"mean": 40.0, "low": 38.0, "high": 45.0, "seeds": [40.0] * len(seeds)}
    table["raw_pixels"] = {"knn": {"mean": 0.75, "low": 0.74, "high": 0.76, "seeds": [0.75]}}
    ranks = {name: 1.0 + i for i, name in enumerate(objectives)}
    bars = [list(objectives[i : i + 3]) for i in range(len(objectives) - 2)]
    return Study(
        name="families",
        runs=runs,
        table=table,
        ties={"knn": {"best": objectives[0], "tied": list(objectives[:2])}},
        groups={"knn": bars, "linear": bars[:1]},
        ranks={"knn": ranks, "linear": ranks},
        power={"knn": 0.012},
        tuning={"trials": 4, "metric": "knn on validation"},
        warnings=["only a smoke test"],
        findings=["kNN: simclr is best, tied with moco_v3"],
        notes=["± is half of a 95% interval"],
    )


def pictures():
    """A gallery whose images are as large as Fashion-MNIST's."""
    return gallery([f"class {c}" for c in range(10)], queries=8, neighbours=7, size=28)

"""Every objective of the catalogue, trained alike for two epochs of Fashion-MNIST; one table.

    python eval/catalogue.py                     all presets of configs/fashion_mnist, what is missing is trained
    python eval/catalogue.py simclr vicreg       some
    python eval/catalogue.py --epochs 1 --runs runs/short

kNN: cosine, k = 20, T = .07, bank of the 60,000 training images, 10,000 test images. AUROC: energies of two training
views of 2,000 test images against those of different images, for each anchor and over all. MI: InfoNCE's bound
on the mutual information of the two views among those 2,000 images, in nats, by the canonical energy (calibrated on
10,000 training images); at most log 2000 = 7.6. The untrained encoder is the same network at its initial weights.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

import ssl_ebm
from ssl_ebm.data.datasets import Splits
from ssl_ebm.data.views import create_views
from ssl_ebm.energies.canonical import mutual_information
from ssl_ebm.energies.pairwise import Cosine, Energy
from ssl_ebm.evaluation.energy.verification import verify
from ssl_ebm.evaluation.features.bank import extract
from ssl_ebm.evaluation.features.health import rankme
from ssl_ebm.evaluation.probes.knn import knn_grid
from ssl_ebm.model import EnergyModel
from ssl_ebm.networks.encoder import build_encoder

PAIRS, BANK = 2000, 10000  # images whose two views verify, and calibrate, an energy


def train(name: str, runs: Path, epochs: float) -> Path:
    """The run of a preset; trained if it is not there, continued if it was stopped."""
    run = runs / name
    overrides = [f"run_dir={run}", f"training.epochs={epochs}", "training.knn_every_epochs=0"]
    if (run / "encoder.safetensors").is_file():
        finished = json.loads((run / "finished.json").read_text()) if (run / "finished.json").is_file() else None
        if finished == epochs:
            return run
    ssl_ebm.pretrain(f"configs/fashion_mnist/{name}.yaml", overrides, resume=(run / "checkpoints/last.pt").is_file())
    (run / "finished.json").write_text(json.dumps(epochs))
    return run


def knn(encode: Any, splits: Splits) -> float:
    """Accuracy of the headline protocol."""
    parts = (splits.train, splits.validation, splits.test)
    features = [extract(encode, part.images, batch_size=500) for part in parts]
    labels = [part.labels.numpy() for part in parts]
    bank = np.concatenate(features[:2]), np.concatenate(labels[:2])
    grid = knn_grid(*bank, features[2], labels[2], classes=splits.num_classes, ks=(20,), temperatures=(0.07,))
    return grid.weighted[0][0]


@torch.no_grad()
def views(config: ssl_ebm.Config, images: torch.Tensor, size: int) -> torch.Tensor:
    """Two training views of images, the same for all runs with these views."""
    make = create_views(**(config.views | {"views": 2, "local_views": 0, "size": size}))
    return make(images, generator=torch.Generator().manual_seed(0))


def energies(model: EnergyModel, energy: Energy, pair: torch.Tensor, labels: torch.Tensor) -> Any:
    """Verification by energy of two views."""
    with torch.no_grad():
        a, b = (torch.cat([model.embed(part) for part in view.split(500)]) for view in pair)
        return verify(lambda rows: energy.cross(a[rows], b), labels[: len(a)])


def row(run: Path, splits: Splits) -> dict[str, Any]:
    """One line of the table."""
    model = ssl_ebm.load(run)
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    held = views(model.config, splits.test.images[:PAIRS], splits.image_size)
    result = energies(model, model.scorer, held, splits.test.labels)
    information = None
    if model.canonical_form is not None:
        canonical = model.canonical(views(model.config, splits.train.images[:BANK], splits.image_size))
        with torch.no_grad():
            a, b = (torch.cat([model.embed(part) for part in view.split(500)]) for view in held)
            information = float(mutual_information(canonical.scorer, a, b))
    clean = splits.test.images[:PAIRS].float() / 255
    with torch.no_grad():
        rank = float(rankme(torch.cat([model.features(part) for part in clean.split(500)])))
    return {
        "knn": knn(model.features, splits),
        "auroc": result.anchor_auroc,
        "global": result.global_auroc,
        "d_prime": result.d_prime,
        "information": information,
        "rankme": rank,
        "collapsed": any("collapse" in line for line in lines),
        "images_per_second": float(
            np.median([line["images_per_second"] for line in lines if "images_per_second" in line])
        ),
    }


def untrained(config: ssl_ebm.Config, splits: Splits) -> dict[str, Any]:
    """The encoder at its initial weights."""
    torch.manual_seed(config.seed)
    statistics = torch.std_mean(splits.train.images[:10000].double() / 255, dim=(0, 2, 3))
    encoder = build_encoder(
        config.encoder,
        in_chans=splits.in_chans,
        image_size=splits.image_size,
        mean=statistics[1].tolist(),
        std=statistics[0].tolist(),
    )
    model = EnergyModel(encoder, torch.nn.Identity(), Cosine(), config)
    held = views(config, splits.test.images[:PAIRS], splits.image_size)
    result = energies(model, model.scorer, held, splits.test.labels)
    return {"knn": knn(model.features, splits), "auroc": result.anchor_auroc, "global": result.global_auroc}


def main() -> None:
    """Train what is missing, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("objectives", nargs="*", help="names (default: all)")
    parser.add_argument("--epochs", type=float, default=2)
    parser.add_argument("--runs", type=Path, default=Path("runs/catalogue"))
    options = parser.parse_args()
    names = options.objectives or ssl_ebm.list_objectives()
    splits = ssl_ebm.load_data(ssl_ebm.load_config("configs/fashion_mnist/base.yaml").data)
    rows: dict[str, dict[str, Any]] = {}
    for name in names:
        run = train(name, options.runs, options.epochs)
        kept = run / "row.json"
        if not kept.is_file():
            kept.write_text(json.dumps(row(run, splits), indent=1))
        rows[name] = json.loads(kept.read_text())
        print(name, json.dumps(rows[name]), flush=True)
    config = dataclasses.replace(ssl_ebm.load(options.runs / names[0]).config)
    base = options.runs / "untrained.json"
    if not base.is_file():
        base.write_text(json.dumps(untrained(config, splits)))
    base_row = json.loads(base.read_text())
    print(f"\n{'':<15}{'kNN %':>7}{'gain':>7}{'AUROC':>8}{'global':>8}{'d′':>7}{'MI':>7}{'RankMe':>8}{'img/s':>7}")
    for name, r in sorted(rows.items(), key=lambda item: -item[1]["knn"]):
        information = "–" if r["information"] is None else f"{r['information']:.2f}"
        cells = [f"{100 * r['knn']:.1f}", f"{100 * (r['knn'] - base_row['knn']):+.1f}", f"{r['auroc']:.3f}"]
        cells += [f"{r['global']:.3f}", f"{r['d_prime'] or 0:.2f}", information, f"{r['rankme']:.1f}"]
        widths = (7, 7, 8, 8, 7, 7, 8)
        line = f"{name:<15}" + "".join(cell.rjust(width) for cell, width in zip(cells, widths, strict=True))
        print(f"{line}{r['images_per_second']:>7.0f}{'  COLLAPSED' if r['collapsed'] else ''}")
    print(f"{'untrained':<15}{100 * base_row['knn']:>7.1f}{'':>7}{base_row['auroc']:>8.3f}{base_row['global']:>8.3f}")


if __name__ == "__main__":
    main()

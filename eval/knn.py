"""The kNN protocol spelled out beside the library's, and the library's time against faiss's bare search.

    python eval/knn.py                       raw pixels of Fashion-MNIST
    python eval/knn.py --run runs/NAME       the features of an evaluated run

k and T are chosen on validation, with train as the bank; test is read once, with train and validation as the bank.
"""

import argparse
import time
from pathlib import Path

import faiss
import numpy as np

from ssl_ebm.data.datasets import DataConfig, load_data
from ssl_ebm.evaluation.features.bank import SPLITS, Bank, Split
from ssl_ebm.evaluation.probes.knn import knn_evaluate, knn_grid


def read_bank(run: Path | None, limit: int | None) -> Bank:
    """The bank of a run, or of raw pixels in [0, 1]."""
    if run is not None:
        return Bank.load(run / "features")
    data = load_data(DataConfig(name="fashion_mnist", limit=limit))
    pixels = {
        name: Split(getattr(data, name).images.flatten(1).float().div(255).numpy(), getattr(data, name).labels.numpy())
        for name in SPLITS
    }
    return Bank(**pixels, classes=data.num_classes, protocol={"encoder": "raw pixels", "data": data.name})


def protocol(bank: Split, queries: Split, *, classes: int, k: int, temperature: float) -> float:
    """Accuracy of kNN by cosine similarity, neighbours weighted by exp(s/T)."""

    def directions(features: np.ndarray) -> np.ndarray:
        return features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)

    index = faiss.IndexFlatIP(bank.features.shape[1])
    index.add(directions(bank.features))
    similarity, neighbour = index.search(directions(queries.features), min(k, len(bank)))
    votes = np.zeros((len(queries), classes))
    for vote, s, label in zip(votes, similarity, bank.labels[neighbour], strict=True):
        np.add.at(vote, label, np.exp(s / temperature))
    return float((votes.argmax(1) == queries.labels).mean())


def benchmark(bank: Bank, repeats: int) -> None:
    """Time of the whole grid against that of one bare search at k = 200 on the same normalised features, in turn."""
    full = bank.full_train()
    x, q = full.features.copy(), bank.test.features.copy()
    faiss.normalize_L2(x), faiss.normalize_L2(q)
    index = faiss.IndexFlatIP(x.shape[1])
    index.add(x)
    k, seconds = min(200, len(full)), np.zeros((repeats, 2))
    for row in seconds:
        started = time.perf_counter()
        index.search(q, k)
        row[0] = time.perf_counter() - started
        started = time.perf_counter()
        knn_grid(full.features, full.labels, bank.test.features, bank.test.labels, classes=bank.classes)
        row[1] = time.perf_counter() - started
    bare, grid = seconds.min(0)
    print(f"\n{len(q):,} queries, bank {len(x):,} x {x.shape[1]}, best of {repeats}, in turn")
    print(f"{'faiss IndexFlatIP, k = 200':<34}{bare:8.2f} s\n{'knn_grid: 4 k x 4 weightings':<34}{grid:8.2f} s")
    print(f"{'ratio':<34}{grid / bare:8.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, help="run directory; default: raw pixels of Fashion-MNIST")
    parser.add_argument("--limit", type=int, help="images of raw pixels to keep")
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    bank = read_bank(arguments.run, arguments.limit)
    result = knn_evaluate(bank)

    print(
        f"test accuracy in %, {len(bank.test):,} images\n{'k':>5}"
        + "".join(f"  T={t:<6}" for t in (0.07, 0.1, 0.2))
        + "uniform"
    )
    for k, weighted, uniform in zip(*(result["test"][key] for key in ("ks_used", "weighted", "uniform")), strict=True):
        print(f"{k:>5}" + "".join(f"{100 * accuracy:9.2f}" for accuracy in [*weighted, uniform]))
    for name in ("headline", "chosen"):
        cell = result[name]
        print(f"{name + ':':<10} k = {cell['k']}, T = {cell['temperature']}: {100 * cell['accuracy']:.2f}")
    plain = protocol(bank.full_train(), bank.test, classes=bank.classes, k=20, temperature=0.07)
    print(f"{'plain:':<10} k = 20, T = 0.07: {100 * plain:.2f}")
    benchmark(bank, arguments.repeats)


if __name__ == "__main__":
    main()

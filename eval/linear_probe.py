"""The linear probe's protocol spelled out beside the library's, and the library's time against scikit-learn's.

    python eval/linear_probe.py                       raw pixels of Fashion-MNIST
    python eval/linear_probe.py --run runs/NAME       the features of an evaluated run

The strength C is chosen on validation, the classifier refit on train and validation, and test read once. At weak
regularisation (large C) scikit-learn's default of 100 iterations may stop it long before its optimum, so that the two
accuracies differ: --peer-iterations 10000 lets it finish.
"""

import argparse
import time
import warnings
from pathlib import Path

import numpy as np
import torch
from knn import read_bank
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from torch.nn import functional as F

from ssl_ebm.evaluation.features import Bank, Split
from ssl_ebm.evaluation.linear import STRENGTHS, linear_probe, logistic_regression


def standardise(fitted: Split, *splits: Split) -> list[np.ndarray]:
    """Features of each split by the mean and standard deviation of the fitted one."""
    mean, std = fitted.features.mean(0), fitted.features.std(0)
    scale = np.where(std > 1e-6 * np.abs(mean), std, np.inf)
    return [((split.features - mean) / scale).astype(np.float32) for split in splits]


def protocol(train: Split, test: Split, *, classes: int, strength: float) -> float:
    """Accuracy of ½‖W‖² + C Σ cross-entropy, minimised by PyTorch's own L-BFGS."""
    x, query = map(torch.from_numpy, standardise(train, train, test))
    y = torch.from_numpy(train.labels)
    weight, bias = torch.zeros(classes, x.shape[1], requires_grad=True), torch.zeros(classes, requires_grad=True)
    solver = torch.optim.LBFGS([weight, bias], max_iter=500, tolerance_grad=1e-4, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        solver.zero_grad()
        value = F.cross_entropy(x @ weight.T + bias, y) + weight.square().sum() / (2 * strength * len(x))
        value.backward()
        return value

    solver.step(loss)
    predicted = (query @ weight.T + bias).argmax(1).numpy()
    return float((predicted == test.labels).mean())


def clocks() -> np.ndarray:
    """Wall and processor seconds; on a busy machine compare the latter, with OMP_NUM_THREADS=1."""
    return np.array([time.perf_counter(), time.process_time()])


def benchmark(bank: Bank, peer_iterations: int) -> None:
    """One sweep over all strengths, fitted on train, by each; accuracies on validation."""
    x, query = standardise(bank.train, bank.train, bank.validation)
    started = clocks()
    y, held = torch.from_numpy(bank.train.labels), bank.validation.labels
    fit = logistic_regression(torch.from_numpy(x), y, STRENGTHS, classes=bank.classes)
    ours, theirs = clocks() - started, np.zeros(2)

    print(f"\nsweep on {len(x):,} x {x.shape[1]}; accuracy in % on {len(held):,} validation images; * not converged")
    print(f"{'C':>8}{'ours':>9}{'sklearn':>9}{'gap':>7}{'iterations':>12}{'sklearn':>9}")
    for i, strength in enumerate(STRENGTHS):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            started = clocks()
            peer = LogisticRegression(C=strength, max_iter=peer_iterations).fit(x, bank.train.labels)
            theirs += clocks() - started
        logits = query @ fit.weights[i].numpy().T + fit.intercepts[i].numpy()
        own, other = 100 * (logits.argmax(1) == held).mean(), 100 * peer.score(query, held)
        flags = "" if fit.converged[i] else "*", "*" if peer.n_iter_[0] >= peer_iterations else ""
        spent = f"{fit.iterations[i]}{flags[0]}", f"{peer.n_iter_[0]}{flags[1]}"
        print(f"{strength:>8.0e}{own:9.2f}{other:9.2f}{own - other:+7.2f}{spent[0]:>12}{spent[1]:>9}")
    for clock, own, other in zip(("wall", "processor"), ours, theirs, strict=True):
        print(f"{clock} seconds: ours {own:.1f}, scikit-learn {other:.1f}, ratio {other / own:.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, help="run directory; default: raw pixels of Fashion-MNIST")
    parser.add_argument("--limit", type=int, help="images of raw pixels to keep")
    parser.add_argument("--peer-iterations", type=int, default=100, help="scikit-learn's max_iter")
    arguments = parser.parse_args()
    bank = read_bank(arguments.run, arguments.limit)
    started = time.perf_counter()
    result = linear_probe(bank)
    seconds, test, strength = time.perf_counter() - started, result["test"], result["strength"]

    print(
        f"linear probe: {100 * test['top1']:.2f} % of {test['size']:,} test images at C = {strength:g}, {seconds:.1f} s"
    )
    print(f"top-5 {100 * (test['top5'] or 1):.2f} %, ECE {test['ece']:.3f}, all converged: {all(result['converged'])}")
    plain = protocol(bank.full_train(), bank.test, classes=bank.classes, strength=strength)
    print(f"plain:        {100 * plain:.2f} % at C = {strength:g}")
    benchmark(bank, arguments.peer_iterations)


if __name__ == "__main__":
    main()

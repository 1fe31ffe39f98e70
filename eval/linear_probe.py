"""The linear probe's protocol spelled out beside the library's, and the library's time against scikit-learn's.

    python eval/linear_probe.py                       raw pixels of Fashion-MNIST
    python eval/linear_probe.py --run runs/NAME       the features of an evaluated run
    python eval/linear_probe.py --sgd                 the SGD probe against passing images through the backbone
    python eval/linear_probe.py --imagenet            the sweep on a slice, and on paper at ImageNet's size

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

from ssl_ebm.config import TrainingConfig
from ssl_ebm.data.datasets import DataConfig, Splits, load_data
from ssl_ebm.devices import choose_compute
from ssl_ebm.evaluation.features.bank import Bank, Split
from ssl_ebm.evaluation.probes.linear import STRENGTHS, linear_probe, logistic_regression
from ssl_ebm.evaluation.probes.sgd import BATCH_SIZE, EPOCHS, RATES, train_heads
from ssl_ebm.networks.encoder import create_encoder


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


def seconds_a_pass(data: Splits, adapt: bool) -> tuple[float, int]:
    """Time of passing all training images through a ResNet-18, computed from a slice, and its number of features.

    It runs in evaluation mode without gradients, as the protocol without a cache has it do in every epoch, in the
    precision and memory format that this machine computes best in.
    """
    compute = choose_compute(TrainingConfig())
    encoder = create_encoder("resnet18", in_chans=data.in_chans, image_size=data.image_size, adapt=adapt)
    encoder = encoder.eval().to(compute.device)
    if compute.channels_last:
        encoder = encoder.to(memory_format=torch.channels_last)
    images, seconds = data.train.images[:BATCH_SIZE].to(compute.device).float() / 255, []
    with torch.inference_mode(), compute.autocast():
        for _ in range(8):
            started = time.perf_counter()
            float(encoder(images).sum())
            seconds.append(time.perf_counter() - started)
    return float(np.median(seconds[2:])) * len(data.train) / len(images), encoder.num_features


def sgd_against_images(limit: int | None) -> None:
    """An epoch of all heads on cached features against one that passes the images through the backbone first."""
    data = load_data(DataConfig(name="fashion_mnist", limit=limit))
    passes = {name: seconds_a_pass(data, adapt) for name, adapt in (("as it is", False), ("adapted stem", True))}
    n, dimension = len(data.train), next(iter(passes.values()))[1]
    started = time.perf_counter()
    train_heads(torch.randn(n, dimension), data.train.labels, RATES, classes=data.num_classes, epochs=1)
    cached = time.perf_counter() - started
    print(f"{n:,} images, batch {BATCH_SIZE}, {len(RATES)} heads on {dimension} features; seconds: an epoch, {EPOCHS}")
    print(f"{'cached features':<32}{cached:10.2f}{EPOCHS * cached:12,.0f}")
    for name, (seconds, _) in passes.items():
        whole = seconds + cached
        print(f"{'through a ResNet-18, ' + name:<34}{whole:8.2f}{EPOCHS * whole:12,.0f}{whole / cached:8.0f} x")


def at_imagenet_size(rows: int, dimension: int = 2048, classes: int = 1000) -> None:
    """Time of an evaluation of the gradient on a slice, and of the sweep on 1,281,167 images computed from it.

    An evaluation is two matrix products of images × dimension × (strengths · classes): linear in images, as the Gram
    matrix is, whose eigendecomposition does not depend on them. How many evaluations a strength takes is assumed.
    """
    random = torch.Generator().manual_seed(0)
    y = torch.arange(rows) % classes
    x = torch.randn(classes, dimension, generator=random)[y] / 8 + torch.randn(rows, dimension, generator=random)
    x, full = (x - x.mean(0)) / x.std(0), 1_281_167
    started = time.perf_counter()
    x.T @ x
    gram, seconds = time.perf_counter() - started, []
    for evaluations in (1, 5):
        started = time.perf_counter()
        logistic_regression(x, y, [1.0], classes=classes, max_iterations=evaluations, tolerance=0)
        seconds.append(time.perf_counter() - started)
    each = (seconds[1] - seconds[0]) / 4
    axes, one, sweep = seconds[0] - 2 * each, each * full / rows, 50 * len(STRENGTHS)
    rate, flops = 4 * rows * dimension * classes / each, 4 * full * dimension * classes * sweep
    print(f"slice of {rows:,} x {dimension:,}, {classes:,} classes, {torch.get_num_threads()} thread(s), one strength:")
    print(f"{each:.2f} s an evaluation of the gradient ({rate / 1e9:.0f} GFLOP/s), {axes:.1f} s for the axes")
    axes += gram * (full / rows - 1)
    print(f"computed for {full:,} images ({full * dimension * 4 / 2**30:.1f} GiB of features):")
    print(f"{one:.0f} s an evaluation, {axes:.0f} s for the axes; {len(STRENGTHS)} strengths x 50 evaluations:")
    print(f"{sweep * one / 3600:.1f} h here; {flops:.1e} FLOP, {flops / 6e14:.1f} minutes at 10 TFLOP/s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, help="run directory; default: raw pixels of Fashion-MNIST")
    parser.add_argument("--limit", type=int, help="images of raw pixels to keep")
    parser.add_argument("--peer-iterations", type=int, default=100, help="scikit-learn's max_iter")
    parser.add_argument("--sgd", action="store_true", help="time of an epoch of the SGD probe")
    parser.add_argument(
        "--imagenet", type=int, nargs="?", const=20_000, metavar="ROWS", help="rows of the slice (20,000)"
    )
    arguments = parser.parse_args()
    if arguments.sgd:
        return sgd_against_images(arguments.limit)
    if arguments.imagenet:
        return at_imagenet_size(arguments.imagenet)
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

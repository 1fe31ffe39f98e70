"""What the evaluation of one run costs apart from its networks: time of each part, and memory.

    python eval/suite.py RUN [--threads 2]

RUN was evaluated before, so that its bank of features and the baselines beside it are there. It is evaluated again, and
the time within its encoder and projector is taken out of every part. Memory is the process's peak, everything included.
"""

from __future__ import annotations

import argparse
import resource
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from ssl_ebm.evaluation import evaluate as module
from ssl_ebm.evaluation.features.bank import Bank
from ssl_ebm.networks.encoder import Encoder
from ssl_ebm.run_directory import RunDirectory

PARTS = {
    "load_data": "reading the data",
    "evaluate_bank": "probes: kNN grid, logistic regression, ridge, few shots",
    "cluster_scores": "clusters",
    "health": "rank, spectrum, alignment, uniformity, LiDAR",
    "verification": "verification of the features",
    "measure_energy": "verification, canonical energy, information, strength",
    "outlier_detection": "outliers",
    "image_measures": "energies of single images",
    "gallery": "neighbours and mistakes",
    "cost": "counting the network's operations",
}


class Clock:
    """Seconds of functions, without those that they spend in networks."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self.networks = 0.0

    def part(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, timed."""

        def timed(*arguments: Any, **keywords: Any) -> Any:
            started, before = time.perf_counter(), self.networks
            result = function(*arguments, **keywords)
            self.seconds[name] += time.perf_counter() - started - (self.networks - before)
            return result

        return timed

    def network(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """A network's forward, timed."""

        def timed(*arguments: Any, **keywords: Any) -> Any:
            started = time.perf_counter()
            result = function(*arguments, **keywords)
            self.networks += time.perf_counter() - started
            return result

        return timed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", metavar="RUN", help="a run that was evaluated")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="of PyTorch (default: all)")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    bank = Bank.load(RunDirectory(Path(options.run)).features)
    count, features = len(bank.train) + len(bank.validation), bank.test.features.shape[1]
    shape = f"{count:,} + {len(bank.test):,} images of {features} features"
    del bank
    clock = Clock()
    for name in PARTS:
        setattr(module, name, clock.part(name, getattr(module, name)))
    Encoder.at_any_size = clock.network(Encoder.at_any_size)  # type: ignore[method-assign]
    started = time.perf_counter()
    module.evaluate(options.run, force=True)
    total = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"\n{options.run}: {shape}, {options.threads} thread(s), torch {torch.__version__}\n")
    for name, text in PARTS.items():
        print(f"{text:<62} {clock.seconds[name]:8.1f} s")
    rest = total - clock.networks
    print(f"{'the rest':<62} {rest - sum(clock.seconds.values()):8.1f} s")
    print(f"{'all but the networks':<62} {rest:8.1f} s")
    print(f"{'networks':<62} {clock.networks:8.1f} s")
    print(f"peak memory {peak:,.0f} MiB")


if __name__ == "__main__":
    main()

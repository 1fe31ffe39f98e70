"""Differences of objectives in a study that were asked for beforehand, with seeds paired.

    python eval/paired.py runs/studies/ebclr ebclr-128:simclr-128 ebclr-128:simclr-128-compute

Two runs of one seed start from the same weights and see the same batches, so their difference varies less than either:
for each pair A:B the mean over seeds of A - B, with half of Student's 95% interval. It is of other seeds on these test
images, and of one comparison; a study's own table compares all with all, seeds unpaired, and finds less.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import t

MEASURES: dict[str, Callable[[Mapping[str, Any]], float]] = {
    "kNN %": lambda results: 100 * results["rows"]["encoder"]["knn"]["headline"]["accuracy"],
    "linear %": lambda results: 100 * results["rows"]["encoder"]["linear"]["test"]["top1"],
    "AUROC": lambda results: results["energy"]["trained"]["anchor_auroc"],
    "RankMe": lambda results: results["rows"]["encoder"]["health"]["rankme"],
}


def of_seeds(study: Path, label: str) -> dict[str, dict[str, Any]]:
    """Results of each of an objective's runs, by seed."""
    found = {
        path.parent.name.rpartition("-s")[2]: json.loads(path.read_text())
        for path in study.glob(f"{label}-s*/evaluation.json")
        if path.parent.name.rpartition("-s")[0] == label
    }
    if not found:
        raise SystemExit(f"{study} has no evaluated run of {label}")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", type=Path, help="directory of a study")
    parser.add_argument("pairs", nargs="+", metavar="A:B", help="two objectives")
    options = parser.parse_args()
    print(f"{'A - B':<40} {'seeds':>5}" + "".join(f"{name:>18}" for name in MEASURES))
    for pair in options.pairs:
        left, right = (of_seeds(options.study, label) for label in pair.split(":"))
        seeds = sorted(left.keys() & right.keys())
        line = f"{pair.replace(':', ' - '):<40} {len(seeds):>5}"
        for measure in MEASURES.values():
            difference = np.array([measure(left[seed]) - measure(right[seed]) for seed in seeds])
            half = t.ppf(0.975, len(seeds) - 1) * difference.std(ddof=1) / len(seeds) ** 0.5
            digits = 3 if abs(difference).max() < 1 and half < 0.3 else 1
            line += f"{difference.mean():+.{digits}f} ± {half:.{digits}f}".rjust(18)
        print(line)


if __name__ == "__main__":
    main()

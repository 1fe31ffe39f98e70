"""Differences of objectives in a study that were asked for beforehand, with seeds paired.

    python eval/paired.py runs/studies/ebclr ebclr-128:simclr-128 ebclr-128:simclr-128-compute

Two runs of one seed start from the same weights and see the same batches, so their difference varies less than either:
for each pair A:B the mean over seeds of A - B, with half of Student's 95% interval. It is of other seeds on these test
images, and of one comparison; a study's own table compares all with all, seeds unpaired, and finds less.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import t

from ssl_ebm.evaluation.stored import read_results
from ssl_ebm.report.tables.measures import measure_of, percent

MEASURES = [measure_of(key) for key in ("knn", "linear", "auroc", "rankme")]


def of_seeds(study: Path, label: str) -> dict[str, dict[str, Any]]:
    """Results of each of an objective's runs, by seed."""
    found = {
        path.parent.name.rpartition("-s")[2]: read_results(path)
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
    print(f"{'A - B':<40} {'seeds':>5}" + "".join(f"{measure.head:>18}" for measure in MEASURES))
    for pair in options.pairs:
        left, right = (of_seeds(options.study, label) for label in pair.split(":"))
        seeds = sorted(left.keys() & right.keys())
        line = f"{pair.replace(':', ' - '):<40} {len(seeds):>5}"
        for measure in MEASURES:
            unit = 100 if measure.show is percent else 1
            difference = unit * np.array([measure.read(left[seed]) - measure.read(right[seed]) for seed in seeds])
            half = t.ppf(0.975, len(seeds) - 1) * difference.std(ddof=1) / len(seeds) ** 0.5
            digits = 3 if abs(difference).max() < 1 and half < 0.3 else 1
            line += f"{difference.mean():+.{digits}f} ± {half:.{digits}f}".rjust(18)
        print(line)


if __name__ == "__main__":
    main()

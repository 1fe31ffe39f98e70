"""Do the intervals cover, and do the tests find what is there and nothing else? A simulation at a study's size.

    python eval/intervals.py                  3 seeds, 10,000 test images: about ten minutes on a CPU core
    python eval/intervals.py --draws 200      coarser

Each draw is a study: objectives that are correct on an image where a margin is above zero. The margin is the sum of
what makes the image easy for all of them, what makes it easy for one, a seed's shift, and noise of seed and image. All
are 90% accurate. The shift is what differs between the lines: it spreads the seeds' accuracies by so many points.

95% intervals of an objective's accuracy, whose truth is known, and equal objectives found different at 5%:

- t: what `ssl_ebm.study.statistics` does;
- Satterthwaite: the same with his degrees of freedom, exponent 2 for 5/4;
- seeds: Student's t of the seeds' accuracies, as if the test images were all there are;
- images: binomial, as tables without seeds have it, of the mean over seeds;
- bootstrap: percentiles of means over resampled seeds and resampled images, for some of the draws.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from statistics import NormalDist

import numpy as np

from ssl_ebm.study import statistics
from ssl_ebm.study.statistics import ALPHA, Analysis, analyse, t_quantile

ACCURACY = 0.9
OWN, NOISE = 0.5, 0.35  # standard deviations of margins, beside 1 of what is shared
POINTS = (0.0, 0.1, 0.3, 1.0, 2.0)
RESAMPLES = 500
Z = 1.959964


def study(random: np.random.Generator, objectives: int, seeds: int, images: int, points: float, gap: float) -> dict:
    """Correctness [seeds, images] of each objective; the first is better than the others by `gap`, a part of 1."""
    spread = np.sqrt(1 + OWN**2 + NOISE**2)
    shift = points / 100 / NormalDist().pdf(NormalDist().inv_cdf(ACCURACY)) * spread
    easy = random.standard_normal(images, dtype=np.float32)
    values = {}
    for k in range(objectives):
        # the threshold at which the mean over all seeds and images is as accurate as stated
        accuracy = ACCURACY + (gap / 2 if k == 0 else -gap / 2)
        middle = NormalDist().inv_cdf(accuracy) * np.sqrt(spread**2 + shift**2)
        margin = easy + OWN * random.standard_normal(images, dtype=np.float32) + middle
        own = shift * random.standard_normal((seeds, 1))
        values[str(k)] = margin + own + NOISE * random.standard_normal((seeds, images), dtype=np.float32) > 0
    return values


def bootstrap(random: np.random.Generator, values: np.ndarray) -> tuple[float, float]:
    """Percentile interval of the mean over resampled seeds and images."""
    seeds, images = values.shape
    weights = random.multinomial(seeds, np.full(seeds, 1 / seeds), RESAMPLES) / seeds
    counts = random.multinomial(images, np.full(images, 1 / images), RESAMPLES) / images
    means = ((weights @ values) * counts).sum(1)
    low, high = np.quantile(means, [ALPHA / 2, 1 - ALPHA / 2])
    return float(low), float(high)


def with_exponent(values: dict, exponent: float) -> Analysis:
    """The analysis with other degrees of freedom."""
    before = statistics.EXPONENT
    statistics.EXPONENT = exponent
    try:
        return analyse(values)
    finally:
        statistics.EXPONENT = before


def coverage(options: argparse.Namespace, points: float) -> dict[str, float]:
    """How often each interval of an accuracy holds the truth, and how often each test finds a difference of nothing."""
    random = np.random.default_rng(round(10 * points))
    hits: dict[str, list[bool]] = defaultdict(list)
    for draw in range(options.draws):
        values = study(random, 2, options.seeds, options.images, points, 0.0)
        for name, found in (("t", analyse(values)), ("Satterthwaite", with_exponent(values, 2.0))):
            hits[name] += [e.low <= ACCURACY <= e.high for e in found.estimates.values()]
            hits[f"false {name}"].append(found.p[0, 1] < ALPHA)
        seeds = np.stack([value.mean(1) for value in values.values()])
        error = np.abs(seeds.mean(1) - ACCURACY)
        width = t_quantile(ALPHA, np.array([options.seeds - 1.0]))[0] * seeds.std(1, ddof=1) / options.seeds**0.5
        hits["seeds"] += (error <= width).tolist()
        hits["images"] += (error <= Z * (ACCURACY * (1 - ACCURACY) / options.images) ** 0.5).tolist()
        if draw < options.draws // 4:
            low, high = bootstrap(random, values["0"].astype(np.float64))
            hits["bootstrap"].append(low <= ACCURACY <= high)
    return {name: float(np.mean(found)) for name, found in hits.items()}


def family(options: argparse.Namespace, points: float) -> tuple[float, float, float]:
    """Studies of `--objectives` with a false find, the stated power's difference, and how often two apart by it tie."""
    random = np.random.default_rng(round(10 * points) + 1)
    count = max(1, options.draws // 4)
    found = [
        analyse(study(random, options.objectives, options.seeds, options.images, points, 0.0)) for _ in range(count)
    ]
    false = float(np.mean([(analysis.p < ALPHA).any() for analysis in found]))
    pairs = [analyse(study(random, 2, options.seeds, options.images, points, 0.0)) for _ in range(count)]
    gap = float(np.median([analysis.power for analysis in pairs if analysis.power is not None]))
    apart = [analyse(study(random, 2, options.seeds, options.images, points, gap)) for _ in range(count)]
    return false, gap, float(np.mean([len(analysis.tied) > 1 for analysis in apart]))


def main() -> None:
    """Simulate and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=1000)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--objectives", type=int, default=8)
    options = parser.parse_args()
    names = ("t", "Satterthwaite", "seeds", "images", "bootstrap")
    print(f"{options.seeds} seeds, {options.images:,} images, {options.draws} draws; coverage of 95% intervals, %")
    print("seeds ± points" + "".join(name.rjust(15) for name in names) + "     false t  false Satterthwaite")
    for points in POINTS:
        found = coverage(options, points)
        line = "".join(f"{100 * found[name]:.1f}".rjust(15) for name in names)
        false = f"{100 * found['false t']:.1f}".rjust(12) + f"{100 * found['false Satterthwaite']:.1f}".rjust(21)
        print(f"{points:<14g}{line}{false}", flush=True)
    print(f"\n{options.objectives} equal objectives, all pairs by Holm; and two apart by the stated power's difference")
    print("seeds ± points   studies with a false find, %   difference, points   false ties, % (stated: 20)")
    for points in POINTS:
        false, gap, ties = family(options, points)
        print(f"{points:<14g}{100 * false:>28.1f}{100 * gap:>23.2f}{100 * ties:>20.1f}", flush=True)


if __name__ == "__main__":
    main()

"""How sure a number is that another seed and other test images would have changed, and which differences are real.

One value y_si for each seed s and each test image (or anchor) i of an objective: 1 where the image is classified
correctly, say. Both are drawn from many: y_si = μ + a_s + b_i + e_si, and what is asked is μ, or a difference of two μ.
The mean's variance has two parts, A = σ_a²/S + σ_e²/(SN), which the spread of the seeds' means estimates, and
B = σ_b²/N of the images. All objectives are tested on the same ones: for a difference B is that of b_i - b'_i, and what
is hard for both cancels. A is known to S - 1 degrees of freedom only: intervals are of Student's t, whose degrees of
freedom grow as A matters less, ν = ν_A (1 + B/A)^(5/4). Satterthwaite's (1946) exponent is 2; it covers 92% where both
parts matter and seeds are three. 5/4 covers 93.6 to 96.5% for every ratio of the parts.

A bootstrap of three seeds covers 74% where they spread by two points (eval/intervals.py): it takes their spread for the
population's, which is larger by S/(S - 1), and gives it no heavier tail. Drawing the images' part by a bootstrap would
only add noise to a variance that is known in closed form. Seeds of two objectives are not paired: a seed is another
draw for another objective, and pairing would cost half of the degrees of freedom. Variances are not pooled over
objectives: where objectives differ in them, a pooled test finds differences that are not there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy import special  # scipy.stats.t is these two functions, and takes a second longer to import

ALPHA = 0.05  # of an interval, and of all of a study's comparisons by one measure together
POWER = 0.8
EXPONENT = 1.25  # of the degrees of freedom


@dataclass(frozen=True)
class Estimate:
    """An objective's mean with its 95% interval, and each seed's value."""

    mean: float
    low: float
    high: float
    seeds: tuple[float, ...]


@dataclass(frozen=True, eq=False)
class Analysis:
    """Objectives compared by one measure.

    Attributes:
        names: Of the objectives, best first.
        estimates: By name, in that order.
        difference: Mean of each row's objective less that of each column's.
        half_width: Of the differences' 95% intervals, each by itself.
        p: P-values, adjusted by Holm (1979) over all pairs: the probability that any of the differences found is not
            there is at most `ALPHA`, also for the best one, which was not chosen beforehand.
        power: Smallest difference of the median pair that would have been found with probability .8, with all pairs in
            the family (Holm's first step); None of one objective.
    """

    names: tuple[str, ...]
    estimates: Mapping[str, Estimate]
    difference: Float[np.ndarray, "k k"]
    half_width: Float[np.ndarray, "k k"]
    p: Float[np.ndarray, "k k"]
    power: float | None

    @property
    def tied(self) -> tuple[str, ...]:
        """The best objective and those with no found difference from it."""
        return tuple(name for name, p in zip(self.names, self.p[0], strict=True) if p >= ALPHA)

    @property
    def groups(self) -> list[tuple[str, ...]]:
        """Neighbours in the order of means among whom no difference was found; the longest such rows, two or more."""
        ends = [self._end(start) for start in range(len(self.names))]
        kept = [(start, end) for start, end in enumerate(ends) if start == 0 or end > ends[start - 1]]
        return [self.names[start:end] for start, end in kept if end - start > 1]

    def _end(self, start: int) -> int:
        end = start + 1
        while end < len(self.names) and (self.p[start:end, end] >= ALPHA).all():
            end += 1
        return end


def analyse(
    values: Mapping[str, Float[np.ndarray, "_ _"]], *, larger_is_better: bool = True, over_seeds: bool = True
) -> Analysis:
    """Intervals of all objectives, tests of all pairs, and what the tests could have found.

    Args:
        values: By objective, one row a seed and one column a test image or anchor, the same ones for all objectives.
            With one column, a measure that is no mean over images, intervals are of other seeds on these same images.
        larger_is_better: False for an error.
        over_seeds: False: of these very runs on other images, which one seed has too, and not of other seeds.

    Raises:
        ValueError: No values, a NaN, fewer than two seeds, or other images for one objective than for another.
    """
    arrays = {name: np.asarray(array, dtype=np.float64) for name, array in values.items()}
    _check(arrays, over_seeds)
    order = sorted(arrays, key=lambda name: arrays[name].mean(), reverse=larger_is_better)
    seeds, items, df = _parts([arrays[name] for name in order], over_seeds)
    means = np.array([arrays[name].mean() for name in order])
    count = arrays[order[0]].shape[1]

    own = np.diag(items)
    width = t_quantile(ALPHA, _df([seeds], [df], own, count)) * np.sqrt(seeds + own)
    estimates = {
        name: Estimate(float(m), float(m - w), float(m + w), tuple(arrays[name].mean(1).tolist()))
        for name, m, w in zip(order, means, width, strict=True)
    }
    i, j = np.triu_indices(len(order), 1)
    shared = np.maximum(own[i] + own[j] - 2 * items[i, j], 0)
    error = np.sqrt(seeds[i] + seeds[j] + shared)
    freedom = _df([seeds[i], seeds[j]], [df[i], df[j]], shared, count)
    difference = means[i] - means[j]
    with np.errstate(divide="ignore", invalid="ignore"):
        t = np.where(difference == 0, 0.0, np.abs(difference) / error)
    p = holm(2 * special.stdtr(freedom, -t))
    square = [_square(len(order), i, j, *parts) for parts in ((difference, -difference, 0.0), (p, p, 1.0))]
    half = t_quantile(ALPHA, freedom) * error
    power = None
    if len(p):
        typical = (
            error / (1 - 2 / (9 * freedom)) ** 1.5
        )  # the median of χ²_ν/ν is (1 - 2/(9ν))³ (Wilson, Hilferty 1931)
        power = float(np.median((t_quantile(ALPHA / len(p), freedom) + t_quantile(2 * (1 - POWER), freedom)) * typical))
    return Analysis(tuple(order), estimates, square[0], _square(len(order), i, j, half, half, 0.0), square[1], power)


def _check(arrays: Mapping[str, np.ndarray], over_seeds: bool) -> None:
    if not arrays:
        raise ValueError("values must hold at least one objective, got none")
    first, expected = next((name, array.shape[-1]) for name, array in arrays.items())
    for name, array in arrays.items():
        if array.ndim != 2 or 0 in array.shape:
            raise ValueError(f"values of {name} must be [seeds, images], got shape {list(array.shape)}")
        if array.shape[1] != expected:
            raise ValueError(
                f"a paired comparison needs one test set: {first} has {expected} images and {name} {array.shape[1]}"
            )
        if not np.isfinite(array).all():
            raise ValueError(f"values of {name} must be finite, got NaN or infinity: a run of it has diverged")
        if over_seeds and len(array) < 2:
            raise ValueError(
                f"the spread of seeds needs at least two, got one of {name}: train another, or use over_seeds=False"
            )


def _parts(arrays: Sequence[np.ndarray], over_seeds: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A of each objective [k], the images' covariance of all B [k, k], and the degrees of freedom of A [k].

    The covariance of image means holds σ_e²/S on its diagonal, which is A's; the residuals' mean square takes it out.
    """
    count = arrays[0].shape[1]
    images = np.stack([array.mean(0) for array in arrays])
    covariance = np.zeros((len(arrays),) * 2) if count == 1 else np.atleast_2d(np.cov(images)) / count
    if not over_seeds:
        return np.zeros(len(arrays)), covariance, np.ones(len(arrays))
    spread = np.array([array.mean(1).var(ddof=1) / len(array) for array in arrays])
    df = np.array([len(array) - 1.0 for array in arrays])
    if count > 1:
        residual = [array - array.mean(1, keepdims=True) - array.mean(0) + array.mean() for array in arrays]
        square = np.array([np.square(r).sum() / ((len(r) - 1) * (count - 1)) for r in residual])
        noise = square / (df + 1) / count
        # an estimate below zero is one of zero
        covariance[np.diag_indices(len(arrays))] = np.maximum(np.diag(covariance) - noise, 0)
    return spread, covariance, df


def _df(parts: Sequence[np.ndarray], df: Sequence[np.ndarray], items: np.ndarray, count: int) -> np.ndarray:
    """ν = (Σ A)² / Σ (A²/ν) · (1 + B / Σ A)^(5/4), at most those of the images."""
    spread = sum(parts)
    most = max(count - 1.0, 1.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        own = spread**2 / sum(part**2 / freedom for part, freedom in zip(parts, df, strict=True))
        grown = own * (1 + items / spread) ** EXPONENT
    least = sum(df) if count == 1 else most
    return np.where(spread > 0, np.minimum(grown, np.maximum(most, own)), least)


def t_quantile(tail: float, df: Float[np.ndarray, "*n"]) -> Float[np.ndarray, "*n"]:
    """The t with P(|T| > t) = tail of Student's distribution: 4.303 for .05 and 2 degrees of freedom."""
    return -special.stdtrit(df, tail / 2)


def holm(p: Float[np.ndarray, "*pairs"]) -> Float[np.ndarray, "*pairs"]:
    """Holm's (1979) adjustment: the k-th smallest of m p-values times m - k + 1, not below those before it."""
    order = np.argsort(p)
    adjusted = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    result = np.empty_like(p)
    result[order] = np.minimum(adjusted, 1.0)
    return result


def mean_ranks(values: Mapping[str, Mapping[int, float]], *, larger_is_better: bool = True) -> dict[str, float]:
    """Each objective's rank among all, 1 the best, equal ones sharing; averaged over the seeds that all have.

    Raises:
        ValueError: No seed is common to all.
    """
    common = sorted(set.intersection(*(set(own) for own in values.values())))
    if not common:
        raise ValueError(f"ranks need a seed that all objectives have, got none common to {', '.join(values)}")
    table = np.array([[own[seed] for seed in common] for own in values.values()]) * (1 if larger_is_better else -1)
    better = (table[None] > table[:, None]).sum(1)
    equal = (table[None] == table[:, None]).sum(1)
    return dict(zip(values, (better + (equal + 1) / 2).mean(1).tolist(), strict=True))


def _square(
    size: int, i: np.ndarray, j: np.ndarray, above: np.ndarray, below: np.ndarray, diagonal: float
) -> np.ndarray:
    matrix = np.full((size, size), diagonal)
    matrix[i, j], matrix[j, i] = above, below
    return matrix

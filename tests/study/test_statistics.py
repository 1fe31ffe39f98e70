"""Intervals cover, equal objectives are tied, different ones are found, and each part is a loop's."""

import itertools

import numpy as np
import pytest
from scipy import stats

from ssl_ebm.study.statistics import ALPHA, EXPONENT, analyse, holm, mean_ranks


def drawn(random, objectives=2, seeds=3, images=200, *, seed_std=0.05, gap=0.0):
    """Values μ + a_s + b_i + e_si; half of each image's part is shared; μ is 0, and `gap` for the first."""
    shared = random.normal(size=images)
    values = {}
    for k in range(objectives):
        image = (shared + random.normal(size=images)) / np.sqrt(2)
        seed = seed_std * random.normal(size=(seeds, 1))
        values[f"o{k}"] = gap * (k == 0) + seed + image + 0.7 * random.normal(size=(seeds, images))
    return values


def loop_interval(array):
    """The module's formula, one sum at a time."""
    seeds, images = array.shape
    mean = sum(array[s, i] for s in range(seeds) for i in range(images)) / (seeds * images)
    by_seed = [sum(array[s]) / images for s in range(seeds)]
    by_image = [sum(array[:, i]) / seeds for i in range(images)]
    a = sum((m - mean) ** 2 for m in by_seed) / (seeds - 1) / seeds
    error = sum((array[s, i] - by_seed[s] - by_image[i] + mean) ** 2 for s in range(seeds) for i in range(images)) / (
        (seeds - 1) * (images - 1)
    )
    b = max(sum((m - mean) ** 2 for m in by_image) / (images - 1) - error / seeds, 0) / images
    df = (seeds - 1) * (1 + b / a) ** EXPONENT
    return mean, stats.t.ppf(0.975, min(df, images - 1)) * (a + b) ** 0.5


def test_an_interval_is_the_loops():
    array = drawn(np.random.default_rng(0), images=12)["o0"]
    mean, half = loop_interval(array)
    estimate = analyse({"a": array}).estimates["a"]
    assert estimate.mean == pytest.approx(mean) and estimate.high - estimate.mean == pytest.approx(half)
    assert estimate.mean - estimate.low == pytest.approx(half)
    assert estimate.seeds == pytest.approx(tuple(array.mean(1)))


def test_without_an_images_part_it_is_students_test():
    """One column: Welch's for a difference, the one-sample interval for a mean."""
    random = np.random.default_rng(1)
    a, b = random.normal(size=(4, 1)), 1 + 2 * random.normal(size=(5, 1))
    found = analyse({"a": a, "b": b})
    low, high = stats.t.interval(0.95, 3, a.mean(), stats.sem(a.ravel()))
    assert (found.estimates["a"].low, found.estimates["a"].high) == pytest.approx((low, high))
    assert found.p[0, 1] == pytest.approx(stats.ttest_ind(a.ravel(), b.ravel(), equal_var=False).pvalue)


def test_of_these_very_runs_it_is_the_paired_test_over_images():
    random = np.random.default_rng(2)
    values = {name: array[:1] for name, array in drawn(random).items()}
    found = analyse(values, over_seeds=False)
    first, second = (values[name][0] for name in found.names)
    assert found.p[0, 1] == pytest.approx(stats.ttest_rel(first, second).pvalue, rel=1e-9)


def test_the_seeds_spread_is_not_counted_twice():
    """What the seeds do not share on an image is in their means' spread already, not in the images' part too."""
    random = np.random.default_rng(3)
    widths = []
    for _ in range(200):
        noise = random.normal(size=(3, 100))
        estimate = analyse({"a": noise}).estimates["a"]
        widths.append(estimate.low <= 0 <= estimate.high)
    assert np.mean(widths) > 0.92


@pytest.mark.parametrize("seed_std", [0.0, 0.05, 0.3])
def test_intervals_cover_and_equal_objectives_are_tied(seed_std):
    """250 draws: 93% to 97% of the intervals hold the truth, give or take three standard errors of the count."""
    random = np.random.default_rng(4)
    covered, false, differs = [], [], []
    for _ in range(250):
        found = analyse(drawn(random, seed_std=seed_std))
        covered += [e.low <= 0 <= e.high for e in found.estimates.values()]
        false.append(len(found.tied) == 1)
        differs.append(abs(found.difference[0, 1]) <= found.half_width[0, 1])
    slack = 3 * (0.05 * 0.95 / 250) ** 0.5
    assert 0.93 - slack < np.mean(covered) < 0.97 + slack
    assert 0.93 - slack < np.mean(differs) and np.mean(false) < 0.05 + slack
    assert np.mean(false) > 0.01, "a test that finds nothing is no test"


def test_the_stated_power_is_the_power():
    random = np.random.default_rng(5)
    power = np.median([analyse(drawn(random)).power for _ in range(40)])
    found = [analyse(drawn(random, gap=power)) for _ in range(150)]
    assert 0.7 < np.mean([len(f.tied) == 1 and f.names[0] == "o0" for f in found]) < 0.9


def test_pairing_finds_what_separate_intervals_do_not():
    random = np.random.default_rng(6)
    hard = random.normal(size=5000)
    first = (hard + 0.1 * random.normal(size=(3, 5000)) > 0).astype(float)
    second = (hard + 0.1 * random.normal(size=(3, 5000)) > 0.03).astype(float)
    found = analyse({"first": first, "second": second})
    assert found.tied == ("first",)
    assert found.estimates["first"].low < found.estimates["second"].high


def test_holm_is_his_example_and_is_monotone():
    """Adjusted by hand: .01·4, .013·3 raised to .04, .14·2, .19·2 → the larger before it."""
    assert holm(np.array([0.19, 0.01, 0.14, 0.013])) == pytest.approx([0.28, 0.04, 0.28, 0.04])
    assert len(holm(np.array([]))) == 0
    assert holm(np.array([0.6, 0.9])).max() == 1


def test_twenty_equal_objectives_have_one_false_find_in_twenty_studies():
    random = np.random.default_rng(7)
    wrong = [(analyse(drawn(random, objectives=8, images=60)).p < ALPHA).any() for _ in range(100)]
    assert np.mean(wrong) < 0.05 + 3 * (0.05 * 0.95 / 100) ** 0.5


def test_groups_are_the_longest_rows_without_a_found_difference():
    spread = np.array([-0.1, -0.05, 0, 0, 0.05, 0.1])[:, None]
    values = {f"o{k}": level + spread for k, level in enumerate((9, 9.01, 5, 1.02, 1, 1.01))}
    found = analyse(values)
    assert {frozenset(group) for group in found.groups} == {frozenset({"o0", "o1"}), frozenset({"o3", "o4", "o5"})}
    place = {name: i for i, name in enumerate(found.names)}
    for group in found.groups:
        assert all(found.p[place[a], place[b]] >= ALPHA for a, b in itertools.combinations(group, 2))
    assert set(found.tied) == {"o0", "o1"}


def test_smaller_may_be_better_and_matrices_are_antisymmetric():
    values = drawn(np.random.default_rng(9), objectives=3, gap=1.0)
    found, reverse = analyse(values), analyse(values, larger_is_better=False)
    assert found.names == reverse.names[::-1]
    assert np.array_equal(found.difference, -found.difference.T) and np.array_equal(found.p, found.p.T)
    means = [found.estimates[name].mean for name in found.names]
    assert found.difference[0] == pytest.approx(means[0] - np.array(means))


def test_identical_runs_are_tied_and_differ_from_others():
    values = np.zeros((2, 5))
    found = analyse({"a": values, "b": values.copy(), "c": values - 1})
    assert set(found.tied) == {"a", "b"} and found.p[0, 2] < 1e-80
    assert analyse({"a": values}).power is None


def test_ranks():
    ranks = mean_ranks({"a": {0: 0.9, 1: 0.8}, "b": {0: 0.7, 1: 0.8}, "c": {0: 0.5, 1: 0.1, 2: 1.0}})
    assert ranks == {"a": 1.25, "b": 1.75, "c": 3.0}
    assert mean_ranks({"a": {0: 0.9}, "b": {0: 0.7}}, larger_is_better=False) == {"a": 2.0, "b": 1.0}
    with pytest.raises(ValueError, match="none common to a, b"):
        mean_ranks({"a": {0: 0.9}, "b": {1: 0.7}})


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, "at least one objective"),
        ({"a": np.zeros((3, 5)), "b": np.zeros((3, 6))}, "one test set: a has 5 images and b 6"),
        ({"a": np.zeros((1, 5))}, "needs at least two, got one of a"),
        ({"a": np.full((2, 5), np.nan)}, "must be finite"),
        ({"a": np.zeros((2, 0))}, "must be .seeds, images."),
    ],
)
def test_refusals(values, message):
    with pytest.raises(ValueError, match=message):
        analyse(values)

import math

import pytest

from ssl_ebm.report.tables.intervals import Row, leaders
from ssl_ebm.report.tables.measures import measure_of, percent, ratio
from ssl_ebm.report.tables.text import WIDTH, plain_text, shorten

KNN, AUROC, D_PRIME = map(measure_of, ("knn", "auroc", "d_prime"))


def make_row(name, knn=0.9, auroc=0.9, n=10_000, objective=None, **rest):
    values = {"objective": objective or name, "family": "contrastive", "knn": knn, "auroc": auroc, "d_prime": -1.0}
    return Row(name=name, values=values, trials={"test": n, "energy": n}, **rest)


def test_numbers_have_one_form():
    assert (percent(0.58), percent(1.0), ratio(0.771), ratio(1.0), ratio(0.9996)) == (
        "58.0",
        "100.0",
        ".771",
        "1.000",
        "1.000",
    )
    row = make_row("a")
    assert row.show(D_PRIME) == "−1.00"
    assert Row(name="a").show(KNN) == "–"


@pytest.mark.parametrize(("p", "n"), [(0.9, 10_000), (0.5, 1000), (0.1, 40_000)])
def test_interval_is_the_binomial_one_where_n_is_large(p, n):
    assert make_row("a", knn=p, n=n).half_width(KNN) == pytest.approx(1.96 * math.sqrt(p * (1 - p) / n), rel=0.01)


def test_interval_does_not_vanish_at_the_ends():
    assert make_row("a", knn=1.0, n=10).half_width(KNN) == pytest.approx(0.1821, abs=1e-4), (
        "by hand: p = .8612, n = 13.84"
    )
    assert make_row("a").half_width(D_PRIME) is None
    assert Row(name="a").half_width(KNN) is None


def test_leaders_are_the_best_and_what_cannot_be_told_from_it():
    rows = [make_row("best", 0.900), make_row("tied", 0.894), make_row("below", 0.880)]
    assert leaders(rows, KNN) == {"best", "tied"}
    assert leaders([make_row(r.name, r.values["knn"], n=100) for r in rows], KNN) == set(), (
        "no run stands out of 100 images"
    )
    assert leaders(rows, D_PRIME) == set(), "no interval"
    assert leaders(rows[:1], KNN) == set()
    assert leaders([*rows, make_row("raw pixels", 0.99, baseline=True)], KNN) == {"best", "tied"}


def test_energies_of_other_pairs_are_not_ranked():
    rows = [make_row("a", 0.9, auroc=0.95, pairs="grey"), make_row("b", 0.8, auroc=0.6, pairs="colour")]
    assert leaders(rows, AUROC) == set()
    assert leaders(rows, KNN) == {"a"}


def test_terminal_table_is_aligned_and_at_most_120_wide():
    rows = [make_row("simclr", marks=("*", "†")), make_row("byol"), make_row("raw pixels", baseline=True)]
    lines = plain_text(rows, ["a note of " + "many words " * 30]).splitlines()
    assert lines[0].startswith("run") and lines[2].startswith("simclr *†") and lines[3].startswith("byol")
    assert lines[1] == lines[4] == lines[6] and set(lines[1]) == {"─"}
    assert lines[5].startswith("raw pixels")
    assert lines[2].index("90.0") == lines[3].index("90.0") == lines[5].index("90.0")
    assert max(map(len, lines)) <= WIDTH


def test_objective_is_a_column_only_where_names_differ_from_it():
    assert "objective" not in plain_text([make_row("simclr")], [])
    assert "objective" in plain_text([make_row("warm", objective="simclr")], [])


def test_long_names_take_the_families_place_and_are_shortened_last():
    rows = [make_row("x" * 80 + end, objective="simclr", marks=("*",)) for end in "ab"]
    lines = plain_text(rows, []).splitlines()
    assert max(map(len, lines)) <= WIDTH and "family" not in lines[0]
    assert "xa *" in lines[2] and "xb *" in lines[3] and "…" in lines[2]
    assert shorten("abcdefg", 7) == "abcdefg" and shorten("abcdefg", 5) == "ab…fg"

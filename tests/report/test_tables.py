import dataclasses
import json
import math
from types import UnionType
from typing import get_args, get_type_hints

import pytest
from example_measures import extend
from example_runs import write_run

from ssl_ebm.evaluation.results import BASELINES, Results
from ssl_ebm.report.compare import compare
from ssl_ebm.report.runs import group
from ssl_ebm.report.tables import measures
from ssl_ebm.report.tables.further import TABLES, sheets
from ssl_ebm.report.tables.intervals import Row, leaders
from ssl_ebm.report.tables.measures import MEASURES, TRIALS, Measure, measure_of, percent, ratio
from ssl_ebm.report.tables.text import WIDTH, plain_text, shorten, text_table

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


def described(path):
    """The type that `Results` gives to what lies at a path; "{name}" stands for any key of a mapping."""
    kind = Results
    for part in path.split("."):
        kind = get_args(kind)[0] if isinstance(kind, UnionType) else kind  # less null
        kind = get_type_hints(kind)[part] if dataclasses.is_dataclass(kind) else get_args(kind)[1]
    return kind


@pytest.mark.parametrize("measure", MEASURES, ids=lambda measure: measure.key)
def test_a_measure_is_a_number_of_the_results(measure):
    if not measure.path.startswith("run."):
        for row in ("encoder", *BASELINES) if measure.of_baselines else ("encoder",):
            energy = "energy.trained" if row == "encoder" else f"rows.{row}.energy"
            kind = described(measure.path.replace("{row}", row).replace("{energy}", energy))
            assert kind is str if measure.is_text else {float, int} & {kind, *get_args(kind)}, measure.path
    assert set(measure.tables) <= {"results", "study", "findings", *TABLES} and measure.tables
    assert measure.trials in ("", *TRIALS)
    assert measure.head or "results" not in measure.tables


def test_measures_are_told_apart_by_their_keys():
    assert len({measure.key for measure in MEASURES}) == len(MEASURES)
    assert measure_of("knn").head == "kNN %" and measure_of("later_one").title == "later one"


def test_a_new_number_is_one_entry(tmp_path, monkeypatch):
    """Here the ridge probe's accuracy, as a column of the results and of a further table."""
    new = Measure("new", "rows.{row}.ridge.test.top1", "News", percent, ("results", "cost"), "", "news", "high", "test")
    monkeypatch.setattr(measures, "MEASURES", (*MEASURES, new))
    comparison = compare([extend(write_run(tmp_path / name), accuracy=0.5) for name in ("a", "b")])
    lines = comparison.table().splitlines()
    assert lines[0].endswith("  news") and lines[2].endswith("  49.0") and lines[5].endswith("  69.0")
    comparison.write(tmp_path / "report.html")
    content = json.loads((tmp_path / "comparison.json").read_text())
    row, (first, *_, baseline) = content["rows"][0], content["tables"]["cost"]
    assert row["new"] == 0.49 and row["half_width"]["new"] == pytest.approx(0.0098, abs=1e-4)
    assert first["rows.ridge.test.top1"] == 0.49 and first["cost.parameters"] == 690_000
    assert baseline["name"] == "raw pixels" and baseline["cost.parameters"] is None
    assert baseline["rows.ridge.test.top1"] == pytest.approx(0.69)
    assert "| News |" in (tmp_path / "report.md").read_text() and ">News</th>" in (tmp_path / "report.html").read_text()


def test_a_name_in_braces_is_a_column_for_each_key(tmp_path):
    runs = [extend(write_run(tmp_path / name)) for name in ("a", "b")]
    path = runs[1] / "evaluation.json"
    results = json.loads(path.read_text())
    results["ood"] = {"digits": {"other": results["ood"]["digits"]["knn"]}, "photos": results["ood"]["noise"]}
    path.write_text(json.dumps(results))
    sheet = sheets(group(compare(runs).runs))["ood_auroc"]
    own = ("free_energy", "knn", "mahalanobis")
    assert [head.key for head in sheet.heads] == [
        *(f"ood.digits.{score}.auroc" for score in (*own, "other")),
        *(f"ood.{data}.{score}.auroc" for data in ("noise", "uniform", "textures", "photos") for score in own),
    ]
    assert [(head.group, head.title) for head in sheet.heads[:2]] == [("digits", "Free energy"), ("digits", "kNN")]
    assert [entry.cells[0].text for entry in sheet.entries[:2]] == ["90.0", "–"]


def test_the_least_of_an_error_leads():
    error = dataclasses.replace(KNN, better="low")
    rows = [make_row("worst", 0.900), make_row("tied", 0.106), make_row("best", 0.100)]
    assert leaders(rows, error) == {"best", "tied"} and leaders(rows, KNN) == {"worst"}


def test_text_is_set_in_columns_with_rules_between_blocks():
    blocks = [[["name", "kind", "n"]], [["a", "bb", "1"], ["long name", "b", "10"]], []]
    rule = "─" * 19
    assert text_table(blocks, ["word " * 25], words=(0, 1)).splitlines() == [
        "name       kind   n",
        rule,
        "a          bb     1",
        "long name  b     10",
        rule,
        " ".join(["word"] * 24),
        "  word",
    ]
    assert text_table(blocks[:1]) == "name  kind  n"

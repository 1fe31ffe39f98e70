import json
import os
from pathlib import Path

import pytest
from example_runs import metrics, write_run

import ssl_ebm.report.compare as module
from ssl_ebm.report.compare import compare


def cells(comparison, name):
    return next(row for row in comparison.rows if row.name == name).values


def stored(run, change):
    """Change a run's evaluation.json."""
    path = Path(run) / "evaluation.json"
    results = json.loads(path.read_text())
    change(results)
    path.write_text(json.dumps(results))


@pytest.fixture
def runs(tmp_path):
    return [
        write_run(tmp_path / "runs" / "simclr", accuracy=0.88, auroc=0.94),
        write_run(tmp_path / "runs" / "barlow_twins", "objective.name=barlow_twins", accuracy=0.89, auroc=0.91),
        write_run(tmp_path / "runs" / "byol", "objective.name=byol", accuracy=0.86, finished=False, steps=55),
        write_run(tmp_path / "runs" / "supcon", "objective.name=supcon", accuracy=0.91),
    ]


def test_rows_are_runs_in_the_given_order_then_baselines(runs):
    comparison = compare(runs)
    names = ["simclr", "barlow_twins", "byol", "supcon", "random encoder", "raw pixels"]
    assert [row.name for row in comparison.rows] == names
    assert [row.baseline for row in comparison.rows] == [False] * 4 + [True] * 2
    assert [row.name for row in compare(runs[::-1]).rows][:4] == names[3::-1]


def test_values_are_those_of_evaluation_and_training(runs):
    values = cells(compare(runs), "simclr")
    assert (values["objective"], values["family"]) == ("simclr", "contrastive")
    assert (values["knn"], values["linear"], values["auroc"], values["rankme"]) == (0.88, 0.9, 0.94, 40.0)
    assert values["auroc_global"] == pytest.approx(0.93)
    assert (values["epochs"], values["speed"]) == (10.0, 1055.0)
    baseline = cells(compare(runs), "raw pixels")
    assert (baseline["knn"], baseline["auroc"]) == (0.75, 0.6)
    assert "epochs" not in baseline


def test_table_shows_every_row_within_120_columns(runs):
    comparison = compare(runs)
    lines = comparison.table().splitlines()
    assert max(map(len, lines)) <= 120
    assert "88.0" in lines[2] and ".940" in lines[2] and "90.0" in lines[2]
    assert comparison.table() == compare(runs).table()


def test_marks_have_footnotes(runs):
    comparison = compare(runs)
    marks = {row.name: row.marks for row in comparison.rows}
    assert marks["simclr"] == ()
    assert marks["byol"] == ("*", "†") and marks["barlow_twins"] == ("‡",) and marks["supcon"] == ("§",)
    assert marks["random encoder"] == marks["raw pixels"] == ("¶",)
    notes = "\n".join(comparison.notes)
    for text in ("* unfinished", "† its update is not the gradient", "‡ its energy is a surrogate", "§ reads labels"):
        assert text in notes
    assert [note[0] for note in compare(runs[:1]).notes if note[1] == " "] == ["*"], "only marks that occur"


def test_raw_energies_are_not_compared_but_intervals_are_said(runs):
    comparison = compare(runs)
    text = comparison.table()
    assert "differ in zero and scale" in text
    assert "10,000 test images" in text and "linear probe ±0.5 to 0.9 points" in text
    assert "2,000 test images" in text
    assert not {"mean", "energy_positive", "loss"} & set(comparison.rows[0].values)


def test_epochs_of_an_unfinished_run_are_those_it_was_evaluated_at(runs):
    comparison = compare(runs)
    assert cells(comparison, "byol")["epochs"] == pytest.approx(5.5)
    assert "byol is unfinished: 5.5 of 10 epochs." in comparison.warnings
    (runs[0] / "metrics.jsonl").unlink()
    (runs[2] / "metrics.jsonl").unlink()
    comparison = compare(runs)
    assert cells(comparison, "simclr")["epochs"] == 10.0
    assert cells(comparison, "simclr")["speed"] is None
    assert cells(comparison, "byol")["epochs"] is None


def test_a_run_that_went_on_after_its_evaluation_shows_the_evaluated_epoch(tmp_path):
    run = write_run(tmp_path / "simclr", steps=50, finished=False, lines=metrics(steps=100))
    assert cells(compare([run]), "simclr")["epochs"] == 5.0


def test_stale_results_are_evaluated_again(runs, monkeypatch):
    asked = []
    evaluate = module.evaluate
    monkeypatch.setattr(module, "evaluate", lambda path, **parts: asked.append(path) or evaluate(path, **parts))
    compare(runs)
    assert asked == runs
    (runs[1] / "encoder.safetensors").write_bytes(b"other weights")
    with pytest.raises(ValueError, match="barlow_twins.*cannot be read"):  # made-up weights: it tried to
        compare(runs)


def test_baselines_are_listed_once_an_encoder(tmp_path):
    runs = [
        write_run(tmp_path / "a", "seed=0"),
        write_run(tmp_path / "b", "seed=1", "objective.name=vicreg"),
        write_run(tmp_path / "c", "seed=1", "objective.name=byol"),
    ]
    assert [row.name for row in compare(runs).rows][3:] == [
        "random encoder (seed 0)",
        "random encoder (seed 1)",
        "raw pixels",
    ]


def test_baselines_name_what_differs(tmp_path):
    runs = [
        write_run(tmp_path / "a"),
        write_run(tmp_path / "b", "encoder.name=resnet34"),
        write_run(tmp_path / "c", "encoder.output_stride=8"),
    ]
    names = [row.name for row in compare(runs).rows][3:]
    assert names == [
        "random encoder (encoder resnet18, output_stride None)",
        "random encoder (encoder resnet34, output_stride None)",
        "random encoder (encoder resnet18, output_stride 8)",
        "raw pixels",
    ]
    assert max(map(len, compare(runs).table().splitlines())) <= 120


def test_differing_views_are_allowed_and_said(tmp_path):
    runs = [write_run(tmp_path / "a"), write_run(tmp_path / "b", "views.views=4")]
    comparison = compare(runs)
    assert [row.name for row in comparison.rows if row.baseline] == [
        "random encoder (views default)",
        "random encoder (views 4)",
        "raw pixels (views default)",
        "raw pixels (views 4)",
    ]
    assert any("energy columns are on different pairs" in note for note in comparison.notes)
    assert "The runs differ in views.views (default: a; 4: b)." in comparison.warnings
    assert not any("different pairs" in note for note in compare(runs[:1]).notes)


def test_unequal_budgets_are_warned_of(tmp_path):
    runs = [
        write_run(tmp_path / "a"),
        write_run(tmp_path / "b", "training.epochs=20", "optimizer.name=sgd"),
        write_run(tmp_path / "c", "objective.name=vicreg", "seed=3"),
    ]
    assert compare(runs).warnings == [
        "The runs differ in optimizer.name (adamw: a, c; sgd: b).",
        "The runs differ in training.epochs (10: a, c; 20: b).",
    ]


def test_signs_of_trouble_are_warned_of(tmp_path):
    lines = metrics()
    lines[4]["collapse"] = "all embeddings point the same way"
    bad = write_run(tmp_path / "bad", accuracy=0.72, lines=lines)
    stored(bad, lambda results: results["rows"]["encoder"]["linear"].update(at_edge=True, refit_converged=False))
    warnings = compare(
        [bad, write_run(tmp_path / "worse", accuracy=0.6), write_run(tmp_path / "equal", accuracy=0.75)]
    ).warnings
    assert warnings == [
        "bad: collapse alarm at epoch 5: all embeddings point the same way.",
        "bad, worse, equal: linear accuracy is not above that of raw pixels.",
        "bad: the linear probe's best strength is at the edge of its grid.",
        "bad: the linear probe did not converge.",
        "worse: linear accuracy is not above that of random encoder.",
    ]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ("data.split_seed=1", "data.split_seed is 0 in a and 1 in b"),
        ("data.limit=1000", "data.limit is None in a and 1000 in b"),
        ("data.name=mnist", "data.name is fashion_mnist in a and mnist in b"),
        ("data.validation_fraction=0.2", "data.validation_fraction is 0.1 in a and 0.2 in b"),
    ],
)
def test_runs_on_other_data_are_refused_before_any_work(tmp_path, monkeypatch, change, reason):
    monkeypatch.setattr(module, "evaluate", lambda path: pytest.fail("evaluated"))
    runs = [write_run(tmp_path / "a"), write_run(tmp_path / "b", change)]
    with pytest.raises(ValueError, match=f"^runs on different data cannot be compared: {reason}$"):
        compare(runs)


def test_where_the_data_lie_does_not_matter_except_for_a_folder(tmp_path):
    same = [write_run(tmp_path / "a", "data.root=here"), write_run(tmp_path / "b", "data.root=there")]
    assert len(compare(same).rows) == 4
    folder = ["data.name=folder", "data.image_size=32"]
    runs = [write_run(tmp_path / "c", *folder, "data.root=here"), write_run(tmp_path / "d", *folder, "data.root=there")]
    with pytest.raises(ValueError, match="data.root is .*here in c and .*there in d"):
        compare(runs)


def test_runs_on_splits_of_other_sizes_are_refused(tmp_path):
    runs = [write_run(tmp_path / "a"), write_run(tmp_path / "b", test=500)]
    with pytest.raises(ValueError, match="sizes.test is 10000 in a and 500 in b"):
        compare(runs)


def test_no_runs_and_wrong_runs_are_refused_in_one_sentence(tmp_path, runs, monkeypatch):
    with pytest.raises(ValueError, match="no runs to compare"):
        compare([])
    with pytest.raises(FileNotFoundError, match="is not a run directory"):
        compare([*runs, tmp_path])
    with pytest.raises(FileNotFoundError, match="typo is not a run directory"):
        compare([tmp_path / "typo"])
    with pytest.raises(TypeError, match="list of run directories, got one string"):
        compare(str(runs[0]))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="runs/simclr is given twice"):
        compare([runs[0], "runs/simclr"])


def test_damaged_metrics_are_named(runs):
    path = runs[1] / "metrics.jsonl"
    path.write_text('{"step": 1\n' + path.read_text())
    with pytest.raises(ValueError, match="barlow_twins.metrics.jsonl is damaged"):
        compare(runs)


def test_names_are_the_shortest_ends_of_paths_that_differ(tmp_path):
    runs = [write_run(tmp_path / "warm" / "simclr"), write_run(tmp_path / "cold" / "simclr")]
    assert [run.name for run in compare(runs).runs] == ["warm/simclr", "cold/simclr"]


def test_report_and_rows_are_written_beside_the_runs(runs, tmp_path, monkeypatch):
    comparison = compare(runs)
    assert not (tmp_path / "runs" / "report.html").exists()
    assert comparison.write() == tmp_path / "runs" / "report.html"
    content = json.loads((tmp_path / "runs" / "comparison.json").read_text())
    assert [row["name"] for row in content["rows"]] == [row.name for row in comparison.rows]
    assert content["rows"][0]["knn"] == 0.88 and content["rows"][0]["half_width"]["knn"] == pytest.approx(
        0.0064, abs=1e-4
    )
    assert content["warnings"] == comparison.warnings and content["notes"] == comparison.notes
    assert content["tables"]["health"][0]["rows.health.rankme"] == 40.0
    monkeypatch.chdir(tmp_path)
    assert comparison.write() == Path("runs/report.html")
    compare([*sorted((tmp_path / "runs").iterdir())])  # runs/* again, with the report among them
    assert sorted(os.listdir("runs")) == sorted(
        [*(run.name for run in runs), "report.html", "report.md", "comparison.json"]
    )


def test_report_goes_where_it_is_told(runs, tmp_path):
    compare(runs, report=tmp_path / "new" / "page.html")
    assert sorted(os.listdir(tmp_path / "new")) == ["comparison.json", "page.html", "page.md"]
    assert "| simclr | contrastive | 10 | 88.0 ±0.6 |" in (tmp_path / "new" / "page.md").read_text().replace("*", "")
    apart = [runs[0], write_run(tmp_path / "other" / "vicreg", "objective.name=vicreg")]
    assert compare(apart).write() == tmp_path / "report.html"


def test_a_report_that_cannot_be_written_leaves_nothing_behind(runs, tmp_path):
    comparison = compare(runs[:1])
    (tmp_path / "file").write_text("kept")
    with pytest.raises(OSError, match="cannot write the report to .*file/report.html .*--report"):
        comparison.write(tmp_path / "file" / "report.html")
    assert (tmp_path / "file").read_text() == "kept"
    folder = tmp_path / "folder"
    (folder / "comparison.json").mkdir(parents=True)
    for path in (folder, folder / "report.html"):
        with pytest.raises(OSError, match="is a directory"):
            comparison.write(path)
    assert os.listdir(folder) == ["comparison.json"]

"""A study is planned whole, its runs go side by side, what is stopped goes on, and what fails is named."""

import hashlib
import json
import os
import signal
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from example_runs import write_run

from ssl_ebm.cli import main
from ssl_ebm.config import load_config
from ssl_ebm.run_directory import RunDirectory, save_tensors
from ssl_ebm.study import run as study_module
from ssl_ebm.study.plan import load_study, plan, trials
from ssl_ebm.study.processes import Job, Slot, run_jobs, slots
from ssl_ebm.study.results import study_results
from ssl_ebm.study.run import study
from ssl_ebm.study.state import locked, state_of, write_configs

ROOT = Path(__file__).parents[2]
BASE = {"views": {"name": "grey"}, "encoder": {"name": "resnet18"}, "training": {"epochs": 1, "device": "cpu"}}


def given(folder, **changes):
    """A study of two objectives and three seeds."""
    return {
        "name": "small",
        "directory": str(folder / "study"),
        "base": BASE,
        "objectives": ["simclr", "byol"],
    } | changes


# planning


def test_runs_are_objectives_times_seeds_seed_by_seed(tmp_path):
    runs = plan(load_study(given(tmp_path, budget={"epochs": 3, "batch_size": 64})))
    assert [run.name for run in runs] == [f"{name}-s{seed}" for seed in (0, 1, 2) for name in ("simclr", "byol")]
    for run in runs:
        assert run.path == tmp_path / "study" / run.name and run.config.seed == run.seed
        assert (run.config.training.epochs, run.config.training.batch_size) == (3, 64)
        assert run.config.encoder.name == "resnet18" and run.config.objective == {"name": run.label}


def test_presets_give_arguments_and_optimiser_and_entries_change_them(tmp_path):
    presets = tmp_path / "presets"
    presets.mkdir()
    for name, rate in (("simclr", 0.5), ("byol", 0.25)):
        head = "{hidden: [7], out: 5}"
        text = f"objective: {{name: {name}, projector: {head}}}\noptimizer: {{lr: {rate}}}\nviews: {{name: simclr}}\n"
        (presets / f"{name}.yaml").write_text(text)
    warm = {"name": "simclr", "label": "warm", "objective": {"temperature": 0.9}, "optimizer": {"lr": 0.125}}
    study_of = load_study(given(tmp_path, presets=str(presets), objectives=["simclr", warm, "byol"], seeds=[0]))
    (presets / "byol.yaml").unlink()  # a loaded study does not read its files again
    cold, hot, byol = (run.config for run in plan(study_of))
    head = {"hidden": [7], "out": 5}
    assert cold.objective == {"name": "simclr", "projector": head}
    assert hot.objective == {"name": "simclr", "projector": head, "temperature": 0.9}
    assert [config.optimizer.lr for config in (cold, hot, byol)] == [0.5, 0.125, 0.25]
    assert {config.views["name"] for config in (cold, hot, byol)} == {"grey"}, "views are shared"


def test_base_and_presets_may_name_bases_of_their_own(tmp_path):
    shared = "run_dir: runs/${objective.name}\nviews: {name: grey, size: 9}\noptimizer: {lr: 0.5, warmup_epochs: 2}\n"
    files = {
        "base": shared + "objective: {projector: {hidden: [7], out: 5}}\n",
        "run": "base: base.yaml\nencoder: {name: resnet34}\n",
        "simclr": "base: base.yaml\nobjective: {name: simclr, temperature: 0.9}\noptimizer: {lr: 0.25}\n",
    }
    for name, text in files.items():
        (tmp_path / f"{name}.yaml").write_text(text)
    changes = {"base": str(tmp_path / "run.yaml"), "presets": str(tmp_path), "objectives": ["simclr"], "seeds": [3]}
    study_of = load_study(given(tmp_path, **changes))
    (config,) = (run.config for run in plan(study_of))
    assert config.objective == {"name": "simclr", "temperature": 0.9, "projector": {"hidden": [7], "out": 5}}
    assert (config.optimizer.lr, config.optimizer.warmup_epochs) == (0.25, 2) and config.views["size"] == 9
    assert config.encoder.name == "resnet34" and config.run_dir == str(tmp_path / "study" / "simclr-s3")
    write_configs(study_of, plan(study_of))
    assert plan(load_study(tmp_path / "study" / "study.yaml")) == plan(study_of)


def test_changes_of_an_entry_replace_a_part_that_they_rename(tmp_path):
    base = BASE | {"encoder": {"name": "resnet18", "kwargs": {"layers": [1, 1, 1, 1]}}}
    entry = {"name": "simclr", "encoder": {"name": "resnet34"}, "optimizer": {"lr": 0.5}}
    (config,) = (run.config for run in plan(load_study(given(tmp_path, base=base, objectives=[entry], seeds=[0]))))
    assert config.encoder.name == "resnet34" and config.encoder.kwargs == {}


def test_the_bases_own_objective_keeps_its_arguments(tmp_path):
    base = BASE | {"objective": {"name": "simclr", "temperature": 0.9}}
    simclr, byol = (run.config.objective for run in plan(load_study(given(tmp_path, base=base, seeds=[0]))))
    assert simclr == {"name": "simclr", "temperature": 0.9} and byol == {"name": "byol"}


def test_encoders_and_data_make_studies_of_their_own(tmp_path):
    grid = {"encoders": {"r18": {"name": "resnet18"}, "r34": {"name": "resnet34"}}, "data": {"few": {"limit": 500}}}
    runs = plan(load_study(given(tmp_path, **grid, seeds=[4])))
    assert [(run.cell, run.config.encoder.name) for run in runs[::2]] == [
        ("r18-few", "resnet18"),
        ("r34-few", "resnet34"),
    ]
    assert {run.config.data.limit for run in runs} == {500}
    assert runs[-1].path == tmp_path / "study" / "r34-few" / "byol-s4" and runs[-1].key == "r34-few/byol"


def test_every_objective_has_as_many_trials(tmp_path):
    grid = {"optimizer.lr": [0.1, 0.2], "optimizer.weight_decay": [0.0, 0.5, 1.0]}
    study_of = load_study(given(tmp_path, tuning={"grid": grid, "seed": 77}))
    tried = trials(study_of)
    assert [run.name for run in tried[:2]] == ["simclr-t0", "simclr-t1"] and len(tried) == 12
    assert (
        tried[4].trial == {"optimizer.lr": 0.2, "optimizer.weight_decay": 0.5} and tried[4].config.optimizer.lr == 0.2
    )
    assert {run.config.seed for run in tried} == {77} and tried[0].path.parent == tmp_path / "study" / "tuning"
    chosen = plan(study_of, {"byol": {"optimizer.lr": 0.2}})
    assert {run.config.optimizer.lr for run in chosen if run.label == "byol"} == {0.2}
    assert trials(load_study(given(tmp_path))) == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"objectives": ["simcrl"]}, "unknown objective 'simcrl': did you mean 'simclr'"),
        ({"objectives": []}, "at least one objective"),
        ({"objectives": ["byol", "byol"]}, "byol is there twice: .* label: byol-2"),
        ({"objectives": [{"label": "x"}]}, "a mapping with a name"),
        ({"objectives": [{"name": "byol", "view": {}}]}, "unknown key of objective byol: 'view': did you mean 'views'"),
        ({"objectives": [{"name": "byol", "objective": {"momentum": 1}}]}, "unknown argument of objective 'byol'"),
        ({"objectives": [{"name": "byol", "objective": {"name": "simclr"}}]}, "two names, byol and simclr"),
        ({"objectives": [{"name": "byol", "label": "a/b"}]}, "label of objective byol must be a folder's name"),
        ({"objectives": [{"name": "byol", "views": 3}]}, "views of objective byol must be a mapping, got 3"),
        ({"objectivs": ["byol"]}, "unknown config key 'objectivs': did you mean 'objectives'"),
        ({"budget": {"epoch": 1}}, "unknown config key 'training.epoch': did you mean 'training.epochs'"),
        ({"tuning": {"grids": {}}}, "unknown config key 'tuning.grids'"),
        ({"tuning": {"grid": {"optimizer.rate": [1]}}}, "unknown config key 'optimizer.rate'"),
        ({"tuning": {"grid": {"optimizer.lr": []}}}, "must list at least one value"),
        ({"seeds": [1, 1]}, "seeds must be different"),
        ({"jobs": 0}, "jobs must be auto or a number"),
        ({"base": "configs/nothing.yaml"}, "unknown config file"),
        ({"base": {"base": "configs/quickstart/base.yaml"}}, "only a file may name a base"),
        ({"name": "a/b"}, "name must be a folder's name"),
    ],
)
def test_mistakes_are_named_before_anything_runs(changes, message, tmp_path):
    with pytest.raises((ValueError, TypeError, FileNotFoundError), match=message):
        load_study(given(tmp_path, **changes))


@pytest.mark.parametrize("path", sorted((ROOT / "configs" / "studies").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_study_config_is_valid(path, monkeypatch):
    monkeypatch.chdir(ROOT)
    study_of = load_study(path)
    assert study_of.name == path.stem and study_of.path == Path("runs/studies") / path.stem
    budgets = {(r.config.training.epochs, r.config.training.batch_size, r.config.encoder.name) for r in plan(study_of)}
    each_its_own = all("training" in entry.changes for entry in study_of.entries)  # at matched compute
    assert len(budgets) == 1 or each_its_own


# processes


def python(name, folder, code):
    return Job(name, ["-c", code], folder / f"{name}.log")


def test_jobs_go_side_by_side_on_their_cores(tmp_path):
    """Each of two waits for the other's file; each has one thread and its slot's core."""
    core = min(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 0
    code = (
        "import os, pathlib, time\n"
        "here = pathlib.Path({folder!r}); (here / {own!r}).write_text(os.environ['OMP_NUM_THREADS'])\n"
        "end = time.time() + 60\n"
        "while not (here / {other!r}).exists() and time.time() < end: time.sleep(.01)\n"
        "assert (here / {other!r}).exists()\n"
        "print(sorted(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else [{core}])\n"
    )
    pairs = (("a", "b"), ("b", "a"))
    jobs = [
        python(own, tmp_path, code.format(folder=str(tmp_path), own=own, other=other, core=core))
        for own, other in pairs
    ]
    told = []
    assert run_jobs(jobs, [Slot(frozenset({core}))] * 2, lambda names, done: told.append((list(names), done))) == {}
    assert (["a", "b"], 0) in told and told[-1] == ([], 2)
    for name in "ab":
        assert (tmp_path / name).read_text() == "1" and (tmp_path / f"{name}.log").read_text() == f"[{core}]\n"


def test_a_failed_job_is_named_with_its_reason_and_the_rest_goes_on(tmp_path, caplog):
    jobs = [python("bad", tmp_path, "raise ValueError('no such thing')"), python("good", tmp_path, "print(1)")]
    failed = run_jobs(jobs, [Slot(frozenset({min(_cores())}))])
    assert set(failed) == {"bad"} and failed["bad"].startswith("ValueError: no such thing (exit code 1, see ")
    assert "bad failed: ValueError: no such thing" in caplog.text  # when it happens, not at the end
    assert (tmp_path / "good.log").read_text() == "1\n"


def test_an_interrupt_lets_each_job_save_once_and_starts_no_more(tmp_path):
    code = (
        "import pathlib, signal, sys, time\n"
        f"ready, saved = (pathlib.Path({str(tmp_path)!r}) / n for n in ('ready', 'saved'))\n"
        "signal.signal(signal.SIGINT, lambda *_: (saved.open('a').write('x'), sys.exit(130)))\n"
        "ready.write_text('')\n"
        "time.sleep(60)\n"
    )
    stopped = threading.Thread(target=_interrupt_once, args=(tmp_path / "ready",))
    stopped.start()
    with pytest.raises(KeyboardInterrupt, match="0 of 2 runs done"):
        run_jobs([python("a", tmp_path, code), python("b", tmp_path, code)], [Slot(frozenset({min(_cores())}))])
    stopped.join()
    assert (tmp_path / "saved").read_text() == "x" and not (tmp_path / "b.log").exists()


def _cores():
    return os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else {0}


def _interrupt_once(file):
    """SIGINT to this process when the file is there."""
    deadline = time.monotonic() + 120
    while not file.exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    os.kill(os.getpid(), signal.SIGINT)


def test_slots(monkeypatch):
    monkeypatch.setattr("ssl_ebm.study.processes._cores", lambda: {0, 1, 2, 3, 4, 5})
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    assert slots("auto", "cpu") == [Slot(frozenset({core})) for core in range(6)]
    assert slots("auto", "auto") == [Slot(frozenset({0, 1, 2}), "3"), Slot(frozenset({3, 4, 5}), "5")]
    assert slots(3, "cpu") == [Slot(frozenset({0, 1})), Slot(frozenset({2, 3})), Slot(frozenset({4, 5}))]
    assert len(slots(9, "cpu")) == 9 and len(slots("auto", "cuda:1")) == 1
    environment = slots("auto", "cuda")[1].environment()
    assert environment["CUDA_VISIBLE_DEVICES"] == "5" and environment["OMP_NUM_THREADS"] == "3"


@pytest.mark.skipif(sys.platform == "win32", reason="no file locks")
def test_one_study_at_a_time_also_while_its_processes_live(tmp_path):
    with locked(tmp_path) as kept, pytest.raises(RuntimeError, match="by another study"), locked(tmp_path):
        pass
    assert kept
    with locked(tmp_path):
        pass


# results


def finish(config, correct, images=200):
    """A run directory as a finished and evaluated run leaves it; `correct` images are classified correctly."""
    name, run = config.objective["name"], Path(config.run_dir)
    write_run(run, f"objective.name={name}", f"seed={config.seed}", accuracy=np.mean(correct), test=images)
    save_tensors(run / "encoder.safetensors", {"w": torch.full((1,), config.seed)}, {"finished": "True", "step": "1"})
    (run / "checkpoints").mkdir()
    (run / "checkpoints" / "last.pt").touch()
    results = json.loads((run / "evaluation.json").read_text())
    results["protocol"]["weights"] = hashlib.sha256((run / "encoder.safetensors").read_bytes()).hexdigest()
    results["config"]["training"]["device"] = config.training.device
    (run / "evaluation.json").write_text(json.dumps(results))
    (run / "features").mkdir()
    labels = np.arange(images) % 10
    np.save(run / "features" / "test_labels.npy", labels)
    predicted = np.where(correct, labels, (labels + 1) % 10)
    np.savez(run / "predictions.npz", knn=predicted, linear=predicted)


@pytest.fixture
def finished(tmp_path):
    """Three objectives of which two are alike; three seeds."""
    names = ["simclr", "byol", "vicreg"]
    study_of = load_study(given(tmp_path, objectives=names))
    runs = plan(study_of)
    write_configs(study_of, runs)
    random = np.random.default_rng(0)
    hard = random.random(200)
    for run in runs:
        level = {"simclr": 0.9, "byol": 0.9, "vicreg": 0.4}[run.label] + 0.01 * random.normal()
        finish(run.config, hard < level)
    return study_of


def test_results_tell_objectives_apart(finished):
    results = study_results(finished.path)
    assert set(results.analyses["knn"].tied) == {"simclr", "byol"}
    assert [set(group) for group in results.analyses["linear"].groups] == [{"simclr", "byol"}]
    assert results.ranks["knn"]["vicreg"] == 3
    row = results.table["vicreg"]["knn"]
    assert row["low"] < row["mean"] < row["high"] and len(row["seeds"]) == 3 and row["mean"] == np.mean(row["seeds"])
    assert list(results.table)[-3:] == ["vicreg", "random encoder", "raw pixels"]
    assert len(results.table["random encoder"]["knn"]["seeds"]) == 3
    assert len(results.table["raw pixels"]["knn"]["seeds"]) == 1 and results.table["raw pixels"]["knn"]["low"] is None
    results.write()
    stored = json.loads((finished.path / "study.json").read_text())
    assert stored["ties"]["knn"] == {
        "best": results.analyses["knn"].names[0],
        "tied": list(results.analyses["knn"].tied),
    }
    assert set(stored["runs"]["byol"]) == {"0", "1", "2"} and stored["power"]["knn"] > 0
    text = results.text()
    assert max(map(len, text.splitlines())) <= 120 and "tied with" in text and "raw pixels" in text
    assert "vicreg" in (finished.path / "report.md").read_text() and (finished.path / "report.html").is_file()


def test_results_of_a_study_in_parts(finished):
    """An objective with one seed is shown without an interval; what fails and what is missing is said."""
    for seed in (1, 2):
        (finished.path / f"byol-s{seed}" / "evaluation.json").unlink()
    results = study_results(finished.path, {"byol-s1": "it burnt"})
    assert results.table["byol"]["knn"]["low"] is None and "byol" not in results.analyses["knn"].names
    said = "\n".join(results.warnings)
    for part in ("byol-s1 failed: it burnt", "Not finished: byol-s1, byol-s2", "byol has one seed"):
        assert part in said


def test_a_moved_study_is_read_where_it_is(finished, tmp_path):
    moved = finished.path.rename(tmp_path / "moved")
    assert set(study_results(moved).runs) == {"simclr", "byol", "vicreg"}
    with pytest.raises(FileNotFoundError, match="has no study.yaml"):
        study_results(tmp_path / "elsewhere" / "study")


def test_runs_on_other_images_are_refused(finished):
    np.save(finished.path / "byol-s0" / "features" / "test_labels.npy", np.zeros(200, dtype=int))
    with pytest.raises(ValueError, match="simclr-s0 and byol-s0 were tested on different images"):
        study_results(finished.path)


def test_one_seed_is_tested_over_images_only(finished):
    one = load_study(given(finished.path.parent, objectives=["simclr", "vicreg"], seeds=[0]))
    write_configs(one, plan(one))
    results = study_results(one.path)
    assert results.analyses["knn"].tied == ("simclr",) and set(results.analyses) == {"knn", "linear"}
    assert any(warning.startswith("One seed: intervals") for warning in results.warnings)


# the whole


def test_another_studys_directory_is_refused_and_a_longer_one_is_not(finished, capsys):
    folder = finished.path.parent
    with pytest.raises(ValueError, match=r"holds simclr-s0 of another config: training.epochs: 1.0 → 2.0; choose"):
        study(given(folder, objectives=["simclr"], budget={"epochs": 2}))
    assert len(study(given(folder, objectives=["simclr", "byol"], seeds=[0, 1]))[0].runs) == 2


def test_the_search_chooses_by_validation_and_its_choice_is_trained(tmp_path, monkeypatch, capsys):
    def pretend(jobs, places, progress, kept):
        for job in jobs:
            config = load_config(job.arguments[2])
            finish(config, np.arange(200) < 150)
            rate = config.optimizer.lr
            best = 0.2 if config.objective["name"] == "byol" else 0.1
            line = {"step": 1, "epoch": 1.0, "knn_validation": 0.9 - abs(rate - best)}
            (RunDirectory(Path(config.run_dir)).metrics).write_text(json.dumps(line) + "\n")
        trained.append([job.name for job in jobs])
        return {}

    trained = []
    monkeypatch.setattr(study_module, "run_jobs", pretend)
    settings = given(tmp_path, tuning={"grid": {"optimizer.lr": [0.1, 0.2]}}, seeds=[0, 1])
    (results,) = study(settings)
    assert trained[0] == ["tuning/simclr-t0", "tuning/simclr-t1", "tuning/byol-t0", "tuning/byol-t1"]
    assert results.tuning["chosen"] == {"simclr": {"optimizer.lr": 0.1}, "byol": {"optimizer.lr": 0.2}}
    said = (
        "Chosen by kNN on validation, 2 trials an objective with seed 1000: simclr optimizer.lr=0.1; byol optimizer.lr="
    )
    assert results.findings[0].startswith(said) and said[:40] in results.text()
    assert load_config(tmp_path / "study" / "jobs" / "byol-s1.yaml").optimizer.lr == 0.2
    study(settings)
    assert len(trained) == 2, "what is done is not done again"


@pytest.mark.slow
def test_a_study_that_is_stopped_goes_on_to_its_report(tmp_path, monkeypatch, capsys):
    """Real processes: the first is stopped after its first checkpoint; a run that cannot be trained is named."""
    monkeypatch.chdir(ROOT)
    small = {"name": "test_resnet", "kwargs": {"channels": [8, 8, 16, 16]}}
    base = {"data": {"limit": 400}, "views": {"name": "grey", "size": 20}, "encoder": small, "optimizer": {"lr": 0.01}}
    budget = {"epochs": 2, "batch_size": 64, "log_every_steps": 1, "checkpoint_every_steps": 1, "device": "cpu"}
    budget |= {"knn_every_epochs": 0, "precision": "float32"}
    head = {"projector": {"hidden": [16], "out": 8}}
    broken = {"name": "wmse", "objective": {"projector": {"hidden": [16], "out": 512}}}
    objectives = [{"name": "simclr", "objective": head}, broken]
    file = tmp_path / "study.yaml"
    settings = given(tmp_path, base=base, budget=budget, objectives=objectives, seeds=[0], jobs=1)
    file.write_text(json.dumps(settings))
    run = plan(load_study(file))[0]

    stopper = threading.Thread(target=_interrupt_once, args=(RunDirectory(run.path).checkpoint,))
    stopper.start()
    assert main(["study", str(file)]) == 130
    stopper.join()
    assert "the same command goes on" in capsys.readouterr().err
    assert state_of(run) in ("stopped", "trained") and not RunDirectory(run.path).evaluation.is_file()

    assert main(["study", str(file)]) == 1
    shown = capsys.readouterr()
    assert "simclr" in shown.out and "wmse-s0 failed: " in " ".join(shown.out.split())
    steps = [line["step"] for line in RunDirectory(run.path).read_metrics()]
    assert steps == list(range(1, len(steps) + 1)) and state_of(run) == "evaluated"
    assert {"study.json", "report.md", "report.html", "comparison.json"} <= {p.name for p in run.path.parent.iterdir()}

    assert main(["study", str(file), "--dry-run"]) == 0
    shown = capsys.readouterr().out
    assert "1 done, 1 to train and 1 to evaluate" in shown and "images a second and process, as logged so far" in shown

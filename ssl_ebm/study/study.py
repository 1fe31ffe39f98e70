"""A study from its config to its report: what is missing is trained and evaluated, then all is compared."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from ssl_ebm.checkpoint import RunDirectory, write_json
from ssl_ebm.study.jobs import Job, Slot, run_jobs, slots
from ssl_ebm.study.plan import PlannedRun, StudyConfig, load_study, plan, trials
from ssl_ebm.study.results import StudyResults, study_results
from ssl_ebm.study.state import EVALUATED, TRAINED, config_file, locked, log_file, require_same, state_of, write_configs


def study(source: str | Path | Mapping[str, Any] | StudyConfig, overrides: Sequence[str] = ()) -> list[StudyResults]:
    """Do what of a study is not done yet; returns the results of each combination of encoder and data.

    Runs that are finished are kept and stopped ones go on from their last checkpoints. A run that fails is named in the
    results and the others continue; the next call tries it again.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: A config that cannot be had, or a directory that holds runs of another one.
        RuntimeError: Another process works on the study, or no objective has a finished run.
        KeyboardInterrupt: It was stopped; the same call goes on.
    """
    config = source if isinstance(source, StudyConfig) else load_study(source, overrides)
    with locked(config.path) as kept:
        failed, chosen = _search(config, kept)
        runs = plan(config, chosen)
        failed |= _work(config, runs, kept, train_only=False)
        results = [study_results(config.path / cell.label, failed) for cell in config.cells]
        for result in results:
            result.write()
    return results


def _search(config: StudyConfig, kept: Sequence[int]) -> tuple[dict[str, str], dict[str, dict[str, Any]]]:
    """Run the trials; what failed, and the values of each objective's best trial by kNN on the validation split."""
    runs = trials(config)
    failed = _work(config, runs, kept, train_only=True)
    chosen: dict[str, dict[str, Any]] = {}
    table: dict[str, list[dict[str, Any]]] = {}
    for run in runs:
        trial = {"values": run.trial, "knn_validation": validation_accuracy(run)}
        table.setdefault(run.key, []).append(trial)
    for key, tried in table.items():
        known = [trial for trial in tried if trial["knn_validation"] is not None]
        if known:
            chosen[key] = dict(max(known, key=lambda trial: trial["knn_validation"])["values"])
    if runs:
        write_json(config.path / "tuning.json", {"seed": config.tuning.seed, "trials": table, "chosen": chosen})
    return failed, chosen


def validation_accuracy(run: PlannedRun) -> float | None:
    """Accuracy of kNN on the validation split after a finished run's last update; None where there is none."""
    if state_of(run) not in (TRAINED, EVALUATED):
        return None
    lines = RunDirectory(run.path).read_metrics()
    return next((line["knn_validation"] for line in reversed(lines) if "knn_validation" in line), None)


def _work(config: StudyConfig, runs: Sequence[PlannedRun], kept: Sequence[int], *, train_only: bool) -> dict[str, str]:
    """Bring all runs to their ends; why those failed that did."""
    require_same(config, runs)
    write_configs(config, runs)
    enough = (TRAINED, EVALUATED) if train_only else (EVALUATED,)
    todo = [run for run in runs if state_of(run) not in enough]
    if not todo:
        return {}
    flags = ["--train-only"] if train_only else []
    jobs = [
        Job(
            str(run.path.relative_to(config.path)),
            ["-m", "ssl_ebm.study.job", str(config_file(config, run)), *flags],
            log_file(config, run),
        )
        for run in todo
    ]
    places = places_of(config, runs)
    with tqdm(total=len(runs), initial=len(runs) - len(todo), unit="run", dynamic_ncols=True) as bar:

        def progress(running: Sequence[str], done: int) -> None:
            bar.update(len(runs) - len(todo) + done - bar.n)
            bar.set_postfix_str(", ".join(running))

        failed = run_jobs(jobs, places, progress, kept)
    for name, reason in failed.items():
        tqdm.write(f"{name} failed: {reason}")
    return failed


def places_of(config: StudyConfig, runs: Sequence[PlannedRun]) -> list[Slot]:
    """Where the study's processes run."""
    return slots(config.jobs, runs[0].config.training.device)


def describe(config: StudyConfig) -> str:
    """What a study would do: its runs with their states, and how many images are left to train on."""
    runs = [*trials(config), *plan(config)]
    require_same(config, runs)
    states = {run.name: state_of(run) for run in runs}
    lines = [f"study {config.name}: {len(runs)} runs into {config.path}, {len(places_of(config, runs))} at once"]
    for label, own in itertools.groupby(
        sorted(runs, key=lambda run: (run.cell, run.label)), key=lambda r: (r.cell, r.label)
    ):
        members = list(own)
        name = "/".join(filter(None, label))
        lines.append(
            f"  {name:<24} " + ", ".join(f"{run.name.rpartition('-')[2]} {states[run.name]}" for run in members)
        )
    return "\n".join(lines)

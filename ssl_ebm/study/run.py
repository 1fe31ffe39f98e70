"""A study from its config to its report: what is missing is trained and evaluated, then all is compared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from ssl_ebm.run_directory import RunDirectory, write_json
from ssl_ebm.study.plan import PlannedRun, StudyConfig, load_study, plan, trials
from ssl_ebm.study.processes import Job, run_jobs
from ssl_ebm.study.results import StudyResults, study_results
from ssl_ebm.study.state import (
    EVALUATED,
    TRAINED,
    config_file,
    locked,
    log_file,
    places_of,
    require_same,
    state_of,
    write_configs,
)


def study(source: str | Path | Mapping[str, Any] | StudyConfig, overrides: Sequence[str] = ()) -> list[StudyResults]:
    """Do what of a study is not done yet; returns the results of each combination of encoder and data.

    Runs that are finished are kept and stopped ones go on from their last checkpoints. A run that fails is named in the
    results and the others continue; the next call tries it again.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: A config that cannot be had, or a directory that holds runs of another one.
        RuntimeError: Another process works on the study, or no run of it could be finished.
        KeyboardInterrupt: It was stopped; the same call goes on.
    """
    config = source if isinstance(source, StudyConfig) else load_study(source, overrides)
    with locked(config.path) as kept:
        failed, chosen = _search(config, kept)
        runs = plan(config, chosen)
        failed |= _work(config, runs, kept, train_only=False)
        done = {run.cell for run in runs if state_of(run) == EVALUATED}
        if not done:
            raise RuntimeError(
                f"no run of {config.path} could be finished: {'; '.join(map(': '.join, failed.items()))}"
            )
        cells = [cell.label for cell in config.cells if cell.label in done]
        results = [study_results(config.path / label, failed) for label in cells]
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
            ["-m", "ssl_ebm.study.worker", str(config_file(config, run)), *flags],
            log_file(config, run),
        )
        for run in todo
    ]
    places = places_of(config, runs)
    title = "trials" if train_only else config.name
    with tqdm(total=len(runs), initial=len(runs) - len(todo), desc=title, unit="run", dynamic_ncols=True) as bar:

        def progress(running: Sequence[str], done: int) -> None:
            bar.set_postfix_str(", ".join(running), refresh=False)
            bar.n = len(runs) - len(todo) + done
            bar.refresh()

        return run_jobs(jobs, places, progress, kept)

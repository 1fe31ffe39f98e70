"""Runs of a study → every objective's means with intervals, ties, groups and ranks; and the files that say so."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ssl_ebm.evaluation.results import BASELINES
from ssl_ebm.report.compare import RunComparison, compare
from ssl_ebm.report.runs import EvaluatedRun, Study, numbers
from ssl_ebm.report.summary import BUDGET, said_differences, said_signs, summarise
from ssl_ebm.report.tables.measures import Measure, shown_in
from ssl_ebm.run_directory import write_json
from ssl_ebm.study.plan import PlannedRun, StudyConfig, plan, read_study
from ssl_ebm.study.state import EVALUATED, state_of
from ssl_ebm.study.statistics import Analysis, analyse, mean_ranks
from ssl_ebm.study.summary import NOTES, as_text, findings, tuned

# keys that objectives of a study may differ in, which a reader must know
DIFFERENCES = (*BUDGET, "optimizer.", "training.", "objective.projector", "objective.predictor")


@dataclass(frozen=True, eq=False)
class StudyResults:
    """All that is known of a study on one encoder and one data set.

    Attributes:
        name: Of the study, and of the encoder and data where it has several.
        directory: Where the results go.
        runs: Evaluated runs by objective and seed.
        table: By row (objectives, best linear accuracy first, then baselines) and measure: `mean`, `low`, `high` (95%,
            None where unknown), `seeds`.
        analyses: Tests of all pairs, by measure; those that more is better of.
        ranks: Mean rank over seeds, by measure and objective.
        tuning: What the search tried and chose.
        failed: Why runs failed, by name.
        warnings: What makes the comparison less than fair or its numbers less than final.
    """

    name: str
    directory: Path
    runs: Mapping[str, Mapping[int, EvaluatedRun]]
    table: Mapping[str, Mapping[str, Mapping[str, Any]]]
    analyses: Mapping[str, Analysis]
    ranks: Mapping[str, Mapping[str, float]]
    tuning: Mapping[str, Any] | None
    failed: Mapping[str, str]
    warnings: Sequence[str]

    @property
    def findings(self) -> list[str]:
        """What the search chose, and what the tests found, in words."""
        return [*tuned(self.tuning), *findings(self.analyses, self.ranks)]

    def as_dict(self) -> dict[str, Any]:
        """For study.json."""
        return {
            "name": self.name,
            "runs": {label: {str(s): str(run.path) for s, run in own.items()} for label, own in self.runs.items()},
            "table": self.table,
            "ties": {key: {"best": a.names[0], "tied": list(a.tied)} for key, a in self.analyses.items()},
            "groups": {key: [list(group) for group in a.groups] for key, a in self.analyses.items()},
            "ranks": self.ranks,
            "power": {key: a.power for key, a in self.analyses.items()},
            "differences": {
                key: {"names": list(a.names), "difference": a.difference.tolist(), "p": a.p.tolist()}
                | {"half_width": a.half_width.tolist()}
                for key, a in self.analyses.items()
            },
            "tuning": self.tuning,
            "warnings": list(self.warnings),
            "findings": self.findings,
            "notes": [note.replace("* ", "= ", 1) for note in NOTES],
        }

    def text(self) -> str:
        """The table on a terminal, with what the tests found."""
        return as_text(self.table, self.analyses, self.findings, self.warnings)

    def comparison(self) -> RunComparison:
        """All runs, which the report shows by objective; pictures and curves are of the first seed."""
        runs = [run for own in self.runs.values() for run in own.values()]
        rows, notes, _ = summarise(runs)
        return RunComparison(runs, rows, notes, list(self.warnings), study=Study.of(self.as_dict()))

    def write(self) -> None:
        """Write study.json, and report.html with report.md and comparison.json."""
        write_json(self.directory / "study.json", self.as_dict())
        self.comparison().write(self.directory / "report.html")


def study_results(directory: str | Path, failed: Mapping[str, str] | None = None) -> StudyResults:
    """Read a study's directory, or that of one of its combinations of encoder and data.

    Args:
        directory: Holds study.yaml, or lies in one that does.
        failed: Why runs failed, by name, for the warnings.

    Raises:
        FileNotFoundError: It is no study's directory.
        ValueError: Runs that were tested on different images.
        RuntimeError: No run is evaluated yet.
    """
    directory = Path(directory)
    root = directory if (directory / "study.yaml").is_file() else directory.parent
    if not (root / "study.yaml").is_file():
        raise FileNotFoundError(f"{directory} is not a study's directory: it has no study.yaml (see ssl-ebm study)")
    study = replace(read_study(root / "study.yaml"), directory=str(root))
    cell = "" if directory == root else directory.name
    failed = {name: reason for name, reason in (failed or {}).items() if not cell or name.startswith(f"{cell}/")}
    tuning = json.loads((root / "tuning.json").read_text()) if (root / "tuning.json").is_file() else None
    planned = [run for run in plan(study, (tuning or {}).get("chosen")) if run.cell == cell]
    done = [run for run in planned if state_of(run) == EVALUATED]
    if not done:
        raise RuntimeError(f"no run of {directory} is evaluated yet: see its jobs/*.log for what went wrong")
    compared = compare([run.path for run in done]).runs
    runs: dict[str, dict[int, EvaluatedRun]] = {}
    for plan_of, run in zip(done, compared, strict=True):
        runs.setdefault(plan_of.label, {})[plan_of.seed] = replace(run, name=plan_of.name)
    return _summarised(study, directory, cell, runs, tuning, failed, _unfair(runs, planned, done, failed))


def _summarised(
    study: StudyConfig,
    directory: Path,
    cell: str,
    runs: Mapping[str, Mapping[int, EvaluatedRun]],
    tuning: Mapping[str, Any] | None,
    failed: Mapping[str, str],
    warnings: Sequence[str],
) -> StudyResults:
    _require_one_test_set([run for own in runs.values() for run in own.values()])
    over_seeds = len(study.seeds) > 1
    compared = {label: own for label, own in runs.items() if len(own) > 1 or not over_seeds}
    analyses, ranks = {}, {}
    table: dict[str, dict[str, dict[str, Any]]] = {label: {} for label in runs}
    for measure in shown_in("study"):
        seeds = {label: _known({s: measure.read(run.facts) for s, run in own.items()}) for label, own in runs.items()}
        for label, known in seeds.items():
            table[label][measure.key] = _cell(list(known.values()))
        if not (over_seeds or measure.by_image):
            continue  # of one run there is no spread
        values = {label: _values(measure, own) for label, own in compared.items() if len(seeds[label]) == len(own)}
        if not values:
            continue
        high = measure.better != "low"
        analysis = analyse(values, larger_is_better=high, over_seeds=over_seeds)
        for label, estimate in analysis.estimates.items():
            table[label][measure.key] |= {"low": estimate.low, "high": estimate.high}
        if measure.better:
            analyses[measure.key] = analysis
            if set.intersection(*(set(seeds[label]) for label in values)):
                ranks[measure.key] = mean_ranks({label: seeds[label] for label in values}, larger_is_better=high)
    order = sorted(table, key=lambda label: -table[label]["linear"]["mean"])
    rows = {label: table[label] for label in order} | _baselines(runs)
    name = f"{study.name}/{cell}" if cell else study.name
    return StudyResults(name, directory, runs, rows, analyses, ranks, tuning, failed, warnings)


def _known(values: Mapping[int, float | None]) -> dict[int, float]:
    return {seed: value for seed, value in values.items() if value is not None}


def _cell(seeds: Sequence[float]) -> dict[str, Any]:
    return {"mean": float(np.mean(seeds)) if seeds else None, "low": None, "high": None, "seeds": list(seeds)}


def _values(measure: Measure, runs: Mapping[int, EvaluatedRun]) -> np.ndarray:
    """[seeds, test images] of a measure that is a mean over them, else [seeds, 1]."""
    if not measure.by_image:
        return np.array([[measure.read(run.facts)] for run in runs.values()], dtype=np.float64)
    return np.stack([correct(run.path, measure.key) for run in runs.values()])


def _require_one_test_set(runs: Sequence[EvaluatedRun]) -> None:
    """Check that all runs were tested on images with the same labels in the same order."""
    first, *others = ((run, np.load(run.path / "features" / "test_labels.npy", allow_pickle=False)) for run in runs)
    for run, labels in others:
        if not np.array_equal(labels, first[1]):
            raise ValueError(
                f"{first[0].name} and {run.name} were tested on different images: evaluate them again on one data set"
            )


def correct(run: Path, key: str) -> np.ndarray:
    """1 for each test image that a run classifies correctly, 0 for the others."""
    labels = np.load(run / "features" / "test_labels.npy", allow_pickle=False)
    with np.load(run / "predictions.npz", allow_pickle=False) as predictions:
        return (predictions[key] == labels).astype(np.float64)


def _baselines(runs: Mapping[str, Mapping[int, EvaluatedRun]]) -> dict[str, dict[str, dict[str, Any]]]:
    """What needs no training: one value a seed of the initial encoder, and one of raw pixels."""
    table: dict[str, dict[str, dict[str, Any]]] = {}
    for kind in BASELINES:
        of_seeds: dict[int, EvaluatedRun] = {}
        for own in runs.values():
            for seed, run in own.items():
                if kind in run.results["rows"]:
                    of_seeds.setdefault(seed if kind == "random_encoder" else 0, run)
        if not of_seeds:
            continue
        row: dict[str, dict[str, Any]] = {}
        for measure in shown_in("study"):
            seeds = numbers(measure.read(run.facts, kind) for run in of_seeds.values())
            row[measure.key] = _cell(seeds)
            if len(seeds) > 1:
                estimate = analyse({kind: np.array(seeds)[:, None]}).estimates[kind]
                row[measure.key] |= {"low": estimate.low, "high": estimate.high}
        table[kind.replace("_", " ")] = row
    return table


def _unfair(
    runs: Mapping[str, Mapping[int, EvaluatedRun]],
    planned: Sequence[PlannedRun],
    done: Sequence[PlannedRun],
    failed: Mapping[str, str],
) -> list[str]:
    """Warnings: what failed or is missing, what differs between objectives, and what single runs say of themselves."""
    warnings = [f"{name} failed: {reason}." for name, reason in failed.items()]
    finished = {run.name for run in done}
    missing = [run.name for run in planned if run.name not in finished]
    if missing:
        warnings.append(f"Not finished: {', '.join(missing)}.")
    if len({run.seed for run in planned}) == 1:
        warnings.append(
            "One seed: intervals and tests are of these very runs on other test images, not of other seeds."
        )
    else:
        alone = [label for label, own in runs.items() if len(own) == 1]
        warnings += [f"{label} has one seed: no interval, and no test." for label in alone]
    first = [replace(next(iter(own.values())), name=label) for label, own in runs.items()]
    every = [run for own in runs.values() for run in own.values()]
    return warnings + said_differences(first, DIFFERENCES, "objectives") + said_signs(every)

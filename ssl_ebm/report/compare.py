"""Runs → one table and one report: objectives compared as energies.

Energies of different objectives differ in zero and scale, so raw energies and losses never stand side by side here;
rank measures do. Runs must share data and splits. What else differs between them is said, not hidden.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np

from ssl_ebm.config import load_config
from ssl_ebm.data.datasets import DataConfig
from ssl_ebm.evaluation.evaluate import evaluate
from ssl_ebm.report.page.page import page
from ssl_ebm.report.runs import EvaluatedRun, Study, group
from ssl_ebm.report.similarity_of_runs import run_similarities
from ssl_ebm.report.summary import summarise
from ssl_ebm.report.tables.further import sheets
from ssl_ebm.report.tables.intervals import Row
from ssl_ebm.report.tables.markdown import markdown
from ssl_ebm.report.tables.measures import shown_in
from ssl_ebm.report.tables.text import plain_text
from ssl_ebm.run_directory import RunDirectory, write_atomically, write_json
from ssl_ebm.user_code import Parts


@dataclass(frozen=True, eq=False)
class RunComparison:
    """What was compared, as a table, a report and JSON.

    Attributes:
        runs: In the order given.
        rows: One a run, then baselines.
        notes: Footnotes of the table.
        warnings: What makes the comparison less than fair or its numbers less than final.
        study: Results over seeds, by which the report then shows the runs.
    """

    runs: list[EvaluatedRun]
    rows: list[Row]
    notes: list[str]
    warnings: list[str]
    study: Study | None = None

    @cached_property
    def similarity(self) -> dict[str, Any] | None:
        """How alike what the runs learnt is (`run_similarities`); of a study, the first seeds of its objectives."""
        return run_similarities(group(self.runs, self.study))

    def table(self) -> str:
        """Plain text for a terminal, at most 120 columns wide."""
        return plain_text(self.rows, [*self.notes, *(f"Warning: {warning}" for warning in self.warnings)])

    def write(self, path: str | Path | None = None) -> Path:
        """Write the report, and beside it its tables as Markdown and `comparison.json`; returns the report's path.

        Args:
            path: Of the report; None: `report.html` in the directory that holds all runs.

        Raises:
            OSError: It cannot be written there.
        """
        path = Path(path) if path is not None else _common_directory(self.runs) / "report.html"
        texts = {path: self._as(page), path.with_suffix(".md"): self._as(markdown)}
        try:
            for target in (*texts, path.with_name("comparison.json")):
                if target.is_dir():
                    raise IsADirectoryError(0, f"{target.name} is a directory")
            for target, content in texts.items():
                write_atomically(target, partial(Path.write_text, data=content, encoding="utf-8"))
            write_json(path.with_name("comparison.json"), self.as_dict())
        except OSError as error:
            reason = error.strerror or error
            raise OSError(f"cannot write the report to {path} ({reason}): choose another file with --report") from error
        return path

    def _as(self, form: Callable[..., str]) -> str:
        return form(
            self.runs, self.rows, notes=self.notes, warnings=self.warnings, study=self.study, matrices=self.similarity
        )

    def as_dict(self) -> dict[str, Any]:
        """Rows with their intervals, further tables, similarities, notes and warnings, for JSON."""
        return {
            "runs": {run.name: str(run.path) for run in self.runs},
            "rows": [
                {"name": row.name, "baseline": row.baseline, "marks": list(row.marks), "trials": dict(row.trials)}
                | dict(row.values)
                | {"half_width": {m.key: w for m in shown_in("results") if (w := row.half_width(m)) is not None}}
                for row in self.rows
            ],
            "tables": {key: sheet.as_dict() for key, sheet in sheets(group(self.runs, self.study)).items()},
            "similarity": self.similarity,
            "notes": self.notes,
            "warnings": self.warnings,
        }


def compare(
    run_dirs: Sequence[str | Path],
    *,
    report: str | Path | None = None,
    objective: Any = None,
    data: Any = None,
    encoder: Any = None,
    views: Any = None,
    trust: bool = False,
) -> RunComparison:
    """Compare runs on one data set; those without current results are evaluated first.

    Parts of the runs' authors are needed for that evaluation alone, and stored results are compared without. A list of
    them is one for each run that needs one, found by its name.

    Args:
        run_dirs: Run directories.
        report: Where to write the report too (`Comparison.write`); None: nowhere.
        objective: As in `evaluate`, or a list; likewise `data`, `encoder` and `views`.
        data: Images.
        encoder: A backbone.
        views: What makes views.
        trust: Import what the runs' configs name.

    Raises:
        FileNotFoundError: One is not a run directory, or has no weights yet.
        MissingPart: As `evaluate`.
        ValueError: No runs, one run twice, or runs on different data or splits.
        OSError: The report cannot be written.
    """
    parts = Parts(objective=objective, data=data, encoder=encoder, views=views, trust=trust)
    directories = _directories(run_dirs)
    configs = {name: load_config(run.config) for name, run in directories.items()}
    _require_equal({name: _data_of(config.data) for name, config in configs.items()})
    runs = [_read(name, directory, parts) for name, directory in directories.items()]
    _require_equal({run.name: {f"sizes.{k}": v for k, v in run.results["protocol"]["sizes"].items()} for run in runs})
    rows, notes, warnings = summarise(runs)
    without = [f"{run.name} has no energies: {reason}." for run in runs for reason in _missing(run)]
    comparison = RunComparison(runs, rows, notes, [*warnings, *without])
    if report is not None:
        comparison.write(report)
    return comparison


def _directories(run_dirs: Sequence[str | Path]) -> dict[str, RunDirectory]:
    """Checked, by the shortest ends of their paths that tell them apart.

    Files such as `write` leaves beside runs are passed over, so that `runs/*` can be given again.
    """
    if isinstance(run_dirs, str):
        raise TypeError(f"run_dirs must be a list of run directories, got one string: use [{run_dirs!r}]")
    run_dirs = [path for path in run_dirs if Path(path).is_dir() or Path(path).suffix not in (".html", ".json", ".md")]
    if not run_dirs:
        raise ValueError("no runs to compare: name at least one run directory, e.g. runs/quickstart/simclr")
    runs = [RunDirectory(Path(path)).require() for path in run_dirs]
    parts = [run.path.resolve().parts for run in runs]
    for i, own in enumerate(parts):
        if own in parts[:i]:
            raise ValueError(f"run {runs[i].path} is given twice: name each run once")
    length = next(n for n in range(1, max(map(len, parts)) + 1) if len({own[-n:] for own in parts}) == len(parts))
    return {"/".join(own[-length:]): run for own, run in zip(parts, runs, strict=True)}


def _data_of(data: DataConfig) -> dict[str, Any]:
    """What decides images and splits; `root` is where they lie, which matters for a folder only."""
    values = {f"data.{key}": value for key, value in vars(data).items() if key not in ("download", "root")}
    return values | ({"data.root": str(Path(data.root).expanduser().resolve())} if data.name == "folder" else {})


def _require_equal(values: Mapping[str, dict[str, Any]]) -> None:
    """Values of each run, which must be those of the first."""
    (first, expected), *others = values.items()
    for name, own in others:
        for key in expected | own:
            if own.get(key) != expected.get(key):
                raise ValueError(
                    f"runs on different data cannot be compared: {key} is {expected.get(key)} in {first} and "
                    f"{own.get(key)} in {name}"
                )


def _missing(run: EvaluatedRun) -> list[str]:
    """Why parts of its results are missing."""
    return list((run.results.get("missing") or {}).values())


def _read(name: str, directory: RunDirectory, parts: Parts) -> EvaluatedRun:
    results = evaluate(directory.path, **vars(parts))
    try:
        metrics = directory.read_metrics()
    except json.JSONDecodeError as error:
        raise ValueError(f"{directory.metrics} is damaged: remove its broken line ({error})") from error
    gallery = None
    if (path := directory.path / "gallery.npz").is_file():
        with np.load(path, allow_pickle=False) as arrays:
            gallery = dict(arrays)
    return EvaluatedRun(name, directory.path, results, metrics, directory.config.read_text(encoding="utf-8"), gallery)


def _common_directory(runs: Sequence[EvaluatedRun]) -> Path:
    common = Path(os.path.commonpath([run.path.resolve().parent for run in runs]))
    return common.relative_to(Path.cwd()) if common.is_relative_to(Path.cwd()) else common

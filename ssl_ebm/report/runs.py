"""What a report shows as one: a run, or the seeds of one objective in a study; and how it looks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from ssl_ebm.report.looks import DISTINCT, Look


@dataclass(frozen=True, eq=False, kw_only=True)
class Study:
    """Results over seeds.

    Attributes:
        name: Of the study.
        runs: Objective → seed → run directory.
        table: Row (objectives, then baselines) → metric → "mean", "low", "high" and "seeds".
        ties: Metric → "best", the best objective, and "tied", those without a found difference to it.
        groups: Metric → maximal groups without a found difference.
        ranks: Metric → objective → mean rank.
        power: Metric → the smallest difference that is found with probability .8, where it is known.
        tuning: How hyper-parameters were chosen.
        warnings: What makes its numbers less than fair or final.
        findings: What its tests found, in sentences.
        notes: Footnotes of its table: what intervals and ties mean.
    """

    name: str
    runs: Mapping[str, Mapping[str, str]]
    table: Mapping[str, Mapping[str, Mapping[str, Any]]]
    ties: Mapping[str, Mapping[str, Any]]
    groups: Mapping[str, Sequence[Sequence[str]]]
    ranks: Mapping[str, Mapping[str, float]]
    power: Mapping[str, float | None]
    tuning: Mapping[str, Any] | None = None
    warnings: Sequence[str] = ()
    findings: Sequence[str] = ()
    notes: Sequence[str] = ("Means over seeds with their 95% intervals.",)

    @classmethod
    def of(cls, content: Mapping[str, Any]) -> Study:
        """From what study.json holds; what else it holds is passed over."""
        return cls(**{field.name: content[field.name] for field in fields(cls) if field.name in content})


@dataclass(frozen=True, eq=False)
class Group:
    """Runs that are shown as one.

    Attributes:
        name: Of the run, or of the objective.
        look: In every picture.
        runs: At least one; the first stands for all where one must.
    """

    name: str
    look: Look
    runs: Sequence[EvaluatedRun]

    @property
    def first(self) -> EvaluatedRun:
        """The representative."""
        return self.runs[0]

    @property
    def family(self) -> str:
        """Of its objective."""
        return family(self.first)

    def values(self, *path: str) -> list[float]:
        """The numbers at a path of the runs' results, of the runs that have one."""
        return numbers(lookup(run.results, *path) for run in self.runs)


def family(run: EvaluatedRun) -> str:
    """Of a run's objective, in words."""
    return run.results["objective"]["family"].replace("_", "-")


def lookup(results: Any, *path: str) -> Any:
    """What lies at a path of nested mappings; None where a part of it is missing."""
    for key in path:
        if not isinstance(results, Mapping) or key not in results:
            return None
        results = results[key]
    return results


def numbers(values: Iterable[Any]) -> list[float]:
    """Those of the values that are numbers."""
    return [float(value) for value in values if isinstance(value, (int, float))]


def group(runs: Sequence[EvaluatedRun], study: Study | None = None) -> list[Group]:
    """Runs as they are shown: each by itself or, of a study, by objective with the lowest seed first.

    Up to eight have a colour each; more share their family's, and markers and dashes tell its members apart.

    Raises:
        ValueError: A study has none of the runs.
    """
    named = {run.name: [run] for run in runs} if study is None else _by_objective(runs, study)
    if len(named) <= DISTINCT:
        return [Group(name, Look.of(i), members) for i, (name, members) in enumerate(named.items())]
    families: dict[str, int] = {}
    groups = []
    for name, members in named.items():
        own = family(members[0])
        position = families[own] = families.get(own, -1) + 1
        groups.append(Group(name, Look(list(families).index(own), position, position // DISTINCT), members))
    return groups


def _by_objective(runs: Sequence[EvaluatedRun], study: Study) -> dict[str, list[EvaluatedRun]]:
    by_directory = {run.path.name: run for run in runs}
    named = {}
    for objective, seeds in study.runs.items():
        names = [Path(seeds[seed]).name for seed in sorted(seeds, key=int)]
        members = [by_directory[name] for name in names if name in by_directory]
        if members:
            named[objective] = members
    if not named:
        raise ValueError(f"study {study.name} has none of the runs {', '.join(by_directory)}: give its own runs")
    return named


@dataclass(frozen=True, eq=False)
class EvaluatedRun:
    """All that is known of a run.

    Attributes:
        name: Unique in its comparison.
        path: Of its directory.
        results: evaluation.json.
        metrics: Lines of metrics.jsonl.
        config: Text of config.yaml.
        gallery: Arrays of gallery.npz: `images` [query, 1 + neighbours, c, h, w] with `labels` and `energies`;
            `mistakes` [pair, 2, c, h, w], where it has any, with `mistake_labels` and `mistake_energies`; `classes`.
    """

    name: str
    path: Path
    results: Mapping[str, Any]
    metrics: Sequence[Mapping[str, Any]]
    config: str
    gallery: Mapping[str, np.ndarray] | None = None

    @property
    def epochs(self) -> float | None:
        """Trained when it was evaluated; None where that is not known."""
        step = self.results["protocol"]["step"]
        known = [line for line in self.metrics if line["step"] <= step]
        if known:
            return known[-1]["epoch"] * step / known[-1]["step"]
        return self.results["config"]["training"]["epochs"] if self.results["protocol"]["finished"] else None

    @cached_property
    def facts(self) -> Mapping[str, Any]:
        """Its results and, under `run`, its `family`, `epochs` and `images_per_second`, the median in training."""
        speeds = numbers(line.get("images_per_second") for line in self.metrics)
        speed = median(speeds) if speeds else None
        return {**self.results, "run": {"family": family(self), "epochs": self.epochs, "images_per_second": speed}}

    def curve(self, key: str) -> list[tuple[float, float]]:
        """A metric by epoch."""
        return [(line["epoch"], line[key]) for line in self.metrics if line.get(key) is not None]

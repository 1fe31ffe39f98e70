"""Tables of what else was measured: one row a run or an objective, one column a measure.

A table leaves out what no run has.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import replace
from statistics import fmean, stdev

from ssl_ebm.evaluation.results import BASELINES
from ssl_ebm.report.runs import Group, numbers
from ssl_ebm.report.tables.measures import Measure, shown_in
from ssl_ebm.report.tables.sheet import Sheet, SheetCell, SheetEntry, SheetHead

SEEDS = "Means over seeds ± their standard deviation."
WORDS = {"free_energy": "Free energy", "knn": "kNN", "mahalanobis": "Mahalanobis", "image_energy": "E(x)"}
TABLES = {  # further tables of the report, by their keys in comparison.json: title, and footnote
    "calibration": (
        "Calibration and information",
        "Calibration: log loss and calibration error of 1 / (1 + exp(β E + b)) before and after the fit of β and b "
        "on one half of the pairs, read on the other. Mutual information: lower bounds by the canonical energy.",
    ),
    "strength": (
        "Rank correlation of energy and augmentation strength",
        "Spearman; 1: the energy never falls as an augmentation grows stronger.",
    ),
    "health": (
        "Health of the features",
        "Of clean held-out images. Spread is 1 where features use every dimension evenly, 0 after a collapse.",
    ),
    "probes": ("Further probes", "Test images; every choice was made on validation."),
    "ood_auroc": (
        "AUROC of outliers, %",
        "Images of other data sets against test images; high scores are outliers. 50 is chance.",
    ),
    "ood_fpr95": ("False positives at 95% of outliers found, %", "Low is good."),
    "cost": (
        "Cost",
        "FLOPs are of one forward pass of the backbone. Times are comparable on one machine under one load.",
    ),
}


def sheets(groups: Sequence[Group]) -> dict[str, Sheet]:
    """The further tables, by their keys in `TABLES`; those that no run has a number of are left out."""
    tables = {key: _sheet(key, groups) for key in TABLES}
    return {key: sheet for key, sheet in tables.items() if sheet.heads}


def _sheet(table: str, groups: Sequence[Group]) -> Sheet:
    """One row a run or an objective, then baselines; columns that no run has a number of are left out."""
    columns = [measure for own in shown_in(table) for measure in _each(own, groups)]
    columns = [measure for measure in columns if any(_values(measure, group) for group in groups)]
    entries = [
        SheetEntry(
            name=group.name, look=group.look, cells=[_pooled(measure, _values(measure, group)) for measure in columns]
        )
        for group in groups
    ]
    for kind in BASELINES if _one_setting(groups) else ():
        values = [_baseline(measure, groups, kind) for measure in columns]
        if any(values):
            cells = [_pooled(measure, seeds) for measure, seeds in zip(columns, values, strict=True)]
            entries.append(SheetEntry(name=kind.replace("_", " "), cells=cells, baseline=True))
    several = any(len(group.runs) > 1 for group in groups)
    title, note = TABLES[table]
    return Sheet(
        title=title,
        heads=[SheetHead(key=measure.place, title=measure.title, group=measure.group) for measure in columns],
        entries=entries,
        first="Objective" if several else "Run",
        notes=[note, *([SEEDS] if several else [])],
    )


def _each(measure: Measure, groups: Sequence[Group]) -> list[Measure]:
    """A measure, once for each key that the runs have where its path has a name in braces."""
    name = re.search(r"\.({(?!row|energy)\w+})", measure.path)
    if name is None:
        return [measure]
    above = replace(measure, path=measure.path[: name.start()])
    keys = dict.fromkeys(key for group in groups for run in group.runs for key in above.read(run.facts) or ())
    return [
        column
        for key in keys
        for column in _each(
            replace(
                measure,
                path=measure.path.replace(name[1], key),
                title=measure.title.replace(name[1], WORDS.get(key, key)),
                group=measure.group.replace(name[1], key),
            ),
            groups,
        )
    ]


def _values(measure: Measure, group: Group) -> list[float]:
    """One number a run, of those that have it."""
    return numbers(measure.read(run.facts) for run in group.runs)


def _baseline(measure: Measure, groups: Sequence[Group], kind: str) -> list[float]:
    """A baseline's number, once a seed; raw pixels have no seed."""
    if not measure.of_baselines:
        return []
    seeds = {run.results["config"]["seed"]: measure.read(run.facts, kind) for group in groups for run in group.runs}
    return numbers(seeds.values())[: 1 if kind == "raw_pixels" else None]


def _pooled(measure: Measure, values: Sequence[float]) -> SheetCell:
    """A mean over seeds and its spread."""
    if not values:
        return SheetCell()
    mean = fmean(values)
    bound = f"±{measure.show(stdev(values))}" if len(values) > 1 else ""
    return SheetCell(text=measure.text(mean), value=mean, bound=bound)


def _one_setting(groups: Sequence[Group]) -> bool:
    """Whether all runs have the same baselines, up to their seeds."""
    settings = [{key: run.results["config"][key] for key in ("encoder", "views")} for g in groups for run in g.runs]
    return len({json.dumps(setting, sort_keys=True) for setting in settings}) == 1

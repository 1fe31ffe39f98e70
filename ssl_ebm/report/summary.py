"""Results of runs → the table's rows, its footnotes, and warnings."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from ssl_ebm.report.runs import Run, lookup
from ssl_ebm.report.tables.measures import COLUMNS
from ssl_ebm.report.tables.text import Row

SYMBOLS = "*†‡§¶"
MARKS = {  # of a row, in the order in which symbols are given
    "unfinished": "unfinished when it was evaluated",
    "not_conservative": "its update is not the gradient of any energy (predictor, stop-gradient or teacher)",
    "surrogate": "its energy is a surrogate, to score pairs with: its loss is a statistic of the whole batch",
    "reads_labels": "reads labels in pretraining",
    "untrained": "no energy was trained: the cosine energy of its features",
}
# config keys that are equal in a fair comparison
BUDGET = ("views.", "encoder.", "training.epochs", "training.batch_size", "optimizer.name")


def summarise(runs: Sequence[Run]) -> tuple[list[Row], list[str], list[str]]:
    """Rows (one a run, then baselines), footnotes, and what makes the comparison less than fair or final."""
    marked = {run.name: _marks(run) for run in runs}
    present = [key for key in MARKS if key == "untrained" or any(key in keys for keys in marked.values())]
    symbols = dict(zip(present, SYMBOLS, strict=False))
    rows = [_run_row(run, tuple(symbols[key] for key in marked[run.name])) for run in runs]
    rows += _baseline_rows(runs, (symbols["untrained"],))
    notes = [f"{symbol} {MARKS[key]}." for key, symbol in symbols.items()]
    return rows, notes + _notes(rows), _warnings(runs)


def _marks(run: Run) -> list[str]:
    objective, protocol = run.results["objective"], run.results["protocol"]
    holds = {
        "unfinished": not protocol["finished"],
        "not_conservative": not objective["conservative"],
        "surrogate": objective["surrogate"],
        "reads_labels": objective["reads_labels"],
    }
    return [key for key in MARKS if holds.get(key)]


def _run_row(run: Run, marks: tuple[str, ...]) -> Row:
    results = run.results
    speeds = [line["images_per_second"] for line in run.metrics if line.get("images_per_second") is not None]
    values = {
        "objective": results["objective"]["name"],
        "family": results["objective"]["family"].replace("_", "-"),
        "epochs": run.epochs,
        "speed": median(speeds) if speeds else None,
    }
    measured, trials = _measured(results["rows"]["encoder"], results["energy"]["trained"])
    pairs = json.dumps(results["config"]["views"], sort_keys=True)
    return Row(name=run.name, marks=marks, values=values | measured, trials=trials, pairs=pairs)


def _measured(row: Mapping[str, Any], energy: Mapping[str, Any] | None) -> tuple[dict[str, Any], dict[str, int]]:
    """Values and trials of a row of evaluation.json; `energy` None: of a run whose objective is not there."""
    values = {
        "knn": row["knn"]["headline"]["accuracy"],
        "linear": row["linear"]["test"]["top1"],
        "auroc": lookup(energy, "anchor_auroc"),
        "auroc_global": lookup(energy, "global_auroc"),
        "d_prime": lookup(energy, "d_prime"),
        "recall": lookup(energy, "recall", "1"),
        "rankme": row["health"]["rankme"],
    }
    return values, {"test": row["linear"]["test"]["size"], "energy": row["energy"]["images"]}


def _baseline_rows(runs: Sequence[Run], marks: tuple[str, ...]) -> list[Row]:
    """One row for each untrained encoder and views, one for raw pixels and views; named by what differs."""
    found: dict[str, dict[str, tuple[dict[str, str], Mapping[str, Any]]]] = {}
    for run in runs:
        config = run.results["config"]
        for kind, row in run.results["rows"].items():
            if kind != "encoder":
                parts = ("views",) if kind == "raw_pixels" else ("encoder", "seed", "views")
                key = _flat({part: config[part] for part in parts})
                found.setdefault(kind, {}).setdefault(json.dumps(key, sort_keys=True), (key, row))
    rows = []
    for kind in sorted(found, key=lambda kind: kind == "raw_pixels"):
        settings = [key for key, _ in found[kind].values()]
        differing = [k for k in dict.fromkeys(itertools.chain(*settings)) if len({key.get(k) for key in settings}) > 1]
        for key, row in found[kind].values():
            label = ", ".join(f"{_last(k)} {key.get(k, 'default')}" for k in differing)
            name = kind.replace("_", " ") + (f" ({label})" if label else "")
            values, trials = _measured(row, row["energy"])
            rows.append(Row(name=name, baseline=True, marks=marks, values=values, trials=trials))
    return rows


def _last(key: str) -> str:
    """`encoder` for `encoder.name`, `output_stride` for `encoder.output_stride`."""
    return key.removesuffix(".name").split(".")[-1]


def _flat(value: Any, prefix: str = "") -> dict[str, str]:
    """`{"a": {"b": 1}}` → `{"a.b": "1"}`."""
    if isinstance(value, Mapping):
        return {k: v for key, item in value.items() for k, v in _flat(item, f"{prefix}{key}.").items()}
    return {prefix[:-1]: f"{value:g}" if isinstance(value, float) else str(value)}


def _notes(rows: Sequence[Row]) -> list[str]:
    """Footnotes that hold for all rows."""

    def interval(key: str) -> str:
        column = next(column for column in COLUMNS if column.key == key)
        widths = [100 * width for row in rows if (width := row.half_width(column)) is not None]
        low, high = f"{min(widths):.1f}", f"{max(widths):.1f}"
        return f"±{low}" if low == high else f"±{low} to {high}"

    test, pairs = rows[0].trials["test"], rows[0].trials["energy"]
    notes = [
        f"Accuracies are of {test:,} test images: kNN (k = 20, T = .07) {interval('knn')} and linear probe "
        f"{interval('linear')} points (95%, binomial). They leave out what another seed would change.",
        f"Energies are of all pairs of {pairs:,} test images, low = compatible: positives are two views of one image. "
        f"95%: recall@1 {interval('recall')} points, AUROC within {interval('auroc')} points.",
        "Raw energies of different objectives differ in zero and scale, and so do their losses: only rank measures and "
        "d′ are compared. AUROC per anchor is blind to any c(x) added to an energy; the global one is not.",
        "Images/s is the median in training, views and updates included: comparable on one machine under one load.",
    ]
    if len({row.pairs for row in rows if not row.baseline}) > 1:
        notes.insert(2, "The runs' views differ, so their energy columns are on different pairs: do not rank them.")
    return notes


def _warnings(runs: Sequence[Run]) -> list[str]:
    warnings = []
    for run in runs:
        if not run.results["protocol"]["finished"]:
            epochs = "?" if run.epochs is None else f"{run.epochs:.4g}"
            planned = run.results["config"]["training"]["epochs"]
            warnings.append(f"{run.name} is unfinished: {epochs} of {planned:g} epochs.")
    for key, groups in differing(runs, BUDGET).items():
        described = "; ".join(f"{value}: {', '.join(names)}" for value, names in groups.items())
        warnings.append(f"The runs differ in {key} ({described}).")
    seen: dict[str, list[str]] = {}
    for run in runs:
        for sign in signs(run):
            seen.setdefault(sign, []).append(run.name)
    return warnings + [f"{', '.join(names)}: {sign}." for sign, names in seen.items()]


def differing(runs: Sequence[Run], prefixes: Sequence[str]) -> dict[str, dict[str, list[str]]]:
    """Of config keys that start so, those with several values, and the names of the runs that have each."""
    flat = {run.name: _flat(run.results["config"]) for run in runs}
    keys = dict.fromkeys(key for own in flat.values() for key in own if key.startswith(tuple(prefixes)))
    groups: dict[str, dict[str, list[str]]] = {key: {} for key in keys}
    for key, (name, own) in itertools.product(keys, flat.items()):
        groups[key].setdefault(own.get(key, "default"), []).append(name)
    return {key: values for key, values in groups.items() if len(values) > 1}


def signs(run: Run) -> list[str]:
    """What a reader must know before believing a run's numbers."""
    row, found = run.results["rows"]["encoder"], []
    alarms = [line for line in run.metrics if line.get("collapse")]
    if alarms:
        found.append(f"collapse alarm at epoch {alarms[0]['epoch']:.4g}: {alarms[0]['collapse']}")
    for kind, other in run.results["rows"].items():
        if kind != "encoder" and row["linear"]["test"]["top1"] <= other["linear"]["test"]["top1"]:
            found.append(f"linear accuracy is not above that of {kind.replace('_', ' ')}")
    if row["linear"]["at_edge"]:
        found.append("the linear probe's best strength is at the edge of its grid")
    if not row["linear"]["refit_converged"]:
        found.append("the linear probe did not converge")
    return found

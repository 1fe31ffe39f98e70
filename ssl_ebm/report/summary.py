"""Results of runs → the table's rows, its footnotes, and warnings."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from typing import Any

from ssl_ebm.report.runs import EvaluatedRun
from ssl_ebm.report.tables.intervals import Row
from ssl_ebm.report.tables.measures import measure_of, shown_in, trials

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


def summarise(runs: Sequence[EvaluatedRun]) -> tuple[list[Row], list[str], list[str]]:
    """Rows (one a run, then baselines), footnotes, and what makes the comparison less than fair or final."""
    marked = {run.name: _marks(run) for run in runs}
    present = [key for key in MARKS if key == "untrained" or any(key in keys for keys in marked.values())]
    symbols = dict(zip(present, SYMBOLS, strict=False))
    rows = [_run_row(run, tuple(symbols[key] for key in marked[run.name])) for run in runs]
    rows += _baseline_rows(runs, (symbols["untrained"],))
    notes = [f"{symbol} {MARKS[key]}." for key, symbol in symbols.items()]
    return rows, notes + _notes(rows), _warnings(runs)


def _marks(run: EvaluatedRun) -> list[str]:
    objective, protocol = run.results["objective"], run.results["protocol"]
    holds = {
        "unfinished": not protocol["finished"],
        "not_conservative": not objective["conservative"],
        "surrogate": objective["surrogate"],
        "reads_labels": objective["reads_labels"],
    }
    return [key for key in MARKS if holds.get(key)]


def _run_row(run: EvaluatedRun, marks: tuple[str, ...]) -> Row:
    values = {measure.key: measure.read(run.facts) for measure in shown_in("results")}
    pairs = json.dumps(run.results["config"]["views"], sort_keys=True)
    return Row(name=run.name, marks=marks, values=values, trials=trials(run.results), pairs=pairs)


def _baseline_rows(runs: Sequence[EvaluatedRun], marks: tuple[str, ...]) -> list[Row]:
    """One row for each untrained encoder and views, one for raw pixels and views; named by what differs."""
    found: dict[str, dict[str, tuple[dict[str, str], EvaluatedRun]]] = {}
    for run in runs:
        config = run.results["config"]
        for kind in run.results["rows"]:
            if kind != "encoder":
                parts = ("views",) if kind == "raw_pixels" else ("encoder", "seed", "views")
                key = _flat({part: config[part] for part in parts})
                found.setdefault(kind, {}).setdefault(json.dumps(key, sort_keys=True), (key, run))
    rows = []
    for kind in sorted(found, key=lambda kind: kind == "raw_pixels"):
        settings = [key for key, _ in found[kind].values()]
        differing = [k for k in dict.fromkeys(itertools.chain(*settings)) if len({key.get(k) for key in settings}) > 1]
        for key, run in found[kind].values():
            label = ", ".join(f"{_last(k)} {key.get(k, 'default')}" for k in differing)
            name = kind.replace("_", " ") + (f" ({label})" if label else "")
            values = {m.key: m.read(run.facts, kind) for m in shown_in("results") if m.of_baselines}
            rows.append(Row(name=name, baseline=True, marks=marks, values=values, trials=trials(run.results, kind)))
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
        widths = [100 * width for row in rows if (width := row.half_width(measure_of(key))) is not None]
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


def _warnings(runs: Sequence[EvaluatedRun]) -> list[str]:
    warnings = []
    for run in runs:
        if not run.results["protocol"]["finished"]:
            epochs = "?" if run.epochs is None else f"{run.epochs:.4g}"
            planned = run.results["config"]["training"]["epochs"]
            warnings.append(f"{run.name} is unfinished: {epochs} of {planned:g} epochs.")
    return warnings + said_differences(runs, BUDGET, "runs") + said_signs(runs)


def said_differences(runs: Sequence[EvaluatedRun], prefixes: Sequence[str], what: str) -> list[str]:
    """A sentence for each config key that starts so and has several values, with the runs that have each."""
    flat = {run.name: _flat(run.results["config"]) for run in runs}
    keys = dict.fromkeys(key for own in flat.values() for key in own if key.startswith(tuple(prefixes)))
    sentences = []
    for key in keys:
        names: dict[str, list[str]] = {}
        for name, own in flat.items():
            names.setdefault(own.get(key, "default"), []).append(name)
        if len(names) > 1:
            described = "; ".join(f"{value}: {', '.join(own)}" for value, own in names.items())
            sentences.append(f"The {what} differ in {key} ({described}).")
    return sentences


def said_signs(runs: Sequence[EvaluatedRun]) -> list[str]:
    """A sentence for each of the runs' signs, with the names of the runs that have it."""
    names: dict[str, list[str]] = {}
    for run in runs:
        for sign in signs(run):
            names.setdefault(sign, []).append(run.name)
    return [f"{', '.join(own)}: {sign}." for sign, own in names.items()]


def signs(run: EvaluatedRun) -> list[str]:
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

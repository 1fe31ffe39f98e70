"""Tables of what else was measured: one row a run or an objective, one column a number of evaluation.json.

A table leaves out what no run has, and is None where nothing is left.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any, Literal

from ssl_ebm.report.runs import Group, lookup
from ssl_ebm.report.tables.sheet import Cell, Entry, Head, Sheet

ROW = "*"  # in a path: the encoder's row, or a baseline's
BASELINES = ("random_encoder", "pretrained_encoder", "raw_pixels")
SEEDS = "Means over seeds ± their standard deviation."


def two(value: float) -> str:
    """Two decimals."""
    return f"{value:.2f}"


def three(value: float) -> str:
    """Three significant digits."""
    return f"{value:.3g}"


def percent(value: float) -> str:
    """58.0 for .58."""
    return f"{100 * value:.1f}"


def ratio(value: float) -> str:
    """.771, and 1.000."""
    return f"{value:.3f}".replace("0.", ".", 1) if abs(value) < 0.9995 else f"{value:.3f}"


@dataclass(frozen=True)
class Column:
    """One thing that is compared.

    Attributes:
        key: In `Row.values`.
        head: On a terminal.
        title: In the report.
        group: Columns under one heading of the report; "" stands alone.
        show: Value → text.
        trials: What a proportion is of, a key of `Row.trials`; such columns have intervals and a best value.
    """

    key: str
    head: str
    title: str
    group: str
    show: Callable[[Any], str]
    trials: Literal["test", "energy"] | None = None

    @property
    def is_text(self) -> bool:
        """Set to the left, sorted by letters."""
        return self.show is str


COLUMNS = (
    Column("objective", "objective", "Objective", "", str),
    Column("family", "family", "Family", "", str),
    Column("epochs", "epochs", "Epochs", "", "{:.4g}".format),
    Column("knn", "kNN %", "kNN", "Accuracy, %", percent, "test"),
    Column("linear", "linear %", "Linear", "Accuracy, %", percent, "test"),
    Column("auroc", "AUROC", "AUROC per anchor", "Energy of held-out pairs", ratio, "energy"),
    Column("auroc_global", "global", "AUROC global", "Energy of held-out pairs", ratio, "energy"),
    Column("d_prime", "d′", "d′", "Energy of held-out pairs", "{:.2f}".format),
    Column("recall", "R@1 %", "Recall@1, %", "Energy of held-out pairs", percent, "energy"),
    Column("rankme", "RankMe", "RankMe", "", "{:.1f}".format),
    Column("speed", "img/s", "Images/s", "", "{:,.0f}".format),
)


@dataclass(frozen=True)
class Measure:
    """A column: where its numbers lie in evaluation.json, and how they are shown."""

    title: str
    path: tuple[str, ...]
    show: Callable[[float], str] = two
    group: str = ""

    @property
    def key(self) -> str:
        """Unique in its table."""
        return ".".join(part for part in self.path if part != ROW)


HEALTH = (
    Measure("RankMe", ("rows", ROW, "health", "rankme"), "{:.1f}".format),
    Measure("α-ReQ", ("rows", ROW, "health", "alpha_req")),
    Measure("LiDAR", ("rows", ROW, "health", "lidar"), "{:.1f}".format),
    Measure("Alignment", ("rows", ROW, "health", "alignment"), three),
    Measure("Uniformity", ("rows", ROW, "health", "uniformity")),
    Measure("Spread", ("rows", ROW, "health", "std")),
    Measure("Dead, %", ("rows", ROW, "health", "dead"), percent),
)
PROBES = (
    Measure("Ridge", ("rows", ROW, "ridge", "test", "top1"), percent, "Accuracy, %"),
    Measure("SGD", ("rows", ROW, "sgd", "test", "top1"), percent, "Accuracy, %"),
    *(
        Measure(shots, ("rows", ROW, "few_shot", shots, "mean"), percent, "Labels a class, accuracy, %")
        for shots in ("1", "5", "10", "100")
    ),
    Measure("NMI", ("rows", ROW, "clusters", "nmi"), ratio, "k-means"),
    Measure("ARI", ("rows", ROW, "clusters", "ari"), ratio, "k-means"),
    Measure("Accuracy, %", ("rows", ROW, "clusters", "accuracy"), percent, "k-means"),
)
CALIBRATION = (
    Measure("NLL before", ("energy", "trained", "calibration", "nll_before"), three, "Calibration"),
    Measure("after", ("energy", "trained", "calibration", "nll_after"), three, "Calibration"),
    Measure("ECE before, %", ("energy", "trained", "calibration", "ece_before"), percent, "Calibration"),
    Measure("after, %", ("energy", "trained", "calibration", "ece_after"), percent, "Calibration"),
    Measure("β", ("energy", "trained", "calibration", "beta"), three, "Calibration"),
    Measure("InfoNCE", ("energy", "canonical", "information", "infonce"), two, "Mutual information, nats"),
    Measure("NWJ", ("energy", "canonical", "information", "nwj"), two, "Mutual information, nats"),
    Measure("JSD", ("energy", "canonical", "information", "jsd"), two, "Mutual information, nats"),
)
COST = (
    Measure("Training, s", ("cost", "train_seconds"), "{:,.0f}".format),
    Measure("Images/s", ("cost", "images_per_second"), "{:,.0f}".format),
    Measure("MFLOPs an image", ("cost", "flops_per_image"), lambda v: f"{v / 1e6:,.3g}"),
    Measure("Parameters, thousands", ("cost", "parameters"), lambda v: f"{v / 1e3:,.0f}"),
)
SCORES = {"free_energy": "Free energy", "knn": "kNN", "mahalanobis": "Mahalanobis", "image_energy": "E(x)"}


def outlier_measures(groups: Sequence[Group], number: str) -> list[Measure]:
    """`number`, "auroc" or "fpr95", of every score on every other data set."""
    return [
        Measure(SCORES.get(score, score), ("ood", data, score, number), percent, data)
        for data in _keys(groups, "ood")
        for score in _keys(groups, "ood", data)
    ]


def strength_measures(groups: Sequence[Group]) -> list[Measure]:
    """How monotone the energy is in every augmentation's strength."""
    names = _keys(groups, "energy", "strength")
    return [Measure(name.replace("_", " "), ("energy", "strength", name, "monotone")) for name in names]


def measured(title: str, groups: Sequence[Group], measures: Sequence[Measure], *notes: str) -> Sheet | None:
    """The table of these measures, with the baselines that have them."""
    shown = [m for m in measures if any(group.values(*_path(m, "encoder")) for group in groups)]
    if not shown:
        return None
    entries = [
        Entry(name=g.name, look=g.look, cells=[_pooled(m, g.values(*_path(m, "encoder"))) for m in shown])
        for g in groups
    ]
    for kind in BASELINES if _one_setting(groups) else ():
        found = [_baseline(m, groups, kind) for m in shown]
        if any(found):
            cells = [_pooled(m, values) for m, values in zip(shown, found, strict=True)]
            entries.append(Entry(name=kind.replace("_", " "), cells=cells, baseline=True))
    several = any(len(group.runs) > 1 for group in groups)
    return Sheet(
        title=title,
        heads=[Head(key=m.key, title=m.title, group=m.group) for m in shown],
        entries=entries,
        first="Objective" if several else "Run",
        notes=[*notes, *([SEEDS] if several else [])],
    )


def _path(measure: Measure, row: str) -> tuple[str, ...]:
    return tuple(row if part == ROW else part for part in measure.path)


def _pooled(measure: Measure, values: Sequence[float]) -> Cell:
    """A mean over seeds and its spread."""
    if not values:
        return Cell()
    mean = fmean(values)
    bound = f"±{measure.show(stdev(values))}" if len(values) > 1 else ""
    return Cell(text=measure.show(mean).replace("-", "−"), value=mean, bound=bound)


def _baseline(measure: Measure, groups: Sequence[Group], kind: str) -> list[float]:
    """A baseline's number, once a seed."""
    if ROW not in measure.path:
        return []
    found = {
        run.results["config"]["seed"]: lookup(run.results, *_path(measure, kind)) for g in groups for run in g.runs
    }
    values = [float(value) for value in found.values() if isinstance(value, (int, float))]
    return values[:1] if kind == "raw_pixels" else values


def _one_setting(groups: Sequence[Group]) -> bool:
    """Whether all runs have the same baselines, up to their seeds."""
    settings = [{key: run.results["config"][key] for key in ("encoder", "views")} for g in groups for run in g.runs]
    return len({json.dumps(setting, sort_keys=True) for setting in settings}) == 1


def _keys(groups: Sequence[Group], *path: str) -> list[str]:
    """Keys at a path, in the order in which the runs have them."""
    found = [lookup(run.results, *path) for group in groups for run in group.runs]
    return list(dict.fromkeys(key for mapping in found if isinstance(mapping, Mapping) for key in mapping))


def sheets(groups: Sequence[Group]) -> dict[str, Sheet]:
    """All of these tables that have numbers, by their keys in comparison.json."""
    tables = {
        "calibration": measured(
            "Calibration and information",
            groups,
            CALIBRATION,
            "Calibration: log loss and calibration error of 1 / (1 + exp(β E + b)) before and after the fit of β and b "
            "on one half of the pairs, read on the other. Mutual information: lower bounds by the canonical energy.",
        ),
        "strength": measured(
            "Rank correlation of energy and augmentation strength",
            groups,
            strength_measures(groups),
            "Spearman; 1: the energy never falls as an augmentation grows stronger.",
        ),
        "health": measured(
            "Health of the features",
            groups,
            HEALTH,
            "Of clean held-out images. Spread is 1 where features use every dimension evenly, 0 after a collapse.",
        ),
        "probes": measured("Further probes", groups, PROBES, "Test images; every choice was made on validation."),
        "ood_auroc": measured(
            "AUROC of outliers, %",
            groups,
            outlier_measures(groups, "auroc"),
            "Images of other data sets against test images; high scores are outliers. 50 is chance.",
        ),
        "ood_fpr95": measured(
            "False positives at 95% of outliers found, %", groups, outlier_measures(groups, "fpr95"), "Low is good."
        ),
        "cost": measured(
            "Cost",
            groups,
            COST,
            "FLOPs are of one forward pass of the backbone. Times are comparable on one machine under one load.",
        ),
    }
    return {key: table for key, table in tables.items() if table is not None}

"""Every number that is compared: where it lies in evaluation.json, how it is shown, and which tables show it.

A new number is one entry of `MEASURES`; terminal, page, Markdown, JSON and studies read no other list.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from ssl_ebm.report.runs import lookup

ROW, ENERGY = "{row}", "{energy}"
two, three, whole = "{:.2f}".format, "{:.3g}".format, "{:,.0f}".format
TRIALS = {"test": "rows.{row}.linear.test.size", "energy": "rows.{row}.energy.images"}  # what proportions are of


def percent(value: float) -> str:
    """58.0 for .58."""
    return f"{100 * value:.1f}"


def ratio(value: float) -> str:
    """.771, and 1.000."""
    return f"{value:.3f}".replace("0.", ".", 1) if abs(value) < 0.9995 else f"{value:.3f}"


@dataclass(frozen=True)
class Measure:
    """One number of a run, or one word.

    Attributes:
        key: Unique; its name in the rows of comparison.json and in study.json.
        path: Where it lies in `EvaluatedRun.facts`. `{row}` is the encoder or a baseline; `{energy}` is that row's
            verification: by the trained energy, or by the cosine of a baseline's features. Any other name in braces
            stands for all keys that the runs have there, and makes a column of each.
        title: Its heading in the report.
        show: Value → text.
        tables: Those that show it: "results", "study", "findings" (which a study says in words too), or of
            `further.TABLES`.
        group: Heading above its own and its neighbours'.
        head: Its heading on a terminal.
        better: Values that are better; "" where neither are. Studies test and rank only measures that have it.
        trials: What a proportion is of, of `TRIALS`; such measures have intervals and best runs.
    """

    key: str
    path: str
    title: str
    show: Callable[[Any], str]
    tables: tuple[str, ...] = ()
    group: str = ""
    head: str = ""
    better: Literal["", "high", "low"] = ""
    trials: str = ""

    @property
    def is_text(self) -> bool:
        """Set to the left, sorted by letters."""
        return self.show is str

    @property
    def by_image(self) -> bool:
        """Whether it is an accuracy on test images; their predictions are in predictions.npz under its key."""
        return self.trials == "test"

    @property
    def of_baselines(self) -> bool:
        """Whether what needs no training has it too."""
        return ROW in self.path or ENERGY in self.path

    @property
    def place(self) -> str:
        """Its path without the row."""
        return self.path.replace(f"{ROW}.", "")

    def read(self, facts: Mapping[str, Any], row: str = "encoder") -> Any:
        """Its value for a row of evaluation.json; None where there is none."""
        return _read(self.path, facts, row)

    def text(self, value: Any) -> str:
        """How a value is shown."""
        if value is None:
            return "–"
        return self.show(value) if self.is_text else self.show(value).replace("-", "−")


RESULTS, STUDY, FINDINGS = ("results",), ("results", "study"), ("results", "study", "findings")
PAIRS, ACCURACY, SHOTS = "Energy of held-out pairs", "Accuracy, %", "Labels a class, accuracy, %"
FIT, NATS = "energy.trained.calibration", "Mutual information, nats"
MEASURES = (  # key, path, title, show, tables, group, head, better, trials
    Measure("objective", "objective.name", "Objective", str, RESULTS, "", "objective"),
    Measure("family", "run.family", "Family", str, RESULTS, "", "family"),
    Measure("epochs", "run.epochs", "Epochs", "{:.4g}".format, RESULTS, "", "epochs"),
    Measure("knn", "rows.{row}.knn.headline.accuracy", "kNN", percent, FINDINGS, ACCURACY, "kNN %", "high", "test"),
    Measure("linear", "rows.{row}.linear.test.top1", "Linear", percent, FINDINGS, ACCURACY, "linear %", "high", "test"),
    Measure("auroc", "{energy}.anchor_auroc", "AUROC per anchor", ratio, FINDINGS, PAIRS, "AUROC", "high", "energy"),
    Measure("auroc_global", "{energy}.global_auroc", "AUROC global", ratio, STUDY, PAIRS, "global", "high", "energy"),
    Measure("d_prime", "{energy}.d_prime", "d′", two, STUDY, PAIRS, "d′", "high"),
    Measure("recall", "{energy}.recall.1", "Recall@1, %", percent, STUDY, PAIRS, "R@1 %", "high", "energy"),
    Measure("rankme", "rows.{row}.health.rankme", "RankMe", "{:.1f}".format, (*STUDY, "health"), "", "RankMe"),
    Measure("speed", "run.images_per_second", "Images/s", whole, RESULTS, "", "img/s"),
    Measure("nll_before", f"{FIT}.nll_before", "NLL before", three, ("calibration",), "Calibration"),
    Measure("nll_after", f"{FIT}.nll_after", "after", three, ("calibration",), "Calibration"),
    Measure("ece_before", f"{FIT}.ece_before", "ECE before, %", percent, ("calibration",), "Calibration"),
    Measure("ece_after", f"{FIT}.ece_after", "after, %", percent, ("calibration",), "Calibration"),
    Measure("beta", f"{FIT}.beta", "β", three, ("calibration",), "Calibration"),
    Measure("infonce", "energy.canonical.information.infonce", "InfoNCE", two, ("calibration",), NATS),
    Measure("nwj", "energy.canonical.information.nwj", "NWJ", two, ("calibration",), NATS),
    Measure("jsd", "energy.canonical.information.jsd", "JSD", two, ("calibration",), NATS),
    Measure("strength", "energy.strength.{change}.monotone", "{change}", two, ("strength",)),
    Measure("alpha_req", "rows.{row}.health.alpha_req", "α-ReQ", two, ("health",)),
    Measure("lidar", "rows.{row}.health.lidar", "LiDAR", "{:.1f}".format, ("health",)),
    Measure("alignment", "rows.{row}.health.alignment", "Alignment", three, ("health",)),
    Measure("uniformity", "rows.{row}.health.uniformity", "Uniformity", two, ("health",)),
    Measure("spread", "rows.{row}.health.std", "Spread", two, ("health",)),
    Measure("dead", "rows.{row}.health.dead", "Dead, %", percent, ("health",)),
    Measure("ridge", "rows.{row}.ridge.test.top1", "Ridge", percent, ("probes",), ACCURACY),
    Measure("sgd", "rows.{row}.sgd.test.top1", "SGD", percent, ("probes",), ACCURACY),
    Measure("few_shot", "rows.{row}.few_shot.{shots}.mean", "{shots}", percent, ("probes",), SHOTS),
    Measure("nmi", "rows.{row}.clusters.nmi", "NMI", ratio, ("probes",), "k-means"),
    Measure("ari", "rows.{row}.clusters.ari", "ARI", ratio, ("probes",), "k-means"),
    Measure("cluster_accuracy", "rows.{row}.clusters.accuracy", "Accuracy, %", percent, ("probes",), "k-means"),
    Measure("ood_auroc", "ood.{data}.{score}.auroc", "{score}", percent, ("ood_auroc",), "{data}"),
    Measure("ood_fpr95", "ood.{data}.{score}.fpr95", "{score}", percent, ("ood_fpr95",), "{data}"),
    Measure("train_seconds", "cost.train_seconds", "Training, s", whole, ("cost",)),
    Measure("images_per_second", "cost.images_per_second", "Images/s", whole, ("cost",)),
    Measure("flops", "cost.flops_per_image", "MFLOPs an image", lambda v: f"{v / 1e6:,.3g}", ("cost",)),
    Measure("parameters", "cost.parameters", "Parameters, thousands", lambda v: whole(v / 1e3), ("cost",)),
)


def shown_in(table: str) -> list[Measure]:
    """The measures that a table shows, in its columns' order."""
    return [measure for measure in MEASURES if table in measure.tables]


def measure_of(key: str) -> Measure:
    """The measure of a key; of one that is not known, as another version may have written it, what its key says."""
    known = (measure for measure in MEASURES if measure.key == key)
    return next(known, None) or Measure(key, "", key.replace("_", " "), "{:.4g}".format)


def trials(results: Mapping[str, Any], row: str = "encoder") -> dict[str, int]:
    """How many test images and anchors the proportions of a row of evaluation.json are of."""
    return {kind: _read(path, results, row) for kind, path in TRIALS.items()}


def _read(path: str, facts: Mapping[str, Any], row: str) -> Any:
    energy = "energy.trained" if row == "encoder" else f"rows.{row}.energy"
    return lookup(facts, *path.replace(ROW, row).replace(ENERGY, energy).split("."))

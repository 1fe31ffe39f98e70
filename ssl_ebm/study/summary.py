"""A study's numbers as text: a table for a terminal, and what the tests found in words."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ssl_ebm.report.runs import lookup
from ssl_ebm.report.tables.measures import percent, ratio
from ssl_ebm.report.tables.text import WIDTH
from ssl_ebm.study.statistics import Analysis

Table = Mapping[str, Mapping[str, Mapping[str, Any]]]


@dataclass(frozen=True)
class Measure:
    """One number of a run.

    Attributes:
        key: In study.json.
        head: Of its column.
        of_row: From a row of evaluation.json and the verification that goes with it.
        show: Value → text.
        ranked: Whether more is better.
        by_image: Whether it is a mean over test images whose predictions are kept under `key`.
    """

    key: str
    head: str
    of_row: Callable[[Mapping[str, Any], Mapping[str, Any] | None], float | None]
    show: Callable[[float], str]
    ranked: bool = True
    by_image: bool = False

    def of_run(self, results: Mapping[str, Any]) -> float | None:
        """From evaluation.json."""
        return self.of_row(results["rows"]["encoder"], results["energy"]["trained"])


MEASURES = (
    Measure("knn", "kNN %", lambda row, energy: row["knn"]["headline"]["accuracy"], percent, by_image=True),
    Measure("linear", "linear %", lambda row, energy: row["linear"]["test"]["top1"], percent, by_image=True),
    Measure("auroc", "AUROC", lambda row, energy: lookup(energy, "anchor_auroc"), ratio),
    Measure("auroc_global", "global", lambda row, energy: lookup(energy, "global_auroc"), ratio),
    Measure("d_prime", "d′", lambda row, energy: lookup(energy, "d_prime"), "{:.2f}".format),
    Measure("recall", "R@1 %", lambda row, energy: lookup(energy, "recall", "1"), percent),
    Measure("rankme", "RankMe", lambda row, energy: row["health"]["rankme"], "{:.1f}".format, ranked=False),
)
TESTED = ("knn", "linear", "auroc")  # what is said in words too


def cells(table: Table, analyses: Mapping[str, Analysis]) -> list[list[str]]:
    """The table as text, its head first: means ± half of the 95% interval, * where tied with the best."""
    lines = [["objective", "seeds", *(measure.head for measure in MEASURES)]]
    for name, row in table.items():
        line = [name, str(len(row["linear"]["seeds"]))]
        for measure in MEASURES:
            value, analysis = row[measure.key], analyses.get(measure.key)
            if value["mean"] is None:
                line.append("–")
                continue
            text = measure.show(value["mean"])
            if value["low"] is not None:
                text += f" ±{measure.show((value['high'] - value['low']) / 2)}"
            line.append(text + ("*" if analysis is not None and name in analysis.tied else " "))
        lines.append(line)
    return lines


def findings(analyses: Mapping[str, Analysis], ranks: Mapping[str, Mapping[str, float]]) -> list[str]:
    """What the tests found, a sentence or two for each measure of `TESTED`."""
    said = []
    for measure in (m for m in MEASURES if m.key in TESTED and m.key in analyses):
        analysis = analyses[measure.key]
        best, *others = analysis.tied
        line = f"{measure.head.removesuffix(' %')}: {best} is best"
        all_tied = len(analysis.tied) == len(analysis.names) > 2
        tie = "all others" if all_tied else ", ".join(others)
        line += f", tied with {tie}" if others else ", and no other is tied with it"
        if analysis.power is not None:
            line += f"; a difference of {measure.show(analysis.power)} would have been found with probability .8"
        if measure.key in ranks:
            first = sorted(ranks[measure.key].items(), key=lambda item: item[1])[:3]
            line += f"; lowest mean ranks: {', '.join(f'{name} {rank:.1f}' for name, rank in first)}"
        said.append(line + ".")
    return said


def tuned(tuning: Mapping[str, Any] | None) -> list[str]:
    """What the search chose for each objective; nothing where there was none."""
    if tuning is None:
        return []
    trials = max(map(len, tuning["trials"].values()))
    chosen = "; ".join(
        f"{label} {', '.join(f'{key}={value}' for key, value in values.items())}"
        for label, values in tuning["chosen"].items()
    )
    return [f"Chosen by kNN on validation, {trials} trials an objective with seed {tuning['seed']}: {chosen}."]


NOTES = (
    "± is half of a 95% interval, Student's t. For accuracies it is of other seeds and other test images; for other "
    "columns, of other seeds on these images. Of one run there is none.",
    "* no difference from the best objective was found: paired over test images, adjusted by Holm over all pairs of "
    "objectives. A tie is not equality: more seeds find more.",
    "AUROC, d′ and recall are of trained energies of two views of held-out images; baselines have the cosine of their "
    "features. Raw energies and losses of different objectives are not compared.",
)


def as_text(table: Table, analyses: Mapping[str, Analysis], said: Sequence[str], warnings: Sequence[str]) -> str:
    """For a terminal."""
    lines = cells(table, analyses)
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    text = [
        "  ".join([line[0].ljust(widths[0]), *(t.rjust(w) for t, w in zip(line[1:], widths[1:], strict=True))]).rstrip()
        for line in lines
    ]
    rule = "─" * (sum(widths) + 2 * len(widths) - 2)
    below = [*said, *NOTES, *(f"Warning: {warning}" for warning in warnings)]
    return "\n".join(
        [text[0], rule, *text[1:], rule, *(textwrap.fill(n, WIDTH, subsequent_indent="  ") for n in below)]
    )

"""A study's numbers as text: a table for a terminal, and what the tests found in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ssl_ebm.report.tables.measures import Measure, shown_in
from ssl_ebm.report.tables.text import text_table
from ssl_ebm.study.statistics import Analysis

Table = Mapping[str, Mapping[str, Mapping[str, Any]]]
NOTES = (
    "± is half of a 95% interval, Student's t. For accuracies it is of other seeds and other test images; for other "
    "columns, of other seeds on these images. Of one run there is none.",
    "* no difference from the best objective was found: paired over test images, adjusted by Holm over all pairs of "
    "objectives. A tie is not equality: more seeds find more.",
    "AUROC, d′ and recall are of trained energies of two views of held-out images; baselines have the cosine of their "
    "features. Raw energies and losses of different objectives are not compared.",
)


def as_text(table: Table, analyses: Mapping[str, Analysis], said: Sequence[str], warnings: Sequence[str]) -> str:
    """For a terminal: means ± half of the 95% interval, * where tied with the best."""
    heads = ["objective", "seeds", *(measure.head for measure in shown_in("study"))]
    lines = [
        [name, str(len(row["linear"]["seeds"])), *(_cell(name, row, m, analyses.get(m.key)) for m in shown_in("study"))]
        for name, row in table.items()
    ]
    return text_table([[heads], lines], [*said, *NOTES, *(f"Warning: {warning}" for warning in warnings)])


def _cell(name: str, row: Mapping[str, Mapping[str, Any]], measure: Measure, analysis: Analysis | None) -> str:
    value = row[measure.key]
    if value["mean"] is None:
        return measure.text(None)
    half = "" if value["low"] is None else f" ±{measure.text((value['high'] - value['low']) / 2)}"
    return measure.text(value["mean"]) + half + ("*" if analysis is not None and name in analysis.tied else " ")


def findings(analyses: Mapping[str, Analysis], ranks: Mapping[str, Mapping[str, float]]) -> list[str]:
    """What the tests found, a sentence or two for each measure that is said in words."""
    said = []
    for measure in (m for m in shown_in("findings") if m.key in analyses):
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

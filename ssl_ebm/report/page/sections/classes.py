"""Accuracy of each class, and the most frequent mistakes."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean
from typing import Any

import numpy as np

from ssl_ebm.report.page.sections.layout import ShadedCell, class_names, opacity
from ssl_ebm.report.runs import Group
from ssl_ebm.report.tables.measures import percent

NUMBERED_CLASSES = 20  # a strip of more classes has colours only
MISTAKES = 3  # named of each group


def classes(groups: Sequence[Group]) -> dict[str, Any]:
    """The linear probe's accuracy on every class, a row a group, and its worst confusions; means over seeds."""
    tests = [[run.results["rows"]["encoder"]["linear"]["test"] for run in group.runs] for group in groups]
    accuracies = [_means([test["per_class"] for test in seeds]) for seeds in tests]
    names = class_names(groups, len(accuracies[0]))
    numbers = [accuracy for row in accuracies for accuracy in row if accuracy is not None] or [0.0]
    numbered = len(names) <= NUMBERED_CLASSES

    def cell(name: str, accuracy: float | None) -> ShadedCell:
        if accuracy is None:
            return ShadedCell(text="–" if numbered else "")
        return ShadedCell(
            text=percent(accuracy) if numbered else "",
            opacity=opacity(accuracy, min(numbers), max(numbers)),
            hint=f"{name} {percent(accuracy)}",
        )

    rows = [
        {
            "group": group,
            "cells": [cell(*pair) for pair in zip(names, accuracy, strict=True)],
            "mistakes": _mistakes([test["confusion"] for test in seeds], names),
        }
        for group, accuracy, seeds in zip(groups, accuracies, tests, strict=True)
    ]
    return {"names": names, "numbered": numbered, "rows": rows}


def _means(rows: Sequence[Sequence[float | None]]) -> list[float | None]:
    """The mean of each column; None where a row has no value."""
    columns = [[value for value in column if value is not None] for column in zip(*rows, strict=True)]
    return [fmean(values) if len(values) == len(rows) else None for values in columns]


def _mistakes(confusions: Sequence[Sequence[Sequence[int]]], names: Sequence[str]) -> str:
    """The likeliest confusions as `true as predicted`, with their part of the true class; counts are summed."""
    counts = np.asarray(confusions, dtype=float).sum(0)
    part = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    np.fill_diagonal(part, 0)
    worst = [divmod(int(i), len(names)) for i in np.argsort(-part, axis=None, kind="stable")[:MISTAKES]]
    mistakes = [f"{names[a]} as {names[b]} {percent(part[a, b])}%" for a, b in worst if part[a, b] > 0]
    return "; ".join(mistakes) or "none"

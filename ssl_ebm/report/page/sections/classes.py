"""Accuracy of each class, and the most frequent mistakes."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from statistics import fmean

import numpy as np

from ssl_ebm.report.page.sections.layout import scroll, shade
from ssl_ebm.report.page.sections.pictures import class_names
from ssl_ebm.report.runs import Group
from ssl_ebm.report.tables.measures import percent

NUMBERED_CLASSES = 20  # a strip of more classes has colours only


def classes(groups: Sequence[Group]) -> str:
    """Means over a group's seeds."""
    tests = [[run.results["rows"]["encoder"]["linear"]["test"] for run in group.runs] for group in groups]
    values = [_means([test["per_class"] for test in own]) for own in tests]
    names = class_names(groups) or [f"class {c}" for c in range(len(values[0]))]
    known = [value for own in values for value in own if value is not None]
    numbered = len(names) <= NUMBERED_CLASSES

    def cell(value: float | None, name: str) -> str:
        if value is None:
            return "<td>–</td>" if numbered else "<td></td>"
        text = f'title="{escape(name)} {percent(value)}"'
        return f'<td {text} style="{shade(value, min(known), max(known))}">{percent(value) if numbered else ""}</td>'

    heads = "".join(f'<th scope="col">{escape(name)}</th>' for name in names) if numbered else ""
    head = f"<thead><tr><td></td>{heads}</tr></thead>" if heads else ""
    body = "".join(
        f'<tr><th scope="row">{group.look.swatch()}{escape(group.name)}</th>'
        + "".join(cell(value, name) for value, name in zip(own, names, strict=True))
        + "</tr>"
        for group, own in zip(groups, values, strict=True)
    )
    mistakes = "".join(
        f"<li>{group.look.swatch()}<strong>{escape(group.name)}</strong>: "
        f"{escape(_mistakes([test['confusion'] for test in own], names))}</li>"
        for group, own in zip(groups, tests, strict=True)
    )
    table = f'<table class="heat classes{"" if numbered else " many"}">{head}<tbody>{body}</tbody></table>'
    return (
        "<p>Accuracy of the linear probe on test images of each class, %.</p>"
        f'{scroll(table, "Accuracy of each class")}<h3>Most frequent mistakes</h3><ul class="notes">{mistakes}</ul>'
    )


def _means(rows: Sequence[Sequence[float | None]]) -> list[float | None]:
    """Of each column; None where a seed has no value."""
    known = [[value for value in column if value is not None] for column in zip(*rows, strict=True)]
    return [fmean(values) if len(values) == len(rows) else None for values in known]


def _mistakes(confusions: Sequence[Sequence[Sequence[int]]], names: Sequence[str], count: int = 3) -> str:
    """`true as predicted`, by part of the true class."""
    counts = np.asarray(confusions, dtype=float).sum(0)
    part = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    np.fill_diagonal(part, 0)
    worst = [divmod(int(i), len(names)) for i in np.argsort(-part, axis=None, kind="stable")[:count]]
    named = [f"{names[a]} as {names[b]} {percent(part[a, b])}%" for a, b in worst if part[a, b] > 0]
    return "; ".join(named) or "none"

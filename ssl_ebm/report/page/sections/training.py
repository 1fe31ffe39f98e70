"""Curves of training: what is comparable in one plot, what is not in one plot a run."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ssl_ebm.report.page.figures.axes import number
from ssl_ebm.report.page.figures.curves import Line, line_chart
from ssl_ebm.report.page.sections.layout import folded, legend, many, panels
from ssl_ebm.report.runs import Group


def training(groups: Sequence[Group]) -> str:
    """Accuracy together; energies and losses apart."""
    joint = together(groups, "knn_validation", "validation kNN, %", lambda v: number(100 * v))
    text = "<p>kNN accuracy is of the validation split with part of the bank.</p>"
    shown = f'{text}{legend(groups)}<div class="panels wide">{joint}</div>' if joint else ""
    energy, loss = (
        _alone(groups, keys, title)
        for keys, title in ((["energy_positive", "energy_negative"], "mean energy"), (["loss"], "loss"))
    )
    if energy:
        energy = (
            "<p>Means of training batches, positives in the run's colour and negatives, where an objective has any, in "
            f"grey. Every run has an axis of its own.</p>{energy}"
        )
    if loss:
        loss = (
            "<p>Losses of two objectives are different quantities: each shows its own run's progress only.</p>" + loss
        )
    fold = many(groups)
    return (
        shown + folded("Energy of positives and negatives", energy, fold=fold) + folded("Loss", loss, fold=fold)
        or '<p class="muted">Not logged.</p>'
    )


def together(groups: Sequence[Group], key: str, title: str, show: Callable[[float], str] = number) -> str:
    """A metric of all runs by epoch; other seeds faint, where there are few groups. Empty where it was not logged."""
    lines = []
    for group in groups:
        first, *others = (run.curve(key) for run in group.runs)
        lines.append(Line(first, group.look, group.name))
        if not many(groups):
            lines += [Line(points, group.look, faint=True) for points in others]
    if not any(line.points for line in lines):
        return ""
    chart = line_chart(
        lines, title=f"{title} by epoch, all runs", x_label="epoch", y_label=title, show=show, named=many(groups)
    )
    return f"<figure>{chart}</figure>"


def _alone(groups: Sequence[Group], keys: Sequence[str], title: str) -> str:
    def draw(group: Group) -> tuple[str, str]:
        lines = [Line(group.first.curve(key), group.look if n == 0 else None) for n, key in enumerate(keys)]
        if not any(line.points for line in lines):
            return "", ""
        text = f"{title} of {group.name} by epoch"
        return "", line_chart(lines, title=text, x_label="epoch", y_label=title, size=(240, 160))

    return panels(groups, draw, "small")

"""The report's sections that show runs side by side, as HTML."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from html import escape
from math import log10
from typing import Any

import numpy as np

from ssl_ebm.evaluation.figures import Line, line_chart, number, png_uri, ridges, swatch
from ssl_ebm.evaluation.table import Run, percent, ratio

KINDS = {
    "positive": "two views of one image",
    "same_class": "two images of one class",
    "different_class": "two images of different classes",
}
NUMBERED_CLASSES = 20  # a strip of more classes has colours only


def _panels(runs: Sequence[Run], draw: Callable[[int, Run], tuple[str, str]], style: str = "panels") -> str:
    """One figure a run: a line of text, and a picture."""
    figures = []
    for i, run in enumerate(runs):
        text, picture = draw(i, run)
        line = f'<span class="muted">{text}</span>' if text else ""
        caption = f"<figcaption>{swatch(i)}<strong>{escape(run.name)}</strong> {line}</figcaption>"
        figures.append(f"<figure>{caption}{picture}</figure>")
    return f'<div class="{style}">{"".join(figures)}</div>'


def energies(runs: Sequence[Run]) -> str:
    """Histograms of the trained energy."""

    def draw(i: int, run: Run) -> tuple[str, str]:
        trained, features = run.results["energy"]["trained"], run.results["energy"]["features"]
        d_prime = "–" if trained["d_prime"] is None else f"{trained['d_prime']:.2f}".replace("-", "−")
        caption = (
            f"AUROC {ratio(trained['anchor_auroc'])} per anchor, {ratio(trained['global_auroc'])} global; d′ {d_prime}."
            f" Cosine of features: AUROC {ratio(features['anchor_auroc'])}"
        )
        histograms = [(text, trained["histograms"][kind]) for kind, text in KINDS.items()]
        expression = run.results["objective"]["energy"]
        title = f"Energies of three kinds of pairs under {run.name}: {expression}"
        return caption, ridges(histograms, trained["edges"], run=i, title=title, x_label=f"E = {expression}")

    return (
        "<p>Two views of one image should lie to the left of all others. Images of one class are not asked to; where "
        "they do, the energy has found the classes by itself. Each ridge is scaled to its own peak, its tick is the "
        f"median; the outer 0.1% are cut. Axes of two runs have nothing in common.</p>{_panels(runs, draw)}"
    )


def training(runs: Sequence[Run]) -> str:
    """Curves: what is comparable in one plot, what is not in one plot a run."""

    def together(key: str, title: str, show: Callable[[float], str]) -> str:
        lines = [Line(points, i) for i, run in enumerate(runs) if (points := run.curve(key))]
        if not lines:
            return ""
        chart = line_chart(lines, title=f"{title} by epoch, all runs", x_label="epoch", y_label=title, show=show)
        return f"<figure>{chart}</figure>"

    def alone(keys: Sequence[str], title: str) -> str:
        def draw(i: int, run: Run) -> tuple[str, str]:
            lines = [Line(run.curve(key), i if n == 0 else None) for n, key in enumerate(keys)]
            if not any(line.points for line in lines):
                return "", '<p class="muted">not logged</p>'
            text = f"{title} of {run.name} by epoch"
            return "", line_chart(lines, title=text, x_label="epoch", y_label=title, size=(240, 160))

        return _panels(runs, draw, "panels small")

    legend = "".join(f"<li>{swatch(i)}{escape(run.name)}</li>" for i, run in enumerate(runs))
    joint = together("knn_validation", "validation kNN, %", lambda v: number(100 * v)) + together(
        "rankme", "RankMe", number
    )
    return (
        "<p>kNN accuracy is of the validation split with part of the bank; RankMe is of the backbone's features of a "
        f'training batch.</p><ul class="legend">{legend}</ul><div class="panels wide">{joint}</div>'
        "<h3>Energy of positives and negatives</h3><p>Means of training batches, positives in the run's colour and "
        "negatives, where an objective has any, in grey. Every run has an axis of its own.</p>"
        f"{alone(['energy_positive', 'energy_negative'], 'mean energy')}"
        "<h3>Loss</h3><p>Losses of two objectives are different quantities: each shows its own run's progress only.</p>"
        f"{alone(['loss'], 'loss')}"
    )


def probes(runs: Sequence[Run]) -> str:
    """Grids of kNN and sweeps of the linear probe, on validation."""
    encoders = [run.results["rows"]["encoder"] for run in runs]
    grids = [np.column_stack((e["knn"]["validation"]["weighted"], e["knn"]["validation"]["uniform"])) for e in encoders]
    low, high = min(grid.min() for grid in grids), max(grid.max() for grid in grids)
    sweep = [value for encoder in encoders for value in encoder["linear"]["validation"]]
    margin = 0.06 * (max(sweep) - min(sweep)) or 0.05

    def draw(i: int, run: Run) -> tuple[str, str]:
        knn, linear = encoders[i]["knn"], encoders[i]["linear"]
        points = [(log10(c), value) for c, value in zip(linear["strengths"], linear["validation"], strict=True)]
        chart = line_chart(
            [Line(points, i, ring=linear["strengths"].index(linear["strength"]))],
            title=f"Validation accuracy of {run.name}'s linear probe by inverse regularisation",
            x_label="C, inverse L2 strength",
            y_label="linear probe, validation, %",
            size=(360, 160),
            show=lambda v: number(100 * v),
            y_domain=(min(sweep) - margin, max(sweep) + margin),
            log_x=True,
        )
        test = linear["test"]
        caption = (
            f"On test: kNN {percent(knn['headline']['accuracy'])}, of the choice {percent(knn['chosen']['accuracy'])}; "
            f"linear {percent(test['top1'])}, its calibration error {percent(test['ece'])}"
        )
        return caption, _knn_grid(knn, grids[i], low, high) + chart

    return (
        "<p>Accuracy on the validation split, %, by which k, T and C are chosen: the choice is framed or circled, the "
        "fixed headline setting underlined. Test images are read once, with the choice.</p>" + _panels(runs, draw)
    )


def _short(value: float) -> str:
    """.07 for .07, without trailing zeros."""
    return number(value).removeprefix("0")


def _knn_grid(knn: Mapping[str, Any], grid: np.ndarray, low: float, high: float) -> str:
    validation = knn["validation"]
    temperatures = [*validation["temperatures"], None]

    def cell(k: int, temperature: float | None, value: float) -> str:
        kinds = [
            kind for kind in ("chosen", "headline") if (knn[kind]["k"], knn[kind]["temperature"]) == (k, temperature)
        ]
        classes = f' class="{" ".join(kinds)}"' if kinds else ""
        return f'<td{classes} style="{_shade(value, low, high)}">{percent(value)}</td>'

    heads = "".join(f'<th scope="col">{"uniform" if t is None else f"T {_short(t)}"}</th>' for t in temperatures)
    body = ""
    for k, used, values in zip(validation["ks"], validation["ks_used"], grid, strict=True):
        name = f"k {k}" if k == used else f"k {k} (bank {used})"
        row = "".join(cell(k, t, float(v)) for t, v in zip(temperatures, values, strict=True))
        body += f'<tr><th scope="row">{name}</th>{row}</tr>'
    return f'<table class="heat grid-table"><thead><tr><td></td>{heads}</tr></thead><tbody>{body}</tbody></table>'


def _shade(value: float, low: float, high: float) -> str:
    """Opacity of a cell's colour: text stays legible on it."""
    return f"--v:{0.04 + 0.46 * (value - low) / max(high - low, 1e-9):.2f}"


def neighbours(runs: Sequence[Run]) -> str:
    """Pictures of what each energy holds compatible."""

    def draw(i: int, run: Run) -> tuple[str, str]:
        if run.gallery is None:
            return "", '<p class="muted">no gallery.npz: evaluate the run again with --force</p>'
        labels, classes = run.gallery["labels"], run.gallery["classes"]
        wrong, count = int((labels[:, 1:] != labels[:, :1]).sum()), labels[:, 1:].size
        caption = f"{wrong} of {count} neighbours are of another class"
        digits = _decimals(run.gallery["energies"][:, 1:])
        cells = []
        for images, own, energies in zip(run.gallery["images"], labels, run.gallery["energies"], strict=True):
            query = escape(str(classes[own[0]]))
            cells.append(
                f'<div class="query"><img src="{png_uri(images[0])}" alt="{query}" title="{query}">{query}</div>'
            )
            for image, label, energy in zip(images[1:], own[1:], energies[1:], strict=True):
                name = escape(str(classes[label]))
                text = f"{energy:.{digits}f}".replace("-", "−")
                kind = ' class="wrong"' if label != own[0] else ""
                cells.append(
                    f'<div{kind}><img src="{png_uri(image)}" alt="{name}" title="{name}, E = {text}">{text}</div>'
                )
        return caption, f'<div class="gallery" style="--neighbours:{labels.shape[1] - 1}">{"".join(cells)}</div>'

    return (
        "<p>Left, a test image of each of the first classes; beside it the test images of lowest energy with it, best "
        "first, and their energies. Outlined: another class than the query's. Names appear on pointing.</p>"
        f"{_panels(runs, draw, 'panels wide')}"
    )


def _decimals(energies: np.ndarray) -> int:
    """So many that typical neighbours' energies differ in two digits."""
    spread = float(np.median(np.ptp(energies, axis=1))) if energies.size else 1.0
    return int(np.clip(np.ceil(1 - log10(max(spread, 1e-9))), 0, 4))


def classes(runs: Sequence[Run]) -> str:
    """Accuracy of each class, and the most frequent mistakes."""
    tests = [run.results["rows"]["encoder"]["linear"]["test"] for run in runs]
    names = next((list(map(str, run.gallery["classes"])) for run in runs if run.gallery is not None), None)
    names = names or [f"class {c}" for c in range(len(tests[0]["per_class"]))]
    known = [value for test in tests for value in test["per_class"] if value is not None]
    many = len(names) > NUMBERED_CLASSES

    def cell(value: float | None, name: str) -> str:
        if value is None:
            return "<td>–</td>" if not many else "<td></td>"
        text = f'title="{escape(name)} {percent(value)}"'
        return f'<td {text} style="{_shade(value, min(known), max(known))}">{"" if many else percent(value)}</td>'

    heads = "" if many else "".join(f'<th scope="col">{escape(name)}</th>' for name in names)
    head = f"<thead><tr><td></td>{heads}</tr></thead>" if heads else ""
    body = "".join(
        f'<tr><th scope="row">{swatch(i)}{escape(run.name)}</th>'
        + "".join(cell(value, name) for value, name in zip(test["per_class"], names, strict=True))
        + "</tr>"
        for i, (run, test) in enumerate(zip(runs, tests, strict=True))
    )
    mistakes = "".join(
        f"<li>{swatch(i)}<strong>{escape(run.name)}</strong>: {escape(_mistakes(test['confusion'], names))}</li>"
        for i, (run, test) in enumerate(zip(runs, tests, strict=True))
    )
    return (
        "<p>Accuracy of the linear probe on test images of each class, %.</p>"
        f'<div class="scroll" tabindex="0" role="region" aria-label="Accuracy of each class">'
        f'<table class="heat classes{" many" if many else ""}">{head}<tbody>{body}</tbody></table></div>'
        f'<h3>Most frequent mistakes</h3><ul class="notes">{mistakes}</ul>'
    )


def _mistakes(confusion: Sequence[Sequence[int]], names: Sequence[str], count: int = 3) -> str:
    """`true as predicted`, by part of the true class."""
    counts = np.asarray(confusion, dtype=float)
    part = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    np.fill_diagonal(part, 0)
    worst = [divmod(int(i), len(names)) for i in np.argsort(-part, axis=None, kind="stable")[:count]]
    named = [f"{names[a]} as {names[b]} {percent(part[a, b])}%" for a, b in worst if part[a, b] > 0]
    return "; ".join(named) or "none"

"""Results of runs → one self-contained HTML file, for a screen of any width and for paper."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from importlib import resources
from typing import Any

from ssl_ebm.report.page.sections.classes import classes
from ssl_ebm.report.page.sections.cost import cost
from ssl_ebm.report.page.sections.energies import energies
from ssl_ebm.report.page.sections.maps import maps
from ssl_ebm.report.page.sections.outliers import outliers
from ssl_ebm.report.page.sections.pictures import neighbours, samples
from ssl_ebm.report.page.sections.probes import probes
from ssl_ebm.report.page.sections.protocols import facts, protocols
from ssl_ebm.report.page.sections.results import results
from ssl_ebm.report.page.sections.similarity import similarity
from ssl_ebm.report.page.sections.spectrum import spectrum
from ssl_ebm.report.page.sections.strength import strength
from ssl_ebm.report.page.sections.training import training
from ssl_ebm.report.runs import EvaluatedRun, Group, Study, group
from ssl_ebm.report.tables.further import sheets
from ssl_ebm.report.tables.intervals import Row

GUIDE = """Every objective here gives <em>low energy to what is compatible</em>, two views of one image, and differs in
how it keeps the energy from being low everywhere. The table sets rank measures of each trained energy on held-out pairs
beside the accuracy of the frozen features. Energies of different objectives differ in zero and scale: compare AUROC, d′
and recall between runs, and read every energy axis by itself."""
POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:"
WARNINGS = 6  # more are folded away


def page(
    runs: Sequence[EvaluatedRun],
    rows: Sequence[Row],
    *,
    notes: Sequence[str],
    warnings: Sequence[str],
    study: Study | None = None,
    matrices: Mapping[str, Any] | None = None,
) -> str:
    """The report; pictures of features and samples are read from the runs' directories.

    Args:
        runs: At least one.
        rows: Of the table of runs.
        notes: Its footnotes.
        warnings: These stand at the top.
        study: Results over seeds: runs are then shown by objective, the lowest seed standing for all in pictures.
        matrices: Similarities of what is shown as one, as `alike` gives them.
    """
    groups = group(runs, study)
    parts = _sections(groups, runs, rows, notes, study, matrices)
    assets, title = resources.files("ssl_ebm.report.page"), _title(groups, runs, study)
    body = "".join(
        f'<section id="{key}"><h2><span class="number">{i}</span>{name}</h2>{content}</section>'
        for i, (key, (name, content)) in enumerate(parts.items(), 1)
    )
    links = "".join(f'<li><a href="#{key}">{name}</a></li>' for key, (name, _) in parts.items())
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{POLICY}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
{assets.joinpath("report.css").read_text(encoding="utf-8")}</style>
</head>
<body>
<header>
<p class="kicker">Self-supervised learning as energies</p>
<h1>{title}</h1>
<p>{GUIDE}</p>
{facts(runs)}
{_warnings(list(dict.fromkeys([*warnings, *(study.warnings if study else ())])))}
</header>
<nav aria-label="Sections"><ul>{links}</ul></nav>
<main>
{body}
</main>
<footer>Made by ssl_ebm from evaluation.json, metrics.jsonl and config.yaml of each run; the numbers are in
comparison.json.</footer>
<script>
{assets.joinpath("report.js").read_text(encoding="utf-8")}</script>
</body>
</html>
"""


def _title(groups: Sequence[Group], runs: Sequence[EvaluatedRun], study: Study | None) -> str:
    data = escape(runs[0].results["protocol"]["data"])
    if study is not None:
        return f"{escape(study.name)}: {len(groups)} objectives on {data}, {len(runs)} runs, compared as energies"
    if len(runs) > 1:
        return f"{len(runs)} runs on {data}, compared as energies"
    return f"{escape(runs[0].name)} on {data}, as an energy"


def _sections(
    groups: Sequence[Group],
    runs: Sequence[EvaluatedRun],
    rows: Sequence[Row],
    notes: Sequence[str],
    study: Study | None,
    matrices: Mapping[str, Any] | None,
) -> dict[str, tuple[str, str]]:
    """Headings and contents of the sections that have any, by their anchors."""
    tables = sheets(groups)
    every = {
        "results": ("Results", results(rows, notes, groups, study)),
        "energies": ("Energy of held-out pairs", energies(groups, tables)),
        "strength": ("Energy against augmentation", strength(groups, tables)),
        "training": ("Training", training(groups)),
        "spectrum": ("Rank and spectrum", spectrum(groups, tables)),
        "probes": ("kNN and linear probe", probes(groups, tables)),
        "neighbours": ("Nearest neighbours by energy", neighbours(groups)),
        "maps": ("Map of the features", maps(groups)),
        "outliers": ("Outliers", outliers(groups, tables)),
        "similarity": ("Similarity", similarity(matrices)),
        "samples": ("Samples", samples(groups)),
        "cost": ("Cost", cost(groups, tables, study)),
        "classes": ("Accuracy by class", classes(groups)),
        "protocol": ("Protocol and configs", protocols(groups, study)),
    }
    return {key: part for key, part in every.items() if part[1]}


def _warnings(warnings: Sequence[str]) -> str:
    if not warnings:
        return ""
    items = [f"<li>{escape(warning)}</li>" for warning in warnings]
    shown, more = "".join(items[:WARNINGS]), "".join(items[WARNINGS:])
    rest = f"<details><summary>{len(items) - WARNINGS} more</summary><ul>{more}</ul></details>" if more else ""
    return f'<aside class="warnings"><strong>Before comparing</strong><ul>{shown}</ul>{rest}</aside>'

"""Results of runs → one self-contained HTML file, for a screen of any width and for paper.

`sections/` prepares the values that the page shows, `figures/` draws charts, `templates/` is the HTML around them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from ssl_ebm.report.page.sections.classes import classes
from ssl_ebm.report.page.sections.cost import cost
from ssl_ebm.report.page.sections.energies import energies
from ssl_ebm.report.page.sections.layout import head_groups, legend, many, table_style
from ssl_ebm.report.page.sections.maps import maps
from ssl_ebm.report.page.sections.neighbours import neighbours
from ssl_ebm.report.page.sections.outliers import outliers
from ssl_ebm.report.page.sections.probes import probes
from ssl_ebm.report.page.sections.protocols import facts, protocols
from ssl_ebm.report.page.sections.results import results
from ssl_ebm.report.page.sections.samples import samples
from ssl_ebm.report.page.sections.similarity import similarity
from ssl_ebm.report.page.sections.spectrum import spectrum
from ssl_ebm.report.page.sections.strength import strength
from ssl_ebm.report.page.sections.training import training
from ssl_ebm.report.runs import EvaluatedRun, Group, Study, group
from ssl_ebm.report.tables.further import sheets
from ssl_ebm.report.tables.intervals import Row

TITLES = {  # of the sections, by the names of their templates
    "results": "Results",
    "energies": "Energy of held-out pairs",
    "strength": "Energy against augmentation",
    "training": "Training",
    "spectrum": "Rank and spectrum",
    "probes": "kNN and linear probe",
    "neighbours": "Nearest neighbours by energy",
    "maps": "Map of the features",
    "outliers": "Outliers",
    "similarity": "Similarity",
    "samples": "Samples",
    "cost": "Cost",
    "classes": "Accuracy by class",
    "protocol": "Protocol and configs",
}
TEMPLATES = Environment(
    autoescape=True,
    undefined=StrictUndefined,
    loader=PackageLoader("ssl_ebm.report.page"),
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
)
TEMPLATES.filters |= {"head_groups": head_groups, "table_style": table_style}


def page(
    runs: Sequence[EvaluatedRun],
    rows: Sequence[Row],
    *,
    notes: Sequence[str],
    warnings: Sequence[str],
    study: Study | None = None,
    matrices: Mapping[str, Any] | None = None,
) -> str:
    """The report as HTML; pictures of features and samples are read from the runs' directories.

    Args:
        runs: At least one.
        rows: Runs and baselines of the table of results.
        notes: Footnotes of that table.
        warnings: Sentences that stand above all results.
        study: Results over seeds: runs are then shown by objective, the lowest seed standing for all in pictures.
        matrices: Similarities of the groups (`run_similarities`); None: there are none.
    """
    groups = group(runs, study)
    tables = sheets(groups)
    values = {
        "results": results(rows, notes, groups, study),
        "energies": energies(groups, tables),
        "strength": strength(groups, tables),
        "training": training(groups),
        "spectrum": spectrum(groups, tables),
        "probes": probes(groups, tables),
        "neighbours": neighbours(groups),
        "maps": maps(groups),
        "outliers": outliers(groups, tables),
        "similarity": similarity(matrices),
        "samples": samples(groups),
        "cost": cost(groups, tables, study),
        "classes": classes(groups),
        "protocol": protocols(groups, study),
    }
    assets = resources.files("ssl_ebm.report.page")
    return TEMPLATES.get_template("page.html").render(
        title=_title(groups, runs, study),
        facts=facts(runs),
        warnings=list(dict.fromkeys([*warnings, *(study.warnings if study else ())])),
        sections=[(key, TITLES[key], section(key, content, groups)) for key, content in values.items() if content],
        style=Markup(assets.joinpath("report.css").read_text(encoding="utf-8")),
        script=Markup(assets.joinpath("report.js").read_text(encoding="utf-8")),
    )


def section(key: str, values: Mapping[str, Any], groups: Sequence[Group]) -> Markup:
    """The HTML of a section: its template with its values, with the groups' legend, and with whether they are many."""
    shared = {"many": many(groups), "looks": legend(groups)}
    return Markup(TEMPLATES.get_template(f"{key}.html").render(shared | dict(values)))


def _title(groups: Sequence[Group], runs: Sequence[EvaluatedRun], study: Study | None) -> str:
    data = runs[0].results["protocol"]["data"]
    if study is not None:
        return f"{study.name}: {len(groups)} objectives on {data}, {len(runs)} runs, compared as energies"
    if len(runs) > 1:
        return f"{len(runs)} runs on {data}, compared as energies"
    return f"{runs[0].name} on {data}, as an energy"

"""Results of runs → one self-contained HTML file, for a screen of any width and for paper."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from importlib import resources
from itertools import groupby
from typing import Any

from ssl_ebm.evaluation import sections
from ssl_ebm.evaluation.figures import swatch
from ssl_ebm.evaluation.table import Column, Row, Run, leaders, percent, shown_columns

GUIDE = """Every objective here gives <em>low energy to what is compatible</em>, two views of one image, and differs in
how it keeps the energy from being low everywhere. The table sets rank measures of each trained energy on held-out pairs
beside the accuracy of the frozen features. Energies of different objectives differ in zero and scale: compare AUROC, d′
and recall between runs, and read every energy axis by itself."""
POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:"


def page(runs: Sequence[Run], rows: Sequence[Row], *, notes: Sequence[str], warnings: Sequence[str]) -> str:
    """The report: `rows` are the table's, `notes` its footnotes, `warnings` stand at the top."""
    parts: dict[str, tuple[str, str]] = {
        "results": ("Results", _results(rows, notes)),
        "energies": ("Energy of held-out pairs", sections.energies(runs)),
        "training": ("Training", sections.training(runs)),
        "probes": ("kNN and linear probe", sections.probes(runs)),
        "neighbours": ("Nearest neighbours by energy", sections.neighbours(runs)),
        "classes": ("Accuracy by class", sections.classes(runs)),
        "protocol": ("Protocol and configs", _protocols(runs)),
    }
    data, assets = escape(runs[0].results["protocol"]["data"]), resources.files("ssl_ebm.evaluation")
    title = (
        f"{len(runs)} runs on {data}, compared as energies"
        if len(runs) > 1
        else f"{escape(runs[0].name)} on {data}, as an energy"
    )
    body = "".join(
        f'<section id="{key}"><h2><span class="number">{i}</span>{name}</h2>{content}</section>'
        for i, (key, (name, content)) in enumerate(parts.items(), 1)
    )
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
{_facts(runs)}
{_warnings(warnings)}
<nav aria-label="Sections">{" ".join(f'<a href="#{key}">{name}</a>' for key, (name, _) in parts.items())}</nav>
</header>
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


def _facts(runs: Sequence[Run]) -> str:
    protocol = runs[0].results["protocol"]
    sizes, config = protocol["sizes"], [run.results["config"] for run in runs]
    facts = {
        "Data": f"{protocol['data']}, split seed {protocol['split_seed']}",
        "Images": f"{sizes['train']:,} train, {sizes['validation']:,} validation, {sizes['test']:,} test",
        "Encoder": _common(c["encoder"]["name"] for c in config)
        + ", "
        + _common(f"{run.results['rows']['encoder']['num_features']} features" for run in runs),
        "Views": _common(c["views"]["name"] for c in config),
        "Budget": _common(
            f"{c['training']['epochs']:g} epochs, batches of {c['training']['batch_size']}" for c in config
        ),
        "Optimiser": _common(f"{c['optimizer']['name']}, learning rate {c['optimizer']['lr']:g}" for c in config),
        "Seed": _common(str(c["seed"]) for c in config),
        "Layer": protocol["layer"],
    }
    return f'<dl class="facts">{"".join(f"<div><dt>{k}</dt><dd>{escape(v)}</dd></div>" for k, v in facts.items())}</dl>'


def _common(values: Iterable[str]) -> str:
    """What all runs have, or what there is."""
    return " / ".join(dict.fromkeys(values))


def _warnings(warnings: Sequence[str]) -> str:
    if not warnings:
        return ""
    items = "".join(f"<li>{escape(warning)}</li>" for warning in warnings)
    return f'<aside class="warnings"><strong>Before comparing</strong><ul>{items}</ul></aside>'


def _results(rows: Sequence[Row], notes: Sequence[str]) -> str:
    columns = shown_columns(rows)
    best = {column.key: leaders(rows, column) for column in columns}
    kinds = {column.key: f"{column.key} text" if column.is_text else column.key for column in columns}
    groups = ""
    for name, members in groupby(columns, key=lambda column: column.group):
        keys = [column.key for column in members]
        alone = "".join(f'<td class="{key}"></td>' for key in keys)
        groups += f'<th class="group" colspan="{len(keys)}" scope="colgroup">{name}</th>' if name else alone
    heads = "".join(
        f'<th scope="col" class="{kinds[column.key]}" data-column="{i}">{escape(column.title)}</th>'
        for i, column in enumerate(columns, 1)
    )

    def cell(row: Row, column: Column) -> str:
        value, width = row.values.get(column.key), row.half_width(column)
        bound = f"<small>±{100 * width:.1f}</small>" if width is not None and column.show is percent else ""
        kind = kinds[column.key] + (" best" if row.name in best[column.key] else "")
        data = "" if value is None else escape(str(value))
        return f'<td class="{kind}" data-value="{data}">{escape(row.show(column))}{bound}</td>'

    def line(row: Row, mark: str = "") -> str:
        name, marks = escape(row.name), f"<sup>{''.join(row.marks)}</sup>" if row.marks else ""
        cells = "".join(cell(row, column) for column in columns)
        return f'<tr><th scope="row" title="{name}">{mark}{name}{marks}</th>{cells}</tr>'

    trained = "".join(line(row, swatch(i)) for i, row in enumerate(row for row in rows if not row.baseline))
    untrained = "".join(line(row) for row in rows if row.baseline)
    bold = "Bold: the best run, and those that this many images cannot tell from it; nothing where no run stands out."
    footnotes = "".join(f"<li>{escape(note)}</li>" for note in [*notes, bold])
    return (
        '<div class="scroll" tabindex="0" role="region" aria-label="Results"><table class="results"><thead>'
        f'<tr><td></td>{groups}</tr><tr><th scope="col" class="text">Run</th>{heads}</tr></thead>'
        f'<tbody>{trained}</tbody><tbody class="baselines">{untrained}</tbody></table></div>'
        f'<ul class="notes">{footnotes}</ul>'
    )


def _protocols(runs: Sequence[Run]) -> str:
    def text(value: Any) -> str:
        return ", ".join(f"{k} {text(v)}" for k, v in value.items()) if isinstance(value, Mapping) else f"{value}"

    blocks = []
    for i, run in enumerate(runs):
        objective = run.results["objective"]
        described = {"run": str(run.path)} | {f"objective, {k.replace('_', ' ')}": v for k, v in objective.items()}
        items = (described | dict(run.results["protocol"])).items()
        rows = "".join(f"<dt>{escape(k.replace('_', ' '))}</dt><dd>{escape(text(v))}</dd>" for k, v in items)
        blocks.append(
            f"<details><summary>{swatch(i)}{escape(run.name)}</summary>"
            f'<dl class="protocol">{rows}</dl><pre>{escape(run.config)}</pre></details>'
        )
    return "<p>All that a number depends on; the config is the whole run.</p>" + "".join(blocks)

"""All that a number depends on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from difflib import ndiff
from html import escape
from typing import Any

from ssl_ebm.report.runs import EvaluatedRun, Group, Study


def facts(runs: Sequence[EvaluatedRun]) -> str:
    """What all runs have, or what there is."""
    protocol = runs[0].results["protocol"]
    sizes, config = protocol["sizes"], [run.results["config"] for run in runs]
    known = {
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
    return f'<dl class="facts">{"".join(f"<div><dt>{k}</dt><dd>{escape(v)}</dd></div>" for k, v in known.items())}</dl>'


def _common(values: Iterable[str]) -> str:
    return " / ".join(dict.fromkeys(values))


def protocols(groups: Sequence[Group], study: Study | None) -> str:
    """Protocol and config of every run; of further seeds, how their configs differ from the first."""
    blocks = []
    for group in groups:
        objective = group.first.results["objective"]
        described = {f"objective, {k.replace('_', ' ')}": v for k, v in objective.items()}
        body = _items(described) + "".join(_run(run, group.first) for run in group.runs)
        blocks.append(f"<details><summary>{group.look.swatch()}{escape(group.name)}</summary>{body}</details>")
    if study is not None and study.tuning:
        blocks.append(f"<details><summary>Tuning</summary>{_items(study.tuning)}</details>")
    return "<p>All that a number depends on; the config is the whole run.</p>" + "".join(blocks)


def _run(run: EvaluatedRun, first: EvaluatedRun) -> str:
    described = _items({"run": str(run.path)} | dict(run.results["protocol"]))
    if run is first:
        return f"{described}<pre>{escape(run.config)}</pre>"
    lines = ndiff(first.config.splitlines(), run.config.splitlines())
    changed = "\n".join(line for line in lines if line.startswith(("+ ", "- ")))
    return f"{described}<p>Config, beside that of {escape(first.name)}:</p><pre>{escape(changed) or 'the same'}</pre>"


def _items(items: Mapping[str, Any]) -> str:
    rows = "".join(f"<dt>{escape(k.replace('_', ' '))}</dt><dd>{escape(_text(v))}</dd>" for k, v in items.items())
    return f'<dl class="protocol">{rows}</dl>'


def _text(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{k} {_text(v)}" for k, v in value.items())
    return ", ".join(map(_text, value)) if isinstance(value, (list, tuple)) else f"{value}"

"""All that a number depends on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from difflib import ndiff
from typing import Any

from ssl_ebm.report.runs import EvaluatedRun, Group, Study


def facts(runs: Sequence[EvaluatedRun]) -> dict[str, str]:
    """Data, encoder, views and budget at the top of the page; what differs between runs is listed."""
    protocol = runs[0].results["protocol"]
    sizes, configs = protocol["sizes"], [run.results["config"] for run in runs]
    features = _values(f"{run.results['rows']['encoder']['num_features']} features" for run in runs)
    return {
        "Data": f"{protocol['data']}, split seed {protocol['split_seed']}",
        "Images": f"{sizes['train']:,} train, {sizes['validation']:,} validation, {sizes['test']:,} test",
        "Encoder": f"{_values(c['encoder']['name'] for c in configs)}, {features}",
        "Views": _values(c["views"]["name"] for c in configs),
        "Budget": _values(
            f"{c['training']['epochs']:g} epochs, batches of {c['training']['batch_size']}" for c in configs
        ),
        "Optimiser": _values(f"{c['optimizer']['name']}, learning rate {c['optimizer']['lr']:g}" for c in configs),
        "Seed": _values(str(c["seed"]) for c in configs),
        "Layer": protocol["layer"],
    }


def _values(values: Iterable[str]) -> str:
    """Each value once, in their order."""
    return " / ".join(dict.fromkeys(values))


def protocols(groups: Sequence[Group], study: Study | None) -> dict[str, Any]:
    """Protocol and config of every run; of further seeds, how their configs differ from the first."""
    objectives = []
    for group in groups:
        objective = {f"objective, {key}": value for key, value in group.first.results["objective"].items()}
        runs = [_run(run, group.first) for run in group.runs]
        objectives.append({"group": group, "objective": _in_words(objective), "runs": runs})
    return {"objectives": objectives, "tuning": _in_words(study.tuning or {}) if study else {}}


def _run(run: EvaluatedRun, first: EvaluatedRun) -> dict[str, Any]:
    """A run's protocol with its config, or with the lines in which its config differs from the first run's."""
    protocol = _in_words({"run": str(run.path), **run.results["protocol"]})
    if run is first:
        return {"protocol": protocol, "differs_from": "", "config": run.config}
    lines = ndiff(first.config.splitlines(), run.config.splitlines())
    changes = "\n".join(line for line in lines if line.startswith(("+ ", "- ")))
    return {"protocol": protocol, "differs_from": first.name, "config": changes or "the same"}


def _in_words(settings: Mapping[str, Any]) -> dict[str, str]:
    return {key.replace("_", " "): _text(value) for key, value in settings.items()}


def _text(value: Any) -> str:
    """`a 1, b 2` for a mapping, `1, 2` for a list."""
    if isinstance(value, Mapping):
        return ", ".join(f"{k} {_text(v)}" for k, v in value.items())
    return ", ".join(map(_text, value)) if isinstance(value, (list, tuple)) else f"{value}"

"""One YAML file is one study: which runs it consists of, each with its whole config."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import reduce
from pathlib import Path
from types import MappingProxyType
from typing import Any

from ssl_ebm.config import Config, compose, load_config, merge, read_mapping, read_run, replace_value
from ssl_ebm.objectives import build_objective, list_objectives
from ssl_ebm.registry import unknown_name
from ssl_ebm.training.user_parts import adopt
from ssl_ebm.user_code import Parts, entry_points, is_import_name


@dataclass(frozen=True, kw_only=True)
class TuningConfig:
    """The same search for every objective, before the study's own runs.

    Attributes:
        grid: Values of each key, e.g. `{"optimizer.lr": [1e-3, 2e-3]}`; all combinations are tried, so that every
            objective has as many trials. Empty: none.
        seed: Of all trials; apart from the study's, so that no run is measured on the seed that chose for it.
    """

    grid: dict[str, list[Any]] = field(default_factory=dict)
    seed: int = 1000


@dataclass(frozen=True, kw_only=True)
class StudyConfig:
    """A whole study.

    Attributes:
        name: Of the study.
        directory: Where everything it makes goes; empty: runs/studies/NAME.
        base: What all runs share, a run's YAML file or a mapping such as one holds.
        presets: Folder of run files named after objectives: each gives its objective's arguments and its optimiser, and
            nothing else. Empty, and for objectives that are not built in: their defaults and the base's optimiser.
        objectives: Names, of the user's own as `package.module:function`; or `{name: NAME}` with changes in the keys of
            a run, e.g. `objective: {temperature: 0.5}`, and a `label` where one objective is there several times.
        seeds: Each objective is trained once with each.
        budget: Changes to the base's `training`, for all runs.
        encoders: Label → `encoder` of a run. Each gets a study of its own in a folder of its own. Empty: the base's.
        data: Label → `data` of a run, likewise.
        tuning: A search of hyper-parameters on the validation split.
        jobs: Runs at once; auto: one on each CPU core, or one on each GPU.
    """

    name: str = "study"
    directory: str = ""
    base: Any = field(default_factory=dict)
    presets: str = ""
    objectives: list[Any] = field(default_factory=list)
    seeds: list[int] = field(default_factory=lambda: [0, 1, 2])
    budget: dict[str, Any] = field(default_factory=dict)
    encoders: dict[str, Any] = field(default_factory=dict)
    data: dict[str, Any] = field(default_factory=dict)
    tuning: TuningConfig = field(default_factory=TuningConfig)
    jobs: Any = "auto"

    def __post_init__(self) -> None:
        if not self.name or "/" in self.name:
            raise ValueError(f"name must be a folder's name, got {self.name!r}")
        if not self.objectives:
            raise ValueError("objectives must name at least one objective, e.g. objectives: [simclr, vicreg]")
        if not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds must be different numbers, at least one, got {self.seeds}")
        if self.jobs != "auto" and not (isinstance(self.jobs, int) and self.jobs >= 1):
            raise ValueError(f"jobs must be auto or a number >= 1, got {self.jobs!r}")
        for key, values in self.tuning.grid.items():
            if not values:
                raise ValueError(f"tuning.grid.{key} must list at least one value, got none")

    @property
    def path(self) -> Path:
        """The study's directory."""
        return Path(self.directory or f"runs/studies/{self.name}")

    @property
    def entries(self) -> list[StudyObjective]:
        """The objectives, checked."""
        entries = [_entry(given) for given in self.objectives]
        labels = [entry.label for entry in entries]
        twice = next((label for label in labels if labels.count(label) > 1), None)
        if twice is not None:
            raise ValueError(f"objective {twice} is there twice: give each a label of its own, e.g. label: {twice}-2")
        return entries

    @property
    def cells(self) -> list[Cell]:
        """Combinations of encoder and data, each a comparison of its own."""
        encoders = list(self.encoders.items()) or [("", None)]
        data = list(self.data.items()) or [("", None)]
        return [
            Cell("-".join(filter(None, (a, b))), {"encoder": encoder, "data": images})
            for (a, encoder), (b, images) in itertools.product(encoders, data)
        ]


@dataclass(frozen=True)
class StudyObjective:
    """One objective of a study with its changes."""

    label: str
    name: str
    changes: Mapping[str, Any]


@dataclass(frozen=True)
class Cell:
    """One encoder on one data set; `label` is empty where the study has one of each."""

    label: str
    parts: Mapping[str, Any]


@dataclass(frozen=True)
class PlannedRun:
    """A run that a study consists of; `trial` is what a run of the search tries."""

    name: str
    label: str
    cell: str
    seed: int
    config: Config
    trial: Mapping[str, Any] | None = None

    @property
    def key(self) -> str:
        """`CELL/OBJECTIVE`, or the objective's label alone: what the search chose for is kept under it."""
        return "/".join(filter(None, (self.cell, self.label)))

    @property
    def path(self) -> Path:
        """The run directory."""
        return Path(self.config.run_dir)


def load_study(
    source: str | Path | Mapping[str, Any],
    overrides: Sequence[str] = (),
    *,
    objectives: Sequence[str] = (),
    parts: Mapping[str, str] = MappingProxyType({}),
) -> StudyConfig:
    """A study from a YAML file or a mapping, with overrides such as `seeds=[0,1]`; every run's config is checked.

    What it names as `package.module:function` is imported.

    Args:
        source: The study.
        overrides: `a.b=c` changes.
        objectives: Names of more objectives.
        parts: Names that take the place of the base's `data`, `encoder` and `views`.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: An unknown key, objective or argument, or a value that does not fit; named with the remedy.
        TypeError: A part has another type than it must have.
    """
    study = compose(StudyConfig, read_mapping(source), overrides)
    study = _with_parts(_resolved(replace(study, objectives=[*study.objectives, *objectives])), parts)
    one_seed = replace(study, seeds=study.seeds[:1])
    for run in [*plan(one_seed), *trials(study)]:
        config, imported = adopt(run.config, Parts())
        build_objective(config.objective, imported.objective)
    return study


def read_study(path: Path) -> StudyConfig:
    """The study that a study's directory holds, as `load_study` resolved it; nothing that it names is imported.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is damaged.
    """
    return compose(StudyConfig, read_mapping(path))


def _with_parts(study: StudyConfig, parts: Mapping[str, str]) -> StudyConfig:
    """The study on other data, encoder or views; what says how data are split stays."""
    for kind, several in (("data", study.data), ("encoder", study.encoders)):
        if kind in parts and several:
            raise ValueError(
                f"the study has a list of its own for {kind}, {', '.join(several)}: add {parts[kind]} there"
            )
    changes = {kind: {"name": name} for kind, name in parts.items()}
    if "data" in parts:
        changes["data"] = {**study.base.get("data", {}), "name": parts["data"]}
    return replace(study, base={**study.base, **changes})


def _resolved(study: StudyConfig) -> StudyConfig:
    """The same study with its files read in: no later change to them changes it."""
    base = read_run(study.base)
    objectives = []
    for entry in study.entries:
        has_preset = study.presets and entry.name in list_objectives()
        preset = read_run(Path(study.presets) / f"{entry.name}.yaml") if has_preset else {}
        of_base = base["objective"] if base.get("objective", {}).get("name") == entry.name else {}
        defaults = {
            "optimizer": preset.get("optimizer", {}),
            "objective": merge(of_base, preset.get("objective", {})) | {"name": entry.name},
        }
        objectives.append({"name": entry.name, "label": entry.label, **merge(defaults, entry.changes)})
    base = {key: value for key, value in base.items() if key not in ("objective", "run_dir", "seed")}
    return replace(study, base=base, presets="", objectives=objectives)


def plan(study: StudyConfig, chosen: Mapping[str, Mapping[str, Any]] | None = None) -> list[PlannedRun]:
    """The study's runs, seed by seed, so that a study that is stopped has compared all objectives.

    Args:
        study: Which.
        chosen: What the search chose: values of dotted keys, by `PlannedRun.key`.
    """
    runs = []
    for seed, cell, entry in itertools.product(study.seeds, study.cells, study.entries):
        key = "/".join(filter(None, (cell.label, entry.label)))
        runs.append(_run(study, cell, entry, seed, (chosen or {}).get(key, {})))
    return runs


def trials(study: StudyConfig) -> list[PlannedRun]:
    """The runs of the search, as many for each objective."""
    if not study.tuning.grid:
        return []
    points = [
        dict(zip(study.tuning.grid, values, strict=True)) for values in itertools.product(*study.tuning.grid.values())
    ]
    combinations = itertools.product(study.cells, study.entries, enumerate(points))
    return [_run(study, cell, entry, study.tuning.seed, point, number) for cell, entry, (number, point) in combinations]


def _entry(given: Any) -> StudyObjective:
    changes = {"name": given} if isinstance(given, str) else given
    if not isinstance(changes, Mapping) or "name" not in changes:
        raise ValueError(f"an objective must be a name or a mapping with a name, got {given!r}")
    name = changes["name"]
    label = changes.get("label", name.rpartition(":")[2] if is_import_name(name) else name)
    known = [*list_objectives(), *(entry_points("objective") if name not in list_objectives() else ())]
    if name not in known and not is_import_name(name):
        raise ValueError(unknown_name("objective", name, known))
    rest: dict[str, Any] = {key: value for key, value in changes.items() if key not in ("name", "label")}
    valid = [f.name for f in fields(Config) if f.name not in ("run_dir", "seed")]
    for key, value in rest.items():
        if key not in valid:
            raise ValueError(unknown_name(f"key of objective {label}:", key, ["name", "label", *valid]))
        if not isinstance(value, Mapping):
            raise ValueError(f"{key} of objective {label} must be a mapping, got {value!r}")
    if not isinstance(label, str) or not label or "/" in label:
        raise ValueError(f"label of objective {name} must be a folder's name, got {label!r}")
    other = rest["objective"].get("name", name) if "objective" in rest else name
    if other != name:
        raise ValueError(f"objective {label} has two names, {name} and {other}: give one")
    return StudyObjective(label, name, rest)


def _run(
    study: StudyConfig, cell: Cell, entry: StudyObjective, seed: int, point: Mapping[str, Any], trial: int | None = None
) -> PlannedRun:
    folder = study.path / cell.label / ("" if trial is None else "tuning")
    name = f"{entry.label}-s{seed}" if trial is None else f"{entry.label}-t{trial}"
    replaced = ["encoder"] if cell.parts["encoder"] else []
    layers = [
        {key: value for key, value in study.base.items() if key not in replaced},
        {"training": study.budget},
        {key: value for key, value in cell.parts.items() if value},
        entry.changes,
    ]
    values: dict[str, Any] = reduce(merge, layers, {})
    for key, value in point.items():
        values = replace_value(values, key, value)
    if trial is not None:  # its last update measures kNN on the validation split, so that nothing reads the test split
        values = replace_value(values, "training.knn_every_epochs", 1.0)
    config = load_config(values | {"run_dir": str(folder / name), "seed": seed})
    return PlannedRun(name, entry.label, cell.label, seed, config, dict(point) if trial is not None else None)

"""The catalogue of objectives in the order of the theory, which is read off the objectives themselves."""

from __future__ import annotations

import inspect
import re
from dataclasses import asdict, dataclass
from typing import Any

from torch import nn

from ssl_ebm.energies.pairwise import DirectPrediction
from ssl_ebm.objectives import FAMILIES, OBJECTIVES, create_objective
from ssl_ebm.objectives.from_config import PARTS
from ssl_ebm.objectives.from_module import FromModule
from ssl_ebm.objectives.objective import Objective
from ssl_ebm.objectives.parts.code_targets import CodeTarget, LabelTarget
from ssl_ebm.objectives.parts.contrasts import Contrast
from ssl_ebm.objectives.parts.memory import Memory, MemoryNegatives
from ssl_ebm.objectives.parts.negatives import BatchNegatives, Negatives
from ssl_ebm.objectives.parts.targets import NearestNeighbour, StopGradient, Target, Teacher

IMAGES = 60_000  # of Fashion-MNIST: what a memory of each image holds in the table
_NAMES = {build: name for parts in PARTS.values() for name, build in parts.items()}
_PHRASES = {  # for parts whose name does not say how they limit the volume
    "infonce": "partition",
    "noise_contrastive": "classifier",
    "sigmoid": "classifier",
    "jensen_shannon": "classifier",
    "nwj": "exp(-E - 1)",
    "square_square": "margin",
    "spectral": "squares",
    "gaussianity": "sliced Gaussianity",
    "centred": "centring and sharpening",
    "label": "labels",
}


@dataclass(frozen=True)
class CatalogueEntry:
    """One objective of the catalogue.

    Attributes:
        name: The name that `create_objective` takes.
        family: How the volume of low energy is limited, in a word.
        energy: What is lowered on compatible pairs: z a projection, p a prediction, t a teacher's projection.
        volume: What keeps the energy from being low everywhere.
        state: What is remembered from batch to batch.
        conservative: True if the update is the gradient of a function.
        canonical: What minus the trained energy means at the optimum; "order" where it orders pairs and no more.
        source: First author, year, arXiv number.
    """

    name: str
    family: str
    energy: str
    volume: str
    state: str
    conservative: bool
    canonical: str
    source: str


def traits(objective: Objective | FromModule) -> dict[str, Any]:
    """What tables say of an objective, and its `projector`: enough to use a run's weights without the objective."""
    return {
        "energy": objective.scorer.formula.format(a="x", b="x'"),
        "conservative": objective.conservative,
        "surrogate": objective.surrogate,
        "reads_labels": objective.by_label,
        "projector": asdict(objective.heads.projector),
    }


def catalogue() -> list[CatalogueEntry]:
    """The lines of all objectives, at their papers' settings."""
    return [entry(name) for name in OBJECTIVES]


def entry(name: str) -> CatalogueEntry:
    """The line of one objective."""
    objective = create_objective(name)
    objective.fit_to(IMAGES)
    canonical_form = objective.canonical_form
    return CatalogueEntry(
        name=name,
        family=next(family for family, members in FAMILIES.items() if name in members),
        energy=_energy(objective),
        volume=_volume(objective),
        state=_state(objective) or "–",
        conservative=objective.conservative,
        canonical="order" if canonical_form is None else canonical_form.meaning,
        source=_source(name),
    )


def _energy(objective: Objective) -> str:
    anchor = "z" if objective.heads.predictor is None else "p"
    inner = objective.target.of if isinstance(objective.target, CodeTarget) else objective.target
    symbols: list[tuple[type[Target], str]] = [
        (Teacher, "t'"),
        (StopGradient, "sg z'"),
        (NearestNeighbour, "nn z'"),
        (Memory, "m"),
        (LabelTarget, "y"),
    ]
    target = next((symbol for kind, symbol in symbols if isinstance(inner, kind)), "z'")
    target = "z̄" if objective.pairing == "mean" else target
    formula = objective.energy.formula.format(a=anchor, b=target)
    return formula + (" (surrogate)" if objective.surrogate else "")


def _volume(objective: Objective) -> str:
    limits: list[str] = []
    contrast: Contrast | None = objective.contrast
    if contrast is not None and contrast.needs_negatives:
        limits.append(f"{_phrase(contrast)} over {_source_of_negatives(objective.negatives)}")
        limits[0] += ", compatible by label" if objective.by_label else ""
    limits += [_phrase(regularizer) for regularizer in objective.regularizers.values()]
    if isinstance(objective.target, (CodeTarget, LabelTarget)):
        limits.append(_phrase(objective.target))
    if not limits or not objective.conservative:
        inner = objective.target.of if isinstance(objective.target, CodeTarget) else objective.target
        predicts = objective.heads.predictor is not None or isinstance(objective.energy, DirectPrediction)
        limits += ["predictor"] if predicts else []
        limits += [_phrase(inner)] if type(inner) is not Target else []
    return " + ".join(limits).replace("_", " ")


def _phrase(module: nn.Module) -> str:
    name = _NAMES.get(type(module), type(module).__name__)
    return _PHRASES.get(name, name)


def _source_of_negatives(negatives: Negatives) -> str:
    if isinstance(negatives, BatchNegatives):
        return "the batch" if negatives.views == "all" else "the other view"
    return f"{negatives.count} draws" if isinstance(negatives, MemoryNegatives) else "a queue"


def _state(objective: Objective) -> str:
    """The teacher, and buffers of more than one number except those of the scorer and of a graph."""
    state = ["teacher"] if "target" in objective.uses else []
    for path, buffer in objective.named_buffers():
        owner, _, name = path.rpartition(".")
        if buffer.ndim and owner != "own_scorer" and not owner.startswith("graph"):
            label = type(objective.get_submodule(owner)).__name__.lower() if name == "vectors" else name
            state.append(f"{label} {'×'.join(map(str, buffer.shape))}".replace("_", " "))
    return ", ".join(state)


def _source(name: str) -> str:
    """Authors, year and, where there is one, arXiv number of the first source in an objective's docstring."""
    docstring = inspect.getdoc(OBJECTIVES[name]) or ""
    if match := re.search(r"Source: ([^,;]*?\d{4}), arXiv ([\d.]+)", docstring):
        return f"{match[1]}, {match[2]}"
    match = re.search(r"Source: ([^,;(]*\d{4})", docstring)
    return match[1] if match else "–"


COLUMNS: dict[str, Any] = {
    "objective": lambda e: e.name,
    "energy": lambda e: e.energy,
    "volume limited by": lambda e: e.volume,
    "state": lambda e: e.state,
    "gradient": lambda e: "yes" if e.conservative else "no",
    "-E at the optimum": lambda e: e.canonical,
    "source": lambda e: e.source,
}


def as_text(entries: list[CatalogueEntry]) -> str:
    """The catalogue as a table for a terminal, with a block for each family."""
    rows = [[cell(e) for cell in COLUMNS.values()] for e in entries]
    widths = [max(map(len, column)) for column in zip(list(COLUMNS), *rows, strict=True)]
    lines = ["  ".join(title.ljust(width) for title, width in zip(COLUMNS, widths, strict=True)).rstrip()]
    family = ""
    for e, row in zip(entries, rows, strict=True):
        if e.family != family:
            family = e.family
            lines += ["", family.replace("_", "-")]
        lines.append("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    return "\n".join(lines)


def as_markdown(entries: list[CatalogueEntry]) -> str:
    """The catalogue as docs/catalogue.md shows it."""
    lines = [
        "# The catalogue",
        "",
        "Made by `ssl-ebm objectives --markdown > docs/catalogue.md`. z is a projection, p a prediction, t a",
        "teacher's projection, z̄ the mean of an image's views, m its memory, y its label, nn a nearest neighbour, sg",
        "stop-gradient. *Gradient*: whether the update is the gradient of a function. *Surrogate*: the loss is one of",
        "the whole batch, and the energy stands in for it to score pairs. *Order*: only the order of energies is",
        "known; else the last column but one makes energies of different objectives comparable",
        "(`EnergyModel.canonical`). Sizes are the papers'.",
    ]
    for family in dict.fromkeys(e.family for e in entries):
        lines += ["", f"## {family.replace('_', '-').capitalize()}", "", f"| {' | '.join(COLUMNS)} |"]
        lines.append("|" + "---|" * len(COLUMNS))
        for e in entries:
            if e.family == family:
                cells = [cell(e).replace("|", "\\|") for cell in COLUMNS.values()]
                lines.append(f"| {' | '.join([f'`{cells[0]}`', *cells[1:]])} |")
    return "\n".join(lines) + "\n"

"""Images drawn from each energy, energies of single images, and an RBM's hidden units."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ssl_ebm.report.page.figures.axes import fixed
from ssl_ebm.report.page.figures.images import bytes_uri, png_uri
from ssl_ebm.report.page.figures.ridges import ridges
from ssl_ebm.report.page.sections.layout import Figure, many
from ssl_ebm.report.runs import Group, lookup

LARGEST_SAMPLE = 2_000_000  # bytes of a file of samples that is shown
SETS = {"test": "test images", "samples": "chains from noise"}


def samples(groups: Sequence[Group]) -> dict[str, Any] | None:
    """Pictures of samples, histograms of E(x), and weights of hidden units, as far as the runs have them."""
    figures = {
        "drawn": _pictures(groups),
        "energies": [_image_energies(group) for group in groups if lookup(group.first.results, "image")],
        "units": [
            Figure.of(group, [png_uri(weights) for weights in group.first.gallery["filters"]])
            for group in groups
            if group.first.gallery is not None and "filters" in group.first.gallery
        ],
    }
    return figures if any(figures.values()) else None


def _pictures(groups: Sequence[Group]) -> list[Figure]:
    """The first and the last PNG file, by name, in `samples` of each run or, of many groups, of each group's first."""
    figures = []
    for group in groups:
        for run in group.runs[: 1 if many(groups) else None]:
            files = sorted((run.path / "samples").glob("*.png"))
            for file in dict.fromkeys([*files[:1], *files[-1:]]):
                if file.stat().st_size <= LARGEST_SAMPLE:
                    name = f"{run.name}, {file.name}"
                    figures.append(Figure(content=bytes_uri(file.read_bytes()), title=name, look=group.look))
    return figures


def _image_energies(group: Group) -> Figure:
    image = lookup(group.first.results, "image")
    sets = [(SETS.get(name, name), counts) for name, counts in image["histograms"].items()]
    title = f"Energies of single images under {group.name}"
    chart = ridges(sets, image["edges"], look=group.look, title=title, x_label="E(x), nats")
    return Figure.of(group, chart, _measures(image))


def _measures(image: Mapping[str, Any]) -> str:
    """How the samples were drawn, and what else was measured of E(x), in words."""
    measures = [
        image.get("sampling_failed")
        or f"{image['steps']} steps at an effective temperature of {image['temperature']:.3g}"
    ]
    if (cosine := image.get("gradient_cosine")) is not None:
        measures.append(
            f"its gradient has a cosine of {cosine:.2f} with the objective's in the second half of the training"
        )
    if classifier := image.get("classifier"):
        measures.append(f"p(y | x): {100 * classifier['top1']:.1f}% right, ECE {classifier['ece']:.3f}")
    if likelihood := image.get("log_likelihood"):
        measures.append(
            f"log-likelihood of test images {fixed(likelihood['test'], 1)} ± {likelihood['standard_error']:.1f} "
            f"nats each ({fixed(likelihood['train'], 1)} of train, {fixed(likelihood['independent'], 1)} under "
            f"independent pixels), by annealing {likelihood['chains']} chains over {likelihood['temperatures']:,} "
            f"temperatures, {likelihood['effective_samples']:.0f} of them effective"
        )
    return "; ".join(measures)

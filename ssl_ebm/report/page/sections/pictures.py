"""Test images that each energy holds compatible, its worst mistakes, and samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from math import log10

import numpy as np

from ssl_ebm.report.page.figures.images import LARGEST_IMAGE, bytes_uri, png_uri
from ssl_ebm.report.page.figures.ridges import ridges
from ssl_ebm.report.page.sections.layout import folded, many, panels
from ssl_ebm.report.runs import Group, lookup

BUDGET = 3_000_000  # bytes of pixels of all pictures: a page stays quick to open
LARGEST_SAMPLE = 2_000_000  # bytes of a file of samples that is shown
SETS = {"test": "test images", "samples": "chains from noise"}


def neighbours(groups: Sequence[Group]) -> str:
    """Neighbours of lowest energy, then pairs of different classes of lowest energy."""
    galleries = [group.first.gallery for group in groups if group.first.gallery is not None]
    if not galleries:
        return '<p class="muted">No gallery.npz: evaluate the runs again with --force.</p>'
    shown = [key for gallery in galleries for key in ("images", "mistakes") if key in gallery]
    pixels = sum(
        gallery[key].size * (min(1, LARGEST_IMAGE / max(gallery[key].shape[-2:])) ** 2)
        for gallery in galleries
        for key in ("images", "mistakes")
        if key in gallery
    )
    part = min(1.0, BUDGET / max(pixels, 1)) if shown else 1.0
    text = (
        "<p>Left, a test image of each of the first classes; beside it the test images of lowest energy with it, best "
        "first, and their energies. Outlined: another class than the query's. Names appear on pointing.</p>"
    )
    found = panels(groups, lambda group: _neighbours(group, part), "wide")
    worst = panels(groups, lambda group: _mistakes(group, part), "wide")
    if worst:
        worst = (
            "<p>Pairs of test images of different classes that are most compatible, no image twice: what the energy "
            f"takes for one thing.</p>{worst}"
        )
    return text + found + folded("Worst mistakes", worst, fold=many(groups))


def _neighbours(group: Group, part: float) -> tuple[str, str]:
    gallery = group.first.gallery
    if gallery is None:
        return "", '<p class="muted">no gallery.npz: evaluate the run again with --force</p>'
    labels, classes = gallery["labels"], gallery["classes"]
    wrong, count = int((labels[:, 1:] != labels[:, :1]).sum()), labels[:, 1:].size
    digits = _decimals(gallery["energies"][:, 1:])
    rows = max(2, int(len(labels) * part))
    cells = []
    for images, own, energies in zip(gallery["images"][:rows], labels[:rows], gallery["energies"][:rows], strict=True):
        query = escape(str(classes[own[0]]))
        cells.append(f'<div class="query"><img src="{png_uri(images[0])}" alt="{query}" title="{query}">{query}</div>')
        for image, label, energy in zip(images[1:], own[1:], energies[1:], strict=True):
            name, text = escape(str(classes[label])), _energy(float(energy), digits)
            kind = ' class="wrong"' if label != own[0] else ""
            picture = f'<img src="{png_uri(image)}" alt="{name}" title="{name}, E = {text}">'
            cells.append(f"<div{kind}>{picture}{text}</div>")
    picture = f'<div class="gallery" style="--neighbours:{labels.shape[1] - 1}">{"".join(cells)}</div>'
    return f"{wrong} of {count} neighbours are of another class", picture


def _mistakes(group: Group, part: float) -> tuple[str, str]:
    gallery = group.first.gallery
    if gallery is None or "mistakes" not in gallery or not len(gallery["mistakes"]):
        return "", ""
    energies, classes = gallery["mistake_energies"], gallery["classes"]
    digits = _decimals(energies[None])
    cells = []
    for pair, labels, energy in list(zip(gallery["mistakes"], gallery["mistake_labels"], energies, strict=True))[
        : max(2, int(len(energies) * part))
    ]:
        names = [escape(str(classes[label])) for label in labels]
        pictures = "".join(
            f'<img src="{png_uri(image)}" alt="{name}" title="{name}">' for image, name in zip(pair, names, strict=True)
        )
        text = f'{names[0]} / {names[1]}<span class="muted">{_energy(float(energy), digits)}</span>'
        cells.append(f'<div class="pair"><div class="two">{pictures}</div>{text}</div>')
    return "", f'<div class="pairs">{"".join(cells)}</div>'


def _energy(value: float, digits: int) -> str:
    return f"{value:.{digits}f}".replace("-", "−")


def _decimals(energies: np.ndarray) -> int:
    """So many that typical neighbours' energies differ in two digits."""
    spread = float(np.median(np.ptp(energies, axis=1))) if energies.size else 1.0
    return int(np.clip(np.ceil(1 - log10(max(spread, 1e-9))), 0, 4))


def samples(groups: Sequence[Group]) -> str:
    """The PNG files that sampling left in a run's `samples`; of many, the first by name and the last."""
    figures = []
    for group in groups:
        for run in group.runs[: 1 if many(groups) else None]:
            files = sorted((run.path / "samples").glob("*.png"))
            for file in dict.fromkeys((files[0], files[-1])) if files else ():
                if file.stat().st_size > LARGEST_SAMPLE:
                    continue
                name = f"{escape(run.name)}, {escape(file.name)}"
                figures.append(
                    f"<figure><figcaption>{group.look.swatch()}<strong>{name}</strong></figcaption>"
                    f'<img class="sample" src="{bytes_uri(file.read_bytes())}" alt="Samples of {name}"></figure>'
                )
    drawn = (
        "<p>Images drawn from the run's energy by its own sampler.</p>"
        f'<div class="panels wide">{"".join(figures)}</div>'
        if figures
        else ""
    )
    energies = panels([group for group in groups if lookup(group.first.results, "image")], _image_energies)
    if energies:
        energies = (
            "<h3>Energies of single images</h3><p>E(x) of test images, of chains from noise, and of images of another "
            "kind; what lies beyond an axis is at its end. Samples should lie where test images do; how well E(x) "
            "tells the others is among the outliers.</p>"
            f"{energies}"
        )
    units = panels(groups, _filters, "wide")
    if units:
        units = (
            "<h3>Hidden units</h3><p>Weights of the hidden units with the largest, each from black to white over its "
            f"own range; grey is 0.</p>{units}"
        )
    return drawn + energies + units


def _image_energies(group: Group) -> tuple[str, str]:
    image = lookup(group.first.results, "image")
    caption = image.get("sampling_failed") or (
        f"{image['steps']} steps at an effective temperature of {image['temperature']:.3g}"
    )
    if (cosine := image.get("gradient_cosine")) is not None:
        caption += (
            f"; its gradient has a cosine of {cosine:.2f} with the objective's in the second half of the training"
        )
    if classifier := image.get("classifier"):
        caption += f"; p(y | x): {100 * classifier['top1']:.1f}% right, ECE {classifier['ece']:.3f}"
    if likelihood := image.get("log_likelihood"):
        caption += (
            f"; log-likelihood of test images {_energy(likelihood['test'], 1)} ± {likelihood['standard_error']:.1f} "
            f"nats each ({_energy(likelihood['train'], 1)} of train, {_energy(likelihood['independent'], 1)} under "
            f"independent pixels), by annealing {likelihood['chains']} chains over {likelihood['temperatures']:,} "
            f"temperatures, {likelihood['effective_samples']:.0f} of them effective"
        )
    sets = [(SETS.get(name, name), counts) for name, counts in image["histograms"].items()]
    title = f"Energies of single images under {group.name}"
    return escape(caption), ridges(sets, image["edges"], look=group.look, title=title, x_label="E(x), nats")


def _filters(group: Group) -> tuple[str, str]:
    """An RBM's hidden units of largest weights."""
    gallery = group.first.gallery
    if gallery is None or "filters" not in gallery:
        return "", ""
    pictures = "".join(f'<img src="{png_uri(weights)}" alt="">' for weights in gallery["filters"])
    return "", f'<div class="filters" role="img" aria-label="Hidden units of {escape(group.name)}">{pictures}</div>'


def class_names(groups: Sequence[Group]) -> list[str] | None:
    """Of the data set, where a gallery knows them."""
    known: list[Mapping[str, np.ndarray]] = [g.first.gallery for g in groups if g.first.gallery is not None]
    return [str(name) for name in known[0]["classes"]] if known else None

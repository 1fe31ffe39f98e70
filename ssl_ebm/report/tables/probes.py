"""Results of probes as a table on a terminal."""

import math
from collections.abc import Iterator, Mapping
from typing import Any

from ssl_ebm.report.tables.intervals import Z, proportion_variance
from ssl_ebm.report.tables.measures import percent, ratio
from ssl_ebm.report.tables.text import text_table

HEADS = ("protocol", "chosen on validation", "test %", "±", "top-5 %", "ECE")


def probe_table(results: Mapping[str, Any], test_size: int) -> str:
    """One line a classifier: what was chosen, test accuracy with its 95% interval, top-5 and calibration.

    The interval is of the test images (binomial); of few shots, it is the standard deviation over draws.
    """
    table = text_table([[HEADS], list(_lines(results, test_size))], words=(0, 1))
    return (
        f"{table}\n±: the 95% interval over {test_size:,} test images; of few shots, the standard deviation over draws."
    )


def _lines(results: Mapping[str, Any], size: int) -> Iterator[tuple[str, ...]]:
    if "knn" in results:
        for title, cell in (("kNN", results["knn"]["headline"]), ("kNN, chosen", results["knn"]["chosen"])):
            weights = "uniform" if cell["temperature"] is None else f"T = {cell['temperature']:g}"
            yield title, f"k = {cell['k']}, {weights}", *_accuracy(cell["accuracy"], size), "–", "–"
    for name, choice in (("linear", "C = {strength:g}"), ("ridge", "λ = {strength:g}"), ("sgd", "rate = {rate:g}")):
        if name in results:
            result = results[name]
            test, edge = result["test"], " (edge of the grid)" if result["at_edge"] else ""
            top5 = "–" if test["top5"] is None else percent(test["top5"])
            error = "–" if test["ece"] is None else ratio(test["ece"])
            yield name, choice.format(**result) + edge, *_accuracy(test["top1"], size), top5, error
    for shots, result in results.get("few_shot", {}).items():
        short = f", {result['short_classes']} classes have fewer" if result["short_classes"] else ""
        draws = f"{len(result['accuracies'])} draws{short}"
        yield f"{shots} a class", draws, percent(result["mean"]), percent(result["std"]), "–", "–"


def _accuracy(value: float, size: int) -> tuple[str, str]:
    """A proportion and half of its 95% interval."""
    return percent(value), percent(Z * math.sqrt(proportion_variance(value, size)))

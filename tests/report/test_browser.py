"""The page in a real browser, opened from its file."""

import pytest
from browser import Browser, find
from example_measures import extend, matrices
from example_runs import write_run

from ssl_ebm.report.compare import compare
from ssl_ebm.report.page.page import page

pytestmark = pytest.mark.skipif(find() is None, reason="no Chromium on this machine (Debian: apt-get install chromium)")

NAMES = "[...document.querySelector('table.results').tBodies[0].rows].map((row) => row.cells[0].textContent)"
BUTTON = "document.querySelector('table.results th.knn button')"
PAPER = "getComputedStyle(document.body).backgroundColor"


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    path = tmp_path_factory.mktemp("runs")
    runs = [
        extend(write_run(path / f"{name}_of_a_long_name", f"objective.name={name}", accuracy=0.8 + 0.02 * i), seed=i)
        for i, name in enumerate(("simclr", "barlow_twins", "byol"))
    ]
    comparison = compare(runs)
    text = page(
        comparison.runs,
        comparison.rows,
        notes=comparison.notes,
        warnings=comparison.warnings,
        matrices=matrices([run.name for run in comparison.runs]),
    )
    (path / "report.html").write_text(text, encoding="utf-8")
    return path / "report.html"


@pytest.fixture(scope="module")
def tab(tmp_path_factory):
    with Browser(find(), tmp_path_factory.mktemp("profile")) as browser:
        yield browser


@pytest.mark.parametrize("width", [400, 1400])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_page_loads_without_complaints_and_fits(tab, report, width, scheme):
    tab.open(report, width=width, scheme=scheme)
    assert tab.problems == []
    assert tab.run("innerWidth") == width
    assert tab.run("document.documentElement.scrollWidth") <= width
    light = int(tab.run(PAPER).removeprefix("rgb(").split(",")[0]) > 128
    assert light == (scheme == "light")
    assert tab.run("[...document.images].every((image) => image.complete && image.naturalWidth > 0)")


def test_results_are_sorted_by_a_click_and_by_the_keyboard(tab, report):
    tab.open(report)
    assert [name.split("_of_")[0] for name in tab.run(NAMES)] == ["simclr", "barlow_twins", "byol"]
    tab.run(f"{BUTTON}.click()")
    assert [name.split("_of_")[0] for name in tab.run(NAMES)] == ["byol", "barlow_twins", "simclr"], "best first"
    assert tab.run(f"{BUTTON}.parentElement.ariaSort") == "descending"
    tab.run(f"{BUTTON}.focus()")
    tab.press("Enter")
    assert [name.split("_of_")[0] for name in tab.run(NAMES)] == ["simclr", "barlow_twins", "byol"]
    assert tab.problems == []


def test_colours_can_be_switched(tab, report):
    tab.open(report, scheme="light")
    before = tab.run(PAPER)
    assert tab.run("document.querySelector('.theme').textContent") == "Dark"
    tab.run("document.querySelector('.theme').click()")
    assert tab.run(PAPER) != before and tab.run("document.querySelector('.theme').textContent") == "Light"
    tab.run("document.querySelector('.theme').click()")
    assert tab.run(PAPER) == before


def test_paper_is_light_and_nothing_is_folded(tab, report):
    tab.open(report, scheme="dark")
    tab.call("Emulation.setEmulatedMedia", media="print")
    assert tab.run(PAPER) in ("rgba(0, 0, 0, 0)", "rgb(255, 255, 255)")
    assert int(tab.run("getComputedStyle(document.body).color").removeprefix("rgb(").split(",")[0]) < 128
    assert tab.run("getComputedStyle(document.querySelector('nav')).display") == "none"
    tab.run("dispatchEvent(new Event('beforeprint'))")
    assert tab.run("[...document.querySelectorAll('details')].every((part) => part.open)")


def test_a_page_that_breaks_is_seen(tab, tmp_path):
    path = tmp_path / "broken.html"
    path.write_text("<body style='width: 3000px'><script>undefinedFunction()</script>")
    tab.open(path, width=400)
    assert tab.problems != []
    assert tab.run("document.documentElement.scrollWidth") > 400

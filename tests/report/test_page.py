import base64
import dataclasses
import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from example_runs import gallery, write_run
from jinja2 import UndefinedError
from PIL import Image

import ssl_ebm.report.page
from ssl_ebm.evaluation.energy.verification import histograms
from ssl_ebm.report.compare import compare
from ssl_ebm.report.page.page import TITLES, page, section
from ssl_ebm.report.page.sections.samples import samples
from ssl_ebm.report.runs import EvaluatedRun, group

VOID = {"meta", "img", "br", "hr", "link", "input"}
NAMES = ["T-shirt/top", "Trouser", "<Pullover>", *(f"class {c}" for c in range(3, 10))]


class Page(HTMLParser):
    """Checks that tags are balanced, and collects elements with their attributes and text."""

    def __init__(self, text):
        super().__init__()
        self.open, self.elements = [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        assert len(dict(attributes)) == len(attributes), f"an attribute of {tag} is given twice"
        self.elements.append((tag, dict(attributes), []))
        if tag not in VOID:
            self.open.append(self.elements[-1])

    def handle_startendtag(self, tag, attributes):
        self.elements.append((tag, dict(attributes), []))

    def handle_endtag(self, tag):
        assert self.open and self.open[-1][0] == tag, f"</{tag}> closes {[e[0] for e in self.open][-3:]}"
        self.open.pop()

    def handle_data(self, data):
        for _, _, text in self.open:
            text.append(data)

    def all(self, tag, kind=None):
        """Elements of a tag and class: attributes and text."""
        found = [(attributes, "".join(text)) for name, attributes, text in self.elements if name == tag]
        return [(a, t) for a, t in found if kind is None or kind in (a.get("class") or "").split()]


def render(runs):
    comparison = compare(runs)
    return page(comparison.runs, comparison.rows, notes=comparison.notes, warnings=comparison.warnings)


def make_runs(path):
    pictures = gallery(NAMES, channels=3)
    return [
        write_run(path / "simclr", accuracy=0.88, auroc=0.95, pictures=pictures),
        write_run(path / "vicreg", "objective.name=vicreg", accuracy=0.83, auroc=0.91, pictures=pictures),
        write_run(path / "<b>byol", "objective.name=byol", accuracy=0.877, finished=False, pictures=pictures),
    ]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    return make_runs(tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="module")
def text(runs):
    return render(runs)


@pytest.fixture(scope="module")
def parsed(text):
    return Page(text)


def test_page_is_well_formed_and_has_every_section(text, parsed):
    sections = [attributes["id"] for attributes, _ in parsed.all("section")]
    known = ["results", "energies", "training", "spectrum", "probes", "neighbours", "classes", "protocol"]
    assert sections == known, "what has no numbers is left out"
    assert [a["href"] for a, _ in parsed.all("a")] == [f"#{section}" for section in sections]
    ids = re.findall(r'\sid="([^"]+)"', text)
    assert len(ids) == len(set(ids))
    assert len(parsed.all("h1")) == 1 and "3 runs on fashion_mnist" in parsed.all("h1")[0][1]
    assert "unfinished: 10 of 10 epochs" in parsed.all("aside", "warnings")[0][1]


def test_page_needs_nothing_from_outside(text, parsed):
    assert not re.search(r"https?:|[\"'(]//|@import|url\(|<link|<iframe", text)
    for tag, attributes, _ in parsed.elements:
        assert attributes.get("src", "data:").startswith("data:")
        assert attributes.get("href", "#").startswith("#")
        assert not any(name.startswith("on") for name in attributes), tag
    assert "default-src 'none'" in text


def test_page_is_the_same_for_the_same_runs(runs, text):
    assert render(runs) == text


def test_names_configs_and_classes_are_escaped(tmp_path, text):
    assert "<b>byol" not in text and "&lt;b&gt;byol" in text
    assert "<Pullover>" not in text and "&lt;Pullover&gt;" in text
    runs = make_runs(tmp_path)[:1]
    hostile = '"><script>alert(1)</script>&amp;'
    path = runs[0] / "config.yaml"
    path.write_text(path.read_text() + f"# {hostile}\n")
    results = json.loads((runs[0] / "evaluation.json").read_text())
    results["objective"]["energy"] = results["objective"]["family"] = results["protocol"]["data"] = hostile
    results["protocol"]["layer"] = results["config"]["views"]["name"] = results["config"]["optimizer"]["name"] = hostile
    (runs[0] / "evaluation.json").write_text(json.dumps(results))
    text = render(runs)
    Page(text)
    assert "alert(1)</script>" not in text
    assert text.count("<script") == 1


def test_results_can_be_sorted(text, parsed):
    table = parsed.all("table", "results")[0][1]
    heads = [(a, t) for a, t in parsed.all("th") if "data-column" in a and t in table][:11]
    assert [int(a["data-column"]) for a, _ in heads] == list(range(1, len(heads) + 1))
    rows = re.findall(r'<tr><th scope="row" title.*?</tr>', text.split("</table>")[0])
    assert len(rows) == 5
    for row in rows:
        values = re.findall(r'data-value="([^"]*)"', row)
        assert len(values) == len(heads)
        for value, (attributes, _) in zip(values, heads, strict=True):
            assert value == "" or "text" in attributes["class"] or float(value) == float(value)
    assert "data-column" in text.split("<script>")[1]


def test_results_emphasise_what_stands_out_only(text):
    table = text.split('<table class="results">')[1].split("</table>")[0]
    best = {
        key: [
            name
            for name, row in re.findall(r'<tr><th scope="row" title="([^"]+)">(.*?)</tr>', table)
            if f'"{key} best"' in row
        ]
        for key in ("knn", "linear", "auroc", "d_prime", "rankme", "speed")
    }
    assert best["knn"] == best["linear"] == ["simclr", "&lt;b&gt;byol"], "0.3 points on 10,000 images are a tie"
    assert best["auroc"] == ["simclr"]
    assert best["d_prime"] == best["rankme"] == best["speed"] == []
    assert "88.0<small>±0.6</small>" in table
    baselines = table.split('<tbody class="baselines">')[1]
    assert "random encoder" in baselines and "raw pixels" in baselines and "simclr" not in baselines


def test_pictures_decode_and_mistakes_are_outlined(text, parsed):
    images = [a for a, _ in parsed.all("img")]
    assert len(images) == 3 * 3 * 5
    decoded = np.asarray(Image.open(io.BytesIO(base64.b64decode(images[0]["src"].split(",")[1]))))
    np.testing.assert_array_equal(decoded, gallery(NAMES, channels=3)["images"][0, 0].transpose(1, 2, 0))
    assert images[0]["alt"] == "T-shirt/top" and images[10]["alt"] == "<Pullover>"
    assert len(parsed.all("div", "wrong")) == 3 and len(parsed.all("div", "query")) == 9
    assert "1 of 12 neighbours are of another class" in text
    energies = gallery(NAMES, channels=3)["energies"]
    assert parsed.all("div", "wrong")[0][1] == f"{energies[0, -1]:.1f}".replace("-", "−")


def test_every_run_has_its_colour_and_its_panels(text, parsed):
    plots = [a["aria-label"] for a, _ in parsed.all("svg", "plot")]
    for name in ("simclr", "vicreg", "<b>byol"):
        assert sum(name in label for label in plots) == 4, "energies, energy and loss in training, probe"
    assert sum("all runs" in label for label in plots) == 2
    assert "E = -cos(x, x&#x27;)/τ" in text and "two views of one image" in text
    first = text.split('aria-label="Energies of three kinds of pairs under vicreg')[1].split("</svg>")[0]
    assert 'class="r1"' in first and 'class="r0"' not in first


def test_grids_mark_choice_and_headline(parsed):
    assert [t for _, t in parsed.all("td", "chosen")] == ["87.0", "82.0", "86.7"]
    assert [t for _, t in parsed.all("td", "headline")] == ["87.0", "82.0", "86.7"]
    assert len(parsed.all("circle", "ring")) == 3


def test_mistakes_are_named(text):
    assert "T-shirt/top as Trouser" in text


def test_protocols_and_configs_are_there(runs, text, parsed):
    assert len(parsed.all("details")) == 3
    assert parsed.all("pre")[1][1] == (runs[1] / "config.yaml").read_text()
    assert "objective, conservative" in text and str(runs[0]) in text


def test_phones_dark_screens_and_paper_are_provided_for(text):
    for part in ("width=device-width", "light-dark(", "@media print", "image-rendering: pixelated"):
        assert part in text
    assert text.count('class="scroll"') == 3, "results, health, classes"


def test_page_survives_what_may_be_missing(tmp_path):
    run = write_run(tmp_path / "simclr", lines=[])
    (run / "gallery.npz").unlink()
    results = json.loads((run / "evaluation.json").read_text())
    results["energy"]["trained"]["d_prime"] = None
    results["rows"]["encoder"]["linear"]["test"]["per_class"][3] = None
    (run / "evaluation.json").write_text(json.dumps(results))
    text = render([run])
    Page(text)
    assert "simclr on fashion_mnist" in text and "class 3" in text
    assert "Not logged." in text and "No gallery.npz" in text


def test_many_runs_and_many_classes_fit(tmp_path):
    names = [f"kind {c}" for c in range(100)]
    runs = [write_run(tmp_path / f"seed{i}", f"seed={i}", pictures=gallery(names)) for i in range(9)]
    for run in runs:
        results = json.loads((run / "evaluation.json").read_text())
        test = results["rows"]["encoder"]["linear"]["test"]
        test["per_class"], test["confusion"] = [c / 100 for c in range(100)], np.eye(100, dtype=int).tolist()
        (run / "evaluation.json").write_text(json.dumps(results))
    text = render(runs)
    Page(text)
    assert text.count('title="kind 99 99.0"') == 9 and "stroke-dasharray" in text
    assert ">none</li>" in text.replace(": none", ">none")
    assert "random encoder (seed 8)" in text


def test_energies_of_single_images_and_hidden_units_are_shown(tmp_path):
    image = histograms({"test": np.arange(9.0), "samples": np.arange(4.0), "uniform": np.arange(5.0) + 9})
    results = {"image": image | {"steps": 500, "temperature": 0.0125}, "objective": {"family": "x"}}
    run = EvaluatedRun(name="ebm", path=tmp_path, results=results, metrics=[], config="")

    def shown(run):
        return section("samples", samples(group([run])), group([run]))

    text = shown(run)
    assert "500 steps at an effective temperature of 0.0125" in text and "chains from noise" in text
    assert "Energies of single images under ebm" in text and "Langevin" not in text
    assert "Hidden units" not in text and "log-likelihood" not in text
    likelihood = {"train": -80.0, "test": -81.26, "independent": -99.0, "standard_error": 0.3}
    likelihood |= {"effective_samples": 12.0, "chains": 64, "temperatures": 2000}
    results["image"] |= {"log_likelihood": likelihood}
    text = shown(
        dataclasses.replace(run, gallery=gallery(("a", "b", "c")) | {"filters": np.zeros((5, 1, 8, 8), np.uint8)})
    )
    assert "log-likelihood of test images −81.3 ± 0.3 nats each" in text and "64 chains over 2,000" in text
    assert "Hidden units of ebm" in text and text.count("<img") == 5
    results["image"] = None
    assert samples(group([run])) is None


def test_a_value_that_a_template_lacks_is_an_error(runs):
    with pytest.raises(UndefinedError, match="'figures' is undefined"):
        section("similarity", {}, [])


def test_assets_are_packaged():
    folder = Path(ssl_ebm.report.page.__path__[0])
    declared = re.search(r'"ssl_ebm.report.page" = \[(.*)\]', (folder.parents[2] / "pyproject.toml").read_text())[1]
    packaged = {path for pattern in re.findall('"(.+?)"', declared) for path in folder.glob(pattern)}
    assert packaged == {path for path in folder.rglob("*.*") if path.suffix not in (".py", ".pyc")}
    assert {path.stem for path in packaged} == {"report", "page", "parts", *TITLES}

"""The page and its Markdown where every part of the results is there, of a few runs and of a study."""

import re

import numpy as np
import pytest
from example_measures import AUGMENTATIONS, OUTLIERS, extend, matrices, write_study
from example_runs import write_run
from test_page import Page

from ssl_ebm.evaluation.features.bank import Bank, Split
from ssl_ebm.report.compare import compare
from ssl_ebm.report.page.page import page
from ssl_ebm.report.page.sections.maps import feature_map, turned
from ssl_ebm.report.page.sections.strength import relative
from ssl_ebm.report.runs import Study, group
from ssl_ebm.report.similarity_of_runs import run_similarities
from ssl_ebm.report.tables.further import sheets
from ssl_ebm.report.tables.markdown import markdown, plain

EVERY = ["results", "energies", "strength", "training", "spectrum", "probes", "neighbours", "maps", "outliers"]
EVERY += ["similarity", "samples", "cost", "classes", "protocol"]
MANY = ["simclr", "moco_v3", "dcl", "triplet", "spectral", "jsd", "siglip", "vicreg", "tico", "byol"]


def written(comparison, write=page, **options):
    return write(comparison.runs, comparison.rows, notes=comparison.notes, warnings=comparison.warnings, **options)


def section(text, name):
    return text.split(f'<section id="{name}">')[1].split("</section>")[0]


@pytest.fixture(scope="module")
def few(tmp_path_factory):
    path = tmp_path_factory.mktemp("few")
    names = ["simclr", "vicreg", "byol"]
    return compare(
        [extend(write_run(path / n, f"objective.name={n}"), auroc=0.9 - 0.1 * i, seed=i) for i, n in enumerate(names)]
    )


@pytest.fixture(scope="module")
def few_page(few):
    return written(few, matrices=matrices(["simclr", "vicreg", "byol"]))


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    path = tmp_path_factory.mktemp("study")
    return write_study(path, MANY, seeds=(0, 1)), compare(sorted(path.iterdir()))


@pytest.fixture(scope="module")
def study_page(study):
    return written(study[1], study=study[0], matrices=matrices(MANY))


def test_every_section_is_there_and_well_formed(few_page, study_page):
    for text in (few_page, study_page):
        assert [a["id"] for a, _ in Page(text).all("section")] == EVERY
        assert not re.search(r"https?:|[\"'(]//|@import|url\(|<link|<iframe|\bnan\b|\binf\b", text)


def test_strength_is_set_to_each_objectives_own_scale(few_page):
    curve = {"levels": [0.0, 0.5, 1.0], "energy": [-5.0, -4.0, -1.0]}
    assert relative(curve, -1.0) == [(0.0, 0.0), (0.5, 0.25), (1.0, 1.0)]
    assert relative({k: [9 * v + 7 for v in own] if k == "energy" else own for k, own in curve.items()}, -2.0) == (
        relative(curve, -1.0)
    ), "blind to zero and scale"
    assert relative(curve, -5.0) == [(0.0, 0.0), (0.5, 0.0), (1.0, 0.0)]
    text = section(few_page, "strength")
    assert all(f"<strong>{name.replace('_', ' ')}</strong>" in text for name in AUGMENTATIONS)


def test_tables_hold_what_was_measured_and_nothing_else(few, tmp_path):
    tables = sheets(group(few.runs))
    ood = tables["ood_auroc"].as_dict()
    assert ood[0]["name"] == "simclr" and ood[0]["ood.digits.free_energy.auroc"] == pytest.approx(0.9)
    assert len(tables["ood_auroc"].heads) == len(OUTLIERS) * 3
    assert [row["name"] for row in tables["probes"].as_dict()][3:] == ["random encoder", "raw pixels"]
    assert tables["probes"].as_dict()[0]["rows.few_shot.10.mean"] == pytest.approx(0.87)
    assert "rows.sgd.test.top1" not in tables["probes"].as_dict()[0], "no run has it"
    bare = sheets(group(compare([write_run(tmp_path / "bare")]).runs))
    assert set(bare) == {"health"}


def test_baselines_of_different_settings_are_not_pooled(tmp_path):
    runs = [extend(write_run(tmp_path / n, f"encoder.name={n}")) for n in ("resnet18", "resnet34")]
    assert not any(row["baseline"] for row in sheets(group(compare(runs).runs))["probes"].as_dict())


def test_similarities_have_heat_maps_and_tables(few, few_page, study_page):
    whole = matrices(MANY)
    text = section(study_page, "similarity")
    assert f"simclr, moco_v3: {whole['cka'][0][1]:.2f}".replace("0.", ".") in text
    assert section(few_page, "similarity").count('role="img"') == 3
    assert 'id="similarity"' not in written(few) and "## Linear CKA" in written(few, markdown, matrices=whole)


def test_similarities_are_read_from_what_evaluation_kept(few, study, tmp_path):
    found = few.similarity
    assert found["names"] == ["simclr", "vicreg", "byol"]
    energies = [np.load(run.path / "pairs.npz")["trained"] for run in few.runs]
    ranks = [np.argsort(np.argsort(e)) for e in energies[:2]]
    assert found["spearman"][0][1] == pytest.approx(np.corrcoef(*ranks)[0, 1])
    assert 0.5 < found["cka"][0][1] < 1 and found["overlap"][2][2] == 1.0
    assert run_similarities(group(study[1].runs, study[0]))["names"] == MANY
    runs = [extend(write_run(tmp_path / f"{n}", f"views.views={n}"), seed=n) for n in (2, 4)]
    assert set(run_similarities(group(compare(runs).runs))) == {"names", "cka", "overlap"}, (
        "other views are other pairs"
    )
    assert run_similarities(group(few.runs[:1])) is None


def test_maps_show_the_plane_of_largest_variance(few, tmp_path):
    found = feature_map(few.runs[0].path / "features")
    assert found.points.shape == (120, 2) and 0 < found.explained <= 1
    assert found.points[:, 0].var() >= found.points[:, 1].var()
    assert np.abs(found.points.mean(0)).max() < 1e-9
    assert feature_map(few.runs[0].path / "nothing") is None
    labels = np.repeat(np.arange(4), 1000)
    features = np.eye(8, dtype=np.float32)[labels] + 0.1
    ordered = Split(features, labels)
    Bank(train=ordered, validation=ordered, test=ordered, classes=4).save(tmp_path / "ordered")
    found = feature_map(tmp_path / "ordered")
    assert found.points.shape == (1500, 2) and set(np.bincount(found.labels)) == {375}, "sorted test images too"
    turn = np.array([[0.6, -0.8], [-0.8, -0.6]])
    np.testing.assert_allclose(turned(found.points @ turn, found.points), found.points, atol=1e-12)


def test_mistakes_and_samples_are_shown(few_page):
    parsed = Page(few_page)
    assert len(parsed.all("div", "pair")) == 9 and "class 0 / class 1" in section(few_page, "neighbours")
    assert len(parsed.all("img", "sample")) == 3


def test_a_study_is_shown_by_objective(study_page):
    parsed = Page(study_page)
    assert "families: 10 objectives on fashion_mnist, 20 runs" in parsed.all("h1")[0][1]
    tables = parsed.all("table", "results")
    assert (
        tables[0][1].strip().startswith("Accuracy") and "simclr-s0" not in tables[0][1] and "simclr-s1" in tables[1][1]
    )
    row = re.search(r'<tr><th scope="row" title="moco_v3">.*?</tr>', study_page)[0]
    assert '<span class="tie" title="tied with the best">=</span>89.5<small>±0.4</small>' in row
    assert "−2.0 +5.0" in row, "an interval that is not symmetric"
    assert "find with probability .8: kNN 1.2" in study_page and "only a smoke test" in study_page
    assert "<li>kNN: simclr is best, tied with moco_v3</li>" in study_page and "half of a 95% interval" in study_page
    assert section(study_page, "results").count('class="bar"') == 8 + 1
    assert "raw pixels" in tables[0][1]


def test_many_share_colours_by_family_and_are_named_in_the_charts(study, study_page):
    groups = group(study[1].runs, study[0])
    colours = {own.name: own.look.colour for own in groups}
    assert colours["simclr"] == colours["spectral"] != colours["jsd"] == colours["siglip"]
    assert len({own.look for own in groups}) == 10
    assert [run.name for run in groups[0].runs] == ["simclr-s0", "simclr-s1"]
    text = section(study_page, "training")
    assert all(f">{name}</text>" in text for name in MANY) and "noise-contrastive</li>" in text


def test_configs_of_further_seeds_are_shown_by_their_differences(study_page):
    parsed = Page(study_page)
    configs = [t for _, t in parsed.all("pre")]
    assert len(configs) == 20
    assert "objective:" in configs[0] and "- seed: 0\n+ seed: 1" in configs[1] and "objective:" not in configs[1]


def test_a_large_report_stays_small(study, study_page):
    assert len(study_page) < 2_000_000


def test_study_is_read_from_what_study_json_holds(study):
    known = study[0]
    content = {**vars(known), "differences": {}}
    assert vars(Study.of(content)) == vars(known)
    other = Study.of(content | {"runs": {"simclr": {"0": "elsewhere/x"}}})
    with pytest.raises(ValueError, match="study families has none of the runs simclr-s0"):
        group(study[1].runs[:1] and [run for run in study[1].runs if run.name == "simclr-s0"], other)


def test_markdown_has_the_same_numbers(few, study):
    text = written(few, markdown)
    lines = text.splitlines()
    assert lines[0] == "# 3 runs on fashion\\_mnist"
    assert "## Health of the features" in lines and "## AUROC of outliers, %" in lines
    table = [line for line in lines if line.startswith("| simclr |")]
    assert "90.0 ±0.6" in table[0] and table[0].count("|") == lines[lines.index(table[0]) - 1].count("|")
    text = written(study[1], markdown, study=study[0])
    row = next(line for line in text.splitlines() if line.startswith("| moco\\_v3<sup>"))
    assert "= **89.5** ±0.4" in row
    assert "- kNN: simclr is best, tied with moco\\_v3\n" in text
    assert "No difference was found within: simclr = moco\\_v3 = dcl" in text
    assert plain("a|b*c_d<e>\nf") == "a\\|b\\*c\\_d\\<e\\> f"

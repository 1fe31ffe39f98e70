"""The catalogue is what the objectives say of themselves, and every one has a preset."""

from pathlib import Path

import pytest

from ssl_ebm.config import load_config
from ssl_ebm.data.views import create_views
from ssl_ebm.objectives import OBJECTIVES, create_objective
from ssl_ebm.objectives.catalogue import as_markdown, as_text, catalogue, entry

ROOT = Path(__file__).parents[2]


def test_documentation_is_up_to_date() -> None:
    assert (ROOT / "docs/catalogue.md").read_text() == as_markdown(catalogue()), (
        "ssl-ebm objectives --markdown > docs/catalogue.md"
    )


def test_entries() -> None:
    simclr, byol, dino, vicreg = (entry(name) for name in ("simclr", "byol", "dino", "vicreg"))
    assert (simclr.energy, simclr.state, simclr.conservative) == ("-cos(z, z')/τ", "–", True)
    assert (simclr.canonical, simclr.source) == ("PMI + c(x)", "Chen et al. 2020, 2002.05709")
    assert byol.volume == "predictor + teacher" and byol.canonical == "order" and not byol.conservative
    assert "teacher" in dino.state and "65536" in dino.state and dino.canonical == "PMI"
    assert vicreg.volume == "variance + covariance" and vicreg.canonical == "canonical correlations"
    lines = as_text([simclr, byol]).splitlines()
    assert lines[2] == "contrastive" and lines[3].startswith("simclr") and lines[5] == "asymmetric"


@pytest.mark.parametrize("name", OBJECTIVES)
def test_preset(name: str) -> None:
    config = load_config(ROOT / f"configs/fashion_mnist/{name}.yaml")
    objective = create_objective(**config.objective)
    assert config.objective["name"] == name and config.run_dir == f"runs/fashion_mnist/{name}"
    assert config.training.batch_size >= objective.least_batch()
    assert create_views(**({"size": 28} | config.views)).size <= 28

"""Imports go down only."""

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import ssl_ebm

ROOT = Path(ssl_ebm.__file__).parent
PACKAGES = ("evaluation", "generative", "objectives", "regularizers", "study")  # one layer each; inside, no cycles

LAYERS = [  # from top to bottom
    "cli",
    "study",
    "compare",
    "external",
    "evaluate",
    "sample",
    "image_measures",
    "measures",
    "train",
    "interrupt",
    "run",
    "monitor",
    "model",
    "checkpoint",
    "devices",
    "config",
    "views",
    "augmentation",
    "data",
    "optim",
    "generative",
    "encoder",
    "evaluation",
    "objectives",
    "negatives",
    "assignments",
    "targets",
    "regularizers",
    "whitening",
    "queues",
    "graphs",
    "codes",
    "discrimination",
    "contrasts",
    "gauges",
    "correlations",
    "tiles",
    "reductions",
    "factors",
    "rows",
    "selections",
    "softplus",
    "energies",
    "label_energy",
    "heads",
    "stem",
    "embeddings",
    "draws",
    "strata",
    "distributed",
    "image_ops",
    "image_files",
    "names",
]

MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted(ROOT.rglob("*.py"))
    if path != ROOT / "__init__.py"
}


def imported(source: str, module: str = "") -> set[str]:
    """Modules of the package that a source imports, anywhere in it, without the package's name."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module} has a relative import in line {node.lineno}"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    ours = {name.removeprefix("ssl_ebm.") for name in found if name.startswith("ssl_ebm.")}
    return {name if name in MODULES else name.rpartition(".")[0] or name for name in ours}


def layer(module: str) -> str:
    return module.partition(".")[0]


def violations(module: str, source: str) -> list[str]:
    """Imports of a module that do not go down."""
    own = LAYERS.index(layer(module))
    found = []
    for name in sorted(imported(source, module)):
        if layer(name) not in LAYERS:
            found.append(f"{module} imports {name}, which has no layer")
        elif LAYERS.index(layer(name)) <= own and not (layer(name) == layer(module) in PACKAGES):
            found.append(f"{module} imports {name}, which is not below it")
    return found


def test_every_module_has_a_layer() -> None:
    assert len(LAYERS) == len(set(LAYERS))
    assert {layer(module) for module in MODULES} <= set(LAYERS)
    assert {layer(module) for module in MODULES if "." in module} == set(PACKAGES)


@pytest.mark.parametrize("module", MODULES)
def test_imports_go_down_only(module: str) -> None:
    assert violations(module, MODULES[module].read_text()) == []


@pytest.mark.parametrize("package", PACKAGES)
def test_packages_have_no_cycles(package: str) -> None:
    members = [module for module in MODULES if layer(module) == package]
    TopologicalSorter({m: imported(MODULES[m].read_text()) & set(members) - {m} for m in members}).prepare()


def test_violations_are_found() -> None:
    up = "def f():\n from ssl_ebm.train import pretrain\n import ssl_ebm.cli\n from ssl_ebm import negatives, names"
    assert violations("tiles", up) == [
        "tiles imports cli, which is not below it",
        "tiles imports negatives, which is not below it",
        "tiles imports train, which is not below it",
    ]
    assert violations("tiles", "from ssl_ebm.tiles import Rows") == ["tiles imports tiles, which is not below it"]
    assert violations("names", "import ssl_ebm.nowhere") == ["names imports nowhere, which has no layer"]
    assert violations("objectives.contrastive", "from ssl_ebm.objectives.objective import Objective") == []
    with pytest.raises(AssertionError, match="tiles has a relative import in line 1"):
        violations("tiles", "from . import names")


def test_nothing_imports_the_package_itself() -> None:
    """`import ssl_ebm` inside the package would hide what is imported from where."""
    for module, path in MODULES.items():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                assert all(alias.name != "ssl_ebm" for alias in node.names), module
            if isinstance(node, ast.ImportFrom) and node.module == "ssl_ebm":
                assert all(alias.name in MODULES or alias.name == "__version__" for alias in node.names), module

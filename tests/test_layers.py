"""Imports go down only, between the entries of the package and between the files of each."""

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import ssl_ebm

ROOT = Path(ssl_ebm.__file__).parent

LAYERS = (  # from top to bottom: a file imports from entries below its own, and from its own without cycles
    "cli",
    "study",
    "report",
    "training",
    "evaluation",
    "model",
    "devices",
    "config",
    "generative",
    "objectives",
    "energies",
    "networks",
    "data",
    "optim",
    "run_directory",
    "distributed",
    "registry",
    "user_code",
)

MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted(ROOT.rglob("*.py"))
    if path != ROOT / "__init__.py"
}
FOLDERS = {module for module, path in MODULES.items() if path.name == "__init__.py"}


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
        elif LAYERS.index(layer(name)) < own or (layer(name) == layer(module) and layer(module) not in FOLDERS):
            found.append(f"{module} imports {name}, which is not below it")
    return found


def test_every_module_has_a_layer() -> None:
    assert len(LAYERS) == len(set(LAYERS))
    assert {layer(module) for module in MODULES} == set(LAYERS)


@pytest.mark.parametrize("module", MODULES)
def test_imports_go_down_only(module: str) -> None:
    assert violations(module, MODULES[module].read_text()) == []


@pytest.mark.parametrize("folder", sorted(FOLDERS))
def test_folders_have_no_cycles(folder: str) -> None:
    """Neither between a folder's files nor between its entries: a subfolder counts as one entry."""
    members = [module for module in MODULES if module == folder or module.startswith(f"{folder}.")]
    files = {m: imported(MODULES[m].read_text()) & set(members) - {m} for m in members}
    TopologicalSorter(files).prepare()
    depth = folder.count(".") + 2

    def entry(module: str) -> str:
        return ".".join(module.split(".")[:depth])

    entries: dict[str, set[str]] = {}
    for member, needed in files.items():
        entries.setdefault(entry(member), set()).update(entry(name) for name in needed if entry(name) != entry(member))
    TopologicalSorter(entries).prepare()


def test_violations_are_found() -> None:
    up = "def f():\n from ssl_ebm.training import loop\n import ssl_ebm.cli\n from ssl_ebm import config, registry"
    assert violations("energies.rows", up) == [
        "energies.rows imports cli, which is not below it",
        "energies.rows imports config, which is not below it",
        "energies.rows imports training.loop, which is not below it",
    ]
    assert violations("optim", "from ssl_ebm.optim import f") == ["optim imports optim, which is not below it"]
    assert violations("registry", "import ssl_ebm.nowhere") == ["registry imports nowhere, which has no layer"]
    assert violations("objectives.presets.none", "from ssl_ebm.objectives.objective import Objective") == []
    with pytest.raises(AssertionError, match="energies has a relative import in line 1"):
        violations("energies", "from . import names")


def test_nothing_imports_the_package_itself() -> None:
    """`import ssl_ebm` inside the package would hide what is imported from where."""
    for module, path in MODULES.items():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                assert all(alias.name != "ssl_ebm" for alias in node.names), module
            if isinstance(node, ast.ImportFrom) and node.module == "ssl_ebm":
                assert all(alias.name in MODULES or alias.name == "__version__" for alias in node.names), module

"""Code in the documentation runs, and what it says of the code is so."""

import re
import sys
from pathlib import Path
from types import FrameType
from typing import Any

import torch

import ssl_ebm
from ssl_ebm import Embeddings, create_objective

DOCS = Path(__file__).parents[1] / "docs"
PACKAGE = Path(ssl_ebm.__file__).parent
BESIDE_THE_NUMBER = ("_energies", "_take_note", "_check_shape")  # of an objective, with all that they call


def blocks(page: str, language: str = "python") -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", (DOCS / page).read_text(), re.S)


def test_ten_lines_of_torch_give_the_loss() -> None:
    torch.manual_seed(0)
    exec("\n".join(blocks("how_a_loss_is_computed.md")), {})


def test_calls_of_a_loss_are_those_on_the_page() -> None:
    """Every function of the package that runs, but for those that the page leaves out."""
    page = (DOCS / "how_a_loss_is_computed.md").read_text()
    listed = re.findall(r"^\| \d+ \| `([\w.]+)` \| `([\w/.]+)`", page, re.M)
    called: list[tuple[str, str]] = []
    aside = 0

    def watch(frame: FrameType, event: str, _: Any) -> None:
        nonlocal aside
        code = frame.f_code
        if not code.co_filename.startswith(str(PACKAGE)) or event not in ("call", "return"):
            return
        if code.co_name in BESIDE_THE_NUMBER:
            aside += 1 if event == "call" else -1
        file, name = Path(code.co_filename).relative_to(PACKAGE).as_posix(), getattr(code, "co_qualname", code.co_name)
        if event == "call" and not aside and file not in ("distributed.py", "networks/embeddings.py"):
            if "<lambda>" not in name and name.rpartition(".")[2] not in ("__init__", *BESIDE_THE_NUMBER):
                called.append((name, file))

    sys.setprofile(watch)
    try:
        from ssl_ebm.objectives.presets.contrastive import simclr

        simclr().eval()(Embeddings(projection=torch.randn(2, 8, 128)))
    finally:
        sys.setprofile(None)
    names = {(name, file) for name, file in called if not file.startswith("objectives/objective.py") or "." in name}
    assert len(listed) == 13 and len({file for _, file in listed}) == 7
    ran = {(name if sys.version_info >= (3, 11) else name, file) for name, file in names}
    assert {file for _, file in ran} == {file for _, file in listed}
    assert create_objective("simclr") is not None and {name for name, _ in listed} <= {name for name, _ in ran}

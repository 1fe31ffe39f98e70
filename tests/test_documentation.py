"""Code in the documentation runs, and what it says of the code is so."""

import re
import sys
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
import torch

import ssl_ebm
from ssl_ebm import Embeddings
from ssl_ebm.objectives.presets.contrastive import simclr

PAGE = (Path(__file__).parents[1] / "docs/how_a_loss_is_computed.md").read_text()
PACKAGE = Path(ssl_ebm.__file__).parent
ASIDE = ("_energies", "_take_note", "_check_shape")  # leave the number as it is, with all that they call
FILES_ASIDE = ("distributed.py", "networks/embeddings.py")  # give back what they are given: one process, float32


def test_ten_lines_of_torch_give_the_loss() -> None:
    torch.manual_seed(0)
    variables: dict[str, Any] = {}
    exec("\n".join(re.findall(r"```python\n(.*?)```", PAGE, re.S)), variables)
    assert torch.allclose(variables["loss"], variables["nt_xent"](variables["z0"], variables["z1"]))


@pytest.mark.skipif(sys.version_info < (3, 11), reason="code has no qualified names")
def test_calls_of_a_loss_are_those_on_the_page() -> None:
    """Every method of the package that runs, but for those that the page leaves out."""
    listed = set(re.findall(r"^\| \d+ \| `([\w.]+)` \| `([\w/.]+)`", PAGE, re.M))
    called: set[tuple[str, str]] = set()
    depth_aside = 0

    def watch(frame: FrameType, event: str, _: Any) -> None:
        nonlocal depth_aside
        code = frame.f_code
        if event not in ("call", "return") or not code.co_filename.startswith(str(PACKAGE)):
            return
        if code.co_name in ASIDE:
            depth_aside += 1 if event == "call" else -1
        file = Path(code.co_filename).relative_to(PACKAGE).as_posix()
        if event == "call" and not depth_aside and file not in FILES_ASIDE and not code.co_name.startswith("<"):
            called.add((code.co_qualname, file))

    objective, views = simclr().eval(), torch.randn(2, 8, 128)
    sys.setprofile(watch)
    try:
        objective(Embeddings(projection=views))
    finally:
        sys.setprofile(None)
    properties = {("Objective.named_regularizers", "objectives/objective.py")}
    assert len(listed) == 13 and len({file for _, file in listed}) == 7
    assert called - properties | {("simclr", "objectives/presets/contrastive.py")} == listed

"""Parts by name: what a config may write, and what is said of its mistakes."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pytest
from torch import nn

from ssl_ebm.registry import build, unknown_name


@dataclass(frozen=True, kw_only=True)
class Ball:
    radius: float
    limits: tuple[float, float] | None = None
    count: int = 1
    either: int | float = 1
    widths: Sequence[int] = (1,)
    hollow: bool = False


class Flat(nn.Module):
    """Torch gives it *args and **kwargs, which are no arguments of its own."""


SHAPES = {"ball": Ball, "flat": Flat}


def test_yaml_becomes_what_is_annotated() -> None:
    written = {"radius": 2, "limits": [0, 1], "count": 3, "either": 4, "widths": [5, 6], "hollow": True}
    ball = build("shape", SHAPES, {"name": "ball", **written})
    assert repr(ball) == "Ball(radius=2.0, limits=(0.0, 1.0), count=3, either=4, widths=(5, 6), hollow=True)"
    assert written["limits"] == [0, 1] and isinstance(build("shape", SHAPES, "flat"), Flat)


def test_what_is_known_is_filled_in_where_it_is_taken_and_not_chosen() -> None:
    assert build("shape", SHAPES, "ball", radius=2.0, weight=7) == Ball(radius=2.0)
    assert build("shape", SHAPES, {"name": "ball", "radius": 3}, radius=2.0) == Ball(radius=3.0)
    assert isinstance(build("shape", SHAPES, "flat", radius=2.0), Flat)


@pytest.mark.parametrize(
    ("choice", "kind", "message"),
    [
        (3, TypeError, "shape must be a name, or a mapping of name and arguments, got 3"),
        ({"radius": 1}, ValueError, "shape needs a name: {name: ball, ...}, got {'radius': 1}"),
        ("bal", ValueError, "unknown shape 'bal': did you mean 'ball'? Valid: ball, flat"),
        ({"name": None}, ValueError, "unknown shape None; valid: ball, flat"),
        ({"name": "ball", "radios": 1}, TypeError, "unknown argument of shape 'ball' 'radios': did you mean 'radius'?"),
        ({"name": "ball", "colour": 1}, TypeError, "limits, radius, tint, widths"),
        ({"name": "flat", "args": 1}, TypeError, "unknown argument of shape 'flat' 'args'; valid: tint"),
        ("ball", TypeError, "shape 'ball' needs radius: shape.radius=..."),
    ],
)
def test_mistakes_are_named(choice: Any, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind) as error:
        build("shape", SHAPES, choice, also=["tint"])
    assert message in str(error.value) and "\n" not in str(error.value)


def test_a_remedy_says_where_an_argument_comes_from() -> None:
    with pytest.raises(TypeError, match="shape 'ball' needs radius: measure it"):
        build("shape", SHAPES, "ball", remedies={"radius": "measure it"})


def test_long_lists_are_left_out_where_a_name_is_near() -> None:
    names = [f"name{i}" for i in range(31)]
    assert unknown_name("thing", "name31", names).endswith("?")
    assert unknown_name("thing", "x", []) == "unknown thing 'x'; valid: none"

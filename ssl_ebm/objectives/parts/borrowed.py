"""A module that one part of an objective uses and another part owns."""

from __future__ import annotations

from typing import Generic, TypeVar

Part = TypeVar("Part")


class Borrowed(Generic[Part]):
    """Another part's module, of which this part holds no state: it is registered, saved and moved by its owner alone.

    Attributes:
        module: The other part's.
    """

    def __init__(self, module: Part) -> None:
        self.module = module

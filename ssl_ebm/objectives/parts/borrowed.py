"""A module that one part of an objective uses and another part owns."""

from __future__ import annotations

from typing import Generic, TypeVar

Part = TypeVar("Part")


class Borrowed(Generic[Part]):
    """Another part's module, wrapped so that its owner alone registers, saves and moves it.

    Attributes:
        module: The borrowed module.
    """

    def __init__(self, module: Part) -> None:
        self.module = module

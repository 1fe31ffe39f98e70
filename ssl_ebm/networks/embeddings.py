"""Embeddings: what encoders give and objectives take."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Embeddings:
    """All embeddings of one batch: `views` augmented views of each of `batch` images.

    `Embeddings(projection=z)` is enough for most objectives; `Objective.uses` names the optional parts that one reads.

    Attributes:
        projection: projector(backbone(x)), which the energy compares.
        features: backbone(x), which users keep.
        prediction: predictor(projection).
        target: The EMA teacher's projection of the global views, without gradient.
        index: Position of each image in its data set.
        label: Class of each image, -1 where unknown; only supervised objectives read it.
        global_views: With multi-crop, the number of leading views that are global ones; None: all views are.
    """

    projection: Float[Tensor, "views batch dim"]
    features: Float[Tensor, "views batch feature"] | None = None
    prediction: Float[Tensor, "views batch dim"] | None = None
    target: Float[Tensor, "global_views batch dim"] | None = None
    index: Int[Tensor, " batch"] | None = None
    label: Int[Tensor, " batch"] | None = None
    global_views: int | None = None

    @classmethod
    def of_views(cls, *views: Float[Tensor, "_ _"]) -> Embeddings:
        """From the projections [batch, dim] of each view.

        Raises:
            ValueError: They differ in shape.
        """
        shapes = [tuple(view.shape) for view in views]
        if len(set(shapes)) > 1 or len(shapes[0]) != 2:
            raise ValueError(f"views must be projections [batch, dim] of one shape, got {shapes}")
        return cls(projection=torch.stack(views))

    def float(self) -> Embeddings:
        """The same embeddings with half-precision parts as float32; float32 and float64 stay as they are."""
        half = (torch.float16, torch.bfloat16)
        parts: dict[str, Any] = {field.name: getattr(self, field.name) for field in fields(self)}
        changes = {name: x.float() for name, x in parts.items() if isinstance(x, Tensor) and x.dtype in half}
        return replace(self, **cast("dict[str, Any]", changes))

    def require(self, name: str, *, why: str) -> Tensor:
        """The optional part called `name`, which `why` needs.

        Raises:
            ValueError: It is missing.
        """
        part = getattr(self, name)
        if part is None:
            raise ValueError(f"{why} needs Embeddings({name}=...), got None")
        return part

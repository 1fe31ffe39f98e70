"""Run directory <-> objects. Every file is written whole or not at all, and reading executes nothing."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a temporary file beside `path`, then put it in its place."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        write(temporary)
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, value: object) -> None:
    """Write JSON with numbers only where numbers are finite."""
    write_atomically(path, lambda p: p.write_text(json.dumps(value, indent=1, allow_nan=False) + "\n"))


@dataclass(frozen=True)
class RunDirectory:
    """The files of one run."""

    path: Path

    @property
    def config(self) -> Path:
        """The resolved config."""
        return self.path / "config.yaml"

    @property
    def metrics(self) -> Path:
        """One JSON object a line."""
        return self.path / "metrics.jsonl"

    @property
    def checkpoint(self) -> Path:
        """All that resuming needs."""
        return self.path / "checkpoints" / "last.pt"

    @property
    def encoder(self) -> Path:
        """What a user keeps: backbone, projector, energy."""
        return self.path / "encoder.safetensors"

    @property
    def features(self) -> Path:
        """The bank."""
        return self.path / "features"

    @property
    def evaluation(self) -> Path:
        """Results with their protocols."""
        return self.path / "evaluation.json"

    def require(self) -> RunDirectory:
        """Itself.

        Raises:
            FileNotFoundError: It is not a run directory.
        """
        if not self.config.is_file():
            raise FileNotFoundError(f"{self.path} is not a run directory: it has no config.yaml (see ssl-ebm pretrain)")
        return self

    def read_metrics(self) -> list[dict[str, Any]]:
        """All lines of metrics.jsonl; without the last one where a kill cut it off."""
        if not self.metrics.is_file():
            return []
        lines = self.metrics.read_text().splitlines(keepends=True)
        return [json.loads(line) for line in lines if line.endswith("\n")]

    def append_metrics(self, line: Mapping[str, Any]) -> None:
        """Write one line to metrics.jsonl."""
        with open(self.metrics, "a") as file:
            file.write(json.dumps(line) + "\n")

    def keep_metrics_until(self, step: int) -> None:
        """Drop lines of steps after `step`, which a resumed run writes again."""
        lines = [json.dumps(line) + "\n" for line in self.read_metrics() if line["step"] <= step]
        write_atomically(self.metrics, lambda p: p.write_text("".join(lines)))


def save_checkpoint(path: Path, state: Mapping[str, Any]) -> None:
    """Write a checkpoint atomically."""
    write_atomically(path, lambda p: torch.save(dict(state), p))


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint; unpickles nothing but tensors and plain values.

    Raises:
        FileNotFoundError: There is none.
        ValueError: It is damaged.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no checkpoint at {path}: nothing to resume; start the run without --resume")
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise ValueError(f"checkpoint {path} cannot be read: {str(error).splitlines()[0]}") from error


def save_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write tensors as safetensors, atomically."""
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    write_atomically(path, lambda p: save_file(plain, p, dict(metadata)))


def load_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata of a safetensors file.

    Raises:
        FileNotFoundError: There is none.
        ValueError: It is damaged.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no weights at {path}: the run has not reached its first checkpoint")
    try:
        with safe_open(path, "pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, dict(file.metadata() or {})
    except Exception as error:
        raise ValueError(f"weights {path} cannot be read: {error}") from error

"""One YAML file is one run: the owners' dataclasses composed, merged with `a.b=c` overrides, strictly."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from omegaconf import OmegaConf
from omegaconf.errors import ConfigKeyError, OmegaConfBaseException

from ssl_ebm.data.datasets import DataConfig
from ssl_ebm.generative.config import GenerativeConfig
from ssl_ebm.networks.encoder import EncoderConfig
from ssl_ebm.optim import OptimizerConfig
from ssl_ebm.registry import unknown_name

PRECISIONS = ("auto", "float32", "bfloat16")


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """The loop.

    Attributes:
        epochs: Passes over the training images; may be a fraction.
        batch_size: Images an update, over all processes and accumulation steps.
        accumulate: Parts that a batch is computed in; each part has negatives and statistics of its own.
        device: auto (a GPU where there is one), cpu, cuda, cuda:1, mps.
        precision: Of the networks: auto (bfloat16 where the device computes in it), float32 or bfloat16.
        channels_last: Memory format; null: where it helps.
        log_every_steps: Updates between lines of metrics.jsonl.
        knn_every_epochs: Epochs between kNN evaluations on the validation split; 0: never.
        checkpoint_every_steps: Updates between checkpoints; one is always written at the end.
        stop_on_collapse: End the run when the collapse alarm persists, instead of warning only.
    """

    epochs: float = 10.0
    batch_size: int = 256
    accumulate: int = 1
    device: str = "auto"
    precision: str = "auto"
    channels_last: bool | None = None
    log_every_steps: int = 10
    knn_every_epochs: float = 1.0
    checkpoint_every_steps: int = 500
    stop_on_collapse: bool = False

    def __post_init__(self) -> None:
        for name in ("batch_size", "accumulate", "log_every_steps", "checkpoint_every_steps"):
            if getattr(self, name) < 1:
                raise ValueError(f"training.{name} must be >= 1, got {getattr(self, name)}")
        if not self.epochs > 0:
            raise ValueError(f"training.epochs must be > 0, got {self.epochs}")
        if self.precision not in PRECISIONS:
            raise ValueError(unknown_name("training.precision", self.precision, PRECISIONS))
        if self.batch_size % self.accumulate:
            raise ValueError(
                f"training.accumulate must divide batch_size, got {self.accumulate} for a batch of {self.batch_size}"
            )


@dataclass(frozen=True, kw_only=True)
class Config:
    """A whole run.

    Attributes:
        run_dir: Where everything it makes goes.
        seed: Of weights, order and views.
        data: Which images.
        views: `name` of a preset, `views` an image, their `size` in pixels (the images' own if not given: smaller is
            faster, and objects in small crops then look as large as in whole images, arXiv 1906.06423), changes to
            the preset's augmentations, and for multi-crop `local_views`, `local_size` and `local_crop_scale`: so many
            smaller views besides, their side in pixels, and the range of their area.
        encoder: Which backbone.
        objective: `name`, and the arguments that differ from the paper's.
        optimizer: How parameters are updated.
        training: The loop.
        generative: An energy of images beside the objective's; null: none, and nothing is paid for it.
    """

    run_dir: str = "runs/run"
    seed: int = 0
    data: DataConfig = field(default_factory=DataConfig)
    views: dict[str, Any] = field(default_factory=lambda: {"name": "simclr"})
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    objective: dict[str, Any] = field(default_factory=lambda: {"name": "simclr"})
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    generative: GenerativeConfig | None = None

    def __post_init__(self) -> None:
        for part in ("views", "objective"):
            if "name" not in getattr(self, part):
                raise ValueError(f"{part} needs a name, e.g. {part}.name=simclr")
        if self.objective["name"] == "none" and self.generative is None:
            raise ValueError("objective none trains nothing by itself: add a section generative, or choose another")


def load_config(source: str | Path | Mapping[str, Any], overrides: Sequence[str] = ()) -> Config:
    """A config from a YAML file or a mapping, with overrides such as `optimizer.lr=3e-4`.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file is not YAML; an unknown key, or a value that does not fit; named with the remedy.
    """
    return compose(Config, read_mapping(source), overrides)


Owner = TypeVar("Owner")


def compose(owner: type[Owner], loaded: Mapping[str, Any], overrides: Sequence[str] = ()) -> Owner:
    """A dataclass, and the dataclasses in it, from nested mappings and `a.b=c` overrides.

    Raises:
        ValueError: An unknown key, or a value that does not fit; named with the remedy.
    """
    for override in overrides:
        if "=" not in override:
            raise ValueError(f"an override must be key=value, e.g. optimizer.lr=3e-4, got {override!r}")
    try:
        changes = OmegaConf.from_dotlist(list(overrides))
        given = OmegaConf.merge(OmegaConf.create(dict(loaded)), changes)
        merged = OmegaConf.merge(OmegaConf.structured(owner), given)
        composed = OmegaConf.to_object(merged)
    except ConfigKeyError as error:
        raise ValueError(_unknown_key(owner, str(error.full_key))) from None
    except OmegaConfBaseException as error:
        raise ValueError(f"config key {error.full_key}: {str(error).splitlines()[0]}") from None
    assert isinstance(composed, owner)
    return composed


def read_mapping(source: str | Path | Mapping[str, Any]) -> dict[str, Any]:
    """What a YAML file holds, or a copy of the mapping.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file is not YAML, or holds no mapping.
    """
    if isinstance(source, Mapping):
        return dict(source)
    path = Path(source)
    if not path.is_file():
        near = sorted(str(p) for p in Path("configs").glob("**/*.yaml"))
        raise FileNotFoundError(f"{unknown_name('config file', str(path), near)}")
    try:
        loaded = OmegaConf.to_container(OmegaConf.load(path))
    except Exception as error:
        raise ValueError(f"{path} is not a valid YAML file: {str(error).splitlines()[0]}") from None
    if not isinstance(loaded, dict):
        raise ValueError(f"{path} must hold a mapping of keys to values, got {type(loaded).__name__}")
    return {str(key): value for key, value in loaded.items()}


def _unknown_key(owner: Any, full_key: str) -> str:
    *parents, last = full_key.split(".")
    for parent in parents:
        owner = next(_section(f) for f in dataclasses.fields(owner) if f.name == parent)
    valid = [f.name for f in dataclasses.fields(owner)]
    prefix = "".join(parent + "." for parent in parents)
    return unknown_name("config key", prefix + last, [prefix + name for name in valid])


def _section(field: dataclasses.Field[Any]) -> Any:
    """The dataclass of a section, also where it is absent by default."""
    return GenerativeConfig if field.name == "generative" else field.default_factory


def save_config(config: Config, path: Path) -> None:
    """Write the resolved config as YAML that `load_config` reads."""
    OmegaConf.save(OmegaConf.structured(config), path)


def differences(a: Config, b: Config) -> list[str]:
    """Keys in which two configs differ, as `key: value → value`."""

    def flatten(value: Any, prefix: str = "") -> dict[str, Any]:
        if isinstance(value, Mapping):
            return {k: v for key, item in value.items() for k, v in flatten(item, f"{prefix}{key}.").items()}
        return {prefix[:-1]: value}

    left, right = (flatten(OmegaConf.to_container(OmegaConf.structured(c))) for c in (a, b))
    keys = [*left, *(key for key in right if key not in left)]
    return [f"{key}: {left.get(key)} → {right.get(key)}" for key in keys if left.get(key) != right.get(key)]

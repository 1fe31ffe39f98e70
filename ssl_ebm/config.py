"""The config of a run: dataclasses filled from a YAML file, the base that it names, and `a.b=c` overrides, strictly."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar, get_args, get_type_hints

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

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
    """The config of a run, from a YAML file or a mapping, changed by overrides such as `optimizer.lr=3e-4`.

    A file may name another as its `base` (`read_run`); `compose` says what an override replaces.

    Raises:
        FileNotFoundError: The file, or its base, does not exist.
        ValueError: A file is not YAML; a key is unknown, or a value does not fit; named with the remedy.
    """
    return compose(Config, read_run(source), overrides)


Owner = TypeVar("Owner")


def compose(owner: type[Owner], loaded: Mapping[str, Any], overrides: Sequence[str] = ()) -> Owner:
    """A dataclass, and the dataclasses in it, from nested mappings changed by `a.b=c` overrides, one after the other.

    An override replaces the value of its key: `encoder={name: vit_tiny_patch16_224}` leaves nothing of the encoder
    before, `encoder.name=resnet34` changes one key. Its text is read as YAML, but where the field is of type str: there
    `data.root=007`, `data.root=off` and `data.root=null` are taken as they stand. In any value, of an override or a
    file, `${objective.name}` stands for that key's value.

    Raises:
        ValueError: A key is unknown, or a value does not fit; named with the remedy.
    """
    mapping = dict(loaded)
    for override in overrides:
        key, equals, text = override.partition("=")
        if not equals:
            raise ValueError(f"an override must be key=value, e.g. optimizer.lr=3e-4, got {override!r}")
        mapping = replace_value(mapping, key, _override_value(owner, key, text))
    _require_known_keys(owner, mapping)
    try:
        composed = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(owner), OmegaConf.create(mapping)))
    except OmegaConfBaseException as error:
        raise ValueError(f"config key {error.full_key}: {str(error).splitlines()[0]}") from None
    assert isinstance(composed, owner)
    return composed


def read_run(source: str | Path | Mapping[str, Any]) -> dict[str, Any]:
    """The keys of a run: a YAML file's, merged over those of the file that it names as its `base`; or a mapping's.

    A base is relative to the file that names it, and has no base itself.

    Raises:
        FileNotFoundError: The file, or its base, does not exist.
        ValueError: A file is not YAML or has an unknown key; a base names a base, or stands in a mapping.
    """
    if isinstance(source, Mapping):
        if "base" in source:
            raise ValueError(f"only a file may name a base: merge the mapping with {source['base']!r} yourself")
        return dict(source)
    changes = _read_run_file(source)
    if "base" not in changes:
        return changes
    name = changes.pop("base")
    if not isinstance(name, str):
        raise ValueError(f"{source}: base must be the name of a file, got {name!r}")
    path = Path(source).parent / name
    if not path.is_file():
        raise FileNotFoundError(f"{source}: there is no base {path}: it must be relative to the file that names it")
    base = _read_run_file(path)
    if "base" in base:
        raise ValueError(f"{source}: base {path} names a base itself, {base['base']!r}: only one level is allowed")
    return merge(base, changes)


def merge(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Nested mappings with changes, key by key; a part that gets another `name` is replaced whole.

    So no argument of the base's encoder, views, objective, sampler, ... reaches another one. `data` and `optimizer`
    are always changed key by key: their keys mean the same under every name.
    """
    merged = dict(base)
    for key, value in changes.items():
        before = merged.get(key)
        if isinstance(before, Mapping) and isinstance(value, Mapping):
            renamed = "name" in before and "name" in value and before["name"] != value["name"]
            if key in ("data", "optimizer") or not renamed:
                value = merge(before, value)
        merged[key] = value
    return merged


def replace_value(mapping: Mapping[str, Any], key: str, value: Any, parents: str = "") -> dict[str, Any]:
    """A copy of nested mappings in which the dotted key has this value, and nothing of what it had before.

    Raises:
        ValueError: The key held a part with a `name`, and its replacement has none.
    """
    first, _, rest = key.partition(".")
    before = mapping.get(first)
    if rest:
        value = replace_value(before if isinstance(before, Mapping) else {}, rest, value, f"{parents}{first}.")
    elif isinstance(before, Mapping) and isinstance(value, Mapping) and "name" in before and "name" not in value:
        raise ValueError(
            f"{parents}{key}={value} replaces {before['name']} and must have a name; to change one key of it, "
            f"write {parents}{key}.{next(iter(value), 'KEY')}=..."
        )
    return {**mapping, first: value}


def read_mapping(source: str | Path | Mapping[str, Any]) -> dict[str, Any]:
    """The content of a YAML file, or a copy of the mapping.

    Raises:
        FileNotFoundError: The file does not exist.
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


def _read_run_file(path: str | Path) -> dict[str, Any]:
    mapping = read_mapping(path)
    try:
        _require_known_keys(Config, {key: value for key, value in mapping.items() if key != "base"})
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    return mapping


def _require_known_keys(owner: Any, mapping: Mapping[str, Any], parents: str = "") -> None:
    types = _field_types(owner)
    for key, value in mapping.items():
        if key not in types:
            raise ValueError(unknown_name("config key", f"{parents}{key}", [parents + name for name in types]))
        if dataclasses.is_dataclass(types[key]) and isinstance(value, Mapping):
            _require_known_keys(types[key], value, f"{parents}{key}.")


def _field_types(owner: Any) -> dict[str, Any]:
    """The type of each field of a dataclass; of a section that may be null, the section's own dataclass."""
    types = get_type_hints(owner)
    return {name: next(filter(dataclasses.is_dataclass, get_args(kind)), kind) for name, kind in types.items()}


def _override_value(owner: Any, key: str, text: str) -> Any:
    """What the text of an override stands for, by the type of its field."""
    kind = owner
    for part in key.split("."):
        kind = _field_types(kind).get(part) if dataclasses.is_dataclass(kind) else None
    if kind is str:
        return text
    try:
        value = OmegaConf.to_container(OmegaConf.from_dotlist([f"value={text}"]))["value"]  # type: ignore
    except Exception as error:
        raise ValueError(f"{key}={text} is not valid YAML: {str(error).splitlines()[0]}") from None
    return text if kind == (str | None) and value is not None else value


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

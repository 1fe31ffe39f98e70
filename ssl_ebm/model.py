"""What a user keeps after training: features, embeddings, and the energy of pairs."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ssl_ebm.config import Config, load_config
from ssl_ebm.energies.canonical import CanonicalForm
from ssl_ebm.energies.index import EnergyIndex
from ssl_ebm.energies.pairwise import Energy, Factor, Side
from ssl_ebm.generative.draw_images import Samples, TrainedEnergies, draw_images
from ssl_ebm.generative.heads import Head
from ssl_ebm.generative.term import create_head
from ssl_ebm.networks.encoder import Encoder, build_encoder
from ssl_ebm.networks.heads import MLP
from ssl_ebm.objectives import build_objective
from ssl_ebm.run_directory import RunDirectory, load_tensors, save_tensors, write_json
from ssl_ebm.user_code import MissingPart, Parts

Images = Float[Tensor, "n c h w"]
Others = Float[Tensor, "m c h w"]


class MissingEnergy(Energy):
    """Stands for the energy of an objective that was not given: it says so when it is asked for a number."""

    def __init__(self, reason: str) -> None:
        super().__init__()
        self.reason = reason

    def factor(self, x: Float[Tensor, "n dim"], side: Side) -> Factor:
        """None.

        Raises:
            MissingPart: Always.
        """
        raise MissingPart(self.reason)


class EnergyModel(nn.Module):
    """A trained encoder with the energy that it was trained under; low = compatible.

    Always in eval mode, without gradients to its weights; no result depends on the other images of a call. Images are
    floats in [0, 1].

    Attributes:
        encoder: Backbone with its normalisation.
        projector: What the energy sees the features through.
        scorer: E on projections.
        config: The run's config.
        canonical form: How E is related to the pointwise mutual information; None: by its order only.
        head: E of a single image; None: the run trained none.
    """

    def __init__(
        self,
        encoder: Encoder,
        projector: nn.Module,
        scorer: Energy,
        config: Config,
        canonical_form: CanonicalForm | None = None,
        head: Head | None = None,
    ) -> None:
        super().__init__()
        self.encoder, self.projector, self.scorer, self.config = encoder, projector, scorer, config
        self.canonical_form, self.head = canonical_form, head
        self.requires_grad_(False)
        super().train(False)

    def train(self, mode: bool = True) -> EnergyModel:
        """Stays in eval mode."""
        return super().train(False)

    @property
    def missing(self) -> str | None:
        """Why it has no energy: the run's objective is its author's and was not given; None: it has one."""
        return self.scorer.reason if isinstance(self.scorer, MissingEnergy) else None

    @property
    def device(self) -> torch.device:
        """Where its weights are."""
        return self.encoder.mean.device

    def features(self, x: Images) -> Float[Tensor, "n feature"]:
        """Backbone features."""
        return self.encoder(x.to(self.device)).float()

    def embed(self, x: Images) -> Float[Tensor, "n dim"]:
        """Projections, where the energy lives."""
        return self.projector(self.features(x)).float()

    def energy(self, x: Images, y: Images) -> Float[Tensor, " n"]:
        """E(x_i, y_i)."""
        return self.scorer.paired(self.embed(x), self.embed(y))

    def energy_matrix(self, x: Images, y: Others) -> Float[Tensor, "n m"]:
        """E(x_i, y_j)."""
        return self.scorer.cross(self.embed(x), self.embed(y))

    def free_energy(self, x: Images, bank: Others, beta: float = 1.0) -> Float[Tensor, " n"]:
        """F(x) = -1/β log mean_j exp(-β E(x, bank_j)): low where x resembles the bank."""
        if not beta > 0:
            raise ValueError(f"beta must be > 0, got {beta}")
        energies = -beta * self.energy_matrix(x, bank)
        return -(energies.logsumexp(1) - math.log(energies.shape[1])) / beta

    def image_energy(self, x: Images, *, bank: Others | None = None) -> Float[Tensor, " n"]:
        """E(x_i) of single images, by the generative head; sizes as in training, `sample_shape`.

        Args:
            x: Images.
            bank: Images that the joint head sums over; the other heads take none.

        Raises:
            ValueError: The run trained no generative head, or the joint head has no bank.
        """
        return self._energies().of_images(bank)(x.to(self.device))

    def _energies(self) -> TrainedEnergies:
        return TrainedEnergies(self.encoder, self.projector, self.scorer, self.head)

    @property
    def sample_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of the views that it was trained on."""
        size = int(self.config.views.get("size", self.encoder.image_size))
        return self.encoder.in_chans, size, size

    def sample(
        self,
        n: int | None = None,
        *,
        x0: Images | None = None,
        given: Images | None = None,
        label: int | None = None,
        bank: Others | None = None,
        steps: int | None = None,
        seed: int = 0,
        convert_batch_norm: bool = False,
        progress: Callable[[int], object] | None = None,
    ) -> Samples:
        """Images by the run's own sampler: from E(x), from E(x, y) of a class, or from E(given, x).

        Chains start at `x0`, else at uniform noise. Under E(given, ·) of a run without a generative head they find
        images that the encoder takes for views of the given ones, which need not look like images: training never
        contrasted in x, and the result is marked `adversarial`.

        Args:
            n: How many; None: as many as `x0` or `given`.
            x0: Where chains start.
            given: Samples x' of p(x' | x) ∝ exp(-E(x, x')), one for each.
            label: A class, for the logits head.
            bank: As in `image_energy`.
            steps: Of each chain; None: from noise as many as a chain of the training lives, else a call's.
            seed: Of noise and steps.
            convert_batch_norm: Let BatchNorm be what it is in eval mode, a fixed affine map.
            progress: Told after each step that it was one.

        Raises:
            ValueError: Nothing to sample from, images out of range, a BatchNorm, or chains that diverge.
        """
        energies = self._energies()
        return draw_images(
            energies.without_batch_norm() if convert_batch_norm else energies,
            self.config.generative,
            self.sample_shape,
            n=n,
            x0=x0,
            given=given,
            label=label,
            bank=bank,
            steps=steps,
            seed=seed,
            progress=progress,
        )

    def canonical(self, bank: Float[Tensor, "2 n c h w"]) -> EnergyModel:
        """This model with a canonical energy, -log p(x, y) / (p(x) p(y)) in nats: comparable over objectives.

        Args:
            bank: Two views each of images that calibrate it, made as the training's: `create_views(...)(images)`.

        Raises:
            ValueError: The objective's optimum says nothing of it, or the bank is too small.
        """
        if self.missing is not None:
            raise MissingPart(self.missing)
        if self.canonical_form is None:
            raise ValueError(
                f"the energy of {self.config.objective['name']} orders pairs only: it has no canonical form"
            )
        a, b = (torch.cat([self.embed(part) for part in view.split(500)]) for view in bank)
        energy = self.canonical_form.fit(self.scorer, a, b).to(self.device)
        return EnergyModel(
            self.encoder, self.projector, energy, self.config, canonical_form=CanonicalForm(), head=self.head
        )

    def index(self, y: Images) -> EnergyIndex:
        """A faiss index of images, searched by energy: `index(y).search(model.embed(x), k)`."""
        return EnergyIndex(self.scorer, self.embed(y))

    def export(self, path: str | Path) -> Path:
        """Write the backbone's weights for timm, and beside them a .json that says how to build the network.

        `timm.create_model(name, **kwargs, checkpoint_path=path)` loads them strictly. The features are equal after the
        stem's changes listed in the .json, none where the image size needed none. Weights of a network that is no timm
        model are for what made it: `load_state_dict(safetensors.torch.load_file(path))`.

        Raises:
            ValueError: `path` does not end in .safetensors.
        """
        path = Path(path)
        if path.suffix != ".safetensors":
            raise ValueError(f"export path must end in .safetensors, got {str(path)!r}")
        save_tensors(path, self.encoder.backbone.state_dict(), {"format": "pt"})
        normalisation = {name: getattr(self.encoder, name).flatten().tolist() for name in ("mean", "std")}
        write_json(path.with_suffix(".json"), self.encoder.recipe | normalisation)
        return path


def load(
    run_dir: str | Path,
    device: str | torch.device = "cpu",
    *,
    objective: Any = None,
    encoder: Any = None,
    trust: bool = False,
) -> EnergyModel:
    """The `EnergyModel` of a run directory.

    Nothing that the run's config names as `package.module:function` is imported by itself. Without the objective of a
    run that has one of its author's, features and embeddings are there and its energy is not.

    Args:
        run_dir: The run.
        device: Where it computes.
        objective: The run's own objective again, as it was given to `pretrain`.
        encoder: Likewise its encoder.
        trust: Import what the run's config names.

    Raises:
        FileNotFoundError: It is not a run directory, or the run has not reached its first checkpoint.
        MissingPart: Its encoder is its author's, and was not given.
        ValueError: Its files are damaged, do not fit the parts that are given, or need no such part.
    """
    run = RunDirectory(Path(run_dir)).require()
    tensors, metadata = load_tensors(run.encoder)
    config = load_config(run.config)
    parts = Parts(objective=objective, encoder=encoder, trust=trust)
    _refuse_needless(parts, config)
    network = build_encoder(
        dataclasses.replace(config.encoder, pretrained=False),
        parts.find("encoder", config.encoder),
        **json.loads(metadata["images"]),
    )
    scorer, form = None, None
    try:
        trained = build_objective(config.objective, parts.find("objective", config.objective))
        mlp, scorer, form = trained.heads.projector, trained.scorer, trained.canonical_form
    except MissingPart as missing:
        if objective is not None:
            raise
        mlp, scorer = _stored_projector(metadata), MissingEnergy(str(missing))
    head = None
    if config.generative is not None:
        head = create_head(config.generative, network, dim=mlp.dim, energy=scorer)
    projector = mlp.build(network.num_features)
    model = EnergyModel(network, projector, scorer, config, canonical_form=form, head=head)
    if model.missing is not None:
        tensors = {name: tensor for name, tensor in tensors.items() if name in model.state_dict()}
    try:
        model.load_state_dict(tensors)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:300]
        raise ValueError(f"the weights of {run.path} do not fit its config or the parts given: {reason}") from error
    return model.to(device)


def _refuse_needless(parts: Parts, config: Config) -> None:
    for kind in ("objective", "encoder"):
        if getattr(parts, kind) is not None and getattr(parts.needed(config), kind) is None:
            section: Any = getattr(config, kind)
            name = section["name"] if kind == "objective" else section.name
            raise ValueError(f"the run's {kind} is {name}, which needs no {kind}=: leave it out")


def _stored_projector(metadata: Mapping[str, str]) -> MLP:
    """The projector of a run whose objective is not there."""
    try:
        fields = json.loads(metadata["objective"])["projector"]
        return MLP(**fields | {"hidden": tuple(fields["hidden"])})
    except (KeyError, TypeError) as error:
        raise ValueError(f"the run's weights do not say what projector it has ({error}): give its objective") from error

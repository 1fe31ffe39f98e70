"""What an objective costs: its own forward and backward as a share of a training step of ResNet-18.

    python eval/cost.py                  at the papers' dimensions, batch 256
    python eval/cost.py --presets        at those of configs/fashion_mnist

The step is forward and backward of timm's resnet18 on both views of 256 images of 32 × 32 × 3, stem adapted, in the
precision that training would choose. The objective gets embeddings that need a gradient, in float32: projector and
predictor are the network's, not its own. State updates (queues, covariances, eigenvalues) are included.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch

import ssl_ebm
from ssl_ebm.config import TrainingConfig
from ssl_ebm.devices import choose_compute
from ssl_ebm.objectives import Objective, create_objective

IMAGES = 60000  # remembered by the objectives that remember each


def median_time(run: Callable[[], None], repeats: int) -> float:
    """Seconds, after one run that does not count."""
    run()
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        run()
        times.append(time.perf_counter() - started)
    return statistics.median(times)


def resnet_step(batch: int, repeats: int) -> float:
    """Seconds of the step that the shares refer to."""
    compute = choose_compute(TrainingConfig())
    encoder = ssl_ebm.create_encoder("resnet18", in_chans=3, image_size=32)
    images = torch.rand(2 * batch, 3, 32, 32)
    if compute.channels_last:
        encoder = encoder.to(memory_format=torch.channels_last)
        images = images.contiguous(memory_format=torch.channels_last)

    def run() -> None:
        encoder.zero_grad(set_to_none=True)
        with compute.autocast():
            features = encoder(images)
        features.float().square().mean().backward()

    return median_time(run, repeats)


def build(name: str, presets: bool) -> tuple[Objective, int, int]:
    """The objective, and how many views of each image it is given: all, and global ones."""
    settings: dict = {}
    views = {"views": 2, "local_views": 0}
    if presets:
        config = ssl_ebm.load_config(f"configs/fashion_mnist/{name}.yaml")
        settings = {key: value for key, value in config.objective.items() if key != "name"}
        views |= {key: value for key, value in config.views.items() if key in views}
    objective = create_objective(name, **settings)
    objective.fit_to(IMAGES)
    return objective, views["views"] + views["local_views"], views["views"]


def objective_step(name: str, batch: int, presets: bool, repeats: int) -> tuple[float, int]:
    """Seconds of forward, state update and backward; and the dimension."""
    objective, views, global_views = build(name, presets)
    projector, predictor = objective.heads.projector, objective.heads.predictor
    generator = torch.Generator().manual_seed(0)

    def leaf(dim: int, count: int = views) -> torch.Tensor:
        return torch.randn(count, batch, dim, generator=generator).requires_grad_()

    parts = {"projection": leaf(projector.dim), "features": leaf(512)}
    if predictor is not None:
        parts["prediction"] = leaf(predictor.dim)
    embeddings = ssl_ebm.Embeddings(
        **parts,
        target=leaf(projector.dim, global_views).detach(),
        index=torch.randperm(IMAGES, generator=generator)[:batch],
        label=torch.randint(10, (batch,), generator=generator),
        global_views=global_views if global_views < views else None,
    )

    def run() -> None:
        for part in parts.values():
            part.grad = None
        objective(embeddings).loss.backward()

    return median_time(run, repeats), projector.dim


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("objectives", nargs="*", help="names (default: all)")
    parser.add_argument("--presets", action="store_true", help="dimensions of configs/fashion_mnist")
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    step = resnet_step(options.batch, 3)
    print(f"ResNet-18 step at batch {options.batch}, both views: {step:.2f} s\n")
    print(f"{'':<15}{'dim':>8}{'ms':>9}{'share':>9}")
    for name in options.objectives or ssl_ebm.list_objectives():
        seconds, dim = objective_step(name, options.batch, options.presets, options.repeats)
        print(f"{name:<15}{dim:>8}{1000 * seconds:>9.1f}{seconds / step:>9.1%}", flush=True)


if __name__ == "__main__":
    main()

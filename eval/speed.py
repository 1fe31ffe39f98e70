"""Images a second of the training loop, beside its limit and beside lightly, in turn on the same machine.

    python eval/speed.py                 loop against the bare backbone
    python eval/speed.py --lightly       and against lightly

lightly asks for an older omegaconf than this project, through hydra, which this script does not use. No extra can
resolve that, so: pip install lightly==1.6.0 && pip install 'omegaconf>=2.4'.

lightly runs twice: as in its example, float32 in the default memory format; and tuned, in our precision and format.
The limit is the backbone alone: forward and backward of both views, on resident tensors, in the same precision and
memory format. The loop adds views, projector, objective, optimiser, non-finite guard and metrics. An image counts once,
with both of its views.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext

import numpy as np
import torch

import ssl_ebm
from ssl_ebm.training.loop import update
from ssl_ebm.training.monitor import Monitor
from ssl_ebm.training.run import Run, prepare

CONFIG = {
    "data": {"name": "fashion_mnist"},
    "views": {"name": "grey"},
    "encoder": {"name": "test_resnet", "adapt_stem": False},
    "objective": {"name": "simclr", "projector": {"hidden": [512], "out": 128}},
    "training": {"batch_size": 256, "knn_every_epochs": 0},
}


def bare_backbone(run: Run) -> Callable[[int], None]:
    """Forward and backward of the backbone on both views of one resident batch."""
    batch, size = run.config.training.batch_size, run.splits.image_size
    images = torch.rand(2 * batch, run.splits.in_chans, size, size, device=run.compute.device)
    if run.compute.channels_last:
        images = images.contiguous(memory_format=torch.channels_last)

    def steps(count: int) -> None:
        for _ in range(count):
            run.model.encoder.backbone.zero_grad(set_to_none=True)
            with run.compute.autocast():
                features = run.model.encoder.backbone(images)
            features.float().square().mean().backward()

    return steps


def whole_loop(run: Run) -> Callable[[int], None]:
    """What `ssl-ebm pretrain` does each update, metrics every tenth included."""
    monitor = Monitor(run)

    def steps(count: int) -> None:
        for _ in range(count):
            step, embeddings = update(run, run.model)
            run.step += 1
            monitor.measure(step, embeddings)

    return steps


def lightly_loop(run: Run, workers: int, *, tuned: bool) -> Callable[[int], None]:
    """The same model, batch and optimiser with comparable augmentations, as in lightly's SimCLR example.

    Its example computes in float32 and the default memory format; `tuned`: in our precision and format.
    """
    import timm
    from lightly.loss import NTXentLoss
    from lightly.models.modules import SimCLRProjectionHead
    from lightly.transforms import SimCLRTransform
    from PIL import Image

    images = run.splits.train.images[:, 0].numpy()
    augment = SimCLRTransform(
        input_size=run.splits.image_size,
        cj_prob=0.8,
        cj_bright=0.4,
        cj_contrast=0.4,
        cj_sat=0.0,
        cj_hue=0.0,
        min_scale=0.2,
        random_gray_scale=0.0,
        gaussian_blur=0.0,
        normalize={"mean": [0.286], "std": [0.353]},
    )

    class Pictures(torch.utils.data.Dataset):
        def __len__(self) -> int:
            return len(images)

        def __getitem__(self, i: int) -> list[torch.Tensor]:
            return augment(Image.fromarray(images[i]))

    loader = torch.utils.data.DataLoader(
        Pictures(),
        batch_size=run.config.training.batch_size,
        shuffle=True,
        drop_last=True,
        num_workers=workers,
        persistent_workers=workers > 0,
    )
    backbone = timm.create_model(run.config.encoder.name, in_chans=1, num_classes=0)
    head = SimCLRProjectionHead(backbone.num_features, 512, 128)
    if tuned and run.compute.channels_last:
        backbone = backbone.to(memory_format=torch.channels_last)
    autocast = run.compute.autocast if tuned else nullcontext
    criterion = NTXentLoss(temperature=0.1)
    optimizer = torch.optim.AdamW([*backbone.parameters(), *head.parameters()], lr=1e-3, fused=True)

    def endless() -> Iterator[list[torch.Tensor]]:
        while True:
            yield from loader

    stream = endless()

    def steps(count: int) -> None:
        for _ in range(count):
            x, y = next(stream)
            with autocast():
                a, b = head(backbone(x)), head(backbone(y))
            loss = criterion(a.float(), b.float())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    return steps


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lightly", action="store_true", help="measure lightly too")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=20, help="updates a round")
    parser.add_argument("--workers", type=int, default=2, help="lightly's data loading processes")
    parser.add_argument("overrides", nargs="*", help="changes to the config, e.g. encoder.adapt_stem=true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        run = prepare(ssl_ebm.load_config(CONFIG, [*options.overrides, f"run_dir={folder}/run"]))
    contenders = {"bare backbone": bare_backbone(run), "ssl_ebm": whole_loop(run)}
    if options.lightly:
        contenders["lightly"] = lightly_loop(run, options.workers, tuned=False)
        contenders["lightly, tuned"] = lightly_loop(run, options.workers, tuned=True)
    speeds: dict[str, list[float]] = {name: [] for name in contenders}
    for steps in contenders.values():
        steps(5)
    for _ in range(options.rounds):
        for name, steps in contenders.items():
            started = time.perf_counter()
            steps(options.steps)
            speeds[name].append(options.steps * run.config.training.batch_size / (time.perf_counter() - started))
    encoder = run.config.encoder
    print(
        f"{encoder.name}, batch {run.config.training.batch_size}, both views, {run.compute}, torch {torch.__version__}"
    )
    print(f"{options.rounds} rounds of {options.steps} updates in turn; median [lowest, highest]\n")
    print(f"{'':<16}{'images/s':>10}{'':>18}{'of the limit':>14}{'× lightly':>12}")
    for name, values in speeds.items():
        ratio = [a / b for a, b in zip(values, speeds["bare backbone"], strict=True)]
        faster = [a / b for a, b in zip(values, speeds.get("lightly", []), strict=False)]
        spread = f"[{min(values):,.0f}, {max(values):,.0f}]"
        times = f"{statistics.median(faster):>12.2f}" if faster else ""
        print(f"{name:<16}{statistics.median(values):>10,.0f}{spread:>18}{np.median(ratio):>13.0%} {times}")


if __name__ == "__main__":
    main()

"""What a step of SGLD costs: tensor operations, and time against one forward and one input gradient.

    python eval/sgld.py

Beside it, where it is installed, torchebm's LangevinDynamics, and this sampler with the energy under torch.compile. The
median of rounds that alternate between all of them, in this process's threads.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import timm
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from ssl_ebm.generative.samplers.frozen import frozen
from ssl_ebm.generative.samplers.langevin import SGLD

STEPS = 20
REFERENCE = f"{STEPS} forwards and input gradients"


class Count(TorchDispatchMode):
    """Counts the tensor operations that are dispatched."""

    def __init__(self) -> None:
        super().__init__()
        self.number = 0

    def __torch_dispatch__(
        self, function: Any, types: Any, arguments: tuple[Any, ...] = (), keywords: dict[str, Any] | None = None
    ) -> Any:
        self.number += 1
        return function(*arguments, **(keywords or {}))


class Flat(nn.Module):
    """A network's one output as an energy [n]."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        """E(x)."""
        return self.network(x)[:, 0]


def operations(run: Callable[[int], Any]) -> float:
    """Tensor operations a step, of a function of the number of steps."""
    counts = []
    for steps in (2, 12):
        with Count() as count:
            run(steps)
        counts.append(count.number)
    return (counts[1] - counts[0]) / 10


def milliseconds(runs: dict[str, Callable[[], Any]], rounds: int) -> dict[str, float]:
    """Median time of each."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for number in range(rounds + 1):
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            if number:  # the first is a warm-up
                times[name].append(1000 * (time.perf_counter() - start))
    return {name: float(np.median(values)) for name, values in times.items()}


def peer(energy: nn.Module, sampler: SGLD) -> Callable[[Tensor, int], Tensor] | None:
    """The chain of torchebm of the same step size and noise; None where it is not installed."""
    try:
        from torchebm.core import BaseModel
        from torchebm.samplers import LangevinDynamics
    except ImportError:
        return None

    class Wrapped(BaseModel):
        def __init__(self) -> None:
            super().__init__()
            self.energy = energy

        def forward(self, x: Tensor) -> Tensor:
            return self.energy(x)

    other = LangevinDynamics(Wrapped(), step_size=sampler.step_size, noise_scale=1.0)
    return lambda x, steps: other.sample(x=x, n_steps=steps)


def study(name: str, network: nn.Module, x: Tensor, rounds: int, compiled: bool) -> None:
    """Print one energy's lines."""
    energy, sampler = Flat(network), SGLD(step_size=1e-3, noise=(2e-3) ** 0.5, steps=STEPS, limits=None)
    bounded = SGLD(step_size=1e-3, noise=(2e-3) ** 0.5, steps=STEPS)

    def network_only() -> Tensor:
        leaf = x.detach().requires_grad_()
        return torch.autograd.grad(energy(leaf).sum(), leaf)[0]

    other = peer(energy, sampler)
    with frozen(energy):
        with Count() as alone:
            network_only()
        of_ours = operations(lambda steps: SGLD(step_size=1e-3, noise=0.04, steps=steps)(energy, x))
        runs: dict[str, Callable[[], Any]] = {
            REFERENCE: lambda: [network_only() for _ in range(STEPS)],
            f"ssl_ebm, {STEPS} steps": lambda: sampler(energy, x),
            f"ssl_ebm, {STEPS} steps, clamped": lambda: bounded(energy, x),
        }
        if compiled:
            fast = torch.compile(energy)
            runs[f"ssl_ebm, {STEPS} steps, compiled energy"] = lambda: sampler(fast, x)
        if other is not None:
            runs[f"torchebm, {STEPS} steps"] = lambda: other(x, STEPS)
        times = milliseconds(runs, rounds)
        print(f"\n{name}, {'×'.join(map(str, x.shape))}, {torch.get_num_threads()} thread(s), float32")
        print(f"  operations a step: network {alone.number}, ssl_ebm {of_ours:g} in all", end="")
        print(f", torchebm {operations(lambda steps: other(x, steps)):g}" if other is not None else "")
    unit = times[REFERENCE]
    for label, value in times.items():
        print(f"  {label:<40} {value:9.2f} ms   {value / unit:6.3f} of the reference")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15, help="of all chains (default: %(default)s)")
    parser.add_argument("--no-compile", action="store_true", help="leave torch.compile out: it takes a minute")
    options = parser.parse_args()
    torch.manual_seed(0)
    print(f"torch {torch.__version__}, timm {timm.__version__}")
    mlp = nn.Sequential(nn.Linear(2, 64), nn.SiLU(), nn.Linear(64, 64), nn.SiLU(), nn.Linear(64, 1))
    conv = timm.create_model(
        "resnet18",
        layers=[1, 1, 1, 1],
        channels=[16, 32, 64, 128],
        norm_layer="groupnorm1",
        act_layer="silu",
        in_chans=1,
        num_classes=1,
    )
    study("MLP of 2 × 64", mlp, torch.rand(64, 2), 4 * options.rounds, not options.no_compile)
    study("ResNet-18 of one block a stage", conv, torch.rand(64, 1, 20, 20), options.rounds, not options.no_compile)


if __name__ == "__main__":
    main()

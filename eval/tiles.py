"""Time and memory of contrastive losses by tiles, beside dense forms, lightly and the bare matrix products.

    python eval/tiles.py                            NT-Xent, other losses, a queue
    python eval/tiles.py --large 65536              and NT-Xent of 65,536 pairs, in about two minutes
    python eval/tiles.py --tables ntxent --pairs 512 8192

Every number is of one forward and backward, in float32, of 128 dimensions, τ = .1. Contenders take turns in one
process; seconds are the median over the rounds, ratios the median of the rounds' ratios.
Extra MiB is how far the peak of resident memory rises above inputs and imports, each in a process of its own (Linux).

The limit is the bare matrix products of the same work: half the tiles forward, half again backward with two products
each. lightly==1.6.0 is left out where it is not installed.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from ssl_ebm.energies.pairwise import Cosine
from ssl_ebm.energies.rows import Comparison, EnergyMatrix, Pairs, SameKey

try:
    from lightly.loss import NTXentLoss
except ImportError:
    NTXentLoss = None

DIM, TEMPERATURE, CLASSES = 128, 0.1, 10
SIDE = 704  # of the limit's tiles
Loss = Callable[[Tensor, Tensor], Tensor]

energy = Cosine(temperature=TEMPERATURE)


def views_of_image(images: int) -> Pairs:
    """Every view of two with both views of its image, as `BatchNegatives` lists them."""
    row = torch.arange(2 * images)
    return Pairs(row.repeat(2), torch.cat([row % images, row % images + images]))


def ntxent(a: Tensor, b: Tensor) -> Tensor:
    """softplus(E⁺ + log Σ_n exp(-E⁻)) over the other images of both views."""
    z = torch.cat([a, b])
    negative = EnergyMatrix(energy, z, z, excluded=views_of_image(len(a)), symmetric=True)
    return F.softplus(energy.paired(z, torch.cat([b, a])) + negative.logsumexp()).mean()


def ntxent_lightly(a: Tensor, b: Tensor) -> Tensor:
    return NTXentLoss(temperature=TEMPERATURE)(a, b)


def ntxent_limit(a: Tensor, b: Tensor) -> Tensor:
    """The matrix products alone."""
    z = torch.cat([a, b])
    parts, tile = z.split(SIDE), torch.empty(SIDE * SIDE)
    gradients = torch.zeros_like(z).split(SIDE)
    for backward in (False, True):
        for i, x in enumerate(parts):
            for j in range(i, len(parts)):
                s = tile[: len(x) * len(parts[j])].view(len(x), -1)
                torch.mm(x, parts[j].T, out=s)
                if backward:
                    gradients[i].addmm_(s, parts[j])
                    gradients[j].addmm_(s.T, x)
    return gradients[0]


def supcon(a: Tensor, b: Tensor) -> Tensor:
    """mean_p E⁺ + log Σ exp(-E) over all others, ten classes."""
    z, key = torch.cat([a, b]), (torch.arange(len(a)) % CLASSES).repeat(2)
    same, itself = SameKey(key, key), Pairs(torch.arange(len(z)), torch.arange(len(z)))
    compared = Comparison(anchors=z, positives=same, candidates=z, excluded=same, itself=itself, symmetric=True)
    positive, negative = compared.rows(energy)
    return (positive.mean_energy() + positive.logsumexp_with(negative)).mean()


def supcon_dense(a: Tensor, b: Tensor) -> Tensor:
    z, key = F.normalize(torch.cat([a, b]), dim=1), (torch.arange(len(a)) % CLASSES).repeat(2)
    logits = z @ z.T / TEMPERATURE
    itself = torch.eye(len(z), dtype=torch.bool)
    log_probability = logits - logits.masked_fill(itself, -torch.inf).logsumexp(1, keepdim=True)
    positive = ((key[:, None] == key) & ~itself).float()
    return -((positive * log_probability).sum(1) / positive.sum(1)).mean()


def dcl(a: Tensor, b: Tensor) -> Tensor:
    """E⁺ + log Σ_n exp(-E⁻)."""
    z = torch.cat([a, b])
    negative = EnergyMatrix(energy, z, z, excluded=views_of_image(len(a)), symmetric=True)
    return (energy.paired(z, torch.cat([b, a])) + negative.logsumexp()).mean()


def dcl_dense(a: Tensor, b: Tensor) -> Tensor:
    z, key = F.normalize(torch.cat([a, b]), dim=1), torch.arange(len(a)).repeat(2)
    logits = z @ z.T / TEMPERATURE
    partition = logits.masked_fill(key[:, None] == key, -torch.inf).logsumexp(1)
    return (partition - (z * torch.cat(z.chunk(2)[::-1])).sum(1) / TEMPERATURE).mean()


def siglip(a: Tensor, b: Tensor) -> Tensor:
    """softplus(E⁺ - bias) + Σ_n softplus(bias - E⁻), temperature and bias learned."""
    learned, bias = Cosine(temperature=TEMPERATURE, learnable=True), torch.tensor(-10.0, requires_grad=True)
    image = torch.arange(len(a))
    negative = EnergyMatrix(learned, a, b, excluded=Pairs(image, image))
    repelled = negative.mean(lambda e, shift: F.softplus(shift - e), bias) * negative.count
    return (F.softplus(learned.paired(a, b) - bias) + repelled).mean()


def siglip_dense(a: Tensor, b: Tensor) -> Tensor:
    scale, bias = torch.tensor(1 / TEMPERATURE, requires_grad=True), torch.tensor(-10.0, requires_grad=True)
    logits = F.normalize(a, dim=1) @ F.normalize(b, dim=1).T * scale + bias
    return -F.logsigmoid((2 * torch.eye(len(a)) - 1) * logits).sum() / len(a)


def queue(a: Tensor, b: Tensor) -> Tensor:
    """Row by row log Σ exp(-E) over a queue without gradient."""
    return EnergyMatrix(energy, a, b.detach()).logsumexp().mean()


def queue_dense(a: Tensor, b: Tensor) -> Tensor:
    return torch.logsumexp(F.normalize(a, dim=1) @ F.normalize(b.detach(), dim=1).T / TEMPERATURE, 1).mean()


def queue_limit(a: Tensor, b: Tensor) -> Tensor:
    """The matrix products alone: energies, and the mean candidate of each row."""
    gradient, tile = torch.zeros_like(a), torch.empty(SIDE * SIDE)
    for x, row in zip(a.split(SIDE), gradient.split(SIDE), strict=True):
        for y in b.split(SIDE):
            s = tile[: len(x) * len(y)].view(len(x), -1)
            torch.mm(x, y.T, out=s)
            row.addmm_(s, y)
    return gradient


CONTENDERS: dict[str, dict[str, Loss]] = {
    "ntxent": {"tiles": ntxent, "lightly": ntxent_lightly, "limit": ntxent_limit},
    "supcon": {"tiles": supcon, "dense": supcon_dense},
    "dcl": {"tiles": dcl, "dense": dcl_dense},
    "siglip": {"tiles": siglip, "dense": siglip_dense},
    "queue": {"tiles": queue, "dense": queue_dense, "limit": queue_limit},
}
if NTXentLoss is None:
    del CONTENDERS["ntxent"]["lightly"]


def inputs(n: int, m: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    a, noise = torch.randn(n, DIM, generator=generator), torch.randn(m, DIM, generator=generator)
    return a.requires_grad_(), (noise + a if n == m else noise).detach().requires_grad_()


def once(loss: Loss, a: Tensor, b: Tensor) -> float:
    """Seconds of one forward and backward."""
    a.grad = b.grad = None
    started = time.perf_counter()
    if loss in (ntxent_limit, queue_limit):
        with torch.no_grad():
            loss(a, b)
    else:
        loss(a, b).backward()
    return time.perf_counter() - started


def status(field: str) -> float:
    """MiB that Linux reports of this process."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) / 1024


def extra_memory(table: str, name: str, n: int, m: int) -> float:
    """MiB above inputs and imports, of this process, at the peak of one forward and backward."""
    once(CONTENDERS[table][name], *inputs(512, 512))  # libraries make their threads and buffers
    a, b = inputs(n, m)
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    before = status("VmRSS")
    once(CONTENDERS[table][name], a, b)
    return status("VmHWM") - before


def extra_memory_elsewhere(table: str, name: str, n: int, m: int, threads: int) -> float:
    arguments = [sys.executable, __file__, "--threads", str(threads), "--memory", table, name, str(n), str(m)]
    return float(subprocess.run(arguments, check=True, capture_output=True, text=True).stdout)


def compare(table: str, n: int, m: int, rounds: int, threads: int) -> None:
    """Print one size of one table."""
    contenders = CONTENDERS[table]
    a, b = inputs(n, m)
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for loss in contenders.values():
        once(loss, a, b)
    for _ in range(rounds):
        for name, loss in contenders.items():
            seconds[name].append(once(loss, a, b))
    for name, values in seconds.items():
        ratios = {
            other: statistics.median(x / y for x, y in zip(seconds[other], values, strict=True)) for other in seconds
        }
        peer = next((ratios[other] for other in ("lightly", "dense") if other in ratios), float("nan"))
        limit = 1 / ratios["limit"] if "limit" in ratios else float("nan")
        memory = extra_memory_elsewhere(table, name, n, m, threads)
        line(table, f"{n:,} × {m:,}" if n != m else f"{n:,}", name, statistics.median(values), peer, memory, limit)


def line(table: str, size: str, name: str, seconds: float, peer: float, memory: float, limit: float) -> None:
    columns = f"{seconds:>10.4f}{peer:>10.2f}{memory:>12,.0f}{limit:>10.2f}".replace("nan", "  -")
    print(f"{table:<8}{size:>15} {name:<16}{columns}", flush=True)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tables", nargs="+", choices=CONTENDERS, default=list(CONTENDERS))
    parser.add_argument("--pairs", type=int, nargs="+", default=[512, 2048, 8192])
    parser.add_argument("--queue", type=int, default=65536, help="candidates of the table queue")
    parser.add_argument("--large", type=int, help="measure NT-Xent by tiles once at this many pairs too")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--memory", nargs=4, metavar=("TABLE", "NAME", "N", "M"), help="print one number of MiB")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.memory:
        table, name, n, m = options.memory
        print(extra_memory(table, name, int(n), int(m)))
        return
    print(f"{options.threads} threads, torch {torch.__version__}, {options.rounds} rounds in turn; D = {DIM}\n")
    print(f"{'loss':<8}{'pairs':>15} {'':<16}{'seconds':>10}{'× peer':>10}{'extra MiB':>12}{'÷ limit':>10}")
    for table in options.tables:
        for pairs in options.pairs:
            compare(table, pairs, options.queue if table == "queue" else pairs, options.rounds, options.threads)
    if options.large:
        n = options.large
        limit, seconds = once(ntxent_limit, *inputs(n, n)), once(ntxent, *inputs(n, n))
        memory = extra_memory_elsewhere("ntxent", "tiles", n, n, options.threads)
        line("ntxent", f"{n:,}", "tiles", seconds, float("nan"), memory, seconds / limit)


if __name__ == "__main__":
    main()

"""The only file that talks to torch.distributed. With one process every function here is the identity.

Objectives see the global batch: local anchors against gathered candidates, regularizers on gathered embeddings. The
gather's backward sums the gradients of all ranks, so that DDP's average over ranks is the gradient of the mean loss of
all anchors: what one process on the whole batch computes.
"""

from __future__ import annotations

import os
from collections.abc import Iterable

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.nn.functional import all_gather


def is_distributed() -> bool:
    """Whether several processes train together."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def rank() -> int:
    """This process's number, from 0."""
    return dist.get_rank() if is_distributed() else 0


def world_size() -> int:
    """How many processes train together."""
    return dist.get_world_size() if is_distributed() else 1


def start() -> int:
    """Join the process group that torchrun describes in the environment, if any; returns the local rank."""
    if "WORLD_SIZE" in os.environ and int(os.environ["WORLD_SIZE"]) > 1 and not dist.is_initialized():
        dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    return int(os.environ.get("LOCAL_RANK", 0))


def stop() -> None:
    """Leave the process group."""
    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()


def barrier() -> None:
    """Wait for all ranks."""
    if is_distributed():
        dist.barrier()


def average_over_ranks(network: nn.Module, device: torch.device) -> nn.Module:
    """The network, with gradients averaged over ranks in the backward pass; buffers are each rank's own."""
    if not is_distributed():
        return network
    ids = [device.index] if device.type == "cuda" else None
    return nn.parallel.DistributedDataParallel(network, device_ids=ids, broadcast_buffers=False)


def gather(x: Tensor, dim: int = 0) -> Tensor:
    """Concatenate `x` of all ranks along `dim`, in rank order; differentiable, gradients summed over ranks."""
    if not is_distributed():
        return x
    x = x.contiguous()
    if x.requires_grad:
        return torch.cat(all_gather(x), dim=dim)
    parts = [torch.empty_like(x) for _ in range(world_size())]
    dist.all_gather(parts, x)
    return torch.cat(parts, dim=dim)


def mean(x: Tensor) -> Tensor:
    """Mean of `x` over ranks, without gradient."""
    if not is_distributed():
        return x
    x = x.detach().clone()
    dist.all_reduce(x)
    return x / world_size()


def average_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Average the gradients of parameters that DistributedDataParallel does not hold, in place."""
    if is_distributed():
        for parameter in parameters:
            if parameter.grad is not None:
                parameter.grad.copy_(mean(parameter.grad))

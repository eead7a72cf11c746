"""One run on several processes, as torchrun starts them; with a single process nothing here does anything.

    torchrun --nproc_per_node 2 run_distillation.py --task_name rte --student_layer 4

Names and meanings are torch.distributed's. Nothing but torchrun's own variables makes a run a distributed one.
"""

import contextlib
import logging
import os
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

from utils.errors import InputError

logger = logging.getLogger("stark")
TORCHRUN = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")  # what it sets for each process
SIZES = ("WORLD_SIZE", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE")  # where launchers leave the number of processes


def start(use_cpu: bool) -> torch.device:
    """Join the other processes; the device that this one computes on.

    Raises:
        InputError: torchrun has started more processes than this machine has GPUs.
    """
    device = torch.device("cuda" if torch.cuda.is_available() and not use_cpu else "cpu")
    if not all(os.environ.get(name) for name in TORCHRUN):
        found = [f"{name}={os.environ[name]}" for name in SIZES if os.environ.get(name, "") not in ("", "1")]
        if found:
            logger.warning("%s ignored: torchrun alone starts several processes", " ".join(found))
        return device
    if os.environ["WORLD_SIZE"] == "1":
        return device
    local_rank = int(os.environ["LOCAL_RANK"])
    if device.type == "cuda":
        if local_rank >= torch.cuda.device_count():
            found = f"process {local_rank + 1} on this machine, which has {torch.cuda.device_count()} GPUs"
            raise InputError(f"torchrun: {found}; expected one each, or --use_cpu")
        device = torch.device("cuda", local_rank)
        torch.cuda.set_device(device)
    if not distributed.is_initialized():
        distributed.init_process_group(
            "nccl" if device.type == "cuda" else "gloo", device_id=device if device.type == "cuda" else None
        )
    return device


def stop() -> None:
    """Leave the others."""
    if distributed.is_initialized():
        distributed.destroy_process_group()


def world_size() -> int:
    """How many processes share the run."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def rank() -> int:
    """This process's number, from 0."""
    return distributed.get_rank() if distributed.is_initialized() else 0


def is_main() -> bool:
    """Whether this is the process that writes files and logs."""
    return rank() == 0


def barrier() -> None:
    """Wait until all processes are here."""
    if world_size() > 1:
        distributed.barrier()


@contextlib.contextmanager
def main_first() -> Iterator[None]:
    """Within it the main process of each machine goes first, so that the others find what it left on the disk."""
    goes_first = world_size() == 1 or os.environ["LOCAL_RANK"] == "0"
    if not goes_first:
        barrier()
    yield
    if goes_first:
        barrier()


def all_reduce_sum(tensor: Tensor) -> Tensor:
    """The sum of all processes' tensors, the same on each; the tensor itself stays as it is."""
    if world_size() == 1:
        return tensor
    total = tensor.clone()
    distributed.all_reduce(total)
    return total


def all_gather(value: Any) -> list[Any]:
    """All processes' values, by rank."""
    if world_size() == 1:
        return [value]
    values = [None] * world_size()
    distributed.all_gather_object(values, value)
    return values


def broadcast(value: Any) -> Any:
    """The main process's value, on each."""
    if world_size() == 1:
        return value
    values = [value]
    distributed.broadcast_object_list(values)
    return values[0]


def parallel(model: nn.Module) -> nn.Module:
    """The model whose backward pass averages gradients over the processes."""
    if world_size() == 1:
        return model
    for parameter in model.parameters():  # a layer that cutting has emptied takes no part in the backward pass
        parameter.requires_grad_(parameter.numel() > 0)
    return DistributedDataParallel(model, broadcast_buffers=False)


def no_sync(model: nn.Module, backward_is_last: bool) -> contextlib.AbstractContextManager:
    """Gradients are averaged in the last of an update's backward passes only."""
    return contextlib.nullcontext() if backward_is_last or world_size() == 1 else model.no_sync()

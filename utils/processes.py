"""Data parallel training on several processes that torchrun starts; in a single process all of this does nothing.

    torchrun --nproc_per_node 2 run_distillation.py --task_name rte --student_layer 4

Names and meanings are those of torch.distributed. A run is distributed if torchrun's environment variables are set.
"""

import contextlib
import gc
import logging
import os
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

from utils.errors import InputError

logger = logging.getLogger("stark")
TORCHRUN = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")  # variables that it sets
# variables with the number of processes, as torchrun and other launchers set them
WORLD_SIZES = ("WORLD_SIZE", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE")


def start(use_cpu: bool) -> torch.device:
    """Join the process group, if there is one, and return the device of this process.

    Raises:
        InputError: torchrun has started more processes than this machine has GPUs.
    """
    device = torch.device("cuda" if torch.cuda.is_available() and not use_cpu else "cpu")
    if not all(os.environ.get(name) for name in TORCHRUN):
        sizes = [f"{name}={os.environ[name]}" for name in WORLD_SIZES if os.environ.get(name, "") not in ("", "1")]
        if sizes:
            logger.warning("%s ignored: torchrun alone starts several processes", " ".join(sizes))
        return device
    if os.environ["WORLD_SIZE"] == "1":
        return device

    # one GPU for each process of this machine
    local_rank = int(os.environ["LOCAL_RANK"])
    if device.type == "cuda":
        if local_rank >= torch.cuda.device_count():
            found = f"process {local_rank + 1} on this machine, which has {torch.cuda.device_count()} GPUs"
            raise InputError(f"torchrun: {found}; expected one each, or --use_cpu")
        device = torch.device("cuda", local_rank)
        torch.cuda.set_device(device)
    if not distributed.is_initialized():
        if device.type == "cuda":
            distributed.init_process_group("nccl", device_id=device)
        else:
            distributed.init_process_group("gloo")
    return device


def stop() -> None:
    """Leave the process group."""
    if distributed.is_initialized():
        # a wrapped model is in reference cycles and holds the group, whose threads must end before Python does
        gc.collect()
        distributed.destroy_process_group()


def world_size() -> int:
    """Number of processes."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def rank() -> int:
    """Number of this process, from 0."""
    return distributed.get_rank() if distributed.is_initialized() else 0


def is_main() -> bool:
    """Whether this is process 0, which writes files and logs."""
    return rank() == 0


def barrier() -> None:
    """Block until all processes have called this function."""
    if world_size() > 1:
        distributed.barrier()


@contextlib.contextmanager
def main_first() -> Iterator[None]:
    """A context that the first process of each machine enters alone; the others follow and find its files."""
    goes_first = world_size() == 1 or os.environ["LOCAL_RANK"] == "0"
    if not goes_first:
        barrier()
    yield
    if goes_first:
        barrier()


def all_reduce_sum(tensor: Tensor) -> Tensor:
    """Sum over all processes, on each of them; not in place."""
    if world_size() == 1:
        return tensor
    total = tensor.clone()
    distributed.all_reduce(total)
    return total


def all_gather(value: Any) -> list[Any]:
    """The values of all processes, by rank."""
    if world_size() == 1:
        return [value]
    values = [None] * world_size()
    distributed.all_gather_object(values, value)
    return values


def broadcast(value: Any) -> Any:
    """The value of the main process, on each of them."""
    if world_size() == 1:
        return value
    values = [value]
    distributed.broadcast_object_list(values)
    return values[0]


def parallel(model: nn.Module) -> nn.Module:
    """The model, wrapped so that its backward pass averages gradients over the processes."""
    if world_size() == 1:
        return model
    # DistributedDataParallel waits for every gradient, and an emptied layer's weights never get one
    for parameter in model.parameters():
        parameter.requires_grad_(parameter.numel() > 0)
    return DistributedDataParallel(model, broadcast_buffers=False)


def no_sync(model: nn.Module, backward_is_last: bool) -> contextlib.AbstractContextManager:
    """A context in which gradients are not averaged, unless this is the last backward pass of an update."""
    return contextlib.nullcontext() if backward_is_last or world_size() == 1 else model.no_sync()

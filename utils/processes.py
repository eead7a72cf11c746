"""One run on several processes, as torchrun starts them; with a single process nothing here does anything.

    torchrun --nproc_per_node 2 run_distillation.py --task_name rte --student_layer 4

accelerate brings the process group, data-parallel models and the collective operations.
"""

import contextlib
from typing import Any

import torch
import torch.distributed
from accelerate import Accelerator, DistributedDataParallelKwargs, PartialState
from accelerate.utils import broadcast_object_list, gather_object, reduce
from torch import Tensor, nn


def start(use_cpu: bool) -> torch.device:
    """Join the other processes; the device that this one computes on."""
    state = PartialState(cpu=use_cpu)
    if state.num_processes > 1:
        return state.device
    return torch.device("cuda" if torch.cuda.is_available() and not use_cpu else "cpu")


def stop() -> None:
    """Leave the others."""
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def count() -> int:
    """How many processes share the run."""
    return PartialState().num_processes


def rank() -> int:
    """This one's number, from 0."""
    return PartialState().process_index


def is_main() -> bool:
    """Whether this is the one that writes files and logs."""
    return PartialState().is_main_process


def bar_options() -> dict[str, bool]:
    """For tqdm: one bar for all processes, and the user's TQDM_DISABLE counts."""
    return {} if is_main() else {"disable": True}


def wait() -> None:
    """Until all are here."""
    PartialState().wait_for_everyone()


def main_first() -> contextlib.AbstractContextManager:
    """Within it the main process of each machine goes first, so that the others find what it left on the disk."""
    return PartialState().local_main_process_first()


def total(tensor: Tensor) -> Tensor:
    """The sum of all processes' tensors, the same on each."""
    return reduce(tensor, "sum") if count() > 1 else tensor


def gathered(value: Any) -> list[Any]:
    """All processes' values, by rank."""
    return gather_object([value]) if count() > 1 else [value]


def agreed(value: Any) -> Any:
    """The main process's value, on each."""
    return broadcast_object_list([value])[0] if count() > 1 else value


def parallel(model: nn.Module) -> nn.Module:
    """The model whose backward pass averages gradients over the processes."""
    if count() == 1:
        return model
    for parameter in model.parameters():  # a layer that cutting has emptied takes no part in the backward pass
        parameter.requires_grad_(parameter.numel() > 0)
    options = DistributedDataParallelKwargs(broadcast_buffers=False)
    return Accelerator(kwargs_handlers=[options]).prepare_model(model, device_placement=False)


def unsynchronised(model: nn.Module, backward_is_last: bool) -> contextlib.AbstractContextManager:
    """Gradients are averaged in the last of an update's backward passes only."""
    return contextlib.nullcontext() if backward_is_last or count() == 1 else model.no_sync()

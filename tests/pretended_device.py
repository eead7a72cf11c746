"""Started by tests/test_device.py: run all stages on a pretended device, and count launches and waits there.

PYTHONPATH=. python tests/pretended_device.py result.json     # in a folder with datasets/rte and teacher/

The device is torch's own for backends written in Python. Its tensors are on "gpu", compute on the CPU, and cannot be
mixed with CPU tensors; it counts kernels that a GPU would launch, and operations that would wait for it. It cannot show
the results or the speed of kernels. It needs a process of its own, since torch cannot unregister a backend.

Each stage runs twice, the second time with more updates or batches. The result has, for each pair: the waits of
both, by function, and the number of launches for each additional update or batch.
"""

import json
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch.utils import backend_registration
from torch.utils._python_dispatch import TorchDispatchMode

import run_distillation
import run_finetuning
import run_pruning
import run_rewinding
import run_sparsification
from models.checkpoint import load_model
from models.losses import task_loss, teacher_loss
from models.scores import mask_gradients
from utils import processes
from utils.cache import load_examples
from utils.tokenizer import load_tokenizer

ROOT = Path(__file__).parent.parent
aten = torch.ops.aten
READS = {aten._local_scalar_dense, aten.equal}  # the CPU reads a value
SIZES = {aten.nonzero, aten.masked_select, aten._unique2, aten.unique_dim, aten.unique_consecutive, aten.bincount}
COPIES = {aten.copy_, aten._to_copy}
INDEXING = {aten.index, aten.index_put, aten.index_put_, aten._index_put_impl_}
AUTOCAST = torch.library.Library("_", "IMPL")
NO_KERNEL = {aten.empty, aten.empty_like, aten.empty_strided, aten.new_empty, aten.new_empty_strided, aten._unsafe_view}


class DeviceTensor(torch.Tensor):
    """A tensor whose device is the pretended one, and whose values are the CPU tensor `on_cpu`."""

    @staticmethod
    def __new__(cls, on_cpu: torch.Tensor) -> "DeviceTensor":
        layout = {"strides": on_cpu.stride(), "storage_offset": on_cpu.storage_offset(), "dtype": on_cpu.dtype}
        tensor = torch.Tensor._make_wrapper_subclass(cls, on_cpu.size(), device="gpu:0", **layout)
        tensor.on_cpu = on_cpu
        return tensor

    def __deepcopy__(self, memo: dict) -> "DeviceTensor":
        copied = DeviceTensor(self.on_cpu.detach().clone()).requires_grad_(self.requires_grad)
        copied._is_param = getattr(self, "_is_param", False)
        return memo.setdefault(id(self), copied)

    __torch_function__ = torch._C._disabled_torch_function_impl

    def data_ptr(self) -> int:
        return self.on_cpu.data_ptr()

    def untyped_storage(self) -> torch.UntypedStorage:
        return self.on_cpu.untyped_storage()

    def tolist(self) -> Any:
        return self.cpu().tolist()

    @property
    def data(self) -> torch.Tensor:
        return torch.Tensor.data.__get__(self)

    @data.setter
    def data(self, value: "DeviceTensor") -> None:
        torch.Tensor.data.__set__(self, value)
        self.on_cpu = value.on_cpu

    @classmethod
    def __torch_dispatch__(cls, function, types, args=(), kwargs=None):
        return dispatch(function, args, kwargs or {})


class Watch(TorchDispatchMode):
    """A context in which every operation goes through dispatch(), including those that make tensors."""

    launches = 0  # operations that would start a kernel or a copy
    waits: Counter  # function of the project -> how often it made the CPU wait for the device

    def __enter__(self):
        Watch.launches = 0
        Watch.waits = Counter()
        return super().__enter__()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        return dispatch(function, args, kwargs or {})


def dispatch(function, args: tuple, kwargs: dict):
    """Compute an operation on the CPU, refuse mixed devices, count launches and waits."""
    target = kwargs["device"].type if kwargs.get("device") else "meta"
    tensors = [value for value in flat((*args, *kwargs.values())) if isinstance(value, torch.Tensor)]
    on_device = [tensor for tensor in tensors if type(tensor) is DeviceTensor]
    if not on_device and target != "gpu":
        return function(*args, **kwargs)
    operation = function.overloadpacket
    if operation not in COPIES:  # numbers without a dimension are welcome everywhere, as on a GPU
        mixed = [tensor for tensor in tensors if type(tensor) is not DeviceTensor and tensor.dim()]
        assert not (mixed and on_device), f"{function}: tensors of two devices"
    Watch.launches += not (function.is_view or operation in NO_KERNEL)
    if waits(operation, args, target):
        Watch.waits[waiting_function()] += 1
    kwargs = {name: to_cpu(value) for name, value in kwargs.items()}
    if target == "gpu":
        kwargs["device"] = torch.device("cpu")
    result = function(*to_cpu(args), **kwargs)
    if target == "cpu":
        return result
    # an operation in place returns the tensor that it was given
    return to_device(result, {id(tensor.on_cpu): tensor for tensor in on_device})


def to_device(value: Any, known: dict[int, DeviceTensor]) -> Any:
    """The same results, with device tensors: those of `known` for the CPU tensors that they hold, else new ones."""
    if isinstance(value, list | tuple):
        return type(value)(to_device(part, known) for part in value)
    if type(value) is torch.Tensor:
        return known[id(value)] if id(value) in known else DeviceTensor(value)
    return value


def flat(values: list | tuple) -> Iterator:
    """The arguments of an operation, without nesting; torch's own tree functions would be slow."""
    for value in values:
        if isinstance(value, list | tuple):
            yield from flat(value)
        else:
            yield value


def to_cpu(value: Any) -> Any:
    """The same arguments, with the CPU tensors that device tensors hold."""
    if isinstance(value, list | tuple):
        return [to_cpu(part) for part in value]
    return value.on_cpu if isinstance(value, DeviceTensor) else value


def waits(operation, args: tuple, target: str) -> bool:
    """Whether an operation makes the CPU wait for the device."""
    if operation is aten.copy_:
        return not isinstance(args[0], DeviceTensor)
    if operation in INDEXING:  # a mask as index: how many it picks decides the shape
        return any(index is not None and index.dtype in (torch.bool, torch.uint8) for index in args[1])
    return operation in READS | SIZES or (operation is aten._to_copy and target == "cpu")


def waiting_function() -> str:
    """The innermost function of the project that is running; the backward pass has threads of its own."""
    frame = sys._getframe()
    while frame:
        path = Path(frame.f_code.co_filename)
        name = frame.f_code.co_name
        if ROOT in path.parents and path.parent.name != "tests" and not name.startswith("<"):
            return f"{path.stem}.{name}"
        frame = frame.f_back
    return "backward"


def start_device() -> None:
    """Register the device, and make the project compute on it."""
    backend_registration._DummyBackendModule.get_amp_supported_dtype = lambda self: [torch.bfloat16, torch.float16]
    backend_registration._setup_privateuseone_for_python_backend("gpu")
    torch.inference_mode = torch.no_grad  # tensors of a subclass cannot be made in inference mode
    torch.__future__.set_swap_module_params_on_conversion(True)  # a parameter cannot become a subclass in place
    AUTOCAST.fallback(torch.library.fallthrough_kernel, "AutocastPrivateUse1")  # without casts, but with loss scaling
    torch._C._set_only_lift_cpu_tensors(True)  # torch.tensor(..., device="gpu") makes it on the CPU first
    processes.start = lambda use_cpu: torch.device("gpu", 0)  # the one place that names a device


DROPPED, PRUNED = ["--student_layer", "1"], ["--student_sparsity", "70"]
TEACHER = ["--teacher_model_path", "teacher"]
UNLABELLED = ["--unlabelled", "text.jsonl"]  # 8 rows
DISTIL = {
    "dropped": [*TEACHER, "--student_model_path", "teacher", *DROPPED],
    "pruned": [*TEACHER, "--student_model_path", "pruned/fewer/ft_rte/ckpt", *PRUNED],
}
PRECISION = {"dropped": [], "pruned": [*UNLABELLED, "--unlabelled_per_epoch", "5", "--use_fp16"]}
SPARSIFY = {
    "dropped": [*TEACHER, "--student_model_path", "distil_dropped/fewer/layer_dropped/kd_1_rte/ckpt", *DROPPED]
    + [*UNLABELLED, "--score_split", "unlabelled"],
    "pruned": [*TEACHER, "--student_model_path", "distil_pruned/fewer/parameter_pruned/kd_70_rte/ckpt", *PRUNED],
}
SPARSE = {
    "dropped": ["--teacher_model_path", "sparsify_dropped/fewer/layer_dropped/kd_1_rte_0.5/ckpt"],
    "pruned": ["--teacher_model_path", "sparsify_pruned/fewer/parameter_pruned/kd_70_rte_0.5/ckpt"],
}
LARGE = ["--teacher_model_path", "large", "--student_model_path", "large", "--student_layer", "3"]
TINYBERT = ["--tinybert_weight", "1"]
REWIND = {
    "dropped": ["--teacher_sparsity", "90", *TINYBERT, *UNLABELLED, "--unlabelled_weight", "0.5"],
    "pruned": ["--teacher_sparsity", "0", "90", "--minilm_weight", "1", "--pkd_weight", "1", *TINYBERT, "--do_test"],
}


def compare_stages() -> dict[str, dict]:
    """All five stages, both kinds of student, losses between layers, half precision: what one update or batch costs."""
    results = {
        "finetune": compare_updates(run_finetuning, "finetune", "--model_path", "teacher"),
        "prune": compare_batches(run_pruning, "pruned", "--model_path", "teacher"),
    }
    for kind, flags in DISTIL.items():
        distil = [*flags, *PRECISION[kind]]
        results[f"distil_{kind}"] = compare_updates(run_distillation, f"distil_{kind}", *distil)
        results[f"sparsify_{kind}"] = compare_batches(run_sparsification, f"sparsify_{kind}", *SPARSIFY[kind])
        rewind = [*flags, *SPARSE[kind], *REWIND[kind]]
        results[f"rewind_{kind}"] = compare_updates(run_rewinding, f"rewind_{kind}", *rewind)
    results["minilm"] = compare_updates(run_distillation, "minilm", *LARGE, "--minilm_weight", "1")
    return results


def compare_updates(script, folder: str, *flags: str) -> dict:
    """One epoch of an update or two, and two epochs of them, evaluated at the end."""
    flags = (*flags, "--max_train_examples", "16", "--log_interval", "1000")
    return compare(
        lambda: script.main([*flags, "--num_train_epochs", "1", "--output_dir", f"{folder}/fewer"]),
        lambda: script.main([*flags, "--num_train_epochs", "2", "--output_dir", f"{folder}/more"]),
        extra=1,
    )


def compare_batches(script, folder: str, *flags: str) -> dict:
    """The 21 rows of dev in one batch and in two."""
    size = "--per_device_eval_batch_size"
    return compare(
        lambda: script.main([*flags, size, "32", "--output_dir", f"{folder}/fewer"]),
        lambda: script.main([*flags, size, "16", "--output_dir", f"{folder}/more"]),
        extra=1,
    )


def compare_windows() -> dict:
    """Scoring in which groups are closed again and again: 16 rows in 4 batches, 32 rows in 8."""
    model = load_model("teacher", ("not_entailment", "entailment")).to("gpu:0")
    rows = load_examples("rte", "datasets", "train", load_tokenizer("teacher"), 40)
    losses = [task_loss, teacher_loss(torch.zeros(32, 2, device="gpu:0"))]
    fewer, more = (rows.rows(torch.arange(count)).to("gpu:0") for count in (16, 32))
    return compare(
        lambda: mask_gradients(model, fewer.eval_batches(4, window=8), losses, group_size=4),
        lambda: mask_gradients(model, more.eval_batches(4, window=8), losses, group_size=4),
        extra=4,
    )


def drop_attention() -> float:
    """Largest difference between logits with all attention of layer 0 dropped, and logits without its heads."""
    model = load_model("teacher", ("not_entailment", "entailment")).to("gpu:0").train()
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    rows = load_examples("rte", "datasets", "dev", load_tokenizer("teacher"), 40).to("gpu:0")
    inputs = rows.batch(torch.arange(9)).inputs
    heads, neurons = torch.ones(2, 4, device="gpu:0"), torch.ones(2, 32, device="gpu:0")
    heads[0] = 0
    expected = model(*inputs, heads, neurons)
    model.layers[0].self_attention.dropout.p = 1.0
    return (model(*inputs) - expected).abs().max().item()


def compare(fewer: Callable[[], Any], more: Callable[[], Any], extra: int) -> dict:
    """The waits of both, and the launches for each of the `extra` updates or batches of the second."""
    launches, waited = [], []
    for work in (fewer, more):
        with Watch():
            work()
        launches.append(Watch.launches)
        waited.append(Watch.waits)
    return {"waits": waited, "launches": (launches[1] - launches[0]) / extra}


if __name__ == "__main__":
    torch.set_num_threads(1)
    start_device()
    results = compare_stages()
    with Watch():
        results["windows"] = compare_windows()
    with Watch():
        results["attention_dropped"] = drop_attention()
    Path(sys.argv[1]).write_text(json.dumps(results))

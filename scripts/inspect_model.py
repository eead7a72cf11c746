"""Print parameters, widths, multiplications and latency of a checkpoint, and of its teacher.

    python scripts/inspect_model.py --model_path outputs/rewind/parameter_pruned/kd_70_rte_0.5/ckpt_30
    python scripts/inspect_model.py --model_path <student> --teacher_model_path <teacher> --json costs.json
    python scripts/inspect_model.py --model_path outputs/prune/ft_rte/ckpt --budget 5M
    python scripts/inspect_model.py --model_path outputs/prune/ft_rte/ckpt --budget 20ms --batch_size 8 --length 64

The default teacher is the one that the student was trained with.

Latency is the median of --repeats runs after three for warming up, in float32, on rows without padding: in torch on the
GPU if there is one, and in onnxruntime on the CPU if scripts/export.py has exported the checkpoint to its default
folder. It is - for lengths that a model does not take.

MACs are multiply-accumulates for one example of T tokens: in each layer of h heads of size s and f neurons, with hidden
size D, 3 T D h s for query, key and value, 2 T^2 h s for scores and context, T h s D for the output, and 2 T D f for
the FFN or 3 T D f for ModernBERT's; and D^2 + D C for the classifier of C classes. All tokens count in all layers, and
attend to all others; the model itself computes most of the last layer for [CLS] alone.

With --budget it names the largest students of the model that cost no more: --student_layer, and of a checkpoint that
stage 2 or 4 has sorted --student_sparsity. All are made, counted without their embeddings, and timed in torch.
"""

import argparse
import functools
import importlib.util
import itertools
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch

from models.encoder import PrunableEncoder
from scripts import export
from scripts.budget import largest, measure_students, parameters, parse_budget, sparsities, students_table
from stage import entry_point
from utils.arguments import Parser
from utils.errors import InputError
from utils.files import checkpoint_digest, write_json
from utils.flags import number
from utils.folder import checkpoint_settings
from utils.machine import hardware, versions
from utils.tables import table

BATCHES = (1, 8, 32)  # examples
LENGTHS = (32, 128)  # tokens
WARM_UP = 3  # runs
# of --budget
BATCH_SIZE = 8  # examples
LENGTH = 64  # tokens


def parse_args(argv=None):
    parser = Parser(__doc__)
    add = parser.add_argument
    add("--model_path", required=True, help="checkpoint folder of a model with a classifier")
    add("--teacher_model_path", help="checkpoint folder to compare with (default the model's own, if it is there)")
    add("--repeats", type=number(int, 10), default=20, help="timed runs of each shape, at least 10 (default 20)")
    text = "name the largest students with so many parameters (5M, without embeddings) or milliseconds (20ms) at most"
    add("--budget", type=parse_budget, help=text)
    add(
        "--batch_size",
        type=number(int, 1),
        help=f"examples of the forward pass that --budget times (default {BATCH_SIZE})",
    )
    add("--length", type=number(int, 1), help=f"and their tokens (default {LENGTH}, or what the model takes if less)")
    add("--json", help="file that gets all numbers, too (default none)")
    add("--use_cpu", action="store_true", help="do not use a GPU (default: use one if there is one)")
    args = parser.parse_args(argv)

    # a flag without effect is an error
    if args.budget and args.teacher_model_path:
        parser.error("--teacher_model_path: not with --budget, which measures a model's students")
    for flag in ("batch_size", "length"):
        if getattr(args, flag) and not (args.budget and args.budget.is_time):
            parser.error(f"--{flag}: for a --budget of milliseconds")
    return args


def default_teacher(path: str) -> str | None:
    """The teacher in a student's settings, uncut; None if there is none, or its folder is gone or holds another."""
    settings = checkpoint_settings(path)
    teacher = settings.get("teacher_model_path")
    digest = settings.get("inputs", {}).get("teacher_model_path")
    return teacher if teacher and Path(teacher).is_dir() and checkpoint_digest(Path(teacher)) == digest else None


def macs(model: PrunableEncoder, length: int) -> int:
    """MACs for one example of `length` tokens, by the formula at the top of this file."""
    hidden = model.config.hidden_size
    size = hidden // model.config.num_attention_heads
    total = hidden * (hidden + model.config.num_labels)
    for layer in model.layers:
        weights = sum(part.numel() for part in layer.unit_weights())  # each of them is one product a token
        total += length * (weights + 2 * length * layer.widths[0] * size)
    return total


def milliseconds(call: Callable[[], Any], repeats: int, device: str) -> float:
    """Median time of a call in ms, after WARM_UP others."""
    times = [timed(call, device) for _ in range(WARM_UP + repeats)]
    return statistics.median(times[WARM_UP:])


def timed(call: Callable[[], Any], device: str) -> float:
    """Milliseconds that a call takes, finished on the device."""
    start = time.perf_counter()
    call()
    if device == "cuda":
        torch.cuda.synchronize()
    return 1000 * (time.perf_counter() - start)


def latencies(runtime: str, config: Any, runner: Callable, repeats: int, device: str) -> list[dict[str, Any]]:
    """Latency and throughput at each batch size and length that the model takes.

    Args:
        runner: called with a list of token ids, token types and attention mask, each (B, T).
    """
    rows = []
    for batch, length in itertools.product(BATCHES, LENGTHS):
        if length <= config.max_position_embeddings:
            inputs = [part.to(device) for part in export.random_inputs(config, batch, length)]
            latency = milliseconds(functools.partial(runner, inputs), repeats, device)
            row = {"runtime": runtime, "batch": batch, "length": length, "ms": latency}
            rows.append({**row, "examples_per_s": 1000 * batch / latency})
    return rows


def exported(path: str) -> Path | None:
    """Path of the checkpoint's model.onnx; None, after printing the reason, if it cannot be run."""
    folder = export.default_folder(path, "onnx")
    if not (folder / "model.onnx").is_file():
        print(f"{path}: not exported to {folder}, so torch only")
    elif export.export_source(folder) != checkpoint_digest(Path(path)):
        print(f"{path}: {folder} was exported from another checkpoint, so torch only")
    elif importlib.util.find_spec("onnxruntime") is None:
        print(f"{path}: no onnxruntime (pip install onnxruntime), so torch only")
    else:
        return folder / "model.onnx"
    return None


def inspect(path: str, model: PrunableEncoder, repeats: int, device: str) -> dict[str, Any]:
    """Content of --json for one checkpoint: parameters, MACs by length, heads and neurons by layer, latencies."""
    model = model.to(device)
    config = model.config
    embeddings, others = parameters(model)

    # time torch, and onnxruntime if the checkpoint has been exported
    with torch.inference_mode():
        timed = latencies("torch", config, lambda inputs: model(*inputs), repeats, device)
    onnx = exported(path)
    if onnx:
        session = export.open_session(onnx)
        timed += latencies("onnxruntime", config, lambda inputs: export.onnx_logits(session, inputs), repeats, "cpu")

    heads, neurons = zip(*export.widths(model), strict=True)
    lengths = [length for length in LENGTHS if length <= config.max_position_embeddings]
    return {
        "path": path,
        "parameters": {"embeddings": embeddings, "others": others},
        "macs": {str(length): macs(model, length) for length in lengths},
        "heads": {"left": heads, "of": config.num_attention_heads},
        "neurons": {"left": neurons, "of": config.intermediate_size},
        "latency": timed,
    }


def show_sizes(columns: dict[str, dict[str, Any]]) -> None:
    """Print parameters and MACs, then heads and neurons by layer; `columns` are results of `inspect` by name."""
    # parameters and MACs, a column for each model
    rows = []
    for part, key in (("without embeddings", "others"), ("embeddings", "embeddings")):
        counts = [column["parameters"][key] for column in columns.values()]
        rows.append((f"parameters, {part}", *(f"{count:,}" for count in counts)))
    for length in map(str, LENGTHS):
        counts = [column["macs"].get(length) for column in columns.values()]
        rows.append((f"MACs, {length} tokens", *(None if count is None else f"{count:,}" for count in counts)))
    print(table(("", *columns), rows), end="\n\n")

    # widths of the layers; the teacher may have more layers than the student
    parts = [(name, kind, c[kind]) for name, c in columns.items() for kind in ("heads", "neurons")]
    layers = itertools.zip_longest(*([f"{n} of {units['of']}" for n in units["left"]] for _, _, units in parts))
    header = ("layer", *(f"{name}'s {kind}" for name, kind, _ in parts))
    print(table(header, [(index, *row) for index, row in enumerate(layers)]), end="\n\n")


def show_latencies(columns: dict[str, dict[str, Any]]) -> None:
    """Print a row for each runtime, batch size and length at which a model was timed; `columns` as above."""
    timed = [
        {(row["runtime"], row["batch"], row["length"]): row for row in column["latency"]} for column in columns.values()
    ]

    # a row for each shape at which one of them was timed
    rows = []
    for shape in itertools.product(("torch", "onnxruntime"), BATCHES, LENGTHS):
        latencies_of = [by_shape.get(shape) for by_shape in timed]
        if not any(latencies_of):
            continue
        cells: list[Any] = [*shape]
        for latency in latencies_of:
            cells += [f"{latency['ms']:.2f}", f"{latency['examples_per_s']:.1f}"] if latency else [None, None]
        if len(columns) > 1:  # the teacher's time by the student's
            cells.append(f"{latencies_of[1]['ms'] / latencies_of[0]['ms']:.2f}" if all(latencies_of) else None)
        rows.append(cells)
    header = [f"{name} {unit}" for name in columns for unit in ("ms", "examples/s")]
    if len(columns) > 1:
        header.append("speed-up")
    print(table(("runtime", "batch", "length", *header), rows))


def inspect_students(args: argparse.Namespace, device: str) -> dict[str, Any]:
    """Print the sizes of all students of a model, and the largest that fit into --budget; content of --json.

    Raises:
        InputError: none fits, or the model does not take so many tokens.
    """
    model = export.load_for_inference(args.model_path).to(device)
    positions = model.config.max_position_embeddings
    batch_size = args.batch_size or BATCH_SIZE
    length = args.length or min(LENGTH, positions)
    if length > positions:
        raise InputError(f"--length {length}: the model takes {positions} tokens at most")

    # make, count and time all students
    inputs = [part.to(device) for part in export.random_inputs(model.config, batch_size, length)]
    with torch.inference_mode():
        sizes = measure_students(
            model,
            lambda student: milliseconds(lambda: student(*inputs), args.repeats, device),
            is_timed=args.budget.is_time,
        )
    fitting = largest(sizes, args.budget)

    machine = print_machine(device)
    print(students_table(sizes, args.budget), end="\n\n")
    shape = f" at batch size {batch_size} and {length} tokens" if args.budget.is_time else " without embeddings"
    print(f"the largest within {args.budget.text}{shape}:", *fitting, sep="\n")
    if not sparsities(model):
        task = checkpoint_settings(args.model_path).get("task_name", "<task>")
        command = f"python run_pruning.py --task_name {task} --model_path {args.model_path}"
        print(f"--student_sparsity takes a sorted checkpoint, which this is not; {command} makes one")
    return {"machine": machine, "budget": args.budget.text, "students": [size._asdict() for size in sizes]}


def inspect_models(args: argparse.Namespace, device: str) -> dict[str, Any]:
    """Print sizes and latencies of a model, and of its teacher if there is one; content of --json."""
    paths = {"model": args.model_path, "teacher": args.teacher_model_path or default_teacher(args.model_path)}
    models = {name: export.load_for_inference(path) for name, path in paths.items() if path}
    columns = {name: inspect(paths[name], model, args.repeats, device) for name, model in models.items()}
    machine = print_machine(device)
    show_sizes(columns)
    show_latencies(columns)
    return {"machine": machine, **columns}


def print_machine(device: str) -> dict[str, Any]:
    """Print what tables were measured on, in a line; versions and hardware for --json."""
    machine = {**hardware(device), **versions()}
    print("{hardware}, {cpu_threads} CPU threads, torch {torch_version}".format(**machine), end="\n\n")
    return machine


@entry_point
def main(argv=None):
    args = parse_args(argv)
    if args.json and (Path(args.json).is_dir() or not Path(args.json).parent.is_dir()):
        raise InputError(f"--json {args.json}: expected a file in a folder that exists")
    device = "cuda" if torch.cuda.is_available() and not args.use_cpu else "cpu"
    content = inspect_students(args, device) if args.budget else inspect_models(args, device)
    if args.json:
        write_json(Path(args.json), content)


if __name__ == "__main__":
    main()

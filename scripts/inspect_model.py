"""Shows what a checkpoint costs, and beside it its teacher: parameters, widths, multiplications, latency.

    python scripts/inspect_model.py --model_path outputs/rewind/parameter_pruned/kd_70_rte_0.5/ckpt_30
    python scripts/inspect_model.py --model_path <student> --teacher_model_path <teacher> --json costs.json

Without --teacher_model_path the teacher is the one that the student was made with.

Latency is the median of --repeats runs after three that do not count, in float32, on rows without padding: in torch on
the GPU if there is one, and in onnxruntime on the CPU where scripts/export.py has exported the same checkpoint to its
default place. A length that is more than a model takes is -.

MACs are the products that one example of T tokens takes, by the widths that each layer has, with D hidden size, h heads
of size s, f neurons, C classes: 3 T D h s for query, key and value, 2 T^2 h s for scores and context, T h s D for the
output, 2 T D f for the FFN or 3 T D f for ModernBERT's, and D^2 + D C once for the classifier. All tokens count in all
layers, and see all others; the model itself spares most of the last one, where only [CLS] is needed.
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
from stage import entry_point
from utils.arguments import Parser
from utils.errors import InputError
from utils.files import checkpoint_digest, write_json
from utils.flags import number
from utils.folder import checkpoint_settings
from utils.machine import hardware, versions
from utils.tables import table

BATCHES, LENGTHS = (1, 8, 32), (32, 128)
WARM_UP = 3  # runs


def parse_args(argv=None):
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False)
    add = parser.add_argument
    add("--model_path", required=True, help="checkpoint folder of a model with a classifier")
    add("--teacher_model_path", help="checkpoint folder to compare with (default the model's own, if it is there)")
    add("--repeats", type=number(int, 10), default=20, help="timed runs of each shape, at least 10 (default 20)")
    add("--json", help="file that gets all numbers, too (default none)")
    add("--use_cpu", action="store_true", help="do not use a GPU (default: use one if there is one)")
    add("--debug", action="store_true", help="show the traceback of an error (default: one line)")
    return parser.parse_args(argv)


def own_teacher(path: str) -> str | None:
    """The teacher that a student's settings name, if its folder is there."""
    teacher = checkpoint_settings(path).get("teacher_model_path")
    return teacher if teacher and Path(teacher).is_dir() else None


def macs(model: PrunableEncoder, length: int) -> int:
    """Products for one example of so many tokens, as the top of this file has them."""
    hidden, size = model.config.hidden_size, model.config.hidden_size // model.config.num_attention_heads
    total = hidden * (hidden + model.config.num_labels)
    for layer in model.layers:
        weights = sum(part.numel() for part in layer.unit_weights())  # each of them is one product a token
        total += length * (weights + 2 * length * layer.widths[0] * size)
    return total


def milliseconds(call: Callable[[], Any], repeats: int, device: str) -> float:
    """Median time of a call, after some that do not count."""
    return statistics.median([timed(call, device) for _ in range(WARM_UP + repeats)][WARM_UP:])


def timed(call: Callable[[], Any], device: str) -> float:
    """Milliseconds that a call takes, finished on the device."""
    start = time.perf_counter()
    call()
    if device == "cuda":
        torch.cuda.synchronize()
    return 1000 * (time.perf_counter() - start)


def latencies(runtime: str, config: Any, runner: Callable, repeats: int, device: str) -> list[dict[str, Any]]:
    """A row for each batch and length that the model takes; `runner` takes its three inputs, each (B, T)."""
    rows = []
    for batch, length in itertools.product(BATCHES, LENGTHS):
        if length <= config.max_position_embeddings:
            inputs = [part.to(device) for part in export.random_inputs(config, batch, length)]
            took = milliseconds(functools.partial(runner, inputs), repeats, device)
            row = {"runtime": runtime, "batch": batch, "length": length, "ms": took}
            rows.append({**row, "examples_per_s": 1000 * batch / took})
    return rows


def exported(path: str) -> Path | None:
    """The checkpoint's model.onnx, if it can be run; else a line says why not."""
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
    """All numbers of a checkpoint: parameters, MACs by length, units left by layer, a row for each latency (ms)."""
    model, config = model.to(device), model.config
    total, embeddings = (sum(p.numel() for p in part.parameters()) for part in (model, model.embeddings))
    with torch.inference_mode():
        timed = latencies("torch", config, lambda inputs: model(*inputs), repeats, device)
    if onnx := exported(path):
        session = export.open_session(onnx)
        timed += latencies("onnxruntime", config, lambda inputs: export.onnx_logits(session, inputs), repeats, "cpu")
    widths = export.widths(model)
    heads, neurons = zip(*widths, strict=True)
    lengths = [length for length in LENGTHS if length <= config.max_position_embeddings]
    return {
        "path": path,
        "parameters": {"embeddings": embeddings, "others": total - embeddings},
        "macs": {str(length): macs(model, length) for length in lengths},
        "heads": {"left": heads, "of": config.num_attention_heads},
        "neurons": {"left": neurons, "of": config.intermediate_size},
        "latency": timed,
    }


def show_sizes(columns: dict[str, dict[str, Any]]) -> None:
    """Print parameters and MACs, then heads and neurons left in each layer; `columns` are inspected models by name."""
    rows = [
        (f"parameters, {part}", *(f"{c['parameters'][key]:,}" for c in columns.values()))
        for part, key in (("without embeddings", "others"), ("embeddings", "embeddings"))
    ]
    for length in map(str, LENGTHS):
        counts = [c["macs"].get(length) for c in columns.values()]
        rows.append((f"MACs, {length} tokens", *(count and f"{count:,}" for count in counts)))
    print(table(("", *columns), rows), end="\n\n")
    parts = [(name, kind, c[kind]) for name, c in columns.items() for kind in ("heads", "neurons")]
    layers = itertools.zip_longest(*([f"{n} of {units['of']}" for n in units["left"]] for _, _, units in parts))
    header = ("layer", *(f"{name}'s {kind}" for name, kind, _ in parts))
    print(table(header, [(index, *row) for index, row in enumerate(layers)]), end="\n\n")


def show_latencies(columns: dict[str, dict[str, Any]]) -> None:
    """Print a row for each runtime, batch and length that one of the inspected models has."""
    timed = [{(r["runtime"], r["batch"], r["length"]): r for r in c["latency"]} for c in columns.values()]
    shapes = itertools.product(("torch", "onnxruntime"), BATCHES, LENGTHS)
    rows = []
    for shape in (shape for shape in shapes if any(shape in by_shape for by_shape in timed)):
        there = [by_shape.get(shape) for by_shape in timed]
        cells = [(f"{r['ms']:.2f}", f"{r['examples_per_s']:.1f}") if r else (None, None) for r in there]
        ratio = [f"{there[1]['ms'] / there[0]['ms']:.2f}" if all(there) else None] if len(there) > 1 else []
        rows.append((*shape, *itertools.chain(*cells), *ratio))
    header = [f"{name} {unit}" for name in columns for unit in ("ms", "examples/s")] + ["speed-up"] * (len(columns) > 1)
    print(table(("runtime", "batch", "length", *header), rows))


@entry_point
def main(argv=None):
    args = parse_args(argv)
    if args.json and (Path(args.json).is_dir() or not Path(args.json).parent.is_dir()):
        raise InputError(f"--json {args.json}: expected a file in a folder that exists")
    device = "cuda" if torch.cuda.is_available() and not args.use_cpu else "cpu"
    paths = {"model": args.model_path, "teacher": args.teacher_model_path or own_teacher(args.model_path)}
    models = {name: export.load_for_inference(path) for name, path in paths.items() if path}
    columns = {name: inspect(paths[name], model, args.repeats, device) for name, model in models.items()}
    machine = {**hardware(device), **versions()}
    print("{hardware}, {cpu_threads} CPU threads, torch {torch_version}".format(**machine), end="\n\n")
    show_sizes(columns)
    show_latencies(columns)
    if args.json:
        write_json(Path(args.json), {"machine": machine, **columns})


if __name__ == "__main__":
    main()

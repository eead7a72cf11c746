"""Times scoring (stage 4) and rewinding (stage 5): the paper's way against the default, on the same data and model.

    python scripts/benchmark.py --task_name rte --data_dir datasets --model_path bert-base-uncased --student_layer 4

The paper's way is --pad_to_max_length --no_group_by_length --no_teacher_cache --no_exact_shortcuts in rewinding, and
weight gradients, batches in file order and everything padded in scoring. Each measurement is a process of its own;
the two ways alternate, A B A B, and the medians count. Nothing is fine-tuned: the teacher has a random classifier, the
trial student is its first layers, units are sorted by random scores. That changes no shape and so no timing, but the
metrics mean nothing. A rewind is --updates updates over ten epochs, so it sees 16 * updates / 10 rows, drawn from the
whole training set, and is evaluated on the whole dev set as often as a run on the whole training set would be. On a
GPU the clock waits until it is done, and the peak is that of its memory.

The last line printed is one JSON object.
"""

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch

import run_rewinding
from models.checkpoint import load_model
from models.losses import task_loss, teacher_loss
from models.pruning import cut, drop_layers, sort_units
from models.scores import GROUP, WINDOW, mask_gradients, normalise, random_scores
from utils.arguments import add_student_flags, argument_parser
from utils.cache import load_examples
from utils.evaluation import predict
from utils.machine import hardware
from utils.tasks import TASKS, split_path
from utils.tokenizer import load_tokenizer

EPOCHS, BATCH_SIZE = 10, 16
PAPER = ["--pad_to_max_length", "--no_group_by_length", "--no_teacher_cache", "--no_exact_shortcuts"]
WAYS = ("paper", "ours")
STAGES = ("score", "rewind")


def parse_args(argv=None):
    parser = argument_parser(__doc__, "benchmark", model_types=("kd",))
    add_student_flags(parser)
    parser.add_argument("--model_path", default="bert-base-uncased", help="any BERT (default bert-base-uncased)")
    parser.add_argument("--device", choices=("auto", "cpu"), default="auto", help="auto: a GPU if there is one")
    parser.add_argument("--stages", nargs="+", choices=STAGES, default=STAGES, help="what to time (default both)")
    parser.add_argument("--updates", type=int, help="of a rewind (default whole intervals of evaluation, at least 30)")
    parser.add_argument("--repeats", type=int, default=3, help="measurements of each way (default 3)")
    parser.add_argument("--worker", help=argparse.SUPPRESS)  # stage/way: one measurement, in a process of its own
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    return parser.parse_args(argv)


def prepare(args, folder: Path) -> None:
    """The teacher, the sorted teacher, the trial student, and a task folder: training rows drawn, dev whole."""
    torch.manual_seed(args.seed)
    tokenizer = load_tokenizer(args.model_path)
    teacher = load_model(args.model_path, TASKS[args.task_name].labels, fine_tuned=False)
    config = teacher.config
    teacher.save_pretrained(folder / "teacher")
    sort_units(teacher, random_scores(teacher, args.seed))
    config.sparsity_map = {s: config.sparsity_map[s] for s in ("0", *{"50", str(args.student_sparsity or 50)})}
    pruned = args.student_sparsity is not None
    trial = cut(teacher, args.student_sparsity) if pruned else drop_layers(teacher, list(range(args.student_layer)))
    trial.save_pretrained(folder / "trial")
    teacher.save_pretrained(folder / "pruned")
    config.sparsity_map = {s: config.sparsity_map[s] for s in ("0", "50")}
    teacher.save_pretrained(folder / "stark")
    for name in ("teacher", "trial", "pruned", "stark"):
        tokenizer.save_pretrained(folder / name)
    task = folder / "data" / args.task_name
    task.mkdir(parents=True)
    train, dev = (split_path(args.task_name, args.data_dir, split) for split in ("train", "dev"))
    lines = train.read_text(encoding="utf-8-sig").rstrip("\n").split("\n")
    header = lines[:1] if TASKS[args.task_name].header else []
    rows = lines[len(header) :][: args.max_train_examples]
    interval = max(10, -(-len(rows) // BATCH_SIZE) // 10)
    updates = args.updates or -(-30 // interval) * interval
    drawn = random.Random(args.seed).sample(rows, min(len(rows), BATCH_SIZE * updates // EPOCHS))
    (task / "train.tsv").write_text("\n".join([*header, *drawn]) + "\n", encoding="utf-8")
    (task / dev.name).write_bytes(dev.read_bytes())
    (folder / "interval").write_text(str(interval))


def rewind(args, folder: Path, way: str) -> dict[str, float]:
    """Stage 5 at teacher sparsities 0 and 50, as its script does it: seconds of teachers asked and students trained.

    What a run has once, such as reading checkpoints, is left out: over so few updates it would weigh too much.
    """
    source = "teacher" if args.student_sparsity is None else "pruned"
    student = ["--student_layer", str(args.student_layer)]
    if args.student_sparsity is not None:
        student = ["--student_sparsity", str(args.student_sparsity)]
    run_rewinding.main(
        [
            *("--task_name", args.task_name, "--data_dir", str(folder / "data"), "--output_dir", str(folder / way)),
            *("--teacher_model_path", str(folder / "stark"), "--student_model_path", str(folder / source)),
            *("--num_train_epochs", str(EPOCHS), "--num_patience_epochs", "0", "--overwrite"),
            *("--per_device_train_batch_size", str(BATCH_SIZE)),  # whatever the task's is
            *("--log_interval", (folder / "interval").read_text(), *student, *shared_flags(args)),
            *(PAPER if way == "paper" else []),
        ]
    )
    [path] = (folder / way).glob("*/*/metrics.json")
    metrics = json.loads(path.read_text())
    rows = metrics["sparsity"].values()
    training = sum(row["train_seconds"] for row in rows)
    seconds = training + sum(row["teacher_seconds"] for row in rows)
    return {"seconds": seconds, "steps_per_s": sum(row["updates"] for row in rows) / training}


def device_of(args) -> torch.device:
    """Where the stages compute with these flags."""
    on_gpu = torch.cuda.is_available() and args.device == "auto" and not args.use_cpu
    return torch.device("cuda" if on_gpu else "cpu")


def clock(device: torch.device) -> float:
    """Seconds, when the device has done all that it was asked so far."""
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def shared_flags(args) -> list[str]:
    """The flags of machine and precision, as given."""
    names = ("use_bf16", "use_fp16", "compile")
    return ["--use_cpu"] * (args.device == "cpu" or args.use_cpu) + [
        f"--{name}" for name in names if getattr(args, name)
    ]


def score(args, folder: Path, way: str) -> dict[str, float]:
    """Stage 4's mask gradients of both losses over the whole dev set: seconds without loading and tokenising.

    In float32, as the stage computes them whatever the precision of the rest.
    """
    torch.set_float32_matmul_precision("high")  # as in stage.py
    labels, device = TASKS[args.task_name].labels, device_of(args)
    teacher, student = (load_model(str(folder / name), labels).to(device) for name in ("teacher", "trial"))
    tokenizer = load_tokenizer(str(folder / "teacher"))
    dev = load_examples(args.task_name, str(folder / "data"), "dev", tokenizer, args.max_length).to(device)
    losses = [task_loss, teacher_loss(predict(student, dev, GROUP))]
    start = clock(device)
    if way == "ours":
        batches = dev.eval_batches(GROUP, window=WINDOW)
        [normalise(gradients) for gradients in mask_gradients(teacher, batches, losses)]
    else:
        plain_mask_gradients(teacher, dev, losses, args.max_length)
    return {"seconds": clock(device) - start}


def plain_mask_gradients(model, dev, losses, width: int) -> list[list[torch.Tensor]]:
    """The definition, as the paper's code computes it: padded, in file order, with the gradients of all weights."""
    config = model.eval().config
    model.use_exact_shortcuts(False)
    shapes = [(config.num_hidden_layers, n) for n in (config.num_attention_heads, config.intermediate_size)]
    masks = [torch.ones(shape, device=model.device, requires_grad=True) for shape in shapes]
    total = [[torch.zeros_like(mask) for mask in masks] for _ in losses]
    padded = type(dev)(**{**vars(dev), "pad_to": width})
    for ids in torch.arange(len(dev)).split(GROUP):
        batch = padded.batch(ids)
        logits = model(*batch.inputs, *masks)
        for index, loss in enumerate(losses):
            loss(logits, batch).mean().backward(retain_graph=index + 1 < len(losses))
            for kind, mask in enumerate(masks):
                total[index][kind] += mask.grad.abs()
                mask.grad = None
            model.zero_grad()
    return total


def measure(argv: list[str], folder: Path, worker: str) -> dict[str, float]:
    """One measurement in a process of its own, with its peak memory in MB, or what it says of the GPU's."""
    command = [sys.executable, __file__, *argv, "--worker", worker, "--folder", str(folder)]
    with tempfile.TemporaryFile("w+") as output, tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(command, stdout=output, stderr=errors)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        for stream in (output, errors):
            stream.seek(0)
        if process.returncode:
            sys.exit(f"error: {worker} failed: {errors.read()[-2000:]}")
        result = json.loads(output.read().splitlines()[-1])
    return {"peak_mb": usage.ru_maxrss / 1024, **result}


def main(argv=None):
    argv = sys.argv[1:] if argv is None else argv
    args = parse_args(argv)
    if args.worker:
        stage, way = args.worker.split("/")
        result = {"rewind": rewind, "score": score}[stage](args, Path(args.folder), way)
        if device_of(args).type == "cuda":
            result["peak_mb"] = torch.cuda.max_memory_allocated() / 2**20
        print(json.dumps(result))
        return
    results = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        prepare(args, folder)
        for stage in args.stages:
            for _ in range(args.repeats):
                for way in WAYS:  # A B A B: a drift of the machine's speed hits both
                    result = measure(argv, folder, f"{stage}/{way}")
                    results.setdefault((stage, way), []).append(result)
                    print(f"{stage:7}{way:6}{result['seconds']:8.2f} s  peak {result['peak_mb']:6.0f} MB", flush=True)
    report(args, results)


def report(args, results: dict) -> None:
    """The table of medians, then everything as one JSON object."""

    def medians(stage: str, key: str) -> list[float]:
        return [statistics.median(result[key] for result in results[stage, way]) for way in WAYS]

    seconds = {stage: medians(stage, "seconds") for stage in args.stages}
    print(f"\n{'':10}{'paper s':>10}{'ours s':>10}{'speedup':>10}")
    for stage, (paper, ours) in seconds.items():
        print(f"{stage:10}{paper:10.2f}{ours:10.2f}{paper / ours:10.2f}")
    result = {"task_name": args.task_name, "threads": torch.get_num_threads(), "torch": torch.__version__}
    result |= hardware(device_of(args).type) | {"cpu_capability": torch.backends.cpu.get_cpu_capability()}
    result["flags"] = shared_flags(args)
    for stage, (paper, ours) in seconds.items():
        result[f"{stage}_speedup"] = round(paper / ours, 2)
        result[f"{stage}_seconds"] = [round(paper, 2), round(ours, 2)]
        result[f"{stage}_peak_mb"] = [round(value) for value in medians(stage, "peak_mb")]
    if "rewind" in seconds:
        result["steps_per_s"] = [round(value, 2) for value in medians("rewind", "steps_per_s")]
    print(json.dumps(result))


if __name__ == "__main__":
    main()

"""Time scoring (stage 4) and rewinding (stage 5): as in the paper's code against the default, on equal data and models.

    python scripts/benchmark.py --task_name rte --data_dir datasets --model_path bert-base-uncased --student_layer 4

"paper" is --pad_to_max_length --no_group_by_length --no_teacher_cache --no_exact_shortcuts in rewinding; in scoring it
is gradients of all weights, and padded batches in file order. "ours" is the default. Each measurement is a process of
its own; the two variants alternate, A B A B, and medians are compared. Nothing is fine-tuned: the teacher's classifier
is random, the trial student is its first layers, units are sorted by random scores. That changes no shape, hence no
timing, but the metrics mean nothing. A rewind makes --updates updates in ten epochs over 16 * updates / 10 random rows
of the training set, and is evaluated on the whole dev set as often as a run on the whole training set would be. On a
GPU the clock waits for the device, and the peak is that of the GPU's memory.

Before that, the rates of products at the model's shapes are printed (product_rates.py). The last line printed is a JSON
object.
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
from models.hub import read_config
from models.losses import task_loss, teacher_loss
from models.pruning import initial_student, sort_units
from models.scores import GROUP, WINDOW, mask_gradients, normalise, random_scores
from models.units import CheckpointError
from scripts import product_rates
from utils import arguments
from utils.cache import load_examples
from utils.entry import entry_point
from utils.evaluation import predict
from utils.flags import number
from utils.machine import hardware
from utils.rows import read_columns
from utils.tasks import TASK_FILE, Task, find_task, split_path
from utils.tokenizer import load_tokenizer

EPOCHS = 10
BATCH_SIZE = 16
PAPER_SWITCHES = ("pad_to_max_length", "no_group_by_length", "no_exact_shortcuts")
PAPER = ["--no_teacher_cache", *(f"--{name}" for name in PAPER_SWITCHES)]
VARIANTS = ("paper", "ours")
STAGES = ("score", "rewind")
WITHOUT_EFFECT = ("max_eval_examples", "selection_split", "overwrite", *PAPER_SWITCHES)


def parse_args(argv=None):
    parser = arguments.argument_parser(__doc__, "benchmark", model_types=("kd",))
    arguments.add_student_flags(parser)
    parser.add_argument("--model_path", default="bert-base-uncased", help="any BERT (default bert-base-uncased)")
    parser.add_argument("--device", choices=("auto", "cpu"), default="auto", help="auto: a GPU if there is one")
    parser.add_argument("--stages", nargs="+", choices=STAGES, default=STAGES, help="what to time (default both)")
    parser.add_argument("--updates", type=number(int, 1), help="of a rewind (default 30 or more, in whole intervals)")
    parser.add_argument("--repeats", type=number(int, 1), default=3, help="measurements of each variant (default 3)")
    parser.add_argument("--worker", help=argparse.SUPPRESS)  # stage/variant: make one measurement in this process
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    args = arguments.parse(parser, argv)
    if given := [name for name in WITHOUT_EFFECT if getattr(args, name) != parser.get_default(name)]:
        parser.error(f"--{given[0]}: has no effect here")
    return args


def prepare(args, folder: Path) -> None:
    """Write teacher, sorted teacher, trial student, pruned model, and a task folder with drawn training rows."""
    # models with random classifiers; sorted ones can be cut at the sparsities that the stages need, and at no others
    torch.manual_seed(args.seed)
    tokenizer = load_tokenizer(args.model_path)
    teacher = load_model(args.model_path, find_task(args.task_name, args.data_dir).labels, fine_tuned=False)
    config = teacher.config
    teacher.save_pretrained(folder / "teacher")
    sort_units(teacher, random_scores(teacher, args.seed))
    config.sparsity_map = {s: config.sparsity_map[s] for s in ("0", *{"50", str(args.student_sparsity or 50)})}
    student = initial_student(teacher, args.student_layer, args.student_sparsity, args.layer_choice)
    student.save_pretrained(folder / "trial")
    teacher.save_pretrained(folder / "pruned")
    config.sparsity_map = {s: config.sparsity_map[s] for s in ("0", "50")}
    teacher.save_pretrained(folder / "stark")
    for name in ("teacher", "trial", "pruned", "stark"):
        tokenizer.save_pretrained(folder / name)

    # as many training rows as ten epochs of the updates take, and the evaluation interval of the whole training set
    task = folder / "data" / args.task_name
    task.mkdir(parents=True)
    train, dev = (split_path(args.task_name, args.data_dir, split) for split in ("train", "dev"))
    header, rows = train_lines(train, find_task(args.task_name, args.data_dir))
    rows = rows[: args.max_train_examples]
    interval = max(10, -(-len(rows) // BATCH_SIZE) // 10)
    updates = args.updates or -(-30 // interval) * interval
    drawn = random.Random(args.seed).sample(rows, min(len(rows), BATCH_SIZE * updates // EPOCHS))
    name = "train.jsonl" if find_task(args.task_name, args.data_dir).is_own else "train.tsv"
    (task / name).write_text("\n".join([*header, *drawn]) + "\n", encoding="utf-8")
    for path in (dev, dev.with_name(TASK_FILE)):
        if path.is_file():
            (task / path.name).write_bytes(path.read_bytes())
    (folder / "interval").write_text(str(interval))


def train_lines(path: Path, task: Task) -> tuple[list[str], list[str]]:
    """The header, if there is one, and a line for each row of a training set, an own task's as .jsonl."""
    if task.is_own:
        columns = [*task.text, task.label_column]
        rows = (dict(zip(columns, fields, strict=True)) for _, fields in read_columns(path, columns))
        return [], list(map(json.dumps, rows))
    lines = path.read_text(encoding="utf-8-sig").rstrip("\n").split("\n")
    return (lines[:1], lines[1:]) if task.header else ([], lines)


def rewind(args, folder: Path, variant: str) -> dict[str, float]:
    """Run stage 5 at teacher sparsities 0 and 50: seconds for teacher logits and training, updates per second.

    Costs that a run has once, such as reading checkpoints, are left out: over so few updates they would weigh too much.
    """
    results = rewinds(args, folder, variant, *(PAPER if variant == "paper" else [])).values()
    training = sum(result["train_seconds"] for result in results)
    seconds = training + sum(result["teacher_seconds"] for result in results)
    return {"seconds": seconds, "steps_per_s": sum(result["updates"] for result in results) / training}


def rewinds(args, folder: Path, variant: str, *flags: str) -> dict[str, dict]:
    """Run stage 5 with these flags: teacher sparsity -> result, as its metrics.json has it."""
    if args.student_sparsity is None:
        source = "teacher"
        student = ["--student_layer", str(args.student_layer), "--layer_choice", args.layer_choice]
    else:
        source = "pruned"
        student = ["--student_sparsity", str(args.student_sparsity)]

    # run the script
    run_rewinding.main(
        [
            *("--task_name", args.task_name, "--data_dir", str(folder / "data"), "--output_dir", str(folder / variant)),
            *("--teacher_model_path", str(folder / "stark"), "--student_model_path", str(folder / source)),
            *("--num_train_epochs", str(EPOCHS), "--num_patience_epochs", "0", "--overwrite"),
            *("--per_device_train_batch_size", str(BATCH_SIZE)),  # instead of the task's own
            *("--per_device_eval_batch_size", str(args.per_device_eval_batch_size)),
            *("--max_length", str(args.max_length), "--seed", str(args.seed)),
            *("--log_interval", (folder / "interval").read_text(), *student, *shared_flags(args)),
            *flags,
        ]
    )
    [path] = (folder / variant).glob("*/*/metrics.json")
    return json.loads(path.read_text())["sparsity"]


def device_of(args) -> torch.device:
    """The device that the stages compute on with these flags."""
    on_gpu = torch.cuda.is_available() and args.device == "auto" and not args.use_cpu
    return torch.device("cuda" if on_gpu else "cpu")


def clock(device: torch.device) -> float:
    """Time in seconds, after waiting for the device."""
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def shared_flags(args) -> list[str]:
    """The flags of device and precision, to be passed on to the stages."""
    flags = [f"--{name}" for name in ("use_bf16", "use_fp16", "compile") if getattr(args, name)]
    if args.device == "cpu" or args.use_cpu:
        flags.insert(0, "--use_cpu")
    return flags


def score(args, folder: Path, variant: str) -> dict[str, float]:
    """Compute stage 4's mask gradients of both losses on the dev set: seconds, without loading and tokenising.

    In float32, as the stage does whatever its precision flags.
    """
    labels = find_task(args.task_name, args.data_dir).labels
    device = device_of(args)
    torch.set_float32_matmul_precision("high" if device.type == "cuda" else "highest")  # as in stage.py
    teacher = load_model(str(folder / "teacher"), labels).to(device)
    student = load_model(str(folder / "trial"), labels).to(device)
    tokenizer = load_tokenizer(str(folder / "teacher"))
    dev = load_examples(args.task_name, str(folder / "data"), "dev", tokenizer, args.max_length).to(device)
    losses = [task_loss, teacher_loss(predict(student, dev, GROUP))]

    # time the gradients alone
    start = clock(device)
    if variant == "ours":
        batches = dev.eval_batches(GROUP, window=WINDOW)
        for gradients in mask_gradients(teacher, batches, losses):
            normalise(gradients)
    else:
        padded_mask_gradients(teacher, dev, losses, args.max_length)
    return {"seconds": clock(device) - start}


def padded_mask_gradients(model, dev, losses, width: int) -> list[list[torch.Tensor]]:
    """Mask gradients as the paper's code computes them: padded batches in file order, gradients of all weights, too."""
    config = model.eval().config
    model.use_exact_shortcuts(False)
    shapes = [(config.num_hidden_layers, n) for n in (config.num_attention_heads, config.intermediate_size)]
    masks = [torch.ones(shape, device=model.device, requires_grad=True) for shape in shapes]
    total = [[torch.zeros_like(mask) for mask in masks] for _ in losses]

    # |d mean loss / d mask| of each batch, summed
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


def measure(argv: list[str], folder: Path, worker: str, script: str = __file__) -> dict[str, float]:
    """Make one measurement in a new process: its result, with the peak memory in MB, the GPU's if it uses one."""
    command = [sys.executable, script, *argv, "--worker", worker, "--folder", str(folder)]
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


@entry_point(CheckpointError)
def main(argv=None):
    argv = sys.argv[1:] if argv is None else argv
    args = parse_args(argv)

    # a worker makes one measurement and prints it
    if args.worker:
        stage, variant = args.worker.split("/")
        measured = {"rewind": rewind, "score": score}[stage]
        result = measured(args, Path(args.folder), variant)
        if device_of(args).type == "cuda":
            result["peak_mb"] = torch.cuda.max_memory_allocated() / 2**20
        print(json.dumps(result))
        return

    if device_of(args).type == "cpu":
        config = read_config(args.model_path)
        product_rates.print_rates(config.get("hidden_size", 768), config.get("intermediate_size", 3072))

    # the variants alternate, so that a drift of the machine's speed affects both
    results = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        prepare(args, folder)
        for stage in args.stages:
            for _ in range(args.repeats):
                for variant in VARIANTS:
                    result = measure(argv, folder, f"{stage}/{variant}")
                    results.setdefault((stage, variant), []).append(result)
                    peak = f"peak {result['peak_mb']:6.0f} MB"
                    print(f"{stage:7}{variant:6}{result['seconds']:8.2f} s  {peak}", flush=True)
    print_medians(args, results)


def print_medians(args, results: dict) -> None:
    """Print a table of medians, then a JSON object; `results` are lists of measurements by stage and variant."""

    def medians(stage: str, key: str) -> list[float]:
        return [statistics.median(result[key] for result in results[stage, variant]) for variant in VARIANTS]

    # seconds and speedup of each stage
    seconds = {stage: medians(stage, "seconds") for stage in args.stages}
    print(f"\n{'':10}{'paper s':>10}{'ours s':>10}{'speedup':>10}")
    for stage, (paper, ours) in seconds.items():
        print(f"{stage:10}{paper:10.2f}{ours:10.2f}{paper / ours:10.2f}")

    # the same with memory, hardware and flags
    result = {"task_name": args.task_name, "threads": torch.get_num_threads(), "torch": torch.__version__}
    result |= hardware(device_of(args).type)
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

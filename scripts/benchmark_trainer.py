"""Time one rewind as one would write it with transformers' Trainer, against run_rewinding.py.

    python scripts/benchmark_trainer.py --task_name rte --data_dir datasets --model_path bert-base-uncased

"trainer" pads each batch to its longest row and runs the dense teacher in every step; "grouped" also groups rows of
similar lengths; "ours" is run_rewinding.py --teacher_sparsity 0. Models, rows, number of updates and of evaluations on
dev are the same, as benchmark.py prepares them: nothing is fine-tuned, and the metrics mean nothing. Loading and
tokenising are left out. Each measurement is a process of its own, the variants alternate, and medians are compared. The
last line printed is a JSON object. Takes the flags of benchmark.py, but --student_sparsity, --compile and --stages.
Needs the packages accelerate and transformers.
"""

import importlib.util
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch

from models.checkpoint import load_model
from models.losses import distillation_loss
from models.units import CheckpointError
from scripts import benchmark, export
from utils.entry import entry_point
from utils.errors import InputError
from utils.machine import hardware
from utils.metrics import compute_metrics
from utils.readers import read_split
from utils.recipe import Recipe
from utils.tasks import find_task
from utils.tokenizer import load_tokenizer

VARIANTS = ("trainer", "grouped", "ours")
LIBRARY = {"teacher_library": "teacher", "student_library": "trial"}  # copies for transformers' own classes


def prepare(args, folder: Path) -> None:
    """Write what benchmark.py prepares, and dense teacher and student in the form of transformers' own classes."""
    benchmark.prepare(args, folder)
    for name, source in LIBRARY.items():
        (folder / name).mkdir()
        export.write_huggingface(load_model(str(folder / source)), folder / name)
        load_tokenizer(str(folder / source)).save_pretrained(folder / name)


def rewind(args, folder: Path) -> dict[str, float]:
    """Run stage 5 at teacher sparsity 0: seconds for teacher logits and training, and numbers of what it did."""
    result = benchmark.rewinds(args, folder, "ours", "--teacher_sparsity", "0")["0"]
    seconds = result["train_seconds"] + result["teacher_seconds"]
    return {"seconds": seconds, "updates": result["updates"], "evaluations": len(result["history"])}


def rows_of(args, folder: Path, split: str, tokenizer) -> list[dict]:
    """The tokenised rows of a split, in the form that transformers' collator pads."""
    read = read_split(args.task_name, str(folder / "data"), split)
    encoded = tokenizer(read.first, read.second, truncation=True, max_length=args.max_length)
    columns = {**encoded, "labels": read.labels, "length": list(map(len, encoded["input_ids"]))}
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


def trainer_settings(args, folder: Path, updates: int, grouped: bool):
    """Settings of transformers' Trainer that are those of the rewind; `updates` of the whole training."""
    from transformers import TrainingArguments

    recipe = Recipe()
    return TrainingArguments(
        output_dir=str(folder / "trainer"),
        per_device_train_batch_size=benchmark.BATCH_SIZE,
        per_device_eval_batch_size=args.per_device_eval_batch_size,
        num_train_epochs=benchmark.EPOCHS,
        learning_rate=recipe.learning_rate,
        weight_decay=recipe.weight_decay,
        warmup_steps=int(updates * recipe.warmup_proportion),
        max_grad_norm=recipe.max_grad_norm,
        eval_strategy="steps",
        eval_steps=int((folder / "interval").read_text()),
        train_sampling_strategy="group_by_length" if grouped else "random",
        bf16=args.use_bf16,
        fp16=args.use_fp16,
        use_cpu=benchmark.device_of(args).type == "cpu",
        save_strategy="no",
        logging_strategy="no",
        disable_tqdm=True,
        report_to="none",
        seed=args.seed,
    )


def rewind_with_trainer(args, folder: Path, grouped: bool) -> dict[str, float]:
    """Train the student with transformers' Trainer: seconds of training, and numbers of what it did."""
    sys.modules["datasets"] = None  # else transformers takes the folder beside the scripts for the package of that name
    from transformers import (
        AutoModelForSequenceClassification,
        AutoTokenizer,
        DataCollatorWithPadding,
        Trainer,
    )

    task = find_task(args.task_name, args.data_dir)
    teacher, student = map(AutoModelForSequenceClassification.from_pretrained, (folder / name for name in LIBRARY))
    tokenizer = AutoTokenizer.from_pretrained(folder / "student_library")
    teacher.to(benchmark.device_of(args)).eval()

    class Distillation(Trainer):
        """The teacher runs on each batch."""

        def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
            batch = SimpleNamespace(labels=inputs.pop("labels"))
            outputs = model(**inputs)
            with torch.no_grad():
                teacher_logits = teacher(**inputs).logits
            loss = distillation_loss(outputs.logits, teacher_logits, batch, temperature=2.0, alpha=0.5).mean()
            return (loss, outputs) if return_outputs else loss

    train, dev = (rows_of(args, folder, split, tokenizer) for split in ("train", "dev"))
    updates = benchmark.EPOCHS * -(-len(train) // benchmark.BATCH_SIZE)
    trainer = Distillation(
        student,
        trainer_settings(args, folder, updates, grouped),
        data_collator=DataCollatorWithPadding(tokenizer),
        train_dataset=train,
        eval_dataset=dev,
        compute_metrics=lambda predicted: compute_metrics(task.metric, predicted.predictions, predicted.label_ids),
    )
    start = time.perf_counter()
    trainer.train()
    seconds = time.perf_counter() - start
    evaluations = sum("eval_runtime" in entry for entry in trainer.state.log_history)
    return {"seconds": seconds, "updates": trainer.state.global_step, "evaluations": evaluations}


@entry_point(CheckpointError)
def main(argv=None):
    argv = sys.argv[1:] if argv is None else argv
    args = benchmark.parse_args(argv)
    if importlib.util.find_spec("accelerate") is None:
        raise InputError("accelerate is missing, which transformers' Trainer needs: pip install accelerate")
    if args.student_sparsity is not None:
        raise InputError("--student_sparsity: transformers has no class for cut students, expected --student_layer")
    if args.compile or args.stages != benchmark.STAGES:
        raise InputError(f"--{'compile' if args.compile else 'stages'}: has no effect here")

    # a worker makes one measurement and prints it
    if args.worker:
        folder = Path(args.folder)
        ours = args.worker == "ours"
        result = rewind(args, folder) if ours else rewind_with_trainer(args, folder, args.worker == "grouped")
        print(json.dumps(result))
        return

    # the variants alternate, so that a drift of the machine's speed affects all
    seconds: dict[str, list[float]] = {variant: [] for variant in VARIANTS}
    with tempfile.TemporaryDirectory() as name:
        prepare(args, Path(name))
        for _ in range(args.repeats):
            for variant in VARIANTS:
                result = benchmark.measure(argv, Path(name), variant, __file__)
                seconds[variant].append(result["seconds"])
                done = f"{result['updates']} updates, {result['evaluations']} evaluations"
                print(f"{variant:8}{result['seconds']:8.2f} s  peak {result['peak_mb']:6.0f} MB  {done}", flush=True)

    medians = {variant: round(statistics.median(values), 2) for variant, values in seconds.items()}
    ratios = {f"{variant}_speedup": round(medians[variant] / medians["ours"], 2) for variant in VARIANTS[:-1]}
    facts = {"task_name": args.task_name, "threads": torch.get_num_threads(), "torch": torch.__version__}
    print(json.dumps({**facts, **hardware(benchmark.device_of(args).type), "seconds": medians, **ratios}))


if __name__ == "__main__":
    main()

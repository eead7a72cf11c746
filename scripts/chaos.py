"""Kills the stages of a small chain at random moments, types the same command again, and compares what comes out.

    bash scripts/chaos.sh --kills 20

The chain runs once undisturbed. Then it runs again and again in fresh folders, each stage killed with SIGKILL at a
random moment between its first file and its end, until there were enough kills. After each kill every file under its
final name must be whole; after each chain all metrics must equal, bit for bit, those of the undisturbed one.
"""

import argparse
import json
import multiprocessing
import os
import random
import signal
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
os.environ.update(HF_HUB_OFFLINE="1", TQDM_DISABLE="1", CUDA_VISIBLE_DEVICES="", TOKENIZERS_PARALLELISM="false")

import torch
from safetensors import safe_open

import run_distillation
import run_finetuning
import run_pruning
import run_rewinding
import run_sparsification
from scripts import make_miniature

QUICK = ["--num_train_epochs", "3", "--learning_rate", "3e-4", "--log_interval", "5", "--save_interval", "3"]
STAGES = {
    "finetune": (run_finetuning, ["--model_path", "../bert", *QUICK]),
    "prune": (run_pruning, []),
    "distil": (run_distillation, ["--student_layer", "2", *QUICK]),
    "stark": (run_sparsification, ["--student_layer", "2"]),
    "rewind": (run_rewinding, ["--student_layer", "2", "--teacher_sparsity", "0", "30", "60", "--do_test", *QUICK]),
}


def parse_args(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20, help="at least so many (default 20)")
    parser.add_argument("--seed", type=int, default=0, help="of the moments (default 0)")
    parser.add_argument("--train", type=int, default=400, help="rows of the training set (default 400)")
    return parser.parse_args(argv)


def start(folder: Path, stage: str) -> multiprocessing.Process:
    """The stage in a process of its own, forked so that it begins with all packages imported."""
    process = multiprocessing.get_context("fork").Process(target=_run, args=(folder, stage))
    process.start()
    return process


def _run(folder: Path, stage: str) -> None:
    os.chdir(folder)
    sys.stdout = open(folder / f"{stage}.out", "a", encoding="utf-8")  # noqa: SIM115, until the process ends
    script, flags = STAGES[stage]
    script.main(["--data_dir", "../datasets", *flags])


def undisturbed(folder: Path) -> dict[str, float]:
    """Run the chain, and say how many seconds each stage took."""
    folder.mkdir()
    seconds = {}
    for stage in STAGES:
        begin = time.monotonic()
        process = start(folder, stage)
        process.join()
        if process.exitcode:
            sys.exit(f"error: {stage} failed: {(folder / f'{stage}.out').read_text()[-2000:]}")
        seconds[stage] = time.monotonic() - begin
    return seconds


def disturbed(folder: Path, seconds: dict[str, float], rng: random.Random) -> int:
    """Run the chain, killing each stage now and then, and count the kills."""
    folder.mkdir()
    kills = 0
    for stage in STAGES:
        patience = seconds[stage]
        while True:
            process = start(folder, stage)
            process.join(rng.uniform(0.05, patience))
            patience *= 1.2  # stages that start from the beginning each time must get to their end, too
            if process.exitcode is not None:
                break
            os.kill(process.pid, signal.SIGKILL)
            process.join()
            kills += 1
            check_whole(folder)
        if process.exitcode:
            sys.exit(f"error: {stage}, started again, left with status {process.exitcode}")
    return kills


def check_whole(folder: Path) -> None:
    """Read every file that has its final name; one that cannot be read ends the program."""
    for path in (folder / "outputs").rglob("*"):
        hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
        if hidden or not path.is_file():
            continue
        try:
            if path.suffix == ".json":
                json.loads(path.read_text(encoding="utf-8"))
            elif path.suffix == ".safetensors":
                with safe_open(path, "pt") as tensors:
                    [tensors.get_tensor(name) for name in tensors.keys()]  # noqa: SIM118, no mapping
        except Exception as error:
            sys.exit(f"error: {path} is there and cannot be read: {error}")


def results(folder: Path) -> dict[str, object]:
    """All metrics and submissions by path, without the seconds they took."""

    def without_seconds(value: object) -> object:
        if isinstance(value, dict):
            return {key: without_seconds(item) for key, item in value.items() if "seconds" not in key}
        return value

    found = {path: without_seconds(json.loads(path.read_text())) for path in (folder / "outputs").rglob("metrics.json")}
    found |= {path: path.read_text() for path in (folder / "outputs").rglob("*.tsv")}
    return {str(path.relative_to(folder)): content for path, content in found.items()}


def main(argv=None):
    args = parse_args(argv)
    torch.set_num_threads(1)  # in a process that has used two, a forked one would wait for the second for ever
    rng, kills, chains = random.Random(args.seed), 0, 0
    with tempfile.TemporaryDirectory() as name:
        root = Path(name).resolve()
        os.environ["XDG_CACHE_HOME"] = str(root / "cache")
        make_miniature.main(["--dir", str(root), "--train", str(args.train), "--dev", "100", "--test", "20"])
        seconds = undisturbed(root / "undisturbed")
        wanted = results(root / "undisturbed")
        while kills < args.kills:
            chains += 1
            folder = root / f"chain_{chains}"
            kills += disturbed(folder, seconds, rng)
            if (found := results(folder)) != wanted:
                differing = [path for path in {*wanted, *found} if wanted.get(path) != found.get(path)]
                sys.exit(f"error: after {kills} kills other results than undisturbed: {', '.join(sorted(differing))}")
            print(f"{kills} kills: the same {len(wanted)} results as undisturbed", flush=True)


if __name__ == "__main__":
    main()

"""Stops the stages of a small chain, types the same command again, and compares what comes out.

    bash scripts/chaos.sh --kills 20 --stops 40
    bash scripts/chaos.sh --kills 0 --all            # every stop of every scenario

The chain runs once undisturbed. Then stages are stopped in fresh folders, in two ways. --kills ends each stage of the
chain by SIGKILL at random moments between its first file and its end, again and again. --stops takes scenarios (a first
run, several runs in one folder, overwriting) and stops the run right before one of its changes of the disk, by SIGKILL,
SIGTERM or SIGINT; with --all, before each of them in turn. After each stop every file under its final name must be
whole, and no number may be seen under settings that are not its own; when the same command has come to its end, all
metrics and predictions must equal, bit for bit, those of undisturbed runs, what was saved before must not have been
computed again, and nothing else may be left.
"""

import argparse
import contextlib
import os
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
os.environ.update(HF_HUB_OFFLINE="1", TQDM_DISABLE="1", CUDA_VISIBLE_DEVICES="", TOKENIZERS_PARALLELISM="false")

import torch

import run_distillation
import run_finetuning
import run_pruning
import run_rewinding
import run_sparsification
from scripts import make_miniature, stops
from scripts.stops import STATUS, Command, Fault, Stop

QUICK = ["--num_train_epochs", "3", "--learning_rate", "3e-4", "--log_interval", "5", "--save_interval", "3"]
FINETUNE = Command(run_finetuning, ["--model_path", "../bert", "--do_test", *QUICK])
REWIND = Command(run_rewinding, ["--student_layer", "2", "--do_test", *QUICK])
SPARSITIES = ("0", "30", "60")


def rewind(*flags: str) -> Command:
    """Rewinding at these teacher sparsities, with what other flags there are behind them."""
    return REWIND._replace(flags=[*REWIND.flags, "--teacher_sparsity", *flags])


CHAIN = [
    FINETUNE,
    Command(run_pruning, []),
    Command(run_distillation, ["--student_layer", "2", *QUICK]),
    Command(run_sparsification, ["--student_layer", "2"]),
    rewind(*SPARSITIES),
]


class Scenario(NamedTuple):
    """Commands that run side by side, of which the first is stopped."""

    missing: str  # what is not there of the chain's outputs when they begin
    commands: list[Command]
    overwritten: tuple[str, ...] = ()  # checkpoints, by the first


REWOUND = tuple(f"ckpt_{sparsity}" for sparsity in SPARSITIES)
SCENARIOS = {
    "finetune": Scenario(".", [FINETUNE]),
    "rewind": Scenario("rewind", [rewind(*SPARSITIES)]),
    "spread": Scenario("rewind", [rewind(sparsity) for sparsity in SPARSITIES]),
    "overwrite_finetune": Scenario("prune", [FINETUNE._replace(flags=[*FINETUNE.flags, "--overwrite"])], ("ckpt",)),
    "reseed_finetune": Scenario(
        "prune", [FINETUNE._replace(flags=[*FINETUNE.flags, "--overwrite", "--seed", "2"])], ("ckpt",)
    ),
    "overwrite_rewind": Scenario("prune", [rewind(*SPARSITIES, "--overwrite")], REWOUND),
    # one of the sparsities is left with the earlier seed, and must not be seen with the new one's
    "reseed_rewind": Scenario("prune", [rewind(*SPARSITIES[:2], "--overwrite", "--seed", "2")], REWOUND[:2]),
}


class Undisturbed(NamedTuple):
    """A scenario when nothing stops it."""

    folder: Path  # what it comes to
    before: Path  # where it begins
    truth: dict[tuple, Any]  # what may be shown, as stops.shown has it
    changes: int  # of the disk, by the first command


def parse_args(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--kills", type=int, default=20, help="of the chain at random moments, at least so many (default 20)")
    add("--stops", type=int, default=40, help="at changes of the disk, drawn from all scenarios (default 40)")
    add("--all", action="store_true", help="stop at every change of every scenario instead, by each signal")
    add("--only", nargs="+", choices=SCENARIOS, default=list(SCENARIOS), help="scenarios (default all)")
    add("--seed", type=int, default=0, help="of the moments (default 0)")
    add("--train", type=int, default=200, help="rows of the training set (default 200)")
    add("--dir", type=Path, help="new folder to work in, which stays (default a temporary one)")
    return parser.parse_args(argv)


def run_chain(folder: Path) -> list[float]:
    """Run the chain undisturbed, and say how many seconds each stage took."""
    folder.mkdir()
    seconds = []
    for command in CHAIN:
        begin = time.monotonic()
        stops.run(folder, command)
        seconds.append(time.monotonic() - begin)
    return seconds


def kill_chain(folder: Path, undisturbed: Path, seconds: list[float], rng: random.Random) -> int:
    """Run the chain, killing each stage now and then, and count the kills."""
    folder.mkdir()
    kills, truth = 0, stops.shown(undisturbed)
    for command, patience in zip(CHAIN, seconds, strict=True):
        weights = {}
        while True:
            process = stops.start(folder, command)
            status = process.wait(rng.uniform(0.05, patience))
            patience *= 1.2  # stages that start from the beginning each time must get to their end, too
            if status is not None:
                break
            process.kill()
            kills += 1
            stops.check_whole(folder)
            stops.check_shown(folder, truth)
            weights |= stops.saved(folder, undisturbed, {}).weights
        if status:
            raise Fault(f"{command.script.__name__}, started again, left with status {status}")
        stops.check_kept(folder, stops.Saved(weights, {}, {}))
    stops.check_end(folder, undisturbed)
    return kills


def prepare(name: str, chain: Path, root: Path) -> Undisturbed:
    """Run a scenario undisturbed."""
    scenario, folder, before = SCENARIOS[name], root / name, root / f"before_{name}"
    shutil.copytree(chain, before)
    shutil.rmtree(before / "outputs" / scenario.missing)
    shutil.copytree(before, folder)
    changes = stops.run(folder, *scenario.commands)
    truth = {**stops.shown(before), **stops.shown(folder)}
    return Undisturbed(folder, before, truth, changes)


def stop_once(folder: Path, scenario: Scenario, undisturbed: Undisturbed, stop: Stop) -> None:
    """Stop a scenario's first command at one moment, and see what it comes to when it is typed again.

    Raises:
        Fault: something is not as it must be.
    """
    shutil.copytree(undisturbed.before, folder)
    before = stops.written(folder)
    first, *others = scenario.commands
    beside = [stops.start(folder, command) for command in others]
    status = stops.start(folder, first, stop).wait()
    if any(process.wait() for process in beside):
        raise Fault("one of the others, which was not stopped, failed")
    # beside others it may have less to do than when it was counted
    if status != STATUS[stop.number] and not (others and status == 0):
        raise Fault(f"it left with status {status}, expected {STATUS[stop.number]}")
    stops.check_whole(folder)
    stops.check_shown(folder, undisturbed.truth)
    at_stop = stops.saved(folder, undisturbed.folder, before, scenario.overwritten)
    stops.run(folder, first)
    stops.check_kept(folder, at_stop)
    stops.check_end(folder, undisturbed.folder)


def moments(undisturbed: Undisturbed) -> Iterator[Stop]:
    """All stops that there are."""
    for number in STATUS:
        for change in range(1, undisturbed.changes + 1):
            yield Stop(change, number)
        yield Stop(undisturbed.changes, number, is_after=True)


def drawn(scenarios: dict[str, Undisturbed], args: argparse.Namespace, rng: random.Random) -> list[tuple[str, Stop]]:
    """Which scenarios are stopped where: all stops, or as many as asked for, spread over the scenarios."""
    found = {name: list(moments(undisturbed)) for name, undisturbed in scenarios.items()}
    if args.all:
        return [(name, stop) for name, all_stops in found.items() for stop in all_stops]
    names = [list(found)[index % len(found)] for index in range(args.stops)]
    return [(name, rng.choice(found[name])) for name in names]


def work(root: Path, args: argparse.Namespace) -> int:
    """Do all that was asked for, and count the faults, which are printed."""
    rng, kills, faults = random.Random(args.seed), 0, 0
    make_miniature.main(["--dir", str(root), "--train", str(args.train), "--dev", "100", "--test", "20"])
    chain = root / "undisturbed"
    seconds = run_chain(chain)
    while kills < args.kills:
        folder = root / f"chain_{kills}"
        kills += kill_chain(folder, chain, seconds, rng)
        shutil.rmtree(folder)
        print(f"{kills} kills: the same as undisturbed", flush=True)
    scenarios = {name: prepare(name, chain, root) for name in args.only if args.stops or args.all}
    begin, planned = time.monotonic(), drawn(scenarios, args, rng)
    for index, (name, stop) in enumerate(planned):
        folder = root / f"stop_{index}"
        try:
            stop_once(folder, SCENARIOS[name], scenarios[name], stop)
            shutil.rmtree(folder)
        except Fault as fault:
            faults += 1
            print(f"fault: {name}, {stop}: {fault}", flush=True)
    print(f"{len(planned)} stops in {time.monotonic() - begin:.0f} s: {faults or 'no'} faults", flush=True)
    return faults


def main(argv=None):
    args = parse_args(argv)
    torch.set_num_threads(1)  # in a process that has used two, a forked one would wait for the second for ever
    with contextlib.ExitStack() as stack:
        if args.dir:
            args.dir.mkdir(parents=True)
        root = (args.dir or Path(stack.enter_context(tempfile.TemporaryDirectory()))).resolve()
        os.environ["XDG_CACHE_HOME"] = str(root / "cache")
        if work(root, args):
            sys.exit(1)


if __name__ == "__main__":
    main()

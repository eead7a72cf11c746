"""Stops the stages of a small chain, types the same command again, and compares what comes out.

    bash scripts/chaos.sh --kills 20 --stops 40
    bash scripts/chaos.sh --kills 0 --all            # every stop of every scenario

The chain runs once undisturbed. Then stages are stopped in fresh folders, in three ways. --kills ends each stage of the
chain by SIGKILL at random moments between its first file and its end, again and again. --stops takes scenarios (a first
run, several runs in one folder, overwriting) and stops the run right before one of its changes of the disk, by SIGKILL,
SIGTERM or SIGINT, and once more while it goes on; with --all, once before each change, by each signal. --sweeps stops
scripts/sweep.py, with its jobs or without them.

After each stop every file under its final name must be whole, and no number may be seen under settings that are not
its own. When the same command has come to its end, all metrics and predictions must equal, bit for bit, those of
undisturbed runs, what was saved before must not have been computed again, and nothing else may be left.
"""

import argparse
import contextlib
import itertools
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
from scripts import make_miniature, stops, sweep_stops
from scripts.stops import STATUS, Command, Fault, Stop
from utils.paths import checkpoint_name

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


REWOUND = tuple(checkpoint_name(int(sparsity)) for sparsity in SPARSITIES)
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
    "reseed_spread": Scenario(
        "prune", [rewind(sparsity, "--overwrite", "--seed", "2") for sparsity in SPARSITIES], REWOUND[:1]
    ),
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
    add("--kills", type=int, default=20, help="of the chain's stages at random moments (default 20)")
    add("--stops", type=int, default=40, help="at changes of the disk, drawn from all scenarios (default 40)")
    add("--all", action="store_true", help="stop at every change of every scenario instead, by each signal")
    add(
        "--sweeps",
        type=int,
        default=0,
        help="of scripts/sweep.py at random moments, a minute or so for each (default 0)",
    )
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


def kill_chain(folder: Path, undisturbed: Path, seconds: list[float], wanted: int, rng: random.Random) -> int:
    """Run the chain, killing each stage now and then until there were enough kills, and count them."""
    folder.mkdir()
    kills, truth = 0, stops.shown(undisturbed)
    for command, patience in zip(CHAIN, seconds, strict=True):
        weights, status = {}, None
        while kills < wanted and status is None:
            process = stops.start(folder, command)
            status = process.wait(rng.uniform(0.05, patience))
            patience *= 1.2  # stages that start from the beginning each time must get to their end, too
            if status is None:
                process.kill()
                kills += 1
                stops.check_whole(folder)
                stops.check_shown(folder, truth)
                weights |= stops.saved(folder, undisturbed, {}).weights
        if status:
            raise Fault(f"{command.script.__name__}, started again, left with status {status}")
        if status is None:
            stops.run(folder, command)
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


def stop_often(folder: Path, scenario: Scenario, undisturbed: Undisturbed, planned: list[Stop]) -> int:
    """Stop a scenario's first command at these moments, one after the other, then let it come to its end.

    Returns how often it was stopped: beside others, or the second time, it may have too little to do.

    Raises:
        Fault: something is not as it must be.
    """
    shutil.copytree(undisturbed.before, folder)
    before, kept, count = stops.written(folder), stops.Saved({}, {}, {}), 0
    first, *others = scenario.commands
    beside = [stops.start(folder, command) for command in others]
    for stop in planned:
        status = stops.start(folder, first, stop).wait()
        if any(process.wait() for process in beside):
            raise Fault("one of the others, which was not stopped, failed")
        if status != STATUS[stop.number] and not (status == 0 and (others or count)):
            raise Fault(f"{stop}: it left with status {status}, expected {STATUS[stop.number]}")
        count += status != 0
        stops.check_whole(folder)
        stops.check_shown(folder, undisturbed.truth)
        stops.check_kept(folder, kept._replace(updates={}))
        kept = stops.saved(folder, undisturbed.folder, before, scenario.overwritten)
    stops.run(folder, first)
    stops.check_kept(folder, kept)
    stops.check_end(folder, undisturbed.folder)
    return count


def moments(undisturbed: Undisturbed) -> Iterator[Stop]:
    """All stops that there are."""
    for number in STATUS:
        for change in range(1, undisturbed.changes + 1):
            yield Stop(change, number)
        yield Stop(undisturbed.changes, number, is_after=True)


def drawn(
    scenarios: dict[str, Undisturbed], args: argparse.Namespace, rng: random.Random
) -> Iterator[tuple[str, list[Stop]]]:
    """Which scenarios are stopped where: once at each moment, or twice at random ones until there are enough."""
    if args.all:
        for name, undisturbed in scenarios.items():
            yield from ((name, [stop]) for stop in moments(undisturbed))
        return
    for _, name in zip(range(0, args.stops, 2), itertools.cycle(scenarios), strict=False):
        stop, number = rng.choice(list(moments(scenarios[name]))), rng.choice(list(STATUS))
        left = max(1, scenarios[name].changes - stop.change)  # about as many as when it goes on
        yield name, [stop, Stop(rng.randint(1, left), number)]


def work(root: Path, args: argparse.Namespace) -> int:
    """Do all that was asked for, and count the faults, which are printed."""
    rng, kills, faults = random.Random(args.seed), 0, 0
    make_miniature.main(["--dir", str(root), "--train", str(args.train), "--dev", "100", "--test", "20"])
    chain = root / "undisturbed"
    seconds = run_chain(chain)
    while kills < args.kills:
        folder = root / f"chain_{kills}"
        kills += kill_chain(folder, chain, seconds, args.kills - kills, rng)
        shutil.rmtree(folder)
        print(f"{kills} kills: the same as undisturbed", flush=True)
    scenarios = {name: prepare(name, chain, root) for name in args.only if args.stops or args.all}
    begin, count = time.monotonic(), 0
    for index, (name, planned) in enumerate(drawn(scenarios, args, rng)):
        folder = root / f"stop_{index}"
        try:
            count += stop_often(folder, SCENARIOS[name], scenarios[name], planned)
            shutil.rmtree(folder)
        except Fault as fault:
            faults += 1
            print(f"fault: {name}, {', then '.join(map(str, planned))}: {fault}", flush=True)
    for fault in sweep_stops.run(root, args.sweeps, rng, QUICK) if args.sweeps else ():
        faults += 1
        print(f"fault: sweep: {fault}", flush=True)
    print(f"{count} stops in {time.monotonic() - begin:.0f} s: {faults or 'no'} faults", flush=True)
    return faults


def main(argv=None):
    args = parse_args(argv)
    torch.set_num_threads(1)  # in a process that has used two, a forked one would wait for the second for ever
    with contextlib.ExitStack() as stack:
        if args.dir:
            args.dir.mkdir(parents=True)
        root = (args.dir or Path(stack.enter_context(tempfile.TemporaryDirectory()))).resolve()
        os.environ["XDG_CACHE_HOME"] = str(root / "cache")
        try:
            faults = work(root, args)
        except Fault as fault:
            sys.exit(f"fault: {fault}")
    if faults:
        sys.exit(1)


if __name__ == "__main__":
    main()

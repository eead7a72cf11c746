"""Stop the stages of a small chain at many moments, run the same commands again, and compare the results.

    bash scripts/chaos.sh --kills 20 --stops 40
    bash scripts/chaos.sh --kills 0 --all            # every stop of every scenario

The chain runs once undisturbed. Then stages are stopped in fresh folders. --kills sends SIGKILL to each stage of the
chain at random moments, repeatedly. --stops takes scenarios (a first run, several runs in one folder, overwriting) and
stops the run right before one of its changes of the disk, by SIGKILL, SIGTERM or SIGINT, and once more after it was
started again; with --all, once before each change, by each signal. --sweeps stops scripts/sweep.py, with its jobs or
without them.

After each stop every file under its final name must be complete, and no number may be shown under the settings of
another run. When the same command has finished, all metrics and predictions must equal those of undisturbed runs, bit
for bit; what was saved must not have been computed again; and no other file may be left.
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
    """A command of stage 5; `flags` are teacher sparsities, followed by any other flags."""
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

    missing: str  # folder below outputs/ that is removed from the finished chain before they start
    commands: list[Command]
    overwritten: tuple[str, ...] = ()  # checkpoints that the first command overwrites


REWOUND = tuple(checkpoint_name(int(sparsity)) for sparsity in SPARSITIES)
SCENARIOS = {
    "finetune": Scenario(".", [FINETUNE]),
    "rewind": Scenario("rewind", [rewind(*SPARSITIES)]),
    "spread": Scenario("rewind", [rewind(sparsity) for sparsity in SPARSITIES]),
    "halve": Scenario("rewind", [rewind(*SPARSITIES, "--halving")]),
    "overwrite_finetune": Scenario("prune", [FINETUNE._replace(flags=[*FINETUNE.flags, "--overwrite"])], ("ckpt",)),
    "reseed_finetune": Scenario(
        "prune", [FINETUNE._replace(flags=[*FINETUNE.flags, "--overwrite", "--seed", "2"])], ("ckpt",)
    ),
    "overwrite_rewind": Scenario("prune", [rewind(*SPARSITIES, "--overwrite")], REWOUND),
    # one of the sparsities keeps the earlier seed, and its metrics must not be shown under the new one
    "reseed_rewind": Scenario("prune", [rewind(*SPARSITIES[:2], "--overwrite", "--seed", "2")], REWOUND[:2]),
    "reseed_spread": Scenario(
        "prune", [rewind(sparsity, "--overwrite", "--seed", "2") for sparsity in SPARSITIES], REWOUND[:1]
    ),
}


class Undisturbed(NamedTuple):
    """A scenario that ran without a stop."""

    folder: Path  # its outputs
    before: Path  # the folder that it started from
    truth: dict[tuple, Any]  # the numbers that may be shown, as stops.shown returns them
    changes: int  # of the disk, by the first command


def parse_args(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--kills", type=int, default=20, help="of the chain's stages at random moments (default 20)")
    add("--stops", type=int, default=40, help="at changes of the disk, drawn from all scenarios (default 40)")
    add("--all", action="store_true", help="stop at every change of every scenario instead, by each signal")
    add("--sweeps", type=int, default=0, help="stops of scripts/sweep.py, a minute or so for each (default 0)")
    add("--only", nargs="+", choices=SCENARIOS, default=list(SCENARIOS), help="scenarios (default all)")
    add("--seed", type=int, default=0, help="of the moments (default 0)")
    add("--train", type=int, default=200, help="rows of the training set (default 200)")
    add("--dir", type=Path, help="new folder to work in, which stays (default a temporary one)")
    return parser.parse_args(argv)


def run_chain(folder: Path) -> list[float]:
    """Run the chain undisturbed; the seconds that each stage took."""
    folder.mkdir()
    seconds = []
    for command in CHAIN:
        start = time.monotonic()
        stops.run(folder, command)
        seconds.append(time.monotonic() - start)
    return seconds


def kill_chain(folder: Path, undisturbed: Path, seconds: list[float], limit: int, rng: random.Random) -> int:
    """Run the chain, killing each stage at random moments, at most `limit` times in all; the number of kills.

    Args:
        seconds: that each stage takes undisturbed.

    Raises:
        Fault: a check after a kill or at the end has failed.
    """
    folder.mkdir()
    kills = 0
    truth = stops.shown(undisturbed)
    for command, longest in zip(CHAIN, seconds, strict=True):
        # kill the stage again and again, each time after a random part of its duration
        weights = {}
        status = None
        while kills < limit and status is None:
            process = stops.start(folder, command)
            status = process.wait(rng.uniform(0.05, longest))
            longest *= 1.2  # a stage that cannot resume must finish at some time
            if status is None:
                process.kill()
                kills += 1
                stops.check_whole(folder)
                stops.check_shown(folder, truth)
                weights |= stops.saved(folder, undisturbed, {}).weights
        if status:
            raise Fault(f"{command.script.__name__}, started again, left with status {status}")

        # let it finish, if it has not yet
        if status is None:
            stops.run(folder, command)
        stops.check_not_recomputed(folder, stops.Saved(weights, {}, {}))
    stops.check_end(folder, undisturbed)
    return kills


def prepare(name: str, chain: Path, root: Path) -> Undisturbed:
    """Run a scenario undisturbed, in a copy of the chain's folder without the outputs that it makes."""
    scenario = SCENARIOS[name]
    folder = root / name
    before = root / f"before_{name}"
    shutil.copytree(chain, before)
    shutil.rmtree(before / "outputs" / scenario.missing)
    shutil.copytree(before, folder)
    changes = stops.run(folder, *scenario.commands)
    truth = {**stops.shown(before), **stops.shown(folder)}
    return Undisturbed(folder, before, truth, changes)


def stop_often(folder: Path, scenario: Scenario, undisturbed: Undisturbed, planned: list[Stop]) -> int:
    """Stop a scenario's first command at these moments, one after the other, then let it finish.

    Returns the number of stops: beside other commands, or when resuming, it may finish before the planned moment.

    Raises:
        Fault: a check after a stop or at the end has failed.
    """
    shutil.copytree(undisturbed.before, folder)
    before = stops.written(folder)
    saved = stops.Saved({}, {}, {})
    count = 0
    first, *others = scenario.commands
    processes = [stops.start(folder, command) for command in others]
    for stop in planned:
        # run the command until it stops itself, and the others to their end
        status = stops.start(folder, first, stop).wait()
        if any(process.wait() for process in processes):
            raise Fault("one of the others, which was not stopped, failed")
        if status != STATUS[stop.number] and not (status == 0 and (others or count)):
            raise Fault(f"{stop}: it left with status {status}, expected {STATUS[stop.number]}")
        count += status != 0

        # all that is there must be valid, and what was there before must be there yet
        stops.check_whole(folder)
        stops.check_shown(folder, undisturbed.truth)
        stops.check_not_recomputed(folder, saved._replace(updates={}))
        saved = stops.saved(folder, undisturbed.folder, before, scenario.overwritten)
    stops.run(folder, first)
    stops.check_not_recomputed(folder, saved)
    stops.check_end(folder, undisturbed.folder)
    return count


def moments(undisturbed: Undisturbed) -> Iterator[Stop]:
    """All possible stops of a scenario's first command."""
    for number in STATUS:
        for change in range(1, undisturbed.changes + 1):
            yield Stop(change, number)
        yield Stop(undisturbed.changes, number, is_after=True)


def drawn(
    scenarios: dict[str, Undisturbed], args: argparse.Namespace, rng: random.Random
) -> Iterator[tuple[str, list[Stop]]]:
    """Scenario and its stops, many times: one stop at each moment with --all, else two at random, --stops in all."""
    if args.all:
        for name, undisturbed in scenarios.items():
            yield from ((name, [stop]) for stop in moments(undisturbed))
        return
    for _, name in zip(range(0, args.stops, 2), itertools.cycle(scenarios), strict=False):
        first = rng.choice(list(moments(scenarios[name])))
        number = rng.choice(list(STATUS))
        remaining = max(1, scenarios[name].changes - first.change)  # about as many as the resumed command makes
        yield name, [first, Stop(rng.randint(1, remaining), number)]


def work(root: Path, args: argparse.Namespace) -> int:
    """Make all stops that the flags specify, print the faults, and return their number."""
    rng = random.Random(args.seed)
    kills = faults = 0
    make_miniature.main(["--dir", str(root), "--train", str(args.train), "--dev", "100", "--test", "20"])
    chain = root / "undisturbed"
    seconds = run_chain(chain)

    # --kills: the chain anew, until there were enough
    while kills < args.kills:
        folder = root / f"chain_{kills}"
        kills += kill_chain(folder, chain, seconds, args.kills - kills, rng)
        shutil.rmtree(folder)
        print(f"{kills} kills: the same as undisturbed", flush=True)

    # --stops or --all: each in a folder of its own, which stays if there is a fault
    scenarios = {name: prepare(name, chain, root) for name in args.only if args.stops or args.all}
    start = time.monotonic()
    count = 0
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
    print(f"{count} stops in {time.monotonic() - start:.0f} s: {faults or 'no'} faults", flush=True)
    return faults


def main(argv=None):
    args = parse_args(argv)
    torch.set_num_threads(1)  # a fork of a process with two would wait for the second for ever
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

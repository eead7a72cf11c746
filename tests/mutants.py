"""Break lines of the project at random, one at a time, and list those that no test notices. Run by hand, not in CI.

    python tests/mutants.py --count 50 --seed 1                       # over all of the code
    python tests/mutants.py --count 20 models/scores.py run_*.py      # over these files
    python tests/mutants.py --only models/scores.py:69                # all that can be done to a line

Each mutant runs, in a copy of the tree, the tests that run its line, the fastest first, until one fails. Which tests
run which lines is found out once for each state of the code (as long as the whole suite takes, twice) and kept in the
system's folder for temporary files. torch, transformers and pytest are imported once; each mutant is a fork.
"""

import argparse
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from mutations import Mutant, mutants_of

os.environ |= {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
sys.dont_write_bytecode = True  # a mutant may be as long, and as old, as the file before

ROOT = Path(__file__).resolve().parent.parent
CACHE = Path(tempfile.gettempdir(), "stark-mutants")
PATTERNS = (  # files to change by default
    "models/*.py",
    "utils/*.py",
    "stage.py",
    "run_*.py",
    *(f"scripts/{name}.py" for name in ("report_data", "sweep", "sweep_grid", "sweep_jobs", "submission")),
)
LONGEST = 20  # seconds that a test may take of a mutant, besides ten times what it took before


class Found(NamedTuple):
    """How long a test takes, and which lines of which files it runs."""

    seconds: float
    lines: dict[str, list[int]]
    shared: bool  # whether it uses what another test of its file has made
    starts_others: bool  # whether it starts processes, which may run other lines


def copied(name: str) -> Path:
    """A copy of what git knows of the tree."""
    tree = CACHE / f"{name}-{os.getpid()}"
    shutil.rmtree(tree, ignore_errors=True)
    for file in subprocess.check_output(["git", "ls-files"], cwd=ROOT, text=True).split("\n")[:-1]:
        (tree / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / file, tree / file)
    return tree


class Observe:
    """A plugin that notes which lines each test runs, in its own process."""

    options = ()

    def __init__(self, tree: Path, target: Path):
        self.tree, self.target, self.found, self.failed = f"{tree}/", target, {}, set()
        self.started: list[str] = []

    def pytest_sessionstart(self):
        sys.addaudithook(self.notice)

    def notice(self, event: str, arguments: tuple) -> None:
        if event == "os.fork" or (event == "subprocess.Popen" and Path(arguments[0]).name != "git"):
            self.started.append(event)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item):
        ran, start = set(), time.perf_counter()
        self.started.clear()

        def in_function(frame, event, _):
            ran.add((frame.f_code.co_filename, frame.f_lineno))
            return in_function

        def called(frame, event, _):
            name = frame.f_code.co_filename
            return in_function if name.startswith(self.tree) and not name.startswith(f"{self.tree}tests/") else None

        sys.settrace(called)
        try:
            return (yield)
        finally:
            sys.settrace(None)
            lines: dict[str, list[int]] = {}
            for name, number in sorted(ran):
                lines.setdefault(name.removeprefix(self.tree), []).append(number)
            seconds = round(time.perf_counter() - start, 3)
            self.found[item.nodeid] = Found(seconds, lines, "run" in item.fixturenames, bool(self.started))

    def pytest_runtest_logreport(self, report):
        if report.failed:
            self.failed.add(report.nodeid)
            print("fails without any mutant, left out:", report.nodeid)

    def pytest_sessionfinish(self):
        self.target.write_text(json.dumps({test: one for test, one in self.found.items() if test not in self.failed}))


class Select:
    """A plugin that runs these tests only, in this order, until one fails."""

    options = ("-x",)

    def __init__(self, tests: list[str], found: dict[str, Found]):
        self.order = {name: index for index, name in enumerate(tests)}
        self.found = found

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item):
        signal.signal(signal.SIGALRM, lambda *_: os._exit(1))
        signal.alarm(round(LONGEST + 10 * self.found[item.nodeid].seconds))
        yield
        signal.alarm(0)
        return True

    def pytest_collection_modifyitems(self, items):
        items[:] = sorted((item for item in items if item.nodeid in self.order), key=lambda i: self.order[i.nodeid])


def forked(tree: Path, files: set[str], plugin: object, log: Path) -> int:
    """Run tests of a tree in a process of their own; its id."""
    if process := os.fork():
        return process
    os.setsid()  # so that all it starts can be ended with it
    signal.signal(signal.SIGINT, signal.default_int_handler)  # which a shell takes from what it starts with &
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.chdir(tree)
    sys.path[:] = [
        str(tree),
        str(tree / "tests"),
        *(path for path in sys.path if path not in (str(ROOT), f"{ROOT}/tests")),
    ]
    options = ["-q", "--tb=line", "-p", "no:cacheprovider", f"--basetemp={tree}.tmp", f"--rootdir={tree}"]
    status = pytest.main([*options, *plugin.options, *sorted(files)], plugins=[plugin])
    sys.stdout.flush()
    os._exit(int(status))


def pool(jobs: int, work: Iterator[tuple[object, Callable[[Path], int], float]]) -> Iterator[tuple[object, int]]:
    """Start processes, so many at once; each work's name and exit status, -1 of one that had to be ended."""
    trees, running = [copied(f"tree{index}") for index in range(jobs)], {}
    waiting = iter(work)
    while True:
        while trees and (following := next(waiting, None)):
            name, start, seconds = following
            tree = trees.pop()
            running[start(tree)] = name, tree, time.monotonic() + seconds
        if not running:
            break
        time.sleep(0.05)
        for process, (name, tree, end) in list(running.items()):
            done, status = os.waitpid(process, os.WNOHANG)
            late = time.monotonic() > end
            if done or late:
                os.killpg(process, signal.SIGKILL) if late and not done else None
                if not done:
                    os.waitpid(process, 0)
                del running[process]
                trees.append(tree)
                yield name, os.waitstatus_to_exitcode(status) if done else -1
    for tree in trees:
        shutil.rmtree(tree, ignore_errors=True)
        shutil.rmtree(f"{tree}.tmp", ignore_errors=True)


def coverage(jobs: int) -> dict[str, Found]:
    """Test -> the lines it runs; found out anew for the test files of which, or of the code, something has changed."""
    files = sorted({*ROOT.glob("*.py"), *ROOT.glob("*/*.py"), *ROOT.glob("scripts/*.sh")})
    tests = [file for file in files if file.match("tests/test_*.py")]
    code = b"".join(file.read_bytes() for file in files if file not in tests and not file.name.startswith("muta"))
    entries = {file.name: CACHE / f"{hashlib.sha256(code + file.read_bytes()).hexdigest()[:24]}.json" for file in tests}

    def work():
        for name, entry in entries.items():
            if not entry.is_file():
                log = CACHE / f"{name}.log"
                yield (
                    name,
                    lambda tree, n=name, e=entry, g=log: forked(tree, {f"tests/{n}"}, Observe(tree, e), g),
                    1800.0,
                )

    for name, status in pool(jobs, work()):
        print(f"lines of {name} noted, status {status}", flush=True)
    return {test: Found(*found) for entry in entries.values() for test, found in json.loads(entry.read_text()).items()}


def noticing(mutant: Mutant, found: dict[str, Found]) -> list[str]:
    """The tests that could notice a mutant, the fastest first, and at last those whose lines are not all known."""
    ran = {test: set(one.lines.get(mutant.path, ())) for test, one in found.items()}
    direct = {test for test, lines in ran.items() if lines and (mutant.lines is None or lines & {*mutant.lines})}
    with_shared = {test.split("::")[0] for test in direct if found[test].shared}
    direct |= {test for test, one in found.items() if one.shared and test.split("::")[0] in with_shared}
    others = {test for test, one in found.items() if one.starts_others} - direct
    return [test for part in (direct, others) for test in sorted(part, key=lambda test: found[test].seconds)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("paths", nargs="*", help="files to change (default all of the code)")
    parser.add_argument("--count", type=int, default=50, help="how many mutants are drawn (default 50)")
    parser.add_argument("--seed", type=int, default=0, help="of the draw (default 0)")
    parser.add_argument("--jobs", type=int, default=1, help="processes at once (default 1)")
    parser.add_argument("--only", nargs="+", default=[], help="all mutants of these lines: file:line")
    args = parser.parse_args()
    CACHE.mkdir(exist_ok=True)
    paths = args.paths or [str(path.relative_to(ROOT)) for place in PLACES for path in sorted(ROOT.glob(place))]
    drawn = [mutant for path in paths for mutant in mutants_of(ROOT, path)]
    print(f"{len(drawn)} mutants are possible", flush=True)
    drawn = random.Random(args.seed).sample(drawn, min(args.count, len(drawn)))
    if args.only:
        drawn = [m for o in args.only for m in mutants_of(ROOT, o.split(":")[0]) if m.line == int(o.split(":")[1])]

    import_libraries()
    found, survivors = coverage(args.jobs), []

    def work():
        for mutant in drawn:
            selected = Select(noticing(mutant, found), found)
            yield mutant, lambda tree, m=mutant, s=selected: mutated(tree, m, s), 3600.0

    for mutant, status in pool(args.jobs, work()):
        verdict = "SURVIVES" if status in (0, 5) else "noticed"
        print(f"{verdict}  {mutant.path}:{mutant.line}  {mutant.old}  ->  {mutant.new}", flush=True)
        survivors += [mutant] * (verdict == "SURVIVES")
    print(f"{len(drawn) - len(survivors)} of {len(drawn)} noticed")


def mutated(tree: Path, mutant: Mutant, tests: Select) -> int:
    """Start the tests on a tree with the mutant in it, and no other."""
    for path in {file for file in tree.rglob("*.py") if (ROOT / file.relative_to(tree)).is_file()}:
        original = ROOT / path.relative_to(tree)
        if path.stat().st_size != original.stat().st_size or path.read_bytes() != original.read_bytes():
            shutil.copy2(original, path)
    (tree / mutant.path).write_text(mutant.source)
    return forked(tree, {test.split("::")[0] for test in tests.order}, tests, Path(f"{tree}.log"))


def import_libraries() -> None:
    """All that takes long and is none of the project."""
    import scipy.stats  # noqa: F401
    import sklearn.metrics  # noqa: F401
    import torch
    import transformers
    from tensorboard.backend.event_processing import event_accumulator  # noqa: F401

    torch.set_num_threads(1)  # what forks must not have several of
    _ = transformers.BertModel, transformers.BertForSequenceClassification, transformers.get_scheduler
    _ = transformers.BertTokenizerFast, transformers.AutoTokenizer, transformers.PreTrainedTokenizerFast


if __name__ == "__main__":
    main()

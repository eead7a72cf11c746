"""Break lines of the project at random, one at a time, and list those that no test detects. Run by hand, not in CI.

    python tests/mutants.py --count 50 --seed 1                       # over all of the code
    python tests/mutants.py --count 20 models/scores.py run_*.py      # over these files
    python tests/mutants.py --only models/scores.py:69                # all that can be done to a line

Each mutant runs, in a copy of the tree, the tests that run its line, the fastest first, until one fails. The lines that
each test runs are recorded once for each state of the code, which takes twice as long as the whole suite, and are kept
in the system's folder for temporary files. So are the verdicts: the same command goes on where it was stopped. torch,
transformers and pytest are imported once; each mutant is a fork.
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
    "student.py",
    "run_*.py",
    *(
        f"scripts/{name}.py"
        for name in ("budget", "predict", "report_comparisons", "report_data", "report_statistics", "report_variants")
        + ("submission", "sweep", "sweep_grid", "sweep_jobs")
    ),
)
QUICK = 0.5  # seconds of a test, traced
LONGEST = 20  # seconds that a test may take of a mutant, besides ten times what it took before


class TestLines(NamedTuple):
    """Duration of a test, and the lines of each file that it runs."""

    seconds: float
    lines: dict[str, list[int]]
    shared: bool  # whether it uses what another test of its file has made
    starts_others: bool  # whether it starts processes, which may run other lines


def copied(name: str) -> Path:
    """Copy all files that git tracks to a new folder."""
    tree = CACHE / f"{name}-{os.getpid()}"
    shutil.rmtree(tree, ignore_errors=True)
    for file in subprocess.check_output(["git", "ls-files"], cwd=ROOT, text=True).split("\n")[:-1]:
        (tree / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / file, tree / file)
    return tree


class Observe:
    """A pytest plugin that records the lines that each test runs in its own process."""

    options = ()

    def __init__(self, tree: Path, target: Path):
        self.tree = f"{tree}/"
        self.target = target
        self.lines_by_test = {}
        self.failed = set()
        self.started: list[str] = []

    def pytest_sessionstart(self):
        sys.addaudithook(self.record_process)

    def record_process(self, event: str, arguments: tuple) -> None:
        if event == "os.fork" or (event == "subprocess.Popen" and Path(arguments[0]).name != "git"):
            self.started.append(event)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item):
        ran = set()
        start = time.perf_counter()
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
            self.lines_by_test[item.nodeid] = TestLines(seconds, lines, "run" in item.fixturenames, bool(self.started))

    def pytest_runtest_logreport(self, report):
        if report.failed:
            self.failed.add(report.nodeid)
            print("fails without any mutant, left out:", report.nodeid)

    def pytest_sessionfinish(self):
        self.target.write_text(
            json.dumps({test: record for test, record in self.lines_by_test.items() if test not in self.failed})
        )


class Select:
    """A pytest plugin that runs these tests only, in this order, until one fails."""

    options = ("-x",)

    def __init__(self, tests: list[str], lines_by_test: dict[str, TestLines]):
        self.order = {name: index for index, name in enumerate(tests)}
        self.lines_by_test = lines_by_test

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item):
        signal.signal(signal.SIGALRM, lambda *_: os._exit(1))
        signal.alarm(round(LONGEST + 10 * self.lines_by_test[item.nodeid].seconds))
        yield
        signal.alarm(0)
        return True

    def pytest_collection_modifyitems(self, items):
        items[:] = sorted((item for item in items if item.nodeid in self.order), key=lambda i: self.order[i.nodeid])


def forked(tree: Path, files: set[str], plugin: object, log: Path) -> int:
    """Run the tests of a tree in a new process, and return its id."""
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
    """Run processes, `jobs` at once; name and exit status of each, -1 if it had to be killed."""
    trees = [copied(f"tree{index}") for index in range(jobs)]
    running = {}
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


def source_files() -> list[Path]:
    """All Python files and shell scripts, without those that make mutants."""
    files = sorted({*ROOT.glob("*.py"), *ROOT.glob("*/*.py"), *ROOT.glob("scripts/*.sh")})
    return [file for file in files if not file.name.startswith("muta")]


def digest(files: list[Path]) -> str:
    """A name for the content of these files."""
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:24]


def coverage(jobs: int) -> dict[str, TestLines]:
    """Test -> the lines that it runs; recorded again if the test file or the code has changed."""
    files = source_files()
    tests = [file for file in files if file.match("tests/test_*.py")]
    code = [file for file in files if file not in tests]
    entries = {file.name: CACHE / f"{digest([*code, file])}.json" for file in tests}

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
    return {
        test: TestLines(*record) for entry in entries.values() for test, record in json.loads(entry.read_text()).items()
    }


def detecting_tests(mutant: Mutant, lines_by_test: dict[str, TestLines]) -> list[str]:
    """The tests that could detect a mutant, the fastest first, those that start other processes last.

    What a module defines, such as a table, may be read by tests that run no line of it: all quick ones are tried.
    """
    ran = {test: set(record.lines.get(mutant.path, ())) for test, record in lines_by_test.items()}
    direct = {test for test, lines in ran.items() if lines and (mutant.lines is None or lines & {*mutant.lines})}
    with_shared = {test.split("::")[0] for test in direct if lines_by_test[test].shared}
    direct |= {test for test, record in lines_by_test.items() if record.shared and test.split("::")[0] in with_shared}
    others = {test for test, record in lines_by_test.items() if record.starts_others} - direct
    quick = {test for test, record in lines_by_test.items() if mutant.lines is None and record.seconds < QUICK}
    parts = direct, quick - direct, others - quick
    return [test for part in parts for test in sorted(part, key=lambda test: lines_by_test[test].seconds)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("paths", nargs="*", help="files to change (default all of the code)")
    parser.add_argument("--count", type=int, default=50, help="how many mutants are drawn (default 50)")
    parser.add_argument("--seed", type=int, default=0, help="of the draw (default 0)")
    parser.add_argument("--jobs", type=int, default=1, help="processes at once (default 1)")
    parser.add_argument("--only", nargs="+", default=[], help="all mutants of these lines: file:line")
    args = parser.parse_args()
    CACHE.mkdir(exist_ok=True)
    paths = args.paths or [str(path.relative_to(ROOT)) for pattern in PATTERNS for path in sorted(ROOT.glob(pattern))]
    drawn = [mutant for path in paths for mutant in mutants_of(ROOT, path)]
    print(f"{len(drawn)} mutants are possible", flush=True)
    drawn = random.Random(args.seed).sample(drawn, min(args.count, len(drawn)))
    if args.only:
        drawn = [m for o in args.only for m in mutants_of(ROOT, o.split(":")[0]) if m.line == int(o.split(":")[1])]

    # those of an earlier run on the same code and tests
    record = CACHE / f"{digest(source_files())}.verdicts"
    verdicts = dict(line.rsplit("\t", 1) for line in record.read_text().splitlines()) if record.is_file() else {}

    import_libraries()
    lines_by_test = coverage(args.jobs)

    def work():
        for mutant in drawn:
            if named(mutant) not in verdicts:
                selected = Select(detecting_tests(mutant, lines_by_test), lines_by_test)
                yield mutant, lambda tree, m=mutant, s=selected: mutated(tree, m, s), 3600.0

    for mutant, status in pool(args.jobs, work()):
        verdicts[named(mutant)] = "SURVIVES" if status in (0, 5) else "noticed"
        with record.open("a") as file:
            file.write(f"{named(mutant)}\t{verdicts[named(mutant)]}\n")
        print(f"{verdicts[named(mutant)]}  {named(mutant)}", flush=True)
    survivors = [mutant for mutant in drawn if verdicts[named(mutant)] == "SURVIVES"]
    for mutant in survivors:
        print(f"survivor: {named(mutant)}")
    print(f"{len(drawn) - len(survivors)} of {len(drawn)} noticed")


def named(mutant: Mutant) -> str:
    """Its place and what is done to it, in one line."""
    return " ".join(f"{mutant.path}:{mutant.line}  {mutant.old}  ->  {mutant.new}".split("\n"))


def mutated(tree: Path, mutant: Mutant, tests: Select) -> int:
    """Start the tests on a tree that contains this mutant alone; the id of their process."""
    for path in {file for file in tree.rglob("*.py") if (ROOT / file.relative_to(tree)).is_file()}:
        original = ROOT / path.relative_to(tree)
        if path.stat().st_size != original.stat().st_size or path.read_bytes() != original.read_bytes():
            shutil.copy2(original, path)
    (tree / mutant.path).write_text(mutant.source)
    return forked(tree, {test.split("::")[0] for test in tests.order}, tests, Path(f"{tree}.log"))


def import_libraries() -> None:
    """Import the packages that take long, so that forked processes have them."""
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

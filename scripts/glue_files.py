"""Download the files of GLUE tasks, check them, and write them to a folder for each task.

    bash scripts/download_glue.sh rte mrpc             # -> datasets/rte/{train,dev,test}.tsv, datasets/mrpc/...
    python3 scripts/glue_files.py --data_dir data rte  # the same, without the shell

Downloads are kept in <data_dir>/.download/<task> until size, SHA-256 and row counts have been checked; then the files
are renamed into <data_dir>/<task>. Only the standard library is used, since this runs before any package is installed;
files that were cut off are resumed.

Exit status: 0 all complete, 1 some task failed (others are done), 2 wrong usage.
"""

import argparse
import hashlib
import json
import os
import shutil
import sys
import time
import zipfile
from collections import namedtuple
from contextlib import suppress
from http.client import HTTPException
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from utils.tasks import DIAGNOSTIC, DIAGNOSTIC_FILE, DIAGNOSTIC_ROWS, SPLITS, TASKS

BASE = "https://dl.fbaipublicfiles.com/"
CHUNK = 1 << 20  # bytes

File = namedtuple("File", "path size sha256")  # path below the base address, bytes, hexadecimal digest
Download = namedtuple("Download", "files rows")

FILES = {
    "rte": [File("glue/data/RTE.zip", 697150, "6bf86de103ecd335f3441bd43574d23fef87ecc695977a63b82d5efb206556ee")],
    "mrpc": [
        File("glue/data/mrpc_dev_ids.tsv", 6222, "971d7767d81b997fd9060ade0ec23c4fc31cbb226a55d1bd4a1bac474eb81dc7"),
        File(
            "senteval/senteval_data/msr_paraphrase_train.txt",
            1047044,
            "60a9b09084528f0673eedee2b69cb941920f0b8cd0eeccefc464a98768457f89",
        ),
        File(
            "senteval/senteval_data/msr_paraphrase_test.txt",
            441275,
            "a04e271090879aaba6423d65b94950c089298587d9c084bf9cd7439bd785f784",
        ),
    ],
    "stsb": [File("glue/data/STS-B.zip", 802872, "e60a6393de5a8b5b9bac5020a1554b54e3691f9d600b775bd131e613ac179c85")],
    "sst2": [File("glue/data/SST-2.zip", 7439277, "d67e16fb55739c1b32cdce9877596db1c127dc322d93c082281f64057c16deaa")],
    "qnli": [
        File("glue/data/QNLIv2.zip", 10627589, "e634e78627a29adaecd4f955359b22bf5e70f2cbd93b493f2d624138a0c0e5f5")
    ],
    "qqp": [
        File("glue/data/QQP-clean.zip", 41696084, "40e7c862c04eb26ee04b67fd900e76c45c6ba8e6d8fab4f8f1f8072a1a3fbae0")
    ],
    "mnli": [File("glue/data/MNLI.zip", 312783507, "e7c1d896d26ed6caf700110645df426cc2d8ebf02a5ab743d5a5c68ac1c83633")],
    "cola": [File("glue/data/CoLA.zip", 376971, "f212fcd832b8f7b435fb991f101abf89f96b933ab400603bf198960dfc32cbff")],
    "wnli": [File("glue/data/WNLI.zip", 28999, "ae0e8e4d16f4d46d4a0a566ec7ecceccfd3fbfaa4a7a4b4e02848c0f2561ac46")],
    DIAGNOSTIC: [File("glue/data/AX.tsv", 222257, "0e13510b1bb14436ff7e2ee82338f0efb0133ecf2e73507a697dc210db3f05fd")],
}
FILE_NAMES = {DIAGNOSTIC: DIAGNOSTIC_FILE}  # of the task whose file is not named after its split
SAME_FOLDER = {name: task.folder for name, task in TASKS.items() if task.folder}
ROWS = {name: {} for name in FILES}  # task -> split -> number of rows without the header
for name, task in TASKS.items():
    for split, count in zip(SPLITS, task.rows, strict=True):
        ROWS[task.folder or name][task.file_names(split)[0].removesuffix(".tsv")] = count
ROWS[DIAGNOSTIC] = {"test": DIAGNOSTIC_ROWS}


class Failure(Exception):
    """A task cannot be downloaded; the message is printed in one line, and the other tasks go on."""


def read_manifest(path):
    """Task -> Download, from a JSON file {task: {"files": {address: {"bytes", "sha256"}}, "rows": {split: count}}}."""
    content = json.loads(Path(path).read_text(encoding="utf-8"))
    downloads = {}
    for name, task in content.get("tasks", content).items():
        if name in FILES:
            files = [File(address, file["bytes"], file["sha256"]) for address, file in task["files"].items()]
            downloads[name] = Download(files, task["rows"])
    return downloads


def bytes_in(path):
    """Size of a file; 0 if there is none."""
    return path.stat().st_size if path.exists() else 0


def receive(url, size, part, timeout):
    """Request the missing rest of `part` and append it; start over if the server cannot send a range."""
    received = bytes_in(part)
    if received >= size:
        return
    request = Request(url, headers={"Range": f"bytes={received}-"} if received else {})
    with urlopen(request, timeout=timeout) as response:
        resumes = response.status == 206 and response.headers.get("Content-Range", "").startswith(f"bytes {received}-")
        received = received if resumes else 0
        # a log-in page or another version has another length, known before it is downloaded
        announced = received + int(response.headers.get("Content-Length", size - received))
        if announced != size:
            raise Failure(f"{announced:,} bytes, expected {size:,}")
        with part.open("ab" if resumes else "wb") as out:
            while received <= size and (chunk := response.read(CHUNK)):
                out.write(chunk)
                received += len(chunk)
    if received < size:
        raise ConnectionError(f"the connection ended after {received:,} of {size:,} bytes")


def is_temporary(error):
    """Whether a request that failed with this error may succeed later."""
    return not isinstance(error, HTTPError) or error.code in (408, 416, 429) or error.code >= 500


def fetch(url, size, part, timeout, retries):
    """Repeat requests until `part` is complete; only attempts without any new bytes count as retries."""
    failures = furthest = 0
    while True:
        try:
            return receive(url, size, part, timeout)
        except (OSError, HTTPException) as error:
            failures = 1 if bytes_in(part) > furthest else failures + 1
            furthest = max(furthest, bytes_in(part))
            if failures > retries or not is_temporary(error):
                raise Failure(error.reason if type(error) is URLError else error) from error
            if isinstance(error, HTTPError) and error.code == 416:  # `part` is longer than the server's file
                part.unlink()
            time.sleep(min(0.5 * 2 ** (failures - 1), 30))
        except ValueError as error:  # not an address
            raise Failure(error) from error


def mismatch(path, file):
    """How a downloaded file differs from the expected size and digest; None if it does not."""
    if bytes_in(path) != file.size:
        return f"{bytes_in(path):,} bytes, expected {file.size:,}"
    with path.open("rb") as content:
        digest = hashlib.file_digest(content, "sha256").hexdigest()
    return None if digest == file.sha256 else f"SHA-256 is {digest}, expected {file.sha256}"


def obtain(url, file, target, timeout, retries):
    """Download a file to `target` and check it; a file that the user has put there is checked and used."""
    if target.exists():
        if problem := mismatch(target, file):
            raise Failure(f"{target}: {problem}; remove it and run this again")
        return
    part = target.with_name(target.name + ".part")
    resumed = part.exists()
    try:
        fetch(url, file.size, part, timeout, retries)
        if resumed and mismatch(part, file):  # the first bytes are of another version, or damaged
            part.unlink()
            fetch(url, file.size, part, timeout, retries)
        if problem := mismatch(part, file):
            part.unlink()
            raise Failure(problem)
    except Failure as failure:
        raise Failure(
            f"{url}: {failure}; run this again, choose a mirror with --base, or put the file at {target} by hand"
        ) from failure
    part.replace(target)


def lines_of(path):
    """The lines of a file as bytes, without line feeds and empty lines."""
    return [line for line in path.read_bytes().split(b"\n") if line]


def split_mrpc(cache):
    """Write MRPC's splits as <split>.tsv.part: dev is the listed rows of the training text; test has no labels."""
    dev_ids = {tuple(line.split()) for line in lines_of(cache / "mrpc_dev_ids.tsv")}
    header, *rows = lines_of(cache / "msr_paraphrase_train.txt")
    train, dev = [header], [header]
    for row in rows:
        (dev if tuple(row.split(b"\t")[1:3]) in dev_ids else train).append(row)
    columns, *rows = (line.partition(b"\t")[2] for line in lines_of(cache / "msr_paraphrase_test.txt"))
    test = [b"index\t" + columns, *(b"%d\t%s" % numbered for numbered in enumerate(rows))]
    for split, lines in (("train", train), ("dev", dev), ("test", test)):
        (cache / f"{split}.tsv.part").write_bytes(b"\n".join(lines) + b"\n")


def unzip(archive, folder, splits):
    """Extract <folder>/<split>.tsv beside the archive, as <split>.tsv.part."""
    try:
        with zipfile.ZipFile(archive) as members:
            for split in splits:
                part = archive.with_name(f"{split}.tsv.part")
                with members.open(f"{folder}/{split}.tsv") as packed, part.open("wb") as out:
                    shutil.copyfileobj(packed, out)
    except (zipfile.BadZipFile, KeyError) as error:
        raise Failure(f"{archive}: {error.args[0]}") from error


def count_rows(path, has_header):
    """Number of rows with all columns of the first line: the official counts leave out broken rows, as QQP has some."""
    with path.open("rb") as lines:
        tabs = [line.count(b"\t") for line in lines if line.strip(b"\r\n")]
    rows = sum(count >= tabs[0] for count in tabs)
    return max(rows - has_header, 0)


def wrong_rows(name, rows, folder, suffix=""):
    """Which files of a task have another number of rows than expected, in words; "" if none has."""
    problems = []
    for split, expected in rows.items():
        path = folder / (FILE_NAMES.get(name, f"{split}.tsv") + suffix)
        has_header = name == DIAGNOSTIC or split == "test" or TASKS[name].header
        if (count := count_rows(path, has_header) if path.exists() else 0) != expected:
            problems.append(f"{path.name.removesuffix(suffix)} has {count:,} rows, expected {expected:,}")
    return ", ".join(problems)


def install(name, task, args):
    """Download a task, or resume its download, and install its files; a sentence on the outcome."""
    folder = Path(args.data_dir, name)
    cache = Path(args.data_dir, ".download", name)
    if not wrong_rows(name, task.rows, folder):
        return f"already complete in {folder}, skipped"

    # download the files of the task
    cache.mkdir(parents=True, exist_ok=True)
    for file in task.files:
        url = f"{args.base.rstrip('/')}/{file.path}"
        target = cache / Path(file.path).name
        print(f"{name}: {url} ({file.size / 1e6:.1f} MB)", flush=True)
        obtain(url, file, target, args.timeout, args.retries)

    # make its splits and check them, before any of them is renamed into the task's folder
    parts = [cache / (FILE_NAMES.get(name, f"{split}.tsv") + ".part") for split in task.rows]
    try:
        if name == "mrpc":
            split_mrpc(cache)
        elif name == DIAGNOSTIC:
            shutil.copyfile(target, parts[0])
        else:
            unzip(target, TASKS[name].zip_folder, task.rows)
        if problem := wrong_rows(name, task.rows, cache, ".part"):
            raise Failure(f"{cache}: {problem}; remove that folder and run this again, or correct the --manifest")
        folder.mkdir(parents=True, exist_ok=True)
        for part in parts:
            part.replace(folder / part.stem)
    finally:
        for part in parts:
            part.unlink(missing_ok=True)
    shutil.rmtree(cache)
    counts = ", ".join(f"{count:,} {split}" for split, count in task.rows.items())
    return f"{counts} rows in {folder}"


def parse_args(argv):
    parser = argparse.ArgumentParser(prog="download_glue.sh", description="Fetches GLUE tasks, checked, into a folder.")
    parser.add_argument("tasks", nargs="*", metavar="task", help="default: all; mnlimm shares the folder of mnli")
    parser.add_argument("--data_dir", default="datasets", help="files go to <data_dir>/<task> (%(default)s)")
    base = os.environ.get("GLUE_BASE", BASE)
    parser.add_argument("--base", default=base, help="a mirror; also as GLUE_BASE in the environment (%(default)s)")
    parser.add_argument("--manifest", help="for mirrors with other files: JSON of their sizes, sums and row counts")
    parser.add_argument("--timeout", type=float, default=30, help="seconds of silence before giving up (%(default)s)")
    parser.add_argument("--retries", type=int, default=3, help="attempts in a row that may bring nothing (%(default)s)")
    args = parser.parse_args(argv)
    # the official files, or those of a mirror
    try:
        known = read_manifest(args.manifest) if args.manifest else {t: Download(FILES[t], ROWS[t]) for t in FILES}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        parser.exit(2, f"{args.manifest}: not a manifest ({type(error).__name__}: {error})\n")
    # the tasks to download, each folder once
    names = list(dict.fromkeys(SAME_FOLDER.get(task, task) for task in args.tasks or known))
    unknown = [name for name in names if name not in known]
    if unknown:
        choices = [*known, *(alias for alias, name in SAME_FOLDER.items() if name in known)]
        parser.exit(2, f"unknown task {' '.join(unknown)}; choose from {' '.join(choices)}\n")
    return args, {name: known[name] for name in names}


def main(argv=None):
    args, tasks = parse_args(argv)
    failed = False
    for name, task in tasks.items():
        try:
            print(f"{name}: {install(name, task, args)}", flush=True)
        except (Failure, OSError) as error:
            failed = True
            print(f"{name}: {' '.join(str(error).split())}", file=sys.stderr, flush=True)
        except KeyboardInterrupt:
            sys.exit(f"{name}: stopped; run this again to go on from here")
    cache = Path(args.data_dir, ".download")
    for emptied in (*(cache / name for name in tasks), cache):
        with suppress(OSError):  # not there, or still holds a .part to go on from
            emptied.rmdir()
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())

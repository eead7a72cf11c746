"""scripts/download_glue.sh against a small web server in this process, with small archives and a manifest of them.

python -m pytest tests/test_download_glue.py
"""

import hashlib
import io
import json
import os
import re
import subprocess
import sys
import threading
import time
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parent.parent / "scripts" / "download_glue.sh"
BOM = b"\xef\xbb\xbf"
MRPC_HEADER = BOM + b"Quality\t#1 ID\t#2 ID\t#1 String\t#2 String\n"
QQP_HEADER = b"id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate\n"

MEMBERS = {  # archive address -> its folder and files
    "glue/data/RTE.zip": (
        "RTE",
        {
            "train": b'index\tsentence1\tsentence2\tlabel\n0\ta "b\tc\tentailment\n1\td\te\tnot_entailment',
            "dev": b"index\tsentence1\tsentence2\tlabel\n0\tf\tg\tentailment\n",
            "test": b"index\tsentence1\tsentence2\n0\th\ti\n1\tj\tk\n2\tl\tm\n",
        },
    ),
    "glue/data/CoLA.zip": (
        "CoLA",
        {
            "train": b"gj04\t1\t\tFirst.\ngj04\t0\t*\tSecond.\n",
            "dev": b"gj04\t1\t\tThird.\n",
            "test": b"index\tsentence\n0\tFourth.\n",
        },
    ),
    "glue/data/SST-2.zip": (
        "SST-2",
        {
            "train": b"sentence\tlabel\ngood \t1\nbad \t0\n",
            "dev": b"sentence\tlabel\nfine\t1\n",
            "test": b"index\tsentence\n0\twhat\n",
        },
    ),
    "glue/data/QQP-clean.zip": (
        "QQP",
        {
            "train": QQP_HEADER + b"1\t2\t3\tx\ty\t0\n9\t8\ttoo short\n4\t5\t6\tv\tw\t1\n",
            "dev": QQP_HEADER + b"7\t8\t9\tx\ty\t1\n",
            "test": b"id\tquestion1\tquestion2\n0\tx\ty\n",
        },
    ),
    "glue/data/MNLI.zip": (
        "MNLI",
        {
            "train": b"index\tsentence1\tsentence2\tgold_label\n0\ta\tb\tneutral\n",
            "dev_matched": b"index\tsentence1\tsentence2\tgold_label\n0\tc\td\tneutral\n",
            "dev_mismatched": b"index\tsentence1\tsentence2\tgold_label\n0\te\tf\tentailment\n1\tg\th\tneutral\n",
            "test_matched": b"index\tsentence1\tsentence2\n0\ti\tj\n",
            "test_mismatched": b"index\tsentence1\tsentence2\n0\tk\tl\n1\tm\tn\n",
        },
    ),
}
AX = b'index\tsentence1\tsentence2\n0\ta "b\tc\n1\td\te\n'
AX_ADDRESS = "glue/data/AX.tsv"
MRPC_TEXTS = {
    "glue/data/mrpc_dev_ids.tsv": b"12\t13\n30\t31\n",
    "senteval/senteval_data/msr_paraphrase_train.txt": MRPC_HEADER
    + b'1\t10\t11\tsaid "\tso\n0\t12\t13\tc\td\n1\t13\t12\te\tf\n0\t30\t31\tg\th\n',
    "senteval/senteval_data/msr_paraphrase_test.txt": MRPC_HEADER + b"1\t20\t21\tp\tq\n0\t22\t23\tr\ts\n",
}
ROWS = {
    "rte": {"train": 2, "dev": 1, "test": 3},
    "cola": {"train": 2, "dev": 1, "test": 1},
    "sst2": {"train": 2, "dev": 1, "test": 1},
    "qqp": {"train": 2, "dev": 1, "test": 1},
    "mnli": {"train": 1, "dev_matched": 1, "dev_mismatched": 2, "test_matched": 1, "test_mismatched": 2},
    "mrpc": {"train": 2, "dev": 2, "test": 2},
    "ax": {"test": 2},
}
ADDRESS = {
    "rte": "glue/data/RTE.zip",
    "cola": "glue/data/CoLA.zip",
    "sst2": "glue/data/SST-2.zip",
    "qqp": "glue/data/QQP-clean.zip",
    "mnli": "glue/data/MNLI.zip",
}


def archive(folder, files):
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as members:
        for split, content in files.items():
            members.writestr(f"{folder}/{split}.tsv", content)
            members.writestr(f"__MACOSX/{folder}/{split}.tsv", b"not this one")
    return packed.getvalue()


class Handler(BaseHTTPRequestHandler):
    """Serves `server.content`; `server.faults[address]` is a list of what goes wrong, one entry per request."""

    def do_GET(self):
        address = self.path.removeprefix("/")
        wanted = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        self.server.requests.append((address, int(wanted[1]) if wanted else None))
        fault, amount = (self.server.faults.get(address) or [(None, None)]).pop(0)
        content = self.server.content.get(address)
        if fault == "status" or content is None:
            self.send_error(amount or 404)
            return
        if fault == "stall":
            time.sleep(amount)
            return
        first = int(wanted[1]) if wanted and self.server.ranges else 0
        self.send_response(206 if first else 200)
        if first:
            self.send_header("Content-Range", f"bytes {first}-{len(content) - 1}/{len(content)}")
        self.send_header("Content-Length", str(len(content) - first))
        self.end_headers()
        self.wfile.write(content[first : amount if fault == "cut" else None])

    def log_message(self, *args):
        pass


@pytest.fixture
def server():
    web = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    web.content = {address: archive(*members) for address, members in MEMBERS.items()} | MRPC_TEXTS
    web.content[AX_ADDRESS] = AX
    web.faults = {}
    web.requests = []
    web.ranges = True
    thread = threading.Thread(target=web.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield web
    web.shutdown()
    thread.join()
    web.server_close()


@pytest.fixture
def manifest(server):
    """A manifest of the server's files; a test may change it."""

    def fact(address):
        content = server.content[address]
        return {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}

    files = {task: [address] for task, address in ADDRESS.items()} | {"mrpc": list(MRPC_TEXTS), "ax": [AX_ADDRESS]}
    return {task: {"files": {a: fact(a) for a in files[task]}, "rows": dict(ROWS[task])} for task in ROWS}


@pytest.fixture
def download(server, manifest, tmp_path):
    """Runs the shell script on the test's server and manifest; `facts=False` leaves it its built-in ones."""

    def run(*arguments, facts=True, env=()):
        (tmp_path / "manifest.json").write_text(json.dumps(manifest))
        address = f"http://127.0.0.1:{server.server_port}/"
        more = ["--manifest", "manifest.json"] if facts else []
        return subprocess.run(
            ["bash", SCRIPT, *more, *arguments],
            cwd=tmp_path,
            env=os.environ | {"PYTHON": sys.executable, "GLUE_BASE": address, "no_proxy": "*"} | dict(env),
            capture_output=True,
            text=True,
            timeout=60,
        )

    return run


def files_under(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def as_layout(task):
    return {f"{task}/{split}.tsv": content for split, content in MEMBERS[ADDRESS[task]][1].items()}


def one_line(result, *parts):
    """Check that stderr is one line that contains all parts."""
    assert result.stderr.count("\n") == 1, result.stderr
    for part in parts:
        assert part in result.stderr
    return True


@pytest.mark.parametrize("task", ["rte", "cola", "sst2", "qqp", "mnli"])
def test_archive_becomes_the_task_folder(download, tmp_path, task):
    result = download(task)
    assert (result.returncode, result.stderr) == (0, "")
    assert files_under(tmp_path / "datasets") == as_layout(task)
    assert not (tmp_path / "datasets" / ".download").exists()


def test_no_package_is_needed(tmp_path):
    command = [sys.executable, "-S", str(SCRIPT.with_name("glue_files.py")), "--help"]  # -S: as if none were installed
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_mrpc_is_built_from_its_texts(download, tmp_path):
    assert download("mrpc").returncode == 0
    assert files_under(tmp_path / "datasets" / "mrpc") == {
        "train.tsv": MRPC_HEADER + b'1\t10\t11\tsaid "\tso\n1\t13\t12\te\tf\n',
        "dev.tsv": MRPC_HEADER + b"0\t12\t13\tc\td\n0\t30\t31\tg\th\n",
        "test.tsv": b"index\t#1 ID\t#2 ID\t#1 String\t#2 String\n0\t20\t21\tp\tq\n1\t22\t23\tr\ts\n",
    }


def test_the_diagnostic_set_is_a_file_of_its_own(download, server, tmp_path):
    assert download("ax").returncode == 0
    assert files_under(tmp_path / "datasets") == {"ax/AX.tsv": AX}
    assert download("ax").stdout == "ax: already complete in datasets/ax, skipped\n"
    assert len(server.requests) == 1


def test_mnlimm_shares_the_folder_of_mnli(download, server, tmp_path):
    assert download("mnlimm", "mnli").returncode == 0
    assert files_under(tmp_path / "datasets") == as_layout("mnli")
    assert server.requests == [(ADDRESS["mnli"], None)]


def test_flags_choose_the_folder_and_the_mirror(download, server, tmp_path):
    mirror = f"http://127.0.0.1:{server.server_port}"
    result = download("--data_dir", "elsewhere", "--base", mirror, "rte", env={"GLUE_BASE": "http://127.0.0.1:1/"})
    assert result.returncode == 0
    assert files_under(tmp_path / "elsewhere") == as_layout("rte")
    assert not (tmp_path / "datasets").exists()


def test_no_arguments_means_every_task_with_the_official_facts(download, server):
    server.content = dict.fromkeys(["glue/data/mrpc_dev_ids.tsv", AX_ADDRESS, *ADDRESS.values()], b"something else")
    result = download("--retries", "0", facts=False)
    assert result.returncode == 1
    requests = [address.rpartition("/")[2] for address, _ in server.requests]
    zips = ["RTE", "STS-B", "SST-2", "QNLIv2", "QQP-clean", "MNLI", "CoLA", "WNLI"]
    assert sorted(requests) == sorted([f"{name}.zip" for name in zips] + ["mrpc_dev_ids.tsv", "AX.tsv"])
    for size in ("697,150", "6,222", "7,439,277", "41,696,084", "312,783,507", "376,971", "222,257"):
        assert f"14 bytes, expected {size};" in result.stderr
    assert result.stderr.count("HTTP Error 404") == 3  # the three that this server lacks
    assert result.stderr.count("\n") == 10


def test_second_run_downloads_nothing(download, server):
    download("rte", "mrpc")
    server.requests.clear()
    result = download("rte", "mrpc")
    assert result.returncode == 0
    assert server.requests == []
    assert result.stdout.splitlines() == [
        "rte: already complete in datasets/rte, skipped",
        "mrpc: already complete in datasets/mrpc, skipped",
    ]


def test_incomplete_task_is_fetched_again(download, tmp_path):
    download("rte")
    (tmp_path / "datasets/rte/dev.tsv").write_bytes(b"index\tsentence1\tsentence2\tlabel\n0\tno label\n")
    (tmp_path / "datasets/rte/test.tsv").unlink()
    assert download("rte").returncode == 0
    assert files_under(tmp_path / "datasets") == as_layout("rte")


def test_wrong_checksum_leaves_no_file(download, server, manifest, tmp_path):
    address = ADDRESS["rte"]
    expected = manifest["rte"]["files"][address]["sha256"]
    server.content[address] = bytes(reversed(server.content[address]))
    found = hashlib.sha256(server.content[address]).hexdigest()
    result = download("rte")
    assert result.returncode == 1
    assert one_line(result, f"/{address}: SHA-256 is {found}, expected {expected};", "datasets/.download/rte/RTE.zip")
    assert files_under(tmp_path / "datasets") == {}


def test_wrong_size_is_seen_before_the_transfer(download, server, manifest, tmp_path):
    manifest["rte"]["files"][ADDRESS["rte"]]["bytes"] = 12345
    result = download("rte")
    assert result.returncode == 1
    assert one_line(result, f"{len(server.content[ADDRESS['rte']])} bytes, expected 12,345")
    assert files_under(tmp_path / "datasets") == {}


def test_wrong_row_count_is_reported_and_not_installed(download, manifest, tmp_path):
    manifest["cola"]["rows"]["dev"] = 1043
    result = download("cola")
    assert result.returncode == 1
    assert one_line(result, "cola: ", "dev.tsv has 1 rows, expected 1,043")
    assert not (tmp_path / "datasets" / "cola").exists()
    assert list(files_under(tmp_path / "datasets")) == [".download/cola/CoLA.zip"]  # checked, so kept


def test_archive_without_a_file_is_reported(download, manifest, tmp_path):
    manifest["rte"]["rows"]["dev_hard"] = 1
    result = download("rte")
    assert result.returncode == 1
    assert one_line(result, "RTE.zip: There is no item named 'RTE/dev_hard.tsv'")
    assert not (tmp_path / "datasets" / "rte").exists()


def test_cut_connection_goes_on_where_it_stopped(download, server, tmp_path):
    server.faults[ADDRESS["rte"]] = [("cut", 100), ("cut", 250)]
    assert download("rte").returncode == 0
    assert server.requests == [(ADDRESS["rte"], None), (ADDRESS["rte"], 100), (ADDRESS["rte"], 250)]
    assert files_under(tmp_path / "datasets") == as_layout("rte")


def test_next_run_goes_on_where_the_last_one_stopped(download, server, tmp_path):
    whole = server.content[ADDRESS["rte"]]
    server.faults[ADDRESS["rte"]] = [("cut", 100)]
    result = download("--retries", "0", "rte")
    assert result.returncode == 1
    assert one_line(result, f"the connection ended after 100 of {len(whole):,} bytes")
    assert files_under(tmp_path / "datasets") == {".download/rte/RTE.zip.part": whole[:100]}
    assert download("rte").returncode == 0
    assert server.requests == [(ADDRESS["rte"], None), (ADDRESS["rte"], 100)]
    assert files_under(tmp_path / "datasets") == as_layout("rte")


def test_server_without_ranges_starts_over(download, server, tmp_path):
    server.ranges = False
    server.faults[ADDRESS["rte"]] = [("cut", 100)]
    assert download("rte").returncode == 0
    assert server.requests == [(ADDRESS["rte"], None), (ADDRESS["rte"], 100)]
    assert files_under(tmp_path / "datasets") == as_layout("rte")


def test_broken_leftover_is_fetched_afresh(download, server, tmp_path):
    part = tmp_path / "datasets/.download/rte/RTE.zip.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(b"of another version")
    assert download("rte").returncode == 0
    assert server.requests == [(ADDRESS["rte"], 18), (ADDRESS["rte"], None)]
    assert files_under(tmp_path / "datasets") == as_layout("rte")


def test_404_fails_one_task_at_once_and_not_the_others(download, server, tmp_path):
    del server.content[ADDRESS["rte"]]
    result = download("rte", "cola")
    assert result.returncode == 1
    assert one_line(
        result, "rte: http://127.0.0.1", f"/{ADDRESS['rte']}: HTTP Error 404", "datasets/.download/rte/RTE.zip"
    )
    assert server.requests == [(ADDRESS["rte"], None), (ADDRESS["cola"], None)]
    assert files_under(tmp_path / "datasets") == as_layout("cola")


def test_request_to_a_busy_server_is_repeated(download, server, tmp_path):
    server.faults[ADDRESS["sst2"]] = [("status", 503)]
    assert download("sst2").returncode == 0
    assert len(server.requests) == 2
    assert files_under(tmp_path / "datasets") == as_layout("sst2")


def test_silent_server_is_a_one_line_failure(download, server, tmp_path):
    server.faults[ADDRESS["rte"]] = [("stall", 1)]
    result = download("--timeout", "0.2", "--retries", "0", "rte")
    assert result.returncode == 1
    assert one_line(result, f"/{ADDRESS['rte']}: timed out")
    assert files_under(tmp_path / "datasets") == {}


@pytest.mark.parametrize(("base", "problem"), [("http://127.0.0.1:1", "Connection refused"), ("glue", "unknown url")])
def test_unreachable_address_is_a_one_line_failure(download, base, problem):
    result = download("--base", base, "--retries", "0", "rte")
    assert result.returncode == 1
    assert one_line(result, f"rte: {base}/{ADDRESS['rte']}: ", problem, "by hand")
    assert "<" not in result.stderr  # the reason alone, without urllib's wrapping


def test_file_put_by_hand_is_used(download, server, tmp_path):
    by_hand = tmp_path / "datasets/.download/rte/RTE.zip"
    by_hand.parent.mkdir(parents=True)
    by_hand.write_bytes(b"a web page")
    result = download("rte")
    assert result.returncode == 1
    assert one_line(result, "RTE.zip: 10 bytes, expected", "remove it")
    by_hand.write_bytes(server.content[ADDRESS["rte"]])
    assert download("rte").returncode == 0
    assert server.requests == []
    assert files_under(tmp_path / "datasets") == as_layout("rte")


@pytest.mark.parametrize("facts", [True, False])
def test_unknown_task_is_refused_before_anything_is_fetched(download, server, tmp_path, facts):
    result = download("rte", "ay", "rtee", facts=facts)
    assert result.returncode == 2
    assert one_line(result, "unknown task ay rtee; choose from rte ", "mnlimm")
    assert server.requests == []
    assert not (tmp_path / "datasets").exists()


def test_broken_manifest_is_refused(download, tmp_path):
    (tmp_path / "facts.json").write_text('{"rte": {"rows": {}}}')
    result = download("--manifest", "facts.json", "rte")
    assert result.returncode == 2
    assert one_line(result, "facts.json: not a manifest", "files")

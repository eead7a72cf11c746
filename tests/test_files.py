"""Atomic writes and locks, also on file systems without locks."""

import contextlib
import errno
import fcntl
import json
import multiprocessing
import os
import resource
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from utils.errors import InputError
from utils.files import (
    checkpoint_digest,
    is_locked,
    lock,
    read_json,
    recover,
    release,
    write_json,
    write_text,
    written_beside,
)


def write_folder(path: Path, text: str) -> None:
    with written_beside(path) as beside:
        beside.mkdir()
        (beside / "weights").write_text(text)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize(
    "name",
    ["config.json", "model.safetensors", "pytorch_model.bin", "tokenizer.json", "tokenizer_config.json", "vocab.txt"]
    + ["vocab.json", "merges.txt", "sentencepiece.bpe.model", "spiece.model"],
)
def test_another_content_of_any_file_that_is_read_is_another_checkpoint(tmp_path, name):
    (tmp_path / "config.json").write_text("{}")
    digests = [checkpoint_digest(tmp_path)]
    for content in ("one", "other"):
        (tmp_path / name).write_text(content)
        digests.append(checkpoint_digest(tmp_path))
    assert len(set(digests)) == 3


@pytest.mark.parametrize("broken", [False, True])
def test_a_linked_folder_gives_way_to_a_real_one_and_what_it_linked_to_stays(tmp_path, broken):
    elsewhere = tmp_path / "other_disk" / "ckpt"
    (tmp_path / "out").mkdir()
    if not broken:
        elsewhere.mkdir(parents=True)
        (elsewhere / "weights").write_text("old")
    (tmp_path / "out" / "ckpt").symlink_to(elsewhere)
    write_folder(tmp_path / "out" / "ckpt", "new")
    assert names(tmp_path / "out") == ["ckpt"]
    assert not (tmp_path / "out" / "ckpt").is_symlink()
    assert (tmp_path / "out" / "ckpt" / "weights").read_text() == "new"
    assert broken or (elsewhere / "weights").read_text() == "old"


def test_a_link_stays_when_what_was_to_replace_it_fails(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "ckpt").symlink_to("elsewhere")
    with contextlib.suppress(InputError), written_beside(tmp_path / "ckpt") as beside:
        beside.mkdir()
        raise InputError
    assert (tmp_path / "ckpt").readlink() == Path("elsewhere")
    assert names(tmp_path) == ["ckpt", "elsewhere"]


def test_an_old_folder_moved_aside_comes_back_and_a_left_over_one_goes(tmp_path):
    old = tmp_path / ".ckpt.old"
    old.mkdir()
    (old / "weights").write_text("old")
    recover(tmp_path / "ckpt")  # killed between the two renames
    assert (tmp_path / "ckpt" / "weights").read_text() == "old"
    old.mkdir()
    recover(tmp_path / "ckpt")  # killed after them
    assert (tmp_path / "ckpt" / "weights").read_text() == "old"
    assert names(tmp_path) == ["ckpt"]
    (tmp_path / "ckpt").rename(tmp_path / "elsewhere")
    old.symlink_to("elsewhere")
    recover(tmp_path / "ckpt")
    assert (tmp_path / "ckpt").readlink() == Path("elsewhere")


def test_everything_is_on_the_disk_before_it_gets_its_name(tmp_path, monkeypatch):
    flushed = []
    replace = os.replace
    fsync = os.fsync

    def note_flush(descriptor):
        flushed.append(Path(os.readlink(f"/proc/self/fd/{descriptor}")))
        fsync(descriptor)

    def note_replace(source, target):
        flushed.append("replace")
        replace(source, target)

    monkeypatch.setattr(os, "fsync", note_flush)
    monkeypatch.setattr(os, "replace", note_replace)
    write_folder(tmp_path / "ckpt", "new")
    before, after = flushed[: flushed.index("replace")], flushed[flushed.index("replace") + 1 :]
    assert sorted(path.name for path in before) == [".ckpt.part", "weights"]
    assert after == [tmp_path]


def test_a_folder_that_cannot_be_flushed_is_no_error_and_a_file_is(tmp_path, monkeypatch):
    fsync = os.fsync
    refused = {"code": errno.EINVAL, "what": os.path.isdir}

    def refuse(descriptor):
        if refused["what"](f"/proc/self/fd/{descriptor}"):
            raise OSError(refused["code"], os.strerror(refused["code"]))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", refuse)
    for code in (errno.EINVAL, errno.ENOTSUP, errno.EPERM):  # CIFS and FUSE
        refused["code"] = code
        write_folder(tmp_path / "ckpt", str(code))
        assert (tmp_path / "ckpt" / "weights").read_text() == str(code)
    refused["code"] = errno.EIO
    with pytest.raises(OSError, match="ckpt: cannot be written: Input/output error"):
        write_folder(tmp_path / "ckpt", "lost")
    refused.update(code=errno.EINVAL, what=os.path.isfile)
    with pytest.raises(OSError, match="ckpt: cannot be written: Invalid argument"):
        write_folder(tmp_path / "ckpt", "lost")
    assert (tmp_path / "ckpt" / "weights").read_text() == str(errno.EPERM)
    assert names(tmp_path) == ["ckpt"]


@pytest.mark.parametrize("code", [errno.ENOSYS, errno.ENOLCK, errno.ENOTSUP, errno.EINVAL])
def test_a_file_system_without_locks_is_named_once_and_no_error(tmp_path, monkeypatch, caplog, code):
    def refuse(*_):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "flock", refuse)
    lock(tmp_path / ".ckpt.lock")
    lock(tmp_path / ".shared.lock", wait=True)
    assert not is_locked(tmp_path / ".ckpt.lock")
    release()
    assert names(tmp_path) == []
    assert [record.getMessage() for record in caplog.records] == [
        f"{tmp_path}: this file system has no locks; nothing keeps a second run out of this folder"
    ]


def test_an_error_of_a_lock_that_is_one_is_raised(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(OSError, match="Input/output error"):
        lock(tmp_path / ".ckpt.lock")


def write_too_much(path: Path, kind: str) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))  # what a full disk does: no larger file can be written
    with written_beside(path) as beside:
        if kind == "torch":
            torch.save(torch.zeros(100_000), beside)
        elif kind == "folder":
            beside.mkdir()
            write_text(beside / "metrics.json", "x" * 100_000)
        else:
            save_file({"weight": torch.zeros(100_000)}, beside)


def error_of(queue, path: Path, kind: str) -> None:
    try:
        write_too_much(path, kind)
    except Exception as error:
        queue.put((type(error).__name__, str(error)))


@pytest.mark.parametrize("kind", ["torch", "safetensors", "folder"])
def test_what_a_full_disk_did_not_take_is_named(tmp_path, kind):
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    process = context.Process(target=error_of, args=(queue, tmp_path / "ckpt", kind))
    process.start()
    name, message = queue.get(timeout=60)
    process.join()
    assert name == "OSError"
    assert message.startswith(f"{tmp_path / 'ckpt'}: cannot be written: ")
    assert "part" not in message
    assert names(tmp_path) == []


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf")])
def test_numbers_that_json_cannot_hold_are_named_and_never_written(tmp_path, number):
    write_json(tmp_path / "a.json", {"before": 1})
    with pytest.raises(FloatingPointError, match=rf"a\.json: history\.1\.loss would be {number}"):
        write_json(tmp_path / "a.json", {"history": [{"loss": 0.5}, {"loss": number}]})
    assert json.loads((tmp_path / "a.json").read_text()) == {"before": 1}


@pytest.mark.parametrize(("content", "found"), [("[]", "list"), ("3", "int"), ("null", "NoneType"), ('"a"', "str")])
def test_json_that_is_no_object_is_refused(tmp_path, content, found):
    (tmp_path / "a.json").write_text(content)
    with pytest.raises(InputError, match=rf"a\.json: holds a {found}, expected a JSON object"):
        read_json(tmp_path / "a.json")


def test_a_folder_where_a_file_was_to_be_is_left_alone(tmp_path):
    (tmp_path / "metrics.json").mkdir()
    (tmp_path / "metrics.json" / "mine").write_text("kept")
    with pytest.raises(OSError, match=r"metrics\.json: cannot be written"):
        write_json(tmp_path / "metrics.json", {})
    assert (tmp_path / "metrics.json" / "mine").read_text() == "kept"

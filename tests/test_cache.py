"""The cache of tokens: read again for the same content, and for no other."""

import os
import pwd

import pytest
import torch
from conftest import write_task
from safetensors.torch import load_file, save_file

from utils.cache import load_examples


@pytest.fixture
def data(tmp_path):
    return write_task(tmp_path / "data", "rte")


def load(data, tokenizer, max_length=30, **options):
    return load_examples("rte", str(data), "dev", tokenizer, max_length, **options)


def same(one, other) -> bool:
    names = ("tokens", "offsets", "lengths", "segment_b_start", "labels")
    return all(torch.equal(getattr(one, name), getattr(other, name)) for name in names)


def entries(token_cache) -> list[str]:
    return sorted(path.name for path in token_cache.iterdir())


def test_the_second_time_tokens_come_from_the_cache(data, tokenizer, token_cache):
    load(data, tokenizer)
    [entry] = token_cache.iterdir()
    arrays = load_file(entry)
    save_file({**arrays, "labels": arrays["labels"] + 7}, entry)
    assert torch.equal(load(data, tokenizer).labels, arrays["labels"] + 7)


def test_a_changed_file_is_never_served_from_the_cache(data, tokenizer):
    first = load(data, tokenizer)
    path = data / "rte" / "dev.tsv"
    stamp = path.stat()
    text = path.read_text()
    path.write_text(text.replace(" w1", " w2"))
    assert len(path.read_text()) == len(text)
    os.utime(path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    assert not same(load(data, tokenizer), first)
    path.write_text(text)
    assert same(load(data, tokenizer), first)


def test_another_length_limit_or_tokenizer_is_another_entry(data, tokenizer, token_cache):
    load(data, tokenizer)
    load(data, tokenizer, max_length=9)
    load(data, tokenizer, max_examples=4)
    tokenizer.backend_tokenizer.add_tokens(["w1w"])
    load(data, tokenizer)
    assert len(entries(token_cache)) == 4


def test_tokenising_leaves_the_tokenizer_and_so_the_key_alone(data, tokenizer, token_cache):
    tokenizer.backend_tokenizer.enable_truncation(5)
    tokenizer.backend_tokenizer.enable_padding(length=50)
    before = tokenizer.backend_tokenizer.to_str()
    first = load(data, tokenizer)
    assert int(first.lengths.max()) > 5
    assert tokenizer.backend_tokenizer.to_str() == before
    load(data, tokenizer)
    assert len(entries(token_cache)) == 1


@pytest.mark.parametrize("damage", [b"", b"junk", None])
def test_a_damaged_entry_is_made_again(data, tokenizer, token_cache, damage):
    first = load(data, tokenizer)
    [entry] = token_cache.iterdir()
    whole = entry.read_bytes()
    entry.write_bytes(whole[: len(whole) // 2] if damage is None else damage)
    assert same(load(data, tokenizer), first)
    assert entry.read_bytes() == whole


def test_a_half_written_entry_is_not_read(data, tokenizer, token_cache):
    first = load(data, tokenizer)
    [entry] = token_cache.iterdir()
    entry.rename(entry.with_name(f".{entry.name}.1.part"))
    assert same(load(data, tokenizer), first)
    assert len(entries(token_cache)) == 2


def test_a_cache_that_cannot_be_written_costs_nothing_but_time(data, tokenizer, token_cache, caplog):
    token_cache.parent.mkdir(exist_ok=True)
    token_cache.write_text("a file where the folder should be")
    assert len(load(data, tokenizer)) == 21
    assert "tokens not cached" in caplog.text


def test_without_a_home_folder_tokens_are_not_cached_with_one_warning(data, tokenizer, monkeypatch, caplog):
    def unknown(user):
        raise KeyError(f"getpwuid(): uid not found: {user}")  # as in a container that runs as another user

    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.delenv("HOME")
    monkeypatch.setattr(pwd, "getpwuid", unknown)
    for split in ("train", "dev", "test"):
        assert len(load_examples("rte", str(data), split, tokenizer, 30))
    [line] = [line for line in caplog.messages if "not cached" in line]
    assert line == "tokens not cached: no home folder; XDG_CACHE_HOME names another place"

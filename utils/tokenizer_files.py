"""The files that a checkpoint's tokenizer is made from, of a folder or of a name on the hub.

files = read_files("bert-base-uncased")
files.parsed("tokenizer_config.json").get("do_lower_case")
"""

import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import hf_hub_download
from huggingface_hub.errors import EntryNotFoundError

from utils.errors import InputError

FILES = ("vocab.txt", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")
BYTE_PAIRS = ("vocab.json", "merges.txt")  # what byte-level tokenizers have in place of vocab.txt


@dataclass(frozen=True)
class TokenizerFiles:
    """A tokenizer's files."""

    path: str  # of the folder, or the name on the hub
    contents: dict[str, bytes]  # name -> content, as they came
    model_config: dict[str, Any]  # config.json; {} if it is not there

    def text(self, name: str) -> str:
        """A file's text.

        Raises:
            InputError: it is none.
        """
        return _text(self.path, name, self.contents[name])

    def parsed(self, name: str) -> dict[str, Any]:
        """A JSON file's content; {} if it is not there.

        Raises:
            InputError: it is not a JSON object.
        """
        return _parsed(self.path, name, self.contents.get(name))

    def vocabulary(self) -> dict[str, int]:
        """Ids by token: the line numbers of vocab.txt from 0, or what vocab.json says; {} if neither is there.

        Raises:
            InputError: vocab.txt is no text, or vocab.json not a JSON object.
        """
        if "vocab.txt" in self.contents:
            return {line.rstrip(): index for index, line in enumerate(io.StringIO(self.text("vocab.txt")))}
        return self.parsed("vocab.json")


def read_files(path: str) -> TokenizerFiles:
    """Those of a tokenizer's files that a folder or hub name has.

    Raises:
        InputError: config.json is not a JSON object.
    """
    contents = {name: content for name in FILES if (content := find(path, name)) is not None}
    if "vocab.txt" not in contents:
        contents |= {name: content for name in BYTE_PAIRS if (content := find(path, name)) is not None}
    return TokenizerFiles(path, contents, find_object(path, "config.json"))


def find_object(path: str, name: str) -> dict[str, Any]:
    """The content of a JSON file of a folder or hub name; {} if it is not there.

    Raises:
        InputError: it is not a JSON object.
    """
    return _parsed(path, name, find(path, name))


def find(path: str, name: str) -> bytes | None:
    """The content of a file of a folder or hub name; None if it is not there."""
    file = Path(path, name)
    if not Path(path).is_dir():
        try:
            file = Path(hf_hub_download(path, name))
        except EntryNotFoundError:  # not there, or not in the cache, and the hub cannot be asked
            return None
    return file.read_bytes() if file.is_file() else None


def _text(path: str, name: str, content: bytes) -> str:
    if content.startswith(b"version https://git-lfs"):
        raise InputError(f"{Path(path, name)}: a git-lfs pointer, not the file itself; git lfs pull fetches it")
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise InputError(f"{Path(path, name)}: not UTF-8: {error}") from error


def _parsed(path: str, name: str, content: bytes | None) -> dict[str, Any]:
    try:
        parsed = {} if content is None else json.loads(_text(path, name, content))
    except json.JSONDecodeError as error:
        raise InputError(f"{Path(path, name)}: not a JSON file: {error}") from error
    if not isinstance(parsed, dict):
        raise InputError(f"{Path(path, name)}: expected a JSON object")
    return parsed

"""A student in one's hand: sentences or pairs in, labels and probabilities out.

    from student import load_student

    student = load_student("outputs/rewind/layer_dropped/kd_4_mrpc_0.5/ckpt_30")
    student([("He said yes.", "Yes, he said."), ("He said yes.", "No.")])
    # [Prediction(label='equivalent', probabilities={'not_equivalent': 0.08, 'equivalent': 0.92}), ...]

Any checkpoint of ours, cut or not, any fine-tuned classifier of the families in models/families.py, and a folder that
scripts/export.py wrote, which onnxruntime computes if it is ONNX.
"""

import copy
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from models.checkpoint import load_model
from models.exported import ONNX, SOURCE, load_onnx
from models.families import is_ours
from models.hub import read_config
from utils.batches import Examples, tokenise
from utils.errors import InputError
from utils.evaluation import check_finite
from utils.files import has_weights
from utils.folder import checkpoint_settings
from utils.metrics import predictions_of
from utils.readers import Split
from utils.reading import check_token_types, limits
from utils.rows import is_unicode, shown
from utils.settings import SETTINGS, of_a_stage
from utils.task_file import is_range
from utils.tasks import SCORE_RANGE, rescale
from utils.tokenizer import Tokenizer, load_tokenizer
from utils.tokenizer_files import find_object

Text = str | tuple[str, str]  # a sentence, or a pair of them
SCORE = "score"  # the name that every regression trained here has in id2label


class Prediction(NamedTuple):
    """What a classifier says of a text or pair."""

    label: str  # the class of the highest probability
    probabilities: dict[str, float]  # by the class's name; their sum is 1


class Student:
    """A model with its tokenizer, called with texts; `load_student` makes it."""

    def __init__(self, model: Any, tokenizer: Tokenizer, max_length: int, batch_size: int, score_range: Any = None):
        """
        Args:
            model: called with token ids, token types and attention mask, each (B, T); it has a config.
            max_length: tokens that a text or pair is cut to.
            batch_size: examples per forward pass.
            score_range: lowest and highest score of regression; None if the model's own numbers are the scores.
        """
        config = model.config
        self.model = model
        self.device = getattr(model, "device", torch.device("cpu"))
        self.max_length = max_length
        self.batch_size = batch_size
        self.score_range = score_range
        names = tuple(config.id2label[index] for index in range(config.num_labels))
        self.labels = names if len(names) > 1 else ()  # () is regression
        self.token_types = config.type_vocab_size
        # tokenise() cuts and pads itself, and would copy a tokenizer that does so, too, in every call
        backend = copy.deepcopy(tokenizer.backend_tokenizer)
        backend.no_truncation()
        backend.no_padding()
        self.tokenizer = replace(tokenizer, backend_tokenizer=backend)

    def __call__(self, texts: Text | Iterable[Text]) -> Any:
        """A Prediction for each text or pair, or a score for each if the model is a regression; for one text, one.

        Args:
            texts: a string, a tuple of two strings, or several of them, such as ["a sentence", ("first", "second")].

        Raises:
            InputError: something else is among them, an empty text, or a pair for a model of single texts.
            FloatingPointError: a logit is not finite.
        """
        if isinstance(texts, str | tuple):
            return self([texts])[0]
        texts = list(texts)
        return self.predictions(self.logits(self.tokenise(texts))) if texts else []

    def tokenise(self, texts: list[Text]) -> Examples:
        """The texts or pairs, at least one, as tokens; raises InputError as a call does."""
        pairs = [_pair(text, number) for number, text in enumerate(texts, start=1)]
        first, second = map(list, zip(*pairs, strict=True))
        examples = tokenise(Split(first, second, [0.0] * len(pairs)), self.tokenizer, self.max_length)
        check_token_types(examples, self.token_types, "texts")
        return examples

    def logits(self, examples: Examples) -> Tensor:
        """Logits (N, C) in the examples' order, on the CPU; raises FloatingPointError if one is not finite."""
        logits = torch.zeros(len(examples), len(self.labels) or 1, device=self.device)
        with torch.inference_mode():
            for batch in examples.to(self.device).eval_batches(self.batch_size):
                logits[batch.example_ids] = self.model(*batch.inputs).float()
        check_finite(logits, examples)
        return logits.cpu()

    def predictions(self, logits: Tensor) -> list[Prediction] | list[float]:
        """What logits (N, C) say of each text: the likeliest class and all probabilities, or the score."""
        chosen = predictions_of(logits.numpy())
        if not self.labels:
            return self._scores(chosen.astype(np.float64)).tolist()
        probabilities = logits.double().softmax(-1).tolist()
        return [
            Prediction(self.labels[index], dict(zip(self.labels, row, strict=True)))
            for index, row in zip(chosen.tolist(), probabilities, strict=True)
        ]

    def _scores(self, predicted: np.ndarray) -> np.ndarray:
        """Scores (N,) as the data has them; the model learns and predicts them on the scale of SCORE_RANGE."""
        if self.score_range is None:
            return predicted
        return rescale(np.clip(predicted, *SCORE_RANGE), SCORE_RANGE, self.score_range)


def load_student(path: str | Path, device: str | torch.device | None = None, batch_size: int = 32) -> Student:
    """The student of a checkpoint folder, a name on the hub, or a folder that scripts/export.py wrote.

    Texts are cut to the length that the student was trained with, or where nothing says it, to what it takes.

    Args:
        device: of the model; None is a GPU if there is one, else the CPU, where onnxruntime always computes.
        batch_size: examples per forward pass, which are of similar lengths.

    Raises:
        InputError: no tokenizer, or none of this model; no such device.
        CheckpointError: no model, or none with a fine-tuned classifier.
    """
    path = str(path)
    model = _load(path, device)
    tokenizer = load_tokenizer(path)
    positions, _ = limits(tokenizer, model.config)
    trained_with = made_with(path).get("max_length")
    max_length = min(trained_with, positions) if isinstance(trained_with, int) and trained_with > 3 else positions
    student = Student(model, tokenizer, max_length, batch_size, _score_range(path, read_config(path)))
    if len(set(student.labels)) < len(student.labels):
        raise InputError(f"{path}: id2label of config.json names a class twice: {', '.join(student.labels)}")
    return student


def _load(path: str, device: str | torch.device | None) -> Any:
    """The model, on the device."""
    is_onnx = Path(path, ONNX).is_file() and not has_weights(Path(path))
    device = device or ("cuda" if torch.cuda.is_available() and not is_onnx else "cpu")
    try:
        torch_device = torch.empty(0, device=device).device
    except (RuntimeError, AssertionError) as error:  # of a torch without CUDA, too
        raise InputError(f"device {device}: {str(error).splitlines()[0]}") from error
    if not is_onnx:
        return load_model(path).to(torch_device)
    if torch_device.type != "cpu":
        raise InputError(f"{path}: exported to ONNX, which is computed on the CPU; found device {device}")
    return load_onnx(path)


def made_with(path: str) -> dict[str, Any]:
    """Settings that a checkpoint was trained with, of a folder, an export or a hub name; {} if it was not made here."""
    settings = checkpoint_settings(path) if Path(path).is_dir() else of_a_stage(find_object(path, SETTINGS))
    return settings or find_object(path, SOURCE)


def _score_range(path: str, config: dict[str, Any]) -> tuple[float, float] | None:
    """Lowest and highest score of a regression, by its config.json; None for one that was trained elsewhere.

    Raises:
        InputError: score_range is no range.
    """
    found = config.get("score_range")
    if found is None:
        names = config.get("id2label") or {}
        was_trained_here = is_ours(config) or "export_source" in config or made_with(path)
        return SCORE_RANGE if was_trained_here and list(names.values()) == [SCORE] else None
    if not is_range(found):
        raise InputError(f"{path}: score_range {found} of config.json: expected the lowest and the highest score")
    return found[0], found[1]


def _pair(text: Any, number: int) -> tuple[str, str]:
    """The first and the second text of an item of a list, the second empty if there is none.

    Args:
        number: of the item, from 1, for the message.
    """
    parts = [text] if isinstance(text, str) else list(text) if isinstance(text, tuple | list) else []
    if len(parts) not in (1, 2) or not all(isinstance(part, str) for part in parts):
        raise InputError(f"text {number}: found {shown(str(text))}, expected a string or a pair of strings")
    parts = [part.strip(" \r\n") for part in parts]  # as the files' readers do
    if not all(parts):
        raise InputError(f"text {number}: empty, expected a string or a pair of strings")
    if not all(map(is_unicode, parts)):
        raise InputError(f"text {number}: found {shown(str(text))}, with half of a character (a lone surrogate)")
    return parts[0], parts[1] if len(parts) == 2 else ""

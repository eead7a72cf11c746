"""Export a checkpoint to ONNX, or to Hugging Face's class for sequence classification.

    python scripts/export.py --model_path outputs/distil/parameter_pruned/kd_70_rte/ckpt --format onnx
    python scripts/export.py --model_path outputs/distil/layer_dropped/kd_4_rte/ckpt --format huggingface

Both formats come with config.json and the tokenizer's files. `onnx` takes every model, cut or not: model.onnx has the
inputs input_ids, token_type_ids and attention_mask, int64 (batch, length) of any sizes that the model takes, and the
output logits (batch, classes); if onnxruntime's logits differ from torch's by more than 1e-4, nothing is written.
`huggingface` takes uncut models only, since the library's encoders have equal numbers of heads and neurons in every
layer, and writes the class of the model's family.
"""

import copy
import importlib
import itertools
import logging
import os
import sys
import warnings
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from models.checkpoint import load_model
from models.encoder import PrunableEncoder, write_config
from models.exported import INPUTS, ONNX, SOURCE, onnx_logits, open_session
from models.families import as_library_config, as_library_weights
from models.units import CheckpointError
from stage import entry_point
from utils.arguments import Parser
from utils.errors import InputError
from utils.files import checkpoint_digest, lock, read_json, write_json, written_beside
from utils.folder import checkpoint_settings
from utils.paths import sparsity_of
from utils.tokenizer import load_tokenizer

TOLERANCE = 1e-4  # between the logits of torch and of onnxruntime
# shapes at which the logits are compared, besides the longest length that the model takes, up to LONGEST
BATCHES = (1, 2, 8)
LENGTHS = (4, 32)
LONGEST = 512  # tokens: attention over the thousands that some models take would fill the memory
PACKAGES = ("onnx", "onnxscript", "onnxruntime")
TOKENIZER_CONFIG = "tokenizer_config.json"
TRAINED_WITH = ("task_name", "task", "max_length")  # settings of a checkpoint that go along with its export


def parse_args(argv=None):
    parser = Parser(__doc__)
    add = parser.add_argument
    add("--model_path", required=True, help="checkpoint folder of a model with a classifier")
    add("--format", choices=tuple(WRITERS), required=True, help="what to write")
    add(
        "--output_dir",
        help="folder, replaced if an export wrote it (default beside ckpt to <format>, beside ckpt_30 to <format>_30)",
    )
    return parser.parse_args(argv)


def load_for_inference(path: str) -> PrunableEncoder:
    """The model of a checkpoint folder in eval mode on the CPU, with the classes of its config.json.

    Raises:
        CheckpointError, InputError: there is no such folder, or no model with a classifier in it.
    """
    if not Path(path, "config.json").is_file():
        raise CheckpointError(f"{path}: no folder with a config.json, expected a checkpoint")
    return load_model(path)


def default_folder(model_path: str, kind: str) -> Path:
    """The default --output_dir, beside the checkpoint: <kind> for ckpt, <kind>_30 for ckpt_30."""
    teacher_sparsity = sparsity_of(Path(model_path).name)
    name = kind if teacher_sparsity is None else f"{kind}_{teacher_sparsity}"
    return Path(os.path.normpath(Path(model_path, "..", name)))


def export_source(folder: Path) -> str | None:
    """The digest of the checkpoint that a folder was exported from; None if the folder is no export."""
    # earlier versions wrote it to config.json, from where it may have got into checkpoints that have these files
    if any((folder / name).exists() for name in ("metrics.json", "args.json")):
        return None
    written = read_json(folder / SOURCE) or read_json(folder / "config.json")
    return written.get("export_source")


def widths(model: PrunableEncoder) -> list[tuple[int, int]]:
    """Numbers of heads and neurons of each layer."""
    return [layer.widths for layer in model.layers]


def random_inputs(config: Any, batch: int, length: int, padded: bool = False) -> tuple[Tensor, Tensor, Tensor]:
    """Token ids, token types and attention mask, each (B, T), from a fixed seed; `padded` rows have several lengths."""
    generator = torch.Generator().manual_seed(batch * length)
    lengths = torch.linspace(length, 2, batch).long() if padded else torch.full((batch,), length)
    mask = (torch.arange(length) < lengths[:, None]).long()
    ids = torch.randint(config.vocab_size, (batch, length), generator=generator)
    types = torch.randint(max(1, config.type_vocab_size), (batch, length), generator=generator)
    return ids, types, mask


def write_onnx(model: PrunableEncoder, folder: Path) -> str:
    """Write model.onnx and config.json, and compare the logits with torch's; a sentence with the largest difference.

    Raises:
        FloatingPointError: a difference is above TOLERANCE.
    """
    longest = model.config.max_position_embeddings
    exported = copy.deepcopy(model)
    exported.use_exact_shortcuts(False)
    dynamic = {0: torch.export.Dim("batch", min=1), 1: torch.export.Dim("length", min=1, max=longest)}
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # without its warning that torchvision is missing
    with warnings.catch_warnings(), torch.inference_mode():
        warnings.simplefilter("ignore")  # the exporter warns of its own code
        torch.onnx.export(
            exported,
            random_inputs(model.config, 3, min(7, longest), padded=True),
            folder / ONNX,
            dynamo=True,
            input_names=INPUTS,
            output_names=["logits"],
            dynamic_shapes=dict.fromkeys(INPUTS, dynamic),
            external_data=False,
            verbose=False,
        )

        # compare the logits of padded batches of several shapes
        session = open_session(folder / ONNX)
        differences = []
        most = min(longest, LONGEST)
        lengths = [length for length in LENGTHS if length < most] + [most]
        for batch, length in itertools.product(BATCHES, lengths):
            inputs = random_inputs(model.config, batch, length, padded=True)
            differences.append(np.abs(onnx_logits(session, inputs) - exported(*inputs).numpy()).max())
    largest = np.max(differences)
    if not largest <= TOLERANCE:  # true of NaN, too
        raise FloatingPointError(f"onnxruntime's logits are {largest:.1e} off torch's, expected {TOLERANCE} at most")
    write_config(folder, {**model.config.to_dict(), "architectures": [type(model).__name__]})
    return f"onnxruntime's logits are within {largest:.1e} of torch's in {len(differences)} shapes"


def write_huggingface(model: PrunableEncoder, folder: Path) -> str:
    """Write configuration and weights of the family's class; a sentence on how to load them."""
    model = copy.deepcopy(model)
    for layer in model.layers:
        layer.restore_head_order()
    config = {**model.config.to_dict(), "classifier_dropout": model.cls[-2].p}
    write_config(folder, as_library_config(config))
    weights = as_library_weights(config, model.state_dict())
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return "AutoModelForSequenceClassification.from_pretrained loads it"


WRITERS = {"onnx": write_onnx, "huggingface": write_huggingface}


def check_packages() -> None:
    """Raise InputError if a package for ONNX is not installed."""
    try:
        for name in PACKAGES:
            importlib.import_module(name)
    except ImportError:
        raise InputError(f"--format onnx: {name} is missing: pip install {' '.join(PACKAGES)}") from None


def check_full_width(model: PrunableEncoder) -> None:
    """Raise CheckpointError if a layer is cut."""
    full = (model.config.num_attention_heads, model.config.intermediate_size)
    for index, (heads, neurons) in enumerate(widths(model)):
        if (heads, neurons) != full:
            raise CheckpointError(
                f"--format huggingface: layer {index} has {heads} of {full[0]} heads and {neurons} of {full[1]} "
                "neurons left, and Hugging Face's class has them all in every layer; --format onnx takes cut models"
            )


def check_replaceable(folder: Path) -> None:
    """Raise InputError if the folder cannot be made, or holds files that are no export and would be lost."""
    if folder.name in ("", ".."):
        raise InputError(f"--output_dir {folder}: expected a folder by its name")
    if not folder.parent.is_dir():
        raise InputError(f"--output_dir {folder}: there is no folder {folder.parent} to make it in")
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder}: a file, expected a folder")
    if folder.is_dir() and any(folder.iterdir()) and not export_source(folder):
        raise InputError(f"{folder}: holds files that no export wrote; give another --output_dir")


@entry_point
def main(argv=None):
    args = parse_args(argv)
    if args.format == "onnx":
        check_packages()
    folder = Path(args.output_dir) if args.output_dir else default_folder(args.model_path, args.format)

    # read and check everything before anything is written
    model = load_for_inference(args.model_path)
    tokenizer = load_tokenizer(args.model_path)
    if args.format == "huggingface":
        check_full_width(model)
    check_replaceable(folder)

    settings = checkpoint_settings(args.model_path)
    trained_with = {name: settings[name] for name in TRAINED_WITH if name in settings}
    source = {"export_source": checkpoint_digest(Path(args.model_path)), "format": args.format, **trained_with}
    lock(folder.with_name(f".{folder.name}.lock"))
    with written_beside(folder) as beside:
        beside.mkdir()
        summary = WRITERS[args.format](model, beside)
        tokenizer.save_pretrained(beside)
        # truncated by the library, texts are cut where load_student cuts them
        positions = model.config.max_position_embeddings
        named = {"model_max_length": min(settings.get("max_length", positions), positions)}
        write_json(beside / TOKENIZER_CONFIG, read_json(beside / TOKENIZER_CONFIG) | named)
        write_json(beside / SOURCE, source)
    print(f"written to {folder}; {summary}")


if __name__ == "__main__":
    main()

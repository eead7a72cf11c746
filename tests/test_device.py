"""What a GPU would be asked to do, counted on a device that is none: mixed devices, waits and launches."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import small_config, write_task, write_vocabulary

from models.bert import PrunableBert

ROOT = Path(__file__).parent.parent
SCENARIOS = ("finetune", "prune", "distil_dropped", "distil_pruned", "sparsify_dropped", "sparsify_pruned")
SCENARIOS += ("rewind_dropped", "rewind_pruned", "minilm", "half", "windows")


@pytest.fixture(scope="module")
def costs(tmp_path_factory) -> dict[str, dict]:
    """By scenario of tests/pretended_device.py: waits with fewer and with more updates, launches of one."""
    folder = tmp_path_factory.mktemp("device")
    write_task(folder / "datasets", "rte")
    torch.manual_seed(0)
    names = {0: "not_entailment", 1: "entailment"}
    large = {"num_hidden_layers": 6, "num_attention_heads": 12, "hidden_size": 48}
    for name, sizes in (("teacher", {"num_hidden_layers": 2}), ("large", large)):
        PrunableBert(small_config(id2label=names, **sizes)).save_pretrained(folder / name)
        write_vocabulary(folder / name)
    command = [sys.executable, str(ROOT / "tests" / "pretended_device.py"), "costs.json"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "XDG_CACHE_HOME": str(folder / "cache"), "TQDM_DISABLE": "1"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads((folder / "costs.json").read_text())


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_no_update_and_no_batch_waits_for_the_device(costs, scenario):
    fewer, more = costs[scenario]["waits"]
    assert fewer  # reading the results is waited for
    assert more == fewer


def test_losses_between_layers_do_not_launch_a_kernel_for_each_head(costs):
    assert costs["minilm"]["launches"] < 700  # with 48 parts of 12 heads, 6 layers and 3


def test_attention_is_dropped_on_a_device_too(costs):
    assert costs["attention_dropped"] < 1e-5

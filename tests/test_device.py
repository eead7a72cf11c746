"""Mixed devices, waits and kernel launches, counted on a pretended device instead of a GPU."""

import json
import os
import subprocess
import sys
from pathlib import Path

import torch
from conftest import small_config, write_task, write_vocabulary

from models.bert import PrunableBert

ROOT = Path(__file__).parent.parent


def costs(folder: Path) -> dict[str, dict]:
    """By scenario of tests/pretended_device.py: waits with fewer and with more updates, launches of one."""
    write_task(folder / "datasets", "rte")
    texts = [{"sentence1": f"w{row}", "sentence2": f"w{row + 1} w{row + 2}"} for row in range(8)]
    (folder / "text.jsonl").write_text("\n".join(map(json.dumps, texts)))
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


def test_stages_on_a_device(tmp_path):
    """One test, since the device takes its time: no mixed devices, no wait in an update or a batch, few launches."""
    found = costs(tmp_path)
    assert found.pop("attention_dropped") < 1e-5  # how far it is from attention without heads
    assert len(found) == 10
    for scenario, cost in found.items():
        fewer, more = cost["waits"]
        assert fewer, scenario  # reading the results is waited for
        assert more == fewer, scenario
    # losses between layers do not launch a kernel for each of 48 parts of 12 heads; with 6 layers and 3
    assert found["minilm"]["launches"] < 700

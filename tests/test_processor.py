"""Which product computes on which processor, and what a run says of it."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

import run_pruning
import stage
from models.processor import is_slower, onednn_is_faster

ROOT = Path(__file__).parent.parent
PRUNING = ["--model_path", "teacher", "--max_length", "40", "--use_cpu"]


@pytest.mark.parametrize(
    ("vendor", "capability", "faster"),
    [
        ("AuthenticAMD", "AVX512", True),
        ("AuthenticAMD", "AVX2", False),
        ("GenuineIntel", "AVX512", False),
        ("GenuineIntel", "AVX2", False),
        ("", "DEFAULT", False),
    ],
)
def test_onednn_computes_on_amds_processors_with_avx512(vendor, capability, faster):
    assert onednn_is_faster(vendor, capability) == faster


@pytest.mark.parametrize(
    ("dtype", "vendor", "flags", "slower"),
    [
        (torch.bfloat16, "GenuineIntel", {"avx512_bf16"}, True),
        (torch.bfloat16, "GenuineIntel", {"avx512_bf16", "amx_bf16"}, False),
        (torch.bfloat16, "AuthenticAMD", {"avx512_bf16"}, False),
        (torch.bfloat16, "AuthenticAMD", {"avx2", "avx512_fp16"}, True),
        (torch.bfloat16, "", set(), False),  # not known
        (torch.float16, "GenuineIntel", {"avx512_bf16", "amx_bf16"}, True),
        (torch.float16, "GenuineIntel", {"avx512_fp16"}, False),
        (torch.float16, "GenuineIntel", {"amx_fp16"}, False),
        (torch.float16, "AuthenticAMD", {"avx2"}, True),
        (torch.float16, "", set(), False),
    ],
)
def test_16_bits_are_slower_without_instructions_and_bfloat16_on_intels_without_amx(dtype, vendor, flags, slower):
    assert is_slower(dtype, vendor, frozenset(flags)) == slower


def test_a_processor_without_avx512_leaves_products_to_torch():
    code = "from models import processor; print(processor.USES_ONEDNN)"
    environment = {"PATH": "", "ATEN_CPU_CAPABILITY": "avx2", "HF_HUB_OFFLINE": "1"}
    found = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert found.stdout == "False\n"


@pytest.mark.parametrize(("flag", "name"), [("--use_bf16", "torch.bfloat16"), ("--use_fp16", "torch.float16")])
def test_a_precision_that_is_slower_is_named_and_goes_on(workplace, monkeypatch, capsys, flag, name):
    monkeypatch.setattr(stage, "vendor_and_flags", lambda: ("GenuineIntel", frozenset({"avx512_bf16"})))
    run_pruning.main([*PRUNING, flag])
    line = f"{name} is slower than float32 on this processor, which lacks fast instructions"
    assert line in capsys.readouterr().out

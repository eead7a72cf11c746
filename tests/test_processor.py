"""Which product computes on which processor, and what a run says of it."""

import subprocess
import sys
from pathlib import Path

import pytest

import run_pruning
import stage
from models.processor import bfloat16_is_slower, onednn_is_faster

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
    ("vendor", "flags", "slower"),
    [
        ("GenuineIntel", {"avx512_bf16"}, True),
        ("GenuineIntel", {"avx512_bf16", "amx_bf16"}, False),
        ("AuthenticAMD", {"avx512_bf16"}, False),
        ("AuthenticAMD", {"avx2"}, True),
        ("", set(), False),  # not known
    ],
)
def test_bfloat16_is_slower_without_instructions_for_it_and_on_intels_without_amx(vendor, flags, slower):
    assert bfloat16_is_slower(vendor, frozenset(flags)) == slower


def test_a_processor_without_avx512_leaves_products_to_torch():
    code = "from models import processor; print(processor.USES_ONEDNN)"
    environment = {"PATH": "", "ATEN_CPU_CAPABILITY": "avx2", "HF_HUB_OFFLINE": "1"}
    found = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert found.stdout == "False\n"


def test_bfloat16_that_is_slower_is_named_and_goes_on(workplace, monkeypatch, capsys):
    monkeypatch.setattr(stage, "vendor_and_flags", lambda: ("GenuineIntel", frozenset({"avx512_bf16"})))
    run_pruning.main([*PRUNING, "--use_bf16"])
    line = "--use_bf16: slower than float32 on this processor, which lacks fast instructions for it"
    assert line in capsys.readouterr().out

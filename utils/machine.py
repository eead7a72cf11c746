"""Versions and hardware that a run was made with."""

import importlib.metadata
import platform
import subprocess
import sys
from pathlib import Path

import torch


def versions() -> dict[str, str | None]:
    """Versions of Python, torch and transformers, and the git commit of this code; None if it is no git checkout."""
    command = ["git", "-C", str(Path(__file__).resolve().parent), "rev-parse", "HEAD"]
    try:
        commit = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        commit = None
    return {
        "python_version": sys.version.split()[0],
        "torch_version": torch.__version__,
        "transformers_version": importlib.metadata.version("transformers"),
        "git_commit": commit,
    }


def hardware(device: str) -> dict[str, str | int]:
    """Name of the processor or GPU, the CPU's capability and number of threads; `device` is "cpu" or "cuda"."""
    name = torch.cuda.get_device_name() if device == "cuda" else _cpu_name()
    capability = torch.backends.cpu.get_cpu_capability()
    return {"hardware": name, "cpu_capability": capability, "cpu_threads": torch.get_num_threads()}


def _cpu_name() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.is_file() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()

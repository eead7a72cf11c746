#!/usr/bin/env bash
# The whole test suite, from a fresh clone: makes .venv if there is none, needs the package index for that and no other
# network. Two and a half to four and a half minutes on 2 cores once the packages are installed. Arguments go to pytest.
set -eu
cd "$(dirname "$0")/.."
. scripts/environment.sh pytest==9.2.0 pytest-xdist==3.8.0 tensorboard==2.21.0 onnx==1.23.2 onnxruntime==1.32.0 onnxscript==0.7.2 accelerate==1.15.0

HF_HUB_OFFLINE=1 python -m pytest --numprocesses auto --dist worksteal "$@"

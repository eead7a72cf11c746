#!/usr/bin/env bash
# Fetches GLUE tasks into datasets/<task>, checked against the official sizes, SHA-256 sums and row counts.
#
#     bash scripts/download_glue.sh              # all ten and ax: 376 MB to fetch, MNLI is 313 of them
#     bash scripts/download_glue.sh rte mrpc     # some of rte mrpc stsb sst2 qnli qqp mnli mnlimm cola wnli ax
#     bash scripts/download_glue.sh --help       # another folder, a mirror, time-outs
#
# Needs Python 3.11 and no packages.
# Stopped or cut off? Run it again: it goes on where it was, and skips what is complete.
set -euo pipefail

exec "${PYTHON:-python3}" "$(dirname "${BASH_SOURCE[0]}")/glue_files.py" "$@"

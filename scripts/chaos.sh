#!/usr/bin/env bash
# Pulls the plug on a small chain of all five stages, many times at random moments, and checks that the same commands,
# started again, end with the metrics of an undisturbed chain and that no file was ever seen half-written.
#
#   bash scripts/chaos.sh --kills 20
#
# About two seconds a kill on two cores.
set -eu
cd "$(dirname "$0")/.."
. scripts/environment.sh
python scripts/chaos.py "$@"

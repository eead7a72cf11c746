#!/usr/bin/env bash
# Stops a small chain of all five stages at random moments and right before changes of the disk, by SIGKILL, SIGTERM and
# SIGINT, and checks that the same commands, started again, end with the metrics of an undisturbed chain.
#
#   bash scripts/chaos.sh --kills 20 --stops 40
#   bash scripts/chaos.sh --kills 0 --all          # at every change of every scenario, by each signal
#
# The first took two minutes on two cores of an AMD EPYC.
set -eu
cd "$(dirname "$0")/.."
environment() { . scripts/environment.sh; } # in a function: the flags are not packages to install
environment
python scripts/chaos.py "$@"

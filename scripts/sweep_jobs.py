"""A sweep's jobs, on this machine or on Slurm: what each gets of GPUs and threads, and how it is stopped."""

import argparse
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import cloudpickle
import submitit
import torch

from utils.errors import InputError

cloudpickle.register_pickle_by_value(sys.modules[__name__])  # a job starts in any folder and cannot import this file


class Jobs:
    """The jobs that may run at once; each has GPUs of its own as far as they last, the cluster's choice on Slurm."""

    def __init__(self, args: argparse.Namespace):
        """Read what is there; nothing is written.

        Raises:
            InputError: the machine does not have what the flags ask for.
        """
        self.is_local = args.executor == "local"
        self.threads = args.cpus_per_job
        self.free: list[str | None] = [None] * args.jobs  # for each job that may be added, its CUDA_VISIBLE_DEVICES
        options = {"name": "stark", "timeout_min": args.timeout_min}
        if self.is_local:
            self.free = deal_gpus(visible_gpus(), args.jobs, args.gpus_per_job)
            self.threads = args.cpus_per_job or max(1, processors() // args.jobs)
        else:
            if not shutil.which("srun"):
                raise InputError("--executor slurm: found no srun on this machine, expected a cluster's")
            slurm = {"gpus_per_node": 1 if args.gpus_per_job is None else args.gpus_per_job}
            slurm |= {"cpus_per_task": args.cpus_per_job, "slurm_partition": args.partition}
            options |= {name: value for name, value in slurm.items() if value is not None}
        self.executor = submitit.AutoExecutor(folder=Path(args.output_dir, "jobs"), cluster=args.executor)
        self.executor.update_parameters(**options)

    def submit(self, command: list[str], gpus: str | None) -> submitit.Job:
        """Run a command with some of `free`."""
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches a job through `stop` alone
        try:
            return self.executor.submit(run_stage, command, gpus, self.threads, self.is_local)
        finally:
            signal.signal(signal.SIGINT, before)

    def stop(self, job: submitit.Job) -> None:
        """Have a job save how far it came, and leave."""
        if not self.is_local:
            job.cancel(check=False)
        elif not job.done():
            os.kill(int(job.job_id), signal.SIGTERM)  # job.cancel() kills after a second, which a large state outlasts


def run_stage(command: list[str], gpus: str | None, threads: int | None, is_local: bool) -> int:
    """Within a job: run a stage, and leave with its exit status.

    Args:
        gpus: its CUDA_VISIBLE_DEVICES; None if the cluster sets it.
        threads: unless the user's OMP_NUM_THREADS says so; None if the cluster does, or nobody.
    """
    environment = dict(os.environ)
    if gpus is not None:
        environment["CUDA_VISIBLE_DEVICES"] = gpus
    if threads := threads or environment.get("SLURM_CPUS_PER_TASK"):
        environment.setdefault("OMP_NUM_THREADS", str(threads))
    stops: list[int] = []
    if is_local:  # Slurm stops all processes of a job by itself; submitit would have this one go on
        signal.signal(signal.SIGTERM, lambda number, _: stops.append(number))
    shown = [f"{name}={environment.get(name, '')}" for name in ("CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS")]
    print(*shown, shlex.join(command), flush=True)
    # locally in a session of its own, where a terminal's Ctrl-C does not come as a second signal
    stage = subprocess.Popen(command, env=environment, start_new_session=is_local)
    try:
        while stage.poll() is None and not stops:
            time.sleep(0.1)
    finally:  # submitit raises an error when the job's time is up
        stage.terminate()
        stage.wait()
    return stage.returncode


def visible_gpus() -> list[str]:
    """The GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them: numbers, UUIDs or MIG's."""
    count, listed = torch.cuda.device_count(), os.environ.get("CUDA_VISIBLE_DEVICES")
    names = map(str, range(count)) if listed is None else map(str.strip, listed.split(","))
    return [name for name in names if name][:count]


def deal_gpus(gpus: list[str], jobs: int, per_job: int | None) -> list[str]:
    """CUDA_VISIBLE_DEVICES of each of this machine's jobs, which share GPUs where there are more jobs.

    Args:
        per_job: None for one, or none where there is none.
    """
    per_job = min(1, len(gpus)) if per_job is None else per_job
    if per_job > len(gpus):
        raise InputError(f"--gpus_per_job {per_job}: found {len(gpus) or 'no'} GPUs on this machine")
    return [",".join(gpus[(job * per_job + n) % len(gpus)] for n in range(per_job)) for job in range(jobs)]


def processors() -> int:
    """How many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1

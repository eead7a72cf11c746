"""The jobs of a sweep, on this machine or on Slurm: their GPUs and threads, how they start and stop."""

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

JOB_GIB = 4  # memory that each local job without a GPU may take, where --jobs does not say how many there are

cloudpickle.register_pickle_by_value(sys.modules[__name__])  # jobs cannot import this file


class Jobs:
    """The executor of a sweep, and the GPUs of its local jobs; on Slurm the cluster assigns GPUs."""

    def __init__(self, args: argparse.Namespace, at_once: int = 1):
        """Distribute this machine's GPUs and threads, or set the options of Slurm; nothing is written.

        Args:
            args: flags of scripts/sweep.py.
            at_once: how many cells need not wait for each other, so that more jobs are not made without --jobs.

        Raises:
            InputError: there are fewer GPUs than --gpus_per_job, or no Slurm.
        """
        self.is_local = args.executor == "local"
        self.threads = args.cpus_per_job
        gpus = visible_gpus() if self.is_local else []
        jobs = args.jobs or (min(at_once, places(gpus, args.gpus_per_job)) if self.is_local else 1)
        self.free: list[str | None] = [None] * jobs  # CUDA_VISIBLE_DEVICES of each job that may start
        options = {"name": "stark", "timeout_min": args.timeout_min}
        if self.is_local:
            self.free = deal_gpus(gpus, jobs, args.gpus_per_job)
            self.threads = args.cpus_per_job or max(1, processors() // jobs)
        else:
            if not shutil.which("srun"):
                raise InputError("--executor slurm: found no srun on this machine, expected a cluster's")
            slurm = {"gpus_per_node": 1 if args.gpus_per_job is None else args.gpus_per_job}
            slurm |= {"cpus_per_task": args.cpus_per_job, "slurm_partition": args.partition}
            options |= {name: value for name, value in slurm.items() if value is not None}
        self.executor = submitit.AutoExecutor(folder=Path(args.output_dir, "jobs"), cluster=args.executor)
        self.executor.update_parameters(**options)

    def submit(self, command: list[str], gpus: str | None) -> submitit.Job:
        """Start a job that runs this command; `gpus` is an element taken from `free`."""
        previous = signal.signal(signal.SIGINT, signal.SIG_IGN)  # inherited: Ctrl-C reaches a job through `stop` alone
        try:
            return self.executor.submit(run_stage, command, gpus, self.threads, self.is_local)
        finally:
            signal.signal(signal.SIGINT, previous)

    def stop(self, job: submitit.Job) -> None:
        """Stop a job, which saves the state of its training."""
        if not self.is_local:
            job.cancel(check=False)
        elif not job.done():
            os.kill(int(job.job_id), signal.SIGTERM)  # job.cancel() kills after a second, while a large state is saved


def run_stage(command: list[str], gpus: str | None, threads: int | None, is_local: bool) -> int:
    """Function of a job: run a stage in a process of its own, and return its exit status.

    Args:
        command: of the stage.
        gpus: CUDA_VISIBLE_DEVICES; None leaves it as it is.
        threads: OMP_NUM_THREADS, unless it is set already; None takes SLURM_CPUS_PER_TASK, if that is set.
        is_local: whether the job runs on this machine, not on Slurm.
    """
    environment = dict(os.environ)
    if gpus is not None:
        environment["CUDA_VISIBLE_DEVICES"] = gpus
    threads = threads or environment.get("SLURM_CPUS_PER_TASK")
    if threads:
        environment.setdefault("OMP_NUM_THREADS", str(threads))

    # on SIGTERM, which submitit would ignore, stop the stage; Slurm sends the signal to all processes of a job itself
    stops: list[int] = []
    if is_local:
        signal.signal(signal.SIGTERM, lambda number, _: stops.append(number))
    variables = [f"{name}={environment.get(name, '')}" for name in ("CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS")]
    print(*variables, shlex.join(command), flush=True)

    # in a new session, where a Ctrl-C in the terminal does not reach it as a second signal
    stage = subprocess.Popen(command, env=environment, start_new_session=is_local)
    try:
        while stage.poll() is None and not stops:
            time.sleep(0.1)
    finally:  # submitit raises an error here when the job's time is up
        stage.terminate()
        stage.wait()
    return stage.returncode


def visible_gpus() -> list[str]:
    """The GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them: numbers, UUIDs or MIG devices."""
    count = torch.cuda.device_count()
    variable = os.environ.get("CUDA_VISIBLE_DEVICES")
    if variable is None:
        return [str(index) for index in range(count)]
    names = [name.strip() for name in variable.split(",")]
    return [name for name in names if name][:count]


def deal_gpus(gpus: list[str], jobs: int, per_job: int | None) -> list[str]:
    """CUDA_VISIBLE_DEVICES of each local job, dealt in turn: jobs share GPUs where there are more jobs than GPUs.

    Args:
        gpus: names of the GPUs.
        jobs: number of jobs at once.
        per_job: GPUs for each job; None is one, or none where there is none.

    Raises:
        InputError: there are fewer GPUs than one job takes.
    """
    if per_job is None:
        per_job = min(1, len(gpus))
    if per_job > len(gpus):
        raise InputError(f"--gpus_per_job {per_job}: found {len(gpus) or 'no'} GPUs on this machine")
    return [",".join(gpus[(job * per_job + n) % len(gpus)] for n in range(per_job)) for job in range(jobs)]


def places(gpus: list[str], per_job: int | None) -> int:
    """How many local jobs there is room for, at least 1: their GPUs, or else a processor and memory for each.

    Jobs of one thread do more together than one with all threads, which wait for each other.

    Args:
        gpus: names of the GPUs.
        per_job: GPUs for each job; None is one, or none where there is none.
    """
    if gpus and per_job != 0:
        return max(1, len(gpus) // (per_job or 1))
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return max(1, min(processors(), int(memory / JOB_GIB)))


def processors() -> int:
    """Number of processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1

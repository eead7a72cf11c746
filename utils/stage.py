"""One run of one stage: its settings, device, data and output folder, and what every stage does with them.

stage = Stage(args, Path("outputs/finetune/ft_rte"))
if not stage.is_finished():
    ...  # load, stage.start(), train, stage.save("ckpt", model, tokenizer, result)
stage.finish(metrics, header, rows)
"""

import argparse
import contextlib
import json
import logging
import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from utils import arguments, log, processes, reading
from utils.card import model_card
from utils.errors import InputError
from utils.evaluation import evaluate, metrics_of, predict
from utils.files import has_weights, lock, read_json, release, write_json, write_text, written_beside
from utils.folder import RESULT, SUBMISSION, RunFolder, State, refuse_other_rows
from utils.machine import hardware, versions
from utils.metrics import Metrics, baseline, best_of, only_answer, predictions_of
from utils.paths import CHECKPOINT, script_name
from utils.reading import Data
from utils.resume import StateFile
from utils.seeds import set_seed
from utils.settings import SETTINGS, differences, run_id, settings
from utils.submission import write_submission
from utils.tables import diverged_of, footnotes, table
from utils.tasks import TASKS, split_path
from utils.tokenizer import Tokenizer, load_tokenizer
from utils.trackers import Tracker
from utils.training import Result, fit

logger = logging.getLogger("stark")
SHARED = ".shared.lock"  # held while writing what the processes of a spread sweep share


class Stage:
    """One run of a stage and its output folder; files appear complete or not at all.

    Of several processes, the main one writes and logs.
    """

    def __init__(self, args: argparse.Namespace, folder: Path):
        """Seed, device and log.

        Raises:
            InputError: the folder holds a run with other settings, or a checkpoint that is to be read was made with
                other rows of dev.
        """
        self.args, self.task = args, TASKS[args.task_name]
        self.folder = RunFolder(folder)
        self.names = [CHECKPOINT]  # of the checkpoints that this run makes
        self.script = script_name(args.stage)
        self.has_started = False
        self.started = self.saved = time.perf_counter()
        self.facts: dict[str, Any] = {}  # of the rows that results are reported on
        log.start()
        self.device = processes.start(args.use_cpu)
        self.dtype = arguments.precision(args)
        torch.set_float32_matmul_precision("high")  # TF32 on GPUs that have it; changes nothing on a CPU
        set_seed(args.seed)
        if processes.world_size() > 1 and "num_train_epochs" not in args:
            raise InputError(f"{self.script}: runs on one process, found {processes.world_size()}: no torchrun")
        self.settings = settings(args)
        self.tracker = Tracker(getattr(args, "report_to", "none"))
        refuse_other_rows(args, self.settings)
        self._refuse_another_run()

    def _refuse_another_run(self) -> None:
        changes = self.folder.conflicts(self.settings)
        if changes and not self.args.overwrite:
            raise InputError(
                f"{self.folder.path}: holds a run with other arguments: {'; '.join(changes)}; --overwrite starts afresh"
            )

    def is_trained(self, name: str) -> bool:
        """Whether a run with these settings has made this checkpoint."""
        return self.folder.state(name, self.settings) in (State.FINISHED, State.DIVERGED)

    def is_finished(self) -> bool:
        """Whether all checkpoints of this run are there, made with these settings, so that nothing is to be trained."""
        starts_afresh = self.args.overwrite and not self._goes_on()
        return processes.broadcast(not starts_afresh and all(map(self.is_trained, self.names)))

    def _goes_on(self) -> bool:
        """Whether the same command with --overwrite was stopped before its end."""
        return self.folder.is_being_overwritten(self.names[0], self.settings)

    def start(self) -> None:
        """Take the folder for this run's checkpoints; when all input is read, so that bad input leaves no trace.

        Raises:
            InputError: another process is writing one of them.
        """
        path = self.folder.path
        if processes.is_main():
            path.mkdir(parents=True, exist_ok=True)
            for name in self.names:
                lock(self.folder.beside(name, "lock"))
                self.folder.recover(name)
            lock(path / SHARED, wait=True)  # parts of a sweep may begin at the same moment
            if self.args.overwrite and not self._goes_on():
                self.folder.overwrite(self.names, self.settings)
            self._write_settings(path)
            release(path / SHARED)
            log.to_file(path / "log.txt")
        processes.barrier()
        self.tracker.start(path, self.settings)
        shared = f" x {processes.world_size()}" if processes.world_size() > 1 else ""
        logger.info("%s on %s%s, writing to %s", self.script, self.device, shared, path)
        self.has_started, self.saved = True, time.perf_counter()

    def _write_settings(self, folder: Path) -> None:
        write_json(folder / SETTINGS, {**self.settings, **versions(), **hardware(self.device.type)})

    def to_device(self, model: nn.Module) -> nn.Module:
        """The model on the run's device, compiled if the flags say so."""
        model = model.to(self.device)
        model.compute_plainly(self.args.no_exact_shortcuts)
        if self.args.compile:
            torch._dynamo.config.recompile_limit = 64  # models of other widths are compiled anew: ten cut teachers
            model.compile(dynamic=True)
        return model

    def load_data(self, tokenizer: Tokenizer, *configs: Any, train: bool = True) -> Data:
        """The task's examples for models of these configurations, as reading.load_data reads them."""
        data = reading.load_data(self.args, tokenizer, self.device, *configs, train=train)
        self.facts = baseline(data.dev_report.labels.cpu().numpy(), self.task.labels)
        return data

    def predict(self, model: nn.Module, examples: Any, in_float32: bool = False) -> Tensor:
        """Logits (N, C) of all examples in file order, in the precision that the flags ask for or in float32."""
        return predict(model, examples, self.args.per_device_eval_batch_size, None if in_float32 else self.dtype)

    def scoring_batches(self, examples: Any, window: int) -> Iterable[Any]:
        """Batches for mask gradients, of similar lengths within windows of so many examples in file order.

        Scores are computed in float32 whatever the flags say, and a line of log says so: a well-fitted teacher's
        gradients are less than float16 holds, and a compiled backward pass works for one loss only.
        """
        if self.dtype or self.args.compile:
            logger.info("scores are computed in float32, not compiled; the flags' precision is that of the evaluations")
        batch_size = self.args.per_device_eval_batch_size
        total = sum(-(-len(rows) // batch_size) for rows in examples.example_ids.split(window))
        batches = examples.eval_batches(batch_size, window=window)
        return log.progress(batches, total=total, desc="scoring", unit="batch", delay=3)

    def evaluate(self, model: nn.Module, examples: Any) -> Metrics:
        """The task's metrics on these examples."""
        return evaluate(model, examples, self.task.metric, self.args.per_device_eval_batch_size, self.dtype)

    def report(self, model: nn.Module, examples: Any) -> dict[str, Any]:
        """The task's metrics, and the class that the model always answers, if it does: part of a result."""
        logits = self.predict(model, examples)
        answer = only_answer(predictions_of(logits.cpu().numpy()), self.task.labels)
        return {"report": metrics_of(logits, examples, self.task.metric), "only_answer": answer}

    def train(self, name: str, model: nn.Module, data: Data, loss: Callable) -> Result:
        """Train the model of this checkpoint on the training set, or go on where a stopped run was.

        Args:
            loss: (logits (B, C), batch) -> (B,).
        """
        eval_fn = partial(self.evaluate, model, data.dev_select)
        state = StateFile(self.folder.beside(name, "state"), self.args.save_interval, run_id(self.settings))
        curves = self.tracker.curves(name)
        recipe = arguments.recipe(self.args)
        return fit(model, data.train, loss, recipe, eval_fn, self.args.selection_metric, state, curves)

    def save(self, name: str, *parts: Any, result: dict, write: Callable[[Path], None] | None = None) -> None:
        """A checkpoint, whole: each part (model, tokenizer) by its save_pretrained, settings, result, model card.

        Args:
            result: what its training came to.
            write: adds files of its own.
        """
        result = {**result, **self.facts, "seconds": round(time.perf_counter() - self.saved, 1)}
        if processes.is_main():
            with written_beside(self.folder.path / name) as beside:
                for part in parts:
                    part.save_pretrained(beside)
                if write:
                    write(beside)
                write_json(beside / RESULT, result)
                self._write_settings(beside)
                card = model_card(self.folder.path.name, name, self.settings, parts[0].config, result)
                write_text(beside / "README.md", card)
            self.folder.beside(name, "state").unlink(missing_ok=True)
        self.saved = time.perf_counter()
        processes.barrier()

    def results(self) -> dict[str, dict[str, Any]]:
        """What each checkpoint made with this run's settings came to, by name, whichever process made it.

        From here to its end this process is the only one to write beside the checkpoints, so that the last one sees
        all.
        """
        if processes.is_main():
            with contextlib.suppress(PermissionError):  # somebody else's folder, to which nothing is to be written
                lock(self.folder.path / SHARED, wait=True)
        processes.barrier()
        return self.folder.results(self.settings)

    def best(self) -> list[str]:
        """The checkpoints that do best by --selection_metric on the selecting rows: several if they tie."""
        results = self.folder.results(self.settings)
        return best_of({name: result["dev"][self.args.selection_metric] for name, result in results.items()})

    def finish(
        self,
        metrics: dict[str, Any],
        header: Iterable[str],
        rows: Iterable[Iterable[Any]],
        notes: Iterable[str] = (),
        load: Callable[[str], nn.Module] | None = None,
    ) -> None:
        """Write what is derived from the checkpoints, as far as it is missing, and print the table.

        Args:
            metrics: for metrics.json.
            header, rows: of the table.
            notes: lines below it.
            load: reads the best checkpoint's model for the test set; None if the stage predicts none.

        Raises:
            FloatingPointError: training diverged, so that what is kept is the best so far.
            InputError: the test set is to be predicted, and the best checkpoint's weights were deleted.
        """
        path, results = self.folder.path, self.folder.results(self.settings)
        if processes.is_main():
            self._write_metrics(metrics, results)
        if self.has_started:
            logger.info("done in %.1f s", time.perf_counter() - self.started)
        else:
            logger.info("%s: finished before with the same arguments; --overwrite starts afresh", path)
        logger.info("\n%s", table(header, rows))
        for line in [*footnotes(results), *notes]:
            logger.info("%s", line)
        if load and self.args.do_test:
            self._submit(load)
        if processes.is_main():
            self._tidy()
        self.tracker.stop()
        logger.info("written to %s", path)
        if diverged := diverged_of({name: result for name, result in results.items() if name in self.names}):
            raise FloatingPointError(f"{path}: {diverged}; the best weights before are kept, --overwrite starts afresh")

    def _tidy(self) -> None:
        for name in reversed(self.names):  # the mark of the first one stands for all
            # another process may be making it again, or the folder be somebody else's
            with contextlib.suppress(InputError, PermissionError):
                lock(self.folder.beside(name, "lock"))
                self.folder.tidy(name)

    def _write_metrics(self, metrics: dict[str, Any], results: dict[str, dict]) -> None:
        """Write metrics.json and args.json beside the checkpoints, unless they say so already."""
        path = self.folder.path
        before = read_json(path / RESULT)
        seconds = round(sum(result.get("seconds", 0.0) for result in results.values()), 1)
        content = {**metrics, "diverged": diverged_of(results), "seconds": seconds}
        if SUBMISSION in before:
            content[SUBMISSION] = before[SUBMISSION]
        if before != json.loads(json.dumps(content)):
            write_json(path / RESULT, content)
        if differences(read_json(path / SETTINGS), self.settings):
            self._write_settings(path)

    def _submit(self, load: Callable[[str], nn.Module]) -> None:
        """Predict the test set with the best checkpoint and write GLUE's file, unless it is there already."""
        path, name = self.folder.path, self.best()[0]
        target = path / f"{self.task.title}.tsv"
        test = split_path(self.args.task_name, self.args.data_dir, "test")
        made_from = self.folder.submission_of(name, test)
        metrics = read_json(path / RESULT)
        if processes.broadcast(target.is_file() and metrics.get(SUBMISSION) == made_from):
            return
        checkpoint = str(path / name)
        if not has_weights(path / name):
            raise InputError(
                f"{checkpoint}: its weights, which predict the test set, were deleted; --overwrite trains anew"
            )
        model = self.to_device(load(checkpoint))
        examples = reading.reader(self.args, load_tokenizer(checkpoint), self.device, model.config)("test")
        logits = self.predict(model, examples)
        if processes.is_main():
            write_submission(target, self.task, predictions_of(logits.cpu().numpy()))
            write_json(path / RESULT, {**metrics, SUBMISSION: made_from})

"""One run of one of the five scripts: loads models and data, computes, trains, saves and prints.

stage = Stage(args, Path("outputs/finetune/ft_rte"))
if not stage.is_finished():
    model = stage.load_model(args.model_path)
    data = stage.load_data(model)
    stage.start()
    result = stage.train("ckpt", model, data, task_loss)
    stage.save("ckpt", model, result=result)
stage.finish(metrics, header, rows)
"""

import argparse
import contextlib
import logging
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from models.checkpoint import load_model
from models.encoder import PrunableEncoder
from models.layer_losses import INTERMEDIATE_LOSSES, IntermediateLoss, check_widths
from models.losses import Loss, distillation_loss, student_loss, weigh_unlabelled
from models.processor import USES_ONEDNN, is_slower, vendor_and_flags
from models.pruning import initial_student
from models.scores import WINDOW, mask_gradients
from models.units import CheckpointError, Units
from utils import arguments, entry, log, processes, reading
from utils.errors import InputError
from utils.evaluation import evaluate, metrics_of, predict, teacher_logits_fn
from utils.files import has_weights, read_json, write_json
from utils.folder import RESULT, SUBMISSION
from utils.halving import rung_updates
from utils.metrics import Metrics, baseline, best_of, only_answer, predictions_of
from utils.predictions import save_predictions
from utils.reading import Data
from utils.resume import StateFile
from utils.run import Run
from utils.settings import run_id
from utils.submission import write_predictions, write_submission
from utils.tasks import SCORE_RANGE, split_path, submission_splits
from utils.tokenizer import load_tokenizer
from utils.training import Result, Schedule, fit

logger = logging.getLogger("stark")
entry_point = entry.entry_point(CheckpointError)  # decorates a script's main


class TeacherOutputs(NamedTuple):
    """What a student's distillation loss needs of its teacher, whose weights do not change."""

    logits_fn: Callable[[Any], Tensor]  # batch -> (B, C)
    model: PrunableEncoder | None  # None if its logits are cached, so that its memory is free


class Stage(Run):
    """A run's folder, settings and log (Run), with its models and data; several processes share the work."""

    def __init__(self, args: argparse.Namespace, folder: Path):
        """Set the seed, find the device, open the log; raises what Run raises."""
        super().__init__(args, folder)
        self.dtype = arguments.precision(args)
        self.intermediate_weights = arguments.intermediate_weights(args, INTERMEDIATE_LOSSES)
        self.machine["float32_products"] = "oneDNN" if USES_ONEDNN else "torch"
        if self.dtype and self.device.type == "cpu" and is_slower(self.dtype, *vendor_and_flags()):
            logger.warning("%s is slower than float32 on this processor, which lacks fast instructions", self.dtype)
        torch.set_float32_matmul_precision("high" if self.device.type == "cuda" else "highest")  # TF32 on GPUs alone

    # load models and data

    def load_model(self, path: str, fine_tuned: bool = True) -> PrunableEncoder:
        """A checkpoint's model for the run's task, on the run's device.

        Raises:
            InputError: a fine-tuned one's scores have another range than the task's.
            CheckpointError: raised by models.load_model.
        """
        return self.to_device(self._read_model(path, fine_tuned))

    def _read_model(self, path: str, fine_tuned: bool = True) -> PrunableEncoder:
        """load_model's, on the CPU; config.score_range says what its scores mean, where that is not STS-B's range."""
        model = load_model(path, self.task.labels, fine_tuned)
        of_task = self.task.score_range
        found = vars(model.config).pop("score_range", list(SCORE_RANGE))
        if not self.task.labels and fine_tuned and found != list(of_task):
            raise InputError(f"{path}: its scores have the range {found}, expected this task's {list(of_task)}")
        if of_task != SCORE_RANGE:
            model.config.score_range = list(of_task)
        return model

    def initial_student(self) -> PrunableEncoder:
        """The student before distillation, layers dropped or parameters pruned as the flags say.

        Raises:
            InputError: its checkpoint lacks the layers or the sparsity that the flags name.
        """
        args = self.args
        source = self._read_model(args.student_model_path)
        # the flags that choose the student, for an error's message
        flags = f"--student_sparsity {args.student_sparsity}"
        if args.student_sparsity is None:
            choice = "" if args.layer_choice == "first" else f" --layer_choice {args.layer_choice}"
            flags = f"--student_layer {args.student_layer}{choice}"
        try:
            student = initial_student(source, args.student_layer, args.student_sparsity, args.layer_choice)
        except CheckpointError as error:
            raise InputError(f"{flags}: {error}") from error
        return self.to_device(student)

    def to_device(self, model: PrunableEncoder) -> PrunableEncoder:
        """The model on the run's device, compiled if --compile is given."""
        model = model.to(self.device)
        model.use_exact_shortcuts(not self.args.no_exact_shortcuts)
        if self.args.compile:
            torch._dynamo.config.recompile_limit = 64  # each of the cut teachers' widths is compiled anew
            model.compile(dynamic=True)
        return model

    def load_data(self, *models: PrunableEncoder, train: bool = True) -> Data:
        """The task's examples for these models, with the tokenizer that their checkpoints share.

        Raises:
            InputError: as reading.load_data and load_tokenizer raise it.
        """
        # all models must have the same tokenizer
        paths = [getattr(self.args, f"{who}model_path", None) for who in ("", "teacher_", "student_")]
        self.tokenizer = load_tokenizer(*filter(None, paths))
        configs = [model.config for model in models]
        data = reading.load_data(self.args, self.tokenizer, self.device, *configs, train=train)
        # rows and commoner class, which stand beside the metrics
        self.facts = baseline(data.dev_report.labels.cpu().numpy(), self.task.labels)
        if data.unlabelled is not None:
            self.facts["unlabelled_rows"] = len(data.unlabelled)
        return data

    def check_intermediate_losses(self, student: PrunableEncoder, teacher: PrunableEncoder) -> None:
        """Raise InputError if a loss between layers that the flags ask for cannot compare these two models."""
        for name in self.intermediate_weights:
            try:
                check_widths(name, student.config, teacher.config)
            except CheckpointError as error:
                raise InputError(f"--{name}_weight: {error}") from error

    # compute

    def predict(self, model: PrunableEncoder, examples: Any, in_float32: bool = False) -> Tensor:
        """Logits (N, C) of all examples in file order, in the precision that the flags ask for or in float32."""
        return predict(model, examples, self.args.per_device_eval_batch_size, None if in_float32 else self.dtype)

    def evaluate(self, model: PrunableEncoder, examples: Any, is_teacher: bool = False) -> Metrics:
        """The task's metrics on these examples; logs it if the processors are busy, or a teacher off scale."""
        self.busy_processors.log()
        batch_size = self.args.per_device_eval_batch_size
        return evaluate(model, examples, self.task.metric, batch_size, self.dtype, is_teacher)

    def mask_gradients(self, model: PrunableEncoder, examples: Any, loss_fns: list[Loss]) -> list[Units]:
        """For each loss, |gradient| of every head's and neuron's mask, as models.scores.mask_gradients returns it.

        Always in float32 and not compiled, which the log says if flags ask for something else: a well-fitted teacher's
        gradients underflow in float16, and a compiled backward pass works for one loss only.
        """
        if self.dtype or self.args.compile:
            logger.info("scores are computed in float32, not compiled; the flags' precision is that of the evaluations")
        # batches of similar lengths, within windows of whole groups; half an evaluation's, since gradients take memory
        batch_size = -(-self.args.per_device_eval_batch_size // 2)
        total = sum(-(-len(rows) // batch_size) for rows in examples.example_ids.split(WINDOW))
        batches = examples.eval_batches(batch_size, window=WINDOW)
        batches = log.progress(batches, total=total, desc="scoring", unit="batch", delay=3)
        return mask_gradients(model, batches, loss_fns)

    def score_gradients(self, model: PrunableEncoder, *losses: tuple[Any, Loss]) -> list[Units]:
        """mask_gradients of several losses, each on examples of its own; those on the same share a forward pass."""
        examples, loss_fns = zip(*losses, strict=True)
        if all(other is examples[0] for other in examples):
            return self.mask_gradients(model, examples[0], list(loss_fns))
        return [units for rows, loss_fn in losses for units in self.mask_gradients(model, rows, [loss_fn])]

    @property
    def runs_teacher(self) -> bool:
        """Whether the teacher runs in every step, as losses between layers need: features are too many to cache."""
        return self.args.no_teacher_cache or bool(self.intermediate_weights)

    def teacher_outputs(self, model: PrunableEncoder, examples: Any) -> TeacherOutputs:
        """A teacher's logits on these examples, cached or computed in every step, and then the teacher itself."""
        if self.runs_teacher and self.args.compile:
            model.compile(dynamic=True)  # again, since a cut copy is not compiled
        batch_size = self.args.per_device_eval_batch_size
        logits_fn = teacher_logits_fn(model, examples, batch_size, self.dtype, cached=not self.runs_teacher)
        return TeacherOutputs(logits_fn, model if self.runs_teacher else None)

    @contextlib.contextmanager
    def distillation_loss(self, student: PrunableEncoder, teacher: TeacherOutputs) -> Iterator[Loss]:
        """The loss that this student minimises under this teacher, within `with`: on logits, plus between layers."""
        settings = {"temperature": self.args.temperature, "alpha": self.args.alpha}
        weight = self.args.unlabelled_weight if self.args.unlabelled else 1.0
        if not self.intermediate_weights:
            yield weigh_unlabelled(student_loss(teacher.logits_fn, **settings), weight)
            return
        logger.info("with %s: the teacher runs in every step", " and ".join(self.intermediate_weights))
        on_logits = partial(distillation_loss, **settings)
        with IntermediateLoss(student, teacher.model, self.intermediate_weights, on_logits, self.dtype) as loss_fn:
            yield weigh_unlabelled(loss_fn, weight)

    def train(
        self, name: str, model: PrunableEncoder, data: Data, loss_fn: Loss, pause_at: int | None = None
    ) -> Result:
        """Train a checkpoint's model on the training set, up to an update or to the end.

        Goes on where an earlier run was stopped or paused.
        """
        return fit(
            model,
            data.train,
            loss_fn,
            arguments.recipe(self.args),
            eval_fn=partial(self.evaluate, model, data.dev_select),
            selection_metric=self.args.selection_metric,
            train_state=StateFile(self.folder.beside(name, "state"), self.args.save_interval, run_id(self.settings)),
            log_metrics=self.tracker.log_metrics_fn(name),
            pause_at=pause_at,
        )

    def rungs(self, data: Data) -> list[int]:
        """The updates at which --halving compares students, and the last update, which is all without it."""
        schedule = Schedule.of(arguments.recipe(self.args), data.train)
        *rungs, total = rung_updates(self.args.halving_rungs or (), schedule.total, schedule.interval)
        if self.args.halving:
            compared = ", ".join(map(str, rungs)) or "none: no update before the last is evaluated"
            logger.info("--halving: of %d updates students are compared after %s", total, compared)
        return [*rungs, total]

    # save and finish

    def save(self, name: str, model: PrunableEncoder, *parts: Any, **options: Any) -> None:
        """Write a checkpoint: the model, its tokenizer, and what Run.save takes."""
        super().save(name, model, self.tokenizer, *parts, **options)

    def save_trained(self, name: str, model: PrunableEncoder, examples: Any, result: dict[str, Any]) -> None:
        """Write a checkpoint with the predictions of these examples, their metrics, and the class if it is the same."""
        logits = self.predict(model, examples)
        predictions = predictions_of(logits.cpu().numpy())
        answer = only_answer(self.task.from_model(predictions), self.task.labels)
        result = {**result, "report": metrics_of(logits, examples, self.task.metric), "only_answer": answer}
        write = partial(save_predictions, predictions=predictions, labels=examples.labels.cpu().numpy())
        self.save(name, model, result=result, write=write)

    def best(self) -> list[str]:
        """The names of the checkpoints with the best --selection_metric on dev_select; several if they tie.

        Those that --halving has dropped do not count, unless others of the sweep have yet to finish.
        """
        results = self.folder.results(self.settings)
        remaining = {name: result for name, result in results.items() if not result.get("dropped_at")} or results
        return best_of({name: result["dev"][self.args.selection_metric] for name, result in remaining.items()})

    def finish(self, metrics: dict[str, Any], header: Iterable[str], rows: Iterable, notes: Iterable[str] = ()) -> None:
        """Run.finish, which predicts the test set if --do_test is given."""
        super().finish(metrics, header, rows, notes, self._submit if getattr(self.args, "do_test", False) else None)

    def _submit(self) -> None:
        """Predict the test sets with the best checkpoint and write their files, unless the same are there already.

        Raises:
            InputError: the best checkpoint's weights were deleted.
        """
        # which checkpoint predicts which files; of several that tie, the first
        path = self.folder.path
        name = self.best()[0]
        splits = submission_splits(self.args.task_name, self.args.data_dir)
        tests = [split_path(self.args.task_name, self.args.data_dir, split) for split in splits.values()]
        made_from = self.folder.submission_of(name, tests)
        metrics = read_json(path / RESULT)
        are_there = all((path / target).is_file() for target in splits)
        if processes.broadcast(are_there and metrics.get(SUBMISSION) == made_from):
            return

        # read its model and the test sets
        checkpoint = str(path / name)
        if not has_weights(path / name):
            raise InputError(f"{checkpoint}: weights that predict the test set were deleted; --overwrite trains anew")
        model = self.load_model(checkpoint)
        read = reading.reader(self.args, load_tokenizer(checkpoint), self.device, model.config)
        examples = {target: read(split) for target, split in splits.items()}

        # all processes predict, one writes; a file of a test set that is gone would be an earlier checkpoint's
        logits = {target: self.predict(model, rows).cpu().numpy() for target, rows in examples.items()}
        if processes.is_main():
            for target in set(self.task.submission_names) - set(logits):
                (path / target).unlink(missing_ok=True)
            for target, rows in logits.items():
                if self.task.is_own:
                    write_predictions(path / target, self.task, rows)
                else:
                    write_submission(path / target, self.task, predictions_of(rows))
            write_json(path / RESULT, {**metrics, SUBMISSION: made_from})

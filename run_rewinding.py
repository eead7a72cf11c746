"""Stage 5, actual: rewind the student to its initial weights and distil it from the teacher at each sparsity.

    python run_rewinding.py --task_name rte --student_layer 4 --lam 0.5

With --teacher_sparsity 0 30 60 only these, so that several processes can share a sweep.
Writes outputs/rewind/{layer_dropped,parameter_pruned}/kd_<student>_<task>_<lam>/ckpt_<teacher sparsity>.
"""

import copy
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

from models.checkpoint import load_model, read_config
from models.features import Features
from models.losses import check_inside, learn_from, look_inside
from models.pruning import cut, initial_student
from models.units import CheckpointError
from utils import arguments, paths
from utils.entry import entry_point
from utils.evaluation import frozen
from utils.files import read_json
from utils.flags import number
from utils.stage import Stage
from utils.tokenizer import load_tokenizer


def parse_args(argv=None):
    parser = arguments.argument_parser(__doc__, "rewinding", model_types=("kd",))
    arguments.add_training_flags(parser, do_flag="--do_rewind")
    arguments.add_distillation_flags(parser)
    arguments.add_inside_flags(parser)
    arguments.add_student_flags(parser)
    arguments.add_score_flags(parser)
    arguments.add_teacher_cache_flag(parser)
    parser.add_argument("--teacher_model_path", help="sparse teacher (default stage 4's for this student and lam)")
    parser.add_argument(
        "--student_model_path",
        help="where the student starts (default stage 2's if --student_sparsity, else stage 1's)",
    )
    parser.add_argument(
        "--teacher_sparsity",
        nargs="+",
        type=number(int, 0, 99),
        help="percent cut from the teacher, one rewind for each (default all that its checkpoint knows)",
    )
    parser.add_argument("--output_dir", default=paths.output_dir("rewinding"), help="(default %(default)s)")
    args = arguments.parse(parser, argv)
    paths.default_paths(
        parser, args, teacher_model_path="sparsification", student_model_path=paths.student_source(args)
    )
    return args


@entry_point(CheckpointError)
def main(argv=None):
    args = parse_args(argv)
    stage = Stage(args, paths.run_folder(args))
    sparsities = paths.teacher_sparsities(args, read_config(args.teacher_model_path))
    stage.names = [paths.checkpoint_name(sparsity) for sparsity in sparsities]
    if not stage.is_finished():
        rewind(stage, args, sparsities)
    finish(stage)


class SparseTeacher(NamedTuple):
    """The teacher cut at one sparsity, as far as its student has to know it."""

    sparsity: int  # percent
    metrics: dict[str, float]
    says: Callable  # batch -> logits (B, C)
    inside: Features | None
    seconds: float  # that its logits on the training set took


def sparse_teachers(stage, teacher, sparsities, data):
    """Cut the teacher at each sparsity, one after the other, and have it predict the training set."""
    args = stage.args
    for sparsity in sparsities:
        sparse = cut(teacher, sparsity)
        metrics = stage.evaluate(sparse, data.dev_report)
        start = time.perf_counter()
        if args.compile and args.no_teacher_cache:  # computed in every step
            sparse.compile(dynamic=True)
        says = frozen(sparse, data.train, args.per_device_eval_batch_size, not args.no_teacher_cache, stage.dtype)
        inside = Features(sparse) if arguments.inside_weights(args) else None
        yield SparseTeacher(sparsity, metrics, says, inside, time.perf_counter() - start)


def rewind(stage, args, sparsities):
    """For each teacher sparsity, start the student again from its initial weights and distil it."""
    teacher = stage.to_device(load_model(args.teacher_model_path, stage.task.labels))
    tokenizer = load_tokenizer(args.teacher_model_path, args.student_model_path)
    source = load_model(args.student_model_path, stage.task.labels)
    initial = stage.to_device(initial_student(source, args.student_layer, args.student_sparsity, args.layer_choice))
    data = stage.load_data(tokenizer, teacher.config, initial.config)
    weights = arguments.inside_weights(args)
    check_inside(weights, initial.config, teacher.config)
    stage.start()

    # what the sparse teachers say of the training examples; then they are not needed any more
    untrained = [sparsity for sparsity in sparsities if not stage.is_trained(paths.checkpoint_name(sparsity))]
    teachers = sparse_teachers(stage, teacher, untrained, data)
    if not args.no_teacher_cache:
        teachers = list(teachers)
    del teacher, source

    for sparse in teachers:
        student = stage.to_device(copy.deepcopy(initial))  # again, since a copy is not compiled
        name = paths.checkpoint_name(sparse.sparsity)
        loss = learn_from(sparse.says, args.temperature, args.alpha)
        if weights:
            loss = look_inside(loss, weights, Features(student), sparse.inside)
        result = stage.train(name, student, data, loss)
        report = stage.report(student, data.dev_report)
        of_teacher = {"teacher": sparse.metrics, "teacher_seconds": sparse.seconds}
        stage.save(name, student, tokenizer, result={**of_teacher, **result._asdict(), **report})


def finish(stage):
    """Write what all sparsities came to, of this run and of others of the same sweep; print it beside the trial's."""
    metric = stage.args.selection_metric
    results = {paths.sparsity_of(name): result for name, result in stage.results().items()}
    best = [paths.sparsity_of(name) for name in stage.best()]
    trial = read_json(Path(stage.args.teacher_model_path, "metrics.json")).get("student", {})
    rows = [
        # of several that tie, none is the best
        (f"{s} *" if best == [s] else s, row["report"][metric], row["teacher"][metric], trial.get(metric))
        for s, row in results.items()
    ]
    header = ("teacher sparsity", f"student {metric}", "its teacher", "trial student")
    metrics = {"best_teacher_sparsity": best[0], "tied": best[1:], "trial_student": trial, "sparsity": results}
    notes = [f"{' and '.join(map(str, best))} % tie, none is marked as the best"] if len(best) > 1 else []
    stage.finish(metrics, header, rows, notes, load=partial(load_model, labels=stage.task.labels))


if __name__ == "__main__":
    main()

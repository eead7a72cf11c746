"""Stage 5, actual: rewind the student to its initial weights and distil it from the teacher at each sparsity.

    python run_rewinding.py --task_name rte --student_layer 4 --lam 0.5

Writes outputs/rewind/{layer_dropped,parameter_pruned}/kd_<student>_<task>_<lam>/ckpt_<teacher sparsity>.
"""

import copy
import time
from functools import partial
from pathlib import Path

from models.bert import load_model
from models.losses import learn_from
from models.pruning import cut, initial_student
from models.units import CheckpointError
from utils import arguments
from utils.batches import load_tokenizer
from utils.glue import TASKS, write_submission
from utils.metrics import predictions_of
from utils.run import Run, entry_point, read_json
from utils.training import evaluate, fit, frozen, predict


def parse_args(argv=None):
    parser = arguments.argument_parser(__doc__, model_types=("kd",))
    arguments.add_training_flags(parser, do_flag="--do_rewind")
    arguments.add_distillation_flags(parser)
    arguments.add_student_flags(parser)
    arguments.add_lam_flag(parser)
    arguments.add_teacher_cache_flag(parser)
    parser.add_argument("--teacher_model_path", help="sparse teacher (default stage 4's for this student and lam)")
    parser.add_argument(
        "--student_model_path",
        help="where the student starts (default stage 2's if --student_sparsity, else stage 1's)",
    )
    parser.add_argument("--output_dir", default="outputs/rewind", help="(default outputs/rewind)")
    args = arguments.parse(parser, argv)
    teacher = (f"outputs/stark/{arguments.student_folder(args, 'kd', lam=True)}/ckpt", "run_sparsification.py")
    arguments.default_paths(parser, args, teacher_model_path=teacher, student_model_path=arguments.student_source(args))
    return args


def sparse_teachers(teacher, train, dev, task, args):
    """At each sparsity of the teacher's map: the sparsity, the cut teacher's dev metrics, what it says, seconds."""
    dtype, batch_size = arguments.precision(args), args.per_device_eval_batch_size
    for sparsity in sorted(map(int, teacher.config.sparsity_map)):
        sparse = cut(teacher, sparsity)
        metrics = evaluate(sparse, dev, task.metric, batch_size, dtype)
        start = time.perf_counter()
        teacher_says = frozen(sparse, train, batch_size, not args.no_teacher_cache, dtype)
        yield sparsity, metrics, teacher_says, time.perf_counter() - start


@entry_point(CheckpointError)
def main(argv=None):
    args = parse_args(argv)
    task, batch_size, dtype = TASKS[args.task_name], args.per_device_eval_batch_size, arguments.precision(args)
    run = Run(args, Path(args.output_dir, arguments.student_folder(args, args.model_type, lam=True)))
    teacher = run.place(load_model(args.teacher_model_path, task.labels))
    tokenizer = load_tokenizer(args.teacher_model_path)
    source = load_model(args.student_model_path, task.labels)
    initial = run.place(initial_student(source, args.student_layer, args.student_sparsity))
    read = arguments.reader(args, tokenizer, run.device, teacher.config, initial.config)
    train, dev = read("train"), read("dev")
    test = read("test") if args.do_test else None
    run.open()

    # what every sparse teacher says of the training examples; then they are not needed any more
    teachers = sparse_teachers(teacher, train, dev, task, args)
    if not args.no_teacher_cache:
        teachers = list(teachers)
    del teacher, source

    metrics = {}
    for sparsity, teacher_metrics, teacher_says, teacher_seconds in teachers:
        # the student starts again from its initial weights
        student = copy.deepcopy(initial)
        on_dev = partial(evaluate, student, dev, task.metric, batch_size, dtype)
        loss = learn_from(teacher_says, args.temperature, args.alpha)
        result = fit(student, train, loss, arguments.recipe(args), on_dev, args.selection_metric)
        run.save(f"ckpt_{sparsity}", student, tokenizer)
        metrics[sparsity] = {"teacher": teacher_metrics, "teacher_seconds": teacher_seconds, **result._asdict()}

    best = max(metrics, key=lambda sparsity: metrics[sparsity]["dev"][args.selection_metric])
    if test:
        student = run.place(load_model(str(run.folder / f"ckpt_{best}"), task.labels))
        predictions = predictions_of(predict(student, test, batch_size, dtype).cpu().numpy())
        write_submission(run.folder / f"{task.title}.tsv", task, predictions)
    trial = read_json(Path(args.teacher_model_path).parent / "metrics.json").get("student", {})
    name = args.selection_metric
    rows = [
        (f"{sparsity} *" if sparsity == best else sparsity, row["dev"][name], row["teacher"][name], trial.get(name))
        for sparsity, row in metrics.items()
    ]
    header = ("teacher sparsity", f"student {name}", "its teacher", "trial student")
    run.finish({"best_teacher_sparsity": best, "trial_student": trial, "sparsity": metrics}, header, rows)


if __name__ == "__main__":
    main()

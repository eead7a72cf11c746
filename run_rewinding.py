"""Stage 5, actual: rewind the student to its initial weights and distil it from the teacher at each sparsity.

    python run_rewinding.py --task_name rte --student_layer 4 --lam 0.5

With --teacher_sparsity 0 30 60 only these, so that several processes can share a sweep.
Writes outputs/rewind/{layer_dropped,parameter_pruned}/kd_<student>_<task>_<lam>/ckpt_<teacher sparsity>.
"""

import copy
import time
from functools import partial
from pathlib import Path

from models.checkpoint import load_model
from models.features import Features
from models.losses import check_inside, learn_from, look_inside
from models.pruning import cut, initial_student
from models.units import CheckpointError
from utils import arguments, paths, reading
from utils.evaluation import evaluate, frozen, predict
from utils.files import read_json
from utils.flags import number
from utils.glue import TASKS
from utils.run import Run, entry_point
from utils.tokenizer import load_tokenizer
from utils.training import fit


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
    parser.add_argument("--output_dir", default="outputs/rewind", help="(default outputs/rewind)")
    args = arguments.parse(parser, argv)
    teacher = (f"outputs/stark/{paths.student_folder(args, 'kd', by_score=True)}/ckpt", "run_sparsification.py")
    paths.default_paths(parser, args, teacher_model_path=teacher, student_model_path=paths.student_source(args))
    return args


def sparse_teachers(teacher, sparsities, train, reporting, task, args):
    """At each sparsity: it, the cut teacher's dev metrics, what it says, what it says inside, the seconds that took."""
    dtype, batch_size = arguments.precision(args), args.per_device_eval_batch_size
    for sparsity in sparsities:
        sparse = cut(teacher, sparsity)
        metrics = evaluate(sparse, reporting, task.metric, batch_size, dtype)
        start = time.perf_counter()
        teacher_says = frozen(sparse, train, batch_size, not args.no_teacher_cache, dtype)
        inside = Features(sparse) if arguments.inside_weights(args) else None
        yield sparsity, metrics, teacher_says, inside, time.perf_counter() - start


@entry_point(CheckpointError)
def main(argv=None):
    args = parse_args(argv)
    task, batch_size, dtype = TASKS[args.task_name], args.per_device_eval_batch_size, arguments.precision(args)
    weights = arguments.inside_weights(args)
    run = Run(args, Path(args.output_dir, paths.student_folder(args, args.model_type, by_score=True)))
    teacher = run.place(load_model(args.teacher_model_path, task.labels))
    names = {sparsity: f"ckpt_{sparsity}" for sparsity in paths.teacher_sparsities(args, teacher.config)}
    if run.finished(*names.values()):
        return
    tokenizer = load_tokenizer(args.teacher_model_path, args.student_model_path)
    source = load_model(args.student_model_path, task.labels)
    initial = run.place(initial_student(source, args.student_layer, args.student_sparsity, args.layer_choice))
    read = reading.reader(args, tokenizer, run.device, teacher.config, initial.config)
    train, dev = read("train"), read("dev")
    test = read("test") if args.do_test else None
    selecting, reporting = reading.selecting_and_reporting(args, dev)
    check_inside(weights, initial.config, teacher.config)
    run.open(*names.values())

    # what the sparse teachers say of the training examples; then they are not needed any more
    unfinished = [sparsity for sparsity, name in names.items() if not run.result(name)]
    teachers = sparse_teachers(teacher, unfinished, train, reporting, task, args)
    if not args.no_teacher_cache:
        teachers = list(teachers)
    del teacher, source

    for sparsity, teacher_metrics, teacher_says, teacher_inside, teacher_seconds in teachers:
        # the student starts again from its initial weights
        student, name = copy.deepcopy(initial), names[sparsity]
        on_dev = partial(evaluate, student, selecting, task.metric, batch_size, dtype)
        loss = learn_from(teacher_says, args.temperature, args.alpha)
        if weights:
            loss = look_inside(loss, weights, Features(student), teacher_inside)
        recipe, kept, curves = arguments.recipe(args), run.state(name), run.tracker.curves(name)
        result = fit(student, train, loss, recipe, on_dev, args.selection_metric, kept, curves)
        report = evaluate(student, reporting, task.metric, batch_size, dtype)
        metrics = {"teacher": teacher_metrics, "teacher_seconds": teacher_seconds, **result._asdict(), "report": report}
        run.save(name, student, tokenizer, result=metrics)

    # of this run and of others that made other sparsities of the same sweep
    metrics = {int(name.split("_")[1]): result for name, result in run.results().items()}
    best = max(metrics, key=lambda sparsity: metrics[sparsity]["dev"][args.selection_metric])
    if test:
        student = run.place(load_model(str(run.folder / f"ckpt_{best}"), task.labels))
        run.submit(task, predict(student, test, batch_size, dtype))
    finish(run, dict(sorted(metrics.items())), best, args.selection_metric)


def finish(run, metrics, best, name):
    """Write what all sparsities came to, and print it beside the trial student's."""
    trial = read_json(Path(run.args.teacher_model_path).parent / "metrics.json").get("student", {})
    rows = [
        (f"{sparsity} *" if sparsity == best else sparsity, row["report"][name], row["teacher"][name], trial.get(name))
        for sparsity, row in metrics.items()
    ]
    header = ("teacher sparsity", f"student {name}", "its teacher", "trial student")
    diverged = "; ".join(f"teacher sparsity {s}: {row['diverged']}" for s, row in metrics.items() if row["diverged"])
    run.finish({"best_teacher_sparsity": best, "trial_student": trial, "sparsity": metrics}, header, rows, diverged)


if __name__ == "__main__":
    main()

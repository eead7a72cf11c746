"""Stage 3, trial: distil the dense teacher into a layer-dropped or a parameter-pruned student.

    python run_distillation.py --task_name rte --student_layer 4
    python run_distillation.py --task_name rte --student_sparsity 70

Writes outputs/distil/{layer_dropped,parameter_pruned}/kd_<student>_<task>/ckpt. With --model_type ft the student learns
from the labels alone: the baseline without a teacher.
"""

from functools import partial
from pathlib import Path

from models.checkpoint import load_model
from models.features import Features
from models.losses import check_inside, learn_from, look_inside, task_loss
from models.pruning import initial_student
from models.units import CheckpointError
from utils import arguments, paths, reading
from utils.evaluation import evaluate, frozen, predict
from utils.glue import TASKS
from utils.run import Run, entry_point
from utils.tokenizer import load_tokenizer
from utils.training import fit


def parse_args(argv=None):
    parser = arguments.argument_parser(__doc__, "distillation", model_types=("kd", "ft"))
    arguments.add_training_flags(parser, do_flag="--do_distil")
    arguments.add_distillation_flags(parser)
    arguments.add_inside_flags(parser)
    arguments.add_student_flags(parser)
    arguments.add_teacher_cache_flag(parser)
    parser.add_argument("--teacher_model_path", help="fine-tuned teacher (default outputs/finetune/ft_<task>/ckpt)")
    parser.add_argument(
        "--student_model_path",
        help="where the student starts (default stage 2's if --student_sparsity, else stage 1's)",
    )
    parser.add_argument("--output_dir", default="outputs/distil", help="(default outputs/distil)")
    args = arguments.parse(parser, argv)
    teacher = (f"outputs/finetune/ft_{args.task_name}/ckpt", "run_finetuning.py")
    paths.default_paths(parser, args, teacher_model_path=teacher, student_model_path=paths.student_source(args))
    return args


@entry_point(CheckpointError)
def main(argv=None):
    args = parse_args(argv)
    task, batch_size, dtype = TASKS[args.task_name], args.per_device_eval_batch_size, arguments.precision(args)
    weights = arguments.inside_weights(args)
    run = Run(args, Path(args.output_dir, paths.student_folder(args, args.model_type)))
    if run.finished("ckpt"):
        return
    teacher = run.place(load_model(args.teacher_model_path, task.labels))
    tokenizer = load_tokenizer(args.teacher_model_path, args.student_model_path)
    source = load_model(args.student_model_path, task.labels)
    student = run.place(initial_student(source, args.student_layer, args.student_sparsity, args.layer_choice))
    read = reading.reader(args, tokenizer, run.device, teacher.config, student.config)
    train, dev = read("train"), read("dev")
    test = read("test") if args.do_test else None
    check_inside(weights, student.config, teacher.config)
    run.open("ckpt")

    # what the dense teacher says of every training example; then it is not needed any more
    selecting, reporting = reading.selecting_and_reporting(args, dev)
    teacher_metrics = evaluate(teacher, reporting, task.metric, batch_size, dtype)
    loss = task_loss
    if args.model_type == "kd":
        teacher_says = frozen(teacher, train, batch_size, not args.no_teacher_cache, dtype)
        loss = learn_from(teacher_says, args.temperature, args.alpha)
        if weights:
            loss = look_inside(loss, weights, Features(student), Features(teacher))
    del teacher, source

    on_dev = partial(evaluate, student, selecting, task.metric, batch_size, dtype)
    recipe, kept, curves = arguments.recipe(args), run.state("ckpt"), run.tracker.curves("ckpt")
    result = fit(student, train, loss, recipe, on_dev, args.selection_metric, kept, curves)

    report = evaluate(student, reporting, task.metric, batch_size, dtype)
    metrics = {"teacher": teacher_metrics, **result._asdict(), "report": report}
    run.save("ckpt", student, tokenizer, result=metrics)
    if test:
        run.submit(task, predict(student, test, batch_size, dtype))
    rows = [("teacher", *teacher_metrics.values()), ("student", *report.values())]
    run.finish(metrics, ("", *report), rows, result.diverged)


if __name__ == "__main__":
    main()

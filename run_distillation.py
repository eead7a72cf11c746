"""Stage 3, trial: distil the dense teacher into a layer-dropped or a parameter-pruned student.

    python run_distillation.py --task_name rte --student_layer 4
    python run_distillation.py --task_name rte --student_sparsity 70

Writes outputs/distil/{layer_dropped,parameter_pruned}/kd_<student>_<task>/ckpt. With --model_type ft the student learns
from the labels alone: the baseline without a teacher.
"""

from functools import partial

from models.checkpoint import load_model
from models.features import Features
from models.losses import check_inside, learn_from, look_inside, task_loss
from models.pruning import initial_student
from models.units import CheckpointError
from utils import arguments, paths
from utils.entry import entry_point
from utils.evaluation import frozen
from utils.stage import Stage
from utils.tokenizer import load_tokenizer


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
    parser.add_argument("--output_dir", default=paths.output_dir("distillation"), help="(default %(default)s)")
    args = arguments.parse(parser, argv)
    paths.default_paths(parser, args, teacher_model_path="finetuning", student_model_path=paths.student_source(args))
    return args


@entry_point(CheckpointError)
def main(argv=None):
    args = parse_args(argv)
    stage = Stage(args, paths.run_folder(args))
    if not stage.is_finished():
        distil(stage, args)
    finish(stage)


def distil(stage, args):
    """Train a smaller student under the dense teacher, or from the labels alone."""
    teacher = stage.to_device(load_model(args.teacher_model_path, stage.task.labels))
    tokenizer = load_tokenizer(args.teacher_model_path, args.student_model_path)
    source = load_model(args.student_model_path, stage.task.labels)
    student = stage.to_device(initial_student(source, args.student_layer, args.student_sparsity, args.layer_choice))
    data = stage.load_data(tokenizer, teacher.config, student.config)
    weights = arguments.inside_weights(args)
    check_inside(weights, student.config, teacher.config)
    stage.start()
    if stage.is_trained("ckpt"):  # by another process in the meantime
        return

    # what the dense teacher says of every training example; then it is not needed any more
    teacher_metrics = stage.evaluate(teacher, data.dev_report)
    loss = task_loss
    if args.model_type == "kd":
        batch_size = args.per_device_eval_batch_size
        teacher_says = frozen(teacher, data.train, batch_size, not args.no_teacher_cache, stage.dtype)
        loss = learn_from(teacher_says, args.temperature, args.alpha)
        if weights:
            loss = look_inside(loss, weights, Features(student), Features(teacher))
    del teacher, source

    result = stage.train("ckpt", student, data, loss)
    report = stage.report(student, data.dev_report)
    stage.save("ckpt", student, tokenizer, result={"teacher": teacher_metrics, **result._asdict(), **report})


def finish(stage):
    """Write what the student came to, and print it below its teacher's."""
    result = stage.results()["ckpt"]
    rows = [("teacher", *result["teacher"].values()), ("student", *result["report"].values())]
    stage.finish(result, ("", *result["report"]), rows, load=partial(load_model, labels=stage.task.labels))


if __name__ == "__main__":
    main()

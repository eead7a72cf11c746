"""Stage 3, trial: distil the dense teacher into a layer-dropped or a parameter-pruned student.

    python run_distillation.py --task_name rte --student_layer 4
    python run_distillation.py --task_name rte --student_sparsity 70
    python run_distillation.py --task_name sst2 --student_layer 4 --unlabelled reviews.txt

Writes outputs/distil/{layer_dropped,parameter_pruned}/kd_<student>_<task>/ckpt. With --model_type ft the student learns
from the labels alone: the baseline without a teacher.
"""

from models.layer_losses import INTERMEDIATE_LOSSES
from models.losses import task_loss
from stage import Stage, entry_point
from utils import arguments, paths


def parse_args(argv=None):
    parser = arguments.argument_parser(__doc__, "distillation", model_types=("kd", "ft"))
    arguments.add_training_flags(parser, do_flag="--do_distil")
    arguments.add_distillation_flags(parser)
    arguments.add_student_flags(parser)
    arguments.add_teacher_flags(parser, INTERMEDIATE_LOSSES)
    parser.add_argument("--teacher_model_path", help="fine-tuned teacher (default outputs/finetune/ft_<task>/ckpt)")
    text = "the student's initial weights (default stage 2's if --student_sparsity is given, else stage 1's)"
    parser.add_argument("--student_model_path", help=text)
    args = arguments.parse(parser, argv)
    paths.default_paths(parser, args, teacher_model_path="finetuning", student_model_path=paths.student_source(args))
    return args


@entry_point
def main(argv=None):
    args = parse_args(argv)
    stage = Stage(args, paths.run_folder(args))
    if not stage.is_finished():
        distil(stage, args)
    finish(stage)


def distil(stage, args):
    """Train a smaller student with the dense teacher, or with the labels alone."""
    # read everything before anything is written
    teacher = stage.load_model(args.teacher_model_path)
    student = stage.initial_student()
    stage.check_intermediate_losses(student, teacher)
    data = stage.load_data(teacher, student)
    stage.start()
    if stage.is_trained("ckpt"):  # by another process in the meantime
        return

    # train the student, by default from the teacher's logits on the training set, cached so that its memory is free
    teacher_metrics = stage.evaluate(teacher, data.dev_report, is_teacher=True)
    if args.model_type == "ft":
        result = stage.train("ckpt", student, data, task_loss)
    else:
        teacher_outputs = stage.teacher_outputs(teacher, data.train)
        del teacher
        with stage.distillation_loss(student, teacher_outputs) as loss_fn:
            result = stage.train("ckpt", student, data, loss_fn)

    # save the best weights with their metrics and the teacher's
    stage.save_trained("ckpt", student, data.dev_report, {"teacher": teacher_metrics, **result._asdict()})


def finish(stage):
    """Write the run's metrics and print the student's below its teacher's."""
    result = stage.results()["ckpt"]
    rows = [("teacher", *result["teacher"].values()), ("student", *result["report"].values())]
    stage.finish(result, ("", *result["report"]), rows)


if __name__ == "__main__":
    main()

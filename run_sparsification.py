"""Stage 4: sort the teacher's heads and neurons by knowledgeableness, with the trial student's help.

    python run_sparsification.py --task_name rte --student_layer 4 --lam 0.5

Writes outputs/stark/{layer_dropped,parameter_pruned}/kd_<student>_<task>_<lam>/ckpt: a teacher that can be cut at any
sparsity, as run_rewinding.py does.
"""

from models.losses import distillation_loss, task_loss, teacher_loss
from models.pruning import cut_ever_deeper, sort_units
from models.scores import all_scores, check_uncut, group_means, normalise, save_scores
from stage import Stage, entry_point
from utils import arguments, paths
from utils.unlabelled_flags import add_score_split_flags


def parse_args(argv=None):
    parser = arguments.argument_parser(__doc__, "sparsification", model_types=("kd",))
    arguments.add_student_flags(parser)
    arguments.add_score_flags(parser)
    add_score_split_flags(parser)
    arguments.add_distillation_flags(parser)
    parser.add_argument("--teacher_model_path", help="fine-tuned teacher (default outputs/finetune/ft_<task>/ckpt)")
    parser.add_argument("--student_model_path", help="trial student (default stage 3's)")
    args = arguments.parse(parser, argv)
    paths.default_paths(parser, args, teacher_model_path="finetuning", student_model_path="distillation")
    return args


@entry_point
def main(argv=None):
    args = parse_args(argv)
    stage = Stage(args, paths.run_folder(args))
    if not stage.is_finished():
        sparsify(stage, args)
    finish(stage)


def sparsify(stage, args):
    """Sort the teacher's units, the most knowledgeable of every layer first: cutting takes them from the end."""
    # read everything before anything is written
    teacher = stage.load_model(args.teacher_model_path)
    student = stage.load_model(args.student_model_path)
    check_uncut(teacher)
    data = stage.load_data(teacher, student, train=args.score_split == "train")
    stage.start()
    if stage.is_trained("ckpt"):  # by another process in the meantime
        return

    # how far do the task loss (expressive) and the distillation loss against the student (friendly) move when a unit
    # of the teacher is switched off? Only the first needs labels
    labelled = data.train if args.score_split == "train" else data.dev_select
    examples = data.unlabelled if args.score_split == "unlabelled" else labelled
    teacher_logits, student_logits = (stage.predict(m, examples, in_float32=True) for m in (teacher, student))
    friendly_loss = teacher_loss(student_logits, args.temperature, args.alpha)
    gradients = stage.score_gradients(teacher, (labelled, task_loss), (examples, friendly_loss))
    expressive, friendly = map(normalise, gradients)
    scores = all_scores(teacher, expressive, friendly, args.lam, args.score, args.seed)

    # best units first; cutting takes them from the end
    sort_units(teacher, scores[args.score])
    by_sparsity = {s: stage.evaluate(cut, data.dev_report, is_teacher=True) for s, cut in cut_ever_deeper(teacher)}

    # save the sorted teacher with its scores
    losses = distillation_loss(student_logits, teacher_logits, examples, args.temperature, args.alpha)
    result = {
        "student": stage.evaluate(student, data.dev_report),
        "sparsity": by_sparsity,
        f"distillation_loss_per_{args.score_split}_batch": group_means(losses),
    }
    stage.save("ckpt", teacher, result=result, write=lambda folder: save_scores(folder, **scores))


def finish(stage):
    """Write the run's metrics and print those at each sparsity of the teacher."""
    result = stage.results()["ckpt"]
    by_sparsity = result["sparsity"]
    rows = [(sparsity, *metrics.values()) for sparsity, metrics in by_sparsity.items()]
    stage.finish(result, ("sparsity", *by_sparsity["0"]), rows)


if __name__ == "__main__":
    main()

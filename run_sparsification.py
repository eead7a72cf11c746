"""Stage 4: sort the teacher's heads and neurons by knowledgeableness, with the trial student's help.

    python run_sparsification.py --task_name rte --student_layer 4 --lam 0.5

Writes outputs/stark/{layer_dropped,parameter_pruned}/kd_<student>_<task>_<lam>/ckpt: a teacher that can be cut at any
sparsity, as run_rewinding.py does.
"""

from pathlib import Path

from models.checkpoint import load_model
from models.losses import distance_to, distillation_loss, task_loss
from models.pruning import SPARSITIES, cut, sort_units
from models.scores import (
    check_uncut,
    group_means,
    interpolate,
    magnitudes,
    mask_gradients,
    normalise,
    random_scores,
    save_scores,
)
from models.units import CheckpointError
from utils import arguments, paths, reading
from utils.evaluation import autocast, evaluate, predict
from utils.glue import TASKS
from utils.run import Run, entry_point
from utils.tokenizer import load_tokenizer


def parse_args(argv=None):
    parser = arguments.argument_parser(__doc__, "sparsification", model_types=("kd",))
    arguments.add_student_flags(parser)
    arguments.add_score_flags(parser)
    parser.add_argument("--score_split", choices=("dev", "train"), default="dev", help="what scores (default dev)")
    arguments.add_distillation_flags(parser)
    parser.add_argument("--teacher_model_path", help="fine-tuned teacher (default outputs/finetune/ft_<task>/ckpt)")
    parser.add_argument("--student_model_path", help="trial student (default stage 3's)")
    parser.add_argument("--output_dir", default="outputs/stark", help="(default outputs/stark)")
    args = arguments.parse(parser, argv)
    teacher = (f"outputs/finetune/ft_{args.task_name}/ckpt", "run_finetuning.py")
    student = (f"outputs/distil/{paths.student_folder(args, 'kd')}/ckpt", "run_distillation.py")
    paths.default_paths(parser, args, teacher_model_path=teacher, student_model_path=student)
    return args


@entry_point(CheckpointError)
def main(argv=None):
    args = parse_args(argv)
    task, batch_size, dtype = TASKS[args.task_name], args.per_device_eval_batch_size, arguments.precision(args)
    run = Run(args, Path(args.output_dir, paths.student_folder(args, args.model_type, by_score=True)))
    if run.finished("ckpt"):
        return
    teacher = run.place(load_model(args.teacher_model_path, task.labels))
    tokenizer = load_tokenizer(args.teacher_model_path, args.student_model_path)
    student = run.place(load_model(args.student_model_path, task.labels))
    read = reading.reader(args, tokenizer, run.device, teacher.config, student.config)
    selecting, reporting = reading.selecting_and_reporting(args, read("dev"))
    scoring = selecting if args.score_split == "dev" else read("train")
    check_uncut(teacher)
    run.open("ckpt")

    # how far do the task loss and the gap to the student move when a unit of the teacher is switched off?
    teacher_logits, student_logits = (predict(model, scoring, batch_size, dtype) for model in (teacher, student))
    distance = distance_to(student_logits, args.temperature, args.alpha)
    with autocast(teacher, dtype):
        gradients = mask_gradients(teacher, scoring.by_length(batch_size), [task_loss, distance])
    expressive, friendly = (normalise(gradient) for gradient in gradients)
    scores = {"expressive": expressive, "friendly": friendly}
    scores["knowledgeable"] = interpolate(expressive, friendly, args.lam)
    if args.score == "random":
        scores["random"] = random_scores(teacher, args.seed)
    if args.score == "magnitude":
        scores["magnitude"] = normalise(magnitudes(teacher))

    # the most knowledgeable units of every layer first: cutting takes them from the end
    sort_units(teacher, scores[args.score])
    by_sparsity = {s: evaluate(cut(teacher, s), reporting, task.metric, batch_size, dtype) for s in SPARSITIES}

    losses = distillation_loss(student_logits, teacher_logits, scoring, args.temperature, args.alpha)
    metrics = {
        "student": evaluate(student, reporting, task.metric, batch_size, dtype),
        "sparsity": by_sparsity,
        f"distillation_loss_per_{args.score_split}_batch": group_means(losses),
    }
    run.save("ckpt", teacher, tokenizer, result=metrics, write=lambda folder: save_scores(folder, **scores))
    run.finish(metrics, ("sparsity", *by_sparsity[0]), ((s, *row.values()) for s, row in by_sparsity.items()))


if __name__ == "__main__":
    main()

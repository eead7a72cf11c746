"""Stage 2: sort the heads and neurons of a fine-tuned model by expressiveness, so that it can be cut at any sparsity.

    python run_pruning.py --task_name rte

Writes outputs/prune/ft_<task>/ckpt, which run_distillation.py cuts at --student_sparsity.
"""

from pathlib import Path

from models.checkpoint import load_model
from models.losses import task_loss
from models.pruning import SPARSITIES, cut, sort_units
from models.scores import check_uncut, group_means, mask_gradients, normalise, save_scores
from models.units import CheckpointError
from utils import arguments, paths, reading
from utils.evaluation import autocast, evaluate, predict
from utils.glue import TASKS
from utils.run import Run, entry_point
from utils.tokenizer import load_tokenizer


def parse_args(argv=None):
    parser = arguments.argument_parser(__doc__, "pruning", model_types=("ft",))
    parser.add_argument("--model_path", help="fine-tuned model (default outputs/finetune/ft_<task>/ckpt)")
    parser.add_argument("--output_dir", default="outputs/prune", help="(default outputs/prune)")
    args = arguments.parse(parser, argv)
    paths.default_paths(parser, args, model_path=(f"outputs/finetune/ft_{args.task_name}/ckpt", "run_finetuning.py"))
    return args


@entry_point(CheckpointError)
def main(argv=None):
    args = parse_args(argv)
    task, batch_size, dtype = TASKS[args.task_name], args.per_device_eval_batch_size, arguments.precision(args)
    run = Run(args, Path(args.output_dir, f"{args.model_type}_{args.task_name}"))
    if run.finished("ckpt"):
        return
    model = run.place(load_model(args.model_path, task.labels))
    tokenizer = load_tokenizer(args.model_path)
    read = reading.reader(args, tokenizer, run.device, model.config)
    selecting, reporting = reading.selecting_and_reporting(args, read("dev"))
    check_uncut(model)
    run.open("ckpt")

    # how far does the task loss move when a unit is switched off?
    losses = task_loss(predict(model, selecting, batch_size, dtype), selecting)
    with autocast(model, dtype):
        [gradients] = mask_gradients(model, selecting.by_length(batch_size), [task_loss])
    expressive = normalise(gradients)

    # the best units of every layer first: cutting takes them from the end
    sort_units(model, expressive)
    by_sparsity = {s: evaluate(cut(model, s), reporting, task.metric, batch_size, dtype) for s in SPARSITIES}

    metrics = {"sparsity": by_sparsity, "task_loss_per_dev_batch": group_means(losses)}
    run.save("ckpt", model, tokenizer, result=metrics, write=lambda folder: save_scores(folder, expressive=expressive))
    run.finish(metrics, ("sparsity", *by_sparsity[0]), ((s, *row.values()) for s, row in by_sparsity.items()))


if __name__ == "__main__":
    main()

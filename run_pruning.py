"""Stage 2: sort the heads and neurons of a fine-tuned model by expressiveness, so that it can be cut at any sparsity.

    python run_pruning.py --task_name rte

Writes outputs/prune/ft_<task>/ckpt, which run_distillation.py cuts at --student_sparsity.
"""

from models.losses import task_loss
from models.pruning import cut_ever_deeper, sort_units
from models.scores import check_uncut, group_means, normalise, save_scores
from stage import Stage, entry_point
from utils import arguments, paths


def parse_args(argv=None):
    parser = arguments.argument_parser(__doc__, "pruning", model_types=("ft",))
    parser.add_argument("--model_path", help="fine-tuned model (default outputs/finetune/ft_<task>/ckpt)")
    args = arguments.parse(parser, argv)
    paths.default_paths(parser, args, model_path="finetuning")
    return args


@entry_point
def main(argv=None):
    args = parse_args(argv)
    stage = Stage(args, paths.run_folder(args))
    if not stage.is_finished():
        prune(stage, args)
    finish(stage)


def prune(stage, args):
    """Sort the units of every layer, the most expressive first: cutting takes them from the end."""
    # read everything before anything is written
    model = stage.load_model(args.model_path)
    check_uncut(model)
    data = stage.load_data(model, train=False)
    stage.start()
    if stage.is_trained("ckpt"):  # by another process in the meantime
        return

    # how far does the task loss move when a unit is switched off?
    losses = task_loss(stage.predict(model, data.dev_select, in_float32=True), data.dev_select)
    [gradients] = stage.mask_gradients(model, data.dev_select, [task_loss])
    expressive = normalise(gradients)

    # best units first; cutting takes them from the end
    sort_units(model, expressive)
    by_sparsity = {s: stage.evaluate(cut, data.dev_report, is_teacher=True) for s, cut in cut_ever_deeper(model)}

    # save the sorted model with its scores
    result = {"sparsity": by_sparsity, "task_loss_per_dev_batch": group_means(losses)}
    stage.save("ckpt", model, result=result, write=lambda folder: save_scores(folder, expressive=expressive))


def finish(stage):
    """Write the run's metrics and print those at each sparsity."""
    result = stage.results()["ckpt"]
    by_sparsity = result["sparsity"]
    rows = [(sparsity, *metrics.values()) for sparsity, metrics in by_sparsity.items()]
    stage.finish(result, ("sparsity", *by_sparsity["0"]), rows)


if __name__ == "__main__":
    main()

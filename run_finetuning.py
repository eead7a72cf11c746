"""Stage 1: fine-tune a pretrained encoder on a task; the result is the dense teacher.

    python run_finetuning.py --task_name rte --model_path bert-base-uncased

Writes outputs/finetune/ft_<task>/ckpt.
"""

from models.losses import task_loss
from stage import Stage, entry_point
from utils import arguments, paths


def parse_args(argv=None):
    parser = arguments.argument_parser(__doc__, "finetuning", model_types=("ft",))
    arguments.add_training_flags(parser, do_flag="--do_train")
    parser.add_argument("--model_path", default="bert-base-uncased", help="folder or hub name of a pretrained encoder")
    return arguments.parse(parser, argv)


@entry_point
def main(argv=None):
    args = parse_args(argv)
    stage = Stage(args, paths.run_folder(args))
    if not stage.is_finished():
        finetune(stage, args)
    finish(stage)


def finetune(stage, args):
    """Train a pretrained encoder with a new classifier for the task's labels."""
    # read everything before anything is written
    model = stage.load_model(args.model_path, fine_tuned=False)
    data = stage.load_data(model)
    stage.start()
    if stage.is_trained("ckpt"):  # by another process in the meantime
        return

    # train, then save the weights of the best evaluation with their metrics
    result = stage.train("ckpt", model, data, task_loss)
    stage.save_trained("ckpt", model, data.dev_report, result._asdict())


def finish(stage):
    """Write the run's metrics and print them."""
    result = stage.results()["ckpt"]
    rows = [(result["best_update"], *result["report"].values())]
    stage.finish(result, ("update", *result["report"]), rows)


if __name__ == "__main__":
    main()

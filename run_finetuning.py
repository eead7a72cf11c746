"""Stage 1: fine-tune a pretrained BERT on a task; the result is the dense teacher.

    python run_finetuning.py --task_name rte --model_path bert-base-uncased

Writes outputs/finetune/ft_<task>/ckpt.
"""

from functools import partial

from models.checkpoint import load_model
from models.losses import task_loss
from models.units import CheckpointError
from utils import arguments, paths
from utils.entry import entry_point
from utils.stage import Stage
from utils.tokenizer import load_tokenizer


def parse_args(argv=None):
    parser = arguments.argument_parser(__doc__, "finetuning", model_types=("ft",))
    arguments.add_training_flags(parser, do_flag="--do_train")
    parser.add_argument(
        "--model_path", default="bert-base-uncased", help="folder or hub name of any BERT (default bert-base-uncased)"
    )
    parser.add_argument("--output_dir", default=paths.output_dir("finetuning"), help="(default %(default)s)")
    return arguments.parse(parser, argv)


@entry_point(CheckpointError)
def main(argv=None):
    args = parse_args(argv)
    stage = Stage(args, paths.run_folder(args))
    if not stage.is_finished():
        finetune(stage, args)
    finish(stage)


def finetune(stage, args):
    """Train a pretrained encoder and a new classifier for the task's labels."""
    model = stage.to_device(load_model(args.model_path, stage.task.labels, fine_tuned=False))
    tokenizer = load_tokenizer(args.model_path)
    data = stage.load_data(tokenizer, model.config)
    stage.start()
    if stage.is_trained("ckpt"):  # by another process in the meantime
        return

    result = stage.train("ckpt", model, data, task_loss)
    stage.save("ckpt", model, tokenizer, result={**result._asdict(), **stage.report(model, data.dev_report)})


def finish(stage):
    """Write what the teacher came to, and print it."""
    result = stage.results()["ckpt"]
    rows = [(result["best_update"], *result["report"].values())]
    stage.finish(result, ("update", *result["report"]), rows, load=partial(load_model, labels=stage.task.labels))


if __name__ == "__main__":
    main()

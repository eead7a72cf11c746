"""Stage 1: fine-tune a pretrained BERT on a task; the result is the dense teacher.

    python run_finetuning.py --task_name rte --model_path bert-base-uncased

Writes outputs/finetune/ft_<task>/ckpt.
"""

from functools import partial
from pathlib import Path

from models.checkpoint import load_model
from models.losses import task_loss
from models.units import CheckpointError
from utils import arguments, reading
from utils.evaluation import evaluate, predict
from utils.glue import TASKS
from utils.run import Run, entry_point
from utils.tokenizer import load_tokenizer
from utils.training import fit


def parse_args(argv=None):
    parser = arguments.argument_parser(__doc__, "finetuning", model_types=("ft",))
    arguments.add_training_flags(parser, do_flag="--do_train")
    parser.add_argument(
        "--model_path", default="bert-base-uncased", help="folder or hub name of any BERT (default bert-base-uncased)"
    )
    parser.add_argument("--output_dir", default="outputs/finetune", help="(default outputs/finetune)")
    return arguments.parse(parser, argv)


@entry_point(CheckpointError)
def main(argv=None):
    args = parse_args(argv)
    task, batch_size, dtype = TASKS[args.task_name], args.per_device_eval_batch_size, arguments.precision(args)
    run = Run(args, Path(args.output_dir, f"{args.model_type}_{args.task_name}"))
    if run.finished("ckpt"):
        return

    # a pretrained encoder and a new classifier for the task's labels
    model = run.place(load_model(args.model_path, task.labels, fine_tuned=False))
    tokenizer = load_tokenizer(args.model_path)
    read = reading.reader(args, tokenizer, run.device, model.config)
    train, dev = read("train"), read("dev")
    test = read("test") if args.do_test else None
    run.open("ckpt")

    selecting, reporting = reading.selecting_and_reporting(args, dev)
    on_dev = partial(evaluate, model, selecting, task.metric, batch_size, dtype)
    recipe, kept, curves = arguments.recipe(args), run.state("ckpt"), run.tracker.curves("ckpt")
    result = fit(model, train, task_loss, recipe, on_dev, args.selection_metric, kept, curves)

    report = evaluate(model, reporting, task.metric, batch_size, dtype)
    metrics = {**result._asdict(), "report": report}
    run.save("ckpt", model, tokenizer, result=metrics)
    if test:
        run.submit(task, predict(model, test, batch_size, dtype))
    run.finish(metrics, ("update", *report), [(result.best_update, *report.values())], result.diverged)


if __name__ == "__main__":
    main()

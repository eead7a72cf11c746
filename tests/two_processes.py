"""Started by tests/test_processes.py with torchrun: the same training and predictions on several processes.

PYTHONPATH=. torchrun --nproc_per_node 2 tests/two_processes.py bert result.json datasets
"""

import copy
import json
import sys
from functools import partial
from pathlib import Path

import torch
from conftest import small_config
from test_training import QUICK, make_examples

import run_pruning
from models.bert import PrunableBert
from models.layer_losses import IntermediateLoss
from models.losses import distillation_loss
from utils import processes
from utils.evaluation import evaluate, predict
from utils.tokenizer import load_tokenizer
from utils.training import fit

BATCHES = [(8, 1), (4, 2)]  # of one process: examples, and how many batches make an update
ROWS = (1, 2, 21, 33)


def results(tokenizer) -> dict:
    """Histories of training without dropout at each batch size, with layers compared, and logits of small sets."""
    torch.manual_seed(0)
    model = PrunableBert(small_config(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0))
    model.cls[2].p = 0.0
    initial = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    train, dev = make_examples(tokenizer, 33), make_examples(tokenizer, 21)  # 33 leave an update of one example
    teacher = copy.deepcopy(model)
    on_logits = partial(distillation_loss, temperature=2.0, alpha=0.5)
    histories = []
    for batch_size, accumulated in BATCHES:
        model.load_state_dict(initial)
        recipe = QUICK._replace(batch_size=batch_size // processes.world_size(), num_grad_accum_steps=accumulated)
        with IntermediateLoss(model, teacher, {"tinybert": 1.0}, on_logits) as loss_fn:
            result = fit(
                model,
                train,
                loss_fn,
                recipe,
                eval_fn=lambda: evaluate(model, dev, "acc", 8),
                selection_metric="acc",
            )
        histories.append(result.history)
    logits = [predict(model, make_examples(tokenizer, rows), 8).tolist() for rows in ROWS]
    return {"histories": histories, "logits": logits}


if __name__ == "__main__":
    processes.start(use_cpu=True)
    torch.set_num_threads(1)
    rank = processes.rank()
    collectives = {
        "broadcast": processes.broadcast(rank),
        "sum": processes.all_reduce_sum(torch.tensor(rank + 1)).item(),
    }
    by_rank = processes.all_gather({**results(load_tokenizer(sys.argv[1])), **collectives})
    if processes.is_main():
        Path(sys.argv[2]).write_text(json.dumps(by_rank))
    run_pruning.main(["--model_path", sys.argv[1], "--data_dir", sys.argv[3]])  # a stage that is not for several

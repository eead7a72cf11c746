"""What a stage keeps in memory."""

import gc
import weakref

import pytest
import torch

import run_distillation
from models.losses import task_loss
from stage import Stage
from utils import log, paths

FLAGS = ["--teacher_model_path", "teacher", "--student_model_path", "teacher", "--max_length", "40", "--use_cpu"]


@pytest.mark.parametrize(
    ("flags", "is_kept"), [([], False), (["--no_teacher_cache"], True), (["--pkd_weight", "1"], True)]
)
def test_a_teacher_is_kept_only_if_it_runs_in_every_step(workplace, flags, is_kept):
    args = run_distillation.parse_args([*FLAGS, *flags])
    stage = Stage(args, paths.run_folder(args))
    teacher = stage.load_model("teacher")
    data = stage.load_data(teacher)
    outputs = stage.teacher_outputs(teacher, data.train)
    expected = stage.predict(teacher, data.train)
    reference = weakref.ref(teacher)
    del teacher
    gc.collect()
    assert (reference() is not None) == is_kept
    batch = data.train.batch(torch.arange(7))
    torch.testing.assert_close(outputs.logits_fn(batch), expected[:7], atol=1e-5, rtol=0)
    log.stop()


@pytest.mark.parametrize(("size", "rows"), [("8", 4), ("7", 4), ("1", 1)])
def test_scoring_takes_half_the_rows_of_an_evaluation_at_once(workplace, monkeypatch, size, rows):
    args = run_distillation.parse_args([*FLAGS, "--per_device_eval_batch_size", size])
    stage = Stage(args, paths.run_folder(args))
    teacher = stage.load_model("teacher")
    data = stage.load_data(teacher)
    forward, sizes = teacher.forward, []
    monkeypatch.setattr(teacher, "forward", lambda ids, *others: sizes.append(len(ids)) or forward(ids, *others))
    stage.mask_gradients(teacher, data.dev_select, [task_loss])
    assert max(sizes) == rows
    assert sum(sizes) == len(data.dev_select)
    log.stop()

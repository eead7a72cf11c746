"""What a stage keeps in memory."""

import gc
import weakref

import pytest
import torch

import run_distillation
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

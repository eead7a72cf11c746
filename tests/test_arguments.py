"""The command line: defaults, ranges and choices of flags, and the commands in README and scripts."""

import re
import shlex
from pathlib import Path

import pytest
import torch
from conftest import REFERENCE, refused

import run_distillation
import run_finetuning
import run_pruning
import run_rewinding
import run_sparsification
from models.layer_losses import INTERMEDIATE_LOSSES
from utils.arguments import recipe
from utils.paths import run_folder
from utils.recipe import Recipe

ROOT = Path(__file__).parent.parent
STAGES = {
    module.__name__: module
    for module in (run_finetuning, run_pruning, run_distillation, run_sparsification, run_rewinding)
}


@pytest.fixture
def stages_done(tmp_path, monkeypatch) -> Path:
    """A folder in which the default paths of RTE and lam 0.5 exist."""
    monkeypatch.chdir(tmp_path)
    for folder in (
        *("datasets/rte", "outputs/finetune/ft_rte/ckpt", "outputs/prune/ft_rte/ckpt"),
        *(f"outputs/distil/{student}_rte/ckpt" for student in ("layer_dropped/kd_4", "parameter_pruned/kd_70")),
        *(f"outputs/stark/{student}_rte_0.5/ckpt" for student in ("layer_dropped/kd_4", "parameter_pruned/kd_70")),
    ):
        (tmp_path / folder).mkdir(parents=True)
    return tmp_path


COMMON = {
    **{"task_name": "rte", "data_dir": "datasets", "data_type": "combined", "max_length": 128, "seed": 776},
    **{"max_train_examples": None, "max_eval_examples": None, "selection_split": "dev", "use_cpu": False},
    **{"per_device_eval_batch_size": 32, "use_fp16": False, "use_bf16": False, "compile": False, "overwrite": False},
    **{"debug": False, "pad_to_max_length": False, "no_group_by_length": False, "no_exact_shortcuts": False},
}
TRAINING = {  # the paper's for RTE
    **{"per_device_train_batch_size": 16, "num_grad_accum_steps": 1, "learning_rate": 3e-5, "weight_decay": 1e-2},
    **{"num_train_epochs": 10, "num_patience_epochs": 5, "warmup_proportion": 0.1, "max_grad_norm": 5.0},
    **{"lr_scheduler_type": "linear", "log_interval": None, "save_interval": None, "report_to": "none"},
    **{"selection_metric": "acc", "do_test": False},
}
LOSS = {"temperature": 2.0, "alpha": 0.5}
UNLABELLED = {"unlabelled": None, "unlabelled_weight": None, "unlabelled_per_epoch": None}
BETWEEN = {**UNLABELLED, **{f"{name}_weight": 0.0 for name in INTERMEDIATE_LOSSES}, "no_teacher_cache": False}
STUDENT = {"student_layer": 4, "layer_choice": "first", "student_sparsity": None}
SCORE = {"score": "knowledgeable", "lam": 0.5}
DENSE, SPARSE = "outputs/finetune/ft_rte/ckpt", "outputs/stark/layer_dropped/kd_4_rte_0.5/ckpt"
TRIAL = "outputs/distil/layer_dropped/kd_4_rte/ckpt"
DEFAULTS = {
    "run_finetuning": {**TRAINING, "do_train": False, "model_type": "ft"}
    | {"model_path": "bert-base-uncased", "output_dir": "outputs/finetune"},
    "run_pruning": {"model_type": "ft", "model_path": DENSE, "output_dir": "outputs/prune"},
    "run_distillation": {**TRAINING, **LOSS, **BETWEEN, **STUDENT, "do_distil": False, "model_type": "kd"}
    | {"teacher_model_path": DENSE, "student_model_path": DENSE, "output_dir": "outputs/distil"},
    "run_sparsification": {**LOSS, **STUDENT, **SCORE, "score_split": "dev", "unlabelled": None, "model_type": "kd"}
    | {"teacher_model_path": DENSE, "student_model_path": TRIAL, "output_dir": "outputs/stark"},
    "run_rewinding": {**TRAINING, **LOSS, **BETWEEN, **STUDENT, **SCORE, "do_rewind": False, "model_type": "kd"}
    | {"teacher_model_path": SPARSE, "student_model_path": DENSE, "output_dir": "outputs/rewind"}
    | dict.fromkeys(["teacher_sparsity", "teacher_schedule", "match_spread", "halving", "halving_rungs"]),
}

FOLDERS = {
    **{"run_finetuning": "outputs/finetune/ft_rte", "run_pruning": "outputs/prune/ft_rte"},
    "run_distillation": "outputs/distil/layer_dropped/kd_4_rte",
    "run_sparsification": "outputs/stark/layer_dropped/kd_4_rte_0.5",
    "run_rewinding": "outputs/rewind/layer_dropped/kd_4_rte_0.5",
}


@pytest.mark.parametrize("name", STAGES)
def test_defaults_of_every_stage(stages_done, name):
    args = STAGES[name].parse_args([])
    assert vars(args) == {**COMMON, **DEFAULTS[name], "stage": name.removeprefix("run_")}
    assert str(run_folder(args)) == FOLDERS[name]


@pytest.mark.parametrize(
    ("tasks", "batch_size", "epochs"),
    [("rte mrpc stsb cola wnli", 16, 10), ("sst2 qnli", 32, 5), ("qqp mnli mnlimm", 32, 3)],
)
def test_sizes_of_training_default_to_the_tasks_unless_a_flag_is_given(tmp_path, tasks, batch_size, epochs):
    for task in tasks.split():
        (tmp_path / task).mkdir()
        flags = ["--task_name", task, "--data_dir", str(tmp_path)]
        found = recipe(run_finetuning.parse_args(flags))
        assert (found.batch_size, found.learning_rate, found.num_train_epochs) == (batch_size, 3e-5, epochs)
        given = ["--per_device_train_batch_size", "7", "--learning_rate", "0", "--num_train_epochs", "1"]
        found = recipe(run_finetuning.parse_args([*flags, *given]))
        assert (found.batch_size, found.learning_rate, found.num_train_epochs) == (7, 0, 1)


def test_the_training_flags_are_the_loops_recipe(stages_done):
    flags = ["--num_train_epochs", "3", "--per_device_train_batch_size", "7", "--use_bf16", "--no_exact_shortcuts"]
    found = recipe(STAGES["run_distillation"].parse_args(flags))
    assert (found.num_train_epochs, found.batch_size, found.dtype, found.exact_shortcuts) == (
        3,
        7,
        torch.bfloat16,
        False,
    )
    assert recipe(STAGES["run_distillation"].parse_args(["--use_fp16"])).dtype is torch.float16
    assert recipe(STAGES["run_distillation"].parse_args([])) == Recipe()


SCHEDULERS = ["linear", "cosine", "cosine_with_restarts", "polynomial", "constant", "constant_with_warmup"]
CHOICES = {
    "lr_scheduler_type": SCHEDULERS,
    "score": ["knowledgeable", "expressive", "friendly", "random", "magnitude"],
    "selection_split": ["dev", "half"],
    "score_split": ["dev", "train"],
    "layer_choice": ["first", "last", "spaced", "0,1,2,3", "2,5,7,10"],
    "model_type": ["kd", "ft"],
    "report_to": ["none", "tensorboard", "trackio", "wandb"],
}


@pytest.mark.parametrize("flag", CHOICES)
def test_every_choice_is_accepted_and_nothing_else(stages_done, capsys, flag):
    parse_args = (run_sparsification if "score" in flag else run_distillation).parse_args
    for choice in CHOICES[flag]:
        assert getattr(parse_args([f"--{flag}", choice, "--student_model_path", "."]), flag) == choice
    with pytest.raises(SystemExit):
        parse_args([f"--{flag}", "x"])
    assert "'x'" in capsys.readouterr().err


ENDS = {  # flag -> its lowest and its highest value, and what lies beyond them
    **dict.fromkeys(["max_train_examples", "max_eval_examples", "per_device_eval_batch_size"], ("1", None, "0", None)),
    **dict.fromkeys(["per_device_train_batch_size", "num_grad_accum_steps"], ("1", None, "0", None)),
    **dict.fromkeys(["num_train_epochs", "log_interval", "save_interval", "student_layer"], ("1", None, "0", None)),
    **dict.fromkeys(["num_patience_epochs"], ("0", None, "-1", None)),
    **dict.fromkeys(["learning_rate", "weight_decay", "max_grad_norm"], ("0", "1e9", "-1e-9", "inf")),
    **dict.fromkeys([f"{name}_weight" for name in INTERMEDIATE_LOSSES], ("0", "1e9", "-1e-9", "inf")),
    **dict.fromkeys(["warmup_proportion", "alpha", "lam"], ("0", "1", "-1e-9", "1.000001")),
    **dict.fromkeys(["student_sparsity", "teacher_sparsity", "teacher_schedule"], ("0", "99", "-1", "100")),
    "match_spread": ("0", "99", "-1", "100"),
    "seed": ("0", "4294967295", "-1", "4294967296"),
    "max_length": ("4", None, "3", None),
    "temperature": ("0.001", "1e9", "0.0009", "inf"),
}


@pytest.mark.parametrize("flag", ENDS)
def test_numbers_are_accepted_from_the_lowest_to_the_highest(stages_done, capsys, flag):
    lowest, highest, below, above = ENDS[flag]
    parse_args = run_rewinding.parse_args
    for value in filter(None, (lowest, highest)):
        found = getattr(parse_args([f"--{flag}", value, "--teacher_model_path", "."]), flag)
        assert found == float(value) or found == [int(value)]
    for value in filter(None, (below, above)):
        with pytest.raises(SystemExit):
            parse_args([f"--{flag}={value}", "--teacher_model_path", "."])
        assert f"--{flag}: found '{value}', expected a" in capsys.readouterr().err


def test_defaults_of_the_pruned_student(stages_done):
    args = {name: STAGES[name].parse_args(["--student_sparsity", "70"]) for name in list(STAGES)[2:]}
    assert args["run_distillation"].student_model_path == "outputs/prune/ft_rte/ckpt"
    assert args["run_sparsification"].student_model_path == "outputs/distil/parameter_pruned/kd_70_rte/ckpt"
    assert args["run_rewinding"].teacher_model_path == "outputs/stark/parameter_pruned/kd_70_rte_0.5/ckpt"
    assert str(run_folder(args["run_rewinding"])) == "outputs/rewind/parameter_pruned/kd_70_rte_0.5"
    by_chance = STAGES["run_rewinding"].parse_args(["--score", "random", "--teacher_model_path", "."])
    assert str(run_folder(by_chance)) == "outputs/rewind/layer_dropped/kd_4_rte_random"
    blank = run_distillation.parse_args(["--student_sparsity", ""])
    assert str(run_folder(blank)) == "outputs/distil/layer_dropped/kd_4_rte"
    assert (
        str(run_folder(run_distillation.parse_args(["--model_type", "ft"]))) == "outputs/distil/layer_dropped/ft_4_rte"
    )


@pytest.mark.parametrize(
    ("script", "message"),
    [
        (run_pruning, "--model_path: nothing at its default outputs/finetune/ft_rte/ckpt; run run_finetuning.py first"),
        (
            run_rewinding,
            "--teacher_model_path: nothing at its default outputs/stark/layer_dropped/kd_4_rte_0.5/ckpt; "
            "run run_sparsification.py first, or give a path",
        ),
    ],
)
def test_a_stage_names_the_stage_that_comes_before_it(tmp_path, monkeypatch, capsys, script, message):
    monkeypatch.chdir(tmp_path)
    assert message in refused(script, capsys, "--data_dir", str(REFERENCE / "data"))


def commands(text: str) -> list[list[str]]:
    """The run_*.py calls of a README or a shell script, continued lines joined, as lists of words."""
    text = re.sub(r"\\\n\s*", " ", text)
    found = re.findall(rf"^\s*(?:python|stage|train) ((?:{'|'.join(STAGES)})\.py[^\n#;|&]*)", text, flags=re.MULTILINE)
    return [shlex.split(command) for command in found]


SHIPPED = [ROOT / "README.md", *(ROOT / "scripts").glob("*.sh"), *ROOT.glob("run_*.py"), *(ROOT / "docs").rglob("*.md")]


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.name)
def test_every_flag_of_a_shipped_command_is_known(stages_done, path):
    parsers = {name: known_flags(module) for name, module in STAGES.items()}
    for script, *words in commands(path.read_text()):
        used = {word.split("=")[0] for word in words if word.startswith("--")}
        assert used <= parsers[script.removesuffix(".py")], f"{path.name}: {script} {' '.join(words)}"


def known_flags(module) -> set[str]:
    return {"--" + name for name in vars(module.parse_args([]))} | {"--help"}


def test_the_check_above_finds_commands_and_unknown_flags():
    text = "run it:\n    python run_pruning.py --task_name \\\n  rte --wrong 1\n"
    assert commands(text) == [["run_pruning.py", "--task_name", "rte", "--wrong", "1"]]
    assert sum(bool(commands(path.read_text())) for path in SHIPPED) >= 11

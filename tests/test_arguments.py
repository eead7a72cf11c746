"""The command line: defaults, what is refused and in which words, and the commands that README and scripts give."""

import re
import shlex
from pathlib import Path

import pytest
from conftest import REFERENCE, refused

import run_distillation
import run_finetuning
import run_pruning
import run_rewinding
import run_sparsification
from utils.arguments import recipe
from utils.paths import student_folder
from utils.training import Recipe

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


def test_defaults_of_every_stage(stages_done):
    args = {name: module.parse_args([]) for name, module in STAGES.items()}
    for stage in args.values():
        assert (stage.task_name, stage.data_dir, stage.max_length, stage.seed) == ("rte", "datasets", 128, 776)
        assert stage.per_device_eval_batch_size == 32
    for name in ("run_finetuning", "run_distillation", "run_rewinding"):
        assert recipe(args[name]) == Recipe()
        assert args[name].selection_metric == "acc"
    assert args["run_finetuning"].model_path == "bert-base-uncased"
    assert args["run_pruning"].model_path == "outputs/finetune/ft_rte/ckpt"
    assert args["run_distillation"].student_model_path == "outputs/finetune/ft_rte/ckpt"
    assert args["run_sparsification"].student_model_path == "outputs/distil/layer_dropped/kd_4_rte/ckpt"
    assert args["run_rewinding"].teacher_model_path == "outputs/stark/layer_dropped/kd_4_rte_0.5/ckpt"
    assert [args[name].model_type for name in STAGES] == ["ft", "ft", "kd", "kd", "kd"]


def test_defaults_of_the_pruned_student(stages_done):
    args = {name: STAGES[name].parse_args(["--student_sparsity", "70"]) for name in list(STAGES)[2:]}
    assert args["run_distillation"].student_model_path == "outputs/prune/ft_rte/ckpt"
    assert args["run_sparsification"].student_model_path == "outputs/distil/parameter_pruned/kd_70_rte/ckpt"
    assert args["run_rewinding"].teacher_model_path == "outputs/stark/parameter_pruned/kd_70_rte_0.5/ckpt"
    assert student_folder(args["run_rewinding"], "kd", by_score=True) == "parameter_pruned/kd_70_rte_0.5"
    by_chance = STAGES["run_rewinding"].parse_args(["--score", "random", "--teacher_model_path", "."])
    assert student_folder(by_chance, "kd", by_score=True) == "layer_dropped/kd_4_rte_random"
    blank = run_distillation.parse_args(["--student_sparsity", ""])
    assert student_folder(blank, "kd") == "layer_dropped/kd_4_rte"


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

"""The command line: defaults, what is refused and in which words, and the commands that README and scripts give."""

import re
import shlex
from pathlib import Path

import pytest
from conftest import REFERENCE, write_task

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
DATA = ["--data_dir", str(REFERENCE / "data")]
TEACHER = str(REFERENCE / "rte_teacher")
BOTH = ["--teacher_model_path", TEACHER, "--student_model_path", TEACHER]
HALF_OF_ONE = ["--selection_split", "half", "--max_eval_examples", "1"]


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
    blank = run_distillation.parse_args(["--student_sparsity", ""])
    assert student_folder(blank, "kd") == "layer_dropped/kd_4_rte"


REFUSED = [
    (run_sparsification, ["--lam", "1.5"], "--lam: found '1.5', expected a number from 0 to 1"),
    (run_sparsification, ["--lam", "nan"], "--lam: found 'nan', expected a number from 0 to 1"),
    (
        run_distillation,
        ["--student_sparsity", "100"],
        "--student_sparsity: found '100', expected an integer from 0 to 99",
    ),
    (run_distillation, ["--student_sparsity", "7.5"], "--student_sparsity: found '7.5', expected an integer"),
    (run_distillation, ["--student_layer", "0"], "--student_layer: found '0', expected an integer of at least 1"),
    (run_finetuning, ["--learning_rate", "-1"], "--learning_rate: found '-1', expected a number of at least 0"),
    (run_finetuning, ["--learning_rate", "inf"], "--learning_rate: found 'inf', expected a number of at least 0"),
    (run_finetuning, ["--num_train_epochs", "0"], "--num_train_epochs: found '0'"),
    (run_finetuning, ["--warmup_proportion", "2"], "--warmup_proportion: found '2', expected a number from 0 to 1"),
    (run_finetuning, ["--task_name", "snli"], "--task_name: invalid choice: 'snli'"),
    (run_finetuning, ["--model_type", "kd"], "--model_type: invalid choice: 'kd'"),
    (run_finetuning, ["--selection_metric", "f1"], "--selection_metric: found 'f1', expected one of acc for rte"),
    (
        run_finetuning,
        ["--lr_scheduler_type", "polynomial", "--learning_rate", "0"],
        "--learning_rate: found 0.0, expected more than the 1e-07 at which --lr_scheduler_type polynomial ends",
    ),
    (run_finetuning, ["--lr_scheduler_type", "polynomial", "--learning_rate", "1e-7"], "--learning_rate: found 1e-07"),
    (run_finetuning, ["--model_path", TEACHER, *HALF_OF_ONE], "--selection_split half: found 1 row of dev, expected"),
    (run_pruning, ["--model_path", TEACHER, *HALF_OF_ONE], "--selection_split half: found 1 row of dev, expected"),
    (run_distillation, [*BOTH, *HALF_OF_ONE], "--selection_split half: found 1 row of dev, expected at least 2"),
    (run_sparsification, [*BOTH, *HALF_OF_ONE], "--selection_split half: found 1 row of dev, expected at least 2"),
    (run_finetuning, ["--use_fp16", "--use_bf16"], "not allowed with argument"),
    (run_finetuning, ["--lam", "0.5"], "unrecognized arguments: --lam 0.5"),
    (run_pruning, ["--num_train_epochs", "3"], "unrecognized arguments: --num_train_epochs 3"),
    (run_pruning, [], "--model_path: nothing at its default outputs/finetune/ft_rte/ckpt; run run_finetuning.py first"),
    (run_rewinding, [], "--teacher_model_path: nothing at its default outputs/stark/layer_dropped/kd_4_rte_0.5/ckpt"),
    (run_pruning, ["--data_dir", "nowhere"], "nowhere/rte: no such folder, expected the task's TSV files"),
    (run_pruning, ["--model_path", "nowhere/ckpt/x"], "nowhere/ckpt/x: no such folder"),
    (
        run_pruning,
        ["--model_path", TEACHER, "--max_length", "65"],
        "--max_length 65: the model takes at most 64 tokens",
    ),
    (run_distillation, [*BOTH, "--student_layer", "5"], "--student_layer 5: the model has only 4 layers"),
    (run_distillation, [*BOTH, "--student_sparsity", "70"], "sparsity 70 is not in the checkpoint's sparsity map"),
    (
        run_pruning,
        ["--model_path", str(REFERENCE / "rte_student_pruned50")],
        "rte_student_pruned50: cut at 50 %, expected an uncut model",
    ),
]


@pytest.mark.parametrize(("module", "flags", "message"), REFUSED, ids=[" ".join(case[1])[-40:] for case in REFUSED])
def test_what_cannot_be_done_is_one_line_and_status_2(tmp_path, monkeypatch, capsys, module, flags, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stop:
        module.main([*DATA, *flags])
    assert stop.value.code == 2
    error = [line for line in capsys.readouterr().err.splitlines() if "error: " in line]
    assert len(error) == 1
    assert message in error[0]
    assert not list(tmp_path.iterdir())


def test_a_teacher_that_was_never_fine_tuned_is_refused(tmp_path, monkeypatch, capsys, bert_folder):
    monkeypatch.chdir(tmp_path)
    write_task(tmp_path / "datasets", "rte")
    with pytest.raises(SystemExit) as stop:
        run_distillation.main(["--teacher_model_path", str(bert_folder), "--student_model_path", str(bert_folder)])
    assert stop.value.code == 2
    assert "no classifier for 2 classes" in capsys.readouterr().err
    assert not (tmp_path / "outputs").exists()


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

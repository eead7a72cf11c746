"""The commands of the shell scripts, recorded by a program named python that does nothing else."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import refused

import run_distillation
import run_finetuning
import run_pruning
import run_rewinding
import run_sparsification
from scripts import check_flags
from utils.tasks import TASKS, Sizes

ROOT = Path(__file__).parent.parent
STAGES = {
    f"{module.__name__}.py": module
    for module in (run_finetuning, run_pruning, run_distillation, run_sparsification, run_rewinding)
}
# flags that a chain sets by itself, or that its stages need at their defaults to find each other
NOT_IN_A_CHAIN = {"task_name", "data_dir", "model_path", "student_layer", "student_sparsity", "lam"}
NOT_IN_A_CHAIN |= {"output_dir", "model_type", "teacher_model_path", "student_model_path"}


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Runs a shell script of scripts/: its exit status, its errors, and the words of each call of a stage.

    With CHECK=1 the flags of a chain are checked before, as they are outside of tests.
    """
    calls = tmp_path / "calls"
    calls.write_text("")
    python = tmp_path / "bin" / "python"
    python.parent.mkdir()
    check = f'case $1 in */check_flags.py) [ -z "${{CHECK-}}" ] || exec "{sys.executable}" "$@" ;; esac'
    python.write_text(f'#!/bin/sh\n{check}\nprintf "%s\\037" "$@" >> {calls}\necho >> {calls}\n')
    python.chmod(0o755)
    students = ("layer_dropped/kd_4", "parameter_pruned/kd_70")
    for task in ("rte", "sst2"):
        (tmp_path / "datasets" / task).mkdir(parents=True)
        folders = [f"finetune/ft_{task}", f"prune/ft_{task}", *(f"distil/{student}_{task}" for student in students)]
        folders += [f"stark/{student}_{task}_{score}" for student in students for score in ("0.5", "random")]
        for folder in folders:
            (tmp_path / "outputs" / folder / "ckpt").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)

    def run(script: str, *words: str, **variables: str) -> tuple[int, str, list[list[str]]]:
        calls.write_text("")
        environment = {**os.environ, "PATH": f"{python.parent}:{os.environ['PATH']}", **variables}
        command = ["bash", str(ROOT / "scripts" / script), *words]
        done = subprocess.run(command, env=environment, stderr=subprocess.PIPE, text=True, check=False)
        recorded = [line.split("\037")[:-1] for line in calls.read_text().splitlines()]
        if recorded and recorded[0][0].endswith("check_flags.py"):  # which is given all that follows
            (_, *checked), *recorded = recorded
            assert checked == [word for call in recorded for word in (Path(call[0]).name, *call[1:], "--")]
        return done.returncode, done.stderr, recorded

    return run


def by_stage(calls: list[list[str]]) -> dict:
    """Stage -> parsed flags of its last call."""
    return {Path(script).name: STAGES[Path(script).name].parse_args(words) for script, *words in calls}


def test_a_chain_calls_all_stages_in_order_for_both_students(run):
    status, errors, calls = run("run_chain.sh", "rte", LAMS="0 0.5")
    assert (status, errors) == (0, "")
    student = ["run_distillation.py", *["run_sparsification.py", "run_rewinding.py"] * 2]
    assert [Path(call[0]).name for call in calls] == ["run_finetuning.py", "run_pruning.py", *student, *student]
    assert [word for call in calls for word in call if word.startswith("--student")] == [
        *["--student_layer=4"] * 5,
        *["--student_sparsity=70"] * 5,
    ]


@pytest.mark.parametrize("score", [["--score", "random"], ["--score=expressive"]])
def test_a_chain_with_a_score_without_lam_goes_through_once(run, score):
    _, _, calls = run("run_chain.sh", "rte", *score, LAMS="0 0.5", STUDENT_SPARSITIES="")
    assert [Path(call[0]).name for call in calls][3:] == ["run_sparsification.py", "run_rewinding.py"]
    _, _, calls = run("run_chain.sh", "rte", "--score", "knowledgeable", LAMS="0 0.5", STUDENT_SPARSITIES="")
    assert len(calls) == 7


def test_a_flag_of_a_chain_goes_to_all_stages_that_know_it(run):
    known = {name: set(vars(module.parse_args([]))) - {"stage"} for name, module in STAGES.items()}
    flags = sorted(set.union(*known.values()) - NOT_IN_A_CHAIN)
    assert len(flags) > 40
    # by which stage 4, too, reads rows without labels
    values = {flag: "unlabelled" if flag == "score_split" else "1" for flag in flags}
    pairs_of_words = [word for flag, value in values.items() for word in (f"--{flag}", value)]
    for given in (pairs_of_words, [f"--{flag}={value}" for flag, value in values.items()]):
        status, errors, calls = run("run_chain.sh", "rte", *given, STUDENT_SPARSITIES="")
        assert (status, errors) == (0, "")
        for script, *words in calls:
            pairs = " ".join(words[-len(given) :]).replace("=", " ")
            expected = known[Path(script).name] & set(flags)
            assert all(f"--{flag} {values[flag]}" in pairs for flag in expected), script
            assert not [flag for flag in flags if flag not in expected and f"--{flag}" in words], script
            assert not [flag for flag in flags if flag not in expected and f"--{flag}={values[flag]}" in words], script


def test_a_chain_scores_on_rows_without_labels_only_if_told_to(run):
    Path("a.tsv").touch()
    Path("b.csv").touch()
    files = ["--unlabelled", "a.tsv", "b.csv"]
    for flags, scoring in (([], None), (["--score_split=unlabelled"], files[1:])):
        status, _, calls = run("run_chain.sh", "rte", *files, *flags, STUDENT_SPARSITIES="")
        assert status == 0
        parsed = by_stage(calls)
        assert parsed["run_distillation.py"].unlabelled == parsed["run_rewinding.py"].unlabelled == files[1:]
        assert parsed["run_sparsification.py"].unlabelled == scoring


def test_flags_of_a_chain_count_more_than_its_variables(run):
    flags = ["--overwrite", "--use_bf16", "--max_eval_examples", "96", "--seed", "1", "--selection_split=half"]
    flags += ["--alpha", "1", "--learning_rate", "1e-4", "--teacher_sparsity", "0", "50", "--score", "random"]
    status, _, calls = run("run_chain.sh", "rte", *flags, STUDENT_SPARSITIES="", LEARNING_RATE="1e-5")
    assert status == 0
    parsed = by_stage(calls)
    assert len(parsed) == 5
    for args in parsed.values():
        assert (args.overwrite, args.use_bf16, args.max_eval_examples, args.seed) == (True, True, 96, 1)
        assert args.selection_split == "half"
    for stage in ("run_finetuning.py", "run_distillation.py", "run_rewinding.py"):
        assert parsed[stage].learning_rate == 1e-4
    for stage in ("run_distillation.py", "run_sparsification.py", "run_rewinding.py"):
        assert parsed[stage].alpha == 1
    assert parsed["run_rewinding.py"].teacher_sparsity == [0, 50]
    assert parsed["run_rewinding.py"].teacher_model_path == "outputs/stark/layer_dropped/kd_4_rte_random/ckpt"


def test_a_chain_leaves_the_sizes_of_training_to_the_task_unless_they_are_set(run):
    def sizes(**variables: str) -> dict[str, tuple]:
        parsed = by_stage(run("run_chain.sh", "sst2", **variables)[2])
        return {
            name: tuple(getattr(args, size) for size in Sizes._fields)
            for name, args in parsed.items()
            if "num_train_epochs" in args
        }

    training = ("run_finetuning.py", "run_distillation.py", "run_rewinding.py")
    assert sizes() == dict.fromkeys(training, tuple(TASKS["sst2"].sizes))
    given = {"BATCH_SIZE": "8", "LEARNING_RATE": "1e-4", "TEACHER_EPOCHS": "2", "STUDENT_EPOCHS": "4"}
    assert sizes(**given) == {name: (8, 1e-4, 2 if "finetuning" in name else 4) for name in training}


def test_a_task_that_there_is_not_is_refused_by_the_first_stage(run, capsys):
    _, _, [(_, *words), *_] = run("run_chain.sh", "snli")
    with pytest.raises(SystemExit) as stop:
        run_finetuning.main(words)
    assert stop.value.code == 2
    assert "error: --task_name snli: unknown, expected one of GLUE's" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "no task; usage"),
        (["rte", "--no_such_flag", "1"], "--no_such_flag: no stage knows this flag"),
        (["rte", "--no_such_weight=1"], "--no_such_weight=1: no stage knows this flag"),
        (["rte", "96"], "96: expected a flag"),
        (["rte", "--lam", "1"], "--lam: set by the variable LAMS"),
        (["rte", "--output_dir=x"], "--output_dir: the stages find each other's folders by its default"),
        (["rte", "--layer_choice", "last"], "--layer_choice: for layer-dropped students, expected STUDENT_SPARSITIES="),
    ],
)
def test_what_a_chain_cannot_take_is_one_line_before_anything_runs(run, words, message):
    status, errors, calls = run("run_chain.sh", *words)
    assert (status, len(errors.splitlines()), calls) == (2, 1, [])
    assert message in errors


@pytest.mark.parametrize(
    ("words", "variables", "message"),
    [
        (["--teacher_sparsity", "100"], {}, "run_rewinding.py: error: argument --teacher_sparsity: found '100'"),
        (["--halving_rungs", "0.5"], {}, "run_rewinding.py: error: --halving_rungs: found without --halving"),
        (["--score", "best"], {}, "run_sparsification.py: error: argument --score: invalid choice: 'best'"),
        (["--unlabelled", "nowhere.csv"], {}, "error: nowhere.csv: no such file"),
        (["--unlabelled", "lines.txt"], {}, "error: lines.txt: a text a line, expected .csv, .tsv, .jsonl: RTE"),
        (["--teacher_sparsity", "0", "35"], {}, "error: --teacher_sparsity 35: the teacher's checkpoint knows 0, 10"),
        (
            ["--teacher_sparsity", "0", "--halving", "0", "35"],
            {},
            "error: --halving 35: the teacher's checkpoint knows",
        ),
        (["--match_spread", "35"], {}, "error: --match_spread 35: the teacher's checkpoint knows 0, 10, 20"),
        ([], {"STUDENT_SPARSITIES": "75"}, "error: --student_sparsity 75: stage 2's checkpoint knows 0, 10, 20"),
        ([], {"LAMS": "0.5 2"}, "run_sparsification.py: error: argument --lam: found '2', expected a number from 0"),
        ([], {"STUDENT_LAYERS": "0"}, "run_distillation.py: error: argument --student_layer: found '0'"),
    ],
)
def test_a_flag_of_a_late_stage_is_refused_before_the_first_starts(run, words, variables, message):
    Path("lines.txt").touch()
    status, errors, calls = run("run_chain.sh", "rte", *words, CHECK="1", **variables)
    assert (status, len(errors.splitlines()), calls) == (2, 1, [])
    assert errors.startswith(message)


def test_only_flags_of_stages_are_checked(in_tmp_path, capsys):
    assert "error: sweep.py: no stage, expected one of run_finetuning.py, run_pruning.py" in refused(
        check_flags, capsys, "sweep.py", "--seed", "1"
    )
    assert "error: found nothing to check" in refused(check_flags, capsys)


def test_a_chain_starts_whose_checkpoints_are_still_to_be_made(run):
    shutil.rmtree("outputs")
    for flags in ([], ["--halving"], ["--teacher_schedule", "70", "0"], ["--match_spread", "30"]):
        status, errors, calls = run("run_chain.sh", "rte", *flags, CHECK="1", LAMS="0 1")
        assert (status, errors, len(calls)) == (0, "", 12)


@pytest.mark.parametrize("stage", ["finetuning", "pruning", "distillation", "sparsification", "rewinding"])
def test_a_script_of_one_stage_takes_flags_and_a_data_folder(run, tmp_path, stage):
    _, _, calls = run(f"run_{stage}_rte.sh")
    assert by_stage(calls)[f"run_{stage}.py"].data_dir == "datasets"
    (tmp_path / "my data" / "rte").mkdir(parents=True)
    status, _, calls = run(f"run_{stage}_rte.sh", "--seed", "1", "--use_cpu", DATA_DIR="my data")
    assert status == 0
    assert len(calls) == (1 if stage in ("finetuning", "pruning") else 2)
    for script, *words in calls:
        args = STAGES[script].parse_args(words)
        assert (args.data_dir, args.seed, args.use_cpu) == ("my data", 1, True)

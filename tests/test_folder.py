"""The folder of a run after stops, deletions and --overwrite: its results are those of its checkpoints."""

import itertools
import json
import os
import shutil
import signal
from pathlib import Path

import pytest
from conftest import forked, refused, small_config, wait_until
from test_resume import FLAGS, PATHS, STUDENT, TEACHER

import run_distillation
import run_finetuning
import run_pruning
import run_rewinding
import run_sparsification
from models.bert import PrunableBert
from scripts import report, stops, submission
from scripts import report_data as data
from scripts.stops import Command, Stop
from utils.errors import InputError
from utils.folder import RunFolder, State
from utils.paths import is_checkpoint, sparsity_of

TRIAL = Path("outputs/distil/layer_dropped/kd_2_rte")
REWIND = Path("outputs/rewind/layer_dropped/kd_2_rte_0.5")
SPARSE = ["--teacher_model_path", "outputs/stark/layer_dropped/kd_2_rte_0.5/ckpt"]
TEACHER_OF_PRUNING = ["--model_path", "teacher"]
LONG = ["--num_train_epochs", "500", "--num_patience_epochs", "0"]


def read(path: Path) -> dict:
    return json.loads(path.read_text())


def change(path: Path, **changes) -> None:
    path.write_text(json.dumps({**read(path), **changes}))


def refusal(script, capsys, *flags: str) -> str:
    """The one-line error of a script with these flags, without earlier output."""
    capsys.readouterr()
    return refused(script, capsys, *flags)


def weights_made(folder: Path) -> dict[str, int]:
    """Checkpoint -> time at which its weights were written, in ns."""
    return {path.parent.name: path.stat().st_mtime_ns for path in sorted(folder.glob("ckpt*/model.safetensors"))}


@pytest.fixture(scope="module")
def sparse_teacher(tmp_path_factory) -> list[Path]:
    """The run folder of a sparse teacher, once made in some `workplace`; the others' are the same."""
    return []


@pytest.fixture
def rewind(workplace, sparse_teacher, tmp_path_factory):
    """Rewinds a student, started at `teacher`, under a sparse teacher: rewind("0", "50", "--do_test")."""
    if sparse_teacher:
        shutil.copytree(sparse_teacher[0], "outputs/stark")
    else:
        run_sparsification.main([*TEACHER, *STUDENT])
        sparse_teacher.append(shutil.copytree("outputs/stark", tmp_path_factory.mktemp("made") / "stark"))

    def run(*flags: str) -> None:
        run_rewinding.main([*FLAGS, *STUDENT, *SPARSE, "--teacher_sparsity", *flags])

    return run


def kill_in_training(main, folder: Path, *flags: str) -> None:
    """Start a run that would train for long, and kill it once it has taken the folder."""
    state = folder / ".ckpt.state"
    state.unlink(missing_ok=True)
    process = forked(main, [*flags, "--save_interval", "1"])
    wait_until(state.exists)
    os.kill(process.pid, signal.SIGKILL)
    process.join()


def reported() -> list[data.Row]:
    """The rows of the report; none if nothing is finished."""
    try:
        return data.collect(data.checkpoints([Path("outputs")]))
    except InputError:
        return []


def test_rewinds_that_never_reached_the_table_reach_it_without_training(rewind):
    rewind("0")
    before = (REWIND / "metrics.json").read_bytes()
    rewind("50")
    whole = read(REWIND / "metrics.json")
    made = weights_made(REWIND)
    assert list(whole["sparsity"]) == ["0", "50"]
    (REWIND / "metrics.json").write_bytes(before)  # as a kill after the checkpoint leaves it
    rewind("50")
    assert read(REWIND / "metrics.json") == whole
    (REWIND / "metrics.json").unlink()
    (REWIND / "args.json").unlink()
    rewind("0")
    assert read(REWIND / "metrics.json") == whole
    assert read(REWIND / "args.json")["seed"] == 776
    assert weights_made(REWIND) == made
    assert {row.teacher_sparsity for row in reported()} == {0, 50}


def test_a_checkpoint_without_weights_is_a_result_and_only_the_test_set_misses_them(rewind, capsys):
    rewind("0")
    change(REWIND / "ckpt_0" / "metrics.json", dev={"acc": 1.0})  # the best, whatever comes
    (REWIND / "ckpt_0" / "model.safetensors").unlink()
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        rewind("50", "--do_test")
    assert stop.value.code == 2
    assert f"error: {REWIND}/ckpt_0: weights that predict the test set were deleted" in capsys.readouterr().err
    assert list(read(REWIND / "metrics.json")["sparsity"]) == ["0", "50"]
    rewind("0")  # finished, and stays so
    assert not (REWIND / "ckpt_0" / "model.safetensors").exists()


@pytest.mark.parametrize("kind", ["finetune", "distil"])
def test_the_test_set_is_predicted_afterwards_without_training(workplace, kind):
    def run(*flags: str) -> None:
        if kind == "finetune":
            run_finetuning.main([*FLAGS, "--model_path", "teacher", *flags])
        else:
            run_distillation.main([*FLAGS, *PATHS, *flags])

    folder = Path("outputs/finetune/ft_rte") if kind == "finetune" else TRIAL
    run()
    made = weights_made(folder)
    assert not (folder / "RTE.tsv").exists()
    run("--do_test")
    predictions = (folder / "RTE.tsv").read_text()
    metrics = read(folder / "metrics.json")
    assert len(predictions.splitlines()) == 10
    # killed while predicting: the file, or metrics.json's word on it, is not there yet
    (folder / "RTE.tsv").unlink()
    run("--do_test")
    (folder / "metrics.json").unlink()
    run("--do_test")
    assert (folder / "RTE.tsv").read_text() == predictions
    assert read(folder / "metrics.json") == metrics
    assert weights_made(folder) == made


def test_a_submission_follows_the_checkpoint_and_the_test_set(workplace, capsys):
    run_distillation.main([*FLAGS, *PATHS, "--do_test"])
    test = Path("datasets/rte/test.tsv")
    test.write_text("\n".join(test.read_text().splitlines()[:-1]) + "\n")
    run_distillation.main([*FLAGS, *PATHS, "--do_test"])
    assert len((TRIAL / "RTE.tsv").read_text().splitlines()) == 9
    run_distillation.main([*FLAGS, *PATHS, "--overwrite"])  # another checkpoint, and no word of the test set
    line = refusal(submission, capsys, "outputs", "--allow_missing")
    assert f"{TRIAL}/RTE.tsv: not of the best checkpoint beside it; the run's command with --do_test writes it" in line
    run_distillation.main([*FLAGS, *PATHS, "--do_test"])
    assert RunFolder(TRIAL).has_current_submission()


def test_numbers_of_one_seed_are_never_anothers(workplace):
    run_distillation.main([*FLAGS, *PATHS, "--seed", "1"])
    again = [*FLAGS, *PATHS, "--seed", "2", "--overwrite"]
    kill_in_training(run_distillation.main, TRIAL, *again, *LONG)
    assert not [row for row in reported() if row.seed == 2]
    assert not (TRIAL / "metrics.json").exists()  # beside args.json of seed 2, it would lie
    assert read(TRIAL / "ckpt" / "args.json")["seed"] == 1
    run_distillation.main(again)
    assert {row.seed for row in reported()} == {2}
    assert read(TRIAL / "ckpt" / "args.json")["seed"] == read(TRIAL / "args.json")["seed"] == 2


@pytest.mark.parametrize("seed", ["776", "2"])
def test_overwriting_that_was_stopped_goes_on_with_the_same_command(workplace, seed):
    run_distillation.main([*FLAGS, *PATHS])
    again = [*FLAGS, *PATHS, *LONG, "--overwrite", "--seed", seed]
    run_distillation.main([*again, "--output_dir", "undisturbed", "--num_train_epochs", "6"])
    kill_in_training(run_distillation.main, TRIAL, *again, "--num_train_epochs", "5000")
    with pytest.raises(SystemExit):  # other arguments are refused, without --overwrite
        run_distillation.main([*FLAGS, *PATHS, "--seed", "3"])
    kill_in_training(run_distillation.main, TRIAL, *again, "--num_train_epochs", "6000")
    log = len((TRIAL / "log.txt").read_text())
    process = forked(run_distillation.main, [*again, "--num_train_epochs", "6000"])
    for _ in range(3000):
        if "going on after update" in (TRIAL / "log.txt").read_text()[log:]:
            break
        process.join(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert "going on after update" in (TRIAL / "log.txt").read_text()[log:]
    assert RunFolder(TRIAL).result("ckpt") == {}  # not until it is made again


def test_a_finished_overwriting_starts_afresh_the_next_time(workplace):
    run_distillation.main([*FLAGS, *PATHS])
    made = weights_made(TRIAL)
    for _ in range(2):
        run_distillation.main([*FLAGS, *PATHS, "--overwrite"])
        assert weights_made(TRIAL) != made
        made = weights_made(TRIAL)
    assert not [path.name for path in TRIAL.iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize("change", [1, 2, 3])
def test_overwriting_that_is_stopped_before_it_has_marked_all_begins_again(rewind, change):
    rewind("0", "50", "--seed", "1")
    flags = [*FLAGS, *STUDENT, *SPARSE, "--data_dir", "datasets", "--seed", "2", "--overwrite"]
    command = Command(run_rewinding, [*flags, "--teacher_sparsity", "0"])
    assert stops.start(Path.cwd(), command, Stop(change, signal.SIGKILL)).wait() == -signal.SIGKILL
    assert {(row.teacher_sparsity, row.seed) for row in reported()} <= {(0, 1), (50, 1)}
    rewind("0", "--seed", "2", "--overwrite")
    assert {(row.teacher_sparsity, row.seed) for row in reported()} == {(0, 2)}
    assert list(read(REWIND / "metrics.json")["sparsity"]) == ["0"]


def test_a_table_shows_no_checkpoint_of_other_settings_even_if_it_is_not_stale(rewind):
    rewind("0", "50", "--seed", "1")
    folder = RunFolder(REWIND)
    folder.overwrite(["ckpt_50"], {**folder.settings("ckpt_50"), "seed": 2})
    (REWIND / ".ckpt_0.stale").unlink()  # as when its own process, of several, was stopped before
    rewind("50", "--seed", "2", "--overwrite")
    assert list(read(REWIND / "metrics.json")["sparsity"]) == ["50"]
    assert {(row.teacher_sparsity, row.seed) for row in reported()} == {(0, 1), (50, 2)}


def test_what_stops_left_beside_a_finished_checkpoint_goes_without_training(workplace):
    run_distillation.main([*FLAGS, *PATHS])
    made = weights_made(TRIAL)
    names = sorted(path.name for path in TRIAL.iterdir())
    shutil.copytree(TRIAL / "ckpt", TRIAL / ".ckpt.old")  # replaced, and killed before the old one was removed
    for kind in ("state", "lock"):
        (TRIAL / f".ckpt.{kind}").write_bytes(b"left")
    for written in (".ckpt.state", "metrics.json", "args.json"):
        (TRIAL / f".{written}.part").write_bytes(b"half of it, of a kill while it was written")
    shutil.copytree(TRIAL / "ckpt", TRIAL / ".ckpt.part")
    run_distillation.main([*FLAGS, *PATHS])
    assert sorted(path.name for path in TRIAL.iterdir()) == names
    assert weights_made(TRIAL) == made


def test_a_checkpoint_that_a_kill_left_moved_aside_is_put_back_and_not_made_again(workplace):
    run_distillation.main([*FLAGS, *PATHS])
    made = weights_made(TRIAL)
    (TRIAL / "ckpt").rename(TRIAL / ".ckpt.old")
    run_distillation.main([*FLAGS, *PATHS])
    assert weights_made(TRIAL) == made
    assert not (TRIAL / ".ckpt.old").exists()


def test_overwriting_one_sparsity_leaves_the_others_of_the_same_settings(rewind):
    rewind("0", "50")
    made = weights_made(REWIND)
    rewind("50", "--overwrite")
    assert {row.teacher_sparsity for row in reported()} == {0, 50}
    assert weights_made(REWIND)["ckpt_0"] == made["ckpt_0"]
    assert weights_made(REWIND)["ckpt_50"] != made["ckpt_50"]


def test_a_mark_left_by_a_kill_after_the_checkpoint_does_not_make_it_stale(workplace):
    run_distillation.main([*FLAGS, *PATHS])
    folder = RunFolder(TRIAL)
    settings = folder.settings("ckpt")
    folder.overwrite(["ckpt"], settings)
    assert folder.state("ckpt", settings) == State.STALE
    assert folder.is_being_overwritten(["ckpt"], settings)
    assert not folder.is_being_overwritten(["ckpt"], {**settings, "seed": 5})  # which would be another overwriting
    change(TRIAL / "ckpt" / "metrics.json", train_seconds=12.5)  # made again, and killed before the mark was taken away
    assert folder.state("ckpt", settings) == State.FINISHED
    made = weights_made(TRIAL)
    run_distillation.main([*FLAGS, *PATHS, "--overwrite"])  # the end of the command that was killed
    assert weights_made(TRIAL) == made


def test_a_submission_file_of_a_student_that_is_no_longer_the_best_is_refused(rewind, capsys):
    rewind("0", "--do_test")
    submission.find_files([str(REWIND)])
    rewind("50")
    change(REWIND / "metrics.json", best_teacher_sparsity=50)
    with pytest.raises(InputError, match="RTE.tsv: not of the best checkpoint beside it"):
        submission.find_files([str(REWIND)])


def test_files_that_no_run_has_left_are_not_replaced_unless_asked(workplace, capsys):
    (TRIAL / "ckpt").mkdir(parents=True)
    (TRIAL / "ckpt" / "pytorch_model.bin").write_text("somebody's")
    message = refusal(run_distillation, capsys, *FLAGS, *PATHS)
    assert "holds ckpt with files that no run has left (no metrics.json), which would be deleted; --over" in message
    assert (TRIAL / "ckpt" / "pytorch_model.bin").read_text() == "somebody's"
    run_distillation.main([*FLAGS, *PATHS, "--overwrite"])
    assert not (TRIAL / "ckpt" / "pytorch_model.bin").exists()
    assert read(TRIAL / "ckpt" / "metrics.json")["dev"]


def test_overwriting_one_sparsity_gives_no_leave_to_replace_what_lies_at_another(rewind, capsys):
    (REWIND / "ckpt_50").mkdir(parents=True)
    (REWIND / "ckpt_50" / "notes.txt").touch()
    rewind("0", "--overwrite")
    with pytest.raises(SystemExit):
        rewind("0", "50")
    assert "holds ckpt_50 with files that no run has left" in capsys.readouterr().err
    assert (REWIND / "ckpt_50" / "notes.txt").exists()


def test_a_checkpoint_made_again_within_the_same_time_is_another(workplace, monkeypatch):
    monkeypatch.setattr("time.perf_counter", itertools.count(step=1e-6).__next__)
    for _ in range(3):
        run_pruning.main([*TEACHER_OF_PRUNING, "--overwrite"])
        assert not list(Path("outputs/prune/ft_rte").glob(".*"))


def test_another_stages_folder_is_refused(workplace, capsys):
    run_finetuning.main([*FLAGS, *TEACHER_OF_PRUNING, "--output_dir", "one"])
    message = refusal(run_pruning, capsys, *TEACHER_OF_PRUNING, "--output_dir", "one")
    assert "stage finetuning, now pruning" in message


def test_overwriting_a_part_of_a_sweep_is_not_the_beginning_of_overwriting_all(rewind):
    rewind("0", "50")
    made = weights_made(REWIND)
    folder = RunFolder(REWIND)
    folder.overwrite(["ckpt_0"], folder.settings("ckpt_0"))  # and killed
    rewind("0", "50", "--overwrite")
    assert all(time > made[name] for name, time in weights_made(REWIND).items())


def test_only_names_that_the_stages_give_are_checkpoints(rewind):
    assert [name for name in ("ckpt", "ckpt_0", "ckpt_90") if is_checkpoint(name)] == ["ckpt", "ckpt_0", "ckpt_90"]
    for name in (
        "ckpt_0.bak",
        "ckpt_0_copy",
        "ckpt_00",
        "ckpt_100",
        "ckpt_",
        "ckpt_-1",
        "ckpt_x",
        "ckpts",
        ".ckpt.old",
    ):
        assert not is_checkpoint(name)
    assert (sparsity_of("ckpt_30"), sparsity_of("ckpt")) == (30, None)
    rewind("0")
    for name in ("ckpt_0_copy", "ckpt_0.bak", "ckpt_old"):
        shutil.copytree(REWIND / "ckpt_0", REWIND / name)
    rewind("50")
    assert list(read(REWIND / "metrics.json")["sparsity"]) == ["0", "50"]
    assert {row.teacher_sparsity for row in reported()} == {0, 50}


def test_numbers_whose_checkpoint_was_deleted_are_not_lost_to_another_run(workplace, capsys):
    run_distillation.main([*FLAGS, *PATHS])
    metrics = (TRIAL / "metrics.json").read_bytes()
    shutil.rmtree(TRIAL / "ckpt")
    line = refusal(run_distillation, capsys, *FLAGS, *PATHS, "--seed", "1")
    assert "holds a run with other arguments: --seed 776, now 1; --overwrite starts afresh" in line
    assert (TRIAL / "metrics.json").read_bytes() == metrics


def test_a_folder_of_an_earlier_version_is_read(rewind, capsys):
    """Its checkpoints have a metrics.json but no args.json, which lay beside them."""
    rewind("0", "50")
    for name in ("ckpt_0", "ckpt_50"):
        (REWIND / name / "args.json").unlink()
    made = weights_made(REWIND)
    rewind("0", "50")
    assert weights_made(REWIND) == made
    assert {row.teacher_sparsity for row in reported()} == {0, 50}
    (REWIND / ".ckpt_50.stale").touch()  # it was being overwritten
    assert {row.teacher_sparsity for row in reported()} == {0}
    rewind("0", "50")
    assert weights_made(REWIND)["ckpt_0"] == made["ckpt_0"]
    assert weights_made(REWIND)["ckpt_50"] != made["ckpt_50"]
    (REWIND / "args.json").unlink()
    (REWIND / "ckpt_0" / "args.json").unlink(missing_ok=True)
    with pytest.raises(SystemExit) as stop:
        rewind("0")
    assert stop.value.code == 2
    assert "ckpt_0 does not say which" in capsys.readouterr().err


def test_a_diverged_sparsity_does_not_fail_the_others(rewind, capsys):
    rewind("0", "50")
    change(REWIND / "ckpt_50" / "metrics.json", diverged="the loss of update 7 is nan")
    rewind("0")
    assert read(REWIND / "metrics.json")["diverged"] == "ckpt_50: the loss of update 7 is nan"
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        rewind("0", "50")
    assert stop.value.code == 1
    assert "ckpt_50: the loss of update 7 is nan" in capsys.readouterr().err


def test_the_report_draws_the_teacher_that_was_read_and_no_other(rewind, monkeypatch):
    rewind("0")
    run = REWIND.resolve()
    settings = RunFolder(REWIND).settings("ckpt_0")
    teacher = Path(SPARSE[1]).resolve()
    assert data.sparse_teacher(run, settings) == teacher
    Path("elsewhere").mkdir()
    monkeypatch.chdir("elsewhere")
    shutil.copytree(teacher, SPARSE[1])
    change(Path(SPARSE[1], "config.json"), hidden_dropout_prob=0.2)  # another one under the same relative path
    assert data.sparse_teacher(run, settings) == teacher
    teacher.rename(teacher.with_name("moved"))
    assert data.sparse_teacher(run, settings) is None


def test_the_best_sparsity_is_chosen_by_the_runs_own_metric(workplace):
    folder = Path("outputs/rewind/layer_dropped/kd_2_mrpc_0.5")
    settings = {"task_name": "mrpc", "seed": 1, "lam": 0.5, "student_layer": 2, "student_sparsity": None}
    settings |= {"model_type": "kd", "selection_metric": "f1"}
    for sparsity, acc, f1 in ((0, 0.9, 0.5), (30, 0.5, 0.8)):
        dev = {"acc": acc, "f1": f1, "acc_and_f1": (acc + f1) / 2}
        result = {"dev": dev, "report": dev, "teacher": dev, "train_seconds": 1.0}
        result |= {"history": [{"update": 1, "epoch": 1.0, "loss": 0.5, **dev}]}
        (folder / f"ckpt_{sparsity}").mkdir(parents=True)
        for name, content in (("args", settings | {"teacher_model_path": "no"}), ("metrics", result)):
            (folder / f"ckpt_{sparsity}" / f"{name}.json").write_text(json.dumps(content))
    [line] = [line for line in report.tables.results_table(reported(), {}, "").lines if "lam 0.5" in line[1]]
    assert line[2] == "65.00"


def test_a_stage_refuses_what_was_chosen_on_other_rows(workplace, capsys):
    run_finetuning.main([*FLAGS, "--model_path", "teacher"])
    half = ["--selection_split", "half"]
    line = refusal(run_pruning, capsys, *half)
    path = "outputs/finetune/ft_rte/ckpt"
    assert line == (
        f"error: --model_path {path}: chosen and measured on other rows of dev: --selection_split dev, now half; all "
        "stages of a chain take the same"
    )
    assert "--max_eval_examples not given, now 9" in refusal(run_pruning, capsys, "--max_eval_examples", "9")
    run_pruning.main([])
    flags = [*FLAGS, "--student_sparsity", "50", "--teacher_model_path", "teacher"]
    assert "prune/ft_rte/ckpt: chosen and measured on other rows" in refusal(run_distillation, capsys, *flags, *half)
    dev = Path("datasets/rte/dev.tsv")
    dev.write_text("\n".join(dev.read_text().splitlines()[:-1]) + "\n")
    assert "the content of dev has changed" in refusal(run_pruning, capsys, "--output_dir", "other")


def test_tables_and_cards_have_the_number_of_rows_and_the_commoner_class(workplace, capsys):
    PrunableBert(small_config(id2label={0: "not_entailment", 1: "entailment"})).save_pretrained("teacher")
    run_distillation.main([*FLAGS, *PATHS, "--learning_rate", "0"])
    config = TRIAL / "ckpt" / "metrics.json"
    result = read(config)
    labels = [line.rsplit("\t", 1)[1] for line in Path("datasets/rte/dev.tsv").read_text().splitlines()[1:]]
    commoner = max(set(labels), key=labels.count)
    assert (result["rows"], result["commoner_class"]) == (21, commoner)
    assert result["commoner_share"] == pytest.approx(labels.count(commoner) / 21)
    printed = capsys.readouterr().out
    assert f"metrics are of 21 rows, {100 * labels.count(commoner) / 21:.2f} % of them {commoner}" in printed
    card = (TRIAL / "ckpt" / "README.md").read_text()
    assert f"| on rows | 21, {100 * labels.count(commoner) / 21:.2f} % {commoner} |" in card
    assert "| --student_layer | 2 |" in card


def test_constant_predictions_and_ties_are_reported(rewind, capsys):
    rewind("0", "50")
    for name in ("ckpt_0", "ckpt_50"):
        change(REWIND / name / "metrics.json", dev={"acc": 0.5}, only_answer="entailment")
    capsys.readouterr()
    rewind("0", "50")
    printed = capsys.readouterr().out
    assert "0 and 50 % tie, none is marked as the best" in printed
    assert "ckpt_50 answers entailment to every row" in printed
    assert " *" not in printed
    [note] = [note for note in report.tables.results_table(reported(), {}, "").notes if "lam 0.5" in note]
    assert "one answer to every row in 1 of 1 seeds; best sparsities tie in 1 of 1 seeds" in note


def test_the_card_of_a_pruned_student_has_no_flags_of_a_layer_dropped_one(rewind):
    run_pruning.main(["--model_path", "teacher"])
    run_distillation.main([*FLAGS, *TEACHER, "--student_sparsity", "50"])
    card = Path("outputs/distil/parameter_pruned/kd_50_rte/ckpt/README.md").read_text()
    assert "| --student_sparsity | 50 |" in card
    assert "--student_layer" not in card
    assert "--layer_choice" not in card

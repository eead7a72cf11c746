"""Stage 5, actual: rewind the student to its initial weights and distil it from the teacher at each sparsity.

    python run_rewinding.py --task_name rte --student_layer 4 --lam 0.5

With --teacher_sparsity 0 30 60 at these sparsities only, so that several processes can share a sweep. With --halving
the worse half of the students is dropped after a sixth, a third and two thirds of the updates.
Writes outputs/rewind/{layer_dropped,parameter_pruned}/kd_<student>_<task>_<lam>/ckpt_<teacher sparsity>.

With --teacher_schedule 70 30 0 one student learns from these teachers in turn, each for an equal share of the updates.
Writes .../kd_<student>_<task>_<lam>_schedule_70_30_0/ckpt.

With --match_spread 30 all teachers' logits are smoothed or sharpened to the spread of those of the one cut at 30 %.
Writes .../kd_<student>_<task>_<lam>_spread_30/ckpt_<teacher sparsity>.
"""

import copy
import time
from pathlib import Path
from typing import Any, NamedTuple

from models.hub import read_config
from models.layer_losses import INTERMEDIATE_LOSSES
from models.pruning import cut
from models.spread import match_spread
from models.units import CheckpointError
from stage import Stage, TeacherOutputs, entry_point
from utils import arguments, paths, processes
from utils.errors import InputError
from utils.evaluation import scheduled_logits_fn
from utils.files import checkpoint_digest, has_weights, read_json
from utils.flags import number
from utils.folder import RESULT, checkpoint_settings
from utils.halving import Competition
from utils.settings import differences, recipe_of

PRECISION = ("use_fp16", "use_bf16")  # flags
# settings and inputs that a student's weights depend on, beside the recipe
TRAINED_BY = ("seed", "task", "unlabelled", *map("{}_weight".format, INTERMEDIATE_LOSSES))
TRAINED_ON = ("student_model_path", "train", "unlabelled")


def parse_args(argv=None):
    parser = arguments.argument_parser(__doc__, "rewinding", model_types=("kd",))
    arguments.add_training_flags(parser, do_flag="--do_rewind")
    arguments.add_distillation_flags(parser)
    arguments.add_student_flags(parser)
    arguments.add_score_flags(parser)
    arguments.add_teacher_flags(parser, INTERMEDIATE_LOSSES)
    parser.add_argument("--teacher_model_path", help="sparse teacher (default stage 4's for this student and lam)")
    text = "the student's initial weights (default stage 2's if --student_sparsity is given, else stage 1's)"
    parser.add_argument("--student_model_path", help=text)
    text = "percent of units cut from the teacher, a rewind for each (default all of its checkpoint's)"
    parser.add_argument("--teacher_sparsity", nargs="+", type=number(int, 0, 99), help=text)
    arguments.add_logits_flags(parser, INTERMEDIATE_LOSSES)
    arguments.add_halving_flags(parser)
    args = arguments.parse(parser, argv)
    paths.default_paths(
        parser, args, teacher_model_path="sparsification", student_model_path=paths.student_source(args)
    )
    if args.halving is not None:
        args.halving = sorted(set(args.halving)) or paths.teacher_sparsities(args, read_config(args.teacher_model_path))
    return args


@entry_point
def main(argv=None):
    args = parse_args(argv)
    stage = Stage(args, paths.run_folder(args))
    sparsities = paths.teacher_sparsities(args, read_config(args.teacher_model_path))
    finish = finish_schedule if args.teacher_schedule else finish_sweep
    if not args.teacher_schedule:
        stage.names = [paths.checkpoint_name(sparsity) for sparsity in sparsities]
    if stage.is_finished() or rewind(stage, args, sparsities):
        finish(stage)


class SparseTeacher(NamedTuple):
    """What a student and its result need of the teacher cut at one sparsity, or of several that take turns."""

    sparsity: int | None  # percent; None of several
    outputs: TeacherOutputs  # on the training set
    result: dict[str, Any]  # its metrics, and the seconds that computing its cached logits took


def sparse_teachers(stage, teacher, sparsities, data):
    """Cut the teacher at each sparsity whose student is not trained yet, and cache its logits on the training set.

    With --match_spread these take the spread of another sparsity's.
    """
    known = processes.broadcast(teacher_metrics(stage))
    other = stage.args.match_spread
    others = None if other is None else stage.predict(cut(teacher, other), data.train)
    for sparsity in sparsities:
        if stage.is_trained(paths.checkpoint_name(sparsity)):
            continue
        sparse = cut(teacher, sparsity)
        metrics = known.get(str(sparsity)) or stage.evaluate(sparse, data.dev_report)
        start = time.perf_counter()
        outputs, spread = stage.teacher_outputs(sparse, data.train), {}
        if others is not None:
            outputs, spread = spread_like(others, outputs, data, stage.args.temperature)
        result = {"teacher": metrics, "teacher_seconds": time.perf_counter() - start, **spread}
        yield SparseTeacher(sparsity, outputs, result)


def teacher_metrics(stage):
    """The cut teacher's metrics by sparsity, a str, as stage 4 has measured them; {} if it did so in another way."""
    return _measured_alike(stage).get("sparsity", {})


def _measured_alike(stage, *more):
    """Stage 4's result; {} if it measured in another way than this run does, or if further flags, `more`, differ."""
    before = checkpoint_settings(stage.args.teacher_model_path)
    # rows that differ in other flags are refused
    alike = all(before.get(name) == stage.settings[name] for name in ("task_name", "max_length", *PRECISION, *more))
    alike = alike and before.get("inputs", {}).get("dev") == stage.settings["inputs"]["dev"]
    return read_json(Path(stage.args.teacher_model_path, RESULT)) if alike else {}


def spread_like(others, outputs, data, temperature):
    """A teacher's outputs with the spread of other logits (N, C), and the factor that it took, part of a result."""
    try:
        logits, factor = match_spread(outputs.logits_fn(data.train), others, temperature)
    except CheckpointError as error:
        raise InputError(f"--match_spread: {error}") from error
    return TeacherOutputs(lambda batch: logits[batch.example_ids], None), {"spread_factor": factor}


def check_turns(schedule, total):
    """Raise InputError if there are more teachers than updates, so that some would never have their turn."""
    if len(schedule) > total:
        raise InputError(f"--teacher_schedule: found {len(schedule)} teachers, expected at most the {total} updates")


def in_turn(teachers, schedule, total):
    """These teachers as one, whose logits are those of each in turn for an equal share of all updates."""
    by_sparsity = {sparse.sparsity: sparse for sparse in teachers}
    logits_fn = scheduled_logits_fn([by_sparsity[sparsity].outputs.logits_fn for sparsity in schedule], total)
    result = {
        "teacher_schedule": schedule,
        "turns_begin": [-(-turn * total // len(schedule)) for turn in range(len(schedule))],  # after these updates
        "teachers": {sparsity: by_sparsity[sparsity].result["teacher"] for sparsity in schedule},
        "teacher_seconds": sum(sparse.result["teacher_seconds"] for sparse in teachers),
    }
    return SparseTeacher(None, TeacherOutputs(logits_fn, None), result)


def rewind(stage, args, sparsities):
    """Distil the student from the teacher at each sparsity, each time from its initial weights, or once from all.

    Returns whether all are done: with --halving they may wait for those of other commands.
    """
    # read everything before anything is written
    teacher = stage.load_model(args.teacher_model_path)
    initial = stage.initial_student()
    stage.check_intermediate_losses(initial, teacher)
    data = stage.load_data(teacher, initial)
    if args.teacher_schedule:
        check_turns(args.teacher_schedule, stage.rungs(data)[-1])
    stage.start()

    # the sparse teachers' logits on the training set; once these are cached, the teachers' memory is free
    teachers = sparse_teachers(stage, teacher, sparsities, data)
    if not stage.runs_teacher:
        teachers = list(teachers)
        del teacher
    rungs = stage.rungs(data)
    if args.teacher_schedule:
        teachers = [in_turn(teachers, args.teacher_schedule, rungs[-1])]

    # one student for each sparse teacher; with --halving all pause at each rung, and the better half goes on
    competition = Competition(stage.folder, stage.settings, args.halving or (), rungs)
    for rung in rungs:
        dropped = competition.dropped(before=rung)
        for sparse in teachers:
            name = paths.checkpoint_name(sparse.sparsity)
            if not stage.is_trained(name):
                train_until(rung, stage, initial, sparse, data, dropped.get(name), is_end=rung == rungs[-1])
        if competition.waits_at(rung):
            return False
        if stage.runs_teacher:
            teachers = sparse_teachers(stage, teacher, sparsities, data)
    return True


def train_until(rung, stage, initial, sparse, data, dropped_at, is_end):
    """Train a student to a rung, and save it if that is its end, or if it was dropped at an earlier one."""
    name = paths.checkpoint_name(sparse.sparsity)
    student = stage.to_device(copy.deepcopy(initial))  # again, since a copy is not compiled
    with stage.distillation_loss(student, sparse.outputs) as loss_fn:
        result = stage.train(name, student, data, loss_fn, pause_at=dropped_at or rung)

    # those that go on from this rung are saved later
    if dropped_at or result.diverged or result.updates < rung or is_end:
        result = {**sparse.result, **result._asdict(), "dropped_at": dropped_at}
        stage.save_trained(name, student, data.dev_report, result)


def trial_metrics(stage):
    """The trial student's metrics, as stage 4 has measured them; {} if it is another student, or in another way."""
    return _measured_alike(stage, "student_layer", "layer_choice", "student_sparsity").get("student", {})


def trial_notes(stage):
    """In which flags and data the training of stage 4's trial student differed from this run's, as notes."""
    scored = checkpoint_settings(stage.args.teacher_model_path)
    path = Path(scored["student_model_path"])
    trial = checkpoint_settings(path) if path.is_dir() else {}
    if not trial or (has_weights(path) and checkpoint_digest(path) != scored["inputs"].get("student_model_path")):
        return []  # gone, or made again
    before, now = (
        {**recipe_of(settings), **{name: settings[name] for name in TRAINED_BY if name in settings}}
        for settings in (trial, stage.settings)
    )
    before["inputs"] = trial["inputs"]
    now["inputs"] = {name: digest for name, digest in stage.settings["inputs"].items() if name in TRAINED_ON}
    changed = differences(before, now)
    return [f"the trial student was trained otherwise: {', '.join(changed)}"] if changed else []


def finish_sweep(stage):
    """Write the metrics of all sparsities, also of other runs of the same sweep; print them beside the trial's."""
    # the results in the folder, the best sparsities by --selection_metric, and the trial student's metrics
    metric = stage.args.selection_metric
    results = {paths.sparsity_of(name): result for name, result in stage.results().items()}
    best = [paths.sparsity_of(name) for name in stage.best()]
    trial = trial_metrics(stage)
    # a row for each sparsity; of several that tie, none is marked as the best
    rows = [
        (f"{s} *" if best == [s] else s, row["report"][metric], row["teacher"][metric], trial.get(metric))
        for s, row in results.items()
    ]
    header = ("teacher sparsity", f"student {metric}", "its teacher", "trial student")
    metrics = {"best_teacher_sparsity": best[0], "tied": best[1:], "trial_student": trial, "sparsity": results}
    notes = [f"{' and '.join(map(str, best))} % tie, none is marked as the best"] if len(best) > 1 else []
    dropped = [f"{s} % after update {row['dropped_at']}" for s, row in results.items() if row.get("dropped_at")]
    spreads = [f"{s} %: {row['spread_factor']:.3f}" for s, row in results.items() if "spread_factor" in row]
    spread = f"logits have the spread of the teacher's cut at {stage.args.match_spread} %, by the factors"
    notes += [f"{spread} {', '.join(spreads)}"] if spreads else []
    notes += trial_notes(stage) if trial else []
    notes += [f"dropped early, with their best metric until then: {', '.join(dropped)}"] if dropped else []
    stage.finish(metrics, header, rows, notes)


def finish_schedule(stage):
    """Write the metrics of the student that learnt from several teachers; print them below theirs and the trial's."""
    metric = stage.args.selection_metric
    result = stage.results()[paths.checkpoint_name()]
    trial = trial_metrics(stage)
    rows = [(f"teacher at {s} %", metrics[metric]) for s, metrics in result["teachers"].items()]
    rows.append(("trial student", trial.get(metric)))
    rows.append((f"student of {' '.join(map(str, result['teacher_schedule']))} % in turn", result["report"][metric]))
    # the last teachers have no part in weights from before their turns
    turns = zip(result["teacher_schedule"], result["turns_begin"], strict=True)
    left_out = [f"{sparsity} %" for sparsity, begin in turns if begin >= result["best_update"]]
    best = f"its best weights are those after update {result['best_update']} of {result['updates']}"
    notes = [f"{best}, before the turns of its teachers at {', '.join(left_out)}"] if left_out else []
    notes += trial_notes(stage) if trial else []
    stage.finish({**result, "trial_student": trial}, ("", metric), rows, notes)


if __name__ == "__main__":
    main()

"""Text without labels: what is read, its loss, the rows of an epoch, and the stages that take it."""

import copy
import json
import math
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from conftest import VOCABULARY, refused, small_config, write_task, write_vocabulary
from safetensors.torch import load_file
from test_processes import on_two
from test_resume import Stopped
from test_training import QUICK, fit_and_select, make_examples
from torch.nn import functional as F

import run_distillation
import run_rewinding
import run_sparsification
from models.bert import PrunableBert
from models.layer_losses import IntermediateLoss, minilm_loss, record_features
from models.losses import NO_LABEL, distillation_loss, student_loss, task_loss, weigh_unlabelled
from scripts import report_data, report_tables, sweep
from utils import unlabelled
from utils.batches import tokenise
from utils.errors import InputError
from utils.evaluation import predict, teacher_logits_fn
from utils.readers import Split, read_split
from utils.reading import load_data
from utils.resume import StateFile
from utils.settings import run_id, settings
from utils.tasks import TASKS, find_task
from utils.tokenizer import load_tokenizer
from utils.training import fit
from utils.unlabelled import epoch_rows, read_unlabelled

CPU = torch.device("cpu")
BOTH = ["--teacher_model_path", "teacher", "--student_model_path", "teacher", "--student_layer", "2", "--use_cpu"]
BRIEF = ["--num_train_epochs", "2", "--learning_rate", "1e-3", "--log_interval", "4"]
PAIRS = [("w1 w2", "w3"), ("w2", "w1 w2"), ("w1 w2", "w3"), ("w39", "w38 w37")]  # the third repeats the first


def texts_of(split: str, task: str = "rte") -> list[list[str]]:
    """The two sentences of each row of a split in datasets/."""
    with open(f"datasets/{task}/{split}.tsv") as file:
        rows = [line.rstrip("\n").split("\t") for line in file][1:]
    return [row[-3:-1] if split != "test" else row[-2:] for row in rows]


def write_pairs(path, pairs) -> str:
    path.write_text("".join(json.dumps({"sentence2": b, "sentence1": a}) + "\n" for a, b in pairs))
    return str(path)


def read(path) -> dict:
    return json.loads(path.read_text())


# the files


def test_every_kind_of_file_gives_its_texts(tmp_path):
    contents = {
        "rows.csv": 'label,sentence\n1,"a, ""b""\nc"\n0,d\n',
        "rows.tsv": '\ufeffsentence\tlabel\n"a\t1\nb\t\n',
        "rows.jsonl": '{"sentence": "a"}\n\n{"sentence": 1.50, "label": null}\n',
        "rows.txt": '\ufeffa, "b"\n\n  c\u2028d  \r\n   \n',
    }
    found = {}
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content.encode())
        found[name] = read_unlabelled(tmp_path / name, TASKS["sst2"])
    texts = {name: split.first for name, split in found.items()}
    assert texts == {
        "rows.csv": ['a, "b"\nc', "d"],
        "rows.tsv": ['"a', "b"],
        "rows.jsonl": ["a", "1.50"],
        "rows.txt": ['a, "b"', "c\u2028d"],
    }
    assert all(split.labels == [NO_LABEL] * 2 and split.second is None for split in found.values())


def test_texts_are_those_that_the_task_reads_of_its_own_files(in_tmp_path):
    rows = ["\u00a0a b", "c\u3000", " \u2003d "]
    own = {"text_columns": ["sentence"], "label_column": "label", "labels": ["0", "1"], "metric": "acc"}
    for name in ("sst2", "mine"):
        (in_tmp_path / "datasets" / name).mkdir(parents=True)
        path = in_tmp_path / "datasets" / name / "dev.tsv"
        path.write_text("sentence\tlabel\n" + "".join(f"{text}\t1\n" for text in rows))
        (path.parent / "task.json").write_text(json.dumps(own))
        (in_tmp_path / "rows.txt").write_text("\n".join(rows))
        read = read_split(name, "datasets", "dev").first
        for unlabelled_rows in (path, in_tmp_path / "rows.txt"):
            assert read_unlabelled(unlabelled_rows, find_task(name, "datasets")).first == read


def test_pairs_are_found_by_glues_names_and_scores_are_not_numbers(tmp_path):
    (tmp_path / "pairs.tsv").write_text("Quality\t#2 String\t#1 String\n0\tb\ta\n")
    found = read_unlabelled(tmp_path / "pairs.tsv", TASKS["stsb"])
    assert (found.first, found.second) == (["a"], ["b"])
    assert math.isnan(found.labels[0])


BAD = {  # name of a file -> content, what the line says of it; of RTE, which has pairs
    "empty.csv": ("", "empty, expected rows"),
    "header.csv": ("sentence1,sentence2\n", "no rows, expected texts of RTE"),
    "blank.jsonl": ("\n", "empty, expected rows"),
    "other.tsv": ("sentence\tlabel\na\t1\n", "line 1: columns 'sentence', 'label', expected 'sentence1', 'sentence2'"),
    "latin.csv": (b"sentence1,sentence2\na,b\n\xe9,b\n", "not UTF-8 text in line 3"),
    "half.csv": ("sentence1,sentence2\na,\n", "line 2: sentence2 is empty, expected a text"),
    "lines.txt": ("a\n", "a text a line, expected .csv, .tsv, .jsonl: RTE compares two, 'sentence1', 'sentence2'"),
    "rows.parquet": ("x", "expected a file whose name ends in .csv, .tsv, .jsonl, .txt"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_file_that_is_no_text_of_the_task_is_refused(workplace, capsys, name):
    content, message = BAD[name]
    (workplace / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    write_pairs(workplace / "good.jsonl", PAIRS)
    line = refused(run_distillation, capsys, *BOTH, "--unlabelled", "good.jsonl", name)
    assert line.startswith(f"error: {name}")
    assert message in line


def test_a_file_that_is_missing_or_not_there_to_be_read_is_refused(workplace, capsys):
    (workplace / "folder.csv").mkdir()
    for name in ("nothing.csv", "folder.csv"):
        assert refused(run_distillation, capsys, *BOTH, "--unlabelled", name) == f"error: {name}: no such file"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("\n \n", "no rows"),
        ("<!DOCTYPE html>\n<p>", "an HTML page, expected a text a line"),
        (b"a\n\xff", "line 2"),
        ("w1 w2\nw3\n".encode("utf-16-le"), "text in UTF-16 instead of UTF-8, expected a text a line"),
    ],
)
def test_a_file_of_lines_that_holds_something_else_is_refused(tmp_path, content, message):
    path = tmp_path / "lines.txt"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InputError, match=message) as found:
        read_unlabelled(path, TASKS["sst2"])
    assert str(found.value).startswith(str(path))


def loaded(*flags: str, task: str = "rte", configs=None):
    """The data of a distillation with these flags."""
    args = run_distillation.parse_args([*BOTH, "--task_name", task, *flags])
    return load_data(args, load_tokenizer("teacher"), CPU, *(configs or [small_config()]))


def test_rows_of_dev_and_test_are_dropped_as_the_model_reads_them_and_repeated_ones_kept(workplace, caplog):
    caplog.set_level("INFO")
    dev, test, train = (texts_of(split) for split in ("dev", "test", "train"))
    swapped = [(second, first) for first, second in dev[:1]]
    shouted = [(dev[20][0].upper(), f"  {dev[20][1]}")]  # as the tokenizer sees it, this is a row of dev
    pairs = [*PAIRS, dev[0], shouted[0], test[3], train[0], *swapped]
    data = loaded("--unlabelled", write_pairs(workplace / "a.jsonl", pairs), "--max_eval_examples", "3")
    assert len(data.dev_report) == 3  # and all of dev is left out
    assert len(data.unlabelled) == 6
    assert "a.jsonl: 3 of 9 rows dropped, since they are rows of dev or test; 1 of the others repeat" in caplog.text
    assert "an epoch takes 50 rows with labels and 6 of 6 without" in caplog.text
    assert "1 of the rows without labels are among those with labels, too, and count twice" in caplog.text
    expected = [*PAIRS, train[0], swapped[0]]
    kept = unlabelled.row_keys(data.unlabelled)
    assert kept == unlabelled.row_keys(loaded("--unlabelled", write_pairs(workplace / "b.jsonl", expected)).unlabelled)
    # the training set ends with them
    assert data.train.labels.tolist()[50:] == [NO_LABEL] * 6
    assert unlabelled.row_keys(data.train)[50:] == kept


def test_rows_of_test_are_only_those_of_a_file_that_is_there(workplace):
    path = write_pairs(workplace / "a.jsonl", [*PAIRS, texts_of("test")[0]])
    (workplace / "datasets" / "rte" / "test.tsv").unlink()
    assert len(loaded("--unlabelled", path).unlabelled) == 5


def test_a_file_of_which_no_row_is_left_is_refused(workplace, capsys):
    path = write_pairs(workplace / "a.jsonl", texts_of("dev"))
    line = refused(run_distillation, capsys, *BOTH, "--unlabelled", path)
    assert line == f"error: {path}: all 21 rows are rows of dev or test, expected others"


def test_a_logit_that_is_no_number_names_the_row_of_its_own_file(workplace):
    path = write_pairs(workplace / "a.jsonl", [texts_of("dev")[0], *PAIRS])
    data = loaded("--unlabelled", path)
    model = PrunableBert(small_config())
    with torch.no_grad():
        model.embeddings.word_embeddings.weight[VOCABULARY.index("w38")] = math.nan  # in no row but the last of PAIRS
    data.train.tokens[: int(data.train.offsets[50])].clamp_(max=VOCABULARY.index("w37"))
    with pytest.raises(FloatingPointError, match="first those of example 5 of its file without labels"):
        predict(model, data.train, 8)


def test_a_limit_of_training_rows_is_one_of_labelled_rows(workplace):
    files = [write_pairs(workplace / "a.jsonl", PAIRS), write_pairs(workplace / "b.jsonl", PAIRS[3:])]
    data = loaded("--max_train_examples", "3", "--unlabelled", *files)
    assert (data.train.labels >= 0).tolist() == [True] * 3 + [False] * 5
    assert unlabelled.row_keys(data.train)[-1] == unlabelled.row_keys(data.train)[-2]


def test_the_cache_tells_kinds_of_files_apart(workplace):
    for name, expected in (("a.csv", "w1"), ("a.tsv", '"w1"')):
        (workplace / name).write_text('sentence1\tsentence2\n"w1"\tw2\n'.replace("\t", "," if "csv" in name else "\t"))
        data = loaded("--unlabelled", name)
        split = Split([expected], ["w2"], [NO_LABEL])
        assert data.unlabelled.tokens.tolist() == tokenise(split, load_tokenizer("teacher"), 40).tokens.tolist()


# the loss


@pytest.mark.parametrize("classes", [1, 3])
def test_a_row_without_a_label_has_the_teachers_share_alone(classes):
    torch.manual_seed(0)
    logits, teacher = torch.randn(4, classes, requires_grad=True), torch.randn(4, classes)
    known = torch.tensor([1.5, 0.5]) if classes == 1 else torch.tensor([2, 0])
    labels = torch.cat([known, known.new_tensor([math.nan] * 2) if classes == 1 else known.new_tensor([NO_LABEL] * 2)])
    batch = SimpleNamespace(labels=labels)
    if classes == 1:
        distances = (logits - teacher).squeeze(1) ** 2
        task = (logits[:2, 0] - known) ** 2
    else:
        distances = -4 * ((teacher / 2).softmax(1) * (logits / 2).log_softmax(1)).sum(1)
        task = F.cross_entropy(logits[:2], known, reduction="none")
    expected = torch.cat([0.25 * distances[:2] + 0.75 * task, 3 * 0.25 * distances[2:]])
    loss_fn = weigh_unlabelled(student_loss(lambda batch: teacher, 2.0, 0.25), 3)
    found = loss_fn(logits, batch)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(
        torch.autograd.grad(found.sum(), logits, retain_graph=True), torch.autograd.grad(expected.sum(), logits)
    )
    # rows with a label: to the last bit what they are alone
    alone = distillation_loss(logits[:2], teacher[:2], SimpleNamespace(labels=known), 2.0, 0.25)
    assert torch.equal(found[:2], alone)
    assert torch.equal(task_loss(logits, batch)[2:], torch.zeros(2))


def test_the_weight_is_that_of_losses_between_layers_too(tokenizer):
    torch.manual_seed(0)
    student, teacher = PrunableBert(small_config()).eval(), PrunableBert(small_config()).eval()
    examples = make_examples(tokenizer, 6)
    examples.labels[4:] = NO_LABEL
    batch = examples.batch(torch.arange(6))
    with record_features(student) as ours, record_features(teacher) as theirs, torch.no_grad():
        logits, target = student(*batch.inputs), teacher(*batch.inputs)
        expected = distillation_loss(logits, target, batch, 2.0, 0.5) + minilm_loss(ours, theirs, batch.attention_mask)
    on_logits = partial(distillation_loss, temperature=2.0, alpha=0.5)
    with IntermediateLoss(student, teacher, {"minilm": 1.0}, on_logits) as loss_fn, torch.no_grad():
        found = weigh_unlabelled(loss_fn, 0.1)(student(*batch.inputs), batch)
    torch.testing.assert_close(found, expected * torch.tensor([1, 1, 1, 1, 0.1, 0.1]))


@pytest.mark.parametrize(
    ("task", "weight", "cached"), [("rte", 1, True), ("stsb", 1, True), ("rte", 0.5, False), ("stsb", 0.5, False)]
)
def test_training_on_the_labelled_rows_again_without_labels_adds_the_teachers_share_twice(
    tmp_path, monkeypatch, teacher_folder, task, weight, cached
):
    """One batch is an epoch of N rows and the same N without labels: the mean over 2 N of the losses is half the mean

    over N of (1 + weight) * alpha * distance + (1 - alpha) * task loss.
    """
    monkeypatch.chdir(tmp_path)
    write_task(tmp_path / "datasets", task, (12, 5, 5))
    config = small_config(
        num_labels=1 if task == "stsb" else 2, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0
    )
    teacher, student = PrunableBert(config), PrunableBert(config)
    student.cls[2].p = 0.0
    path = write_pairs(tmp_path / "again.jsonl", texts_of("train", task))
    both, alone = loaded("--unlabelled", path, task=task).train, loaded(task=task).train
    assert (len(both), len(alone)) == (24, 12)

    def by_hand(logits, batch):
        target = teacher(*batch.inputs).detach()
        if task == "stsb":
            distance, own = (logits - target).squeeze(1) ** 2, (logits.squeeze(1) - batch.labels) ** 2
        else:
            distance = -4 * ((target / 2).softmax(1) * (logits / 2).log_softmax(1)).sum(1)
            own = F.cross_entropy(logits, batch.labels, reduction="none")
        return ((1 + weight) * 0.3 * distance + 0.7 * own) / 2

    loss_fn = weigh_unlabelled(student_loss(teacher_logits_fn(teacher, both, 8, cached=cached), 2.0, 0.3), weight)
    recipe = QUICK._replace(batch_size=24, num_train_epochs=4, log_interval=1)
    trained, expected = copy.deepcopy(student), copy.deepcopy(student)
    options = {"selection_metric": "update"}
    counts = [iter(range(9)), iter(range(9))]
    results = [
        fit(model, rows, loss, recipe, eval_fn=lambda count=count: {"update": next(count)}, **options)
        for model, rows, loss, count in ((trained, both, loss_fn, counts[0]), (expected, alone, by_hand, counts[1]))
    ]
    assert [result.updates for result in results] == [4, 4]
    losses = [[entry["loss"] for entry in result.history] for result in results]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    for ours, theirs in zip(trained.parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, atol=3e-5, rtol=1e-4)
    assert not torch.allclose(trained.cls[3].weight, student.cls[3].weight, atol=1e-3)


# the rows of an epoch


def test_each_epoch_takes_all_labelled_rows_and_the_next_of_the_others():
    labels = torch.tensor([0.5, math.nan, 1.0, *[math.nan] * 6])
    epochs = [epoch_rows(labels, 3, 5, epoch).tolist() for epoch in range(8)]
    assert all(rows[:2] == [0, 2] and len(set(rows)) == 5 for rows in epochs)
    shuffled = [row for rows in epochs[:7] for row in rows[2:]]
    assert shuffled[:7] != sorted(shuffled[:7])
    assert shuffled == shuffled[:7] * 3  # three times round
    assert epochs[7] == epochs[0]
    assert epoch_rows(labels, 3, 6, 0).tolist() != epochs[0]
    assert epoch_rows(labels, None, 5, 1).tolist() == list(range(9))
    assert sorted(epoch_rows(labels, 20, 5, 1).tolist()) == list(range(9))


def test_training_on_a_part_of_the_rows_goes_on_bit_for_bit(tmp_path, tokenizer):
    torch.manual_seed(0)
    model = PrunableBert(small_config())
    examples = make_examples(tokenizer, 40)
    examples.labels[20:] = NO_LABEL
    recipe = QUICK._replace(num_train_epochs=3, unlabelled_per_epoch=7)
    teacher_logits = torch.randn(40, 2)

    def train(model, saved=None, stop=None):
        seen = []

        def loss(logits, batch):
            seen.extend(batch.example_ids.tolist())
            if stop and len(seen) > stop:
                raise Stopped
            return student_loss(lambda batch: teacher_logits[batch.example_ids])(logits, batch)

        return fit_and_select(model, examples, loss, recipe, saved), seen

    whole, stopped, resumed = (copy.deepcopy(model) for _ in range(3))
    wanted, seen = train(whole)
    assert wanted.updates == 3 * 4  # of 27 rows an epoch
    assert sorted(seen) == sorted([*range(20)] * 3 + [*range(20, 40)] + [seen_twice(seen)])
    with pytest.raises(Stopped):
        train(stopped, StateFile(tmp_path / "state", 1), stop=40)
    found, _ = train(resumed, StateFile(tmp_path / "state", 1))
    assert found._replace(train_seconds=0) == wanted._replace(train_seconds=0)
    for ours, other in zip(resumed.state_dict().values(), whole.state_dict().values(), strict=True):
        assert torch.equal(ours, other)


def seen_twice(rows: list[int]) -> int:
    """Of 3 x 7 of 20 rows, the one that comes a second time."""
    [twice] = {row for row in rows if row >= 20 and rows.count(row) == 2}
    return twice


# the stages


def test_a_run_that_was_stopped_does_not_go_on_beside_another_test_file(workplace):
    args = run_distillation.parse_args([*BOTH, "--unlabelled", write_pairs(workplace / "a.jsonl", PAIRS)])
    with_test = run_id(settings(args))
    assert run_id(settings(args)) == with_test
    (workplace / "datasets" / "rte" / "test.tsv").unlink()
    assert run_id(settings(args)) != with_test


def test_both_stages_that_distil_take_it_and_say_so(workplace, capsys):
    path = write_pairs(workplace / "text.jsonl", [*PAIRS * 5, *texts_of("test")[:2]])
    flags = ["--unlabelled", path, "--unlabelled_per_epoch", "14", "--unlabelled_weight", "0.5"]
    run_distillation.main([*BOTH, *BRIEF, *flags])
    folder = workplace / "outputs/distil/layer_dropped/kd_2_rte"
    metrics = read(folder / "metrics.json")
    assert metrics["unlabelled_rows"] == 20
    assert metrics["updates"] == 2 * 4  # of 64 rows an epoch, 16 at once
    card = (folder / "ckpt" / "README.md").read_text()
    assert "| rows without labels | 20 |" in card
    assert "| --unlabelled_weight | 0.5 |" in card
    # the same again trains nothing; with other content, files or flags it is another run
    run_distillation.main([*BOTH, *BRIEF, *flags])
    assert "finished before with the same arguments" in capsys.readouterr().out
    with open(path, "a") as file:
        file.write('{"sentence1": "w5", "sentence2": "w6"}\n')
    assert "the content of unlabelled has changed" in refused(run_distillation, capsys, *BOTH, *BRIEF, *flags)
    write_pairs(workplace / "text.jsonl", [*PAIRS * 5, *texts_of("test")[:2]])
    write_pairs(workplace / "more.jsonl", PAIRS)
    more = [*flags[:2], "more.jsonl", *flags[2:]]
    assert "the content of unlabelled has changed" in refused(run_distillation, capsys, *BOTH, *BRIEF, *more)
    test = workplace / "datasets" / "rte" / "test.tsv"
    test.rename("elsewhere.tsv")  # its rows would be trained on
    assert "the content of test has changed" in refused(run_distillation, capsys, *BOTH, *BRIEF, *flags)
    Path("elsewhere.tsv").rename(test)
    settings = read(folder / "ckpt" / "args.json")
    del settings["inputs"]["test"]  # as in earlier versions
    (folder / "ckpt" / "args.json").write_text(json.dumps(settings))
    run_distillation.main([*BOTH, *BRIEF, *flags])
    assert "finished before with the same arguments" in capsys.readouterr().out
    for other, message in (([], "--unlabelled ['"), ([*flags[:4]], "--unlabelled_weight 0.5, now 1.0")):
        assert message in refused(run_distillation, capsys, *BOTH, *BRIEF, *other)

    run_sparsification.main(BOTH)
    run_rewinding.main([*BOTH[2:], *BRIEF, *flags, "--teacher_sparsity", "0", "--minilm_weight", "1"])
    [result] = read(workplace / "outputs/rewind/layer_dropped/kd_2_rte_0.5/metrics.json")["sparsity"].values()
    assert result["unlabelled_rows"] == 20
    rows = report_data.collect(report_data.checkpoints([workplace / "outputs"]))
    students = {row.method: row.student for row in rows}
    assert students["dense teacher"] == "2 layers + 20 unlabelled rows"
    assert students["lam 0.5"] == "2 layers + 1 minilm + 20 unlabelled rows"
    found = report_data.settings(report_data.checkpoints([workplace / "outputs"]))
    assert found["rte"]["unlabelled"] == [[path], None]
    lines = report_tables.settings_table(found).lines
    assert ("unlabelled", "text.jsonl, not given") in lines


def test_two_processes_read_the_same_rows(workplace):
    path = write_pairs(workplace / "text.jsonl", [*PAIRS * 5, texts_of("dev")[0]])
    started = on_two(run_distillation.main, [*BOTH, *BRIEF, "--unlabelled", path, "--unlabelled_per_epoch", "14"])
    for process in started:
        process.join()
    assert [process.exitcode for process in started] == [0, 0]
    folder = workplace / "outputs/distil/layer_dropped/kd_2_rte"
    metrics = read(folder / "metrics.json")
    assert (metrics["unlabelled_rows"], metrics["updates"]) == (20, 2 * 2)  # of 64 rows an epoch, 32 at once


def test_friendliness_is_that_of_rows_without_labels_and_expressiveness_that_of_dev(workplace):
    path = write_pairs(workplace / "train.jsonl", texts_of("train"))
    scores, metrics = {}, {}
    for split, flags in (("dev", []), ("train", []), ("unlabelled", ["--unlabelled", path])):
        run_sparsification.main([*BOTH, "--score_split", split, *flags, "--output_dir", split])
        folder = workplace / split / "layer_dropped" / "kd_2_rte_0.5"
        scores[split], metrics[split] = load_file(folder / "ckpt" / "scores.safetensors"), read(folder / "metrics.json")
    for kind in ("head", "neuron"):
        for score, split in (("expressive", "dev"), ("friendly", "train")):
            name = f"{kind}_{score}"
            torch.testing.assert_close(scores["unlabelled"][name], scores[split][name], atol=1e-5, rtol=1e-4)
            other = scores["train" if split == "dev" else "dev"][name]
            assert not torch.allclose(scores["unlabelled"][name], other, atol=1e-3)
    losses = metrics["unlabelled"]["distillation_loss_per_unlabelled_batch"]
    assert len(losses) == 2  # of 50 rows
    # that of rows with labels has the labels' share too
    labelled = metrics["train"]["distillation_loss_per_train_batch"]
    assert all(0 < ours < theirs for ours, theirs in zip(losses, labelled, strict=True))
    assert metrics["unlabelled"]["unlabelled_rows"] == 50


def test_scores_of_regression_without_labels_are_numbers(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_task(tmp_path / "datasets", "stsb")
    PrunableBert(small_config(num_labels=1)).save_pretrained("teacher")
    write_vocabulary(tmp_path / "teacher")
    path = write_pairs(tmp_path / "text.jsonl", PAIRS)
    flags = [*BOTH, "--task_name", "stsb", "--unlabelled", path]
    run_distillation.main([*flags, *BRIEF])
    assert all(
        math.isfinite(entry["loss"])
        for entry in read(tmp_path / "outputs/distil/layer_dropped/kd_2_stsb/metrics.json")["history"]
    )
    run_sparsification.main([*flags, "--score_split", "unlabelled"])
    metrics = read(tmp_path / "outputs/stark/layer_dropped/kd_2_stsb_0.5/metrics.json")
    [loss] = metrics["distillation_loss_per_unlabelled_batch"]
    assert math.isfinite(loss)


def test_an_own_task_takes_text_by_its_own_columns_alone(tmp_path, monkeypatch, teacher_folder, capsys):
    """Its columns are none of GLUE's names for others: `score` is a text here, not a label."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "datasets" / "wishes").mkdir(parents=True)
    definition = {"text_columns": ["score"], "label_column": "stars", "score_range": [0, 100], "metric": "corr"}
    (tmp_path / "datasets" / "wishes" / "task.json").write_text(json.dumps(definition))
    for split in ("train", "dev"):
        rows = "".join(f"w{row} {split[0]},{100 - row}\n" for row in range(30))
        (tmp_path / "datasets" / "wishes" / f"{split}.csv").write_text(f"score,stars\n{rows}")
    PrunableBert(small_config(num_labels=1, score_range=[0, 100])).save_pretrained("teacher")
    write_vocabulary(tmp_path / "teacher")
    (tmp_path / "more.txt").write_text('w1 w2, "w3\nw4\nW5  d\n')  # the last is a row of dev
    flags = [*BOTH, *BRIEF, "--task_name", "wishes", "--unlabelled"]
    (tmp_path / "glue.csv").write_text("sentence\nw1\n")
    assert "'sentence', expected 'score' by name" in refused(run_distillation, capsys, *flags, "glue.csv")
    run_distillation.main([*flags, "more.txt"])
    metrics = read(tmp_path / "outputs/distil/layer_dropped/kd_2_wishes/metrics.json")
    assert metrics["unlabelled_rows"] == 2
    assert all(math.isfinite(entry["loss"]) for entry in metrics["history"])


def test_a_finished_run_is_shown_again_when_its_file_is_gone(workplace, caplog):
    write_pairs(workplace / "more.jsonl", PAIRS)
    flags = [*BOTH, *BRIEF, "--unlabelled", "more.jsonl"]
    run_distillation.main(flags)
    (workplace / "more.jsonl").unlink()
    run_distillation.main(flags)
    assert "finished before with the same arguments" in caplog.text


FLAGS = {  # flags that cannot work -> what the line says
    "run_distillation": {
        "--unlabelled x.txt --model_type ft": "--unlabelled: for --model_type kd, found ft",
        "--unlabelled x.txt --alpha 0": "--unlabelled: the teacher alone labels these rows, found --alpha 0",
        "--unlabelled_weight 1": "--unlabelled_weight: of the rows of --unlabelled, which is not given",
        "--unlabelled_per_epoch 5": "--unlabelled_per_epoch: of the rows of --unlabelled, which is not given",
        "--unlabelled_per_epoch 0": "argument --unlabelled_per_epoch: found '0', expected an integer of at least 1",
        "--unlabelled_weight -1": "argument --unlabelled_weight: found '-1', expected a number of at least 0",
    },
    "run_sparsification": {
        "--score_split unlabelled": "--score_split unlabelled: expected --unlabelled FILE, which names these rows",
        "--unlabelled x.txt": "--unlabelled: for --score_split unlabelled, found dev",
        "--unlabelled x --score_split unlabelled --alpha 0": "the teacher alone labels these rows, found --alpha 0",
    },
}
SCRIPTS = {"run_distillation": run_distillation, "run_sparsification": run_sparsification}


@pytest.mark.parametrize(("script", "flags"), [(script, flags) for script in FLAGS for flags in FLAGS[script]])
def test_a_flag_that_cannot_work_is_refused(workplace, capsys, script, flags):
    assert FLAGS[script][flags] in refused(SCRIPTS[script], capsys, *BOTH, *flags.split())


def test_without_the_teachers_logits_its_layers_still_teach(workplace):
    Path("x.csv").touch()
    args = run_distillation.parse_args([*BOTH, "--unlabelled", "x.csv", "--alpha", "0", "--minilm_weight", "1"])
    assert args.unlabelled_weight == 1


@pytest.mark.parametrize(("name", "message"), [("no.csv", "no such file"), ("lines.txt", "a text a line")])
def test_a_sweep_refuses_a_file_that_no_stage_could_read(workplace, capsys, name, message):
    Path("lines.txt").touch()
    assert f"error: {name}: {message}" in refused(sweep, capsys, "--unlabelled", name)


def test_a_sweep_gives_it_to_the_stages_that_distil_and_to_the_one_that_scores_if_told_to(workplace):
    flags = ["--student_layer", "2", "--unlabelled", "a.jsonl", "b c.csv", "--unlabelled_per_epoch", "9"]
    for name in flags[3:5]:
        Path(name).touch()
    for split, scored in (("dev", None), ("unlabelled", ["a.jsonl", "b c.csv"])):
        cells = sweep.grid(sweep.parse_args([*flags, "--score_split", split]))
        parsed = {}
        for cell in cells:
            (cell.folder / "ckpt").mkdir(parents=True, exist_ok=True)
            parsed[cell.stage] = sweep.SCRIPTS[cell.stage].parse_args(cell.flags)
        for stage in ("distil", "rewind"):
            assert parsed[stage].unlabelled == ["a.jsonl", "b c.csv"]
            assert (parsed[stage].unlabelled_per_epoch, parsed[stage].unlabelled_weight) == (9, 1)
        assert (parsed["stark"].score_split, parsed["stark"].unlabelled) == (split, scored)

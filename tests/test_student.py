"""A student called with texts: it says what --do_test writes and what Hugging Face's class says, or refuses them."""

import json
from pathlib import Path

import pytest
import torch
from conftest import random_batch, small_config, write_task, write_vocabulary
from transformers import AutoTokenizer, BertForSequenceClassification

import run_finetuning
from models.bert import PrunableBert
from models.units import CheckpointError
from student import Prediction, load_student
from utils.errors import InputError
from utils.folder import checkpoint_settings

TEXTS = ["w1 w2 w3", ("w4", "w5 w6"), "w7", ("w1 w2 w3 w4 w5 w6", "w7"), "w8 w8 w8 w8"]
NAMES = ("worse", "same", "better")


def write_classifier(folder: Path, **changes) -> PrunableBert:
    torch.manual_seed(0)
    model = PrunableBert(small_config(**changes)).eval()
    model.save_pretrained(folder)
    write_vocabulary(folder)
    return model


def set_output(model: PrunableBert, folder: Path, *logits: float) -> None:
    """Save the model with these logits for every text."""
    torch.nn.init.zeros_(model.cls[-1].weight)
    model.cls[-1].bias.data = torch.tensor(logits)
    model.save_pretrained(folder)


@pytest.mark.parametrize("task", ["rte", "stsb"])
def test_a_student_says_what_the_run_predicts_of_the_test_set(in_tmp_path, task):
    write_task(Path("datasets"), task)
    names = ("not_entailment", "entailment") if task == "rte" else ("score",)
    model = write_classifier(Path("start"), id2label=dict(enumerate(names)))
    spread(model, Path("start"), Path("datasets", task, "train.tsv"))
    # so short that most rows are cut, as they were in training
    flags = ["--task_name", task, "--max_length", "8", "--num_train_epochs", "1", "--do_test", "--use_cpu"]
    run_finetuning.main([*flags, "--model_path", "start", "--learning_rate", "0"])
    run = Path("outputs/finetune", f"ft_{task}")
    [written] = run.glob("*.tsv")
    expected = [line.split("\t")[1] for line in written.read_text().splitlines()[1:]]
    said = load_student(run / "ckpt", "cpu")(pairs_of(Path("datasets", task, "test.tsv"), slice(-2, None)))
    assert [f"{one:.3f}" if task == "stsb" else one.label for one in said] == expected
    assert len(set(expected)) > 1


def pairs_of(path: Path, columns: slice) -> list[tuple[str, ...]]:
    """The texts in these columns of a file with a header."""
    return [tuple(line.split("\t")[columns]) for line in path.read_text().splitlines()[1:]]


def spread(model: PrunableBert, folder: Path, train: Path) -> None:
    """Save the model with logits of the training set around 2.5, so that it answers differently to them."""
    student = load_student(folder, "cpu")
    logits = student.logits(student.tokenise(pairs_of(train, slice(-3, -1))))
    scale = 1 / logits.std(0)
    model.cls[-1].weight.data *= scale[:, None]
    model.cls[-1].bias.data = 2.5 - scale * (logits.mean(0) - model.cls[-1].bias.data)
    model.save_pretrained(folder)


def test_one_text_or_several_in_any_order_and_batch_get_the_same_answers(in_tmp_path):
    write_classifier(Path("ckpt"), id2label=dict(enumerate(NAMES)))
    student = load_student("ckpt", batch_size=2)
    said = student(TEXTS)
    assert all(isinstance(one, Prediction) and tuple(one.probabilities) == NAMES for one in said)
    assert all(one.label == max(one.probabilities, key=one.probabilities.get) for one in said)
    assert all(sum(one.probabilities.values()) == pytest.approx(1) for one in said)
    for text, one in zip(TEXTS, said, strict=True):
        assert student(text).probabilities == pytest.approx(one.probabilities, abs=1e-6)
    again = student(text for text in reversed(TEXTS))
    assert [one.label for one in again] == [one.label for one in reversed(said)]
    assert student([" w1 w2 w3\n"]) == student(["w1 w2 w3"])
    assert student([]) == []


def test_a_classifier_of_the_library_says_what_it_says_there(in_tmp_path):
    torch.manual_seed(0)
    model = BertForSequenceClassification(small_config(id2label=dict(enumerate(NAMES)))).eval()
    model.save_pretrained("theirs")
    write_vocabulary(Path("theirs"))
    tokenizer = AutoTokenizer.from_pretrained("theirs")
    for text, one in zip(TEXTS, load_student("theirs")(TEXTS), strict=True):
        inputs = tokenizer(*([text] if isinstance(text, str) else text), return_tensors="pt")
        with torch.inference_mode():
            expected = model(**inputs).logits[0].softmax(-1).tolist()
        assert list(one.probabilities.values()) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize(
    ("changes", "logit", "expected"),
    [
        ({}, 2.5, 2.5),
        ({}, 7.0, 5.0),
        ({"score_range": [0, 100]}, 2.5, 50.0),
        ({"score_range": [-1, 1]}, 1.0, -0.6),
        ({"score_range": [-1, 1]}, -3.0, -1.0),
    ],
)
def test_a_score_is_on_the_scale_of_its_data(in_tmp_path, changes, logit, expected):
    model = write_classifier(Path("ckpt"), id2label={0: "score"}, **changes)
    set_output(model, Path("ckpt"), logit)
    student = load_student("ckpt")
    assert student("w1") == pytest.approx(expected)
    assert student(["w1", ("w1", "w2")]) == pytest.approx([expected, expected])


def test_a_regression_trained_elsewhere_has_its_own_scale(in_tmp_path):
    model = BertForSequenceClassification(small_config(num_labels=1))
    torch.nn.init.zeros_(model.classifier.weight)
    torch.nn.init.constant_(model.classifier.bias, -11.0)
    for name in ("LABEL_0", "score"):
        model.config.id2label = {0: name}
        model.save_pretrained("theirs")
        write_vocabulary(Path("theirs"))
        assert load_student("theirs")("w1") == pytest.approx(-11)


def test_texts_are_cut_to_what_the_model_takes_or_was_trained_with(in_tmp_path):
    write_classifier(Path("ckpt"))
    long = " ".join(f"w{index % 40}" for index in range(100))
    student = load_student("ckpt")
    assert student.max_length == 40
    assert student(long) == student(" ".join(long.split()[:38]))
    Path("ckpt/args.json").write_text(json.dumps({"max_length": 12, "inputs": {}}))
    assert load_student("ckpt")(long) == student(" ".join(long.split()[:10]))
    Path("ckpt/args.json").write_text(json.dumps({"max_length": 128, "inputs": {}}))
    assert load_student("ckpt").max_length == 40


@pytest.mark.parametrize("task", [None, "classification", ["rte"], {"name": "reviews"}])
def test_another_programs_args_json_says_nothing(in_tmp_path, task):
    write_classifier(Path("ckpt"))
    Path("ckpt/args.json").write_text(json.dumps({"max_length": 12, "task_name": "rte", "task": task}))
    assert load_student("ckpt").max_length == 40
    assert checkpoint_settings("ckpt") == {}


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["w1", ""], "text 2: empty"),
        ([("w1", " ")], "text 1: empty"),
        (("w1", "w2", "w3"), "text 1: found "),
        (["w1", 3], "text 2: found '3', expected a string or a pair of strings"),
        ([b"w1"], "text 1: found "),
        ([("w1", None)], "text 1: found "),
        (["w1", "w2 \ud83d"], r"text 2: found 'w2 \\ud83d', with half of a character"),
    ],
)
def test_what_is_no_text_is_refused(in_tmp_path, texts, message):
    write_classifier(Path("ckpt"))
    with pytest.raises(InputError, match=message):
        load_student("ckpt")(texts)


def test_a_pair_is_refused_by_a_model_that_does_not_tell_its_texts_apart(in_tmp_path):
    write_classifier(Path("ckpt"), type_vocab_size=1)
    student = load_student("ckpt")
    assert student("w1").label in ("LABEL_0", "LABEL_1")
    with pytest.raises(InputError, match="pairs of sentences, which take two token types"):
        student(("w1", "w2"))


def test_logits_that_are_not_numbers_are_no_answer(in_tmp_path):
    set_output(write_classifier(Path("ckpt")), Path("ckpt"), torch.nan, 0.0)
    with pytest.raises(FloatingPointError, match="example 1 "):
        load_student("ckpt")("w1")


def test_what_is_no_student_is_refused(in_tmp_path, bert_folder):
    with pytest.raises(CheckpointError, match="no classifier for 2 classes"):
        load_student(bert_folder)
    with pytest.raises(CheckpointError, match="no: no such folder"):
        load_student("no")
    write_classifier(Path("twice"), id2label={0: "a", 1: "b", 2: "a"})
    with pytest.raises(InputError, match="names a class twice: a, b, a"):
        load_student("twice")
    write_classifier(Path("ckpt"), id2label={0: "score"}, score_range=[5, 1])
    with pytest.raises(InputError, match=r"score_range \[5, 1\] of config.json"):
        load_student("ckpt")
    with pytest.raises(InputError, match="device nowhere: "):
        load_student("ckpt", "nowhere")


def test_a_cut_student_says_what_its_model_says(in_tmp_path):
    removed = {"50": {"head": {"0": 4, "1": 3}, "neuron": {"0": 32, "2": 10}}}
    model = write_classifier(Path("ckpt"), sparsity="50", sparsity_map=removed)
    student = load_student("ckpt")
    examples = student.tokenise(TEXTS)
    batch = examples.batch(torch.arange(len(TEXTS)))
    with torch.inference_mode():
        torch.testing.assert_close(student.logits(examples), model(*batch.inputs), atol=1e-5, rtol=0)
    assert student.model(*random_batch(model.config)).shape == (5, 2)

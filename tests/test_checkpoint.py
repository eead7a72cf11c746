"""Checkpoints of other projects: every layout of BERT is read right, or refused in one line."""

import json
import logging
import shutil
from pathlib import Path

import pytest
import torch
from conftest import edit_config, random_batch, refused, small_config
from huggingface_hub import constants
from safetensors.torch import load_file, save_file
from transformers import AutoModelForSequenceClassification, BertForMultipleChoice, BertForSequenceClassification

import run_finetuning
import run_pruning
from models.bert import PrunableBert
from models.checkpoint import load_model
from models.units import CheckpointError
from scripts.export import write_huggingface
from utils.tokenizer import load_tokenizer

LABELS = ("not_entailment", "entailment")
POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 440473133\n"


def edit_weights(folder: Path, edit) -> None:
    weights = load_file(folder / "model.safetensors")
    edit(weights)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def refusal(folder: Path, fine_tuned: bool = True) -> str:
    """The error message of a checkpoint that is refused."""
    with pytest.raises(CheckpointError) as error:
        load_model(str(folder), LABELS, fine_tuned)
    line = str(error.value)
    assert line.startswith(f"{folder}: ")
    assert "\n" not in line
    return line


def old_layout(state: dict) -> dict:
    """bert-base-uncased's own: gamma and beta, a pooler, a masked-language-model head."""
    renamed = {key.replace("LayerNorm.weight", "LayerNorm.gamma"): value for key, value in state.items()}
    renamed = {"bert." + key.replace("LayerNorm.bias", "LayerNorm.beta"): value for key, value in renamed.items()}
    head = {
        "cls.predictions.bias": torch.zeros(45),
        "cls.predictions.transform.dense.weight": torch.zeros(32, 32),
        "cls.predictions.transform.LayerNorm.gamma": torch.zeros(32),
        "cls.predictions.transform.LayerNorm.beta": torch.zeros(32),
        "cls.predictions.decoder.weight": torch.zeros(45, 32),
        "cls.seq_relationship.weight": torch.zeros(2, 32),
    }
    return {**renamed, **head}


@pytest.mark.parametrize("layout", ["plain", "prefixed", "old"])
def test_every_encoder_weight_of_any_bert_layout_is_loaded(bert_folder, layout, caplog):
    weights = bert_folder / "model.safetensors"
    state = load_file(weights)
    if layout == "prefixed":
        save_file({f"bert.{key}": value for key, value in state.items()}, weights, metadata={"format": "pt"})
    if layout == "old":
        save_file(old_layout(state), weights, metadata={"format": "pt"})
    with caplog.at_level(logging.INFO, logger="stark"):
        model = load_model(str(bert_folder), LABELS, fine_tuned=False)
    for key, value in model.bert.state_dict().items():
        assert torch.equal(value, state[key]), key
    [line] = caplog.messages
    assert "new: cls.0.bias, cls.0.weight, cls.3.bias, cls.3.weight" in line
    assert "pooler" in line or "cls.predictions" in line


def test_half_precision_weights_are_read_as_float32(bert_folder):
    state = load_file(bert_folder / "model.safetensors")
    save_file({key: value.half() for key, value in state.items()}, bert_folder / "model.safetensors", {"format": "pt"})
    edit_config(bert_folder, dtype="float16")
    model = load_model(str(bert_folder), LABELS, fine_tuned=False)
    assert {weight.dtype for weight in model.state_dict().values()} == {torch.float32}


def test_missing_encoder_weights_are_an_error(bert_folder):
    state = load_file(bert_folder / "model.safetensors")
    del state["encoder.layer.1.output.dense.weight"]
    save_file(state, bert_folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=r"1 encoder weights .*layer\.1\.output\.dense\.weight"):
        load_model(str(bert_folder), LABELS, fine_tuned=False)


def test_a_model_without_classifier_is_refused_as_a_teacher(bert_folder):
    with pytest.raises(CheckpointError, match="no classifier for 2 classes .*run_finetuning.py first"):
        load_model(str(bert_folder), LABELS)


def test_a_classifier_of_another_size_is_refused(teacher_folder):
    with pytest.raises(CheckpointError, match="no classifier for 3 classes"):
        load_model(str(teacher_folder), ("contradiction", "neutral", "entailment"))


def test_labels_in_another_order_are_mapped_by_name(tmp_path):
    torch.manual_seed(0)
    labels = ("contradiction", "neutral", "entailment")
    batch = random_batch(small_config())
    model = PrunableBert(small_config(id2label={0: "entailment", 1: "contradiction", 2: "neutral"})).eval()
    model.save_pretrained(tmp_path)
    expected = model(*batch)[:, [1, 2, 0]]  # three in a ring, which is not its own inverse
    for ids in ("012", "210"):  # written in another order, numbered as before
        written = json.loads((tmp_path / "config.json").read_text())["id2label"]
        edit_config(tmp_path, id2label={index: written[index] for index in ids})
        ours = load_model(str(tmp_path), labels).eval()
        torch.testing.assert_close(ours(*batch), expected)
        assert ours.config.id2label == dict(enumerate(labels))
        assert ours.config.label2id == {name: index for index, name in enumerate(labels)}


@pytest.mark.parametrize("names", [None, {"0": "LABEL_0", "1": "LABEL_1"}])
def test_classes_without_names_are_taken_in_order_with_a_warning(teacher_folder, names, caplog):
    batch = random_batch(small_config())
    expected = load_model(str(teacher_folder), LABELS).eval()(*batch)
    edit_config(teacher_folder, id2label=names, label2id=None)
    with caplog.at_level(logging.WARNING, logger="stark"):
        torch.testing.assert_close(load_model(str(teacher_folder), LABELS).eval()(*batch), expected)
    assert "its classes have no names, taken to be in this order: not_entailment, entailment" in caplog.text


def test_classes_whose_names_differ_in_case_alone_are_told_apart(teacher_folder):
    edit_config(teacher_folder, id2label={"0": "good", "1": "Good"})
    row = load_file(teacher_folder / "model.safetensors")["cls.3.weight"]
    assert torch.equal(load_model(str(teacher_folder), ("Good", "good")).cls[-1].weight, row.flip(0))
    edit_config(teacher_folder, id2label={"0": "GOOD", "1": "good"})
    with pytest.raises(CheckpointError, match="a classifier for GOOD, good; this task has Good, good"):
        load_model(str(teacher_folder), ("Good", "good"))


def test_capitals_in_class_names_do_not_matter(teacher_folder):
    batch = random_batch(small_config())
    expected = load_model(str(teacher_folder), LABELS)(*batch).flip(1)
    edit_config(teacher_folder, id2label={"0": "ENTAILMENT", "1": "Not_Entailment"})
    model = load_model(str(teacher_folder), LABELS)
    torch.testing.assert_close(model(*batch), expected)
    assert model.config.id2label == dict(enumerate(LABELS))
    edit_config(teacher_folder, id2label={"0": "ENTAILMENT", "1": "entailment"})
    assert "a classifier for ENTAILMENT, entailment; this task has" in refusal(teacher_folder)


def test_generic_class_names_out_of_order_are_refused(teacher_folder):
    edit_config(teacher_folder, id2label={"0": "LABEL_1", "1": "LABEL_0"})
    assert "a classifier for LABEL_1, LABEL_0; this task has" in refusal(teacher_folder)


@pytest.mark.parametrize("names", [{"0": 0, "1": 1}, {"0": None, "1": None}, {"0": "a", "2": "b"}, {}, ["a", "b"]])
@pytest.mark.parametrize("fine_tuned", [True, False])
def test_class_names_that_are_none_are_refused(teacher_folder, names, fine_tuned):
    edit_config(teacher_folder, id2label=names)
    assert "id2label of config.json: found" in refusal(teacher_folder, fine_tuned)


def test_a_classifier_for_other_labels_is_refused(teacher_folder):
    with pytest.raises(CheckpointError, match="a classifier for not_entailment, entailment; this task has negative"):
        load_model(str(teacher_folder), ("negative", "positive"))


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("no-such-model-anywhere", "no such folder, and no such name on the hub .* tokenizer_config.json"),
        ("outputs/finetune/ft_rte/ckpt", "no such folder"),
        ("tests/nothing", "no such folder"),
        ("./nothing", "no such folder, expected"),
        ("a--b", "no such folder, expected"),
        ("tests", "no config.json"),
        ("pyproject.toml", "no config.json"),
    ],
)
def test_a_checkpoint_that_is_not_there(path, message, request, monkeypatch):
    monkeypatch.chdir(request.config.rootpath)
    with pytest.raises(CheckpointError, match=message):
        load_model(path, LABELS)


def cached_on_hub(cache: Path, name: str, folder: Path) -> None:
    """Put a folder's files where the hub's library keeps what it has fetched."""
    stored = cache / f"models--{name.replace('/', '--')}"
    shutil.copytree(folder, stored / "snapshots" / "0123456789abcdef")
    (stored / "refs").mkdir()
    (stored / "refs" / "main").write_text("0123456789abcdef")


def test_a_folder_by_the_name_of_an_organisation_does_not_hide_the_hub(tmp_path, teacher_folder, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    cached_on_hub(tmp_path / "cache", "google/bert_uncased_L-2_H-128_A-2", teacher_folder)
    Path("google").mkdir()
    model = load_model("google/bert_uncased_L-2_H-128_A-2", LABELS)
    assert torch.equal(model.cls[3].weight, load_model(str(teacher_folder), LABELS).cls[3].weight)
    tokenizer = load_tokenizer("google/bert_uncased_L-2_H-128_A-2")
    assert tokenizer.files["vocab.txt"] == (teacher_folder / "vocab.txt").read_bytes()


def test_a_config_with_berts_keys_and_no_type_is_a_bert(teacher_folder):
    batch = random_batch(small_config())
    expected = load_model(str(teacher_folder), LABELS).eval()(*batch)
    edit_config(teacher_folder, model_type=None, architectures=None, transformers_version=None)
    torch.testing.assert_close(load_model(str(teacher_folder), LABELS).eval()(*batch), expected)
    edit_config(teacher_folder, architectures=["RobertaModel"])  # which counts positions otherwise
    assert "type unknown (no model_type, architectures RobertaModel), expected one of " in refusal(
        teacher_folder, False
    )
    edit_config(teacher_folder, architectures=["BertModel"])
    load_model(str(teacher_folder), LABELS, fine_tuned=False)
    edit_config(teacher_folder, intermediate_size=None)
    assert "type unknown (no model_type, no intermediate_size), expected one of bert, " in refusal(teacher_folder)
    edit_config(teacher_folder, model_type="bert")
    assert refusal(teacher_folder).endswith(": no intermediate_size in config.json")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("position_embedding_type", "relative_key"),
        ("position_embedding_type", "relative_key_query"),
        ("is_decoder", True),
        ("add_cross_attention", True),
        ("quantization_config", {"quant_method": "bitsandbytes", "load_in_8bit": True}),
        ("hidden_act", "gelu_of_mine"),
    ],
)
@pytest.mark.parametrize("fine_tuned", [True, False])
def test_a_bert_that_ours_does_not_compute_is_refused(teacher_folder, key, value, fine_tuned):
    edit_config(teacher_folder, **{key: value})
    assert f"{key} {value!r} of config.json: " in refusal(teacher_folder, fine_tuned)


def test_settings_at_their_usual_value_are_accepted(teacher_folder):
    edit_config(teacher_folder, position_embedding_type="absolute", is_decoder=False, add_cross_attention=False)
    assert load_model(str(teacher_folder), LABELS).config.num_labels == 2


def test_weights_inside_the_encoder_that_would_not_be_used_are_refused(teacher_folder):
    # numbers of positions, which older versions of the library saved, are no weights
    edit_weights(teacher_folder, lambda w: w.update({"bert.embeddings.position_ids": torch.arange(40)[None]}))
    load_model(str(teacher_folder), LABELS)
    name = "bert.encoder.layer.0.attention.self.distance_embedding.weight"
    edit_weights(teacher_folder, lambda w: w.update({name: torch.zeros(79, 8)}))
    line = refusal(teacher_folder)
    assert line.endswith(f"1 encoder weights that its config.json has no place for: {name}")


@pytest.mark.parametrize(("names", "problem"), [(("entailment", "not_entailment"), "classes"), (("score",), "score")])
def test_hugging_faces_classifier_is_a_teacher(tmp_path, names, problem):
    torch.manual_seed(0)
    theirs = BertForSequenceClassification(small_config(id2label=dict(enumerate(names)))).eval()
    theirs.save_pretrained(tmp_path)
    ids, types, mask = random_batch(theirs.config)
    ours = load_model(str(tmp_path), LABELS if problem == "classes" else ()).eval()
    expected = theirs(input_ids=ids, token_type_ids=types, attention_mask=mask.long()).logits
    torch.testing.assert_close(ours(ids, types, mask), expected.flip(-1), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("problem", ["multi_label_classification", "regression"])
def test_logits_that_are_not_of_one_class_among_others_are_no_teachers(tmp_path, problem):
    theirs = BertForSequenceClassification(small_config(id2label=dict(enumerate(LABELS)), problem_type=problem))
    theirs.save_pretrained(tmp_path)
    expected = f"problem_type '{problem}' of config.json: expected single_label_classification"
    assert refusal(tmp_path).endswith(expected)
    with pytest.raises(CheckpointError, match="problem_type"):
        load_model(str(tmp_path))


def test_what_a_start_was_trained_for_and_its_precision_are_not_handed_on(tmp_path):
    theirs = BertForSequenceClassification(small_config(num_labels=5, problem_type="multi_label_classification"))
    theirs.half().save_pretrained(tmp_path / "theirs")
    edit_config(tmp_path / "theirs", torch_dtype="float16")
    model = load_model(str(tmp_path / "theirs"), LABELS, fine_tuned=False)
    model.save_pretrained(tmp_path / "ckpt")
    config = json.loads((tmp_path / "ckpt" / "config.json").read_text())
    assert config["dtype"] == "float32"
    assert not {"problem_type", "torch_dtype"} & set(config)
    # one that was trained here from such a start is a teacher, though it may say so
    edit_config(tmp_path / "ckpt", problem_type="multi_label_classification")
    assert load_model(str(tmp_path / "ckpt"), LABELS).config.num_labels == 2


@pytest.mark.parametrize("source", ["bert", "ckpt"])
def test_an_export_is_of_the_precision_and_problem_of_what_was_read(tmp_path, source):
    theirs = BertForSequenceClassification(small_config(id2label=dict(enumerate(LABELS)))).half().eval()
    theirs.save_pretrained(tmp_path / "bert")
    model = load_model(str(tmp_path / "bert"), LABELS)
    model.save_pretrained(tmp_path / "ckpt")
    edit_config(tmp_path / "ckpt", problem_type="multi_label_classification")  # as earlier versions handed on
    write_huggingface(load_model(str(tmp_path / source)), tmp_path)
    again = AutoModelForSequenceClassification.from_pretrained(tmp_path)
    assert again.dtype == torch.float32
    assert again.config.problem_type is None


def test_another_head_than_a_sentence_classifiers_is_no_teacher(tmp_path):
    BertForMultipleChoice(small_config()).save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match="no classifier for 1 classes"):
        load_model(str(tmp_path), ())


def test_training_starts_with_a_new_classifier_where_ours_is_not_there(tmp_path, caplog):
    BertForSequenceClassification(small_config()).save_pretrained(tmp_path)
    pooler = load_file(tmp_path / "model.safetensors")["bert.pooler.dense.weight"]
    with caplog.at_level(logging.INFO, logger="stark"):
        model = load_model(str(tmp_path), LABELS, fine_tuned=False)
    assert not torch.equal(model.cls[0].weight, pooler)
    [line] = caplog.messages
    assert "new: cls.0.bias, cls.0.weight, cls.3.bias, cls.3.weight; unused: bert.pooler.dense.bias" in line


def test_weights_that_are_read_are_not_drawn_first(teacher_folder, monkeypatch):
    drawn = []
    monkeypatch.setattr(torch.nn.init, "normal_", lambda weight, *_, **__: drawn.append(weight))
    load_model(str(teacher_folder))
    assert not drawn


def test_a_new_classifier_is_the_seeds(workplace, bert_folder):
    drawn = {}
    for name, seed in (("first", "1"), ("again", "1"), ("other", "2")):
        torch.rand(len(drawn) + 1)  # what ran before in the process changes nothing
        flags = ["--seed", seed, "--learning_rate", "0", "--num_train_epochs", "1", "--max_length", "40", "--use_cpu"]
        run_finetuning.main([*flags, "--model_path", str(bert_folder), "--output_dir", name])
        drawn[name] = load_file(Path(name, "ft_rte", "ckpt", "model.safetensors"))
    for key in ("cls.0.weight", "cls.3.weight"):
        assert torch.equal(drawn["first"][key], drawn["again"][key])
        assert not torch.equal(drawn["first"][key], drawn["other"][key])


def test_an_exports_origin_is_not_handed_on(teacher_folder):
    edit_config(teacher_folder, export_source="0123")
    assert not hasattr(load_model(str(teacher_folder), LABELS).config, "export_source")


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "pytorch_model.bin"])
def test_a_git_lfs_pointer_is_named(teacher_folder, name):
    if name == "pytorch_model.bin":
        (teacher_folder / "model.safetensors").unlink()
    (teacher_folder / name).write_text(POINTER)
    assert f"{name} is a git-lfs pointer, not the file itself; git lfs pull fetches it" in refusal(teacher_folder)


def test_a_pointer_that_is_not_needed_does_no_harm(teacher_folder):
    expected = load_model(str(teacher_folder), LABELS).cls[3].weight
    (teacher_folder / "pytorch_model.bin").write_text(POINTER)
    assert torch.equal(load_model(str(teacher_folder), LABELS).cls[3].weight, expected)


def test_no_error_advises_to_unpickle_arbitrary_objects(teacher_folder):
    (teacher_folder / "model.safetensors").unlink()
    torch.save(PrunableBert(small_config()), teacher_folder / "pytorch_model.bin")
    line = refusal(teacher_folder)
    assert "weights that are damaged, or something else than tensors" in line
    assert "weights_only" not in line


def test_an_adapter_is_not_left_out_of_the_model(teacher_folder):
    (teacher_folder / "adapter_config.json").write_text('{"peft_type": "LORA"}')
    expected = "an adapter (adapter_config.json), expected a whole model, as merge_and_unload() of peft makes it"
    assert refusal(teacher_folder) == f"{teacher_folder}: {expected}"
    (teacher_folder / "config.json").unlink()
    (teacher_folder / "model.safetensors").unlink()
    assert refusal(teacher_folder) == f"{teacher_folder}: {expected}"


@pytest.mark.parametrize("named", [{"a": "../other.safetensors"}, {"a": "/other.safetensors"}, {"a": 3}, None])
def test_weights_in_parts_lie_beside_their_index(teacher_folder, named):
    (teacher_folder / "model.safetensors").rename(teacher_folder.parent / "other.safetensors")
    (teacher_folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": named}))
    found = repr(named["a"]) if named else None
    expected = f"model.safetensors.index.json: weight_map names {found}, expected files beside it"
    assert refusal(teacher_folder) == f"{teacher_folder}: {expected}"


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"hidden_size": "32"}, "hidden_size '32' of config.json: expected an integer of at least 0"),
        ({"intermediate_size": -1}, "intermediate_size -1 of config.json: expected an integer of at least 0"),
        ({"layer_norm_eps": "1e-5"}, "layer_norm_eps '1e-5' of config.json: expected a number of at least 0"),
        ({"num_attention_heads": 5}, "config.json: 5 heads do not divide hidden_size 32"),
        ({"num_attention_heads": 0}, "config.json: 0 heads do not divide hidden_size 32"),
        ({"pad_token_id": 45}, "pad_token_id 45 of config.json: expected less than vocab_size 45"),
    ],
)
def test_a_setting_that_no_model_can_have_is_one_line(teacher_folder, changes, line):
    edit_config(teacher_folder, **changes)
    assert refusal(teacher_folder) == f"{teacher_folder}: {line}"


def one_token_type(weights: dict) -> None:
    name = "bert.embeddings.token_type_embeddings.weight"
    weights[name] = weights[name][:1].clone()


def test_a_model_of_one_token_type_takes_single_sentences_only(workplace, capsys):
    edit_config(workplace / "teacher", type_vocab_size=1)
    edit_weights(workplace / "teacher", one_token_type)
    line = refused(run_pruning, capsys, "--model_path", "teacher", "--max_length", "40", "--use_cpu")
    assert "dev.tsv: pairs of sentences, which take two token types; type_vocab_size of the model's" in line
    edit_config(workplace / "teacher", id2label={"0": "negative", "1": "positive"})
    Path("datasets", "sst2").mkdir()
    rows = "sentence\tlabel\n" + "w1 w2\t0\nw3 w4 w5\t1\n" * 4
    for split in ("train", "dev"):
        Path("datasets", "sst2", f"{split}.tsv").write_text(rows)
    run_pruning.main(["--task_name", "sst2", "--model_path", "teacher", "--max_length", "40", "--use_cpu"])
    assert Path("outputs", "prune", "ft_sst2", "ckpt", "config.json").is_file()


def test_a_damaged_checkpoint_is_one_line(teacher_folder):
    weights = teacher_folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(CheckpointError, match="teacher: cannot be read: ") as error:
        load_model(str(teacher_folder), LABELS)
    assert "\n" not in str(error.value)


def test_another_architecture_is_refused(teacher_folder):
    edit_config(teacher_folder, model_type="albert")
    with pytest.raises(CheckpointError, match="type albert, expected one of bert, roberta, .*, mpnet"):
        load_model(str(teacher_folder), LABELS)

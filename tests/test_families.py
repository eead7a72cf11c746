"""Encoders of other families, each against Hugging Face's own class: logits, gradients, cutting, and the way back."""

import json
from pathlib import Path

import pytest
import test_templates
import torch
from conftest import write_task, write_vocabulary
from torch.nn import functional as F
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForMaskedLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
)
from transformers.models.mpnet.modeling_mpnet import MPNetEncoder

import run_distillation
import run_finetuning
import run_pruning
import run_rewinding
import run_sparsification
from models.bert import RelativeBias
from models.checkpoint import load_model, weightless_model
from models.families import FAMILIES, as_bert_weights
from models.losses import task_loss
from models.pruning import cut_ever_deeper, drop_layers, sort_units
from models.scores import mask_gradients
from models.units import CheckpointError, Units
from scripts import export
from student import load_student
from utils.batches import Batch

LABELS = ("not_entailment", "entailment")
SMALL = {
    "vocab_size": 60,
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 40,
    "max_position_embeddings": 42,
}
LARGER = {
    "vocab_size": 71,
    "hidden_size": 48,
    "num_hidden_layers": 4,
    "num_attention_heads": 3,
    "intermediate_size": 72,
    "max_position_embeddings": 150,
}
DISTILBERT = {"hidden_size": "dim", "num_hidden_layers": "n_layers", "num_attention_heads": "n_heads"}
DISTILBERT["intermediate_size"] = "hidden_dim"
IDS = {"pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3, "cls_token_id": 2, "sep_token_id": 3}
# what a family's configuration has besides, in two kinds
BESIDES = {
    "roberta": ({"type_vocab_size": 1}, {"type_vocab_size": 2, "layer_norm_eps": 1e-5}),
    "electra": ({"embedding_size": 20}, {"embedding_size": 48}),
    "mpnet": ({}, {"relative_attention_num_buckets": 40}),
    "distilbert": ({}, {"activation": "relu"}),
    "modernbert": ({"local_attention": 9, **IDS}, {"global_attn_every_n_layers": 2, "norm_bias": True, **IDS}),
}
NO_DROPOUT = dict.fromkeys(
    ("hidden_dropout_prob", "attention_probs_dropout_prob", "dropout", "attention_dropout", "seq_classif_dropout"), 0.0
)


def library_config(kind: str, size: int = 0, **changes):
    settings = [SMALL, LARGER][size]
    if kind == "distilbert":
        settings = {DISTILBERT.get(name, name): value for name, value in settings.items()}
    besides = BESIDES.get(kind, ({}, {}))[size]
    return AutoConfig.for_model(kind, **{**settings, **NO_DROPOUT, "classifier_dropout": 0.0, **besides, **changes})


def filled(model):
    """The model in eval mode, with weights so large that every part of it shows in the logits."""
    torch.manual_seed(1)
    for name, weight in model.named_parameters():
        is_norm = name.lower().endswith(("norm.weight",))
        weight.data.normal_(float(is_norm), 0.2)
    return model.eval()


def library_model(kind: str, folder: Path, size: int = 0, **changes):
    """A random classifier of Hugging Face's, saved in a folder."""
    config = library_config(kind, size, **{"id2label": dict(enumerate(LABELS)), **changes})
    model = filled(AutoModelForSequenceClassification.from_config(config))
    model.save_pretrained(folder)
    return model


def padded_batch(config, pairs: bool = False) -> tuple[torch.Tensor, ...]:
    """Token ids, token types and mask: rows from 2 tokens to as many as fit, padded with the family's token."""
    longest = 40 if config.max_position_embeddings < 100 else 140
    lengths = torch.linspace(2, longest, 6).long()
    mask = torch.arange(longest) < lengths[:, None]
    ids = torch.randint(5, config.vocab_size, mask.shape).masked_fill(~mask, config.pad_token_id)
    types = (torch.arange(longest) >= lengths[:, None] // 2) * mask * pairs
    return ids, types.long(), mask


def library_logits(model, ids, types, mask):
    types = {"token_type_ids": types} if getattr(model.config, "type_vocab_size", 0) > 1 else {}
    return model(input_ids=ids, attention_mask=mask.long(), **types).logits


@pytest.mark.parametrize("size", [0, 1])
@pytest.mark.parametrize("kind", FAMILIES)
def test_logits_and_gradients_are_those_of_the_librarys_class(tmp_path, kind, size):
    theirs = library_model(kind, tmp_path, size)
    ours = load_model(str(tmp_path), LABELS)
    pairs = getattr(theirs.config, "type_vocab_size", 0) > 1
    batch = padded_batch(theirs.config, pairs)
    expected = library_logits(theirs, *batch)
    assert expected.abs().max() > 0.1
    for shortcuts in (True, False):
        ours.use_exact_shortcuts(shortcuts)
        torch.testing.assert_close(ours(*batch), expected, atol=1e-5, rtol=0)

    # in float64: where gradients are small, rounding in float32 is more than 1e-4 of them; ModernBERT's rotations are
    # in float32 all the same
    tolerance = 1e-6 if kind == "modernbert" else 1e-8
    ours.use_exact_shortcuts()
    labels = torch.arange(6) % 2
    F.cross_entropy(library_logits(theirs.double().train(), *batch), labels).backward()
    F.cross_entropy(ours.double().train()(*batch), labels).backward()
    named = {name: weight.grad for name, weight in theirs.named_parameters() if weight.grad is not None}
    renamed = as_bert_weights(theirs.config.to_dict(), named, with_head=True)
    for name, weight in ours.named_parameters():
        # the softmax does not depend on the bias of keys, whose gradients are rounding alone
        largest = 1.0 if name.endswith("key.bias") else renamed[name].abs().max()
        assert (weight.grad - renamed[name]).abs().max() <= tolerance * largest, name
    assert {name for name in renamed if not name.endswith("bias_columns")} == {
        name for name, _ in ours.named_parameters()
    }


@pytest.mark.parametrize(
    ("kind", "stray"),
    [
        ("distilbert", {"layer_norm_eps": 0.1, "type_vocab_size": 2, "classifier_activation": "tanh"}),
        ("distilbert", {"hidden_act": "relu"}),
        ("electra", {"classifier_activation": "tanh"}),
        ("mpnet", {"type_vocab_size": 2, "pad_token_id": 3}),
        *(
            (kind, {"classifier_activation": "relu"})
            for kind in ("bert", "roberta", "xlm-roberta", "camembert", "mpnet")
        ),
    ],
)
def test_settings_that_a_familys_class_does_not_read_change_nothing(tmp_path, kind, stray):
    theirs = library_model(kind, tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, **stray}))
    batch = padded_batch(theirs.config)
    torch.testing.assert_close(load_model(str(tmp_path), LABELS)(*batch), library_logits(theirs, *batch))


def test_a_tokenizer_that_pads_with_another_token_than_positions_are_counted_by_is_warned_of(tmp_path, caplog):
    library_model("roberta", tmp_path, pad_token_id=1)
    write_vocabulary(tmp_path)
    load_student(str(tmp_path))
    assert "the tokenizer pads with id 0, config.json says 1: " in caplog.text
    library_model("roberta", tmp_path, pad_token_id=0)
    caplog.clear()
    load_student(str(tmp_path))
    assert "pads with" not in caplog.text


@pytest.mark.compiles
def test_an_onnx_folder_says_how_many_tokens_its_model_takes(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    library_model("roberta", Path("theirs"), num_hidden_layers=1)  # 42 positions, of which 40 are tokens'
    write_vocabulary(Path("theirs"))
    export.main(["--model_path", "theirs", "--format", "onnx"])
    config = json.loads(Path("onnx", "config.json").read_text())
    assert weightless_model(config).config.max_position_embeddings == config["max_position_embeddings"] == 40


def test_distances_fall_into_mpnets_buckets():
    bias = RelativeBias(32, 1)
    bias.weight.data = torch.arange(32.0)[:, None]
    found = bias(300)[0]
    bucket = MPNetEncoder.relative_position_bucket
    expected = bucket(torch.arange(300) - torch.arange(300)[:, None], num_buckets=32, max_distance=128)
    assert torch.equal(found.long(), expected)
    assert found.unique().numel() == 31  # a token at no distance is not a later one


def scored(model):
    """The model with its units sorted by random scores, other ones for each layer."""
    config = model.config
    widths = (config.num_attention_heads, config.intermediate_size)
    sort_units(model, Units(*(torch.rand(config.num_hidden_layers, width) for width in widths)))
    return model


def assert_cut_is_masked(model, batch, folder: Path):
    """A sorted model has the same logits cut and masked, also reloaded and in training; returns the smallest one."""
    config = model.config
    for _, smaller in cut_ever_deeper(model):
        widths = torch.tensor([layer.widths for layer in smaller.layers])  # (L, 2)
        heads, neurons = widths.split(1, dim=1)
        head_mask = (torch.arange(config.num_attention_heads) < heads).float()
        expected = model(*batch, head_mask, (torch.arange(config.intermediate_size) < neurons).float())
        torch.testing.assert_close(smaller(*batch), expected, atol=1e-5, rtol=0)
        smaller.save_pretrained(folder)
        assert torch.equal(load_model(str(folder), LABELS)(*batch), smaller(*batch))
        # and once more, by training's attention, in which the last layer's is written out, too
        smaller.use_exact_shortcuts(False)
        torch.testing.assert_close(smaller.train()(*batch), expected, atol=1e-5, rtol=0)
        smaller.eval().use_exact_shortcuts()
    return smaller


@pytest.mark.parametrize("kind", FAMILIES)
def test_cut_is_masked_at_every_sparsity_and_after_reloading(tmp_path, kind):
    theirs = library_model(kind, tmp_path)
    model = load_model(str(tmp_path), LABELS)
    batch = padded_batch(theirs.config)
    before = model(*batch)
    scored(model)
    torch.testing.assert_close(model(*batch), before, atol=1e-5, rtol=0)
    torch.testing.assert_close(model(*batch, torch.ones(3, 4), torch.ones(3, 40)), before, atol=1e-5, rtol=0)
    smaller = assert_cut_is_masked(model, batch, tmp_path / "cut")
    kept = [layer.widths for layer in smaller.layers]
    assert min(min(widths) for widths in kept) == 0  # a layer without heads, or without neurons
    # each weight that is left has a gradient, which training on several processes waits for
    smaller.train()(*batch).sum().backward()
    weights = dict(smaller.named_parameters())
    assert [name for name, weight in weights.items() if weight.numel() and weight.grad is None] == []


@pytest.mark.parametrize("kind", FAMILIES)
def test_scores_are_gradients_of_masks_of_the_librarys_classifier(tmp_path, kind):
    theirs = library_model(kind, tmp_path)
    model = load_model(str(tmp_path), LABELS)
    inputs = padded_batch(theirs.config)
    batch = Batch(*inputs, torch.arange(6) % 2, torch.arange(6), torch.arange(6))
    [scores] = mask_gradients(model, [batch], [task_loss])
    # a head's mask moves the loss as far as its columns of the output projection, times themselves, do
    F.cross_entropy(library_logits(theirs, *inputs), batch.labels).backward()
    for layer, score in zip(library_layers(theirs, kind), scores.head, strict=True):
        projection = attention_output(layer, kind)
        moved = (projection.weight * projection.weight.grad).unflatten(1, (4, -1)).sum((0, 2))
        torch.testing.assert_close(score, moved.abs(), atol=1e-6, rtol=1e-3)


def library_layers(model, kind: str):
    base = getattr(model, model.base_model_prefix)
    if kind == "modernbert":
        return base.layers
    return base.transformer.layer if kind == "distilbert" else base.encoder.layer


def attention_output(layer, kind: str):
    if kind in ("distilbert", "modernbert"):
        return layer.attention.out_lin if kind == "distilbert" else layer.attn.Wo
    return layer.attention.attn.o if kind == "mpnet" else layer.attention.output.dense


@pytest.mark.parametrize("kind", FAMILIES)
def test_dropped_and_sorted_models_go_back_to_the_librarys_class(tmp_path, monkeypatch, kind):
    monkeypatch.chdir(tmp_path)
    theirs = library_model(kind, Path("theirs"))
    student = drop_layers(scored(load_model("theirs", LABELS)), [0, 2])
    student.save_pretrained("ckpt")
    write_vocabulary(Path("ckpt"))
    export.main(["--model_path", "ckpt", "--format", "huggingface"])
    again, info = AutoModelForSequenceClassification.from_pretrained("huggingface", output_loading_info=True)
    assert not any(info.values())
    assert type(again) is type(theirs)
    assert again.config.id2label == dict(enumerate(LABELS))
    batch = padded_batch(theirs.config)
    torch.testing.assert_close(library_logits(again.eval(), *batch), student(*batch), atol=1e-5, rtol=0)
    # what was written is a teacher again
    torch.testing.assert_close(load_model("huggingface", LABELS)(*batch), student(*batch), atol=1e-5, rtol=0)


@pytest.mark.parametrize("head", [AutoModel, AutoModelForMaskedLM])
@pytest.mark.parametrize("kind", FAMILIES)
def test_pretrained_encoders_start_training_with_a_new_classifier(tmp_path, kind, head):
    theirs = filled(head.from_config(library_config(kind)))
    theirs.save_pretrained(tmp_path)
    model = load_model(str(tmp_path), LABELS, fine_tuned=False)
    ids, types, mask = padded_batch(theirs.config)
    states = theirs(input_ids=ids, attention_mask=mask.long(), output_hidden_states=True).hidden_states[-1]
    hidden = []
    model.cls.register_forward_hook(lambda module, inputs, output: hidden.append(inputs[0]))
    model(ids, types, mask)
    torch.testing.assert_close(hidden[0], states[:, 0], atol=1e-5, rtol=0)
    with pytest.raises(CheckpointError, match="no classifier for 2 classes"):
        load_model(str(tmp_path), LABELS)


def test_the_class_order_of_another_familys_classifier_is_put_right(tmp_path):
    theirs = library_model("roberta", tmp_path, id2label=dict(enumerate(reversed(LABELS))))
    batch = padded_batch(theirs.config)
    expected = library_logits(theirs, *batch).flip(1)
    torch.testing.assert_close(load_model(str(tmp_path), LABELS)(*batch), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("kind", "changes", "found"),
    [
        ("roberta", {"pad_token_id": None}, "pad_token_id None"),
        ("roberta", {"max_position_embeddings": "42"}, "max_position_embeddings '42'"),
        ("mpnet", {"relative_attention_num_buckets": None}, "relative_attention_num_buckets None"),
        ("mpnet", {"relative_attention_num_buckets": 16}, "relative_attention_num_buckets 16"),
    ],
)
def test_a_setting_that_no_model_can_have_is_named(tmp_path, kind, changes, found):
    library_model(kind, tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, **changes}))
    with pytest.raises(CheckpointError, match=f"{found} of config.json: expected "):
        load_model(str(tmp_path), LABELS)


@pytest.mark.parametrize("kind", ["deberta-v2", "albert", "gpt2"])
def test_other_families_are_refused_with_those_that_work(tmp_path, kind):
    AutoConfig.for_model(kind).save_pretrained(tmp_path)
    with pytest.raises(CheckpointError) as error:
        load_model(str(tmp_path), LABELS)
    assert f"a checkpoint of type {kind}, expected one of bert, roberta, xlm-roberta, camembert, electra" in str(
        error.value
    )
    assert "\n" not in str(error.value)


TOKENIZERS = {
    "roberta": test_templates.roberta,
    "xlm-roberta": test_templates.xlm_roberta,
    "camembert": test_templates.camembert,
    "electra": test_templates.bert,
    "distilbert": test_templates.distilbert,
    "mpnet": test_templates.mpnet,
}
QUICK = ["--num_train_epochs", "1", "--learning_rate", "1e-3", "--max_length", "40", "--use_cpu"]


@pytest.mark.parametrize("kind", ["electra", "distilbert", "mpnet"])
def test_both_students_of_a_classifier_fine_tuned_elsewhere(tmp_path, monkeypatch, kind):
    monkeypatch.chdir(tmp_path)
    write_task(Path("datasets"), "rte")
    TOKENIZERS[kind](Path("theirs"))
    tokenizer = AutoTokenizer.from_pretrained("theirs")
    library_model(kind, Path("theirs"), vocab_size=len(tokenizer))

    # the classifier starts stage 1 as any encoder does, and is a teacher as it is
    run_finetuning.main(["--model_path", "theirs", *QUICK])
    run_pruning.main(["--model_path", "theirs", *QUICK[4:]])
    for student, folder in (
        (["--student_layer", "2"], "layer_dropped/kd_2"),
        (["--student_sparsity", "50"], "parameter_pruned/kd_50"),
    ):
        teacher = ["--teacher_model_path", "theirs", *student]
        run_distillation.main([*teacher, *QUICK, "--pkd_weight", "1", "--minilm_weight", "1"])
        run_sparsification.main([*teacher, *QUICK[4:]])
        run_rewinding.main([*student, *QUICK, "--teacher_sparsity", "90"])
        rewound = Path("outputs/rewind", f"{folder}_rte_0.5", "ckpt_90")
        assert 0 <= json.loads((rewound / "metrics.json").read_text())["report"]["acc"] <= 1
        assert json.loads((rewound / "config.json").read_text())["model_type"] == kind
        model = load_model(str(rewound))
        assert torch.isfinite(model(**tokenizer("w1 w2", "w3", return_tensors="pt"))).all()
        assert [layer.widths for layer in model.layers] != [(4, 40)] * 3

"""The prunable ModernBERT against Hugging Face's: two kinds of layers, both poolings, and what only it has."""

import json
from pathlib import Path

import pytest
import torch
from conftest import edit_config, refused, write_task, write_vocabulary
from test_families import assert_cut_is_masked
from torch.nn import functional as F
from transformers import AutoModelForSequenceClassification, ModernBertConfig, ModernBertModel
from transformers import ModernBertForSequenceClassification as Library

import run_distillation
import run_finetuning
import run_pruning
import run_rewinding
import run_sparsification
from models import CheckpointError, PrunableModernBert, Units, load_model
from models.encoder import Config
from models.families import as_bert_weights
from models.layer_losses import INTERMEDIATE_LOSSES, IntermediateLoss, record_features
from models.losses import distillation_loss, task_loss
from models.pruning import cut, drop_layers, initial_student, sort_units
from models.scores import magnitudes, mask_gradients
from scripts import export, inspect_model
from utils.batches import Batch
from utils.recipe import Recipe
from utils.updater import Updater

LABELS = ("not_entailment", "entailment")
BIASES = dict.fromkeys(("attention_bias", "mlp_bias", "norm_bias", "classifier_bias"), True)
SMALL = {
    "vocab_size": 45,
    "hidden_size": 32,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "intermediate_size": 40,
    "max_position_embeddings": 64,
    "local_attention": 8,
    "initializer_range": 0.2,
    "classifier_activation": "silu",
    "id2label": dict(enumerate(LABELS)),
    **{"pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3, "cls_token_id": 2, "sep_token_id": 3},
}
OTHER = {
    "hidden_size": 48,
    "num_hidden_layers": 5,
    "num_attention_heads": 3,
    "intermediate_size": 24,
    "local_attention": 5,
    "hidden_activation": "relu",
    "norm_eps": 1e-3,
    "global_attn_every_n_layers": 2,
    "rope_parameters": {"full_attention": {"rope_theta": 50.0}, "sliding_attention": {"rope_theta": 3.0}},
    **BIASES,
}


def library_model(folder: Path, attention: str = "sdpa", **changes) -> Library:
    """A random classifier of Hugging Face's in eval mode, saved in a folder, every weight of which shows."""
    torch.manual_seed(0)
    model = Library._from_config(ModernBertConfig(**{**SMALL, **changes}), attn_implementation=attention).eval()
    for name, weight in model.named_parameters():
        weight.data.normal_(float(name.endswith("norm.weight")), 0.2)
    model.save_pretrained(folder)
    return model


def our_model(folder: Path, **changes) -> PrunableModernBert:
    library_model(folder, **changes)
    return load_model(str(folder), LABELS)


def padded(rows: int = 5, width: int = 30) -> tuple[torch.Tensor, ...]:
    """Token ids, token types and mask: rows of 2 tokens to so many, most of them longer than the window."""
    mask = torch.arange(width) < torch.linspace(2, width, rows).long()[:, None]
    ids = torch.randint(5, 45, mask.shape).masked_fill(~mask, 0)
    return ids, torch.zeros_like(ids), mask


def library_logits(model, ids, _types, mask) -> torch.Tensor:
    return model(input_ids=ids, attention_mask=mask.long()).logits


def as_batch(inputs: tuple[torch.Tensor, ...]) -> Batch:
    rows = torch.arange(len(inputs[0]))
    return Batch(*inputs, rows % 2, rows, rows)


def scored(model: PrunableModernBert) -> PrunableModernBert:
    """The model with its units sorted by random scores."""
    layers, heads, neurons = (
        getattr(model.config, name) for name in ("num_hidden_layers", "num_attention_heads", "intermediate_size")
    )
    sort_units(model, Units(torch.rand(layers, heads), torch.rand(layers, neurons)))
    return model


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("pooling", ["cls", "mean"])
@pytest.mark.parametrize(
    "changes", [{}, OTHER, {"num_hidden_layers": 2, "id2label": {0: "score"}}], ids=["small", "other", "2"]
)
def test_logits_are_those_of_the_librarys_class(tmp_path, changes, pooling, attention):
    theirs = library_model(tmp_path, attention, classifier_pooling=pooling, **changes)
    ours = load_model(str(tmp_path))
    for width in (3, 9, 40):
        batch = padded(width=width)
        expected = library_logits(theirs, *batch)
        assert expected.std() > 0.05
        for shortcuts in (True, False):
            ours.use_exact_shortcuts(shortcuts)
            torch.testing.assert_close(ours(*batch), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("pooling", ["cls", "mean"])
@pytest.mark.parametrize("changes", [{}, OTHER], ids=["small", "other"])
def test_gradients_of_a_training_step_are_those_of_the_librarys_class(tmp_path, changes, pooling):
    theirs = library_model(tmp_path, classifier_pooling=pooling, **changes)
    ours, batch = load_model(str(tmp_path), LABELS), padded()
    labels = torch.arange(5) % 2
    F.cross_entropy(library_logits(theirs.train(), *batch), labels).backward()
    F.cross_entropy(ours.train()(*batch), labels).backward()
    gradients = {name: weight.grad for name, weight in theirs.named_parameters()}
    renamed = as_bert_weights(theirs.config.to_dict(), gradients, with_head=True)
    assert set(renamed) == {name for name, _ in ours.named_parameters()}
    for name, weight in ours.named_parameters():
        assert (weight.grad - renamed[name]).norm() <= 1e-4 * renamed[name].norm(), name


@pytest.mark.parametrize("pooling", ["cls", "mean"])
@pytest.mark.parametrize("biases", [{}, BIASES], ids=["none", "biases"])
def test_cut_is_masked_at_every_sparsity_and_after_reloading(tmp_path, pooling, biases):
    model, batch = our_model(tmp_path, classifier_pooling=pooling, **biases), padded()
    before = model(*batch)
    scored(model)
    torch.testing.assert_close(model(*batch), before, atol=1e-5, rtol=0)
    assert torch.equal(model(*batch, torch.ones(4, 4), torch.ones(4, 40)), model(*batch))
    smaller = assert_cut_is_masked(model, batch, tmp_path / "cut")
    assert 0 in [layer.widths[0] for layer in smaller.layers]
    # nothing left of any layer is a model, too
    masks = torch.zeros(4, 4), torch.zeros(4, 40)
    for layer in smaller.layers:
        layer.keep_units(torch.arange(0), torch.arange(0))
    torch.testing.assert_close(smaller(*batch), model(*batch, *masks), atol=1e-5, rtol=0)


def test_each_example_can_have_masks_of_its_own(tmp_path):
    model, (ids, types, mask) = our_model(tmp_path), padded()
    heads, neurons = torch.rand(5, 4, 4), torch.rand(5, 4, 40)
    together = model(ids, types, mask, heads, neurons)
    alone = [model(ids[i : i + 1], types[i : i + 1], mask[i : i + 1], heads[i], neurons[i]) for i in range(5)]
    torch.testing.assert_close(together, torch.cat(alone), atol=1e-5, rtol=0)


@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_padding_changes_no_logit_and_its_states_are_numbers(tmp_path, pooling):
    model, batch = our_model(tmp_path, classifier_pooling=pooling), padded()
    longer = [F.pad(part, (0, 25)) for part in batch]
    with record_features(model) as features:
        torch.testing.assert_close(model(*longer), model(*batch), atol=1e-6, rtol=1e-5)
        model(*longer)
    ids = batch[0][-1:]  # which has no padding
    torch.testing.assert_close(model(ids), model(*batch)[-1:], atol=1e-6, rtol=1e-5)
    assert all(state.isfinite().all() for state in features.hidden)


def test_the_last_layer_computes_cls_alone_where_only_that_is_pooled(tmp_path):
    for pooling, tokens in (("cls", 1), ("mean", 30)):
        model, shapes = our_model(tmp_path, classifier_pooling=pooling), []
        model.layers[-1].register_forward_hook(lambda _module, _inputs, out: shapes.append(out.shape))  # noqa: B023
        model(*padded())
        assert shapes == [(5, tokens, 32)]
        model.use_exact_shortcuts(False)
        model(*padded())
        assert shapes[1] == (5, 30, 32)


def test_scores_are_gradients_of_masks_of_the_librarys_classifier(tmp_path):
    theirs, inputs = library_model(tmp_path), padded()
    [scores] = mask_gradients(load_model(str(tmp_path), LABELS), [as_batch(inputs)], [task_loss])
    F.cross_entropy(library_logits(theirs, *inputs), torch.arange(5) % 2).backward()
    # a unit's mask moves the loss as far as its columns of the output projection, times themselves, do
    for layer, heads, neurons in zip(theirs.model.layers, *scores, strict=True):
        moved = [(out.weight * out.weight.grad).sum(0) for out in (layer.attn.Wo, layer.mlp.Wo)]
        torch.testing.assert_close(heads, moved[0].unflatten(0, (4, 8)).sum(1).abs(), atol=1e-6, rtol=1e-3)
        torch.testing.assert_close(neurons, moved[1].abs(), atol=1e-6, rtol=1e-3)


def test_a_units_magnitude_is_that_of_all_its_weights(tmp_path):
    theirs = library_model(tmp_path)
    found = magnitudes(load_model(str(tmp_path), LABELS))
    attn, mlp = theirs.model.layers[1].attn, theirs.model.layers[1].mlp
    rows = [32 * part + 8 * 2 + column for part in range(3) for column in range(8)]  # of head 2
    head = torch.cat([attn.Wqkv.weight[rows].flatten(), attn.Wo.weight[:, 16:24].flatten()])
    neuron = torch.cat([mlp.Wi.weight[7], mlp.Wi.weight[7 + 40], mlp.Wo.weight[:, 7]])
    torch.testing.assert_close(found.head[1, 2], head.norm())
    torch.testing.assert_close(found.neuron[1, 7], neuron.norm())


def test_features_are_those_of_the_librarys_class(tmp_path):
    theirs, batch = library_model(tmp_path), padded()
    model = load_model(str(tmp_path), LABELS)
    with record_features(model) as features:
        model(*batch)
    tokens, states, projected = batch[2], [], []
    for layer in theirs.model.layers:
        layer.register_forward_hook(lambda _module, _inputs, out: states.append(out))
        layer.attn.Wqkv.register_forward_hook(lambda _module, _inputs, out: projected.append(out))
    library_logits(theirs, *batch)
    for index in range(4):
        torch.testing.assert_close(features.hidden[index + 1][tokens], states[index][tokens], atol=1e-5, rtol=1e-5)
        ours = torch.cat([vectors[index] for vectors in (features.query, features.key, features.value)], dim=-1)
        torch.testing.assert_close(ours[tokens], projected[index][tokens], atol=1e-5, rtol=1e-5)


def test_a_cut_student_learns_between_layers(tmp_path):
    teacher, inputs = our_model(tmp_path), padded()
    student = cut(scored(load_model(str(tmp_path), LABELS)), 90)
    assert 0 in [heads for layer in student.layers for heads in layer.widths]

    def on_logits(ours, theirs, batch):
        return distillation_loss(ours, theirs, batch, 2.0, 0.5)

    losses = {}
    for name in INTERMEDIATE_LOSSES:
        with IntermediateLoss(student, teacher, {name: 1.0}, on_logits) as loss_fn:
            losses[name] = loss_fn(student(*inputs), as_batch(inputs)).mean()
        with IntermediateLoss(teacher, teacher, {name: 1.0}, lambda *_: torch.zeros(5)) as loss_fn:
            assert loss_fn(teacher(*inputs), as_batch(inputs)).abs().max() < 1e-5
    sum(losses.values()).backward()
    assert student.embeddings.word_embeddings.weight.grad.abs().sum() > 0


def test_one_base_for_both_kinds_is_what_no_local_one_means(tmp_path):
    library_model(tmp_path)
    edit_config(tmp_path, rope_parameters=None, global_rope_theta=77)
    bases = [kind["rope_theta"] for kind in load_model(str(tmp_path)).config.rope_parameters.values()]
    assert bases == [77, 10_000.0]
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "local_rope_theta": None}))
    bases = [kind["rope_theta"] for kind in load_model(str(tmp_path)).config.rope_parameters.values()]
    assert bases == [77, 77]


def test_what_older_libraries_write_is_the_same_model(tmp_path):
    thetas = {"full_attention": {"rope_theta": 77.0}, "sliding_attention": {"rope_theta": 3.0}}
    changes = {"rope_parameters": thetas, "num_hidden_layers": 5, "global_attn_every_n_layers": 2}
    theirs, batch = library_model(tmp_path, **changes), padded()
    edit_config(tmp_path, layer_types=None, rope_parameters=None, global_rope_theta=77.0, local_rope_theta=3.0)
    torch.testing.assert_close(load_model(str(tmp_path))(*batch), library_logits(theirs, *batch), atol=1e-5, rtol=0)


def test_a_configuration_that_says_nothing_is_as_the_library_has_it(tmp_path):
    expected, kept = {}, ("vocab_size", "num_hidden_layers", "hidden_size", "num_attention_heads", "intermediate_size")
    library_model(tmp_path)
    edit_config(tmp_path, **dict.fromkeys(json.loads((tmp_path / "config.json").read_text())))
    edit_config(tmp_path, model_type="modernbert", pad_token_id=0, **{name: SMALL[name] for name in kept})
    ours = load_model(str(tmp_path)).config
    theirs = ModernBertConfig(**{name: SMALL[name] for name in kept}, **dict.fromkeys(["pad_token_id"], 0))
    for name, value in vars(ours).items():
        expected[name] = getattr(theirs, name, value)
    assert vars(ours) == expected
    assert ours.layer_types == ["full_attention", "sliding_attention", "sliding_attention", "full_attention"]
    assert not {"hidden_act", "layer_norm_eps", "hidden_dropout_prob"} & set(vars(ours))
    assert Config(model_type="modernbert").id2label == Config().id2label == theirs.id2label


LINEAR = {"full_attention": {"rope_type": "linear", "factor": 2.0, "rope_theta": 1e4}}


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"rope_parameters": LINEAR}, "expected rope_type default for each kind"),
        ({"rope_parameters": "none"}, "rope_parameters none of config.json: expected full_attention and sliding"),
        ({"rope_parameters": {"rope_theta": 9.0}}, "rope_parameters {'rope_theta': 9.0} of config.json: expected full"),
        ({"rope_parameters": {"full_attention": "none"}}, "expected rope_type default for each kind"),
        ({"rope_parameters": {"full_attention": {"rope_theta": "1e4"}}}, "rope_theta '1e4' of config.json for full"),
        ({"rope_scaling": {"type": "linear", "factor": 2.0}}, "rope_scaling {'type': 'linear', 'factor': 2.0} of"),
        ({"sliding_window": 3}, "sliding_window 3 of config.json: not supported"),
        ({"layer_types": ["full_attention"] * 3}, "expected full_attention or sliding_attention for 4 layers"),
        ({"layer_types": ["full_attention"] * 3 + ["chunked"]}, "expected full_attention or sliding_attention"),
        ({"layer_types": None, "global_attn_every_n_layers": 0}, "global_attn_every_n_layers 0 of config.json"),
        ({"classifier_pooling": "max"}, "classifier_pooling 'max' of config.json: expected cls or mean"),
        ({"classifier_activation": "mine"}, "classifier_activation 'mine' of config.json: unknown"),
        ({"hidden_activation": "mine"}, "hidden_activation 'mine' of config.json: unknown"),
        ({"norm_eps": "small"}, "norm_eps 'small' of config.json: expected a number of at least 0"),
        ({"local_attention": 8.5}, "local_attention 8.5 of config.json: expected an integer of at least 0"),
        ({"num_attention_heads": 32}, "heads of 1 numbers, expected an even number for RoPE"),
        ({"norm_bias": False}, "9 encoder weights that its config.json has no place for"),
        ({"pad_token_id": None}, "pad_token_id 50283 of config.json: expected less than vocab_size 45"),
    ],
)
def test_what_ours_would_compute_otherwise_is_refused_in_one_line(tmp_path, changes, line):
    library_model(tmp_path, **BIASES)
    edit_config(tmp_path, **changes)
    with pytest.raises(CheckpointError) as error:
        load_model(str(tmp_path), LABELS)
    assert str(error.value).startswith(f"{tmp_path}: ")
    assert line in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("kept", [[0], [0, 2], [0, 2, 3], [0, 1, 4, 5]])
def test_kept_layers_stay_full_or_sliding_for_us_and_the_library(tmp_path, monkeypatch, kept):
    monkeypatch.chdir(tmp_path)
    theirs, batch = library_model(Path("theirs"), num_hidden_layers=6), padded()
    kinds = [theirs.config.layer_types[layer] for layer in kept]
    theirs.model.layers = torch.nn.ModuleList(theirs.model.layers[layer] for layer in kept)
    expected = library_logits(theirs, *batch)
    student = drop_layers(scored(load_model("theirs", LABELS)), kept)
    student.save_pretrained("ckpt")
    write_vocabulary(Path("ckpt"))
    again = load_model("ckpt", LABELS)
    assert again.config.layer_types == kinds
    torch.testing.assert_close(again(*batch), expected, atol=1e-5, rtol=0)
    export.main(["--model_path", "ckpt", "--format", "huggingface"])
    exported, info = AutoModelForSequenceClassification.from_pretrained("huggingface", output_loading_info=True)
    assert not any(info.values())
    assert exported.config.layer_types == kinds
    assert exported.config.classifier_activation == "silu"
    torch.testing.assert_close(library_logits(exported.eval(), *batch), expected, atol=1e-5, rtol=0)
    written = json.loads(Path("huggingface/config.json").read_text())
    assert written["architectures"] == ["ModernBertForSequenceClassification"]
    assert not {"sparsity", "sparsity_map", "type_vocab_size", "global_attn_every_n_layers"} & set(written)
    torch.testing.assert_close(load_model("huggingface", LABELS)(*batch), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize(("layers", "choice"), [(2, "last"), (2, "1,3"), (1, "2")])
def test_a_student_without_the_first_layer_is_refused(tmp_path, layers, choice):
    with pytest.raises(CheckpointError, match="layer 0 must be kept, once and first") as error:
        initial_student(our_model(tmp_path), layers, None, choice)
    assert "\n" not in str(error.value)


@pytest.mark.compiles
def test_onnx_says_what_a_cut_checkpoint_says_and_its_cost_is_counted(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model = cut(scored(our_model(Path("theirs"), classifier_pooling="mean", num_hidden_layers=2)), 50)
    model.save_pretrained("run/ckpt")
    write_vocabulary(Path("run/ckpt"))
    export.main(["--model_path", "run/ckpt", "--format", "onnx"])
    session = export.open_session(Path("run/onnx/model.onnx"))
    for rows, width in ((1, 2), (5, 30), (3, 64)):
        batch = padded(rows, width)
        with torch.inference_mode():
            expected = model(*batch)
        torch.testing.assert_close(torch.from_numpy(export.onnx_logits(session, batch)), expected, atol=1e-5, rtol=0)
    heads, neurons = (sum(counts) for counts in zip(*export.widths(model), strict=True))
    products = 32 * (4 * 32 * 8 * heads + 2 * 32 * 8 * heads + 3 * 32 * neurons) + 32 * 32 + 32 * 2
    assert inspect_model.macs(model, 32) == products


def test_no_norm_and_no_bias_is_decayed(tmp_path):
    decayed, others = Updater(our_model(tmp_path, **BIASES), task_loss, Recipe(), 10).optimizer.param_groups
    assert {weight.dim() for weight in decayed["params"]} == {2}
    assert {weight.dim() for weight in others["params"]} == {1}


@pytest.mark.compiles
def test_a_compiled_model_is_one_graph_for_all_lengths(tmp_path):
    model = our_model(tmp_path, num_hidden_layers=2)
    compiled = torch.compile(model, backend="eager", dynamic=True, fullgraph=True)
    for width in (30, 17, 3):
        batch = padded(width=width)
        torch.testing.assert_close(compiled(*batch), model(*batch), atol=1e-6, rtol=1e-5)
    torch.compiler.reset()


def test_dropouts_come_from_the_configuration(tmp_path):
    shares = {"embedding": 0.1, "attention": 0.2, "mlp": 0.3, "classifier": 0.4}
    model = our_model(tmp_path, **{f"{part}_dropout": share for part, share in shares.items()})
    found = [model.embeddings.dropout.p, *(layer.attn.dropout.p for layer in model.layers)]
    found += [*(layer.mlp.dropout.p for layer in model.layers), model.cls.dropout.p]
    assert found == [0.1, *[0.2] * 4, *[0.3] * 4, 0.4]


def test_attention_what_it_adds_and_neurons_are_dropped(tmp_path):
    model, shapes = our_model(tmp_path).train(), []
    for layer in (model.layers[1], model.layers[3]):
        for dropout in (layer.attn.dropout, layer.mlp.dropout):
            dropout.register_forward_pre_hook(lambda _module, inputs: shapes.append(tuple(inputs[0].shape)))
    model(*padded())
    assert shapes == [(5, 4, 30, 30), (5, 30, 32), (5, 30, 40), (5, 4, 30), (5, 1, 32), (5, 1, 40)]
    model.layers[3].mlp.dropout.p = 1.0  # of all neurons
    batch, mask = padded(), torch.ones(4, 40)
    dropped = model(*batch)
    model.layers[3].mlp.dropout.p = 0.0
    mask[3] = 0
    torch.testing.assert_close(dropped, model(*batch, torch.ones(4, 4), mask), atol=1e-6, rtol=1e-5)


def test_new_weights_are_drawn_as_the_library_draws_them():
    settings = {**SMALL, "hidden_size": 192, "intermediate_size": 96, "initializer_range": 0.5, **BIASES}
    torch.manual_seed(0)
    theirs = Library(ModernBertConfig(**settings)).state_dict()
    ours = PrunableModernBert(Config(model_type="modernbert", **settings)).state_dict()
    renamed = as_bert_weights({"model_type": "modernbert"}, theirs, with_head=True)
    assert set(renamed) == set(ours)
    for name, weight in ours.items():
        assert weight.std().item() == pytest.approx(renamed[name].std().item(), rel=0.15), name
        assert weight.abs().max().item() == pytest.approx(renamed[name].abs().max().item(), rel=0.15), name


@pytest.mark.parametrize("student", [["--student_layer", "2"], ["--student_sparsity", "70"]], ids=["layers", "pruned"])
def test_the_whole_chain(tmp_path, monkeypatch, capsys, student):
    monkeypatch.chdir(tmp_path)
    write_task(Path("datasets"), "rte")
    torch.manual_seed(0)
    ModernBertModel(ModernBertConfig(**SMALL)).save_pretrained("start")
    write_vocabulary(Path("start"))
    task = ["--task_name", "rte", "--use_cpu"]
    quick = [*task, "--max_length", "40", "--num_train_epochs", "2", "--learning_rate", "1e-3", "--log_interval", "3"]
    run_finetuning.main([*quick, "--model_path", "start", "--do_train"])
    run_pruning.main([*task, "--max_length", "40"])
    run_distillation.main([*quick, *student, "--do_distil", "--minilm_weight", "1"])
    capsys.readouterr()
    without_first = [*quick, "--student_layer", "2", "--layer_choice", "last", "--do_distil"]
    assert "--layer_choice last: layer 0 must be kept" in refused(run_distillation, capsys, *without_first)
    run_sparsification.main([*task, *student, "--max_length", "40"])
    run_rewinding.main([*quick, *student, "--do_rewind", "--teacher_sparsity", "90"])
    [best] = Path("outputs", "rewind").glob("*/*/ckpt_90")
    assert "tags: [modernbert, glue," in (best / "README.md").read_text()
    model = load_model(str(best), LABELS)
    assert isinstance(model, PrunableModernBert)
    kinds = ["full_attention", "sliding_attention", "sliding_attention", "full_attention"]
    assert model.config.layer_types == kinds[: len(model.layers)]
    assert getattr(model.config, "sparsity", "0") == ("0" if student[0] == "--student_layer" else "70")

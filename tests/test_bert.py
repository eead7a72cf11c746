"""The prunable BERT against Hugging Face's, and its masks."""

import pytest
import torch
from conftest import random_batch, small_config
from transformers import BertModel

from models.bert import PrunableBert
from models.dropout import Dropout
from models.linear import Linear
from models.processor import USES_ONEDNN
from models.pruning import cut, sort_units
from models.scores import Units

CONFIGS = [
    {"num_labels": 2},
    {"num_labels": 1, "num_hidden_layers": 1, "hidden_act": "relu"},
    {"num_labels": 3, "num_attention_heads": 2, "hidden_size": 64, "intermediate_size": 40, "type_vocab_size": 3},
    {"num_labels": 2, "num_hidden_layers": 5, "num_attention_heads": 8, "layer_norm_eps": 1e-5},
]


@pytest.mark.parametrize("changes", CONFIGS)
@pytest.mark.parametrize("seed", [0, 1])
def test_logits_equal_hugging_faces_bert_and_the_head(changes, seed):
    torch.manual_seed(seed)
    model = PrunableBert(small_config(**changes)).eval()
    reference = BertModel(model.config, add_pooling_layer=False).eval()
    reference.load_state_dict(model.bert.state_dict())
    ids, types, mask = random_batch(model.config)
    states = reference(input_ids=ids, token_type_ids=types, attention_mask=mask.long()).last_hidden_state
    torch.testing.assert_close(model(ids, types, mask), model.cls(states[:, 0]), atol=1e-5, rtol=1e-5)


def test_masks_of_ones_change_nothing_and_zeros_do():
    torch.manual_seed(0)
    model = PrunableBert(small_config()).eval()
    batch = random_batch(model.config)
    unmasked = model(*batch)
    assert torch.equal(model(*batch, torch.ones(3, 4), torch.ones(3, 32)), unmasked)
    assert not torch.allclose(model(*batch, torch.zeros(3, 4), torch.ones(3, 32)), unmasked, atol=1e-3)
    assert not torch.allclose(model(*batch, torch.ones(3, 4), torch.zeros(3, 32)), unmasked, atol=1e-3)


def test_each_example_can_have_masks_of_its_own():
    torch.manual_seed(0)
    model = PrunableBert(small_config()).eval()
    ids, types, mask = random_batch(model.config)
    heads = torch.rand(5, 3, 4).round()
    neurons = torch.rand(5, 3, 32).round()
    together = model(ids, types, mask, heads, neurons)
    alone = [model(ids[i : i + 1], types[i : i + 1], mask[i : i + 1], heads[i], neurons[i]) for i in range(5)]
    torch.testing.assert_close(together, torch.cat(alone), atol=1e-5, rtol=1e-5)


def test_padding_changes_no_logit():
    torch.manual_seed(0)
    model = PrunableBert(small_config()).eval()
    short = random_batch(model.config)
    longer = [torch.nn.functional.pad(tensor, (0, 9)) for tensor in short]
    torch.testing.assert_close(model(*short), model(*longer), atol=1e-6, rtol=1e-5)


def test_the_last_layer_for_cls_alone_is_exact():
    torch.manual_seed(0)
    model = PrunableBert(small_config()).eval()
    batch = random_batch(model.config)
    short = model(*batch)
    model.use_exact_shortcuts(False)
    torch.testing.assert_close(model(*batch), short, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_dropout_drops_its_share_and_keeps_the_mean(dtype):
    torch.manual_seed(0)
    dropout = Dropout(0.1)
    hidden = torch.ones(501, 999, dtype=dtype, requires_grad=True)
    dropped = dropout(hidden)
    assert dropped.dtype == dtype
    assert (dropped == 0).float().mean().item() == pytest.approx(0.1, abs=2e-3)
    assert dropped.float().mean().item() == pytest.approx(1.0, abs=5e-3)
    assert ((dropped == 0).float().mean(0) < 0.2).all()
    dropped.sum().backward()
    assert torch.equal(hidden.grad, dropped)
    assert not torch.equal(dropout(hidden), dropped)
    assert torch.equal(dropout.eval()(hidden), hidden)


@pytest.mark.parametrize(("width", "out"), [(24, 72), (72, 24), (24, 24)])
@pytest.mark.parametrize("strided", [False, True])
def test_a_linear_layers_products_and_gradients_are_those_of_torch(width, out, strided):
    torch.manual_seed(0)
    linear = Linear(width, out)
    hidden = torch.randn(3, 5, width).requires_grad_()
    used = hidden[:, 0] if strided else hidden
    expected = torch.nn.functional.linear(used, linear.weight, linear.bias)
    weights = torch.randn_like(expected)
    torch.testing.assert_close(linear(used), expected, atol=1e-6, rtol=1e-5)
    sources = (hidden, linear.weight, linear.bias)
    gradients, wanted = (torch.autograd.grad((output * weights).sum(), sources) for output in (linear(used), expected))
    torch.testing.assert_close(gradients, wanted, atol=1e-5, rtol=1e-5)
    linear.requires_grad_(False)
    torch.testing.assert_close(torch.autograd.grad((linear(used) * weights).sum(), hidden)[0], wanted[0])


def test_a_linear_layer_takes_the_fast_product_where_there_is_one_and_leaves_the_rest_to_torch():
    linear = Linear(24, 24)
    hidden = torch.randn(3, 24)

    def is_fast(rows: torch.Tensor) -> bool:
        return "OneDnnProduct" in linear(rows).grad_fn.name()

    assert is_fast(hidden) == USES_ONEDNN
    assert not is_fast(hidden[:0])
    with torch.autocast("cpu", torch.bfloat16):
        assert not is_fast(hidden)
    linear.exact_shortcuts = False
    assert not is_fast(hidden)


def test_without_dropout_training_mode_and_missing_shortcuts_change_no_logit():
    torch.manual_seed(0)
    model = PrunableBert(small_config(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)).eval()
    model.cls[2].p = 0.0
    batch = random_batch(model.config)
    logits = model(*batch)
    torch.testing.assert_close(model.train()(*batch), logits, atol=1e-6, rtol=1e-5)
    model.use_exact_shortcuts(False)
    torch.testing.assert_close(model(*batch), logits, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("exact_shortcuts", [True, False])
@pytest.mark.parametrize("layer", [1, 2])  # the last one computes [CLS] alone
def test_attention_that_is_all_dropped_is_that_of_no_head(layer, exact_shortcuts):
    torch.manual_seed(0)
    model = PrunableBert(small_config(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)).train()
    model.cls[2].p = 0.0
    model.use_exact_shortcuts(exact_shortcuts)
    for linear in model.modules():  # of a new model they are 0
        if isinstance(linear, torch.nn.Linear):
            torch.nn.init.normal_(linear.bias)
    batch = random_batch(model.config)
    heads = torch.ones(3, 4)
    heads[layer] = 0
    expected = model(*batch, heads, torch.ones(3, 32))
    model.layers[layer].self_attention.dropout.p = 1.0
    torch.testing.assert_close(model(*batch), expected, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("part", ["attention", "ffn"])
def test_what_is_all_dropped_leaves_the_residual(part):
    torch.manual_seed(0)
    model = PrunableBert(small_config(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)).train()
    model.cls[2].p = 0.0
    batch = random_batch(model.config)
    layer = model.layers[1]
    residual = layer.attention_out if part == "attention" else layer.output
    residual.dropout.p = 1.0
    dropped = model(*batch)
    residual.dropout.p = 0.0
    assert not torch.allclose(model(*batch), dropped, atol=1e-3)
    torch.nn.init.zeros_(residual.dense.weight)
    torch.nn.init.zeros_(residual.dense.bias)
    torch.testing.assert_close(model(*batch), dropped, atol=1e-6, rtol=1e-5)


def test_dropout_comes_from_the_configuration():
    model = PrunableBert(small_config(hidden_dropout_prob=0.3, attention_probs_dropout_prob=0.2))
    for layer in model.layers:
        assert layer.self_attention.dropout.p == 0.2
        assert layer.attention_out.dropout.p == layer.output.dropout.p == 0.3
    assert model.bert.embeddings.dropout.p == 0.3


def test_new_weights_are_drawn_as_berts_are():
    torch.manual_seed(0)
    model = PrunableBert(small_config(initializer_range=0.5, pad_token_id=3))
    words = model.bert.embeddings.word_embeddings.weight
    assert not words[3].any()
    assert all(words[token].any() for token in range(len(words)) if token != 3)
    for part in model.modules():
        if isinstance(part, torch.nn.Linear | torch.nn.Embedding):
            assert part.weight.std().item() == pytest.approx(0.5, abs=0.1)
        if isinstance(part, torch.nn.Linear):
            assert not part.bias.any()


def test_a_cut_model_loads_in_one_line(tmp_path):
    torch.manual_seed(0)
    model = PrunableBert(small_config()).eval()
    sort_units(model, Units(torch.rand(3, 4), torch.rand(3, 32)))
    student = cut(model, 70)
    student.save_pretrained(tmp_path / "student")
    again = PrunableBert.from_pretrained(tmp_path / "student").eval()
    batch = random_batch(model.config)
    assert torch.equal(again(*batch), student(*batch))
    assert again.num_parameters() == student.num_parameters() < model.num_parameters()

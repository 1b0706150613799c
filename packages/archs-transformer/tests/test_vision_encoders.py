"""Vision towers of language models: what the encoders return, the head that grows, and their classifiers."""

import pytest
import torch

import imgzoo
from imgzoo.errors import UsageError
from imgzoo.loading.convert import convert

TINY = dict(embed_dim=32, depth=2, num_heads=2)
MERGED = dict(out_features=24)
ENCODERS = {  # options, patch, squares of tokens that become one, width of what is returned
    "deepseek_vit_412m_enc": (MERGED, 14, 3, 24),
    "qwen3_vit_88m_enc": (MERGED, 16, 2, 24),
    "gemma4_vit_167m_enc": (dict(head_dim=16, hidden=48, places=32), 16, 3, 32),
    "gemma4_vit_570m_enc": (dict(head_dim=16, hidden=48, places=32), 16, 3, 32),
}


def made(name, **options):
    torch.manual_seed(0)
    return imgzoo.create_model(name, **TINY, **ENCODERS[name][0], **options).eval()


@pytest.mark.parametrize("name", ENCODERS)
def test_an_encoder_returns_merged_tokens_at_any_size_and_grows_a_head(name):
    model, (_, patch, side, width) = made(name), ENCODERS[name]
    for grid in ((6, 12), (6, 6)):
        x = torch.randn(2, 3, grid[0] * patch, grid[1] * patch)
        with torch.inference_mode():
            features, tokens = model.forward_features(x), model(x)
            assert features.shape == (2, *grid, 32)
            assert tokens.shape == (2, grid[0] * grid[1] // side**2, width)
            levels = model.forward_intermediates(x, intermediates_only=True, norm=True)
            torch.testing.assert_close(levels[-1], features.permute(0, 3, 1, 2))
    model.reset_classifier(7)
    with torch.inference_mode():
        assert model(x).shape == (2, 7)
        torch.testing.assert_close(model(x), model.head(tokens.mean(1)))
        model.reset_classifier(0, "")
        torch.testing.assert_close(model(x), tokens)
    assert made(name, num_classes=5)(x).shape == (2, 5)
    with pytest.raises(UsageError, match="resize it to multiples"):
        model(torch.randn(1, 3, patch * side - 1, patch * side))


@pytest.mark.parametrize("name", ENCODERS)
def test_levels_of_an_encoder_train_alone(name):
    patch = ENCODERS[name][1]
    model = made(name, features_only=True)
    levels = model(torch.randn(2, 3, 6 * patch, 6 * patch))
    torch.stack([level.mean() for level in levels]).sum().backward()
    assert [level.shape for level in levels] == [(2, 32, 6, 6)] * 2
    assert not [key for key, value in model.named_parameters() if value.grad is None]


def test_squares_that_are_not_whole_are_filled_up_with_zeros():
    model = made("deepseek_vit_412m_enc")
    with torch.inference_mode():
        assert model(torch.randn(1, 3, 5 * 14, 7 * 14)).shape == (1, 2 * 3, 24)


@pytest.mark.parametrize(
    ("name", "options"),
    [("deepseek_vit_412m", {}), ("deepseek_vit_412m_align", MERGED), ("qwen3_vit_88m", {}),
     ("qwen3_vit_88m_merge", MERGED), ("gemma4_vit_570m", ENCODERS["gemma4_vit_570m_enc"][0])],
)  # fmt: skip
def test_a_classifier_reads_the_normalized_mean_of_its_encoder(name, options):
    model = imgzoo.create_model(name, num_classes=5, **TINY, **options).eval()
    side = 84 if "deepseek" in name else 96
    x = torch.randn(2, 3, side, side)
    with torch.inference_mode():
        pooled = model.forward_features(x).flatten(1, -2).mean(1)
        torch.testing.assert_close(model(x), model.head(model.norm(pooled)))
        assert model.encoder.forward_features(x).shape == (2, 6, 6, 32)


TOWERS = {  # the field's words for options; the word for what the language model reads
    "deepseek_vit_412m": (dict(patch_size=8, out_features=24), "align", "aligner"),
    "qwen3_vit_88m": (dict(patch_size=8, out_features=24, pos_embed_grid_size=4), "merge", "merger"),
    "gemma4_vit_167m": (dict(patch_size=8, head_dim=16, intermediate_size=48, position_embedding_size=16,
                             pooling_kernel_size=2), "soft", "pooler"),
}  # fmt: skip


@pytest.mark.parametrize("name", TOWERS)
def test_a_classifier_calls_its_encoder_and_reads_what_that_returns(name):
    """Hooks on the encoder and on what merges tokens see what passes; the field's words say which of both it is."""
    options, word, part = TOWERS[name]
    x = torch.randn(2, 3, 48, 96)
    for pool in ("", word):
        model = imgzoo.create_model(name, num_classes=5, encoder_pool=pool, **TINY, **options).eval()
        seen: list[str] = []
        model.encoder.register_forward_hook(lambda *call: seen.append("encoder"))  # noqa: B023
        model.encoder.get_submodule(part).register_forward_hook(lambda *call: seen.append("merged"))  # noqa: B023
        with torch.inference_mode():
            assert model(x).shape == (2, 5)
        assert seen == ["merged", "encoder"]
        assert any(key.startswith(f"encoder.{part}.") for key in model.state_dict()) == (pool in ("align", "merge"))
        encoder = imgzoo.create_model(f"{name}_enc", global_pool=word, **TINY, **options).eval()
        encoder.load_state_dict(model.encoder.state_dict(), strict=bool(pool))
        if pool:
            tokens = encoder(x)
            torch.testing.assert_close(model(x), model.head(model.norm(tokens.mean(1))))
    assert model.forward_intermediates(x)[0].shape == model.forward_features(x).shape == tokens.shape


@pytest.mark.parametrize("name", TOWERS)
def test_a_pruned_classifier_lets_go_of_what_merges_tokens(name):
    options, word, part = TOWERS[name]
    model = imgzoo.create_model(name, num_classes=5, encoder_pool=word, **TINY, **options).eval()
    x = torch.randn(2, 3, 48, 96)
    expected = model.forward_intermediates(x, indices=[0], intermediates_only=True)[0]
    model.prune_intermediate_layers([0])
    assert not [key for key in model.state_dict() if f"{part}." in key]
    torch.testing.assert_close(model.forward_intermediates(x, indices=[0], intermediates_only=True)[0], expected)
    model.reset_classifier(3)
    assert model(x).shape == (2, 3)


@pytest.mark.parametrize("name", ["deepseek_vit_412m", "qwen3_vit_88m"])
def test_merged_tokens_need_a_width(name):
    with pytest.raises(UsageError, match="merges needs out_features"):
        imgzoo.create_model(name, merges=True, out_features=0, **TINY)


@pytest.mark.parametrize("merges", [False, True])
@pytest.mark.parametrize("name", TOWERS)
def test_a_classifier_loads_its_encoder_alone(name, merges):
    options, _, part = TOWERS[name]
    encoder = imgzoo.create_model(f"{name}_enc", **TINY, **options)
    model = imgzoo.create_model(name, num_classes=5, merges=merges, **TINY, **options)
    state, form = convert(encoder.state_dict(), model, model.state_dict(), imgzoo.get_spec(name).target)
    assert form == "encoder"
    assert model.load_state_dict(state, strict=False) == (["head.weight", "head.bias"], [])
    expected = {key: value for key, value in encoder.state_dict().items() if merges or not key.startswith(f"{part}.")}
    torch.testing.assert_close(dict(model.encoder.state_dict()), expected)


def test_bounds_of_layers_are_kept():
    model = made("gemma4_vit_167m_enc")
    layer = model.blocks[0].attn.q_proj
    layer.output_max.fill_(0.01)
    layer.input_min.fill_(0.0)
    x = torch.randn(2, 5, 32)
    with torch.inference_mode():
        torch.testing.assert_close(layer(x), layer.linear(x.clamp(min=0.0)).clamp(max=0.01))

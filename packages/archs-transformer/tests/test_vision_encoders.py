"""Vision towers of language models: what the encoders return, the head that grows, and their classifiers."""

import pytest
import torch

import imgzoo
from imgzoo.errors import UsageError

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


def test_bounds_of_layers_are_kept():
    model = made("gemma4_vit_167m_enc")
    layer = model.blocks[0].attn.q_proj
    layer.output_max.fill_(0.01)
    layer.input_min.fill_(0.0)
    x = torch.randn(2, 5, 32)
    with torch.inference_mode():
        torch.testing.assert_close(layer(x), layer.linear(x.clamp(min=0.0)).clamp(max=0.01))

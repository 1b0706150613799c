"""ConViT's class token joins behind the local blocks."""

import pytest
import torch

import imgzoo
from imgzoo.errors import UsageError

SMALL = dict(embed_dim=16, num_heads=4, img_size=32)


@pytest.mark.parametrize("local", [3, 4])
def test_blocks_that_show_no_patches_are_refused(local):
    with pytest.raises(UsageError, match="local_up_to_layer must be below depth=3"):
        imgzoo.create_model("convit_tiny", depth=3, local_up_to_layer=local, device="meta", **SMALL)


def test_the_last_block_is_enough():
    model = imgzoo.create_model("convit_tiny", depth=3, local_up_to_layer=2, **SMALL).eval()
    first, second = model(torch.randn(2, 3, 32, 32))
    assert not torch.equal(first, second)


@pytest.mark.parametrize("level, waits", [(0, True), (1, True), (2, False)])
def test_the_class_token_goes_with_the_blocks_in_which_it_attends(level, waits):
    model, x = (
        imgzoo.create_model("convit_tiny", depth=3, local_up_to_layer=2, **SMALL).eval(),
        torch.randn(2, 3, 32, 32),
    )
    with torch.no_grad():
        expected = model.forward_intermediates(x, [level], norm=True, intermediates_only=True)[0]
    model.prune_intermediate_layers([level])
    assert ("cls_token" not in model.state_dict()) == waits
    patches = model.forward_features(x)[:, model.num_prefix_tokens :]
    torch.testing.assert_close(patches, expected.flatten(2).transpose(1, 2))
    model.reset_classifier(3, "avg" if waits else "token")
    model(x).sum().backward()
    assert not [key for key, each in model.named_parameters() if each.grad is None]


def test_a_classifier_of_a_token_that_sees_nothing_is_refused():
    made = dict(depth=3, local_up_to_layer=2, device="meta", **SMALL)
    with pytest.raises(UsageError, match="let prune_head=True drop the classifier, or pool by 'avg'"):
        imgzoo.create_model("convit_tiny", **made).prune_intermediate_layers([1], prune_head=False)
    model = imgzoo.create_model("convit_tiny", global_pool="avg", **made)
    model.prune_intermediate_layers([1], prune_head=False)
    assert "head.weight" in model.state_dict() and "cls_token" not in model.state_dict()

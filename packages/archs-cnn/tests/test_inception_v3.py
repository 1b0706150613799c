"""The auxiliary classifier of Inception-v3."""

import torch

import imgzoo


def test_the_auxiliary_classifier_answers_in_training_alone():
    model = imgzoo.create_model("inception_v3", aux_logits=True, num_classes=5)
    x = torch.randn(2, 3, 299, 299)
    logits, beside = model.train()(x)
    assert logits.shape == beside.shape == (2, 5)
    assert model.eval()(x).shape == (2, 5) and model.get_classifier() is model.fc
    model.reset_classifier(3)
    assert [part.shape for part in model.train()(x)] == [(2, 3), (2, 3)]
    model.prune_intermediate_layers([1])
    assert not [key for key in model.state_dict() if key.startswith("AuxLogits")]
    assert isinstance(model(x), torch.Tensor)


def test_without_it_nothing_is_kept():
    model = imgzoo.create_model("inception_v3", device="meta")
    assert not [key for key in model.state_dict() if key.startswith("AuxLogits")]

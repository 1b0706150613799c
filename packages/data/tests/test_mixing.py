"""Mixup, CutMix and smoothing: images and targets agree, and draws have their laws."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from imgzoo.errors import UsageError
from imgzoo_data import Mixer, create_dataset, create_loader, create_transform
from imgzoo_data.mixing import Mix

SIZE = (20, 30)


def one_hot_images(count):
    """Image i is 1 in channel i and 0 elsewhere, so the mean of a channel is the share of sample i in it."""
    return torch.eye(count)[:, :, None, None].expand(count, count, *SIZE).clone()


@settings(deadline=None, max_examples=120)
@given(
    st.sampled_from(["batch", "pair", "elem"]),
    st.sampled_from([(0.8, 0.0), (0.0, 1.0), (0.8, 1.0)]),
    st.sampled_from([None, (0.2, 0.8)]),
    st.integers(1, 9),
    st.integers(0, 50),
)
def test_targets_are_the_shares_of_the_images(mode, alphas, minmax, count, step):
    mixer = Mixer(count, *alphas, cutmix_minmax=minmax if alphas[1] else None, mode=mode)
    mix = mixer.draw(0, 0, step, 0, count, SIZE)
    images = mixer.images(one_hot_images(count), mix)
    targets = mixer.targets(torch.arange(count), mix)
    assert torch.allclose(images.mean(dim=(2, 3)), targets, atol=1e-5)
    assert torch.allclose(targets.sum(dim=1), torch.ones(count))


@pytest.mark.parametrize("mode", ["batch", "pair", "elem"])
def test_how_many_draws_a_mode_makes(mode):
    lam = Mixer(3, 1.0, mode=mode).draw(0, 0, 3, 0, 12, SIZE).lam
    assert len(set(lam)) == {"batch": 1, "pair": 6, "elem": 12}[mode]
    if mode == "pair":
        assert (lam[0::2] == lam[1::2]).all()


@given(st.integers(1, 4), st.sampled_from(["batch", "pair", "elem"]), st.integers(0, 9))
def test_ranks_draw_parts_of_the_global_draw(pairs, mode, step):
    mixer = Mixer(3, 0.5, 1.0, mode=mode)
    whole = mixer.draw(1, 2, step, 0, 4 * pairs, SIZE)
    for rank in range(2):
        part = mixer.draw(1, 2, step, 2 * pairs * rank, 2 * pairs, SIZE)
        mine = slice(2 * pairs * rank, 2 * pairs * (rank + 1))
        assert (part.lam == whole.lam[mine]).all() and (part.boxes == whole.boxes[mine]).all()


def test_lambda_follows_the_beta_law():
    lam = Mixer(3, 0.4, mode="elem").draw(0, 0, 0, 0, 10_000, SIZE).lam
    assert stats.kstest(lam, stats.beta(0.4, 0.4).cdf).pvalue > 1e-4


def test_switch_and_application_probabilities():
    mix = Mixer(3, 0.4, 1.0, prob=0.5, switch_prob=0.25, mode="elem", correct_lam=False).draw(
        0, 0, 0, 0, 8000, (224, 224)
    )
    mixed = mix.lam < 1
    assert mixed.mean() == pytest.approx(0.5, abs=0.02)
    assert mix.boxes.any(axis=1)[mixed].mean() == pytest.approx(0.25, abs=0.03)


def test_smoothing_alone_leaves_images():
    mixer = Mixer(10, smoothing=0.1)
    images = one_hot_images(4)
    mix = mixer.draw(0, 0, 0, 0, 4, SIZE)
    assert torch.equal(mixer.images(images.clone(), mix), images)
    targets = mixer.targets(torch.tensor([3, 0, 1, 2]), mix)
    assert targets[0, 3].item() == pytest.approx(0.91) and targets[0, 0].item() == pytest.approx(0.01)


@pytest.mark.parametrize("workers", [0, 2])
def test_mixing_is_off_after_its_epoch_also_with_living_workers(workers):
    source = create_dataset("digits:")
    transform = create_transform(training=True, input_size=(1, 8, 8))
    loader = create_loader(source, transform, 64, workers=workers, mixer=Mixer(10, 1.0, off_epoch=1))
    soft = [bool(((b.targets > 0) & (b.targets < 1)).any()) for _ in range(2) for b in loader]
    steps = len(loader)
    assert all(soft[:steps]) and not any(soft[steps:])
    loader.close()


def test_multi_label_targets_are_mixed_too():
    targets = torch.tensor([[1.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    mix = Mix(np.array([0.75, 0.75]), np.zeros((2, 4), np.int64))
    assert Mixer(3, 1.0).targets(targets, mix).tolist() == [[0.75, 0.75, 0.25], [0.25, 0.25, 0.75]]


def test_vectors_are_smoothed_too():
    mix = Mix(np.array([0.75, 0.75]), np.zeros((2, 4), np.int64))
    shares = torch.tensor([[0.6, 0.4, 0.0], [0.0, 0.0, 1.0]])
    mixed = Mixer(3, 1.0, smoothing=0.3).targets(shares, mix)
    torch.testing.assert_close(mixed, torch.tensor([[0.45, 0.3, 0.25], [0.15, 0.1, 0.75]]) * 0.7 + 0.1)
    answers = torch.tensor([[1, 1, 0], [0, 0, 1]])  # towards one half
    mixed = Mixer(3, 1.0, smoothing=0.2, multi_label=True).targets(answers, mix)
    torch.testing.assert_close(mixed, torch.tensor([[0.75, 0.75, 0.25], [0.25, 0.25, 0.75]]) * 0.8 + 0.1)
    numbers = torch.arange(3)[:2]
    same = (Mixer(3, 1.0, smoothing=0.3, multi_label=several).targets(numbers, mix) for several in (False, True))
    torch.testing.assert_close(*same)
    with pytest.raises(UsageError, match="leave smoothing out"):
        Mixer(1, 1.0, smoothing=0.1).targets(torch.tensor([0.5, 2.0]), mix)


def test_wrong_options():
    with pytest.raises(UsageError, match="batch, pair or elem"):
        Mixer(3, mode="half")
    transform = create_transform(training=True, splits=2, row="rrc | jitter", input_size=(3, 8, 8))
    with pytest.raises(UsageError, match="splits"):
        create_loader("digits:", transform, 8, mixer=Mixer(10, 1.0))


def test_sequences_share_targets_by_what_is_mixed():
    transform = create_transform(training=True, sequence=(4, 40), input_size=(1, 32, 32), mean=0.5, std=0.5)
    for mixer in (Mixer(10, 0.8, mode="pair"), Mixer(10, 0.0, 1.0, mode="elem")):
        loader = create_loader("digits:", transform, 8, mixer=mixer, training=True)
        plain = next(iter(create_loader("digits:", transform, 8, training=True)))
        batch = next(iter(loader))
        assert torch.allclose(batch.targets.sum(1), torch.ones(8))
        assert torch.equal(batch.images.valid, plain.images.valid)
        changed = (batch.images.patches != plain.images.patches).flatten(1).any(1)
        assert changed.any() and (batch.targets.max(1).values[~changed] == 1).all()
        assert (batch.images.patches[~batch.images.valid] == 0).all()


def test_sequences_of_equal_images_are_the_normalized_image():
    transform = create_transform(sequence=(8, 16), input_size=(1, 32, 32), mean=0.25, std=0.5)
    batch = next(iter(create_loader("digits:", transform, 4)))
    assert batch.images.patches.shape == (4, 16, 64) and batch.images.valid.all()
    image = transform.pixels(create_dataset("digits:", "validation")[0].data).float() / 255
    rebuilt = batch.images.patches[0].view(4, 4, 8, 8).permute(0, 2, 1, 3).reshape(32, 32)
    assert torch.allclose(rebuilt, (image[0] - 0.25) / 0.5, atol=1e-5)

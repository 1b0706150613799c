"""`imgzoo explain`: relevance lies where the answer comes from, by each method that can promise it.

A red or a blue patch of a fourth of a gray picture decides. Nets that see cells of 8 pixels alone, as a map or as
tokens, let Grad-CAM, integrated gradients and occlusion promise 80% of the relevance inside it. A trained convolutional
net sees wider than the patch: Grad-CAM and occlusion promise it within a cell of 16 pixels more, integrated gradients
inside. A trained token model promises nothing: it saturates, and its norms bend gradients near the mean color too much
for 32 steps, which a warning says. Nor does rollout: it follows attention, which no class directs, so its formula is
tested on attention that is planted.
"""

import re

import pytest
import torch
from PIL import Image
from torch import nn
from torch.nn import functional as F
from train_commands import fails, invoke

from imgzoo import create_model, save_model
from imgzoo.errors import UsageError
from imgzoo.features import Feature, FeatureInfo
from imgzoo_train import Predictor
from imgzoo_train.cli import explain as command
from imgzoo_train.explaining import METHODS, explain, methods
from imgzoo_train.explaining.explanation import files_for
from imgzoo_train.models.opening import open_model

SIDE, PATCH = 160, 80


def pictures(count, generator):
    """Gray with a little noise, and a red (0) or blue (1) patch anywhere: (B, 3, H, W) in -1 to 1, and classes."""
    images = 0.03 * torch.randn(count, 3, SIDE, SIDE, generator=generator)
    classes = torch.randint(2, (count,), generator=generator)
    for image, label, (y, x) in zip(images, classes, torch.randint(SIDE - PATCH + 1, (count, 2), generator=generator)):
        image[:, y : y + PATCH, x : x + PATCH] = torch.tensor([0.8, -0.6, -0.6]).roll(2 * int(label))[:, None, None]
    return images, classes


@pytest.fixture(scope="module")
def predictor():
    generator = torch.Generator().manual_seed(0)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = create_model("test_resnet", num_classes=2)
    optimizer = torch.optim.AdamW(model.parameters(), 2e-3)
    for _ in range(20):
        images, classes = pictures(8, generator)
        F.cross_entropy(model(images), classes).backward()
        optimizer.step()
        optimizer.zero_grad()
    images, classes = pictures(16, generator)
    with torch.inference_mode():
        assert (model.eval()(images).argmax(1) == classes).all()
    return Predictor(model)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = create_model("test_vit", num_classes=2)
    model.class_names = ["red", "blue"]
    return save_model(model, tmp_path_factory.mktemp("saved") / "vit")


@pytest.fixture
def photo(tmp_path):
    image, _ = pictures(1, torch.Generator().manual_seed(7))
    pixels = ((image[0].permute(1, 2, 0) + 1) * 127.5).clamp(0, 255).byte()
    Image.fromarray(pixels.numpy()).save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


class Cells(nn.Module):
    """Red and blue in cells of 8 pixels, averaged."""

    name, channels_last = "cells", False

    def __init__(self):
        super().__init__()
        self.feature_info = FeatureInfo([Feature(2, 8, "cells")])
        self.cells = nn.Conv2d(3, 2, 8, 8, bias=False)
        colors = torch.tensor([[1.0, -0.5, -0.5], [-0.5, -0.5, 1.0]])
        self.cells.weight.data = colors[:, :, None, None].expand(2, 3, 8, 8) / 64

    def forward(self, images):
        return self.cells(images).relu().mean((2, 3))


class Tokens(Cells):
    """The same as tokens behind a class token that says nothing; the level is a container run piece by piece."""

    def __init__(self):
        super().__init__()
        self.norm = self.cells
        self.cells, self.tokens = nn.Identity(), nn.Sequential(nn.Identity())
        self.feature_info = FeatureInfo([Feature(2, 8, "tokens")])

    def forward(self, images):
        tokens = F.pad(self.norm(images).flatten(2).transpose(1, 2), [0, 0, 1, 0])
        return self.tokens[0](tokens)[:, 1:].relu().mean(1)


def share(relevance, inside):
    relevance = relevance.clamp_min(0)
    return float((relevance * inside).sum() / relevance.sum())


@pytest.mark.parametrize("net", [Cells, Tokens])
@pytest.mark.parametrize("method", ["integrated-gradients", "occlusion", "gradcam"])
def test_a_decisive_patch_holds_the_relevance(net, method):
    generator = torch.Generator().manual_seed(1)
    images, classes = pictures(4, generator)
    for image, label in zip(images, classes):
        inside = image.amax(0) - image.amin(0) > 0.6
        assert share(METHODS[method](net(), image[None].clone(), int(label)), inside) >= 0.8
        elsewhere = METHODS[method](net(), image[None].clone(), 1 - int(label))
        assert share(elsewhere, inside) < 0.5  # what speaks for the other class is noise outside


@pytest.mark.parametrize("method", ["integrated-gradients", "occlusion", "gradcam"])
def test_a_trained_net_looks_at_the_patch(predictor, photo, method):
    more = 0 if method == "integrated-gradients" else 16
    found = explain(predictor, photo, method)
    inside = (found.image.amax(2) - found.image.amin(2) > 0.3).float()
    inside = F.max_pool2d(inside[None], 2 * more + 1, 1, more)[0]
    assert float(found.relevance.sum()) == pytest.approx(1, abs=1e-4)
    assert share(found.relevance, inside) >= 0.8
    assert inside.flatten()[int(found.relevance.argmax())] == 1


def test_integrated_gradients_add_up_to_the_output_above_the_mean_color():
    model = create_model("test_resnet", num_classes=2).eval()
    images, _ = pictures(1, torch.Generator().manual_seed(7))
    with torch.inference_mode():
        ends = model(torch.cat([images, torch.zeros_like(images)]))[:, 1]
    total = float(methods.integrated_gradients(model, images, 1).sum())
    assert total == pytest.approx(float(ends[0] - ends[1]), rel=0.02)


def test_integrated_gradients_that_do_not_add_up_warn():
    class Steep(nn.Module):
        def forward(self, images):
            return (images / (images.abs() + 1e-4)).sum((1, 2, 3))[:, None]

    with pytest.warns(UserWarning, match="32 steps of integrated gradients explain .* of a difference of 192"):
        methods.integrated_gradients(Steep(), torch.ones(1, 3, 8, 8), 0)


def test_gradcam_behind_a_class_token_takes_the_last_block_that_it_reads():
    model = create_model("test_vit", num_classes=2, global_pool="token").eval()
    images, _ = pictures(1, torch.Generator().manual_seed(7))
    with torch.no_grad():
        tokens = model.blocks[:5](model.embed(images))
    score = model.forward_head(model.norm(model.blocks[5](tokens.requires_grad_())))[0, 1]
    slopes = torch.autograd.grad(score, tokens)[0][:, 1:]
    places = (slopes.mean(1, keepdim=True) * tokens.detach()[:, 1:]).sum(2).relu().view(1, 1, 10, 10)
    wanted = F.interpolate(places, (SIDE, SIDE), mode="bilinear")[0, 0]
    assert torch.allclose(methods.gradcam(model, images.clone(), 1), wanted, rtol=1e-3, atol=1e-6)


def test_occlusion_of_a_sum_is_the_share_of_each_pixel():
    class Sum(nn.Module):
        def forward(self, images):
            return images[:, :, 3:5, 4:8].sum((1, 2, 3))[:, None]

    found = methods.occlusion(Sum(), torch.ones(1, 3, 8, 8), 0)  # a window is a pixel
    wanted = torch.zeros(8, 8)
    wanted[3:5, 4:8] = 3
    assert torch.equal(found, wanted)


class Planted(nn.Module):
    def __init__(self, weights):
        super().__init__()
        self.weights = weights

    def forward(self, found):
        return self.weights.expand_as(found)


@pytest.mark.parametrize("pool", ["token", "avg"])
def test_rollout_multiplies_attention(pool):
    model = create_model("test_vit", num_classes=2, global_pool=pool).eval()
    tokens, generator = 1 + 10 * 10, torch.Generator().manual_seed(0)
    rolled = torch.eye(tokens)
    for block in model.blocks:
        weights = torch.randn(tokens, tokens, generator=generator).mul(3).softmax(1)
        block.attn.attn_drop = Planted(weights)
        rolled = (weights / 2 + torch.eye(tokens) / 2) @ rolled
    row = rolled[0] if pool == "token" else rolled[1:].mean(0)
    wanted = F.interpolate(row[1:].view(1, 1, 10, 10), (SIDE, SIDE), mode="bilinear")[0, 0]
    assert torch.allclose(methods.rollout(model, torch.zeros(1, 3, SIDE, SIDE), 0), wanted, atol=1e-6)


def test_rollout_leaves_the_network_as_it_was():
    model = create_model("test_vit", num_classes=2).eval()
    model.blocks[1].attn.fused_attn = False
    methods.rollout(model, torch.zeros(1, 3, SIDE, SIDE), 0)
    assert [block.attn.fused_attn for block in model.blocks] == [True, False, True, True, True, True]
    assert not any(module._forward_hooks for module in model.modules())


def test_the_names_on_the_command_line_are_those_of_the_methods():
    assert tuple(METHODS) == command.METHODS


@pytest.mark.parametrize("method", METHODS)
def test_the_command_writes_a_picture_and_a_page(folder, photo, tmp_path, method):
    out = tmp_path / "out"
    wanted = () if method == "rollout" else ("--class", "blue")
    invoke(command, photo, "--model", folder, "--method", method, "--output", out, "--device", "cpu", *wanted)
    with Image.open(out / f"photo-{method}.png") as picture:
        assert picture.size == (SIDE, SIDE)
    page = (out / f"photo-{method}.html").read_text()
    assert page.count("data:image/png;base64,") == 2
    assert not re.search(r"(src|href)=.(?!data:)", page)
    assert ">red</td>" in page
    assert method == "rollout" or 'headline">blue by' in page


def test_a_class_is_a_name_or_a_number(folder, photo):
    predictor = Predictor(open_model(str(folder)))
    first, second = (explain(predictor, photo, "occlusion", text) for text in ("Blue", "1"))
    assert first.label == second.label == "blue"
    assert torch.equal(first.relevance, second.relevance)


@pytest.mark.filterwarnings("ignore:.* was built without weights")
def test_mistakes_get_one_sentence(folder, photo, tmp_path):
    def sentence(image=photo, model=folder, method="gradcam", output=tmp_path / "new.png", more=()):
        return fails(command, image, "--model", model, "--method", method, "--output", output, *more)

    text = tmp_path / "notes.png"
    text.write_text("no image")
    taken = tmp_path / "taken.html"
    taken.touch()
    assert "knows no class 'green'; it answers 'red', 'blue'" in sentence(more=("--class", "green"))
    assert "a number from 0 to 1" in sentence(more=("--class", "2"))
    assert "leave --class out" in sentence(method="rollout", more=("--class", "red"))
    assert "notes.png" in sentence(image=text)
    assert "there is no file" in sentence(image=tmp_path / "none.png")
    assert "is a folder: give an image in it" in sentence(image=tmp_path)
    assert "taken.html exists" in sentence(output=tmp_path / "taken.png")
    assert "taken.html exists" in sentence(output=tmp_path / "taken.html")
    assert "neither .png nor .html" in sentence(output=tmp_path / "new.jpg") and not (tmp_path / "new.jpg").exists()
    assert files_for(tmp_path / "new.html", photo, "gradcam") == (tmp_path / "new.png", tmp_path / "new.html")
    for name in ("test_resnet", "test_maxvit", "test_vit3"):  # no attention, in windows, and hidden in the pool
        lacking = sentence(model=name, method="rollout", more=("--pretrained", "false"))
        assert "--method gradcam" in lacking
    assert "has no classifier" in sentence_of(Predictor(create_model("test_resnet", num_classes=0)), photo)
    assert not (tmp_path / "new.png").exists()


def sentence_of(predictor, photo):
    with pytest.raises(UsageError) as caught:
        explain(predictor, photo, "gradcam")
    return str(caught.value)


@pytest.mark.parametrize("given", ["run", None])
def test_a_name_given_for_a_model_is_said(given):
    with pytest.raises(UsageError, match=r"Predictor\.open"):
        Predictor(given)

"""Training files in the manner of DeiT, MAE and Swin, as research code writes them."""

import argparse
import math
from functools import partial

import pytest
import torch
from PIL import Image
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD, Mixup, create_transform
from timm.data.transforms import str_to_pil_interp
from timm.loss import LabelSmoothingCrossEntropy, SoftTargetCrossEntropy
from timm.models import create_model
from timm.models.layers import DropPath, to_2tuple, trunc_normal_
from timm.models.registry import register_model
from timm.models.vision_transformer import Block, PatchEmbed, VisionTransformer, _cfg
from timm.optim import create_optimizer, optim_factory
from timm.scheduler import create_scheduler
from timm.scheduler.cosine_lr import CosineLRScheduler
from timm.scheduler.scheduler import Scheduler
from timm.utils import AverageMeter, ModelEma, NativeScaler, accuracy, get_state_dict
from torch import nn


@register_model
def small_vit_of_a_script(pretrained=False, **kwargs):
    model = VisionTransformer(img_size=32, patch_size=8, embed_dim=24, depth=2, num_heads=3, mlp_ratio=4, qkv_bias=True,
                              norm_layer=partial(nn.LayerNorm, eps=1e-6), **kwargs)  # fmt: skip
    model.default_cfg = _cfg()
    return model


def options(**changed):
    given = dict(opt="adamw", opt_eps=1e-8, opt_betas=None, momentum=0.9, weight_decay=0.05, lr=5e-3, sched="cosine",
                 epochs=4, min_lr=1e-5, warmup_lr=1e-6, warmup_epochs=1, cooldown_epochs=1, patience_epochs=10,
                 decay_epochs=30, decay_rate=0.1, lr_noise=None, lr_noise_pct=0.67, lr_noise_std=1.0,
                 seed=0)  # fmt: skip
    return argparse.Namespace(**{**given, **changed})


def test_deit():
    args = options()
    model = create_model("small_vit_of_a_script", pretrained=False, num_classes=4, drop_rate=0.0, drop_path_rate=0.1,
                         drop_block_rate=None)  # fmt: skip
    ema = ModelEma(model, decay=0.9, device="cpu", resume="")
    optimizer = create_optimizer(args, model)
    scaler, criterion = NativeScaler(), SoftTargetCrossEntropy()
    scheduler, epochs = create_scheduler(args, optimizer)
    mix = Mixup(
        mixup_alpha=0.8, cutmix_alpha=1.0, prob=1.0, switch_prob=0.5, mode="batch", label_smoothing=0.1, num_classes=4
    )
    meter, rates = AverageMeter(), []
    for epoch in range(epochs):
        for _ in range(3):
            images, targets = mix(torch.randn(4, 3, 32, 32), torch.randint(0, 4, (4,)))
            loss = criterion(model(images), targets)
            optimizer.zero_grad()
            second = hasattr(optimizer, "is_second_order") and optimizer.is_second_order
            scaler(loss, optimizer, clip_grad=1.0, parameters=model.parameters(), create_graph=second)
            ema.update(model)
            meter.update(loss.item(), len(images))
        rates.append(optimizer.param_groups[0]["lr"])
        scheduler.step(epoch)
    assert math.isfinite(meter.avg) and rates[1] < max(rates) and len(get_state_dict(ema)) == len(model.state_dict())
    top1, top5 = accuracy(model.eval()(torch.randn(8, 3, 32, 32)), torch.randint(0, 4, (8,)), topk=(1, 5))
    assert 0 <= top1 <= top5 == 100


def test_deit_transform():
    transform = create_transform(input_size=64, is_training=True, color_jitter=0.3, auto_augment="rand-m9-mstd0.5-inc1",
                                 interpolation="bicubic", re_prob=0.25, re_mode="pixel", re_count=1)  # fmt: skip
    image = Image.new("RGB", (90, 70), (120, 80, 40))
    assert transform(image).shape == (3, 64, 64) and not torch.equal(transform(image), transform(image))
    assert str_to_pil_interp("bicubic") == Image.BICUBIC and IMAGENET_DEFAULT_MEAN != IMAGENET_DEFAULT_STD


class MaskedAutoencoder(nn.Module):
    def __init__(self, dim=24, inner=16):
        super().__init__()
        norm = partial(nn.LayerNorm, eps=1e-6)
        self.patch_embed = PatchEmbed(32, 8, 3, dim)
        count = self.patch_embed.num_patches
        self.cls_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.pos_embed = nn.Parameter(torch.zeros(1, count + 1, dim), requires_grad=False)
        self.blocks = nn.ModuleList([Block(dim, 3, 4, qkv_bias=True, norm_layer=norm) for _ in range(2)])
        self.norm = norm(dim)
        self.decoder_embed = nn.Linear(dim, inner)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, inner))
        self.decoder_blocks = nn.ModuleList([Block(inner, 2, 4, qkv_bias=True, norm_layer=norm)])
        self.decoder_pred = nn.Linear(inner, self.patch_embed.patch_size[0] ** 2 * 3)
        weight = self.patch_embed.proj.weight.data
        nn.init.xavier_uniform_(weight.view([weight.shape[0], -1]))

    def forward(self, images):
        x = self.patch_embed(images) + self.pos_embed[:, 1:]
        order = torch.rand(x.shape[:2]).argsort(1)
        keep = order[:, : x.shape[1] // 4]
        x = x.gather(1, keep[..., None].expand(-1, -1, x.shape[2]))
        x = torch.cat([(self.cls_token + self.pos_embed[:, :1]).expand(len(x), -1, -1), x], 1)
        for block in self.blocks:
            x = block(x)
        x = self.decoder_embed(self.norm(x))
        x = torch.cat([x, self.mask_token.expand(len(x), order.shape[1] - keep.shape[1], -1)], 1)
        for block in self.decoder_blocks:
            x = block(x)
        return self.decoder_pred(x[:, 1:])


def test_mae():
    model = MaskedAutoencoder()
    groups = optim_factory.param_groups_weight_decay(model, 0.05)
    assert [group["weight_decay"] for group in groups] == [0.0, 0.05]
    optimizer = torch.optim.AdamW(groups, lr=1e-3, betas=(0.9, 0.95))
    for _ in range(2):
        loss = model(torch.randn(4, 3, 32, 32)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert torch.isfinite(loss)


class WindowBlock(nn.Module):
    def __init__(self, dim, drop_path):
        super().__init__()
        self.window = to_2tuple(4)
        self.table = nn.Parameter(torch.zeros(49, 2))
        self.norm, self.drop_path, self.mlp = nn.LayerNorm(dim), DropPath(drop_path), nn.Linear(dim, dim)
        trunc_normal_(self.table, std=0.02)

    def forward(self, x):
        return x + self.drop_path(self.mlp(self.norm(x)) + self.table.sum())


class LinearLRScheduler(Scheduler):
    def __init__(
        self, optimizer, t_initial, lr_min_rate, warmup_t=0, warmup_lr_init=0.0, t_in_epochs=True, initialize=True
    ):
        super().__init__(optimizer, param_group_field="lr", noise_range_t=None, noise_pct=0.67, noise_std=1.0,
                         noise_seed=42, initialize=initialize)  # fmt: skip
        self.t_initial, self.lr_min_rate, self.t_in_epochs = t_initial, lr_min_rate, t_in_epochs
        self.warmup_t, self.warmup_lr_init = warmup_t, warmup_lr_init
        self.warmup_steps = [(v - warmup_lr_init) / warmup_t for v in self.base_values] if warmup_t else [1]
        if warmup_t:
            super().update_groups(warmup_lr_init)

    def _get_lr(self, t):
        if t < self.warmup_t:
            return [self.warmup_lr_init + t * s for s in self.warmup_steps]
        rest, total = t - self.warmup_t, self.t_initial - self.warmup_t
        return [v - (v - v * self.lr_min_rate) * rest / total for v in self.base_values]


@pytest.mark.parametrize("kind", ["cosine", "linear"])
def test_swin(kind):
    model = nn.Sequential(nn.Conv2d(3, 16, 4, 4), nn.Flatten(2), nn.Linear(64, 16), WindowBlock(16, 0.1), nn.Flatten(1),
                          nn.LazyLinear(5))  # fmt: skip
    images = torch.randn(4, 3, 32, 32)
    model(images)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    if kind == "cosine":
        scheduler = CosineLRScheduler(optimizer, t_initial=16, lr_min=1e-5, warmup_lr_init=1e-6, warmup_t=4,
                                      cycle_limit=1, t_in_epochs=False, warmup_prefix=True)  # fmt: skip
    else:
        scheduler = LinearLRScheduler(optimizer, 20, 0.01, 4, 1e-6, t_in_epochs=False)
    criterion, rates = LabelSmoothingCrossEntropy(smoothing=0.1), []
    for update in range(20):
        loss = criterion(model(images), torch.arange(4))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        scheduler.step_update(update)
        rates.append(optimizer.param_groups[0]["lr"])
    assert rates[4] == max(rates) and rates[-1] < 2e-4 and torch.isfinite(loss)
    again = scheduler.state_dict()
    scheduler.load_state_dict(again)

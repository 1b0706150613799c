"""Parts of a client's own, in the field's arguments, for either library: `parts(library)`."""

from types import SimpleNamespace

from torch import nn


def parts(library):  # noqa: C901  (a class each)
    from importlib import import_module

    vit = import_module(f"{library.__name__}.models.vision_transformer")
    resnet = import_module(f"{library.__name__}.models.resnet")

    class Attention(vit.Attention):
        def forward(self, x, attn_mask=None, is_causal=False):
            return 2 * super().forward(x)

    class OwnAttention(nn.Module):
        def __init__(self, dim, num_heads=8, **options):
            super().__init__()
            self.proj = nn.Linear(dim, dim)

        def forward(self, x, attn_mask=None, is_causal=False):
            return self.proj(x)

    class Mlp(library.layers.Mlp):
        def forward(self, x):
            return 3 * super().forward(x)

    class OwnMlp(nn.Module):
        def __init__(self, in_features, hidden_features=None, act_layer=nn.GELU, **options):
            super().__init__()
            self.up, self.act = nn.Linear(in_features, hidden_features), act_layer()
            self.down = nn.Linear(hidden_features, in_features)

        def forward(self, x):
            return self.down(self.act(self.up(x)))

    class Block(vit.Block):
        def __init__(self, dim, *args, **options):
            super().__init__(dim, *args, **options)
            self.extra = nn.Linear(dim, dim)

        def forward(self, x, attn_mask=None, is_causal=False):
            return self.extra(super().forward(x))

    class OwnBlock(nn.Module):
        def __init__(self, dim, num_heads, mlp_ratio=4.0, norm_layer=nn.LayerNorm, act_layer=nn.GELU, mlp_layer=None,
                     **options):  # fmt: skip
            super().__init__()
            self.norm = norm_layer(dim)
            self.mlp = mlp_layer(in_features=dim, hidden_features=int(dim * mlp_ratio), act_layer=act_layer)

        def forward(self, x, attn_mask=None, is_causal=False):
            return x + self.mlp(self.norm(x))

    class BasicBlock(resnet.BasicBlock):
        def forward(self, x):
            return 2 * super().forward(x)

    class OwnResidual(nn.Module):
        expansion = 2

        def __init__(self, inplanes, planes, stride=1, downsample=None, act_layer=nn.ReLU, norm_layer=nn.BatchNorm2d,
                     **options):  # fmt: skip
            super().__init__()
            self.conv, self.norm = nn.Conv2d(inplanes, 2 * planes, 3, stride, 1), norm_layer(2 * planes)
            self.act, self.downsample = act_layer(inplace=True), downsample

        def forward(self, x):
            y = self.norm(self.conv(x))
            return self.act(y + (x if self.downsample is None else self.downsample(x)))

    return SimpleNamespace(**{name: each for name, each in locals().items() if isinstance(each, type)})


SIZE = dict(img_size=32, patch_size=8, depth=2, embed_dim=24, num_heads=3)
ROWS = {
    "block": ("vit_tiny_patch16_224", dict(SIZE, block_fn="Block")),
    "own block": ("vit_tiny_patch16_224", dict(SIZE, block_fn="OwnBlock", act_layer=nn.SiLU)),
    "attention": ("vit_tiny_patch16_224", dict(SIZE, attn_layer="Attention", init_values=1e-5)),
    "own attention": ("deit_tiny_distilled_patch16_224", dict(SIZE, attn_layer="OwnAttention")),
    "mlp": ("vit_tiny_patch16_224", dict(SIZE, mlp_layer="Mlp", qk_norm=True, qkv_bias=False)),
    "own mlp": ("vit_tiny_patch16_224", dict(SIZE, mlp_layer="OwnMlp", attn_layer="Attention", mlp_ratio=2.0)),
    "residual": ("resnet18", dict(block="BasicBlock")),
    "own residual": ("resnet18", dict(block="OwnResidual", layers=(1, 1, 1, 1))),
}
"""Names, and options among which names of parts stand for the parts."""


def build(library, row):
    name, options = ROWS[row]
    own = vars(parts(library))
    options = {key: own[each] if isinstance(each, str) else each for key, each in options.items()}
    return library.create_model(name, num_classes=7, **options)

"""DeepSeek's vision tower (arXiv:2412.10302): a plain transformer with RMS norm, gated mlps and rotary places."""

from functools import partial

from torch import Tensor, nn
from torch.nn import functional as F

from imgzoo.errors import UsageError
from imgzoo_layers.drop import drop_path_rates
from imgzoo_layers.init import init_linear_
from imgzoo_layers.mlp import GluMlp
from imgzoo_layers.norm import RmsNorm
from imgzoo_layers.padding import pad_to_multiple
from imgzoo_layers.patch_embed import PatchEmbed
from imgzoo_layers.rotary import AnyGridRotary
from imgzoo_layers.rotary_attention import RotaryAttention
from imgzoo_layers.tables import Size

from .vision_encoder import Block, Blocks, Classifier, Encoder, State, whole


class Aligner(nn.Module):
    """Squares of tokens become one, as wide as the language model: (B, h, w, C) -> (B, h/s * w/s, out).

    The map is filled up with zeros to whole squares.
    """

    def __init__(self, dim: int, out: int, side: int):
        super().__init__()
        self.side = side
        self.fc1 = nn.Linear(side * side * dim, out)
        self.act = nn.GELU()
        self.fc2 = nn.Linear(out, out)

    def forward(self, x: Tensor) -> Tensor:
        x = pad_to_multiple(x, (self.side, self.side)).permute(0, 3, 1, 2)
        x = F.unfold(x, self.side, stride=self.side).transpose(1, 2)
        return self.fc2(self.act(self.fc1(x)))


class DeepSeekEncoder(Encoder):
    """Returns (B, h/3 * w/3, out_features), the features being (B, h, w, C); out_features 0 leaves tokens as they are.

    A classifier that is grown reads the mean of what is returned.

    Args:
        downsample_ratio: side of the square of patches that becomes one token
        dynamic_img_pad: take images whose sides the patches do not divide, too
    """

    merging = "align"
    parts = Encoder.parts._replace(norm=("norm",), tail=("aligner",))
    layer_groups = {
        "stem": r"^patch_embed|rope",
        "blocks": [(r"^blocks\.(\d+)", None), (r"^norm|^aligner", (99999,))],
    }

    def __init__(self, patch_size: int = 14, in_chans: int = 3, num_classes: int = 0, global_pool: str | None = None,
                 out_features: int = 0, embed_dim: int = 1024, depth: int = 32, num_heads: int = 16,
                 mlp_ratio: float = 2.75, downsample_ratio: int = 3, rope_theta: float = 10000.0, eps: float = 1e-6,
                 dynamic_img_pad: bool = False, drop_rate: float = 0.0, proj_drop_rate: float = 0.0,
                 attn_drop_rate: float = 0.0, drop_path_rate: float = 0.0):  # fmt: skip
        super().__init__(num_classes, in_chans)
        self.dynamic_img_pad = dynamic_img_pad
        self.patch_size, self.embed_dim, dim = (patch_size, patch_size), embed_dim, embed_dim
        norm = partial(RmsNorm, eps=eps)
        self.patch_embed = PatchEmbed(self.patch_size, in_chans, dim)
        self.rope = AnyGridRotary(dim // num_heads, rope_theta)
        self.blocks = Blocks(*(
            Block(dim, RotaryAttention(dim, num_heads, attn_drop=attn_drop_rate, proj_drop=proj_drop_rate, prefix=0,
                                       halves=True),
                  GluMlp(dim, 2 * int(dim * mlp_ratio), bias=False, drop=proj_drop_rate), norm, drop)
            for drop in drop_path_rates(drop_path_rate, depth)[0]
        ))  # fmt: skip
        self.norm = norm(dim)
        self.aligner = Aligner(dim, out_features, downsample_ratio) if out_features else nn.Identity()
        self.add_head(out_features or dim, global_pool, drop_rate)
        init_linear_(self)

    def grid_of(self, x: Tensor) -> Size:
        if self.dynamic_img_pad:
            return -(x.shape[-2] // -self.patch_size[0]), -(x.shape[-1] // -self.patch_size[1])
        return x.shape[-2] // self.patch_size[0], x.shape[-1] // self.patch_size[1]

    def embed(self, x: Tensor) -> State:
        if self.dynamic_img_pad:
            x = F.pad(x, [0, -x.shape[-1] % self.patch_size[1], 0, -x.shape[-2] % self.patch_size[0]])
        grid = self.grid_of(x)
        return self.patch_embed(whole(x, self.patch_size)), self.rope(grid), grid

    def finished(self, tokens: Tensor) -> Tensor:
        return self.norm(tokens)

    def merged(self, x: Tensor) -> Tensor:
        return self.aligner(x)


class DeepSeekViT(Classifier):
    """The mean of the tokens, aligned where `merges`, through an RMS norm without weights to a classifier.

    Args:
        downsample_ratio: side of the square of patches that becomes one token
        dynamic_img_pad: take images whose sides the patches do not divide, too
    """

    parts = Classifier.parts._replace(norm=("encoder.norm",), tail=("encoder.aligner", "norm"))
    layer_groups = {
        "stem": r"^encoder\.(?:patch_embed|rope)",
        "blocks": [(r"^encoder\.blocks\.(\d+)", None), (r"^encoder\.(?:norm|aligner)|^norm|^head", (99999,))],
    }

    def __init__(self, patch_size: int = 14, in_chans: int = 3, num_classes: int = 1000, global_pool: str = "avg",
                 merges: bool = False, out_features: int = 0, embed_dim: int = 1024, depth: int = 32,
                 num_heads: int = 16, mlp_ratio: float = 2.75, downsample_ratio: int = 3, rope_theta: float = 10000.0,
                 eps: float = 1e-6, dynamic_img_pad: bool = False, drop_rate: float = 0.0, proj_drop_rate: float = 0.0,
                 attn_drop_rate: float = 0.0, drop_path_rate: float = 0.0):  # fmt: skip
        if merges and not out_features:
            raise UsageError("merges needs out_features, the channels of merged tokens")
        out = out_features if merges else 0
        encoder = DeepSeekEncoder(patch_size, in_chans, 0, "", out, embed_dim, depth, num_heads, mlp_ratio,
                                  downsample_ratio, rope_theta, eps, dynamic_img_pad, 0.0, proj_drop_rate,
                                  attn_drop_rate, drop_path_rate)  # fmt: skip
        super().__init__(encoder, RmsNorm(encoder.head_hidden_size, eps=eps, affine=False), merges, num_classes,
                         global_pool, drop_rate)  # fmt: skip
        init_linear_(self)

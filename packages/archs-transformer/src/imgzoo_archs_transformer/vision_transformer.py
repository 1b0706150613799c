"""Vision Transformer (arXiv:2010.11929) and what grew from it: CLIP, DINOv2, SigLIP, AIMv2, BEiT-3, ViT-22B."""

from functools import partial
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from imgzoo.model import TokenModel
from imgzoo_layers.act import create_act
from imgzoo_layers.attention import Attending, Attention, DiffAttending, DiffAttention, head_width, layer_scale_of
from imgzoo_layers.attention_pool import AttentionPoolLatent, AttentionPoolPrr
from imgzoo_layers.drop import PatchDropout, drop_path_of, drop_path_rates
from imgzoo_layers.init import trunc_normal_
from imgzoo_layers.mlp import MLP
from imgzoo_layers.norm import Norm, RmsNorm, get_norm
from imgzoo_layers.patch_embed import PatchEmbed
from imgzoo_layers.position import resize_grid
from imgzoo_layers.tables import GridTable, PatchKernel
from imgzoo_layers.transformer import Block


class Sizes(NamedTuple):
    """What a block needs to know that makes attention and mlp in one."""

    heads: int
    hidden: int
    qkv_bias: bool
    qk_norm: bool
    proj_bias: bool
    attn_drop: float
    drop: float
    act: str


class ResPostBlock(nn.Module):
    """Attention and mlp normalized after, inside the residual (arXiv:2111.09883)."""

    def __init__(self, dim: int, attn: nn.Module, mlp: nn.Module, norm: Norm, layer_scale: float | None,
                 drop_path: float):  # fmt: skip
        super().__init__()
        self.attn = attn
        self.norm1 = norm(dim)
        self.drop_path1 = drop_path_of(drop_path)
        self.mlp = mlp
        self.norm2 = norm(dim)
        self.drop_path2 = drop_path_of(drop_path)
        if layer_scale is not None:
            for each in (self.norm1, self.norm2):
                nn.init.constant_(cast(Tensor, each.weight), layer_scale)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.drop_path1(self.norm1(self.attn(x)))
        return x + self.drop_path2(self.norm2(self.mlp(x)))


class Branch(nn.Sequential):
    """One normalized residual branch of a parallel block."""

    def __init__(self, key: str, module: nn.Module, dim: int, norm: Norm, layer_scale: float | None,
                 drop_path: float):  # fmt: skip
        super().__init__()
        self.norm = norm(dim)
        self.add_module(key, module)
        self.ls = layer_scale_of(dim, layer_scale)
        self.drop_path = drop_path_of(drop_path)


class ParallelThingsBlock(nn.Module):
    """Two attentions side by side, then two mlps side by side (arXiv:2203.09795, section 3)."""

    def __init__(self, dim: int, attns: list[nn.Module], mlps: list[nn.Module], norm: Norm, layer_scale: float | None,
                 drop_path: float):  # fmt: skip
        super().__init__()
        self.attns = nn.ModuleList(Branch("attn", attn, dim, norm, layer_scale, drop_path) for attn in attns)
        self.ffns = nn.ModuleList(Branch("mlp", mlp, dim, norm, layer_scale, drop_path) for mlp in mlps)

    def forward(self, x: Tensor) -> Tensor:
        x = x + torch.stack([attn(x) for attn in self.attns]).sum(0)
        return x + torch.stack([ffn(x) for ffn in self.ffns]).sum(0)


class ParallelScalingBlock(Attending):
    """Attention and mlp side by side behind one projection (ViT-22B, arXiv:2302.05442, section 2)."""

    def __init__(self, dim: int, sizes: Sizes, norm: Norm, layer_scale: float | None, drop_path: float):
        super().__init__(sizes.heads, head_width(dim, sizes.heads), sizes.attn_drop)
        self.hidden = sizes.hidden
        self.mlp_bias = None if sizes.qkv_bias else nn.Parameter(torch.zeros(self.hidden))
        self.in_norm = norm(dim)
        self.in_proj = nn.Linear(dim, self.hidden + 3 * dim, bias=sizes.qkv_bias)
        self.q_norm = norm(self.head_dim) if sizes.qk_norm else nn.Identity()
        self.k_norm = norm(self.head_dim) if sizes.qk_norm else nn.Identity()
        self.mlp_drop = nn.Dropout(sizes.drop)
        self.mlp_act = create_act(sizes.act)
        self.attn_out_proj = nn.Linear(dim, dim, bias=sizes.proj_bias)
        self.mlp_out_proj = nn.Linear(self.hidden, dim, bias=sizes.proj_bias)
        self.ls = layer_scale_of(dim, layer_scale)
        self.drop_path = drop_path_of(drop_path)

    def forward(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        y = self.in_proj(self.in_norm(x))
        h, qkv = y[..., : self.hidden], y[..., self.hidden :]
        if self.mlp_bias is not None:
            h = h + self.mlp_bias
        q, k, v = qkv.unflatten(2, (3, self.num_heads, self.head_dim)).permute(2, 0, 3, 1, 4).unbind(0)
        a = self.attend(self.q_norm(q), self.k_norm(k), v, bias)
        y = self.attn_out_proj(a.transpose(1, 2).flatten(2)) + self.mlp_out_proj(self.mlp_drop(self.mlp_act(h)))
        return x + self.drop_path(self.ls(y))


class DiffParallelScalingBlock(DiffAttending):
    """The parallel block with differential attention and one output projection (arXiv:2410.05258)."""

    def __init__(self, dim: int, sizes: Sizes, norm: Norm, layer_scale: float | None, drop_path: float, depth: int):
        super().__init__(sizes.heads, dim // sizes.heads // 2, depth, sizes.attn_drop)
        self.hidden = sizes.hidden
        self.in_norm = norm(dim)
        self.in_proj = nn.Linear(dim, self.hidden + 3 * dim, bias=sizes.qkv_bias)
        self.q_norm = norm(self.head_dim) if sizes.qk_norm else nn.Identity()
        self.k_norm = norm(self.head_dim) if sizes.qk_norm else nn.Identity()
        self.sub_norm = RmsNorm(2 * self.head_dim, eps=1e-5)
        self.mlp_drop = nn.Dropout(sizes.drop)
        self.mlp_act = create_act(sizes.act)
        self.out_proj = nn.Linear(dim + self.hidden, dim, bias=sizes.proj_bias)
        self.ls = layer_scale_of(dim, layer_scale)
        self.drop_path = drop_path_of(drop_path)

    def forward(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        y = self.in_proj(self.in_norm(x))
        h, qkv = y[..., : self.hidden], y[..., self.hidden :]
        q, k, v = qkv.chunk(3, dim=2)
        a = self.differ(
            self.q_norm(q.unflatten(2, (self.num_heads, 2, self.head_dim))),
            self.k_norm(k.unflatten(2, (self.num_heads, 2, self.head_dim))),
            v.unflatten(2, (self.num_heads, 2 * self.head_dim)),
            bias,
        )
        a = (self.sub_norm(a) * (1 - self.lambda_init)).flatten(2)
        y = self.out_proj(torch.cat([a, self.mlp_drop(self.mlp_act(h))], dim=2))
        return x + self.drop_path(self.ls(y))


BLOCK = {"block": Block, "res_post": ResPostBlock}


class VisionTransformer(TokenModel):
    """Args:
    proj_bias: biases of the projections of attention and mlp
    pool_include_prefix: pool class and register tokens, too
    dynamic_img_pad: take images whose sides the patches do not divide, too
    embed_norm: a norm behind the patch embedding, by name; true for that of the blocks
    block: "block", "res_post", "parallel_things", "parallel_scaling" or "diff_parallel_scaling"
    diff_attn: attention as the difference of two maps
    """

    layer_groups = {
        "stem": r"^cls_token|reg_token|pos_embed|patch_embed|norm_pre",
        "blocks": [(r"^blocks\.(\d+)", None), (r"^norm", (99999,))],
    }
    no_decay = ("pos_embed", "cls_token", "reg_token", "dist_token")
    pools = (*TokenModel.pools, "map", "prr")
    tables = {"pos_embed": GridTable(), "patch_embed.proj.weight": PatchKernel()}

    def __init__(self, img_size: int | tuple[int, int] = 224, patch_size: int | tuple[int, int] = 16,
                 in_chans: int = 3, num_classes: int = 1000, global_pool: str = "token", embed_dim: int = 768,
                 depth: int = 12, num_heads: int = 12, mlp_ratio: float = 4.0, qkv_bias: bool = True,
                 qk_norm: bool = False, scale_attn_norm: bool = False, scale_mlp_norm: bool = False,
                 proj_bias: bool = True, layer_scale: float | None = None, class_token: bool = True,
                 reg_tokens: int = 0, no_embed_class: bool = False, pre_norm: bool = False, final_norm: bool = True,
                 fc_norm: bool | None = None, pool_include_prefix: bool = False, dynamic_img_size: bool = False,
                 dynamic_img_pad: bool = False, abs_pos: bool = True, embed_norm: bool | str = False,
                 norm: str = "layernorm", eps: float = 1e-6, act: str = "gelu", mlp: str = "mlp",
                 block: str = "block", diff_attn: bool = False,
                 drop_rate: float = 0.0, pos_drop_rate: float = 0.0, patch_drop_rate: float = 0.0,
                 proj_drop_rate: float = 0.0, attn_drop_rate: float = 0.0, drop_path_rate: float = 0.0):  # fmt: skip
        super().__init__(num_classes, in_chans, img_size, patch_size, embed_dim, depth, global_pool, class_token,
                         self._num_prefix(class_token, reg_tokens), dynamic_img_size, dynamic_img_pad,
                         pool_include_prefix)  # fmt: skip
        self._pool_options = (num_heads, mlp_ratio, norm, eps, act)
        make_norm, dim = get_norm(norm, eps=eps), embed_dim
        self.no_embed_class, self.num_reg_tokens = no_embed_class, reg_tokens
        table = self.grid[0] * self.grid[1] + (0 if no_embed_class else self.num_prefix_tokens)
        self.cls_token = nn.Parameter(torch.empty(1, 1, dim)) if class_token else None
        self.reg_token = nn.Parameter(torch.empty(1, reg_tokens, dim)) if reg_tokens else None
        self.pos_embed = nn.Parameter(torch.empty(1, table, dim)) if abs_pos else None
        self._add_tokens(dim)
        of_patches = make_norm if embed_norm else None
        if embed_norm and embed_norm is not True:
            of_patches = get_norm(embed_norm)
        self.patch_embed = self.make_patch_embed(in_chans, of_patches, not pre_norm)
        self.pos_drop = nn.Dropout(pos_drop_rate)
        self.patch_drop = PatchDropout(patch_drop_rate, self.num_prefix_tokens) if patch_drop_rate else nn.Identity()
        self.norm_pre = make_norm(dim) if pre_norm else nn.Identity()
        sizes = Sizes(
            num_heads, int(dim * mlp_ratio), qkv_bias, qk_norm, proj_bias, attn_drop_rate, proj_drop_rate, act
        )
        make_mlp = partial(MLP[mlp], dim, sizes.hidden, act=act, bias=proj_bias, drop=proj_drop_rate,
                           norm=make_norm if scale_mlp_norm else None)  # fmt: skip
        make_attn = partial(DiffAttention if diff_attn else Attention, dim, num_heads, qkv_bias, qk_norm,
                            scale_attn_norm, proj_bias, attn_drop_rate, proj_drop_rate, make_norm)  # fmt: skip
        blocks: list[nn.Module] = []
        for i, drop in enumerate(drop_path_rates(drop_path_rate, depth)[0]):
            rest = (make_norm, layer_scale, drop)
            if block == "parallel_scaling":
                blocks.append(ParallelScalingBlock(dim, sizes, *rest))
            elif block == "diff_parallel_scaling":
                blocks.append(DiffParallelScalingBlock(dim, sizes, *rest, depth=i))
            elif block == "parallel_things":
                blocks.append(ParallelThingsBlock(dim, [make_attn(), make_attn()], [make_mlp(), make_mlp()], *rest))
            else:
                attn = make_attn(depth=i) if diff_attn else make_attn()
                blocks.append(BLOCK[block](dim, attn, make_mlp(), *rest))
        self.blocks = nn.Sequential(*blocks)
        after_pool = global_pool in ("avg", "max", "avgmax") if fc_norm is None else fc_norm
        self.norm = make_norm(dim) if final_norm and not after_pool else nn.Identity()
        self.add_head(drop_rate, make_norm(dim) if final_norm and after_pool else None)
        self.init_weights()

    def _num_prefix(self, class_token: bool, reg_tokens: int) -> int:
        return int(class_token) + reg_tokens

    def make_patch_embed(self, in_chans: int, norm: Norm | None, bias: bool) -> nn.Module:
        return PatchEmbed(self.patch_size, in_chans, self.embed_dim, norm, bias)

    def _add_tokens(self, dim: int) -> None:
        """Further tokens of a subclass, registered where their keys belong."""

    def init_weights(self) -> None:
        """Tables and linear weights truncated normal of std 0.02, tokens nearly zero, as the reference does."""
        if self.pos_embed is not None:
            trunc_normal_(self.pos_embed, std=0.02)
        for token in (self.cls_token, self.reg_token):
            if token is not None:
                nn.init.normal_(token, std=1e-6)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def embed(self, x: Tensor) -> Tensor:  # (B, 3, H, W) -> (B, prefix + N, C)
        grid = self.grid_of(x.shape[-2], x.shape[-1])
        x = self.add_position(self.patch_embed(self.sized_input(x)), grid)
        return self.norm_pre(self.patch_drop(self.pos_drop(x)))

    def add_position(self, x: Tensor, grid: tuple[int, int]) -> Tensor:
        table = self.pos_embed
        if table is None:
            return torch.cat(self.prefix(x.shape[0]) + [x], dim=1)
        if self.dynamic_img_size:
            table = self.resized_table(table, grid)
        if self.no_embed_class:
            return torch.cat(self.prefix(x.shape[0]) + [x + table], dim=1)
        return torch.cat(self.prefix(x.shape[0]) + [x], dim=1) + table

    def resized_table(self, table: Tensor, grid: tuple[int, int]) -> Tensor:
        return resize_grid(table, grid, self.grid, 0 if self.no_embed_class else self.num_prefix_tokens)

    def forward_features(self, x: Tensor) -> Tensor:
        return self.norm(self.blocks(self.embed(x)))

    def make_attn_pool(self, kind: str) -> nn.Module | None:
        heads, mlp_ratio, norm, eps, act = self._pool_options
        if kind == "map":
            return AttentionPoolLatent(self.embed_dim, heads, mlp_ratio, norm=get_norm(norm, eps=eps), act=act)
        return AttentionPoolPrr(self.embed_dim, heads) if kind == "prr" else None

"""Attention between the positions of maps, against loops over positions written from the papers."""

import math

import pytest
import torch

from imgzoo_layers.attention_pool import AttentionPool2d
from imgzoo_layers.bat import BilinearAttentionTransform
from imgzoo_layers.bottleneck_attention import BottleneckAttention
from imgzoo_layers.halo import HaloAttention
from imgzoo_layers.lambda_ import GlobalLambdaLayer, LambdaLayer
from imgzoo_layers.map_attention import Attention2d, MultiQueryAttention, MultiQueryAttention2d
from imgzoo_layers.relative_logits import RelativeLogits

BATCH, DIM = 2, 16


def filled(layer):
    """Every parameter and statistic away from its initial value."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for tensor in [*layer.parameters(), *layer.buffers()]:
            if tensor.is_floating_point():
                tensor.copy_(torch.rand(tensor.shape, generator=generator) - 0.3)
        for module in layer.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.running_var.uniform_(0.5, 1.5, generator=generator)
    return layer.double().eval()


def image(height, width):
    return torch.randn(BATCH, DIM, height, width, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def attend(query, keys, values, bias, scale):
    weights = torch.softmax(torch.stack([query @ key * scale + b for key, b in zip(keys, bias)]), 0)
    return sum(weight * value for weight, value in zip(weights, values))


def relative(layer, query, rows, columns):
    """What `query` adds for a key so many rows and columns away."""
    height, width = layer.pos_embed.grid
    return (
        query @ layer.pos_embed.height_rel[rows + height - 1] + query @ layer.pos_embed.width_rel[columns + width - 1]
    )


@pytest.mark.parametrize("head_dim", [None, 2])
def test_bottleneck_attention(head_dim):
    height, width, heads = 3, 5, 4
    layer = filled(BottleneckAttention(DIM, (height, width), heads=heads, head_dim=head_dim))
    x = image(height, width)
    qk, v = layer.head_dim, layer.dim_v
    q, k, values = layer.qkv(x).split([heads * qk, heads * qk, heads * v], 1)
    expected = torch.zeros_like(x)
    places = [(i, j) for i in range(height) for j in range(width)]
    for b in range(BATCH):
        for h in range(heads):
            for i, j in places:
                query = q[b, h * qk : (h + 1) * qk, i, j]
                keys = [k[b, h * qk : (h + 1) * qk, m, n] for m, n in places]
                seen = [values[b, h * v : (h + 1) * v, m, n] for m, n in places]
                bias = [relative(layer, query, m - i, n - j) for m, n in places]
                expected[b, h * v : (h + 1) * v, i, j] = attend(query, keys, seen, bias, qk**-0.5)
    torch.testing.assert_close(layer(x), expected)


def test_bottleneck_attention_refuses_other_sizes_until_told():
    layer = BottleneckAttention(DIM, (4, 4))
    with pytest.raises(ValueError, match="set_input_size"):
        layer(torch.randn(1, DIM, 6, 6))
    layer = BottleneckAttention(DIM, (6, 6))
    assert layer(torch.randn(1, DIM, 6, 6)).shape == (1, DIM, 6, 6)


@pytest.mark.parametrize("size, block, stride", [((6, 6), 3, 1), ((8, 4), 4, 2), ((7, 5), 3, 1), ((6, 6), 3, 2)])
def test_halo_attention(size, block, stride):
    heads, halo = 2, 1
    layer = filled(HaloAttention(DIM, stride=stride, heads=heads, block=block, halo=halo))
    x, (height, width) = image(*size), size
    qk, v = layer.head_dim, layer.dim_v
    step = stride if block % stride == 0 else 1
    q, kv = layer.q(x), layer.kv(x).unflatten(1, (heads, qk + v))
    expected = torch.zeros(BATCH, DIM, -(-height // step), -(-width // step), dtype=x.dtype)
    around = [(m, n) for m in range(block + 2 * halo) for n in range(block + 2 * halo)]
    for b in range(BATCH):
        for h in range(heads):
            for i in range(expected.shape[2]):
                for j in range(expected.shape[3]):
                    top, left = i * step // block * block, j * step // block * block  # of the block
                    query = q[b, h * qk : (h + 1) * qk, i, j]
                    keys, seen, bias = [], [], []
                    for m, n in around:
                        y, z = top + m - halo, left + n - halo
                        inside = 0 <= y < height and 0 <= z < width
                        both = kv[b, h, :, y, z] if inside else torch.zeros(qk + v, dtype=x.dtype)
                        keys.append(both[:qk]), seen.append(both[qk:])
                        bias.append(relative(layer, query, m - (i - top // step), n - (j - left // step)))
                    expected[b, h * v : (h + 1) * v, i, j] = attend(query, keys, seen, bias, qk**-0.5)
    if step != stride:
        expected = torch.nn.functional.avg_pool2d(expected, 2)
    torch.testing.assert_close(layer(x), expected)


@pytest.mark.parametrize("everywhere", [False, True])
def test_lambda_layers(everywhere):
    height, width, heads, r = 4, 3, 2, 3
    make = GlobalLambdaLayer if everywhere else LambdaLayer
    options = {} if everywhere else {"r": r}
    layer = filled(make(DIM, grid=(height, width), heads=heads, head_dim=4, **options))
    x = image(height, width)
    d, v = 4, DIM // heads
    q, k, values = layer.qkv(x).split([heads * d, d, v], 1)
    q, values = layer.norm_q(q), layer.norm_v(values)
    expected = torch.zeros_like(x)
    places = [(i, j) for i in range(height) for j in range(width)]
    for b in range(BATCH):
        weights = torch.softmax(torch.stack([k[b, :, m, n] for m, n in places]), 0)
        content = sum(torch.outer(w, values[b, :, m, n]) for w, (m, n) in zip(weights, places))
        for i, j in places:
            place = torch.zeros(d, v, dtype=x.dtype)
            for m, n in places:
                if everywhere:
                    place += torch.outer(layer.pos_emb[m - i + height - 1, n - j + width - 1], values[b, :, m, n])
                elif abs(m - i) <= r // 2 and abs(n - j) <= r // 2:
                    kernel = layer.conv_lambda.weight[:, 0, m - i + r // 2, n - j + r // 2, 0]
                    place += torch.outer(kernel, values[b, :, m, n])
            if not everywhere:
                place += layer.conv_lambda.bias[:, None]
            for h in range(heads):
                expected[b, h * v : (h + 1) * v, i, j] = q[b, h * d : (h + 1) * d, i, j] @ (content + place)
    torch.testing.assert_close(layer(x), expected)


def test_strided_layers_pool_what_comes_out():
    x = image(4, 4)
    for make, options in (
        (BottleneckAttention, {"grid": (4, 4)}),
        (LambdaLayer, {}),
        (GlobalLambdaLayer, {"grid": (4, 4)}),
    ):
        layer = filled(make(DIM, stride=2, **options))
        pooled = layer(x)
        layer.pool = torch.nn.Identity()
        torch.testing.assert_close(pooled, torch.nn.functional.avg_pool2d(layer(x), 2))


@pytest.mark.parametrize("size", [(4, 6), (5, 3)])
def test_bilinear_attention_transform(size):
    n, groups, (height, width) = 2, 2, size
    layer = filled(BilinearAttentionTransform(DIM, blocks=n, groups=groups))
    x = image(height, width)
    y = layer.conv1(x)
    high, wide = math.ceil(height / n), math.ceil(width / n)
    p = layer.conv_p(torch.nn.functional.adaptive_max_pool2d(y, (n, 1))).reshape(BATCH, groups, n, n).sigmoid()
    q = layer.conv_q(torch.nn.functional.adaptive_max_pool2d(y, (1, n))).reshape(BATCH, groups, n, n).sigmoid()
    mixed = torch.zeros_like(x)
    for b in range(BATCH):
        for c in range(DIM):
            g = c // (DIM // groups)
            left = torch.kron(p[b, g] / p[b, g].sum(1, keepdim=True), torch.eye(high, dtype=x.dtype))
            right = torch.kron(q[b, g] / q[b, g].sum(0, keepdim=True), torch.eye(wide, dtype=x.dtype))
            whole = torch.zeros(n * high, n * wide, dtype=x.dtype)
            whole[:height, :width] = x[b, c]
            mixed[b, c] = (left @ whole @ right)[:height, :width]
    torch.testing.assert_close(layer(x), layer.conv2(mixed))


def test_attention_pool_of_maps():
    heads, head_dim, classes = 2, 8, 3
    layer = filled(AttentionPool2d(DIM, classes, (3, 2), head_dim=head_dim))
    x = image(3, 2)
    tokens = x.flatten(2).transpose(1, 2)
    tokens = torch.cat([tokens.mean(1, keepdim=True), tokens], 1) + layer.pos_embed
    q, k, v = layer.q(tokens[:, :1]), layer.k(tokens), layer.v(tokens)
    pooled = torch.zeros(BATCH, DIM, dtype=x.dtype)
    for b in range(BATCH):
        for h in range(heads):
            part = slice(h * head_dim, (h + 1) * head_dim)
            pooled[b, part] = attend(q[b, 0, part], k[b, :, part], v[b, :, part], torch.zeros(7), head_dim**-0.5)
    torch.testing.assert_close(layer(x, pre_logits=True), pooled)
    torch.testing.assert_close(layer(x), layer.proj(pooled))
    assert layer(image(5, 4)).shape == (BATCH, classes)
    layer.pool = False
    assert layer(x).shape == (BATCH, classes, 3, 2)


@pytest.mark.parametrize("head_first", [False, True])
def test_attention_by_pointwise_convolutions(head_first):
    heads, out = 2, 12

    class Near(torch.nn.Module):
        def __init__(self, heads):
            super().__init__()
            self.table = torch.nn.Parameter(torch.zeros(1, heads, 6, 6))

        def forward(self):
            return self.table

    layer = filled(Attention2d(DIM, out, heads, head_first=head_first, rel_pos=Near))
    x, bias = image(3, 2), torch.randn(1, 1, 6, 6, dtype=torch.float64)
    channels = layer.qkv(x).flatten(2)  # (B, 3C, N)
    split = channels.unflatten(1, (heads, 3, -1) if head_first else (3, heads, -1))
    found = torch.zeros(BATCH, DIM, 6, dtype=x.dtype)
    for b in range(BATCH):
        for h in range(heads):
            q, k, v = (split[b, h, i].T if head_first else split[b, i, h].T for i in range(3))
            added = layer.rel_pos.table[0, h] + bias[0, 0]
            for n in range(6):
                found[b, h * 8 : h * 8 + 8, n] = attend(q[n], k, v, added[n], 8**-0.5)
    torch.testing.assert_close(layer(x, bias), layer.proj(found.unflatten(2, (3, 2))))
    assert Attention2d(DIM, 32, 2, expand_first=True).qkv.out_channels == 96
    with pytest.raises(ValueError, match="does not divide into 3 heads"):
        Attention2d(DIM, heads=3)


@pytest.mark.parametrize("elsewhere", [False, True])
def test_all_heads_share_one_of_keys_and_values(elsewhere):
    layer = filled(MultiQueryAttention(DIM, 12, heads=2, key_dim=4, value_dim=6))
    x, memory = image(3, 2), image(2, 4) if elsewhere else None
    tokens = x.flatten(2).transpose(1, 2)
    asked = tokens if memory is None else memory.flatten(2).transpose(1, 2)
    keys, values = asked @ layer.key_proj, asked @ layer.value_proj
    expected = torch.zeros(BATCH, 12, 6, dtype=x.dtype)
    for b in range(BATCH):
        for n in range(6):
            for h in range(2):
                query = layer.query_proj[h] @ tokens[b, n]
                seen = attend(query, keys[b], values[b], torch.zeros(asked.shape[1]), 0.5)
                expected[b, :, n] += layer.out_proj[:, h] @ seen
    torch.testing.assert_close(layer(x, memory), expected.unflatten(2, (3, 2)))


@pytest.mark.parametrize("stride", [(1, 1), (2, 3)])
def test_queries_and_keys_of_subsampled_maps(stride):
    layer = filled(MultiQueryAttention2d(DIM, 12, heads=2, key_dim=4, value_dim=6, query_stride=stride, kv_stride=2))
    x, height, width = image(4, 6), 4 // stride[0], 6 // stride[1]
    pooled = x.unflatten(2, (height, -1)).unflatten(4, (width, -1)).mean((3, 5))
    queries = layer.query.proj(pooled if stride == (1, 1) else layer.query.norm(pooled)).flatten(2)
    keys, values = (
        part.proj(part.norm(torch.nn.functional.conv2d(x, part.down_conv.weight, None, 2, 1, 1, DIM))).flatten(2).mT
        for part in (layer.key, layer.value)
    )
    bias = torch.randn(1, 2, height * width, 6, dtype=torch.float64)
    found = torch.zeros(BATCH, 12, height * width, dtype=x.dtype)
    for b in range(BATCH):
        for h in range(2):
            for n in range(height * width):
                seen = attend(queries[b, 4 * h : 4 * h + 4, n], keys[b], values[b], bias[0, h, n], 0.5)
                found[b, 6 * h : 6 * h + 6, n] = seen
    found = found.unflatten(2, (height, width))
    if stride != (1, 1):
        found = torch.nn.functional.interpolate(found, (4, 6), mode="bilinear")
    torch.testing.assert_close(layer(x, bias), layer.output.proj(found))
    torch.testing.assert_close(torch.jit.script(layer)(x), layer(x))
    assert layer(image(5, 7)).shape == (BATCH, 12, 5, 7)


def test_logits_are_read_at_the_distance():
    layer = filled(RelativeLogits((3, 4), 5))
    q = torch.randn(2, 2, 3, 5, dtype=torch.float64)
    logits = layer(q)
    assert logits.shape == (2, 2, 3, 3, 4)
    expected = q[1, 1, 2] @ (layer.height_rel[0 - 1 + 2] + layer.width_rel[3 - 2 + 3])
    torch.testing.assert_close(logits[1, 1, 2, 0, 3], expected)

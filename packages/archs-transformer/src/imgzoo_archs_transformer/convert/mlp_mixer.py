"""MLP-Mixer's JAX arrays, and ResMLP in the names of its authors."""

from typing import Any

from imgzoo.loading.convert import Format, State

from .vision_transformer import from_kernel

JAX = [
    (r"^stem/", "stem.proj."),
    (r"^MixerBlock_(\d+)/", r"blocks.\1."),
    (r"LayerNorm_0/", "norm1."),
    (r"LayerNorm_1/", "norm2."),
    (r"(token|channel)_mixing/", r"mlp_\1s."),
    (r"Dense_0/", "fc1."),
    (r"Dense_1/", "fc2."),
    (r"^pre_head_layer_norm/", "norm."),
    (r"^head/", "head."),
    (r"scale$", "weight"),
]
RESMLP = [
    (r"^patch_embed\.", "stem."),
    (r"\.attn\.", ".linear_tokens."),
    (r"\.mlp\.", ".mlp_channels."),
    (r"\.gamma_([12])$", r".ls\1"),
]


def from_jax(state: State, model: Any) -> State:
    """Kernels come input first: (in, out), (h, w, in, out)."""
    return dict(from_kernel(key, value) for key, value in state.items())


def spread(state: State, model: Any) -> State:
    """Scales and shifts (C) become (1, 1, C)."""
    affine = (".alpha", ".beta")
    return {key: value.reshape(1, 1, -1) if key.endswith(affine) else value for key, value in state.items()}


FORMATS = [
    Format("jax", r"^MixerBlock_0/", JAX, from_jax),
    Format("original", r"\.attn\.weight$|\.gamma_1$", RESMLP, spread),
]

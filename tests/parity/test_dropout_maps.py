"""Rates inside networks of maps beside the peer's: equal seeds and weights give equal outputs in training."""

import pytest
import torch

import kit

pytestmark = pytest.mark.parity

RATES = [
    ("densenet121", {"proj_drop_rate": 0.2}),
    ("rdnet_tiny", {"proj_drop_rate": 0.2, "drop_path_rate": 0.2}),
    ("test_byobnet", {"drop_block_rate": 0.2}),
    ("repvgg_a0", {"drop_block_rate": 0.2}),
    ("gernet_s", {"drop_block_rate": 0.2}),
    ("mobilevit_xxs", {"drop_block_rate": 0.2}),
    ("resnest14d", {"drop_block_rate": 0.2}),
    ("skresnet18", {"drop_block_rate": 0.2}),
    ("cspnext_tiny", {"drop_path_rate": 0.2}),
    ("cpubone_b0_bfrobust", {"proj_drop_rate": 0.2}),
    ("fastvit_sa12", {"proj_drop_rate": 0.2, "drop_path_rate": 0.2}),
    ("focalnet_tiny_srf", {"proj_drop_rate": 0.2}),
    ("lowformer_b0", {"proj_drop_rate": 0.2, "drop_path_rate": 0.2}),
    ("caformer_s18", {"proj_drop_rate": 0.2}),
    ("sequencer2d_s", {"proj_drop_rate": 0.2, "drop_path_rate": 0.2}),
    ("swiftformer_xs", {"proj_drop_rate": 0.2}),
    ("efficientformer_l1", {"proj_drop_rate": 0.2}),
    ("efficientvim_m1", {"drop_path_rate": 0.2}),
    ("efficientvit_m1", {"drop_rate": 0.2}),
    ("levit_128s", {"drop_rate": 0.2}),
    ("gemma4_vit_167m", {"proj_drop_rate": 0.2}),
]


@pytest.mark.parametrize(("name", "rates"), RATES, ids=[name for name, _ in RATES])
def test_rates_drop_the_same(name, rates):
    peer, ours = kit.pair(name, **rates)
    x, outputs = kit.image(kit.input_sizes(name)[0] if ours.pretrained_cfg["fixed_input_size"] else 128), []
    for model in (peer.train(), ours.train()):
        torch.manual_seed(1)
        with torch.no_grad():
            outputs.append(model(x))
    theirs, mine = ([y] if isinstance(y, torch.Tensor) else list(y) for y in outputs)
    assert kit.gap(mine, theirs) <= kit.TOLERANCE

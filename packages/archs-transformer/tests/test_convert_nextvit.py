"""Next-ViT's original checkpoints, all blocks in one row, load and compute the same."""

import torch

import imgzoo

SMALL = dict(depths=(1, 2, 6, 1), dims=(32, 32, 64, 64), dims_attend=(32, 128, 128, 128), head_dim=16, num_classes=5)
FIRST = (0, 1, 3, 9)  # number of the first block of each stage


def test_original_nextvit(tmp_path):
    torch.manual_seed(0)
    model = imgzoo.create_model("nextvit_small", **SMALL).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    state = {}
    for key, value in model.state_dict().items():
        parts = key.split(".")
        if parts[0] == "stages":
            parts[:4] = ["features", str(FIRST[int(parts[1])] + int(parts[3]))]
        name = ".".join(parts).replace("mlp.fc", "mlp.conv").replace("head.fc.", "proj_head.0.")
        state[name] = value
    assert "features.9.e_mhsa.q.weight" in state and "features.0.mlp.conv1.weight" in state
    torch.save({"model": state}, tmp_path / "original.pth")
    again = imgzoo.create_model("nextvit_small", pretrained=tmp_path / "original.pth", **SMALL).eval()
    assert again.load_report.format == "original"
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(again(x), model(x))

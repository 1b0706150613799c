"""Networks on a GPU answer what they answer on the CPU, in every precision and layout, compiled and captured."""

import copy

import pytest
import torch

import imgzoo

from small import QUICK, SMALLEST, image
from structures import REDUCED

NAMES = pytest.mark.parametrize("name", SMALLEST.values(), ids=SMALLEST)


@torch.no_grad()
def made(name):
    """A network of a family with every weight drawn: heads that begin at zero would answer zero everywhere."""
    torch.manual_seed(0)
    model = imgzoo.create_model(name, **REDUCED.get(name, {}) | QUICK[name]).eval()
    for parameter in model.parameters():
        parameter.add_(torch.randn(parameter.shape) * 0.02)
    return model


def first(output):
    while not isinstance(output, torch.Tensor):
        output = output[0]
    return output.float().cpu()


def off(output, truth):
    """The largest difference, relative to the largest value."""
    assert torch.isfinite(output).all()
    return float((output - truth).abs().max() / truth.abs().max())


@NAMES
@torch.inference_mode()
def test_forward(device, name):
    model = made(name)
    x = image(model)
    truth = first(model(x))
    model, x = model.to(device), x.to(device)
    assert off(first(model(x)), truth) < 1e-3
    last = copy.deepcopy(model).to(memory_format=torch.channels_last)
    assert off(first(last(x.contiguous(memory_format=torch.channels_last))), truth) < 1e-3
    fits = 1e-3 < truth.abs().max() < 1e3  # what is drawn may leave the range of fp16
    for dtype in (torch.bfloat16, torch.float16) if fits else (torch.bfloat16,):
        with torch.autocast(device.type, dtype):
            found = first(model(x))
            assert torch.isfinite(found).all()
            assert (found - truth).norm() < 0.3 * truth.norm()  # random weights let rounding grow


@NAMES
def test_training_step(device, name):
    model = made(name).train()
    for module in model.modules():  # what is drawn differs between devices
        for key in ("p", "drop_prob", "rate", "drop_rate"):
            if isinstance(getattr(module, key, None), float):
                setattr(module, key, 0.0)
    x = image(model, 4).double()
    gradients = []
    for where in ("cpu", device):
        own = copy.deepcopy(model).double().to(where)
        output = own(x.to(where))
        while not isinstance(output, torch.Tensor):
            output = output[0]
        output.square().mean().backward()
        rows = [p.grad.cpu().flatten() for p in own.parameters() if p.grad is not None]
        gradients.append(torch.cat(rows))
    truth, found = gradients
    assert torch.isfinite(found).all()
    assert (found - truth).norm() < 1e-5 * truth.norm()  # float64, since rounding of float32 grows in batch norms


@NAMES
@torch.inference_mode()
def test_graph(cuda, name):
    """A forward pass can be captured: it neither waits for the device nor takes what the capture cannot repeat."""
    model = made(name).to(cuda)
    x, other = image(model).to(cuda), image(model).flip(0).to(cuda)
    truth = first(model(other))
    side = torch.cuda.Stream()
    with torch.cuda.stream(side):
        for _ in range(2):
            model(x)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        output = model(x)
    x.copy_(other)
    graph.replay()
    assert off(first(output), truth) < 1e-4


@NAMES
@torch.inference_mode()
def test_compiled(device, name):
    if "compile" not in imgzoo.get_spec(name).capabilities:
        pytest.skip("the family does not declare compile")
    model = made(name).to(device)
    x = image(model).to(device)
    truth = first(model(x))
    torch.compiler.reset()
    assert off(first(torch.compile(model, fullgraph=True)(x)), truth) < 1e-3


@pytest.mark.parametrize("name", ["resnet18", "vit_tiny_patch16_224", "swin_tiny_patch4_window7_224", "convnext_atto"])
@torch.inference_mode()
def test_made_and_loaded_on_the_device(device, name, tmp_path):
    model = imgzoo.create_model(name, img_size=None).eval()
    imgzoo.save_model(model, tmp_path)
    x = image(model)
    truth = first(model(x))
    with device:
        again = imgzoo.create_model(f"local-dir:{tmp_path}", pretrained=True).eval()
    assert {p.device.type for p in (*again.parameters(), *again.buffers())} == {device.type}
    assert off(first(again(x.to(device))), truth) < 1e-3


@pytest.mark.parametrize("name", ["resnet18", "vit_tiny_patch16_224", "repvgg_a0", "mobilenetv3_small_050"])
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_deployed(device, name, precision):
    if device.type == "cpu" and precision != "fp32":
        pytest.skip("on a CPU deploy decides by measurement")
    model = imgzoo.create_model(name).eval().to(device)
    deployed = imgzoo.deploy(model, precision=precision)
    x = image(model).to(device)
    with torch.inference_mode():
        assert off(first(deployed(x)), first(model(x))) < (1e-3 if precision == "fp32" else 0.1)

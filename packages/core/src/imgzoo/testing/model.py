"""Checks of one network, built small and run on random images."""

from __future__ import annotations

import pickle
import tempfile
from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor

from imgzoo.errors import CapabilityError, OptionError, UsageError
from imgzoo.factory import create_model
from imgzoo.groups import layer_ids
from imgzoo.options import parameters_of
from imgzoo.registry import registry
from imgzoo.specs import NOTHING, ModelSpec

from .outcome import Check, SkipCheck

CLASSES = 7
SIZE = 96


class ModelSubject:
    """A registered model that checks create as they need it, with constructor `options` that make it smaller."""

    def __init__(self, spec: ModelSpec, options: Mapping[str, Any] = NOTHING):
        self.spec, self.options = spec, options

    def __str__(self) -> str:
        return f"model:{self.spec.name}"

    def create(self, seed: int = 0, **options: Any) -> Any:
        torch.manual_seed(seed)
        name = f"{self.spec.plugin}/{self.spec.name}" if self.spec.plugin else self.spec.name
        return create_model(name, **{"num_classes": CLASSES, **self.options, **options})

    def image(self, model: Any, batch: int = 2, chans: int | None = None, size: int | None = None) -> Tensor:
        """Random images of a size the model takes: (batch, chans, h, w)."""
        config = model.pretrained_cfg
        height, width = config["input_size"][1:]
        if not config.get("fixed_input_size"):
            smallest = (config.get("min_input_size") or (3, SIZE, SIZE))[-1]
            height = width = size or min(height, max(SIZE, smallest))
        generator = torch.Generator().manual_seed(1)
        return torch.randn(batch, chans or model.in_chans, height, width, generator=generator)


def same(a: Tensor, b: Tensor, what: str, tolerance: float = 1e-4) -> None:
    if a.shape != b.shape:
        raise AssertionError(f"{what}: shapes {tuple(a.shape)} and {tuple(b.shape)} differ")
    gap = ((a - b).abs().max() / b.abs().max().clamp(min=1e-6)).item()
    if not gap <= tolerance:
        raise AssertionError(f"{what}: values differ by {gap:.1e}")


def forward_shape(subject: ModelSubject) -> None:
    model = subject.create().eval()
    logits = _logits(model(subject.image(model)))
    if logits.shape != (2, CLASSES):
        raise AssertionError(f"logits of two images are {tuple(logits.shape)}, not (2, {CLASSES})")


def _logits(output: Any) -> Tensor:
    return output[0] if isinstance(output, tuple) else output


@torch.no_grad()
def parts_compose(subject: ModelSubject) -> None:
    model = subject.create().eval()
    x = subject.image(model)
    same(model.forward_head(model.forward_features(x)), model(x), "forward_head(forward_features(x)) against forward")


@torch.no_grad()
def classifier_is_named(subject: ModelSubject) -> None:
    """`get_classifier` returns the module that makes the logits, and pre-logits are what it sees."""
    model = subject.create().eval()
    x = subject.image(model)
    heads = model.get_classifier()
    head = heads[0] if isinstance(heads, tuple) else heads
    seen: list[Tensor] = []
    hook = head.register_forward_hook(lambda module, args, output: seen.append(output))
    logits = _logits(model(x))
    hook.remove()
    if not seen or seen[-1].shape[-1] != CLASSES:
        raise AssertionError("get_classifier() returns a module that does not make the logits")
    if logits.shape[-1] != CLASSES:
        raise AssertionError(f"the classifier makes {logits.shape[-1]} outputs, not {CLASSES}")
    vector = model.forward_head(model.forward_features(x), pre_logits=True)
    if vector.shape[-1] != model.head_hidden_size:
        raise AssertionError(f"head_hidden_size is {model.head_hidden_size}, pre-logits have {vector.shape[-1]}")


@torch.no_grad()
def classifier_resets(subject: ModelSubject) -> None:
    model = subject.create().to(torch.float64).eval()
    x = subject.image(model).double()
    model.reset_classifier(CLASSES + 2)
    if _logits(model(x)).shape[-1] != CLASSES + 2 or model.num_classes != CLASSES + 2:
        raise AssertionError("after reset_classifier(n) the model does not have n classes")
    if any(p.dtype != torch.float64 for p in model.parameters()):
        raise AssertionError("reset_classifier loses the dtype")
    if any(module.training for module in model.modules()):
        raise AssertionError("reset_classifier loses eval mode")
    model.reset_classifier(0)
    if model(x).shape[-1] != model.head_hidden_size:
        raise AssertionError("without classes the model does not return the pre-logits vector")
    away = subject.create(device="meta")
    away.reset_classifier(CLASSES + 2)
    if any(not p.is_meta for p in away.parameters()):
        raise AssertionError("reset_classifier loses the device")


@torch.no_grad()
def levels_are_true(subject: ModelSubject) -> None:
    """Channels and strides of `feature_info` are those of real feature maps."""
    model = subject.create().eval()
    x = subject.image(model)
    _, levels = model.forward_intermediates(x)
    if len(levels) != len(model.feature_info):
        raise AssertionError(f"{len(levels)} levels come, feature_info names {len(model.feature_info)}")
    modules = dict(model.named_modules())
    for i, (level, row) in enumerate(zip(levels, model.feature_info)):
        if level.shape[1] != row["num_chs"]:
            raise AssertionError(f"level {i} has {level.shape[1]} channels, feature_info says {row['num_chs']}")
        expected = -(x.shape[-1] // -row["reduction"])
        if abs(level.shape[-1] - expected) > max(2, expected // 4):  # convolutions without padding cut the border off
            raise AssertionError(
                f"level {i} is {level.shape[-1]} wide, a stride of {row['reduction']} gives {expected}"
            )
        if row["module"] not in modules:
            raise AssertionError(f"feature_info names the module '{row['module']}', which does not exist")


@torch.no_grad()
def features_only(subject: ModelSubject) -> None:
    model = subject.create().eval()
    x = subject.image(model)
    count = len(model.feature_info)
    chosen = sorted({0, count - 1})
    wanted = model.forward_intermediates(x, chosen, intermediates_only=True)
    short = subject.create(features_only=True, out_indices=[0, -1] if count > 1 else [0]).eval()
    for level, expected in zip(short(x), wanted, strict=True):
        same(level, expected, "features_only against forward_intermediates")


@torch.no_grad()
def num_features(subject: ModelSubject) -> None:
    model = subject.create().eval()
    x = subject.image(model)
    features = model.forward_features(x)
    if isinstance(features, list):
        raise SkipCheck("features come in branches")
    axis = -1 if features.ndim == 3 or model.channels_last else 1
    if features.shape[axis] != model.num_features:
        raise AssertionError(f"num_features is {model.num_features}, features have {features.shape[axis]}")


@torch.no_grad()
def state_survives(subject: ModelSubject) -> None:
    """Saved and created again from the file, the model computes the same: placeholders, buffers, options."""
    from imgzoo.loading import save_model

    model = subject.create().eval()
    x = subject.image(model)
    with tempfile.TemporaryDirectory() as folder:
        save_model(model, folder)
        again = create_model(folder, pretrained=True).eval()
        same(again(x), model(x), "the saved model", 1e-5)  # the same numbers lie elsewhere in memory
        for name, value in model.state_dict().items():
            if not torch.equal(again.state_dict()[name], value):
                raise AssertionError(f"'{name}' comes back different")
        buffers = dict(model.named_buffers())
        for name, buffer in again.named_buffers():
            if not torch.equal(buffer, buffers[name]):
                raise AssertionError(f"the buffer '{name}' comes back different")


def parameters_are_used(subject: ModelSubject) -> None:
    model = subject.create().train()
    output = model(subject.image(model, batch=4))
    outputs = output if isinstance(output, tuple) else (output,)
    torch.stack([(each * torch.randn_like(each)).sum() for each in outputs]).sum().backward()
    idle = [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None]
    if idle:
        raise AssertionError(f"{len(idle)} parameters get no gradient: {', '.join(idle[:3])}")


@torch.no_grad()
def input_channels(subject: ModelSubject) -> None:
    """A file for color images serves any number of channels: one is seen three times, more take turns, rescaled."""
    from imgzoo.loading import save_model

    model = subject.create(in_chans=3).eval()
    with tempfile.TemporaryDirectory() as folder:
        save_model(model, folder)
        for chans in (1, 3, 4, 12):
            other = create_model(folder, pretrained=True, in_chans=chans).eval()
            if other.in_chans != chans:
                raise AssertionError(f"in_chans={chans} was asked for, the model says {other.in_chans}")
            x = subject.image(other, batch=1)
            if any("StdConv" in type(module).__name__ for module in model.modules()):
                other(x)  # kernels that are standardized as they are used do not add up
                continue
            light = x - model.black
            turns = [light[:, i::3] for i in range(3)] if chans > 1 else [light] * 3
            color = torch.stack([turn.sum(1) for turn in turns], 1) * (3 / chans if chans > 1 else 1) + model.black
            same(_logits(other(x)), _logits(model(color)), f"a file for 3 channels in a model for {chans}", 1e-3)


@torch.no_grad()
def eval_is_deterministic(subject: ModelSubject) -> None:
    model = subject.create(drop_rate=0.5).eval()
    x = subject.image(model)
    if not torch.equal(model(x), model(x)):
        raise AssertionError("two runs in eval mode differ")


@torch.no_grad()
def images_are_independent(subject: ModelSubject) -> None:
    model = subject.create().eval()
    x = subject.image(model, batch=3)
    other = x.clone()
    other[1:] = torch.randn_like(other[1:]) * 3
    same(model(other)[:1], model(x)[:1], "one image beside other neighbors")


def init_is_seeded(subject: ModelSubject) -> None:
    first, again, other = subject.create(0), subject.create(0), subject.create(1)
    pairs = list(zip(first.parameters(), again.parameters()))
    if not all(torch.equal(a, b) for a, b in pairs):
        raise AssertionError("equal seeds give other weights")
    if all(torch.equal(a, b) for a, b in zip(first.parameters(), other.parameters())):
        raise AssertionError("other seeds give equal weights")


def rates_are_taken(subject: ModelSubject) -> None:
    """`drop_rate` is an option of every network, `drop_path_rate` of those with stochastic depth."""
    try:
        try:
            model = subject.create(drop_rate=0.2, drop_path_rate=0.2).train()
        except CapabilityError:
            model = subject.create(drop_rate=0.2).train()
    except OptionError as error:
        raise AssertionError(f"drop_rate must be accepted: {error}") from error
    model(subject.image(model, batch=4))


@torch.no_grad()
def dropout_drops(subject: ModelSubject) -> None:
    """`drop_rate` has its effect: in training two draws give two answers."""
    model = subject.create(drop_rate=0.5).train()
    x = subject.image(model, batch=4)
    heads = model.get_classifier()
    for head in heads if isinstance(heads, tuple) else (heads,):
        for parameter in head.parameters():  # some begin at zero, where nothing can be seen
            torch.nn.init.normal_(parameter)
    answers = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        answers.append(_logits(model(x)))
    if torch.equal(*answers):
        raise AssertionError("drop_rate is accepted and changes nothing")


@torch.no_grad()
def rates_drop(subject: ModelSubject) -> None:
    """Every other rate of dropout or stochastic depth among the options has its effect: in training some draws give
    other answers."""
    taken, _ = parameters_of(subject.spec.load())
    rates = [name for name in taken if "drop" in name and name.endswith("_rate") and name != "drop_rate"]
    off: dict[str, Any] = {name: 0.0 for name in rates if taken[name].default}
    for rate in rates:
        try:
            model = subject.create(**{**off, rate: 0.5}).train()
        except CapabilityError:
            continue
        for parameter in model.parameters():  # branches that begin at zero may be there or not
            parameter.add_(torch.randn_like(parameter) * 0.02)
        if not _draws_differ(model, subject.image(model, batch=4)):
            raise AssertionError(f"{rate} is accepted and changes nothing")


def _draws_differ(model: Any, x: Tensor) -> bool:
    answers = []
    for seed in range(8):
        torch.manual_seed(seed)
        answers.append(_logits(model(x)))
        if not torch.equal(answers[0], answers[-1]):
            return True
    return False


def pickles(subject: ModelSubject) -> None:
    """The model can be pickled, as workers and processes that are started anew need."""
    model = subject.create(device="meta")
    keys = pickle.loads(pickle.dumps(model)).state_dict().keys()
    if keys != model.state_dict().keys():
        raise AssertionError("pickled and read again it has other parameters")


def unknown_options_are_refused(subject: ModelSubject) -> None:
    try:
        subject.create(no_such_option_of_any_model=1)
    except OptionError:
        return
    raise AssertionError("an unknown option is swallowed silently")


def layers_are_grouped(subject: ModelSubject) -> None:
    """Layer-wise decay sees every parameter; the stem comes first, the classifier last."""
    model = subject.create()
    for coarse in (False, True):
        ids = layer_ids(model, model.group_matcher(coarse))
        if len(set(ids.values())) < 3:
            raise AssertionError(f"group_matcher finds {len(set(ids.values()))} layers")
        first, last = next(iter(ids)), max(ids.values())
        heads = [f"{path}." for path in model._heads()]
        if any(ids[name] != last for name in ids if any(name.startswith(head) for head in heads)):
            raise AssertionError("the classifier is not in the last group")
        if min(ids.values()) not in {layer for name, layer in ids.items() if name == first or layer == 0}:
            raise AssertionError("no parameter is in the first group")


def no_decay_names_parameters(subject: ModelSubject) -> None:
    """What `no_decay` and `no_weight_decay` name is there: in this model, another of the class, or its `tables`."""
    model = subject.create(device="meta")
    unknown = model.no_weight_decay() - {name for name, _ in model.named_parameters()}
    if unknown:
        raise AssertionError(f"no_weight_decay names {sorted(unknown)[0]}, which does not exist")
    declared = next(cls for cls in type(model).__mro__ if "no_decay" in vars(cls))
    if declared.__module__.startswith("imgzoo.model"):
        return
    left = _unmatched(model, set(model.no_decay)) - FOUND.get(declared, set()) - {*getattr(model, "tables", ())}
    for spec in _of_class(declared, subject.spec.plugin) if left else ():
        left = _unmatched(ModelSubject(spec).create(device="meta"), left)
        if not left:
            break
    FOUND.setdefault(declared, set()).update(set(model.no_decay) - left)
    if left:
        raise AssertionError(f"no_decay names '{sorted(left)[0]}', which is no parameter of any such model")


FOUND: dict[type, set[str]] = {}
"""What a class spares from decay and some model of it has."""


def _of_class(declared: type, plugin: str) -> Iterator[ModelSpec]:
    """A plugin's models whose class is, or comes from, the given one: one for each class and set of options."""
    seen = set()
    for spec in registry("models").specs():
        key = (spec.target, *sorted(spec.kwargs))
        if spec.plugin == plugin and key not in seen:
            seen.add(key)
            made = spec.load()
            if isinstance(made, type) and issubclass(made, declared):
                yield spec


def _unmatched(model: Any, patterns: set[str]) -> set[str]:
    names = [name for name, _ in model.named_parameters()]
    return {pattern for pattern in patterns if not any(fnmatchcase(name, pattern) for name in names)}


def checkpointing_changes_nothing(subject: ModelSubject) -> None:
    plain, cheap = subject.create().train(), subject.create().train()
    cheap.set_grad_checkpointing(True)
    if list(plain.state_dict()) != list(cheap.state_dict()):
        raise AssertionError("checkpointing renames parameters")
    x = subject.image(plain, batch=4)
    for model in (plain, cheap):
        torch.manual_seed(3)
        output = model(x)
        (output[0] if isinstance(output, tuple) else output).square().sum().backward()
    for (name, a), b in zip(plain.named_parameters(), cheap.parameters()):
        if a.grad is not None:
            same(b.grad, a.grad, f"gradient of {name} with checkpointing")  # type: ignore[arg-type]
    for (name, a), b in zip(plain.named_buffers(), cheap.buffers()):
        if not torch.allclose(a.double(), b.double(), 1e-3, 1e-5):
            raise AssertionError(f"with checkpointing the buffer '{name}' counts a batch twice")


@torch.no_grad()
def pruning_keeps_levels(subject: ModelSubject) -> None:
    model = subject.create().eval()
    x = subject.image(model)
    middle = len(model.feature_info) // 2
    wanted = model.forward_intermediates(x, [middle], intermediates_only=True)[0]
    before = sum(p.numel() for p in model.parameters())
    model.prune_intermediate_layers([middle])
    same(model.forward_intermediates(x, [middle], intermediates_only=True)[0], wanted, "a level after pruning")
    if sum(p.numel() for p in model.parameters()) >= before:
        raise AssertionError("prune_intermediate_layers removes nothing")


@torch.no_grad()
def pools_are_offered(subject: ModelSubject) -> None:
    """Changing the pool keeps the model whole; what a family cannot pool by is a typed error."""
    model = subject.create().eval()
    x = subject.image(model)
    for kind in ("avg", "max", "avgmax"):
        try:
            model.reset_classifier(CLASSES, kind)
        except (CapabilityError, ValueError):
            continue
        if _logits(model(x)).shape != (2, CLASSES):
            raise AssertionError(f"pooling by '{kind}' gives {tuple(model(x).shape)}")


@torch.no_grad()
def pool_is_used(subject: ModelSubject) -> None:
    """`global_pool` has its effect: pools that a family offers see the same features in different ways."""
    seen: list[tuple[str, Tensor]] = []
    for kind in ("avg", "max", "token"):
        try:
            model = subject.create(global_pool=kind).eval()
        except (CapabilityError, OptionError, ValueError):
            continue
        features = model.forward_features(subject.image(model))
        if isinstance(features, Tensor) and features[0].numel() <= model.num_features:
            raise SkipCheck("the features are one vector")
        seen.append((kind, model.forward_head(features, pre_logits=True)))
    for kind, vector in seen[1:]:
        first, reference = seen[0]
        if vector.shape == reference.shape and torch.equal(vector, reference):
            raise AssertionError(f"global_pool='{kind}' is accepted and gives what '{first}' gives")


@torch.no_grad()
def builds_on_meta(subject: ModelSubject) -> None:
    """Made without memory, given memory and then weights, a model computes what it should: all buffers come back."""
    away, real = subject.create(device="meta").eval(), subject.create().eval()
    if list(away.state_dict()) != list(real.state_dict()):
        raise AssertionError("a model built on the meta device has other tensors")
    away.to_empty(device="cpu")
    for name, buffer in away.named_buffers():
        if name not in away.state_dict() and not torch.equal(buffer, real.get_buffer(name)):
            raise AssertionError(f"nobody fills the buffer '{name}' again: see init_non_persistent_buffers")
    away.load_state_dict(real.state_dict())
    x = subject.image(real)
    same(away(x), real(x), "built on the meta device", 1e-5)


@torch.no_grad()
def takes_other_sizes(subject: ModelSubject) -> None:
    model = subject.create().eval()
    if model.pretrained_cfg.get("fixed_input_size"):
        raise SkipCheck("the model has a fixed input size")
    smallest = model.pretrained_cfg.get("min_input_size")
    tall, wide = (2 * smallest[-1], smallest[-1]) if smallest else (SIZE + 32, SIZE)
    x = subject.image(model, size=tall)
    if _logits(model(x[..., :wide])).shape != (2, CLASSES):
        raise AssertionError("a rectangular image gives no logits")


def _enlarged(subject: ModelSubject, size: tuple[int, int]) -> tuple[dict[str, Tensor], Any]:
    """State of the model for images of another size, and how it wants that size said: (height, width) or one number."""
    refusals: list[Exception] = []
    for img_size in (size, size[0]):
        try:
            return subject.create(device="meta", img_size=img_size).state_dict(), img_size
        except (CapabilityError, UsageError) as error:
            refusals.append(error)
    raise SkipCheck(f"the model takes no other size: {refusals[0]}")


@torch.no_grad()
def tables_follow_the_size(subject: ModelSubject) -> None:
    """Tables whose length depends on the image are resized as a file is loaded for another size."""
    from imgzoo.loading import save_model

    model = subject.create().eval()
    height, width = model.pretrained_cfg["input_size"][1:]
    step = max(model.feature_info.reduction())
    more = -(-64 // step) * step
    size = (height + more, width + more)
    large, img_size = _enlarged(subject, size)
    if all(large[name].shape == value.shape for name, value in model.state_dict().items() if name in large):
        raise SkipCheck("no table depends on the size")
    with tempfile.TemporaryDirectory() as folder:
        save_model(model, folder)
        again = create_model(folder, pretrained=True, img_size=img_size).eval()
    lost = again.load_report.initialized
    if lost:
        raise AssertionError(f"loaded for {size[0]} pixels, '{lost[0]}' is left at its initial value")
    if _logits(again(torch.randn(1, again.in_chans, *size))).shape != (1, CLASSES):
        raise AssertionError("loaded for another size, the model gives no logits")


CHECKS = [
    Check(fn.__name__, "model", fn)
    for fn in (forward_shape, parts_compose, classifier_is_named, classifier_resets, levels_are_true, features_only,
               num_features, state_survives, parameters_are_used, input_channels, eval_is_deterministic,
               images_are_independent, init_is_seeded, rates_are_taken, dropout_drops, rates_drop, pickles,
               unknown_options_are_refused, layers_are_grouped, no_decay_names_parameters,
               checkpointing_changes_nothing, pruning_keeps_levels,
               pools_are_offered, pool_is_used, builds_on_meta, takes_other_sizes, tables_follow_the_size)
]  # fmt: skip

"""Schedules, optimizers, losses, averages and tasks of imgzoo-timm beside the peer's."""

import argparse
import inspect

import numpy as np
import pytest
import torch
from timm_kit import (
    both,
    ours,
    parameters,
    same_tensors,
    small,
    theirs,
)
from torch import nn

pytestmark = pytest.mark.parity

SCHEDULES = [dict(), dict(warmup_epochs=3, min_lr=0.01, decay_epochs=5),
             dict(warmup_epochs=3, warmup_prefix=True, cycle_limit=2, noise=(0.3, 0.8))]  # fmt: skip


@pytest.mark.filterwarnings("ignore:PlateauLRScheduler is deprecated")
@pytest.mark.parametrize("name", ["cosine", "tanh", "poly", "step", "multistep", "wsd", "plateau"])
@pytest.mark.parametrize("options", SCHEDULES)
def test_schedulers_give_the_same_rates(name, options):
    rates = []
    for create in both("scheduler", "create_scheduler_v2"):
        groups = [dict(params=[torch.zeros(1, requires_grad=True)], lr=lr) for lr in (1.0, 0.5)]
        groups[1]["lr_scale"] = 0.5
        optimizer = torch.optim.SGD(groups, lr=1.0)
        scheduler, epochs = create(optimizer, name, 20, decay_milestones=(5, 12), **options)
        rows = [[epochs], [group["lr"] for group in optimizer.param_groups]]
        first = name == "plateau" and not options  # without warm-up the peer begins at the rate of its start
        for epoch in range(first, epochs):
            scheduler.step(epoch, metric=1 - abs(epoch - 4) / 30)
            rows.append([group["lr"] for group in optimizer.param_groups])
        rates.append(rows)
    for mine, other in zip(*rates, strict=True):
        np.testing.assert_allclose(mine, other, rtol=1e-6, atol=1e-9)


def test_schedulers_by_update():
    rates = []
    for create in both("scheduler", "create_scheduler_v2"):
        optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
        scheduler, _ = create(optimizer, "cosine", 4, warmup_epochs=1, step_on_epochs=False, updates_per_epoch=10)
        rows = []
        for update in range(40):
            scheduler.step_update(update)
            rows.append(optimizer.param_groups[0]["lr"])
        rates.append(rows)
    np.testing.assert_allclose(*rates, rtol=1e-6)


OPTIMIZERS = ["AdaBelief", "Adafactor", "AdamP", "AdamWLegacy", "Adan", "Adopt", "LaProp", "Lamb", "Lars", "Lion",
     "MADGRAD",
              "Mars", "NAdamLegacy", "NAdamW", "NvNovoGrad", "RAdamLegacy", "RMSpropTF", "SGDP", "SGDW"]  # fmt: skip


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_optimizers_step_alike(name):
    results = []
    for made in both("optim", name):
        torch.manual_seed(0)
        model = nn.Linear(8, 6)
        optimizer = made(model.parameters(), lr=0.01, weight_decay=0.02)
        for i in range(5):
            optimizer.zero_grad()
            (model(torch.ones(2, 8) * (i + 1)).square().sum()).backward()
            optimizer.step()
        results.append(list(model.parameters()))
    same_tensors(*results, 1e-4)


def test_optimizers_by_name_have_the_groups():
    args = argparse.Namespace(
        opt="adamw", lr=1e-3, weight_decay=0.05, momentum=0.9, opt_eps=1e-8, opt_betas=(0.9, 0.99)
    )
    model = theirs("models", "create_model")("vit_tiny_patch16_224", depth=2)
    groups = []
    for create in both("optim", "create_optimizer"):
        groups.append([(len(group["params"]), group["weight_decay"], group["lr"], group["betas"])
                       for group in create(args, model).param_groups])  # fmt: skip
    assert sorted(groups[0]) == sorted(groups[1])
    rows = []
    for create in both("optim", "create_optimizer_v2"):
        made = create(model, "sgd", lr=0.1, weight_decay=0.01, layer_decay=0.7)
        rows.append(
            sorted(
                (round(group["lr_scale"], 6), group["weight_decay"], len(group["params"]))
                for group in made.param_groups
            )
        )
    assert rows[0] == rows[1]


@pytest.mark.filterwarnings("ignore:It is highly recommended")
def test_optimizers_by_name_are_the_classes():
    model = nn.Linear(3, 4)
    names = [name for name in theirs("optim", "list_optimizers")() if not name.startswith(("bnb", "fused"))]
    for name in names:
        mine, other = (create(model, name, lr=0.1) for create in both("optim", "create_optimizer_v2"))
        assert type(mine).__name__ == type(other).__name__, name
        assert isinstance(mine, ours("optim", "get_optimizer_class")(name, bind_defaults=False))
        mine, other = (tell(name) for tell in both("optim", "get_optimizer_info"))
        for key in ("has_eps", "has_momentum", "has_betas", "num_betas", "second_order", "defaults"):
            assert getattr(mine, key) == getattr(other, key), (name, key)
    assert type(ours("optim", "create_optimizer_v2")(model, "lookahead_lion", lr=0.1)) is ours("optim", "Lookahead")


def test_what_optimizers_refuse():
    model = nn.Linear(3, 4)
    for refused, args, options in (
        (ValueError, (model, "nobody"), {}), (ValueError, (model, ""), {}), (ValueError, (model, "lookahead_"), {}),
        (ValueError, (model, "adamw"), dict(lr=-1.0)), (ValueError, (model, "adamw"), dict(betas=(1.1, 0.9))),
        (TypeError, (model, "adamw"), dict(nonsense=1)), (TypeError, (torch.zeros(2), "sgd"), dict(lr=0.1)),
        (TypeError, (model, "kron"), dict(foreach=True)), (ValueError, ([], "sgd"), dict(lr=0.1)),
    ):  # fmt: skip
        for create in both("optim", "create_optimizer_v2"):
            with pytest.raises(refused):
                create(*args, **options)
    for options in (dict(eps=1e-6, foreach=False), dict(betas=(0.8, 0.9))):
        for create in both("optim", "create_optimizer_v2"):
            create(model, "lion" if "eps" in options else "sgd", lr=0.1, **options)
    for find in (*both("optim", "get_optimizer_info"), *both("optim", "get_optimizer_class")):
        with pytest.raises(ValueError):
            find("nobody")


def test_registries_of_optimizers():
    answers = []
    for name in (0, 1):
        path = (ours, theirs)[name]
        names, told = path("optim", "OptimizerRegistry")(), path("optim", "OptimInfo")
        names.register(told("Mine", torch.optim.SGD, "of a script", has_eps=False, has_momentum=True))
        names.register(told("other", "torch.optim.RMSprop", defaults=dict(alpha=0.5)))
        names.register_alias("my", "mine")
        with pytest.raises(KeyError):
            names.register_alias("nothing", "nobody")
        with pytest.raises(ValueError):
            names.create_optimizer(nn.Linear(3, 4), "nobody")
        made = names.create_optimizer(nn.Linear(3, 4), "my", lr=0.1, weight_decay=0.2, momentum=0.7, eps=1e-3)
        second = names.create_optimizer(nn.Linear(3, 4).parameters(), "lookahead_other", lr=0.1, eps=1e-3)
        answers.append([names.list_optimizers(), names.list_optimizers("m*", with_description=True),
                        names.get_optimizer_class("other").keywords, type(second).__name__,
                        [(each["weight_decay"], each["momentum"], len(each["params"])) for each in made.param_groups],
                        [group["alpha"] for group in second.param_groups]])  # fmt: skip
    assert answers[0] == answers[1]


LOSSES = [("LabelSmoothingCrossEntropy", (0.2,), {}, "hard"), ("SoftTargetCrossEntropy", (), {}, "soft"),
          ("BinaryCrossEntropy", (), {}, "hard"), ("BinaryCrossEntropy", (),
          dict(target_threshold=0.2, sum_classes=True), "soft"),
          ("BinaryCrossEntropy", (0.0,), dict(reduction="sum"), "soft"), ("BinaryCrossEntropy", (),
          dict(smooth_dense=True), "soft"),
          ("JsdCrossEntropy", (3,), {}, "hard"), ("AsymmetricLossMultiLabel", (), {}, "multi"),
          ("AsymmetricLossMultiLabel", (2, 1), dict(reduction="sum", smoothing=0.1), "multi"),
          ("PolyCrossEntropy", (), {}, "hard"), ("PolyBinaryCrossEntropy", (), dict(gamma=2.0, alpha=0.3), "multi"),
          ("TwoWayLoss", (), {}, "multi"), ("ZlprLoss", (), {}, "multi"),
          ("AsymmetricLossSingleLabel", (), {}, "hard")]  # fmt: skip


@pytest.mark.parametrize("row", LOSSES, ids=lambda row: f"{row[0]}-{'-'.join(row[2])}")
def test_losses_give_the_same_numbers(row):
    name, args, options, kind = row
    x = torch.randn(6, 5)
    soft = torch.rand(6, 5).softmax(1)
    target = {"hard": torch.arange(6) % 5, "soft": soft, "multi": (soft > 0.2).float()}[kind]
    mine, other = (loss(*args, **options) for loss in both("loss", name))
    same_tensors(mine(x, target), other(x, target))


@pytest.mark.parametrize("name", ["ModelEma", "ModelEmaV2", "ModelEmaV3"])
def test_averages_follow_alike(name):
    results = []
    for average in both("utils", name):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4))
        ema = average(model, decay=0.8)
        for step in range(4):
            with torch.no_grad():
                model[0].weight.add_(step + 1)
            ema.update(model, **({"step": step + 3} if name == "ModelEmaV3" else {}))
        results.append(list((ema.ema if name == "ModelEma" else ema.module).state_dict().values()))
    same_tensors(*results)
    if name == "ModelEmaV3":
        for step in range(20):
            rates = {round(each(nn.Linear(1, 1), use_warmup=True, update_after_step=3).get_decay(step), 9)
                     for each in both("utils", name)}  # fmt: skip
            assert len(rates) == 1


def test_sequences_and_groups():
    model = theirs("models", "create_model")("resnet18")
    matcher = model.group_matcher()
    for name in ("group_parameters", "group_modules"):
        for options in ({}, dict(reverse=True)):
            mine, other = (each(model, matcher, **options) for each in both("models", name))
            assert mine == other, name
    layers = nn.Sequential(*(nn.Linear(4, 4) for _ in range(5)))
    x = torch.randn(2, 4, requires_grad=True)
    for options in ({}, dict(every=2), dict(skip_last=True)):
        same_tensors(*(each(layers, x, **options) for each in both("models", "checkpoint_seq")))
    weight = torch.randn(4, 3, 3, 3)
    for chans in (1, 2, 3, 4, 7):
        same_tensors(*(each(chans, weight) for each in both("models", "adapt_input_conv")))


def test_frozen_and_split_norms():
    x = torch.randn(4, 3, 32, 32)
    for name in ("freeze_batch_norm_2d", "convert_splitbn_model"):
        results, kinds = [], []
        for convert in both("layers", name):
            torch.manual_seed(0)
            model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Sequential(nn.BatchNorm2d(8)))
            model = convert(model)
            results += [list(model.state_dict()), model(x)]
            kinds.append([type(part) for part in model.modules()])
        assert results[0] == results[2]
        assert name != "freeze_batch_norm_2d" or kinds[0] == kinds[1]
        same_tensors(results[1], results[3])


COUNTS = [10, 50, 2, 7, 90]
CLASSIFICATION = [
    dict(), dict(smoothing=0.1), dict(soft_targets=True), dict(loss_type="bce"), dict(loss_type="asl", smoothing=0.1),
    dict(loss_type="bce", bce_target_thresh=0.2, bce_sum=True, smoothing=0.1), dict(loss_type="poly", smoothing=0.1),
    dict(loss_type="bce", class_weight=[1.0, 2, 3, 1, 1], pos_weight=2.0), dict(loss_type="jsd", jsd_splits=2),
    dict(multi_label=True), dict(multi_label=True, smoothing=0.1, pos_weight=2.0),
    dict(multi_label=True, loss_type="asl"),
    dict(multi_label=True, loss_type="poly", poly_gamma=2.0), dict(multi_label=True, loss_type="zlpr"),
    dict(multi_label=True, loss_type="twoway"),
    dict(multi_label=True, loss_type="db", class_counts=COUNTS, num_samples=100),
    dict(multi_label=True, loss_type="db", class_counts=COUNTS, num_samples=100, db_neg_scale=4.0, db_init_bias=1.0),
]  # fmt: skip


@pytest.mark.parametrize("options", CLASSIFICATION, ids=lambda row: "-".join(map(str, row.items())) or "plain")
def test_losses_by_name_give_the_same_numbers(options):
    x = 3 * torch.randn(6, 5, generator=torch.Generator().manual_seed(0))
    target = torch.tensor([0, 1, 2, 3, 4, 0])
    if options.get("multi_label") or options.get("soft_targets"):
        target = torch.nn.functional.one_hot(target, 5).float()
        target[:, 4] = 1.0
    mine, other = (create(**options) for create in both("loss", "create_classification_loss"))
    same_tensors(mine(x, target), other(x, target))


def test_what_losses_refuse():
    for options in (dict(loss_type="zz"), dict(multi_label=True, loss_type="ce"), dict(loss_type="twoway"),
                    dict(loss_type="ce", class_weight=2.0), dict(multi_label=True, loss_type="db")):  # fmt: skip
        for create in both("loss", "create_classification_loss"):
            with pytest.raises(ValueError):
                create(**options)


@pytest.mark.parametrize("method", ["neg_pos", "inv_freq", "effective_num"])
def test_weights_of_classes(method):
    for options in ({}, dict(power=0.5, max_weight=3.0), dict(beta=0.9)):
        mine, other = (make([0, *COUNTS], 100, method, **options) for make in both("loss", "compute_class_weights"))
        assert mine[0] == other[0]
        same_tensors(mine[1], other[1])


# tasks
IMAGES, LABELS = torch.randn(4, 3, 64, 64, generator=torch.Generator().manual_seed(0)), torch.arange(4)
DENSE = torch.nn.functional.one_hot(LABELS, 7).float()
TASKS = [
    ("ClassificationTask", {}), ("ClassificationTask", dict(criterion_kwargs=dict(smoothing=0.1))),
    ("ClassificationTask", dict(criterion=nn.MultiMarginLoss())), ("MultiLabelClassificationTask", {}),
    *(("LogitDistillationTask", options) for options in ({}, dict(temperature=3.0), dict(task_loss_weight=0.3),
      dict(distill_loss_weight=0.2), dict(distill_loss_weight=0.2, task_loss_weight=0.1))),
    ("FeatureDistillationTask", {}), ("FeatureDistillationTask", dict(student="test_efficientnet")),
    ("TokenDistillationTask", {}), ("TokenDistillationTask", dict(distill_type="hard", task_loss_weight=0.4)),
]  # fmt: skip


def tasks(name, options):
    """One of each library, over equal networks."""
    options, made = dict(options), []
    student = options.pop("student", "test_resnet")
    for task in both("task", name):
        if name == "TokenDistillationTask":
            model = small("deit_tiny_distilled_patch16_224", img_size=64, depth=1)
        else:
            model = small(student)
        teacher = {} if name.endswith("ClassificationTask") else {"teacher_model": small(seed=1)}
        made.append(task(model, **teacher, **options, verbose=False))
    return made


@pytest.mark.parametrize(("name", "options"), TASKS)
def test_tasks_give_the_same_losses(name, options):
    mine, other = tasks(name, options)
    assert list(mine.state_dict()) == list(other.state_dict())
    mine.load_state_dict(other.state_dict())
    target = DENSE if name.startswith("Multi") else LABELS
    for mode in (True, False)[: 1 if name.startswith("Token") else 2]:  # the peer's has one output in evaluation
        found, wanted = (each.train(mode)(IMAGES, target) for each in (mine, other))
        assert list(found) == list(wanted)
        same_tensors(found.values(), wanted.values(), 1e-4)
    for exclude in (False, True):
        assert len({len(list(each.get_clip_parameters(exclude))) for each in (mine, other)}) == 1
    for ema in (False, True):
        states = [each.get_checkpoint_state(ema=ema) for each in (mine, other)]
        found, wanted = ({key: list(value) for key, value in each.items()} for each in states)
        assert found == wanted
        mine.setup_ema(decay=0.5), other.setup_ema(decay=0.5)
    assert mine.has_ema() and mine.get_eval_model().num_classes == 7
    for public in [key for key in vars(type(other)) if not key.startswith("_")]:
        if inspect.isfunction(getattr(type(other), public)):
            assert parameters(getattr(type(mine), public)) == parameters(getattr(type(other), public)), public


@pytest.mark.parametrize("name", ["ClassificationEvaluator", "MultiLabelClassificationEvaluator"])
def test_evaluators_give_the_same_scores(name):
    output = torch.randn(20, 7, generator=torch.Generator().manual_seed(0))
    target = (output + torch.randn(20, 7, generator=torch.Generator().manual_seed(1)) > 0).float()
    target = target if name.startswith("Multi") else torch.arange(20) % 7
    for limit in (None, 13, 0):
        mine, other = (make(max_samples=limit) for make in both("task", name))
        assert (mine.metric_names, mine.default_metric) == (other.metric_names, other.default_metric)
        for each in (mine, other):
            each.update(output[:8], target[:8]), each.update(output[8:], target[8:])
        for told in ("compute", "summary"):
            rows = [getattr(each, told)() for each in (mine, other)]
            assert list(rows[0]) == list(rows[1])
            np.testing.assert_allclose(list(rows[0].values()), list(rows[1].values()), rtol=1e-5)
    for share in range(3):
        sampler = theirs("data.distributed_sampler", "OrderedDistributedSampler")(range(11), 3, share)
        own = ours("data", "OrderedDistributedSampler")(range(11), 3, share)
        assert ours("task", "evaluation_sample_limit")(argparse.Namespace(sampler=own)) == theirs(
            "task", "evaluation_sample_limit")(torch.utils.data.DataLoader(range(11), sampler=sampler))  # fmt: skip


def test_what_tasks_refuse():
    for name, options in (("LogitDistillationTask", dict(loss_type="l1")), ("TokenDistillationTask", {}),
                          ("TokenDistillationTask", dict(distill_type="warm")), ("ClassificationTask", dict(
                              criterion=nn.CrossEntropyLoss(), criterion_kwargs=dict(smoothing=0.1)))):  # fmt: skip
        for task in both("task", name):
            teacher = {} if name == "ClassificationTask" else {"teacher_model": small()}
            with pytest.raises(ValueError):
                task(small(), **teacher, **options, verbose=False)
    for evaluator in both("task", "MultiLabelClassificationEvaluator"):
        with pytest.raises(ValueError):
            evaluator(threshold=2.0)
        with pytest.raises(ValueError):
            evaluator().update(torch.randn(3, 4), LABELS)


def test_tasks_go_on_from_each_others_checkpoints(tmp_path):
    options = dict(student="test_efficientnet")
    for writer in (0, 1):
        made = tasks("FeatureDistillationTask", options)
        task, reader = made[writer], made[1 - writer]
        task.setup_ema(decay=0.5)
        reader.setup_ema(decay=0.5)
        with torch.no_grad():
            for value in task.trainable_module_ema.parameters():
                value.add_(1.0)
        optimizer = torch.optim.SGD(task.parameters(), 0.1)
        saver = (ours, theirs)[writer]("utils", "CheckpointSaver")(
            task.get_eval_model(), optimizer, checkpoint_dir=str(tmp_path), task=task
        )
        saver.save_checkpoint(3, 1.0)
        resume = (theirs, ours)[writer]("task", "resume_task_checkpoint")
        path = str(tmp_path / "last.pth.tar")
        assert resume(reader, path, torch.optim.SGD(reader.parameters(), 0.1), weights_only=False) == 4
        (theirs, ours)[writer]("task", "load_task_ema_checkpoint")(reader, path, weights_only=False)
        same_tensors(task.trainable_module_ema.state_dict().values(), reader.trainable_module_ema.state_dict().values())
        same_tensors(task.trainable_module.state_dict().values(), reader.trainable_module.state_dict().values())
        meta = ours("utils", "load_checkpoint_metadata")(path)
        assert meta["epoch"] == theirs("utils", "load_checkpoint_metadata")(path)["epoch"] == 3


@pytest.mark.parametrize("name", ["test_resnet", "test_vit", "xcit_nano_12_p16_224"])
def test_layers_have_the_same_rates(name):
    rates = []
    pairs = (
        both("optim", "create_optimizer_v2"),
        both("scheduler", "create_scheduler_v2"),
        both("models", "create_model"),
    )
    for create, schedule, make in zip(*pairs):
        with torch.device("meta"):
            optimizer = create(make(name), "adamw", lr=0.1, weight_decay=0.05, layer_decay=0.5)
        keys = ("lr", "lr_scale", "weight_decay")
        found = [[group[key] for key in keys] + [len(group["params"])] for group in optimizer.param_groups]
        scheduler, _ = schedule(optimizer, num_epochs=10, warmup_epochs=2, warmup_lr=1e-3)
        for epoch in range(4):
            scheduler.step(epoch)
            found += [group["lr"] for group in optimizer.param_groups]
        rates.append(found)
    assert rates[0] == rates[1]


@pytest.mark.parametrize("options", [dict(std=0.02), dict(mean=1.0, std=2.0, a=-1.0, b=1.5)])
def test_initial_values_are_drawn_alike(options):
    for name in ("trunc_normal_", "trunc_normal_tf_"):
        drawn = []
        for draw in both("layers", name):
            torch.manual_seed(5)
            drawn.append(draw(torch.empty(50), **options))
        same_tensors(*drawn, 1e-6)

"""Tasks of training scripts: losses, what checkpoints keep, scores."""

import argparse

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from imgzoo_timm.data import NaFlexMixup, mixup_target
from imgzoo_timm.loss import (
    AsymmetricLossMultiLabel,
    DistributionBalancedLoss,
    PolyBinaryCrossEntropy,
    create_classification_loss,
)
from imgzoo_timm.models import create_model
from imgzoo_timm.task import (
    ClassificationEvaluator,
    ClassificationTask,
    DistillationTeacher,
    FeatureDistillationTask,
    LogitDistillationTask,
    MultiLabelClassificationEvaluator,
    MultiLabelClassificationTask,
    TokenDistillationTask,
    load_task_ema_checkpoint,
    resume_task_checkpoint,
)
from imgzoo_timm.utils import CheckpointSaver, load_checkpoint_metadata, trim_summary, unwrap_model

IMAGES, LABELS = torch.randn(4, 3, 64, 64), torch.arange(4)


def small(name="test_resnet", **options):
    return create_model(name, num_classes=7, **options)


def test_a_task_is_a_network_and_a_loss():
    task = ClassificationTask(small(), criterion_kwargs={"smoothing": 0.1}).eval()
    found = task(IMAGES, LABELS)
    expected = F.cross_entropy(found["output"], LABELS, label_smoothing=0.1)
    torch.testing.assert_close(found["loss"], expected)
    assert len(list(task.get_clip_parameters(exclude_head=True))) == len(list(task.get_clip_parameters())) - 2
    with task.no_sync():
        found["loss"].backward()
    with pytest.raises(ValueError, match="not both"):
        ClassificationTask(small(), nn.CrossEntropyLoss(), {"smoothing": 0.1})
    with pytest.raises(ValueError, match="batch, classes"):
        MultiLabelClassificationTask(small())(IMAGES, LABELS)


def test_a_teacher_sees_images_as_it_learned_to():
    student, teacher = small(), small()
    student.pretrained_cfg["mean"], student.pretrained_cfg["std"] = (0.1, 0.2, 0.3), (0.4, 0.5, 0.6)
    task = LogitDistillationTask(student, teacher, temperature=2.0, task_loss_weight=0.25)
    assert not task.train().teacher.training and task.trainable_module.training
    found = task.eval()(IMAGES, LABELS)
    mean, std = (torch.tensor(student.pretrained_cfg[key]).view(1, 3, 1, 1) for key in ("mean", "std"))
    own = [torch.tensor(teacher.pretrained_cfg[key]).view(1, 3, 1, 1) for key in ("mean", "std")]
    with torch.no_grad():
        wanted = (teacher((IMAGES * std + mean - own[0]) / own[1]) / 2).log_softmax(1)
    copied = 4 * F.kl_div((found["output"] / 2).log_softmax(1), wanted, log_target=True, reduction="batchmean")
    torch.testing.assert_close(found["kd_loss"], copied)
    torch.testing.assert_close(found["loss"], 0.25 * found["task_loss"] + 0.75 * copied)
    with pytest.raises(TypeError, match="a name or a network"):
        DistillationTeacher(3)


def test_the_second_head_learns_from_the_teacher():
    with pytest.raises(ValueError, match="no distillation token"):
        TokenDistillationTask(small(), small())
    student = small("deit_tiny_distilled_patch16_224", img_size=64, depth=1)
    task = TokenDistillationTask(student, small(), distill_type="hard").train()
    found = task(IMAGES, LABELS)
    decided = task.taught(IMAGES).argmax(1)
    torch.testing.assert_close(found["distill_loss"], F.cross_entropy(student(IMAGES)[1], decided))
    assert "distill_loss" in task.eval()(IMAGES, LABELS)


def test_checkpoints_keep_what_a_task_has_beside_its_network(tmp_path):
    made = [FeatureDistillationTask(small("test_efficientnet"), small()) for _ in range(2)]
    for task in made:
        task.setup_ema(decay=0.5)
    with torch.no_grad():
        made[0].trainable_module.projection.bias.fill_(3.0)
    made[0].update_ema()
    assert made[0].trainable_module_ema.module.projection.bias.mean() > 1
    optimizers = [torch.optim.SGD(task.parameters(), 0.1) for task in made]
    saver = CheckpointSaver(made[0].get_eval_model(), optimizers[0], argparse.Namespace(model="test", lr=0.1),
                            checkpoint_dir=str(tmp_path), task=made[0])  # fmt: skip
    saver.save_checkpoint(3, 1.0)
    path = str(tmp_path / "last.pth.tar")
    assert resume_task_checkpoint(made[1], path, optimizers[1]) == 4
    load_task_ema_checkpoint(made[1], path)
    for ema in (False, True):
        states = [task.get_trainable_module(ema=ema).state_dict() for task in made]
        torch.testing.assert_close(*states)
    assert load_checkpoint_metadata(path)["arch"] == "test"
    torch.save({"args": argparse.Namespace(lr=1), "state_dict": {}}, tmp_path / "of_the_field.pth")
    assert load_checkpoint_metadata(str(tmp_path / "of_the_field.pth"))["args"].lr == 1
    with pytest.raises(FileNotFoundError, match="no checkpoint"):
        resume_task_checkpoint(made[1], str(tmp_path / "nowhere.pth"))
    with pytest.raises(ValueError, match="setup_ema"):
        ClassificationTask(small()).load_checkpoint_state({}, ema=True)


def test_scores_of_batches_are_those_of_all():
    output, labels = torch.randn(20, 7), torch.arange(20) % 7
    single, several = ClassificationTask(small()).create_evaluator(), ClassificationEvaluator(max_samples=13)
    for evaluator, step in ((single, 20), (several, 8)):
        for start in range(0, 20, step):
            evaluator.update(output[start : start + step], labels[start : start + step])
    assert several.num_samples == 13
    found = single.compute()
    assert found["top1"] == pytest.approx(100 * (output.argmax(1) == labels).float().mean().item())
    assert found["loss"] == pytest.approx(F.cross_entropy(output, labels).item())
    many = MultiLabelClassificationTask(small(), threshold=0.3).create_evaluator()
    assert many.threshold == 0.3 and many.compute()["map"] == 0
    dense = F.one_hot(labels, 7).float()
    many.update(100 * dense - 50, dense)
    assert all(many.compute()[key] == pytest.approx(100) for key in ("map", "micro_f1", "macro_f1", "sample_f1"))
    with pytest.raises(ValueError, match="probability"):
        MultiLabelClassificationEvaluator(threshold=1.5)


class Wrapper(nn.Module):
    def __init__(self, module):
        super().__init__()
        self.module = module


def test_a_task_tells_where_it_is_and_what_it_computes_in():
    task = ClassificationTask(small()).to(dtype=torch.float64)
    assert task.to("cpu") is task and task.dtype == torch.float64
    nn.Sequential(task).half()
    assert task.dtype == torch.float16 and task.to("meta").device.type == "meta"


def test_a_compiled_average_is_what_is_evaluated_and_follows():
    task = ClassificationTask(nn.Linear(3, 2))
    task.setup_ema(decay=0.0)
    compiled = task.compile_ema(backend="eager")
    assert task.get_eval_model(ema=True) is compiled and not any("orig" in key for key in task.state_dict())
    with torch.no_grad():
        task.trainable_module.bias.add_(1)
    task.update_ema()
    torch.testing.assert_close(compiled(X), task.trainable_module(X))


def test_what_learns_beside_a_student_has_its_groups_and_its_decay():
    student = small("test_vit")
    both = FeatureDistillationTask(student, small()).trainable_module
    assert both.no_weight_decay() == {f"student.{name}" for name in student.no_weight_decay()}
    number = both.group_matcher()
    assert number("projection.weight") == number("student.head.weight") > number("student.blocks.0.norm1.weight")
    task = FeatureDistillationTask(small("test_vit"), small())
    assert task.get_eval_model(Wrapper(task.trainable_module)) is task.trainable_module.student


def test_earlier_checkpoints_and_wrapped_names_load(tmp_path):
    task = ClassificationTask(nn.Linear(3, 2))
    state = {f"module._orig_mod.{key}": value + 1 for key, value in task.trainable_module.state_dict().items()}
    torch.save({"model": state, "epoch": 5, "version": 2}, tmp_path / "old.pth")
    assert resume_task_checkpoint(task, str(tmp_path / "old.pth")) == 6
    torch.testing.assert_close(task.trainable_module.bias.data, state["module._orig_mod.bias"])
    inner = task.trainable_module
    assert unwrap_model(Wrapper(torch.compile(Wrapper(inner), backend="eager"))) is inner


def test_scores_of_several_labels_at_their_edges(caplog):
    """From the threshold on, over all classes, soft targets as labels from one half on."""
    many = MultiLabelClassificationEvaluator()
    many.update(torch.tensor([[0.0, 1.0], [2.0, 0.0]]), torch.tensor([[0.5, 1.0], [1.0, 0.4]]))
    found = many.compute()
    assert found["map"] == pytest.approx(100) and found["micro_f1"] == pytest.approx(600 / 7)
    assert "soft targets" in caplog.text
    assert found["loss"] == pytest.approx(F.binary_cross_entropy_with_logits(
        torch.tensor([0.0, 1, 2, 0]), torch.tensor([0.5, 1, 1, 0.4])).item())  # fmt: skip
    absent = MultiLabelClassificationEvaluator(threshold=0.8)
    absent.update(torch.tensor([[1.0, -1.0], [3.0, -2.0]]), torch.tensor([[1.0, 0.0], [1.0, 0.0]]))
    assert absent.compute()["map"] == 50 and absent.compute()["macro_f1"] == pytest.approx(100 / 3)
    with pytest.raises(ValueError, match="class indices"):
        ClassificationEvaluator().update(torch.randn(2, 3), torch.ones(2, 3))
    with pytest.raises(ValueError, match="threshold"):
        MultiLabelClassificationTask(small(), threshold=1.5)


X, Y = torch.randn(4, 3), torch.tensor([[1.0, 0, 1], [0, 1, 0], [0, 0, 0], [1, 1, 1]])


@pytest.mark.parametrize("make", [AsymmetricLossMultiLabel, PolyBinaryCrossEntropy,
                                  lambda **options: DistributionBalancedLoss([1, 2, 0], 4, **options)])  # fmt: skip
def test_losses_of_answers_come_together_in_every_way(make):
    cells = make(reduction="none")(X, Y)
    assert cells.shape == (4, 3)
    for reduction, wanted in (("sum", cells.sum()), ("mean", cells.mean()), ("batchmean", cells.sum() / 4)):
        torch.testing.assert_close(make(reduction=reduction)(X, Y), wanted)
    with pytest.raises(ValueError, match="reduction"):
        make(reduction="most")


def test_losses_by_name_smooth_once_and_refuse_what_they_have_not():
    for options in (dict(loss_type="bce"), dict(loss_type="poly"), dict(loss_type="asl", multi_label=True)):
        assert create_classification_loss(smoothing=0.1, soft_targets=True, **options).smoothing == 0
    soft = torch.tensor([[0.5, 0.5, 0.0]])
    plain, smooth = (create_classification_loss(loss_type="poly", smoothing=share) for share in (0.0, 0.2))
    torch.testing.assert_close(plain(X[:1], soft), smooth(X[:1], soft))
    assert plain(X[:1], torch.tensor([1])) != smooth(X[:1], torch.tensor([1]))
    db = create_classification_loss("db", True, class_counts=[1, 2, 0], num_samples=4)
    assert db.freq_inv.isfinite().all() and db.logit_bias.isfinite().all()
    for options, said in (
        (dict(loss_type="zlpr", multi_label=True, smoothing=0.1), "smoothing"),
        (dict(loss_type="twoway", multi_label=True, soft_targets=True), "soft_targets"),
        (dict(loss_type="asl", multi_label=True, bce_sum=True), "bce_sum"), (dict(class_counts=[1]), "class_counts"),
        (dict(loss_type="asl", asl_reduction="sum"), "asl_reduction"), (dict(loss_type="poly", poly_gamma=2.0), "poly"),
        (dict(loss_type="db", multi_label=True, class_counts=[5], num_samples=4), "class_counts"),
        (dict(loss_type="twoway", multi_label=True, twoway_tp=0.0), "above 0"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=said):
            create_classification_loss(**options)


def test_mixed_targets_of_several_labels_are_smoothed_towards_one_half():
    wanted = (Y * 0.25 + Y.flip(0) * 0.75) * 0.8 + 0.1
    torch.testing.assert_close(mixup_target(Y, 3, 0.25, 0.2, multi_label=True), wanted)
    mix = NaFlexMixup(num_classes=3, multi_label=True, cutmix_alpha=0.0)
    assert torch.stack(mix([torch.randn(3, 4, 4 + i) for i in range(4)], list(Y))[1]).shape == Y.shape


def test_a_summary_ends_where_a_run_goes_on(tmp_path):
    path = tmp_path / "summary.csv"
    trim_summary(str(path), 2)
    path.write_text("epoch,loss\n0,3\n1,2\n2,1\n")
    trim_summary(str(path), 2)
    assert path.read_text().split() == ["epoch,loss", "0,3", "1,2"]


@pytest.mark.parametrize(("evaluator", "targets"), [
    (ClassificationEvaluator, torch.tensor([0, 2, 1])), (MultiLabelClassificationEvaluator, torch.eye(3)),
])  # fmt: skip
def test_losses_of_answers_in_low_precision_are_summed_in_float32(evaluator, targets):
    answers = torch.tensor([[3.1, -7.3, 0.2], [5.7, 1.3, -2.2], [0.7, 0.1, 9.3]]).bfloat16()
    low, high = evaluator(), evaluator()
    low.update(answers, targets)
    high.update(answers.double(), targets.double() if targets.is_floating_point() else targets)
    assert low.compute()["loss"] == pytest.approx(high.compute()["loss"], rel=1e-6)

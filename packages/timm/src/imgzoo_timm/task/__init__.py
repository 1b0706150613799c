"""The field's training tasks: a network with its loss, and what checkpoints keep beside its weights."""

from imgzoo_timm._door import furnish

NAMES = """
task               .task._tasks        TrainingTask
classification     .task._tasks        ClassificationTask MultiLabelClassificationTask resolve_classification_loss
distillation       .task._distillation DistillationTeacher LogitDistillationTask FeatureDistillationTask
distillation       .task._distillation FeatureDistillationTrainableModule
token_distillation .task._distillation TokenDistillationTask
evaluator          .task._evaluators   ClassificationEvaluator MultiLabelClassificationEvaluator evaluation_sample_limit
_helpers           .task._tasks        resume_task_checkpoint load_task_ema_checkpoint
-                  .loss._factory      LOSS_TYPES MULTI_LABEL_LOSS_TYPES create_classification_loss
"""

__getattr__, __dir__ = furnish(__name__, NAMES, "imgzoo trains by imgzoo_train (`imgzoo_train.fit`, `distillation`)")

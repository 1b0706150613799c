"""The field's optimizers: those of `imgzoo_optim`."""

from imgzoo_timm._door import furnish

NAMES = """
_optim_factory .optim._factory   create_optimizer create_optimizer_v2 optimizer_kwargs list_optimizers
_optim_factory .optim._factory   get_optimizer_class get_optimizer_info
_optim_factory .optim._registry  OptimizerRegistry OptimInfo default_registry
optim_factory  .optim._factory   create_optimizer create_optimizer_v2 optimizer_kwargs
optim_factory  .optim._groups    param_groups_weight_decay param_groups_layer_decay
_param_groups  .optim._groups    auto_group_layers
_param_groups  .optim._groups    param_groups_weight_decay param_groups_layer_decay
adabelief      .optim._classes   AdaBelief
adafactor      .optim._classes   Adafactor
adafactor_bv   .optim._classes   AdafactorBigVision
adahessian     .optim._classes   Adahessian
adamp          .optim._classes   AdamP
adamw          .optim._classes   AdamWLegacy
adan           .optim._classes   Adan
adopt          .optim._classes   Adopt
kron           .optim._classes   Kron
lamb           .optim._classes   Lamb
laprop         .optim._classes   LaProp
lars           .optim._classes   Lars
lion           .optim._classes   Lion
lookahead      .optim._lookahead Lookahead
madgrad        .optim._classes   MADGRAD
mars           .optim._classes   Mars
muon           .optim._classes   Muon
nadam          .optim._classes   NAdamLegacy Nadam=NAdamLegacy
nadamw         .optim._classes   NAdamW
nvnovograd     .optim._classes   NvNovoGrad NovoGrad=NvNovoGrad
novograd       .optim._classes   NovoGrad=NvNovoGrad
radam          .optim._classes   RAdamLegacy
rmsprop_tf     .optim._classes   RMSpropTF
sgdp           .optim._classes   SGDP
sgdw           .optim._classes   SGDW
-              torch.optim       Adadelta Adagrad Adam AdamW Adamax NAdam RAdam RMSprop SGD
"""

__getattr__, __dir__ = furnish(__name__, NAMES, "`imgzoo list --kind optimizer` names imgzoo's optimizers")

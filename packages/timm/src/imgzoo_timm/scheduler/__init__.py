"""The field's schedulers over the schedules of `imgzoo_optim`."""

from imgzoo_timm._door import furnish

NAMES = """
scheduler         .scheduler._schedulers  Scheduler
cosine_lr         .scheduler._schedulers  CosineLRScheduler
tanh_lr           .scheduler._schedulers  TanhLRScheduler
poly_lr           .scheduler._schedulers  PolyLRScheduler
step_lr           .scheduler._schedulers  StepLRScheduler
multistep_lr      .scheduler._schedulers  MultiStepLRScheduler
plateau_lr        .scheduler._schedulers  PlateauLRScheduler
wsd_lr            .scheduler._schedulers  WSDLRScheduler
scheduler_factory .scheduler._factory     create_scheduler create_scheduler_v2 scheduler_kwargs
"""

__getattr__, __dir__ = furnish(__name__, NAMES, "imgzoo.create_scheduler makes imgzoo's schedules")

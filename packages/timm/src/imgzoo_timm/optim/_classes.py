"""The field's optimizer classes: native rules under its names, in its order of arguments."""

from __future__ import annotations

import ast
import inspect
from typing import Any

from imgzoo.errors import OptionError
from imgzoo.options import kinds_of
from imgzoo.specs import load_target

UNUSED = {"foreach", "capturable", "differentiable", "verbose"}
"""Arguments that choose an implementation, of which a native rule has one."""
ELSEWHERE = {
    "capturable": "steps are counted on the CPU, which a graph of CUDA would leave out",
    "differentiable": "steps are not differentiated",
}


def without_unused(name: str, given: dict[str, Any], takes: Any) -> dict[str, Any]:
    """Arguments of a rule without those of another implementation; one that it cannot be is refused."""
    for word in UNUSED - set(takes):
        if given.pop(word, None) and word in ELSEWHERE:
            raise OptionError(f"{name} is not {word} here, since {ELSEWHERE[word]}: torch's own optimizers are "
                              "(adamw, nadam, sgd, ...)")  # fmt: skip
    return given


def signature_of(text: str) -> inspect.Signature:
    """`lr=1e-3, *, caution=False` as a signature behind `params`."""
    arguments = ast.parse(f"def f(params, {text}): ...").body[0].args  # type: ignore[attr-defined]
    values = [ast.literal_eval(each) for each in arguments.defaults]
    plain = [each.arg for each in arguments.args]
    defaults = [inspect.Parameter.empty] * (len(plain) - len(values)) + values
    kind = inspect.Parameter
    parameters = [kind(name, kind.POSITIONAL_OR_KEYWORD, default=value) for name, value in zip(plain, defaults)]
    parameters += [kind(each.arg, kind.KEYWORD_ONLY, default=ast.literal_eval(value))
                   for each, value in zip(arguments.kwonlyargs, arguments.kw_defaults)]  # fmt: skip
    return inspect.Signature(parameters)


def rule(name: str, target: str, text: str) -> Any:
    """A native rule as the class `name` with the arguments `text`."""
    native = load_target(f"imgzoo_optim.rules.{target}")
    signature = signature_of(text)
    takes = inspect.signature(native.__init__).parameters

    def __init__(self: Any, params: Any, *args: Any, **options: Any) -> None:
        bound = signature.bind(params, *args, **options)
        bound.apply_defaults()
        given = without_unused(name, dict(bound.arguments), takes)
        if given.get("foreach", ...) is None:
            given.pop("foreach")
        native.__init__(self, given.pop("params"), **given)

    own = inspect.Parameter("self", inspect.Parameter.POSITIONAL_OR_KEYWORD)
    kinds = kinds_of(native)
    typed = [each.replace(annotation=kinds.get(each.name, Any)) for each in signature.parameters.values()]
    __init__.__signature__ = signature.replace(parameters=[own, *typed])  # type: ignore[attr-defined]
    told = {"is_second_order": property(lambda self: self.second_order)} if hasattr(native, "second_order") else {}
    body = {"__init__": __init__, "__module__": __name__, "__doc__": native.__doc__}
    return type(name, (native,), body | told)


TWO, CAUTIOUS = "betas=(0.9, 0.999)", "caution=False"
AdaBelief = rule("AdaBelief", "adabelief:AdaBelief", f"lr=1e-3, {TWO}, eps=1e-16, weight_decay=0, amsgrad=False, "
                 "decoupled_decay=True, fixed_decay=False, rectify=True, degenerated_to_sgd=True, "
                 "foreach=None")  # fmt: skip
Adafactor = rule("Adafactor", "adafactor:Adafactor", "lr=None, eps=1e-30, eps_scale=1e-3, clip_threshold=1.0, "
                 "decay_rate=-0.8, betas=None, weight_decay=0.0, scale_parameter=True, warmup_init=False, "
                 f"min_dim_size_to_factor=16, {CAUTIOUS}")  # fmt: skip
AdafactorBigVision = rule("AdafactorBigVision", "adafactor_bv:AdafactorBigVision", "lr=1.0, min_dim_size_to_factor=16, "
                          "decay_rate=0.8, decay_offset=0, beta2_cap=0.999, momentum=0.9, momentum_dtype='bfloat16', "
                          f"eps=None, weight_decay=0.0, clipping_threshold=None, unscaled_wd=False, {CAUTIOUS}, "
                          "corrected_weight_decay=False")  # fmt: skip
Adahessian = rule("Adahessian", "adahessian:AdaHessian", f"lr=0.1, {TWO}, eps=1e-8, weight_decay=0.0, "
                  "hessian_power=1.0, update_each=1, n_samples=1, avg_conv_kernel=False")  # fmt: skip
AdamP = rule("AdamP", "adamp:AdamP", f"lr=1e-3, {TWO}, eps=1e-8, weight_decay=0, delta=0.1, wd_ratio=0.1, "
             f"nesterov=False, {CAUTIOUS}")  # fmt: skip
AdamWLegacy = rule("AdamWLegacy", "adamw:AdamW", f"lr=1e-3, {TWO}, eps=1e-8, weight_decay=1e-2, amsgrad=False, "
                   f"{CAUTIOUS}, corrected_weight_decay=False, maximize=False, foreach=None, capturable=False, "
                   "clipping_threshold=None")  # fmt: skip
Adan = rule("Adan", "adan:Adan", "lr=1e-3, betas=(0.98, 0.92, 0.99), eps=1e-8, weight_decay=0.0, no_prox=False, "
            f"{CAUTIOUS}, foreach=None")  # fmt: skip
Adopt = rule("Adopt", "adopt:ADOPT", "lr=1e-3, betas=(0.9, 0.9999), eps=1e-6, clip_exp=0.333, weight_decay=0.0, "
             f"decoupled=False, corrected_weight_decay=False, *, {CAUTIOUS}, foreach=None, maximize=False, "
             "capturable=False, differentiable=False")  # fmt: skip
Kron = rule("Kron", "kron:Kron", "lr=1e-3, momentum=0.9, weight_decay=0.0, preconditioner_update_probability=None, "
            "max_size_triangular=2048, min_ndim_triangular=2, memory_save_mode=None, "
            "momentum_into_precond_update=True, precond_lr=0.1, precond_init_scale=1.0, mu_dtype=None, "
            "precond_dtype=None, decoupled_decay=False, corrected_weight_decay=False, flatten=False, "
            "flatten_start_dim=2, flatten_end_dim=-1, stochastic_weight_decay=False, deterministic=False")  # fmt: skip
LaProp = rule("LaProp", "laprop:LaProp", f"lr=4e-4, {TWO}, eps=1e-15, weight_decay=0.0, {CAUTIOUS}, "
              "corrected_weight_decay=False, foreach=None")  # fmt: skip
Lamb = rule("Lamb", "lamb:LAMB", f"lr=1e-3, bias_correction=True, {TWO}, eps=1e-6, weight_decay=0.01, "
            f"grad_averaging=True, max_grad_norm=1.0, trust_clip=False, always_adapt=False, {CAUTIOUS}, "
            "decoupled_decay=False, corrected_weight_decay=False, foreach=None")  # fmt: skip
Lars = rule("Lars", "lars:LARS", "lr=1.0, momentum=0, dampening=0, weight_decay=0, nesterov=False, "
            "trust_coeff=0.001, eps=1e-8, trust_clip=False, always_adapt=False, foreach=None")  # fmt: skip
Lion = rule("Lion", "lion:Lion", f"lr=1e-4, betas=(0.9, 0.99), weight_decay=0.0, {CAUTIOUS}, "
            "corrected_weight_decay=False, maximize=False, foreach=None")  # fmt: skip
MADGRAD = rule("MADGRAD", "madgrad:MADGRAD", "lr=1e-2, momentum=0.9, weight_decay=0, eps=1e-6, "
               "decoupled_decay=False")  # fmt: skip
Mars = rule("Mars", "mars:MARS", "lr=3e-3, betas=(0.9, 0.99), eps=1e-8, weight_decay=0.0, gamma=0.025, "
            f"mars_type='adamw', optimize_1d=False, lr_1d_factor=1.0, betas_1d=None, {CAUTIOUS}")  # fmt: skip
Muon = rule("Muon", "muon:Muon", "lr=0.02, weight_decay=0, momentum=0.95, nesterov=False, ns_steps=5, "
            "ns_coefficients='quintic', eps=1e-7, safety_factor=1.0, adjust_lr_fn='match_rms_adamw', "
            "conv_mode='flatten', normalize_spatial=True, adamw_lr=None, fallback_lr_scale=1.0, betas=(0.9, 0.95), "
            "algo='muon', scale_eps=False, capturable=False, verbose=False")  # fmt: skip
NAdamLegacy = rule("NAdamLegacy", "nadam:NAdam", f"lr=2e-3, {TWO}, eps=1e-8, weight_decay=0, schedule_decay=4e-3")
NAdamW = rule("NAdamW", "nadamw:NAdamW", f"lr=1e-3, {TWO}, eps=1e-8, weight_decay=1e-2, {CAUTIOUS}, "
              "corrected_weight_decay=False, maximize=False, foreach=None, capturable=False, "
              "clipping_threshold=None")  # fmt: skip
NvNovoGrad = rule("NvNovoGrad", "novograd:NovoGrad", "lr=1e-3, betas=(0.95, 0.98), eps=1e-8, weight_decay=0, "
                  "grad_averaging=False, amsgrad=False, decoupled_decay=False, "
                  "corrected_weight_decay=False")  # fmt: skip
RAdamLegacy = rule("RAdamLegacy", "radam:RAdam", f"lr=1e-3, {TWO}, eps=1e-8, weight_decay=0")
RMSpropTF = rule("RMSpropTF", "rmsprop_tf:RMSpropTF", "lr=1e-2, alpha=0.9, eps=1e-10, weight_decay=0, momentum=0.0, "
                 "centered=False, decoupled_decay=False, corrected_weight_decay=False, lr_in_momentum=True, "
                 f"{CAUTIOUS}, foreach=None")  # fmt: skip
SGDP = rule("SGDP", "sgdp:SGDP", "lr, momentum=0, dampening=0, weight_decay=0, nesterov=False, eps=1e-8, delta=0.1, "
            f"wd_ratio=0.1, {CAUTIOUS}")  # fmt: skip
SGDW = rule("SGDW", "sgdw:SGDW", f"lr=1e-3, momentum=0.0, dampening=0.0, weight_decay=0.0, nesterov=False, *, "
            f"{CAUTIOUS}, corrected_weight_decay=False, maximize=False, foreach=None, "
            "differentiable=False")  # fmt: skip

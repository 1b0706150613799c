"""The table of optimizers and schedules: name, class, options, one line, paper, traits. No torch.

A row of a family is `name: (options, one line)`. Traits tell what can be passed and what is needed: `eps`, `momentum`,
`betas`, `foreach`, `fused` (torch has a fused kernel), `second-order` (call `backward(create_graph=True)`),
`closure` (`step` needs one), `groups-by-shape` (only matrices get the rule), `requires-<package>`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from imgzoo.plugin import ComponentSpec

Rows = dict[str, tuple[dict[str, Any], str]]


class Family(NamedTuple):
    """One class and the names it answers to."""

    target: str
    paper: str
    traits: str
    rows: Rows


CAUTIOUS = {"caution": True}
CORRECTED = {"corrected_weight_decay": True}
DECOUPLED = {"decoupled_decay": True}
NESTEROV = {"nesterov": True}
FACTORED_BETAS = {"betas": (0.9, 0.999)}
SPHERE = {"wd_ratio": 0.01, "nesterov": True}

TORCH = (
    Family(
        "imgzoo_optim.eager:SGD",
        "",
        "momentum foreach fused",
        {
            "sgd": (NESTEROV, "Stochastic gradient descent with Nesterov momentum"),
            "nesterov": (NESTEROV, "Stochastic gradient descent with Nesterov momentum"),
            "momentum": ({"nesterov": False}, "Stochastic gradient descent with classical momentum"),
        },
    ),
    Family(
        "imgzoo_optim.eager:Adam", "1412.6980", "eps betas foreach fused", {"adam": ({}, "Adaptive moment estimation")}
    ),
    Family(
        "imgzoo_optim.eager:AdamW", "1711.05101", "eps betas foreach fused", {"adamw": ({}, "Adam, decoupled decay")}
    ),
    Family("imgzoo_optim.eager:NAdam", "", "eps betas foreach", {"nadam": ({}, "Adam with Nesterov momentum")}),
    Family(
        "imgzoo_optim.eager:RAdam",
        "1908.03265",
        "eps betas foreach",
        {
            "radam": ({}, "Adam with the variance of its step rectified"),
            "radamw": ({"decoupled_weight_decay": True}, "Rectified Adam with decoupled decay"),
        },
    ),
    Family(
        "imgzoo_optim.eager:Adamax", "1412.6980", "eps betas foreach", {"adamax": ({}, "Adam with the infinity norm")}
    ),
    Family("imgzoo_optim.eager:Adadelta", "1212.5701", "eps foreach", {"adadelta": ({}, "Steps from running windows")}),
    Family(
        "imgzoo_optim.eager:Adagrad", "", "eps foreach fused", {"adagrad": ({"eps": 1e-8}, "Steps from summed squares")}
    ),
    Family(
        "imgzoo_optim.eager:RMSprop",
        "",
        "eps momentum foreach",
        {"rmsprop": ({"alpha": 0.9}, "Root mean square steps")},
    ),
)

MOMENTUM = (
    Family(
        "imgzoo_optim.rules.sgdw:SGDW",
        "1711.05101",
        "momentum foreach",
        {
            "sgdw": (NESTEROV, "Nesterov SGD, decoupled decay"),
            "nesterovw": (NESTEROV, "Nesterov SGD, decoupled decay"),
            "sgdc": (NESTEROV | CORRECTED, "Nesterov SGD, corrected decay"),
            "csgdw": (NESTEROV | CAUTIOUS, "Cautious Nesterov SGD, decoupled decay"),
            "csgdc": (NESTEROV | CAUTIOUS | CORRECTED, "Cautious Nesterov SGD, corrected decay"),
        },
    ),
    Family(
        "imgzoo_optim.rules.sgdp:SGDP",
        "2006.08217",
        "eps momentum foreach",
        {
            "sgdp": (NESTEROV, "SGD that keeps off the radial direction of scale-invariant weights"),
            "csgdp": (NESTEROV | CAUTIOUS, "Cautious SGDP"),
        },
    ),
    Family(
        "imgzoo_optim.rules.lars:LARS",
        "1708.03888",
        "eps momentum foreach",
        {
            "lars": ({}, "Layer-wise adaptive rates"),
            "larc": ({"trust_clip": True}, "LARS with the trust ratio clipped"),
            "nlars": (NESTEROV, "LARS with Nesterov momentum"),
            "nlarc": (NESTEROV | {"trust_clip": True}, "LARS with Nesterov momentum, trust ratio clipped"),
        },
    ),
    Family(
        "imgzoo_optim.rules.rmsprop_tf:RMSpropTF",
        "",
        "eps momentum foreach",
        {
            "rmsproptf": ({"alpha": 0.9}, "RMSprop as TensorFlow computes it: eps inside the root, squares from one"),
            "rmsproptfw": ({"alpha": 0.9} | DECOUPLED, "RMSprop as TensorFlow's, decoupled decay"),
            "rmsproptfc": ({"alpha": 0.9} | DECOUPLED | CORRECTED, "RMSprop as TensorFlow's, corrected decay"),
            "crmsproptf": ({"alpha": 0.9} | CAUTIOUS, "Cautious RMSprop as TensorFlow's"),
        },
    ),
    Family(
        "imgzoo_optim.rules.madgrad:MADGRAD",
        "2101.11075",
        "eps momentum foreach",
        {
            "madgrad": ({}, "Dual averaging with cube-root denominators"),
            "madgradw": (DECOUPLED, "MADGRAD with decoupled decay"),
        },
    ),
    Family(
        "imgzoo_optim.rules.novograd:NovoGrad",
        "1905.11286",
        "eps betas foreach",
        {
            "novograd": ({}, "Momentum over gradients normalized layer by layer"),
            "novogradw": (DECOUPLED, "NovoGrad with decoupled decay"),
            "novogradc": (DECOUPLED | CORRECTED, "NovoGrad with corrected decay"),
        },
    ),
    Family(
        "imgzoo_optim.rules.lion:Lion",
        "2302.06675",
        "betas foreach",
        {
            "lion": ({}, "The sign of an interpolated momentum"),
            "lionc": (CORRECTED, "Lion with corrected decay"),
            "clion": (CAUTIOUS, "Cautious Lion"),
            "clionc": (CAUTIOUS | CORRECTED, "Cautious Lion with corrected decay"),
        },
    ),
)

ADAM = (
    Family(
        "imgzoo_optim.rules.adamw:AdamW",
        "1711.05101",
        "eps betas foreach",
        {
            "adamwlegacy": ({}, "AdamW on this package's base: clipping and lean memory"),
            "adamc": (CORRECTED, "AdamW with corrected decay"),
            "cadamw": (CAUTIOUS, "Cautious AdamW"),
            "cadamc": (CAUTIOUS | CORRECTED, "Cautious AdamW with corrected decay"),
        },
    ),
    Family(
        "imgzoo_optim.rules.nadamw:NAdamW",
        "2306.07179",
        "eps betas foreach",
        {
            "nadamw": ({}, "AdamW with Nesterov momentum"),
            "nadamc": (CORRECTED, "NAdamW with corrected decay"),
            "cnadamw": (CAUTIOUS, "Cautious NAdamW"),
            "cnadamc": (CAUTIOUS | CORRECTED, "Cautious NAdamW with corrected decay"),
        },
    ),
    Family(
        "imgzoo_optim.rules.nadam:NAdam",
        "",
        "eps betas foreach",
        {"nadamlegacy": ({}, "Nesterov Adam with the momentum schedule of Dozat's report")},
    ),
    Family(
        "imgzoo_optim.rules.radam:RAdam",
        "1908.03265",
        "eps betas foreach",
        {"radamlegacy": ({}, "Rectified Adam as its authors published it")},
    ),
    Family(
        "imgzoo_optim.rules.adabelief:AdaBelief",
        "2010.07468",
        "eps betas foreach",
        {
            "adabelief": ({"rectify": False}, "Steps from the error of the predicted gradient"),
            "radabelief": ({"rectify": True}, "Rectified AdaBelief"),
        },
    ),
    Family(
        "imgzoo_optim.rules.adamp:AdamP",
        "2006.08217",
        "eps betas foreach",
        {
            "adamp": (SPHERE, "Adam that keeps off the radial direction of scale-invariant weights"),
            "cadamp": (SPHERE | CAUTIOUS, "Cautious AdamP"),
        },
    ),
    Family(
        "imgzoo_optim.rules.adan:Adan",
        "2208.06677",
        "eps betas foreach",
        {
            "adan": ({"no_prox": False}, "Adaptive Nesterov momentum"),
            "adanw": ({"no_prox": True}, "Adan with decay applied first, as AdamW does"),
            "cadan": ({"no_prox": False} | CAUTIOUS, "Cautious Adan"),
            "cadanw": ({"no_prox": True} | CAUTIOUS, "Cautious Adan with decay applied first"),
        },
    ),
    Family(
        "imgzoo_optim.rules.adopt:ADOPT",
        "2411.02853",
        "eps betas foreach",
        {
            "adopt": ({}, "Adam that converges with any beta2"),
            "adoptw": ({"decoupled": True}, "ADOPT with decoupled decay"),
            "adoptc": ({"decoupled": True} | CORRECTED, "ADOPT with corrected decay"),
            "cadopt": (CAUTIOUS, "Cautious ADOPT"),
            "cadoptw": ({"decoupled": True} | CAUTIOUS, "Cautious ADOPT with decoupled decay"),
            "cadoptc": ({"decoupled": True} | CAUTIOUS | CORRECTED, "Cautious ADOPT with corrected decay"),
        },
    ),
    Family(
        "imgzoo_optim.rules.lamb:LAMB",
        "1904.00962",
        "eps betas foreach",
        {
            "lamb": ({}, "Adam with layer-wise trust ratios, for large batches"),
            "lambc": ({"trust_clip": True}, "LAMB with the trust ratio clipped"),
            "lambw": (DECOUPLED, "LAMB with decoupled decay"),
            "lambcw": ({"trust_clip": True} | DECOUPLED, "LAMB with decoupled decay, trust ratio clipped"),
            "lambcd": (DECOUPLED | CORRECTED, "LAMB with corrected decay"),
            "clamb": (CAUTIOUS, "Cautious LAMB"),
            "clambw": (CAUTIOUS | DECOUPLED, "Cautious LAMB with decoupled decay"),
        },
    ),
    Family(
        "imgzoo_optim.rules.laprop:LaProp",
        "2002.04839",
        "eps betas foreach",
        {
            "laprop": ({}, "Momentum over normalized gradients"),
            "lapropc": (CORRECTED, "LaProp with corrected decay"),
            "claprop": (CAUTIOUS, "Cautious LaProp"),
        },
    ),
    Family(
        "imgzoo_optim.rules.mars:MARS",
        "2411.10438",
        "eps betas foreach",
        {
            "mars": ({}, "AdamW over variance-reduced gradients"),
            "cmars": (CAUTIOUS, "Cautious MARS"),
        },
    ),
)

MATRIX = (
    Family(
        "imgzoo_optim.rules.adafactor:Adafactor",
        "1804.04235",
        "eps betas foreach",
        {
            "adafactor": ({}, "Adam with factored second moments"),
            "cadafactor": (FACTORED_BETAS | CAUTIOUS, "Cautious Adafactor"),
        },
    ),
    Family(
        "imgzoo_optim.rules.adafactor_bv:AdafactorBigVision",
        "2106.04560",
        "eps momentum foreach",
        {
            "adafactorbv": ({}, "Adafactor as Big Vision trains with it: half-precision momentum"),
            "adafactorbvc": (CORRECTED, "Big Vision's Adafactor with corrected decay"),
            "cadafactorbv": (CAUTIOUS, "Cautious Big Vision's Adafactor"),
            "cadafactorbvc": (CAUTIOUS | CORRECTED, "Cautious Big Vision's Adafactor with corrected decay"),
        },
    ),
    Family(
        "imgzoo_optim.rules.adahessian:AdaHessian",
        "2006.00719",
        "eps betas second-order",
        {"adahessian": ({}, "Adam over a Hutchinson estimate of the Hessian's diagonal")},
    ),
    Family(
        "imgzoo_optim.rules.kron:Kron",
        "1512.04202",
        "momentum",
        {
            "kron": ({}, "PSGD with Kronecker-factored preconditioners"),
            "kronw": (DECOUPLED, "PSGD Kron with decoupled decay"),
            "kronc": (DECOUPLED | CORRECTED, "PSGD Kron with corrected decay"),
        },
    ),
    Family(
        "imgzoo_optim.rules.muon:Muon",
        "2502.16982",
        "eps momentum betas groups-by-shape",
        {
            "muon": ({}, "Momentum orthogonalized by Newton-Schulz; AdamW for what is no matrix"),
            "nmuon": (NESTEROV, "Muon with Nesterov momentum; NAdamW for what is no matrix"),
            "adamuon": ({"algo": "adamuon"}, "Muon with second moments of the orthogonalized direction"),
            "nadamuon": ({"algo": "adamuon"} | NESTEROV, "AdaMuon with Nesterov momentum"),
        },
    ),
)

BEYOND = (
    Family(
        "imgzoo_optim.rules.schedule_free:ScheduleFreeSGD",
        "2405.15682",
        "momentum foreach",
        {"schedulefreesgd": ({}, "SGD that needs no schedule: gradients at an interpolated average")},
    ),
    Family(
        "imgzoo_optim.rules.schedule_free:ScheduleFreeAdamW",
        "2405.15682",
        "eps betas foreach",
        {"schedulefreeadamw": ({}, "AdamW that needs no schedule: gradients at an interpolated average")},
    ),
    Family(
        "imgzoo_optim.sam:build",
        "2010.01412",
        "closure",
        {
            "sam": ({"base": "sgd"}, "Sharpness-aware minimization around any optimizer (base=...)"),
            "asam": ({"base": "sgd", "adaptive": True}, "Adaptive sharpness-aware minimization (2102.11600)"),
        },
    ),
)

FOREIGN = (
    Family(
        "imgzoo_optim.foreign:bitsandbytes",
        "2110.02861",
        "requires-bitsandbytes",
        {
            "bnbsgd": ({"cls": "SGD"} | NESTEROV, "bitsandbytes SGD"),
            "bnbsgd8bit": ({"cls": "SGD8bit"} | NESTEROV, "bitsandbytes SGD, 8-bit state"),
            "bnbadam": ({"cls": "Adam"}, "bitsandbytes Adam"),
            "bnbadam8bit": ({"cls": "Adam8bit"}, "bitsandbytes Adam, 8-bit state"),
            "bnbadamw": ({"cls": "AdamW"}, "bitsandbytes AdamW"),
            "bnbadamw8bit": ({"cls": "AdamW8bit"}, "bitsandbytes AdamW, 8-bit state"),
            "bnblion": ({"cls": "Lion"}, "bitsandbytes Lion"),
            "bnblion8bit": ({"cls": "Lion8bit"}, "bitsandbytes Lion, 8-bit state"),
            "bnbademamix": ({"cls": "AdEMAMix"}, "bitsandbytes AdEMAMix"),
            "bnbademamix8bit": ({"cls": "AdEMAMix8bit"}, "bitsandbytes AdEMAMix, 8-bit state"),
        },
    ),
    Family(
        "imgzoo_optim.foreign:apex",
        "",
        "requires-apex",
        {
            "fusedsgd": ({"cls": "FusedSGD"} | NESTEROV, "apex SGD"),
            "fusedadam": ({"cls": "FusedAdam", "adam_w_mode": False}, "apex Adam"),
            "fusedadamw": ({"cls": "FusedAdam", "adam_w_mode": True}, "apex AdamW"),
            "fusedlamb": ({"cls": "FusedLAMB"}, "apex LAMB"),
            "fusednovograd": ({"cls": "FusedNovoGrad", "betas": (0.95, 0.98)}, "apex NovoGrad"),
        },
    ),
)

HAS_MOMENTUM = {"bnbsgd", "bnbsgd8bit", "fusedsgd"}

SCHEDULES: Rows = {
    "constant": ({}, "The base value, after any warm-up"),
    "none": ({}, "The same under the field's name for no schedule"),
    "cosine": ({}, "Half a cosine down, with restarts (1608.03983)"),
    "tanh": ({}, "A hyperbolic tangent down, with restarts (1806.01593)"),
    "poly": ({}, "A power of the remaining share, with restarts"),
    "step": ({}, "A factor every so many updates"),
    "multistep": ({}, "A factor at each milestone"),
    "wsd": ({}, "Warm up, stay, decay (2404.06395)"),
    "rsqrt": ({"stable": "rsqrt"}, "Warm up, inverse square root, decay (2106.04560)"),
    "plateau": ({}, "A factor when a metric stops getting better"),
}


def optimizers() -> list[ComponentSpec]:
    """One row for each optimizer name."""
    rows: list[ComponentSpec] = []
    for family in (*TORCH, *MOMENTUM, *ADAM, *MATRIX, *BEYOND, *FOREIGN):
        for name, (kwargs, text) in family.rows.items():
            traits = {*family.traits.split(), *({"momentum"} if name in HAS_MOMENTUM else ())}
            rows.append(ComponentSpec(name, family.target, kwargs, text, family.paper, frozenset(traits)))
    return rows


def schedulers() -> list[ComponentSpec]:
    """One row for each schedule name; `target` builds a `Schedule` or a `PlateauSchedule`."""
    targets = {"plateau": "plateau:PlateauSchedule", "rsqrt": "schedules:wsd", "none": "schedules:constant"}
    return [
        ComponentSpec(name, f"imgzoo_optim.{targets.get(name, f'schedules:{name}')}", kwargs, text)
        for name, (kwargs, text) in SCHEDULES.items()
    ]

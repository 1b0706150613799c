"""Which distribution of imgzoo brings a name that nothing installed knows; only error messages read this. No torch."""

from __future__ import annotations

import re

STEMS = {  # the leading letters of model names
    "imgzoo-archs-cnn": """
        adv bat botnet convmixer convnext convnextv cs cspdarknet cspnext cspresnet cspresnext darknet darknetaa
        densenet densenetblur dla dm dpn eca ecaresnet ecaresnetlight ecaresnext ens ese fasternet gcresnet gcresnext
        gernet gluon halo halonet haloregnetz hgnet hgnetv hrnet ig inception lambda lamhalobotnet legacy mambaout
        mobileone mobilevit mobilevitv nasnetalarge nf nfnet byobnet pnasnet rdnet regnetv regnetx regnety regnetz
        repvgg repvit res resnest resnet resnetaa resnetblur resnetrs resnetv resnext sebotnet sedarknet sehalonet
        selecsls senet seresnet seresnetaa seresnext seresnextaa skresnet skresnext ssl starnet swsl tresnet tv vgg
        vovnet wide xception""",
    "imgzoo-archs-transformer": """
        aimv beit beitv caformer cait coat coatnet coatnext convformer convit cpubone crossvit csatv davit deepseek
        deit edgenext efficientformer efficientformerv efficientvim efficientvit eva fastvit flexivit focalnet gcvit
        gemma gmixer gmlp hiera hieradet iformer jx levit lowformer maxvit maxxvit maxxvitv mixer mvitv naflexvit
        nest nextvit pit poolformer poolformerv pvt qwen resmlp sam samvit sequencer shvit swiftformer swin swinv
        tiny tnt twins visformer vit vitamin volo xcit""",
    "imgzoo-archs-efficientnet": """
        efficientnet efficientnetv fbnetc fbnetv gc ghostnet ghostnetv hardcorenas lcnet lcnetv mixnet mnasnet
        mobilenet mobilenetv repghostnet rexnet rexnetr semnasnet spnasnet tinynet""",
}
COMPONENTS = {
    "optimizer": "imgzoo-optim",
    "scheduler": "imgzoo-optim",
    "dataset": "imgzoo-data",
    "transform": "imgzoo-data",
    "loss": "imgzoo-train",
    "logger": "imgzoo-train",
    "trainer": "imgzoo-train",
}
COMMANDS = {
    "imgzoo-optim": "schedule",
    "imgzoo-data": "data",
    "imgzoo-train": "average benchmark clean embed explain export launch predict probe push recommend report search "
    "sweep train validate",
}


def home(noun: str, name: str) -> str:
    """The distribution of imgzoo that brings this kind of name, "" if none is known to."""
    if noun == "model":
        stem = re.match(r"(?:test_|tf_)?([a-z]*)", name)
        letters = stem[1] if stem else ""
        return next((dist for dist, stems in STEMS.items() if letters in stems.split()), "")
    if noun == "command":
        return next((dist for dist, names in COMMANDS.items() if name in names.split()), "")
    return COMPONENTS.get(noun, "")

"""Every deprecated name of a registered family warns once and leads to the name and tag that replaced it."""

import json
import warnings
from pathlib import Path

import pytest

from imgzoo.errors import ImgzooDeprecationWarning
from imgzoo.loading import locate
from imgzoo.models import resolve_model
from imgzoo.registry import registry

FACTS = json.loads((Path(__file__).parent / "facts" / "deprecated.json").read_text())
CORRECTED = {  # the reference points these at tags that do not exist, or at another network than they name
    "vit_base_patch16_224_sam": "vit_base_patch16_224.sam_in1k",
    "vit_base_patch32_224_sam": "vit_base_patch32_224.sam_in1k",
    "ig_resnext101_32x16d": "resnext101_32x16d.fb_wsl_ig1b_ft_in1k",
    "ig_resnext101_32x32d": "resnext101_32x32d.fb_wsl_ig1b_ft_in1k",
}
NAMES = {old: CORRECTED.get(old, new) for old, new in FACTS.items()}
OURS = {old: new for old, new in NAMES.items() if new.partition(".")[0] in registry("models")}


def test_registered_families_have_deprecated_names():
    assert len(OURS) > 100


def test_every_alias_of_the_catalog_is_a_fact():
    aliases = {old: new for spec in registry("models").specs() if spec.plugin.startswith("archs-")
               for old, new in spec.aliases.items()}  # fmt: skip
    assert aliases == OURS


@pytest.mark.parametrize("old, new", OURS.items(), ids=list(OURS))
def test_deprecated_name(old, new):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        spec, weights = resolve_model(old)
    assert [w.category for w in caught] == [ImgzooDeprecationWarning]
    assert f"'{old}'" in str(caught[0].message) and f"'{new}'" in str(caught[0].message)
    arch, _, tag = new.partition(".")
    assert spec.name == arch
    if tag:
        assert weights is not None and weights.tag == tag


@pytest.mark.filterwarnings("ignore::imgzoo.errors.ImgzooDeprecationWarning")
def test_creation_takes_the_tag_of_a_deprecated_name():
    tags = {old: new.partition(".")[2] for old, new in OURS.items()}
    assert {old: locate(old).weights.tag for old, tag in tags.items() if tag} == {o: t for o, t in tags.items() if t}

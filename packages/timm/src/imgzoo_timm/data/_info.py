"""Names of the classes of data sets, and what they mean."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Mapping
from typing import Any, NamedTuple

from imgzoo.errors import UnknownNameError, UsageError
from imgzoo_data import info as native


class UnnamedError(UsageError, UnknownNameError):
    """A class number without a name."""


class DatasetInfo(ABC):
    """What scripts ask of the classes of a data set; one of their own answers it too."""

    @abstractmethod
    def num_classes(self) -> int:
        """How many classes there are."""

    @abstractmethod
    def label_names(self) -> Any:
        """Names in class order, or by class number."""

    @abstractmethod
    def label_descriptions(self, detailed: bool = False, as_dict: bool = False) -> Any:
        """Descriptions in class order, or by name."""

    @abstractmethod
    def index_to_label_name(self, index: int) -> str:
        """The name of a class."""

    @abstractmethod
    def index_to_description(self, index: int, detailed: bool = False) -> str:
        """The description of a class."""

    @abstractmethod
    def label_name_to_description(self, label: str, detailed: bool = False) -> str:
        """The description of a name."""

    def label_indices(self) -> tuple[int, ...]:
        """Class numbers that have a name."""
        names = self.label_names()
        return tuple(sorted(map(int, names))) if isinstance(names, Mapping) else tuple(range(len(names)))

    def has_label(self, index: int) -> bool:
        return int(index) in self.label_indices()


class Known(DatasetInfo):
    """The classes of one of imgzoo's; with `numbers` those have gaps."""

    info: native.DatasetInfo
    numbers: tuple[int, ...] | None = None

    def num_classes(self) -> int:
        return self.info.num_classes

    def label_names(self) -> Any:
        names = self.info.label_names
        return names if self.numbers is None else dict(zip(self.numbers, names))

    def label_descriptions(self, detailed: bool = False, as_dict: bool = False) -> Any:
        told = self.info.label_descriptions(detailed)
        return dict(zip(self.info.label_names, told)) if as_dict else told

    def index_to_label_name(self, index: int) -> str:
        if self.numbers is not None and int(index) not in self.numbers:
            raise UnnamedError(f"class {index} has no name: {', '.join(map(str, self.numbers))} have")
        return self.info.index_to_label_name(int(index) if self.numbers is None else self.numbers.index(int(index)))

    def index_to_description(self, index: int, detailed: bool = False) -> str:
        return self.label_name_to_description(self.index_to_label_name(index), detailed)

    def label_name_to_description(self, label: str, detailed: bool = False) -> str:
        return self.info.describe(label, detailed)


class CustomDatasetInfo(Known):
    """Names in class order, or by class numbers, which may have gaps."""

    def __init__(self, label_names: Any, label_descriptions: Any = None):
        self.given, names = label_names, list(label_names)
        if isinstance(label_names, Mapping):
            self.numbers, names = tuple(map(self._number, label_names)), list(label_names.values())
            twice = [number for number, count in Counter(self.numbers).items() if count > 1]
            if twice:
                raise UsageError(f"Duplicate label index {twice[0]}: one name a class")
        if not names:
            raise UsageError("label_names has no name: a list, or a table of class numbers and names")
        self.info = native.DatasetInfo(names, label_descriptions)

    @staticmethod
    def _number(label: Any) -> int:
        """A class number, or one in digits, as JSON has its keys."""
        if isinstance(label, (bool, float)) or not str(label).isdecimal():
            raise UsageError(f"a class number is integer-like and at least 0, not {label!r}")
        return int(label)

    def label_names(self) -> Any:
        """As they were given."""
        return self.given if self.numbers is not None else super().label_names()

    def label_descriptions(self, detailed: bool = False, as_dict: bool = False) -> dict[str, str]:
        """By name either way, as scripts of the field read them."""
        return super().label_descriptions(detailed, as_dict=True)


class ImageNetInfo(Known):
    """One of the label sets of ImageNet, by synsets."""

    def __init__(self, subset: str = "imagenet-1k"):
        self.info = native.ImageNetInfo(subset)


class LabelMappingCoverage(NamedTuple):
    """How many of a model's classes have a name, how many have none, and how many names are of no class of it."""

    mapped: int
    missing: int
    extra: int


class DatasetInfoLabelMapper:
    """What to call a class: by its `name`, `description` or `detailed`; classes without one by `fallback_format`."""

    def __init__(self, dataset_info: DatasetInfo, label_type: str = "description",
                 fallback_format: str | None = "<unmapped:{index}>"):  # fmt: skip
        if label_type not in ("name", "description", "detailed"):
            raise UsageError(f"label_type is name, description or detailed, not {label_type!r}")
        self.dataset_info, self.label_type, self.fallback_format = dataset_info, label_type, fallback_format

    def __call__(self, index: Any) -> str:
        number, info = int(index), self.dataset_info
        if self.fallback_format is not None and not info.has_label(number):
            return self.fallback_format.format(index=number)
        if self.label_type == "name":
            return info.index_to_label_name(number)
        return info.index_to_description(number, self.label_type == "detailed")

    def coverage(self, num_classes: int) -> LabelMappingCoverage:
        known = self.dataset_info.label_indices()
        mapped = sum(number < num_classes for number in known)
        return LabelMappingCoverage(mapped, num_classes - mapped, len(known) - mapped)

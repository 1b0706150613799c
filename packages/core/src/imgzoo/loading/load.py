from typing import Any


class LoadReport: ...


def load_checkpoint(*a: Any):
    raise NotImplementedError


def create_pretrained(*a: Any):
    raise NotImplementedError

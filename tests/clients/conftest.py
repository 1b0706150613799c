"""Clients of timm, on imgzoo: `nox -s clients`. With `IMGZOO_CLIENTS_PEER=1` they run on timm itself, to compare."""

import os
import warnings

import pytest
import torch

import imgzoo_timm

if not os.environ.get("IMGZOO_CLIENTS_PEER"):
    imgzoo_timm.install(force=True)


def pytest_configure(config):
    warnings.simplefilter("ignore")
    config.addinivalue_line("filterwarnings", "ignore")  # what clients warn of is theirs


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


@pytest.fixture
def images():
    return torch.randn(2, 3, 64, 64)

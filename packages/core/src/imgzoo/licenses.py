"""Licenses of weights as SPDX ids, and which of them allow any use. No torch."""

from __future__ import annotations

import re

PERMISSIVE = ("Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "CC-BY-4.0", "CC0-1.0", "ISC", "MIT", "Unlicense", "Zlib")
"""Licenses that allow commercial use and redistribution under notice only."""

REFERENCE = re.compile(r"LicenseRef-[A-Za-z0-9.-]+")


def spdx(license: str) -> str:
    """The SPDX spelling of a license or of an expression of several, `LicenseRef-<name>` for one that SPDX does not
    know, "" for none."""
    from packaging.licenses import InvalidLicenseExpression, canonicalize_license_expression

    license = license.strip()
    if not license or REFERENCE.fullmatch(license):
        return license
    try:
        return canonicalize_license_expression(license)
    except InvalidLicenseExpression:
        return "LicenseRef-" + re.sub(r"[^A-Za-z0-9.-]+", "-", license)


def is_known(license: str) -> bool:
    """Whether a catalog may carry this license: one that SPDX knows, in its spelling, or a `LicenseRef-`."""
    return bool(license) and spdx(license) == license


def is_permissive(license: str) -> bool:
    """Whether a license allows any use; an unknown one never does."""
    return license in PERMISSIVE

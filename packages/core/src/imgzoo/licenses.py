"""Licenses of weights as SPDX ids, and which of them allow any use. No torch."""

from __future__ import annotations

import re

PERMISSIVE = ("Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "CC-BY-4.0", "CC0-1.0", "ISC", "MIT", "Unlicense", "Zlib")
"""Licenses that allow commercial use and redistribution under notice only."""

RESTRICTED = (
    "AGPL-3.0-only",
    "AGPL-3.0-or-later",
    "CC-BY-NC-4.0",
    "CC-BY-NC-ND-4.0",
    "CC-BY-NC-SA-4.0",
    "CC-BY-ND-4.0",
    "CC-BY-SA-4.0",
    "GPL-2.0-only",
    "GPL-3.0-only",
    "GPL-3.0-or-later",
    "LGPL-2.1-only",
    "LGPL-3.0-only",
    "MPL-2.0",
)
"""Known SPDX ids with conditions of their own."""

REFERENCE = re.compile(r"LicenseRef-[A-Za-z0-9.-]+")
_KNOWN = {known.lower(): known for known in (*PERMISSIVE, *RESTRICTED)}


def spdx(license: str) -> str:
    """The SPDX spelling of a license name, `LicenseRef-<name>` for one that SPDX does not know, "" for none."""
    license = license.strip()
    if not license or REFERENCE.fullmatch(license):
        return license
    return _KNOWN.get(license.lower()) or "LicenseRef-" + re.sub(r"[^A-Za-z0-9.-]+", "-", license)


def is_known(license: str) -> bool:
    """Whether a catalog may carry this license: an SPDX id of the tables here, or a `LicenseRef-`."""
    return license in _KNOWN.values() or REFERENCE.fullmatch(license) is not None


def is_permissive(license: str) -> bool:
    """Whether a license allows any use; an unknown one never does."""
    return license in PERMISSIVE

"""Which licenses of weights may be used: `IMGZOO_LICENSE_POLICY` is "any", "permissive" or a list of SPDX ids."""

from __future__ import annotations

import os

from imgzoo.errors import LicenseError, UsageError
from imgzoo.licenses import is_known, is_permissive, spdx


def check_license(license: str, what: str) -> None:
    """Raise `LicenseError` when the policy forbids weights of this license; an unknown one is never permissive."""
    policy = os.environ.get("IMGZOO_LICENSE_POLICY", "any").strip() or "any"
    if policy == "any":
        return
    known = spdx(license) if license else ""
    if policy == "permissive":
        allowed = is_permissive(known)
    else:
        names = {spdx(each) for each in policy.split(",") if each.strip()}
        unreadable = sorted(name for name in names if not is_known(name))
        if unreadable:
            raise UsageError(f"IMGZOO_LICENSE_POLICY names unknown licenses: {', '.join(unreadable)}")
        allowed = known in names
    if not allowed:
        raise LicenseError(f"{what} is under {known or 'an unknown license'}, which the policy '{policy}' forbids")

"""What this process does with the memory it has freed, and how one knows that there is too little. No torch here."""

from __future__ import annotations

import ctypes

from imgzoo.text import told

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
GIVEN_BACK = 1 << 30
"""Blocks above this many bytes, and twice as much unused at the end of the heap, still return to the system."""
OLDER_GLIBC = 32 << 20


def is_short(error: BaseException) -> bool:
    """Whether an error says that there is not enough memory, of Python, of torch here, or on an accelerator."""
    kinds = {each.__name__ for each in type(error).__mro__}
    return bool(kinds & {"MemoryError", "OutOfMemoryError"}) or "DefaultCPUAllocator" in told(error)


def keep_memory() -> bool:
    """Keep freed memory for the next image or batch; False where the C library is not glibc.

    By default glibc returns every block above 32 MB at once, and the kernel clears and maps the next one page by page:
    a quarter of ConvNeXt's forward pass on a CPU. This holds for the whole process, which then keeps about the most
    that it ever needed, up to the bounds above; `malloc_trim(0)` gives it back.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):
        return False
    accepted = mallopt(M_MMAP_THRESHOLD, GIVEN_BACK) or mallopt(M_MMAP_THRESHOLD, OLDER_GLIBC)
    return bool(accepted and mallopt(M_TRIM_THRESHOLD, 2 * GIVEN_BACK - 1))

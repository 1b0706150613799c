"""`python -m imgzoo_train.ranks.elastic`: torchrun that ends as the rank that failed did."""

from __future__ import annotations

import logging
import sys


def main() -> int:
    """Run torchrun's arguments; returns the exit code of the first rank that failed, 128 + n after signal n."""
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.run import main as torchrun

    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)
    try:
        torchrun(sys.argv[1:])
    except ChildFailedError as error:
        rank, failure = error.get_first_failure()
        code = failure.exitcode
        if code < 0:
            print(f"imgzoo: rank {rank} was ended by signal {-code}; --max-restarts starts it again", file=sys.stderr)
        return code if code >= 0 else 128 - code
    except SignalException as error:  # the ranks were told and have saved
        return 128 + int(error.sigval)
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""`python -m imgzoo` is the `imgzoo` command."""

from imgzoo.cli import main

main()

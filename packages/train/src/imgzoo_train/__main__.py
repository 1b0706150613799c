"""`python -m imgzoo_train` is the `imgzoo` program: what `imgzoo launch` starts on every rank."""

from imgzoo.cli import main

main()

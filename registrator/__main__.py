"""`python -m registrator` is the command `registrator`."""

from registrator.cli import main

main()

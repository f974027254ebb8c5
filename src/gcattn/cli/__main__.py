"""`python -m gcattn.cli`: the command without its script."""

from gcattn.cli import main

main()

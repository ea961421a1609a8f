"""`python -m preimage` is the `preimage` command; what accelerate and torchrun can start."""

from preimage.cli import main

main()

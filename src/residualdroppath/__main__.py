"""`python -m residualdroppath` is `rdp`; so are `torchrun -m residualdroppath` and other launchers."""

from .cli.main import main

if __name__ == "__main__":
    main()

"""`python -m residualdroppath` is `rdp`: for launchers, which start a module."""

from .cli.main import main

if __name__ == "__main__":
    main()

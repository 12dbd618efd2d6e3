"""`python -m refold`: the command line, where the `refold` script is not on PATH."""

from refold.services.cli import main

if __name__ == "__main__":
    main()

"""``python -m quantrs``: the same as the ``quantrs`` command."""

from quantrs.cli import main

if __name__ == "__main__":
    main()

"""``python -m proact``: the ``proact`` command; ``python -m proact script.py`` runs a program."""

from proact.cli import main

if __name__ == "__main__":
    main(by_module=True)

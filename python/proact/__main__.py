"""``python -m proact`` runs the ``proact`` command."""

from proact.cli import main

if __name__ == "__main__":
    main()

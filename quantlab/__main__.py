"""``python -m quantlab`` is the command ``quantlab``."""

from quantlab.cli import main

if __name__ == "__main__":
    main()

"""``python -m quantgate``."""

from quantgate.cli import main

main()

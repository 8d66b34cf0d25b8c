"""``python -m srgnn`` is the ``srgnn`` command."""

from .cli import main

main()

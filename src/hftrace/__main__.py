"""``python -m hftrace``: the ``hftrace`` command."""

from hftrace.cli.main import main

main()

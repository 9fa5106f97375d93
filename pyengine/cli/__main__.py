"""``python -m pyengine.cli``: the same as the ``pyengine`` script."""

from pyengine.cli.main import main

main()

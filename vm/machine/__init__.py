"""Disposable virtual machines: a Debian kernel over this machine's own files, for one command.

``host`` finds programs and keeps the cache, ``compression`` and ``kernel`` prepare kernels and their modules,
``initramfs`` packs what the guest starts with, ``guest`` says what the guest gives to its command, ``qemu`` and
``uml`` make command lines, ``probe`` chooses the engine, ``session`` starts the processes and carries output.
Only the standard library is used: ``vm/run`` works before anything of the project is installed.
"""

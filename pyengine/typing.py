"""`override` for Python 3.11 (typing has it from 3.12 on), without a dependency at run time."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from typing_extensions import override
else:
    _Method = TypeVar("_Method")

    def override(method: _Method) -> _Method:
        """Mark a method that replaces one of a base class; mypy checks that it does."""
        return method


__all__ = ["override"]

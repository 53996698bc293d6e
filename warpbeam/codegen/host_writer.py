"""What a language must offer for a model's entry to be printed in it. Values are texts of int64s or addresses."""

from __future__ import annotations

from abc import ABC, abstractmethod


class Writer(ABC):
    """Writes one function of straight code, branches and loops over int64 variables."""

    @abstractmethod
    def declare(self, kernel: str, buffers: int, scalars: int) -> None:
        """Declares a kernel of another module."""

    @abstractmethod
    def begin(self, name: str) -> None:
        """Starts the entry."""

    @abstractmethod
    def end(self) -> str:
        """Ends the entry with status 0 and gives the whole text."""

    def begin_part(self) -> None:  # noqa: B027 - a language may write everything in one function
        """What follows, up to `end_part`, may become a function of its own: no value is used across."""

    def end_part(self) -> None:  # noqa: B027
        """Ends a part."""

    @abstractmethod
    def return_ok(self) -> None:
        """Returns 0 from here."""

    # values
    @abstractmethod
    def number(self, value: int) -> str: ...

    @abstractmethod
    def op(self, operator: str, *operands: str) -> str:
        """An operator of shape expressions."""

    @abstractmethod
    def variable(self, name: str) -> None:
        """Declares a variable, 0 at first."""

    @abstractmethod
    def get(self, name: str) -> str: ...

    @abstractmethod
    def set(self, name: str, value: str) -> None: ...

    @abstractmethod
    def load(self, address: str, offset: int, dtype: str) -> str:
        """An integer in memory."""

    # arguments and context
    @abstractmethod
    def count(self) -> str:
        """The number of tensors given."""

    @abstractmethod
    def context(self, field: str) -> str:
        """abi_version or flags."""

    @abstractmethod
    def section(self, name: str) -> str:
        """The address of constants, params or arena."""

    @abstractmethod
    def field(self, index: int, name: str) -> str:
        """ndim of a tensor, or dtype: code | bits << 8 | lanes << 16."""

    @abstractmethod
    def extent(self, index: int, axis: int) -> str: ...

    @abstractmethod
    def stride(self, index: int, axis: int) -> str:
        """A stride of a tensor in elements, the compact one where it states none."""

    @abstractmethod
    def set_extent(self, index: int, axis: int, value: str) -> None: ...

    @abstractmethod
    def data(self, index: int) -> str:
        """The address of a tensor's first element."""

    @abstractmethod
    def absent(self, index: int) -> str:
        """Whether a tensor has no data."""

    @abstractmethod
    def set_data(self, index: int, address: str) -> None:
        """Makes a tensor's data begin at an address."""

    @abstractmethod
    def check_compact(self, index: int, message: str) -> None: ...

    # addresses
    @abstractmethod
    def offset(self, address: str, amount: str) -> str: ...

    @abstractmethod
    def pointer_variable(self, number: int) -> None: ...

    @abstractmethod
    def get_pointer(self, number: int) -> str: ...

    @abstractmethod
    def set_pointer(self, number: int, address: str) -> None: ...

    # effects
    @abstractmethod
    def check(self, condition: str, message: str) -> None:
        """Fails with a message if the condition is 0."""

    @abstractmethod
    def reserve(self, size: str) -> None:
        """Makes the arena at least so large."""

    @abstractmethod
    def copy(self, target: str, source: str, size: str) -> None: ...

    @abstractmethod
    def call(self, kernel: str, buffers: list[str], scalars: list[str]) -> None:
        """Calls a kernel; a non-zero status is returned."""

    # control
    @abstractmethod
    def if_(self, condition: str) -> None: ...

    @abstractmethod
    def else_(self) -> None: ...

    @abstractmethod
    def end_if(self) -> None: ...

    @abstractmethod
    def loop(self) -> None: ...

    @abstractmethod
    def while_(self, condition: str) -> None:
        """Leaves the loop if the condition is 0."""

    @abstractmethod
    def end_loop(self) -> None: ...

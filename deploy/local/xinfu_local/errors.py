"""The one error of the local stack: its message says what is wrong and what to do."""


class StackError(RuntimeError):
    """The local stack cannot start, or a part of it did not do what was asked."""

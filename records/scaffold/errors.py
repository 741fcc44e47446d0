"""Errors in the arguments of `startresource`."""


class SpecificationError(Exception):
    """An invalid argument. The message shows it with a caret at `position`, if `text` is given."""

    def __init__(self, message: str, text: str = "", position: int = 0) -> None:
        super().__init__(f"{message}\n    {text}\n    {' ' * position}^" if text else message)

"""What the engine's parts raise."""


class EngineError(Exception):
    """There is no engine to be had.

    :ivar message: what is wrong, in one sentence.
    :ivar hint: what to do about it.
    """

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

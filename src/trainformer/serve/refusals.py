"""A request that gets no answer: a status, a code for programs and a sentence for people. There are no other errors."""

import math
from typing import Any


class Refusal(Exception):
    """Raised anywhere below a route; the client reads `{"error": {"code": ..., "message": ...}}`."""

    def __init__(self, status: int, code: str, message: str, *, retry_after: float | None = None, **more: Any):
        super().__init__(message)
        self.status, self.code, self.message, self.more = status, code, message, more
        self.retry_after = retry_after
        self.headers = {} if retry_after is None else {"retry-after": str(max(1, math.ceil(retry_after)))}
        if status == 401:
            self.headers["www-authenticate"] = 'Basic realm="trainformer: any name, the key as password", Bearer'

    @property
    def body(self) -> dict[str, Any]:
        """What the client reads."""
        return {"error": {"code": self.code, "message": self.message, **self.more}}

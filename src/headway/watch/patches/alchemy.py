"""To come."""
from typing import Any
def install(patcher: Any) -> None:
    return

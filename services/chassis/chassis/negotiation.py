"""One address, several representations (RFC 9110, 12.5.1)."""

from collections.abc import Mapping
from typing import TypeVar

Form = TypeVar("Form")


def preferred(accept: str | None, media_types: Mapping[Form, str], default: Form) -> Form:
    """The form whose media type the client likes best; ``default`` when ``Accept`` names none that there is."""

    def quality(part: str) -> float:
        parameters = (each.strip().partition("=") for each in part.split(";")[1:])
        values = [value for name, _, value in parameters if name.strip().lower() == "q"]
        try:
            return float(values[0]) if values else 1.0
        except ValueError:
            return 0.0

    parts = sorted((accept or "").lower().split(","), key=quality, reverse=True)
    wanted = [part.partition(";")[0].strip() for part in parts if quality(part) > 0]
    by_type = {media_type: form for form, media_type in media_types.items()}
    return next((by_type[each] for each in wanted if each in by_type), default)

"""LIMITS (RFC 9422): tells clients beforehand what a server will not take."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .state import Extension

if TYPE_CHECKING:
    from .state import Settings


def _limits(settings: Settings, _secure: bool) -> str | None:  # noqa: FBT001
    limits = {"MAILMAX": settings.max_messages, "RCPTMAX": settings.max_recipients}
    return " ".join(f"{name}={limit}" for name, limit in limits.items() if limit) or None


LIMITS = Extension(keyword="LIMITS", parameter=_limits)

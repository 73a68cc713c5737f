"""Checks of single settings: each returns the value as it counts, or raises ValueError saying what it must be."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit


def zero_or_one(value: Any) -> Any:
    """Check a switch."""
    if isinstance(value, str) and value not in ("0", "1"):
        raise ValueError("must be one of 0, 1")
    return value


def two_prices(value: Any) -> Any:
    """Check the prices of a million tokens, of prompts and of answers."""
    if value and not re.fullmatch(r"\d+(\.\d+)? \d+(\.\d+)?", str(value)):
        raise ValueError("must be two numbers, such as 3 15")
    return value


def number_or_auto(value: Any) -> Any:
    """Check a number from 1 to 10000; `auto` is 0."""
    if isinstance(value, str) and not re.fullmatch(r"auto|0*([1-9]\d{0,3}|10000)", value, re.ASCII):
        raise ValueError("must be a whole number between 1 and 10000, or auto")
    return 0 if value == "auto" else value


def is_folder(value: Any) -> Any:
    """Check that a folder is there."""
    if value and not Path(value).is_dir():
        raise ValueError("is not a folder")
    return value


def is_file(value: Any) -> Any:
    """Check that a file is there."""
    if value and not Path(value).is_file():
        raise ValueError("is not a file")
    return value


def http_url(value: Any) -> Any:
    """Check an address, down to its port."""
    if not value:
        return value
    if not value.startswith(("http://", "https://")):
        raise ValueError("must begin with http:// or https://")
    try:
        url = urlsplit(value)
        host, _ = url.hostname, url.port
    except ValueError as error:
        raise ValueError(f"is no URL ({error})") from None
    if not host or re.search(r"[\s\x00-\x1f]", value):
        raise ValueError("is no URL (no host, or a blank in it)")
    return value


def key(value: Any) -> Any:
    """Return a key that an HTTP header can carry; the error must not show it."""
    at = next((i for i, character in enumerate(value, 1) if not "!" <= character <= "~"), 0)
    if at:
        raise ValueError(f"must be printable ASCII without blanks; its character {at} is not")
    return value


def without_password(url: str) -> str:
    """Return a URL without the user and the password in it."""
    return re.sub(r"(?<=://)[^/?#]*@", "", url)

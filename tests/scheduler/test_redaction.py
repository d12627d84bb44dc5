"""No known value gets through, in whatever usual spelling; everything else is left as it is."""

from __future__ import annotations

import base64
import codecs
import html
import json
import time
import urllib.parse
from concurrent.futures import ThreadPoolExecutor

import pytest

from bifrost_kernel import errors
from bifrost_scheduler.redaction import Redactor

NASTY = 'S3cr3t+/"quoted"\'&<tok>-9f8e7d\\n'
PEM = (
    "-----BEGIN PRIVATE KEY-----\nMIIEvQIBADANBgkqhkiG9w0BAQEFAASC\n"
    "BKcwggSjAgEAAoIBAQC7VJTUt9Us8cKj\n-----END PRIVATE KEY-----\n"
)
UNICODE = "pässwörtgeheim–日本"
NUMBER = "4815162342"
TOKEN = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9PlFUP0THsR8U"
SERVICE_ACCOUNT = json.dumps(
    {"type": "service_account", "private_key": PEM, "deep": [{"client_secret": "abc123def456"}]}
)
VALUES = {"nasty": NASTY, "pem": PEM, "unicode": UNICODE, "number": NUMBER, "token": TOKEN, "account": SERVICE_ACCOUNT}


def encoded(text):
    return text.encode()


SPELLINGS = {
    "raw": lambda s: s,
    "in a word": lambda s: f"xx{s}yy",
    "repr": repr,
    "repr in a dict": lambda s: repr({"k": s, "n": [s]}),
    "repr beside both quotes": lambda s: repr("'\"" + s),
    "nested repr": lambda s: repr({"a": repr(s)}),
    "repr of bytes": lambda s: repr(encoded(s)),
    "json": json.dumps,
    "json, not ascii": lambda s: json.dumps(s, ensure_ascii=False),
    "json in json": lambda s: json.dumps(json.dumps({"k": s})),
    "html": html.escape,
    "html of json": lambda s: html.escape(json.dumps(s)),
    "html, quotes kept": lambda s: html.escape(s, quote=False),
    "url": urllib.parse.quote,
    "url, no safe": lambda s: urllib.parse.quote(s, safe=""),
    "url form": lambda s: urllib.parse.urlencode({"client_secret": s}),
    "hex": lambda s: encoded(s).hex(),
    "HEX": lambda s: encoded(s).hex().upper(),
    "base64": lambda s: base64.b64encode(encoded(s)).decode(),
    "base64, urlsafe, unpadded": lambda s: base64.urlsafe_b64encode(encoded(s)).decode().rstrip("="),
    "basic auth, u:": lambda s: base64.b64encode(encoded("u:" + s)).decode(),
    "basic auth, us:": lambda s: base64.b64encode(encoded("us:" + s + ":x")).decode(),
    "basic auth, user:": lambda s: base64.b64encode(encoded("user:" + s + "yz")).decode(),
    "reversed": lambda s: s[::-1],
    "coloured": lambda s: f"\x1b[31m{s[:5]}\x1b[1;32m{s[5:]}\x1b[0m",
    "linked": lambda s: f"\x1b]8;;https://x\x07{s[:5]}\x1b]8;;\x07{s[5:]}",
}


@pytest.mark.parametrize("spelling", sorted(SPELLINGS))
@pytest.mark.parametrize("value", sorted(VALUES))
def test_a_value_is_masked_in_every_spelling(value, spelling):
    """Nothing is left of it in any text that contains it."""
    redactor = Redactor([VALUES[value]])
    shown = f"before {SPELLINGS[spelling](VALUES[value])} after"
    assert redactor.has_leak(shown)
    masked = redactor.text(shown)
    assert "***" in masked
    assert masked.startswith("before ")
    assert masked.endswith(" after")
    assert not redactor.has_leak(masked)
    # What stays is the frame around the value; of a secret that is JSON its short leaves and keys stay too.
    assert value == "account" or len(masked) < 80


@pytest.mark.parametrize("line", [line for line in PEM.splitlines() if line])
@pytest.mark.parametrize("value", ["pem", "account"])
def test_each_line_of_a_pem_is_masked(value, line):
    """Also when the block stands inside a JSON secret."""
    assert Redactor([VALUES[value]]).text(f"x {line} y") == "x *** y"


def test_leaves_of_a_json_secret_are_masked():
    """A client secret out of a service account is a secret of its own; a short leaf is left alone."""
    redactor = Redactor([SERVICE_ACCOUNT])
    assert redactor.text("use abc123def456 now") == "use *** now"
    assert redactor.text("type") == "type"


def test_everything_in_a_structure_is_masked():
    """Values, keys, and numbers that give it away; the rest keeps its type."""
    redactor = Redactor([NASTY, NUMBER])
    value = {"a": NASTY, NASTY: [NASTY, {"b": (1, 2.5, True, None)}], "n": int(NUMBER), "f": float(NUMBER)}
    assert redactor.walk(value) == {"a": "***", "***": ["***", {"b": [1, 2.5, True, None]}], "n": "***", "f": "***"}


def test_a_structure_too_deep_to_look_through_is_masked():
    """What cannot be checked is not shown."""
    deep = NASTY
    for _ in range(100_000):
        deep = [deep]
    assert Redactor([NASTY]).walk(deep) == "***"


def test_a_redactor_without_values_changes_nothing():
    """The very same object comes back."""
    value = {"a": ["\x1b[31mred\x1b[0m"]}
    assert Redactor().walk(value) is value
    assert not Redactor().has_leak("anything")


def test_other_text_is_left_as_it_is():
    """Colours, lone surrogates and unicode survive where no value stands."""
    text = "\x1b[31mred\x1b[0m \ud800 ünïcödé ***"
    assert Redactor([NASTY]).text(text) == text
    assert Redactor([UNICODE]).text(f"\ud800{UNICODE}é") == "\ud800***é"


def test_values_are_added_on_the_way():
    """After a rotation in the middle of an execution old and new are masked."""
    redactor = Redactor(["old-value-1"])
    redactor.add("new-value-2")
    assert redactor.text("old-value-1 new-value-2") == "*** ***"


def test_the_longest_value_wins():
    """Of a value that contains another nothing is left standing."""
    redactor = Redactor(["password", "password-and-more"])
    assert redactor.text("password-and-more password") == "*** ***"


def test_bytes_are_scanned_too():
    """Also those that are no UTF-8."""
    redactor = Redactor([UNICODE])
    assert redactor.has_leak(b"\xff\xfe" + UNICODE.encode() + b"\xff")
    assert not redactor.has_leak(b"\xff\xfe")


@pytest.mark.parametrize("short", ["", "true", "1234567", "  ab  "])
def test_a_short_value_is_refused(short):
    """It would mask ordinary text; whoever wanted to hand it out must not."""
    with pytest.raises(errors.ValidationError):
        Redactor([short])


def test_a_value_with_a_newline_from_stdin_is_masked_without_it():
    """`echo secret | bifrost secrets set` leaves a newline that no output shows."""
    assert Redactor(["my-secret-value\n"]).text("my-secret-value!") == "***!"


def test_deliberate_encoding_is_not_promised():
    """What the documentation says cannot be masked: cutting up, and ciphers."""
    redactor = Redactor([TOKEN])
    assert not redactor.has_leak(codecs.encode(TOKEN, "rot13"))
    assert not redactor.has_leak(f"{TOKEN[:20]} -- {TOKEN[20:]}")


def test_adding_and_masking_may_happen_at_once():
    """Each thread's value is masked as soon as `add` has returned."""
    redactor = Redactor()

    def use(number):
        value = f"value-number-{number:04}"
        redactor.add(value)
        return redactor.text(value)

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(use, range(100))) == {"***"}


def test_a_megabyte_with_twenty_values_is_masked_quickly():
    """A naive alternation takes minutes."""
    redactor = Redactor([f"{NASTY}{number:04}" for number in range(20)])
    text = "".join(f"2026-01-01 line {number} user{number}@example.com\n" for number in range(25_000))
    redactor.text("warm")
    started = time.perf_counter()
    assert redactor.text(text + NASTY + "0007") == text + "***"
    assert time.perf_counter() - started < 30

"""The wire to oned: typed errors, XML-RPC requests, and replies that are read while they arrive.

It must never hold a whole pool in memory, never expand an entity, and never put the session string into a text. Bytes
come from and go to `client.py`; the payload of a reply (text, one level of escaping undone) goes on to `documents.py`.

Why not `xmlrpc.client`: it refuses `i8`, which every error of oned carries, and it streams nothing.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Mapping, Sequence
from typing import ClassVar
from xml.sax.saxutils import escape

from lxml import etree

Parameter = str | int | bool
Value = Parameter | float | dict[str, "Value"] | list["Value"]

SKELETON_LIMIT = 65_536  #: bytes of a reply outside its payload; oned sends about 200
MESSAGE_LIMIT = 500  #: characters of an error message that are kept

# --- errors -----------------------------------------------------------------------------------------------------------


class OpenNebulaError(Exception):
    """A call to oned did not succeed. The text is one line, bounded, and never holds the session string."""

    retryable: ClassVar[bool] = False  #: the very same call may succeed a little later

    def __init__(self, method: str, message: str, *, code: int = 0) -> None:
        """Keep the method, oned's text (or ours) made harmless, and oned's code (0 = oned sent none)."""
        self.method = method
        self.message = one_line(message)[:MESSAGE_LIMIT]
        self.code = code
        super().__init__(f"{method}: {self.message}")

    @property
    def outcome_unknown(self) -> bool:
        """Whether an order that failed like this may have been carried out, or may still be."""
        return False


class Unauthenticated(OpenNebulaError):
    """256: unknown user, wrong password, expired or revoked token."""


class Unauthorized(OpenNebulaError):
    """512: the user has not got this right."""


class Locked(Unauthorized):
    """The VM is locked; not even oneadmin may act on it. oned 7.4 says 512 with a text, its sources also know 32768."""


class NoSuchObject(OpenNebulaError):
    """1024: no object with this id."""


class NotAllowedNow(OpenNebulaError):
    """2048: wrong state, no capacity, or an unknown action. Read the object again before anything else."""


class BadRequest(OpenNebulaError):
    """4096, an XML-RPC fault, or a request that was refused here and never sent."""

    @property
    def outcome_unknown(self) -> bool:
        """Fault -500 says that the method "did not complete", so how far it came is not known."""
        return self.code == -500


class ServerFailed(OpenNebulaError):
    """8192 (internal, no leader, election), 65536 (replication) and every code that is not known."""

    retryable = True

    @property
    def outcome_unknown(self) -> bool:
        """An internal error may come after half of the work was done."""
        return True


class NoAnswer(OpenNebulaError):
    """Nothing, or only the beginning of an answer, came back in time."""

    retryable = True

    def __init__(self, method: str, message: str, *, sent: bool = True) -> None:
        """`sent` is False only when the request certainly never left this process."""
        super().__init__(method, message)
        self.sent = sent

    @property
    def outcome_unknown(self) -> bool:
        """A request that left may be carried out, now or later."""
        return self.sent


class Withheld(OpenNebulaError):
    """Whoever ordered it did not allow it any more when it had its connection: it never left."""


class Unconfirmed(OpenNebulaError):
    """oned accepted it, and whoever ordered it could not make sure that it lasts: a leader that falls loses it."""

    @property
    def outcome_unknown(self) -> bool:
        """It may be carried out, or lost."""
        return True


class BadReply(OpenNebulaError):
    """An answer that cannot be understood."""

    @property
    def outcome_unknown(self) -> bool:
        """The order arrived somewhere; what became of it is in an answer that we cannot read."""
        return True


class EmptyPool(OpenNebulaError):
    """A pool that cannot be empty is empty: oned shows a user without rights nothing, and reports no error."""


_ERRORS: dict[int, type[OpenNebulaError]] = {
    256: Unauthenticated,
    512: Unauthorized,
    1024: NoSuchObject,
    2048: NotAllowedNow,
    4096: BadRequest,
    32768: Locked,
}


def error_of(method: str, code: int, message: str) -> OpenNebulaError:
    """Turn oned's failure into the error type that says what to do about it."""
    kind = _ERRORS.get(code, ServerFailed)
    if kind is Unauthorized and "VM is locked" in message:
        kind = Locked
    return kind(method, message, code=code)


_BREAKS = re.compile("[\t\n\v\f\r\x85\u2028\u2029]+")
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f]")


def one_line(text: str) -> str:
    """Make a text from outside fit for logs and terminals: no line breaks, escapes or other control characters."""
    return _CONTROL.sub("\N{REPLACEMENT CHARACTER}", _BREAKS.sub(" ", text))


# --- requests ---------------------------------------------------------------------------------------------------------

_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def request_body(method: str, parameters: Sequence[Parameter]) -> bytes:
    """Build the body of a call. The session string is simply the first parameter.

    Raises:
        BadRequest: a text holds a character that XML cannot carry; nothing was sent.
    """
    values = "".join(f"<param><value>{_element(method, parameter)}</value></param>" for parameter in parameters)
    head = f"<?xml version='1.0'?><methodCall><methodName>{escape(method)}</methodName>"
    return f"{head}<params>{values}</params></methodCall>".encode()


def _element(method: str, parameter: Parameter) -> str:
    if isinstance(parameter, bool):  # before int, of which bool is a kind
        return f"<boolean>{parameter:d}</boolean>"
    if isinstance(parameter, int):
        return f"<int>{parameter:d}</int>"
    if _NOT_XML.search(parameter):
        raise BadRequest(method, "a parameter holds a control character, which XML cannot carry; nothing was sent")
    return f"<string>{escape(parameter, {chr(13): '&#13;'})}</string>"  # a bare CR would arrive as LF


def template_text(method: str, attributes: Mapping[str, str]) -> str:
    r"""Write attributes in oned's template syntax, `NAME="value"`, one a line.

    Source of the rules: src/parsers/template_parser.l and template_syntax.y of OpenNebula. Within quotes only `\"` is
    an escape; line breaks and lone backslashes stand for themselves.

    Raises:
        BadRequest: oned's syntax cannot hold it: a name that is not capitals, digits and "_"; "]]>" (aborts oned's
            parser); a final backslash (would escape the closing quote, and swallow the attributes after it).
    """
    for name, value in attributes.items():
        if not re.fullmatch("[A-Z_][A-Z0-9_]*", name):
            raise BadRequest(method, f"{name[:40]} cannot be the name of an attribute; nothing was sent")
        if "]]>" in value or value.endswith("\\"):
            raise BadRequest(
                method, f'{name} holds "]]>" or ends with a backslash, which oned cannot store; nothing was sent'
            )
    return "\n".join('{}="{}"'.format(name, value.replace('"', '\\"')) for name, value in attributes.items())


# --- replies ----------------------------------------------------------------------------------------------------------

_SUCCESS = re.compile(rb"<array>\s*<data>\s*<value>\s*<boolean>\s*1\s*</boolean>")
_STRING = b"<string>"
_END = re.compile(rb"</methodResponse>\s*\Z")
_ENTITY_MAX = 10  #: characters
_PARTIAL_ENTITY = re.compile(r"&[#\w]{0,9}\Z")
_LATE_ENTITY = re.compile(r"&(?:#([0-9]{1,7})|#x([0-9a-fA-F]{1,6})|amp);")
_PLAIN = bytes([9, 10, 13, *range(0x20, 0x7F)])  #: what `_SCRUB` leaves of ASCII
_SCRUB = re.compile("[^\t\n\r\x20-\x7e\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


class Unescaper:
    """Undoes one level of XML escaping, piece by piece, and replaces what XML or a terminal could stumble over.

    oned passes on control characters that users wrote into names. One such name must not make the whole pool
    unreadable, so they become U+FFFD before the XML parser sees them.
    """

    def __init__(self) -> None:
        """Start with nothing held back."""
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._held = ""

    def feed(self, chunk: bytes, *, final: bool = False) -> str:
        """Return the text that is certain by now; an entity cut in two waits for its second half."""
        text = self._held + self._decoder.decode(chunk, final)
        self._held = ""
        # an entity has ten characters at most: looked for at the end only, for a document is full of them
        cut = None if final else _PARTIAL_ENTITY.search(text, max(0, len(text) - _ENTITY_MAX))
        if cut is not None:
            text, self._held = text[: cut.start()], text[cut.start() :]
        text = text.replace("&lt;", "<").replace("&gt;", ">")
        if "&" in text:  # seldom: oned puts what people wrote into CDATA
            text = text.replace("&quot;", '"').replace("&apos;", "'")
            # &amp; and numbers last and in one pass, so that nothing is undone twice
            text = _LATE_ENTITY.sub(_character, text) if "&#" in text else text.replace("&amp;", "&")
        if text.isascii() and not text.encode().translate(None, _PLAIN):  # nearly always, and at half the cost
            return text
        return _SCRUB.sub("\N{REPLACEMENT CHARACTER}", text)


def _character(match: re.Match[str]) -> str:
    decimal, hexadecimal = match.groups()
    if decimal is None and hexadecimal is None:
        return "&"
    number = int(decimal) if decimal else int(hexadecimal, 16)
    return chr(number) if number <= 0x10FFFF else "\N{REPLACEMENT CHARACTER}"


class ReplyReader:
    """Reads one reply while it arrives.

    The first `<string>` of a reply is either the payload, which may be 50 MB and is handed out in pieces, or an error
    message, which is kept. Everything around it is small, is collected, and is parsed strictly at the end.
    """

    def __init__(self, method: str, *, body_limit: int) -> None:
        """Prepare for one reply of at most `body_limit` bytes."""
        self._method = method
        self._body_limit = body_limit
        self._size = 0
        self._head = bytearray()
        self._tail = bytearray()
        self._unescaper = Unescaper()
        self._stage = "head"
        self._succeeded = False
        self._message = ""

    def feed(self, chunk: bytes) -> str:
        """Take the next bytes; return the payload text in them, empty for everything else.

        Raises:
            BadReply: this cannot become a reply of oned (too long, a document type declaration).
        """
        self._size += len(chunk)
        if self._size > self._body_limit:
            raise self._bad(f"longer than {self._body_limit} bytes")
        text = ""
        if self._stage == "head":
            chunk = self._feed_head(chunk)
        if self._stage == "payload":
            text, chunk = self._feed_payload(chunk)
        if self._stage == "tail":
            self._tail += chunk
        if len(self._head) + len(self._tail) > SKELETON_LIMIT:
            raise self._bad("too much around its payload")
        return text

    def close(self) -> None:
        """Finish: parse what surrounded the payload.

        Raises:
            NoAnswer: the answer broke off.
            BadReply: it is not a reply of oned.
            OpenNebulaError: oned reports a failure; the type tells which.
        """
        skeleton = bytes(self._head + self._tail)
        if not _END.search(skeleton):
            raise NoAnswer(self._method, f"the answer broke off after {self._size} bytes")
        value = self._parse(skeleton)
        if isinstance(value, dict):
            raise self._fault(value)
        if not isinstance(value, list) or len(value) < 3 or not isinstance(value[0], bool):
            raise self._bad("not an array as oned sends it")
        if isinstance(value[1], str) and value[1]:
            raise self._bad("text and markup mixed in its payload")
        if value[0] is False:
            code = value[2] if isinstance(value[2], int) else 0
            raise error_of(self._method, code, self._message)

    def _feed_head(self, chunk: bytes) -> bytes:
        """Collect up to and including the first <string>; return what follows it."""
        self._head += chunk
        start = self._head.find(_STRING)
        if b"<!" in self._head[: start if start >= 0 else None]:  # so no parser ever sees a document type
            raise self._bad("a declaration where none belongs")
        if start < 0:
            return b""
        end = start + len(_STRING)
        rest = bytes(self._head[end:])
        del self._head[end:]
        self._succeeded = _SUCCESS.search(self._head) is not None
        self._stage = "payload"
        return rest

    def _feed_payload(self, chunk: bytes) -> tuple[str, bytes]:
        """Return the payload text in this chunk, and the bytes after the payload."""
        end = chunk.find(b"<")
        if end >= 0:
            self._stage = "tail"
        text = self._unescaper.feed(chunk if end < 0 else chunk[:end], final=end >= 0)
        if not self._succeeded:
            self._message = (self._message + text)[: 2 * MESSAGE_LIMIT]
            text = ""
        return text, chunk[end:] if end >= 0 else b""

    def _parse(self, skeleton: bytes) -> Value:
        parser = etree.XMLParser(resolve_entities=False, no_network=True, load_dtd=False, huge_tree=False)
        try:
            root = etree.fromstring(skeleton, parser)
            if root.tag != "methodResponse":
                raise ValueError("not a method response")
            path = "fault/value" if root.find("fault") is not None else "params/param/value"
            return _value(root.find(path))
        except (etree.XMLSyntaxError, ValueError, RecursionError) as error:
            raise self._bad(str(error)) from error

    def _fault(self, fault: dict[str, Value]) -> OpenNebulaError:
        code = fault.get("faultCode")
        return BadRequest(
            self._method, f"XML-RPC fault {code}: {self._message}", code=code if isinstance(code, int) else 0
        )

    def _bad(self, reason: str) -> BadReply:
        return BadReply(self._method, f"the answer cannot be understood: {reason}")


def _value(value: etree._Element | None) -> Value:
    """Read one <value>. Strings are empty here but for those after the first one, which nobody asks for.

    Raises:
        ValueError: not an XML-RPC value.
    """
    if value is None or value.tag != "value" or len(value) != 1:
        raise ValueError("no XML-RPC value")
    kind, text = value[0].tag, value[0].text or ""
    match kind:
        case "i4" | "int" | "i8":
            return int(text)
        case "boolean" if text.strip() in {"0", "1"}:
            return text.strip() == "1"
        case "string" if len(value[0]) == 0:
            return text
        case "double":
            return float(text)
        case "array":
            return [_value(element) for element in value[0].iterfind("data/*")]
        case "struct":
            return {member.findtext("name") or "": _value(member.find("value")) for member in value[0]}
    raise ValueError("no XML-RPC value")

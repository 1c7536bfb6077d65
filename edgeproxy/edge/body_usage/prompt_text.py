"""The text and the media of a request's body, for an estimate of its input (see `request_table`).

JSON is read member by member. In a multipart body the fields are text, and the files are media. Any other body is text
if it is UTF-8.
"""

import re
from typing import Final, NamedTuple

import msgspec

from edgeproxy.edge.body_usage.request_table import (
    DECLARATIONS,
    IMAGE_MEMBERS,
    MEDIA,
    TEXT_MEMBERS,
    TEXT_ROOTS,
    WHOLE_MEMBERS,
)

OPENAI: Final = "openai"
MARK: Final = "\x7f"
"""Encloses the length of an encoding that was cut out of a body (see `CollectedRequest`)."""
MARKED: Final = re.compile(f"{MARK}([0-9]{{1,12}}){MARK}")
DATA_URL: Final = re.compile(r"data:([^;,]{0,100})[^,]{0,200},")
FAILURES: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
STRINGS: Final = re.compile(rb'"([^"\\]*+(?:\\.[^"\\]*+)*+)(?:"\s*+(:?)|\Z)', re.DOTALL)
"""Each string of a JSON text (the last may be cut off), and whether it is a key."""
IMAGES: Final = re.compile(rb'"(?:image_url|inlineData|inline_data)"\s*:|"type"\s*:\s*"image"')
BLANK: Final = re.compile(r"[\s\u0080-\U0010ffff]")
"""Characters that identifiers and encodings do not have."""
TEXT_FIELDS: Final = re.compile(rb'name="?(?:prompt|input|text|instructions|query)\b')
PART_TYPE: Final = re.compile(rb"(?im)^content-type:[ \t]*([^\r\n;]*)")
RAW_AUDIO: Final = ("wav", "pcm16", "pcm", "audio/wav", "audio/x-wav", "audio/pcm")
BASE64_RATIO: Final = 3, 4


class PromptSize(NamedTuple):
    """The size of a request's input."""

    text_bytes: int
    """Bytes of text, in UTF-8."""
    tokens: int
    """Tokens of media, and of text that the request has as tokens."""

    def estimate(self, bytes_per_token: int) -> int:
        """Return the tokens of the input, rounded up."""
        return -(-self.text_bytes // bytes_per_token) + self.tokens


def measure_prompt(
    body: bytes | bytearray, surplus: int = 0, size: int | None = None, provider: str = OPENAI
) -> PromptSize:
    """Measure the body of a request. Another `surplus` bytes behind `body` were not kept: they count as text.

    `size`: the bytes of the whole body, with encodings that were cut out of it. Its text has no more. `provider`: the
    provider whose figures count for images in OpenAI's form, which others have too.
    """
    most = len(body) if size is None else size
    lead = bytes(body[:64]).removeprefix(b"\xef\xbb\xbf").lstrip()
    if lead.startswith((b"{", b"[")):
        # A body that was cut is no JSON, so decoding it would be in vain.
        measured = None if surplus else _measure_json(body.removeprefix(b"\xef\xbb\xbf"), provider)
        if measured is None:
            measured = _measure_strings(body, provider)
        return PromptSize(min(measured.text_bytes + surplus, most), measured.tokens)
    if lead.startswith(b"--"):
        return _measure_parts(bytes(body), surplus)
    try:
        text = body.decode()
    except UnicodeDecodeError:
        return PromptSize(0, 0)
    # A binary format may be valid UTF-8, but text has no NUL.
    return PromptSize(0 if "\0" in text else most, 0)


def _measure_json(body: bytes | bytearray, provider: str) -> PromptSize | None:
    """Return the size of a JSON text; None if it is not one."""
    try:
        # Deep nesting raises RecursionError, which is among FAILURES: a client chooses the body.
        value: object = msgspec.json.decode(body)
        reader = _PartReader(provider)
        reader.read_request(value)
    except FAILURES:
        return None
    return PromptSize(reader.text_bytes, reader.tokens)


def _measure_strings(body: bytes | bytearray, provider: str) -> PromptSize:
    """Return the size of a text that is not JSON, or was cut, by its strings."""
    known = other = 0
    key = ""
    for match in STRINGS.finditer(body):
        text = match[1].decode(errors="replace")
        if match[2]:
            key = text
        elif key in TEXT_MEMBERS or key in TEXT_ROOTS:
            known += _count_bytes(text)
        elif BLANK.search(text):
            other += _count_bytes(text)
    images = sum(1 for _ in IMAGES.finditer(body))
    # If no string belongs to a known member, the form is unknown, and all texts count.
    return PromptSize(known or other, images * MEDIA[f"{provider} image"].tokens)


def _measure_parts(body: bytes, surplus: int) -> PromptSize:
    """Return the size of a multipart body (RFC 7578): its fields are text, its files media."""
    boundary = body.partition(b"\r\n")[0]
    text_bytes = tokens = 0
    parts = body.split(boundary)[1:]
    for index, part in enumerate(parts):
        head, _, content = part.partition(b"\r\n\r\n")
        # The bytes that were not kept belong to the last part, where the body was cut.
        size = len(content) + (surplus if index == len(parts) - 1 else 0)
        kind = PART_TYPE.search(head)
        if b"filename=" in head:
            media_type = "" if kind is None else kind[1].decode("latin-1").strip().lower()
            medium = _name_medium("openai", media_type, default="audio")
            tokens += 0 if medium is None else MEDIA[medium].compute(size)
        elif TEXT_FIELDS.search(head):
            text_bytes += len(content.removesuffix(b"\r\n"))
    return PromptSize(text_bytes, tokens)


class _PartReader:
    """Reads a request, part by part."""

    __slots__ = ("_provider", "text_bytes", "tokens")

    def __init__(self, provider: str) -> None:
        self._provider = provider
        self.text_bytes = self.tokens = 0

    def read_request(self, request: object) -> None:
        """Read all of a request. If it has no known member, every text that is not an identifier counts."""
        if isinstance(request, dict):
            is_known = False
            for key, value in request.items():
                if key in TEXT_ROOTS:
                    is_known = True
                    self._read_member(key, value)
                elif key in DECLARATIONS:
                    is_known = True
                    self._add_all(value)
            if is_known:
                return
        self._add_texts(request)

    def _read_member(self, key: str, value: object) -> None:
        if key in IMAGE_MEMBERS:
            self._read_images(value)
        else:
            self._read(value)

    def _read(self, value: object) -> None:
        """Read the value of a member of text: a text, the numbers of tokens, or parts."""
        if isinstance(value, str):
            self.text_bytes += _count_bytes(value)
        elif isinstance(value, list):
            # `type`, because True is an int for `isinstance`.
            if value and type(value[0]) is int:
                self.tokens += len(value)
                return
            for each in value:
                if isinstance(each, str) and each.startswith("data:"):
                    self._add_encoded("cohere", each)
                else:
                    self._read(each)
        elif isinstance(value, dict):
            self._read_part(value)

    def _read_part(self, part: dict[str, object]) -> None:
        if self._read_medium(part):
            return
        for key, value in part.items():
            if key in TEXT_MEMBERS:
                self._read(value)
            elif key in WHOLE_MEMBERS:
                self._add_all(value)
            elif key in IMAGE_MEMBERS:
                self._read_images(value)
            elif key == "variables" and isinstance(value, dict):
                self._read(list(value.values()))  # From a stored prompt.
            elif key == "data" and isinstance(value, dict):
                self._add_all(value)  # The fields of a document of Cohere's.

    def _read_images(self, value: object) -> None:
        for each in value if isinstance(value, list) else [value]:
            if isinstance(each, dict):
                self._read_part(each)
            elif isinstance(each, str):
                self._add_encoded("cohere" if each.startswith("data:") else "ollama", each, default="image")

    def _read_medium(self, part: dict[str, object]) -> bool:
        """Read a part that is a medium; return False if it is not one."""
        kind, source = part.get("type"), part.get("source")
        for name, value in part.items():
            if name in FORMS and FORMS[name](self, part, value):
                self._read(part.get("text"))
                return True
        if kind in ("input_image", "image_generation_call"):
            self._add_image(part)
        elif kind in ("file", "input_file"):
            self._add_file(part)
        elif isinstance(source, dict) and kind in ("image", "document"):
            self._add_source(str(kind), part, source)
        else:
            return False
        return True

    def _add_image(self, part: dict[str, object]) -> None:
        url = part.get("image_url")
        detail = url.get("detail") if isinstance(url, dict) else part.get("detail")
        self.tokens += MEDIA[f"{self._provider} image{', low' if detail == 'low' else ''}"].tokens

    def _add_file(self, part: dict[str, object]) -> None:
        inner = part.get("file")
        data = (inner if isinstance(inner, dict) else part).get("file_data")
        if isinstance(data, str):
            self._add_encoded("openai", data, default="file")
        else:
            self.tokens += MEDIA["openai file"].tokens

    def _add_source(self, kind: str, part: dict[str, object], source: dict[str, object]) -> None:
        """Add an image or a document of Anthropic's."""
        form, data = source.get("type"), source.get("data")
        if form == "content":
            self._read(source.get("content"))
        elif form == "text" and isinstance(data, str):
            self.text_bytes += _count_bytes(data)
        elif kind == "image" or not isinstance(data, str):
            self.tokens += MEDIA[f"anthropic {kind}"].tokens
        else:
            self._add_payload("anthropic", str(source.get("media_type")), data, default="document")
        for name in ("title", "context"):
            self._read(part.get(name))

    def add_url(self, part: dict[str, object], value: object) -> bool:
        """Add an image that a URL names, or has."""
        self._add_image(part)
        return True

    def add_pages(self, _: dict[str, object], value: object) -> bool:
        """Add a document that a URL names, or has, in Mistral's form."""
        if not isinstance(value, str):
            return False
        self._add_encoded(OPENAI, value, default="file")
        return True

    def add_audio(self, _: dict[str, object], value: object) -> bool:
        """Add speech in OpenAI's form, or in Mistral's, a text."""
        if isinstance(value, str):
            self._add_encoded(OPENAI, value, default="audio")
            return True
        if not isinstance(value, dict):
            return False
        data = value.get("data")
        raw = value.get("format") in RAW_AUDIO
        size = _count_decoded(data) if isinstance(data, str) else None
        self.tokens += MEDIA["openai audio, raw" if raw else "openai audio"].compute(size)
        return True

    def add_film(self, _: dict[str, object], value: object) -> bool:
        """Add a sound or a film that a URL names, or has."""
        url = value.get("url") if isinstance(value, dict) else value
        if not isinstance(url, str):
            return False
        self._add_encoded("gemini", url, default="video")
        return True

    def add_inline(self, _: dict[str, object], value: object) -> bool:
        """Add a medium in Gemini's form: its bytes, or the URI of a file."""
        if not isinstance(value, dict):
            return False
        media_type = str(value.get("mimeType") or value.get("mime_type") or "")
        data = value.get("data")
        self._add_payload("gemini", media_type, data if isinstance(data, str) else None, default="document")
        return True

    def add_block(self, part: dict[str, object], value: object) -> bool:
        """Add a medium in Bedrock's form, in Vertex's form, or a list of the images of a film."""
        if isinstance(value, list):
            self._read_images(value)
            return True
        if not isinstance(value, dict):
            return False
        name = next(name for name in ("image", "document", "video") if name in part)
        if isinstance(data := value.get("bytesBase64Encoded"), str) or "gcsUri" in value:
            media_type = str(value.get("mimeType") or name)
            self._add_payload("gemini", media_type, data if isinstance(data, str) else None, default=name)
            return True
        if not isinstance(source := value.get("source"), dict):
            return False
        if isinstance(text := source.get("text"), str):
            self.text_bytes += _count_bytes(text)
            return True
        data = source.get("bytes")
        medium = f"bedrock {name}{', cited' if name == 'document' and value.get('citations') else ''}"
        self.tokens += MEDIA[medium].compute(_count_decoded(data) if isinstance(data, str) else None)
        return True

    def _add_encoded(self, provider: str, written: str, default: str = "image") -> None:
        """Add a medium that is a data URL (RFC 2397), a base64 text, or the URL of a medium."""
        match = DATA_URL.match(written)
        if match is not None:
            self._add_payload(provider, match[1], written[match.end() :], default)
        elif written.startswith(("http://", "https://", "gs://", "s3://")):
            self.tokens += MEDIA[f"{provider} {default}"].tokens
        else:
            self._add_payload(provider, "", written, default)

    def _add_payload(self, provider: str, media_type: str, data: str | None, default: str) -> None:
        """Add a medium of this type; `data`: its bytes in base64, None if the request does not have them."""
        size = None if data is None else _count_decoded(data)
        medium = _name_medium(provider, media_type, default)
        # A type that is no medium, for example text/plain, is text.
        if medium is None and size is not None:
            self.text_bytes += size
        else:
            self.tokens += MEDIA[medium or f"{provider} {default}"].compute(size)

    def _add_all(self, value: object) -> None:
        """Add every key and every value."""
        if isinstance(value, str):
            self.text_bytes += _count_bytes(value)
        elif isinstance(value, dict):
            for key, each in value.items():
                self.text_bytes += len(key)
                self._add_all(each)
        elif isinstance(value, list):
            for each in value:
                self._add_all(each)
        elif value is not None:
            self.text_bytes += len(str(value))

    def _add_texts(self, value: object) -> None:
        """Add every text that is neither an identifier nor an encoding: these have no blanks."""
        if isinstance(value, str):
            self.text_bytes += _count_bytes(value) if BLANK.search(value) else 0
        elif isinstance(value, dict | list):
            for each in value.values() if isinstance(value, dict) else value:
                self._add_texts(each)


FORMS: Final = {
    "image_url": _PartReader.add_url,
    "image_base64": _PartReader.add_url,
    "document_url": _PartReader.add_pages,
    "input_audio": _PartReader.add_audio,
    "audio_url": _PartReader.add_film,
    "video_url": _PartReader.add_film,
    "inlineData": _PartReader.add_inline,
    "inline_data": _PartReader.add_inline,
    "fileData": _PartReader.add_inline,
    "file_data": _PartReader.add_inline,
    "image": _PartReader.add_block,
    "document": _PartReader.add_block,
    "video": _PartReader.add_block,
}
"""The forms of media, by the member of a part that has one."""


def _name_medium(provider: str, media_type: str, default: str) -> str | None:
    """Return the name of a medium of this type, `default` if the provider has no such medium; None for text."""
    kind, _, subtype = media_type.partition("/")
    if kind == "text" or subtype in ("json", "xml"):
        return None
    name = f"{provider} {kind}"
    return name if name in MEDIA else f"{provider} {default}"


def _count_bytes(text: str) -> int:
    """Return the bytes of a text in UTF-8, with the bytes of encodings that were cut out."""
    size = len(text) if text.isascii() else len(text.encode(errors="replace"))
    if MARK not in text:
        return size
    return size + sum([int(match[1]) - len(match[0]) for match in MARKED.finditer(text)])


def _count_decoded(data: str) -> int:
    """Return the bytes that a base64 text stands for."""
    numerator, denominator = BASE64_RATIO
    return max(0, _count_bytes(data)) * numerator // denominator

"""Which values are secret, and text without them. Knows names and shapes; reads no environment and no file.

The shim masks the values of the environment in the byte stream. This is the second net, for what is put together from several lines and for
keys that were never in the environment: a receipt travels with its notebook.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final, cast
from urllib.parse import quote, unquote, urlsplit

from cc_executor.model.ansi import clean

MASK: Final = "[masked]"

# Characters. What is shorter occurs in ordinary text, and masking it would spoil the text without hiding anything.
SHORTEST: Final = 8

# What those leave as it is who write a value into a URL: form fields and `encodeURIComponent` (ECMA-262, 19.2.6.4), paths, `curl -G --data-urlencode`.
_URL_SAFE: Final = ("", "/", "!'()*")

# What JSON is written with beyond what it must: by most, by PHP, by Go and Rails, by Gson.
_ESCAPES: Final = tuple(
    str.maketrans({letter: "\\/" if letter == "/" else f"\\u{ord(letter):04x}" for letter in letters})
    for letters in ("", "/", "<>&", "<>&='")
)

# Names are read word by word: GIT_AUTHOR_NAME and KEYBOARD_LAYOUT hold no secret, MY_APIKEY and NPM_CONFIG__AUTH do.
_SECRET_WORD: Final = re.compile(
    r"(?:.*(?:KEY|TOKEN|SECRET|PASSWORD|PASSWD|PASSPHRASE|CREDENTIAL)S?|AUTH|PASS|PAT|BEARER|COOKIE|AUTHORIZATION)", re.IGNORECASE
)
# The last word of a name that only speaks about a secret.
_ABOUT_WORDS: Final = frozenset({
    "TYPE", "METHOD", "MODE", "NAME", "FILE", "PATH", "DIR", "SOCK", "SOCKET", "URL", "URI", "HOST", "PROVIDER", "ENABLED", "LIMIT", "TTL", "EXPIRY",
    "EXPIRES", "LENGTH", "SIZE", "VERSION", "HELPER", "PARALLELISM",
})  # fmt: skip
_PLAIN_WORDS: Final = frozenset({"disabled", "required", "optional", "undefined", "password", "anonymous"})

# In a connection string (libpq, ODBC, Azure): a word for a secret, and its value. Not what a shell is still to fill in.
_NAMED: Final = re.compile(r"(?:password|pwd|accountkey|sharedaccesskey)\s*=\s*'?([^\s;&'\"$][^\s;&'\"]{7,})", re.IGNORECASE)

# Base64 may begin with a slash too, so a path is known by how it goes on.
_PATH: Final = re.compile(
    r"(?:~|\.{1,2})/|/(?:app|applications|data|dev|etc|home|library|media|mnt|nix|opt|private|proc|root|run|srv|sys|tmp|users|usr|var|volumes|work)(?:/|$)",
    re.IGNORECASE,
)

# Keys that are known by their shape, each with the letters that its issuer gives it.
_SHAPES: Final = (
    r"sk-ant-[A-Za-z0-9_-]{8,}",  # Anthropic
    r"sk-(?:proj-|svcacct-|admin-)?[A-Za-z0-9_-]{20,}",  # OpenAI and those who copied it
    r"gh[pousr]_[A-Za-z0-9]{20,}",  # GitHub
    r"github_pat_[A-Za-z0-9_]{20,}",
    r"glpat-[A-Za-z0-9_-]{20,}",  # GitLab
    r"(?:AKIA|ASIA)[0-9A-Z]{16}",  # AWS
    r"xox[abeoprs]-[A-Za-z0-9-]{10,}",  # Slack
    r"AIza[0-9A-Za-z_-]{35}",  # Google
    r"hf_[A-Za-z0-9]{30,}",  # Hugging Face
    r"npm_[A-Za-z0-9]{36}",
    r"Bearer [A-Za-z0-9._~+/-]{20,}=*",
    r"eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}",  # JWT: eyJ is {" in base64
)
# One without its end reaches to the end of the text: better too much than half a key.
_PRIVATE_KEY: Final = r"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY-----[\s\S]*?(?:-----END [A-Z0-9 ]{0,40}PRIVATE KEY-----|\Z)"
_SHAPED: Final = re.compile(rf"{_PRIVATE_KEY}|(?<![A-Za-z0-9])(?:{'|'.join(_SHAPES)})")


def is_secret_name(name: str) -> bool:
    """Whether a variable of this name holds a secret, as far as names tell."""
    words = [word for word in re.split(r"[_\-. ]+", name.upper()) if word]
    if words == ["MYSQL", "PWD"]:  # dev.mysql.com, "Environment Variables"; PWD is a folder everywhere else
        return True
    return bool(words) and words[-1] not in _ABOUT_WORDS and any(_SECRET_WORD.fullmatch(word) for word in words)


def secret_values(environ: Mapping[str, str]) -> tuple[str, ...]:
    """The values in an environment that must not be seen.

    Parameters
    ----------
    environ : mapping of str to str
        Names and values.

    Returns
    -------
    tuple of str
        Longest first, each once: the values of variables with a secret's name, unless they are paths, plain words or shorter than `SHORTEST`; and the
        passwords inside of URLs and connection strings, whatever the variable's name. Both as they are, and as they stand in a URL.
    """
    found: set[str] = set()
    for name, value in environ.items():
        plain = value.strip()  # whoever uses one that was read from a file leaves its last newline away
        if is_secret_name(name) and plain.lower() not in _PLAIN_WORDS and not _PATH.match(plain):
            found |= {value, plain, *(quote(plain, safe=safe, errors="replace") for safe in _URL_SAFE if len(plain) >= SHORTEST)}
        found.update(_url_passwords(value), (named for named in _NAMED.findall(value) if not _PATH.match(named)))
    return tuple(sorted((value for value in found if len(value) >= SHORTEST), key=lambda value: (-len(value), value)))


def _url_passwords(value: str) -> Iterable[str]:
    if "://" not in value or "@" not in value:
        return ()
    try:
        password = urlsplit(value).password
    except ValueError:  # brackets that are no IPv6 address
        return ()
    return (password, unquote(password)) if password else ()


class Redactor:
    """Masks secrets in text and in JSON-like values.

    Parameters
    ----------
    secrets : iterable of str
        Known values; those shorter than `SHORTEST` are left alone. Keys of known shapes are masked without being named.
    """

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        known = {form for secret in secrets if len(secret) >= SHORTEST for form in (secret, _as_text(secret))}
        cleaned = {plain for secret in known if len(plain := clean(secret)) >= SHORTEST} - known
        self._forms = frozenset(form for secret in known for form in _forms(secret))
        self._cleaned = self._forms.union(form for secret in cleaned for form in _forms(secret))

    def text(self, text: str) -> str:
        """`text` with ``[masked]`` in the place of every secret; of secrets that overlap, nothing is left."""
        return self._without(text, self._forms)

    def seen(self, text: str) -> str:
        """As `text`, of what a terminal would leave of it: a colour in the midst of a secret would hide it, and be taken away later."""
        return self._without(clean(text), self._cleaned)

    @staticmethod
    def _without(text: str, forms: Iterable[str]) -> str:
        spans = sorted([*_known(text, forms), *(match.span() for match in _SHAPED.finditer(text))])
        if not spans:
            return text
        out: list[str] = []
        place = 0
        for start, end in spans:
            if start >= place:
                out += (text[place:start], MASK)
            place = max(place, end)
        return "".join([*out, text[place:]])

    def json(self, value: Any) -> Any:
        """A copy of a value made of dicts, lists, tuples, text and numbers, with every text in it masked, keys included."""
        match value:
            case str():
                return self.text(value)
            case dict():
                items = cast("dict[Any, Any]", value)
                return {self.text(key) if isinstance(key, str) else key: self.json(item) for key, item in items.items()}
            case list() | tuple():
                return [self.json(item) for item in cast("list[Any] | tuple[Any, ...]", value)]
            case _:
                return value


def _known(text: str, forms: Iterable[str]) -> Iterator[tuple[int, int]]:
    for form in forms:
        start = text.find(form)
        while start >= 0:
            yield start, start + len(form)
            start = text.find(form, start + 1)


def _as_text(secret: str) -> str:
    """The secret as whoever takes everything for UTF-8 writes it down: bytes that are none, which Python has as halves of pairs (PEP 383), are U+FFFD."""
    try:
        text = secret.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    except UnicodeEncodeError:  # halves of another kind: no environment has them
        return secret
    # Of too few letters it would be found in anything that is no text.
    return text if len(text.replace("\ufffd", "")) >= SHORTEST else secret


def _forms(secret: str) -> set[str]:
    """The secret as it is, as a JSON string, and as JSON inside of a JSON string: so a tool's input has it. Each as one writer or another has it."""
    forms = newest = {secret}
    for _ in range(2):
        newest = {
            json.dumps(form, ensure_ascii=ascii_only)[1:-1].translate(more)
            for form in newest
            for ascii_only in (False, True)
            for more in _ESCAPES
        }
        forms = forms | newest
    return forms

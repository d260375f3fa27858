"""
Fetch pip's wheel from the package index this machine is configured for.

Needed where Python comes without pip and without ensurepip (Debian's python3).  The index, proxies,
certificates and credentials are those that pip and uv themselves would use: pip's configuration
files and PIP_* variables, uv.toml and UV_* variables, SSL_CERT_FILE, *_PROXY, netrc.

Standard library only; runs under Python 3.6.
"""

import base64
import configparser
import hashlib
import html.parser
import netrc
import os
import re
import ssl
import urllib.error
import urllib.parse
import urllib.request
from typing import Any, Callable, Dict, List, Mapping, NamedTuple, Optional, Tuple

PYPI = "https://pypi.org/simple"
WHEEL = re.compile(r"^pip-(\d+(?:\.\d+)*)-py3-none-any\.whl$")
ATTEMPTS = 3

ReadToml = Callable[[str], Dict[str, Any]]


class IndexSettings:
    """Where packages come from, as pip and uv are told on this machine."""

    def __init__(self) -> None:
        self.index_url = ""
        self.extra_index_urls = []  # type: List[str]
        self.find_links = []  # type: List[str]
        self.trusted_hosts = []  # type: List[str]
        self.no_index = False
        self.cert = ""
        self.client_cert = ""
        self.proxy = ""
        self.timeout = 30.0

    def fill_from(self, other: "IndexSettings") -> None:
        """Take from *other* what is not set here."""
        for name, value in vars(other).items():
            if not getattr(self, name):
                setattr(self, name, value)


class Link(NamedTuple):
    """One pip wheel that an index offers."""

    version: Tuple[int, ...]
    url: str
    requires_python: str


def read_settings(environ: Mapping[str, str], prefix: str, read_toml: ReadToml) -> IndexSettings:
    """Merge pip's settings with uv's; where both say something, pip's hold."""
    settings = pip_settings(environ, prefix)
    settings.fill_from(uv_settings(environ, read_toml))
    if not settings.cert:
        settings.cert = environ.get("SSL_CERT_FILE") or environ.get("REQUESTS_CA_BUNDLE") or ""
    return settings


def pip_environment(environ: Mapping[str, str], prefix: str, read_toml: ReadToml) -> Dict[str, str]:
    """Give variables that make pip use what only uv, or only OpenSSL, has been told."""
    own = pip_settings(environ, prefix)
    merged = read_settings(environ, prefix, read_toml)
    variables = {
        "PIP_INDEX_URL": (own.index_url, merged.index_url),
        "PIP_EXTRA_INDEX_URL": (own.extra_index_urls, merged.extra_index_urls),
        "PIP_FIND_LINKS": (own.find_links, merged.find_links),
        "PIP_TRUSTED_HOST": (own.trusted_hosts, merged.trusted_hosts),
        "PIP_CERT": (own.cert, merged.cert),
    }
    missing = {
        name: value if isinstance(value, str) else " ".join(value)
        for name, (known, value) in variables.items()
        if value and not known
    }
    if merged.no_index and not own.no_index:
        missing["PIP_NO_INDEX"] = "1"
    return missing


# --- pip's settings ----------------------------------------------------------


def pip_settings(environ: Mapping[str, str], prefix: str) -> IndexSettings:
    """Read pip's configuration files and PIP_* variables (which win)."""
    values = {}  # type: Dict[str, str]
    for path in pip_config_files(environ, prefix):
        values.update(read_pip_file(path))
    for name, value in environ.items():
        if name.startswith("PIP_") and value:
            values[name[4:].lower().replace("_", "-")] = value
    settings = IndexSettings()
    settings.index_url = values.get("index-url", "")
    settings.extra_index_urls = values.get("extra-index-url", "").split()
    settings.find_links = values.get("find-links", "").split()
    settings.trusted_hosts = values.get("trusted-host", "").split()
    settings.no_index = values.get("no-index", "").lower() in ("1", "true", "yes", "on")
    settings.cert = values.get("cert", "")
    settings.client_cert = values.get("client-cert", "")
    settings.proxy = values.get("proxy", "")
    settings.timeout = max(settings.timeout, float(values.get("default-timeout") or 0))
    return settings


def pip_config_files(environ: Mapping[str, str], prefix: str) -> List[str]:
    """List pip's configuration files; a later one wins over an earlier one."""
    named = environ.get("PIP_CONFIG_FILE", "")
    if named == os.devnull:
        return []
    home = os.path.expanduser("~")
    shared = (environ.get("XDG_CONFIG_DIRS") or "/etc/xdg").split(":")
    personal = environ.get("XDG_CONFIG_HOME") or os.path.join(home, ".config")
    files = [os.path.join(folder, "pip", "pip.conf") for folder in reversed(shared)]
    files += [
        "/etc/pip.conf",
        os.path.join(home, ".pip", "pip.conf"),
        os.path.join(personal, "pip", "pip.conf"),
        os.path.join(prefix, "pip.conf"),
    ]
    return files + ([named] if named else [])


def read_pip_file(path: str) -> Dict[str, str]:
    """Read one pip.conf: [global], then what [download] and [install] say otherwise."""
    parser = configparser.RawConfigParser()
    try:
        parser.read([path], encoding="utf-8")
    except (configparser.Error, UnicodeDecodeError):
        return {}
    values = {}  # type: Dict[str, str]
    for section in ("global", "download", "install"):
        if parser.has_section(section):
            values.update((key.replace("_", "-"), value) for key, value in parser.items(section))
    return values


# --- uv's settings -----------------------------------------------------------


def uv_settings(environ: Mapping[str, str], read_toml: ReadToml) -> IndexSettings:
    """Read uv.toml and UV_* variables (which win)."""
    settings = IndexSettings()
    settings.index_url = environ.get("UV_DEFAULT_INDEX") or environ.get("UV_INDEX_URL") or ""
    extra = environ.get("UV_INDEX") or environ.get("UV_EXTRA_INDEX_URL") or ""
    # An index may be written name=url.
    settings.extra_index_urls = [re.sub(r"^[\w.-]+=(?=\w+:)", "", url) for url in extra.split()]
    settings.find_links = environ.get("UV_FIND_LINKS", "").replace(",", " ").split()
    settings.trusted_hosts = environ.get("UV_INSECURE_HOST", "").split()
    settings.no_index = environ.get("UV_NO_INDEX", "").lower() in ("1", "true")
    for path in uv_config_files(environ):
        settings.fill_from(read_uv_file(path, read_toml))
    return settings


def uv_config_files(environ: Mapping[str, str]) -> List[str]:
    """List uv's configuration files; an earlier one wins over a later one."""
    if environ.get("UV_NO_CONFIG"):
        return []
    if environ.get("UV_CONFIG_FILE"):
        return [environ["UV_CONFIG_FILE"]]
    personal = environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")
    shared = (environ.get("XDG_CONFIG_DIRS") or "/etc/xdg").split(":")
    folders = [os.path.join(folder, "uv") for folder in [personal, *shared]]
    return [os.path.join(folder, "uv.toml") for folder in [*folders, "/etc/uv"]]


def read_uv_file(path: str, read_toml: ReadToml) -> IndexSettings:
    """Read one uv.toml."""
    settings = IndexSettings()
    if not os.path.exists(path):
        return settings
    table = read_toml(path)
    table = dict(table.get("pip", {}), **table)
    settings.index_url = table.get("index-url", "")
    settings.extra_index_urls = list(table.get("extra-index-url", []))
    settings.find_links = list(table.get("find-links", []))
    settings.trusted_hosts = list(table.get("allow-insecure-host", []))
    settings.no_index = bool(table.get("no-index", False))
    for index in table.get("index", []):
        if index.get("default"):
            settings.index_url = index["url"]
        else:
            settings.extra_index_urls.append(index["url"])
    return settings


# --- the index ---------------------------------------------------------------


def download_pip(settings: IndexSettings, python_version: Tuple[int, ...], folder: str) -> str:
    """
    Download the newest pip wheel that runs on *python_version* into *folder*.

    Returns:
        The path of the wheel.

    Raises:
        OSError: No index answered, or none offers such a wheel; the message names those asked.
    """
    sources = list(settings.find_links)
    if not settings.no_index:
        indexes = [settings.index_url or PYPI, *settings.extra_index_urls]
        sources += [url.rstrip("/") + "/pip/" for url in indexes]
    failures = []
    links = []  # type: List[Link]
    for source in sources:
        try:
            links += list_wheels(settings, source)
        except (OSError, ValueError) as error:
            failures.append("{}: {}".format(without_password(source), error))
    fitting = [link for link in links if allows(link.requires_python, python_version)]
    if not fitting:
        asked = failures or [without_password(source) for source in sources]
        raise OSError("no pip wheel found at\n  " + "\n  ".join(asked))
    return save(settings, max(fitting), folder)


def list_wheels(settings: IndexSettings, source: str) -> List[Link]:
    """List the pip wheels of one index page, or of one folder."""
    folder = local_path(source)
    if folder is not None and os.path.isdir(folder):
        page = os.path.join(folder, "index.html")
        if not os.path.exists(page):
            found = ((name, os.path.join(folder, name)) for name in os.listdir(folder))
            named = ((WHEEL.match(name), path) for name, path in found)
            return [
                Link(numbers(match.group(1)), "file://" + urllib.request.pathname2url(path), "")
                for match, path in named
                if match
            ]
        source = "file://" + urllib.request.pathname2url(page)
    body, base = fetch(settings, source)
    anchors = Anchors(base)
    anchors.feed(body.decode("utf-8", "replace"))
    return anchors.links


class Anchors(html.parser.HTMLParser):
    """Collects the wheels of an index page (PEP 503)."""

    def __init__(self, base: str) -> None:
        super().__init__()
        self.base = base
        self.links = []  # type: List[Link]

    def handle_starttag(self, tag: str, attrs: List[Tuple[str, Optional[str]]]) -> None:
        """Take in one ``<a href=...>``; withdrawn (yanked) files are left out."""
        values = dict(attrs)
        href = values.get("href")
        if tag != "a" or not href or "data-yanked" in values:
            return
        url = urllib.parse.urljoin(self.base, href)
        match = WHEEL.match(
            urllib.parse.unquote(urllib.parse.urlsplit(url).path.rpartition("/")[2])
        )
        if match:
            requires = values.get("data-requires-python") or ""
            self.links.append(Link(numbers(match.group(1)), url, requires))


def save(settings: IndexSettings, link: Link, folder: str) -> str:
    """Download one wheel, checked against the hash its link carries."""
    body, _ = fetch(settings, link.url)
    parts = urllib.parse.urlsplit(link.url)
    algorithm, _, expected = parts.fragment.partition("=")
    if algorithm in hashlib.algorithms_guaranteed:
        actual = hashlib.new(algorithm, body).hexdigest()
        if actual != expected:
            raise OSError("{} does not match its hash".format(without_password(link.url)))
    path = os.path.join(folder, urllib.parse.unquote(parts.path.rpartition("/")[2]))
    with open(path, "wb") as file:
        file.write(body)
    return path


def fetch(settings: IndexSettings, url: str) -> Tuple[bytes, str]:
    """Read one URL; returns its bytes and the address it came from in the end."""
    parts = urllib.parse.urlsplit(url)
    request = urllib.request.Request(without_password(url))
    request.add_header("Accept", "text/html, */*;q=0.1")
    credentials = find_credentials(parts)
    if credentials:
        token = base64.b64encode(credentials.encode()).decode()
        request.add_unredirected_header("Authorization", "Basic " + token)
    opener = make_opener(settings, parts)
    for attempt in range(1, ATTEMPTS + 1):
        try:
            with opener.open(request, timeout=settings.timeout) as response:
                return response.read(), keep_login(parts, response.geturl())
        except urllib.error.HTTPError:
            raise
        except OSError:
            if attempt == ATTEMPTS:
                raise
    raise AssertionError("unreachable")


def make_opener(
    settings: IndexSettings, parts: urllib.parse.SplitResult
) -> urllib.request.OpenerDirector:
    """Build an opener with this machine's proxy and certificates."""
    context = ssl.create_default_context()
    if settings.cert and os.path.isdir(settings.cert):
        context.load_verify_locations(capath=settings.cert)
    elif settings.cert:
        context.load_verify_locations(cafile=settings.cert)
    if settings.client_cert:
        context.load_cert_chain(settings.client_cert)
    if {parts.hostname, parts.netloc.rpartition("@")[2]} & set(settings.trusted_hosts):
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    handlers = [urllib.request.HTTPSHandler(context=context)]  # type: List[Any]
    if settings.proxy:
        proxies = {"http": settings.proxy, "https": settings.proxy}
        handlers.append(urllib.request.ProxyHandler(proxies))
    return urllib.request.build_opener(*handlers)


# --- small helpers -----------------------------------------------------------


def find_credentials(parts: urllib.parse.SplitResult) -> Optional[str]:
    """Give ``user:password`` from the URL itself, else from netrc."""
    if parts.username:
        user, password = parts.username, parts.password or ""
        return urllib.parse.unquote(user) + ":" + urllib.parse.unquote(password)
    if parts.scheme != "https" or not parts.hostname:
        return None
    try:
        known = netrc.netrc().authenticators(parts.hostname)
    except (OSError, netrc.NetrcParseError):
        return None
    return "{}:{}".format(known[0], known[2]) if known else None


def keep_login(parts: urllib.parse.SplitResult, url: str) -> str:
    """Put the login of *parts* into *url* if it is on the same host, for the links of its page."""
    login, at, _ = parts.netloc.rpartition("@")
    final = urllib.parse.urlsplit(url)
    if not at or final.hostname != parts.hostname:
        return url
    return urllib.parse.urlunsplit(final._replace(netloc=login + "@" + final.netloc))


def without_password(url: str) -> str:
    """Give *url* without user, password and fragment, as it may be sent and shown."""
    parts = urllib.parse.urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    return urllib.parse.urlunsplit(parts._replace(netloc=host, fragment=""))


def local_path(source: str) -> Optional[str]:
    """Give the folder or file that *source* names on this machine, if it does."""
    parts = urllib.parse.urlsplit(source)
    if parts.scheme == "file":
        return urllib.request.url2pathname(parts.path)
    return None if parts.scheme else os.path.abspath(source)


def numbers(version: str) -> Tuple[int, ...]:
    """Split ``"26.3.1"`` into ``(26, 3, 1)``."""
    return tuple(int(part) for part in version.split("."))


def allows(requires_python: str, version: Tuple[int, ...]) -> bool:
    """Tell whether a Requires-Python such as ``">=3.9,!=3.10.*"`` admits *version*."""
    for clause in filter(None, (part.strip() for part in requires_python.split(","))):
        match = re.match(r"^(>=|<=|==|!=|>|<|~=)\s*(\d+(?:\.\d+)*)(\.\*)?$", clause)
        if match is None:
            return False
        operator, wanted = match.group(1), numbers(match.group(2))
        have = version[: len(wanted)]
        fits = {
            ">=": have >= wanted,
            "~=": have >= wanted and have[:-1] == wanted[:-1],
            "<=": have <= wanted,
            "==": have == wanted,
            "!=": have != wanted,
            ">": have > wanted,
            "<": have < wanted,
        }[operator]
        if not fits:
            return False
    return True

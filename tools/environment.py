"""
The ladder from a bare machine to a .venv that can build and run this project.

1. Python: python3.11 to 3.14 from PATH, else one managed by uv.
2. .venv: "python -m venv", else without pip plus pip's wheel from the configured package index.
3. Python.h and a C compiler: there, else apt-get install as root, else the package of the headers
   unpacked into .venv, else a Python managed by uv (it brings its headers).
Where no step helps, one message with the exact command.

Standard library only; runs under Python 3.6.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from typing import Any, Dict, List, Mapping, NamedTuple, Optional, Sequence, Tuple

import package_index

OLDEST, NEWEST = (3, 11), (3, 14)
LINUX = sys.platform.startswith("linux")

# Run by a candidate: what it is.  The base executable, because .venv must not rest on another venv.
PROBE = """
import json, os, sys, sysconfig
include = sysconfig.get_path("include")
print(json.dumps({
    "executable": getattr(sys, "_base_executable", None) or sys.executable,
    "version": list(sys.version_info[:3]),
    "cpython": sys.implementation.name == "cpython",
    "has_headers": os.path.exists(os.path.join(include, "Python.h")),
}))
"""
READ_TOML = """
import json, sys, tomllib
with open(sys.argv[1], "rb") as file:
    print(json.dumps(tomllib.load(file), default=str))
"""


class Stop(Exception):
    """There is nothing more to try: the message tells the person what to do."""


class Python(NamedTuple):
    """An interpreter that runs."""

    executable: str
    version: Tuple[int, ...]
    has_headers: bool

    @property
    def name(self) -> str:
        """Its command's usual name: ``python3.11``."""
        return "python{}.{}".format(*self.version)


def say(text: str) -> None:
    """Print one line of progress at once, in order with what child processes print."""
    print(text, flush=True)


def run(
    command: Sequence[str], env: Optional[Mapping[str, str]] = None, quiet: bool = False
) -> int:
    """Run *command*; when *quiet*, its output is shown only if it fails."""
    if not quiet:
        return subprocess.call(command, env=env)
    code, output = capture(command, env)
    if code:
        say(output.rstrip())
    return code


def capture(command: Sequence[str], env: Optional[Mapping[str, str]] = None) -> Tuple[int, str]:
    """Run *command*; returns its exit status and all it printed."""
    try:
        process = subprocess.Popen(
            command,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
    except OSError as error:
        return 127, str(error)
    output, _ = process.communicate()
    return process.returncode, output.decode("utf-8", "replace")


# --- Python ------------------------------------------------------------------


def find_python(wanted: Optional[str]) -> Optional[Python]:
    """
    Find an interpreter: *wanted* if given, else the first on PATH with its headers, else the first.

    A candidate must really run: PATH may hold shims of a version that is not installed.
    """
    found = []  # type: List[Python]
    for path in candidates(wanted):
        python = probe(path)
        if python is None:
            continue
        if python.has_headers or not LINUX:
            return python
        found.append(python)
    return found[0] if found else None


def candidates(wanted: Optional[str]) -> List[str]:
    """List the paths to try, best first, each once."""
    if wanted:
        return [shutil.which(wanted) or wanted]
    minors = [13, 12, 11, 14]  # 3.14 last: not every dependency has wheels for it
    names = ["python3"] + ["python3.{}".format(minor) for minor in minors] + ["python"]
    folders = os.environ.get("PATH", os.defpath).split(os.pathsep)
    paths = [sys.executable]
    for name in names:
        paths += [shutil.which(name, path=folder) or "" for folder in folders]
    return list(dict.fromkeys(filter(None, paths)))


def probe(path: str) -> Optional[Python]:
    """Ask one interpreter what it is; None if it does not run or does not fit."""
    try:
        output = subprocess.check_output(
            [path, "-I", "-c", PROBE], stderr=subprocess.DEVNULL, timeout=60
        )
        facts = json.loads(output.decode())
    except (OSError, ValueError, subprocess.SubprocessError):
        return None
    version = tuple(facts["version"])
    if not facts["cpython"] or not OLDEST <= version[:2] <= NEWEST:
        return None
    return Python(facts["executable"], version, facts["has_headers"])


def toml_reader(python: str) -> package_index.ReadToml:
    """Read TOML with *python* (3.11 or newer), because this script may run under an older one."""

    def read(path: str) -> Dict[str, Any]:
        code, output = capture([python, "-I", "-c", READ_TOML, path])
        if code:
            raise Stop("cannot read {}:\n{}".format(path, output.rstrip()))
        return dict(json.loads(output))

    return read


def managed_python(venv_folder: str) -> Optional[Python]:
    """Let uv install a Python that carries its headers; uv itself from PATH or from the index."""
    uv = shutil.which("uv") or install_uv(venv_folder)
    if uv is None:
        return None
    version = "3.13"
    say("  uv installs a Python {} of its own".format(version))
    if run([uv, "python", "install", version], quiet=True):
        return None
    code, output = capture([uv, "python", "find", "--managed-python", "--system", version])
    return probe(output.strip()) if code == 0 else None


def install_uv(venv_folder: str) -> Optional[str]:
    """Install uv into a small environment of its own, with whatever Python runs this script."""
    folder = os.path.join(venv_folder, "uv")
    try:
        make_venv(sys.executable, sys.version_info[:3], folder)
    except Stop:
        return None
    python = os.path.join(folder, "bin", "python")
    say("  installing uv into {}".format(os.path.relpath(folder)))
    if run([python, "-m", "pip", "install", "--quiet", "uv"], pip_variables(python), quiet=True):
        return None
    return os.path.join(folder, "bin", "uv")


# --- the virtual environment -------------------------------------------------


def make_venv(python: str, version: Tuple[int, ...], folder: str) -> None:
    """Make a virtual environment with pip in *folder*."""
    code, _ = capture([python, "-m", "venv", folder])
    inner = os.path.join(folder, "bin", "python")
    if code == 0 and capture([inner, "-m", "pip", "--version"])[0] == 0:
        return
    code, output = capture([python, "-m", "venv", "--without-pip", folder])
    if code:
        raise Stop("{} cannot make a virtual environment:\n{}".format(python, output.rstrip()))
    say("  this Python brings no pip: fetching it from the package index")
    settings = package_index.read_settings(os.environ, folder, toml_reader(inner))
    with tempfile.TemporaryDirectory() as scratch:
        try:
            wheel = package_index.download_pip(settings, version, scratch)
        except OSError as error:
            raise Stop(
                "pip could not be fetched: {}\nWithout access to a package index, install pip "
                "for this Python, for example:\n  {}".format(error, system_command("venv", python))
            ) from error
        say("  " + os.path.basename(wheel))
        command = [inner, os.path.join(wheel, "pip"), "install", "--quiet", "--no-index", wheel]
        if run(command, pip_variables(inner), quiet=True):
            raise Stop("pip's wheel could not be installed into {}".format(folder))


def pip_variables(python: str) -> Dict[str, str]:
    """Give the environment for pip: the caller's, plus what only uv or OpenSSL was told."""
    variables = dict(os.environ)
    prefix = os.path.dirname(os.path.dirname(python))
    variables.update(package_index.pip_environment(os.environ, prefix, toml_reader(python)))
    variables.update(PIP_DISABLE_PIP_VERSION_CHECK="1", PIP_NO_INPUT="1", PIP_USER="0")
    for name in ("PIP_TARGET", "PIP_PREFIX", "PIP_REQUIRE_VIRTUALENV", "PYTHONPATH", "PYTHONHOME"):
        variables.pop(name, None)
    add_headers(variables, prefix)  # a dependency without a wheel for this Python is compiled
    return variables


# --- Python.h and the compiler -----------------------------------------------


def private_headers(venv_folder: str) -> List[str]:
    """List the include folders of headers unpacked into .venv; empty if there are none."""
    root = os.path.join(venv_folder, "headers", "usr", "include")
    if not os.path.isdir(root):
        return []
    own = [os.path.join(root, name) for name in os.listdir(root) if name.startswith("python")]
    # pyconfig.h there includes <x86_64-linux-gnu/python3.11/pyconfig.h>: hence also the root.
    return [*own, root]


def add_headers(variables: Dict[str, str], venv_folder: str) -> None:
    """Let compilers find the headers unpacked into .venv."""
    known = variables.get("C_INCLUDE_PATH")
    folders = private_headers(venv_folder) + ([known] if known else [])
    if folders:
        variables["C_INCLUDE_PATH"] = os.pathsep.join(folders)


def ensure_build_tools(python: Python, venv_folder: str) -> Python:
    """
    See that Python.h and a C compiler are there.

    Returns:
        The interpreter to use: *python*, or one managed by uv if its headers are not to be had.
    """
    if not LINUX:
        return python
    if compiler() is None:
        say("  no C compiler")
        if not apt_install(["gcc", "libc6-dev"]) or compiler() is None:
            raise Stop("A C compiler is needed. Install it with:\n  " + system_command("compiler"))
    if python.has_headers or private_headers(venv_folder):
        return python
    say("  Python.h of {} is missing ({})".format(python.name, python.executable))
    package = headers_package(python)
    if apt_install([package]) and headers_arrived(python):
        return python
    if unpack_headers(python, venv_folder):
        return python
    managed = managed_python(venv_folder)
    if managed is not None and managed.has_headers:
        return managed
    raise Stop(
        "The headers of {} are needed to build the native part. Install them with:\n  {}".format(
            python.name, system_command("headers", package)
        )
    )


def compiler() -> Optional[str]:
    """Find the C compiler that the build will use."""
    named = os.environ.get("CC", "").split()
    for name in named[:1] or ["cc", "gcc", "clang"]:
        path = shutil.which(name)
        if path:
            return path
    return None


def headers_arrived(python: Python) -> bool:
    """Tell whether Python.h is there now."""
    again = probe(python.executable)
    return again is not None and again.has_headers


def headers_package(python: Python) -> str:
    """Name Debian's package with the headers of *python*."""
    default = probe("/usr/bin/python3")
    if default is not None and default.version[:2] == python.version[:2]:
        return "python3-dev"
    return python.name + "-dev"


def apt_install(packages: List[str]) -> bool:
    """Install Debian packages if this is root on a machine that has apt-get; say what comes."""
    if shutil.which("apt-get") is None or os.geteuid() != 0:
        return False
    variables = dict(os.environ, DEBIAN_FRONTEND="noninteractive", LC_ALL="C")
    install = ["apt-get", "install", "--yes", "--no-install-recommends"]
    output = ""
    for update in (False, True):  # an empty or old package list is the usual reason of a failure
        if update:
            capture(["apt-get", "update", "--quiet"], variables)
        code, output = capture([*install, "--simulate", *packages], variables)
        if code:
            continue
        new = [line.split()[1] for line in output.splitlines() if line.startswith("Inst ")]
        say("  apt-get installs {} packages: {}".format(len(new), " ".join(new)))
        code, output = capture([*install, *packages], variables)
        if code == 0:
            return True
    errors = [line for line in output.splitlines() if line.startswith("E: ")] or [""]
    say("  apt-get could not install {}: {}".format(" ".join(packages), errors[0][3:]))
    return False


def unpack_headers(python: Python, venv_folder: str) -> bool:
    """Without root: download Debian's package of the headers and unpack it into .venv."""
    if shutil.which("apt-get") is None or shutil.which("dpkg-deb") is None:
        return False
    package = "lib" + python.name + "-dev"
    target = os.path.join(venv_folder, "headers")
    with tempfile.TemporaryDirectory() as scratch:
        if not apt_download(package, scratch):
            return False
        for name in os.listdir(scratch):
            if name.endswith(".deb"):
                say("  unpacking {} into {}".format(name, os.path.relpath(target)))
                run(["dpkg-deb", "-x", os.path.join(scratch, name), target], quiet=True)
    return bool(private_headers(venv_folder))


def apt_download(package: str, folder: str) -> bool:
    """Download one package into *folder*, with package lists of our own if the system's lack it."""
    if in_folder(folder, ["apt-get", "download", package]) == 0:
        return True
    state = os.path.join(folder, "apt")
    os.makedirs(os.path.join(state, "lists", "partial"))
    os.makedirs(os.path.join(state, "cache", "archives", "partial"))
    options = [
        "-o",
        "Dir::State::Lists=" + os.path.join(state, "lists"),
        "-o",
        "Dir::Cache=" + os.path.join(state, "cache"),
        "-o",
        "Debug::NoLocking=1",
    ]
    if in_folder(folder, ["apt-get", *options, "update"]):
        return False
    return in_folder(folder, ["apt-get", *options, "download", package]) == 0


def in_folder(folder: str, command: List[str]) -> int:
    """Run *command* quietly in *folder*; returns its exit status."""
    return subprocess.call(
        command,
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def system_command(what: str, package: str = "") -> str:
    """Give the command of this system's package manager that installs *what*."""
    commands = {
        "apt-get": {
            "compiler": "sudo apt-get install gcc libc6-dev",
            "headers": "sudo apt-get install {}".format(package or "python3-dev"),
            "python": "sudo apt-get install python3 python3-dev python3-venv",
            "venv": "sudo apt-get install python3-venv",
        },
        "dnf": {
            "compiler": "sudo dnf install gcc glibc-devel libasan libubsan",
            "headers": "sudo dnf install {}el".format(package or "python3-dev"),
            "python": "sudo dnf install python3.13-devel",
            "venv": "sudo dnf install python3-pip",
        },
        "apk": {
            "compiler": "apk add gcc musl-dev",
            "headers": "apk add python3-dev",
            "python": "apk add python3 python3-dev",
            "venv": "apk add py3-pip",
        },
        "pacman": {
            "compiler": "sudo pacman -S gcc",
            "headers": "sudo pacman -S python",
            "python": "sudo pacman -S python",
            "venv": "sudo pacman -S python-pip",
        },
        "zypper": {
            "compiler": "sudo zypper install gcc glibc-devel",
            "headers": "sudo zypper install {}el".format(package or "python3-dev"),
            "python": "sudo zypper install python313-devel",
            "venv": "sudo zypper install python3-pip",
        },
        "brew": {
            "compiler": "xcode-select --install",
            "headers": "brew install python@3.13",
            "python": "brew install python@3.13",
            "venv": "brew install python@3.13",
        },
    }
    for manager, known in commands.items():
        if shutil.which(manager):
            command = known[what]
            return command.replace("sudo ", "") if os.geteuid() == 0 else command
    return "(your system's package manager) install: {}".format(package or what)

"""Programs of any Debian release, unpacked beside the system: no root, no chroot, nothing installed or started."""

import contextlib
import os
import shutil
import stat
from pathlib import Path

from .errors import ServerUnavailable
from .machine import program, run

_KEYS = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
_ARCHIVE = "http://deb.debian.org/debian"

# Runs a program of the folder with the folder's own loader and libraries, without entering the folder.
_ENTER = """\
#!/bin/sh
root=$(cd "$(dirname "$0")" && pwd)
loader=$(ls "$root"/lib*/ld-linux*.so.* "$root"/usr/lib*/ld-linux*.so.* "$root"/lib/*/ld-linux*.so.* "$root"/usr/lib/*/ld-linux*.so.* 2>/dev/null | head -n 1)
libraries=$(ls -d "$root"/lib/*-linux-gnu* "$root"/usr/lib/*-linux-gnu* 2>/dev/null | tr '\\n' ':')
program=$1
shift
exec "$loader" --library-path "$libraries" "$program" "$@"
"""

# Stands where a program was that others start by its path.
_STAND_IN = """\
#!/bin/sh
exec "$(dirname "$0")/{enter}" "$0.program" "$@"
"""


def unpack(folder: Path, *, release: str, package: str) -> None:
    """Fetch *package* of a Debian *release* and all that it depends on, and unpack them into *folder*.

    Checked with Debian's own keys, as apt does always. `folder/enter PROGRAM` then runs one of its programs.

    Raises:
        ServerUnavailable: This is no Debian or relative of it, or the archive does not answer.
    """
    apt = program("apt-get", package="apt")
    if not _KEYS.exists():
        raise ServerUnavailable(f"{_KEYS} is missing: install debian-archive-keyring")
    work = folder / "apt"
    for part in ["state/lists/partial", "cache/archives/partial"]:
        (work / part).mkdir(parents=True)
    # As if nothing were installed, so that the C library comes along.
    (work / "status").touch()
    # Of the archive's indices, the one of packages alone.
    (work / "sources.list").write_text(f"deb [signed-by={_KEYS} target=Packages] {_ARCHIVE} {release} main\n")
    # The machine's own settings stay in force: its proxy is among them.
    settings = {
        "Dir::State": f"{work}/state",
        "Dir::State::status": f"{work}/status",
        "Dir::Cache": f"{work}/cache",
        "Dir::Etc::SourceList": f"{work}/sources.list",
        "Dir::Etc::SourceParts": "/dev/null",
        "Dir::Etc::Preferences": "/dev/null",
        "Dir::Etc::PreferencesParts": "/dev/null",
        "APT::Sandbox::User": "root",
    }
    options = [word for name, value in settings.items() for word in ("-o", f"{name}={value}")]
    run([apt, *options, "-qq", "update"], what=f"asking for the packages of Debian {release}", tries=3)
    fetch = ["-qq", "--yes", "--no-install-recommends", "--download-only", "install", package]
    run([apt, *options, *fetch], what=f"fetching {package} of Debian {release}", tries=3)
    for archive in sorted((work / "cache" / "archives").glob("*.deb")):
        run(["dpkg-deb", "--extract", str(archive), str(folder)], what=f"unpacking {archive.name}")
    shutil.rmtree(work)
    # Temporary folders are closed to others; what is unpacked is read by whoever runs it.
    folder.chmod(0o755)
    _write_program(folder / "enter", _ENTER)


def make_erlang_run_anywhere(folder: Path) -> None:
    """Have the Erlang of an unpacked *folder* run from where it lies.

    Raises:
        ServerUnavailable: It does not run on this machine.
    """
    erlang = folder / "usr/lib/erlang"
    started_by_others = [
        *erlang.glob("erts-*/bin/erl_child_setup"),
        *erlang.glob("erts-*/bin/inet_gethost"),
        *erlang.glob("lib/os_mon-*/priv/bin/*"),
    ]
    for path in started_by_others:
        if path.read_bytes()[:4] == b"\x7fELF":
            path.rename(path.with_name(f"{path.name}.program"))
            _write_program(path, _STAND_IN.format(enter=os.path.relpath(folder / "enter", path.parent)))
    # RabbitMQ calls it for one thing, to see that a port mapper runs; ours is started beside it.
    _write_program(erlang / "bin/erl", "#!/bin/sh\nexit 0\n")
    run([*_emulator(folder), "-V"], what="running the Erlang of another release")


def erlang(folder: Path, home: Path, port_mapper: int) -> list[str]:
    """Give the command that runs Erlang from *folder*, to be continued with its user's arguments."""
    root = folder / "usr/lib/erlang"
    enter, beam = _emulator(folder)
    # What erlexec would pass. Waiting busily would take the time of the tests.
    flags = ["-pc", "unicode", "-sbwt", "none", "-sbwtdcpu", "none", "-sbwtdio", "none", "-W", "w"]
    places = ["-root", str(root), "-bindir", str(Path(beam).parent), "-progname", "erl"]
    return [
        *[enter, beam, *flags, "--", *places, "-epmd_port", str(port_mapper)],
        *["--", "-home", str(home / "home"), "--", "-noshell", "-noinput"],
    ]


def _emulator(folder: Path) -> list[str]:
    return [str(folder / "enter"), str(next(folder.glob("usr/lib/erlang/erts-*/bin/beam.smp")))]


def _write_program(path: Path, text: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        path.unlink()
    path.write_text(text)
    path.chmod(path.stat().st_mode | stat.S_IXUSR | stat.S_IXGRP | stat.S_IXOTH)

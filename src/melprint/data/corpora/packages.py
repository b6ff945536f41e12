"""Audio that Debian and Ubuntu packages carry, without root and without installing anything."""

import os
import shutil
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from melprint.errors import MelprintError
from melprint.progress import console, progress_bar

LISTS_MAX_AGE_S = 24 * 3600


def fetch_packages(names: Sequence[str], cache: Path) -> dict[str, Path]:
    """Download and unpack packages below ``cache``; gives the folder of each.  Licences go beside ``cache``.

    A package that the machine's release does not have is reported and left out.

    Raises:
        MelprintError: no apt on this machine, no network, or none of the packages is to be had.
    """
    if missing := [tool for tool in ("apt-get", "dpkg-deb") if shutil.which(tool) is None]:
        raise MelprintError(
            f"this machine has no {missing[0]}, which the packaged corpora come through;"
            " use your own music with data=folder data.corpus.music=FOLDER"
        )
    folders = {name: cache / name for name in names}
    todo = [name for name, folder in folders.items() if not folder.is_dir()]
    if todo:
        options = _refresh_lists(cache)
        with progress_bar("fetch packages", len(todo)) as advance:
            for name in todo:
                _fetch(name, cache, options)
                advance(1)
    found = {name: folder for name, folder in folders.items() if folder.is_dir()}
    if lacking := sorted(set(names) - set(found)):
        console.print(f"[yellow]not to be had from this machine's package archive: {', '.join(lacking)}")
    if not found:
        raise MelprintError(
            f"none of the packages {', '.join(names)} can be downloaded; check the network and the apt sources,"
            " or use your own music with data=folder data.corpus.music=FOLDER"
        )
    return found


def licence_of(name: str) -> str:
    """The file that holds a package's terms, relative to the folder of its corpus."""
    return f"licences/{name}.txt"


def _keep_licence(name: str, package: Path, corpus: Path) -> None:
    """Copy the package's copyright file, where it has one of its own, to where it stays."""
    source, target = package / "usr/share/doc" / name / "copyright", corpus / licence_of(name)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(
        source.read_text("utf-8", "replace") if source.is_file() else f"see the package {name}\n", "utf-8"
    )


def _refresh_lists(cache: Path) -> list[str]:
    """Bring private package lists up to date, the machine's own stay as they are."""
    lists = (cache / ".lists").resolve()
    (lists / "partial").mkdir(parents=True, exist_ok=True)
    options = ["-q", "-o", f"Dir::State::Lists={lists}", "-o", f"Dir::Cache={lists}"]
    if os.geteuid() == 0:  # apt would drop to a user that may not write here
        options += ["-o", "APT::Sandbox::User=root"]
    stamp = lists / "refreshed"
    if not stamp.exists() or time.time() - stamp.stat().st_mtime > LISTS_MAX_AGE_S:
        answer = subprocess.run(["apt-get", "update", *options], capture_output=True, text=True, check=False)
        if answer.returncode:
            reason = (answer.stderr.strip() or answer.stdout.strip()).splitlines()[-1:]
            raise MelprintError(f"apt-get update failed: {' '.join(reason)}; check the network, or use data=folder")
        stamp.touch()
    return options


def _fetch(name: str, cache: Path, options: Sequence[str]) -> None:
    download = cache / f".{name}.download"
    shutil.rmtree(download, ignore_errors=True)
    download.mkdir(parents=True)
    try:
        answer = subprocess.run(
            ["apt-get", "download", *options, name], cwd=download, capture_output=True, text=True, check=False
        )
        archives = list(download.glob("*.deb"))
        if answer.returncode or not archives:
            if "Unable to locate package" in answer.stderr or "has no installation candidate" in answer.stderr:
                return
            reason = (answer.stderr.strip() or answer.stdout.strip()).splitlines()[-1:]
            raise MelprintError(f"{name} cannot be downloaded: {' '.join(reason)}; run the same command again to go on")
        unpacked = download / "unpacked"
        subprocess.run(["dpkg-deb", "-x", str(archives[0]), str(unpacked)], capture_output=True, check=True)
        _keep_licence(name, unpacked, cache.parent)
        unpacked.rename(cache / name)
    except subprocess.CalledProcessError as error:
        raise MelprintError(f"{name} cannot be unpacked: {error.stderr.decode(errors='replace').strip()}") from error
    finally:
        shutil.rmtree(download, ignore_errors=True)

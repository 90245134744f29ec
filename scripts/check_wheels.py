"""Owns: the checks of built packages: `python scripts/check_wheels.py dist 3.11=/path/to/python3.11 ...`

Each wheel: its size, its platform tag against the versions of the symbols that it takes from the system's
libraries, no symbol table. Then it is installed into a fresh virtual environment, with nothing else on PATH,
and has to serve (scripts/try_wheel.py), unless it is for another processor or C library. The sdist is built
in an empty directory, and has to serve too.
Runs in build/release, with auditwheel and twine.
"""

import os
import platform
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from zipfile import ZipFile

from elftools.elf.elffile import ELFFile

HERE = Path(__file__).resolve().parent
LARGEST = 1_500_000
#: The newest symbols of glibc that a wheel for manylinux_2_17 may use; what a wheel may load (PEP 600, 656).
GLIBC = (2, 17)
LIBRARIES = {"libc.so.6", "libpthread.so.0", "libdl.so.2", "libm.so.6", "librt.so.1", "libgcc_s.so.1"}
MUSL_LIBRARIES = {"libc.so"}


class WrongError(Exception):
    """A package is not as it has to be."""


def require(condition: bool, problem: str) -> None:
    if not condition:
        raise WrongError(problem)


def needs(elf: ELFFile) -> tuple[set[str], tuple[int, int]]:
    """The libraries that a file loads, and the newest version of glibc that it needs; (0, 0): none."""
    dynamic = elf.get_section_by_name(".dynamic")
    libraries = {tag.needed for tag in dynamic.iter_tags() if tag.entry.d_tag == "DT_NEEDED"}
    section = elf.get_section_by_name(".gnu.version_r")
    versions = section.iter_versions() if section else ()
    names = " ".join(auxiliary.name for _, auxiliaries in versions for auxiliary in auxiliaries)
    glibc = [(int(major), int(minor)) for major, minor in re.findall(r"GLIBC_(\d+)\.(\d+)", names)]
    return libraries, max(glibc, default=(0, 0))


def strays(elf: ELFFile) -> set[str]:
    """The functions that a file takes from no version of a library: zig knows none of glibc's up to 2.17."""
    symbols = list(elf.get_section_by_name(".dynsym").iter_symbols())
    versions = elf.get_section_by_name(".gnu.version")
    return {
        symbol.name
        for number, symbol in enumerate(symbols)
        if symbol.entry.st_shndx == "SHN_UNDEF"
        and symbol.entry.st_info.bind == "STB_GLOBAL"
        and not re.match("_?Py", symbol.name)
        and versions.get_symbol(number)["ndx"] in ("VER_NDX_LOCAL", "VER_NDX_GLOBAL")
        and symbol.name
    }


def check_file(wheel: Path) -> str:
    """Check the wheel as a file; return what is worth saying."""
    size = wheel.stat().st_size
    require(size < LARGEST, f"it has {size:,} bytes, more than {LARGEST:,}")
    musl = "musllinux_1_2_" in wheel.name
    require(musl or "manylinux_2_17_" in wheel.name, "its tag is neither manylinux_2_17 nor musllinux_1_2")
    with ZipFile(wheel) as archive:
        names = archive.namelist()
        extensions = [name for name in names if name.endswith(".so")]
        require(len(extensions) == 1, f"it has not one extension but {extensions}")
        for wanted in ("proact/py.typed", "proact/_core.pyi", "proact/lab/report/report.js"):
            require(wanted in names, f"{wanted} is missing")
        require(any(name.endswith("licenses/LICENSE-MIT") for name in names), "it has no licence")
        with archive.open(extensions[0]) as file:
            elf = ELFFile(file)
            libraries, glibc = needs(elf)
            unversioned = set() if musl else strays(elf)
            sections = {section.name for section in elf.iter_sections()}
    require(not unversioned, f"glibc 2.17 does not have {unversioned}")
    require(glibc <= ((0, 0) if musl else GLIBC), f"it needs glibc {glibc[0]}.{glibc[1]}")
    allowed = MUSL_LIBRARIES if musl else LIBRARIES
    others = {name for name in libraries - allowed if not name.startswith("ld-linux")}
    require(not others, f"it needs {others}")
    require(not sections & {".symtab", ".debug_info", ".debug_line"}, "it is not stripped")
    if musl:
        # musl's loader knows the name `libc.so` as itself; auditwheel, on a machine with glibc, does not.
        return f"{size / 1000:,.0f} KB, musl"
    said = subprocess.run(
        [sys.executable, "-m", "auditwheel", "show", wheel], capture_output=True, text=True, check=True
    ).stdout
    found = re.search(r'constrains the platform tag to\s+"(\w+)"|platform tag:\s+"(\w+)"', said)
    require(found is not None and "manylinux_2_17_" in found[0], f"auditwheel says: {said}")
    return f"{size / 1000:,.0f} KB, glibc {glibc[0]}.{glibc[1]}"


def bare(folder: Path) -> dict[str, str]:
    """An environment with nothing on PATH but the virtual environment: no compiler, no cargo."""
    kept = {name: value for name, value in os.environ.items() if name.startswith(("PIP_", "SSL_CERT_"))}
    return kept | {"PATH": str(folder / "bin"), "HOME": str(folder), "LC_ALL": "C.UTF-8"}


def check_installed(package: Path, python: str, *, only: bool) -> None:
    """Install into a fresh virtual environment and use it. `only`: no compiler may be needed."""
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        subprocess.run([python, "-m", "venv", folder], check=True)
        pip = [folder / "bin/python", "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
        if only:
            environment, binaries = bare(folder), ["--only-binary", ":all:"]
        else:
            # Only what the sdist has matters here, so it is built quickly.
            quick = {"LTO": "off", "OPT_LEVEL": "0", "CODEGEN_UNITS": "16", "DEBUG": "0"}
            quick = {f"CARGO_PROFILE_RELEASE_{name}": value for name, value in quick.items()}
            environment, binaries = os.environ | quick | {"CARGO_TARGET_DIR": f"{folder}/target"}, []
        done = subprocess.run(
            [*pip, *binaries, f"{package}[cli]"], env=environment, cwd=folder, capture_output=True, text=True
        )
        require(done.returncode == 0, f"pip: {done.stdout[-2000:]}{done.stderr[-2000:]}")
        program = folder / "try_wheel.py"
        program.write_text((HERE / "try_wheel.py").read_text())
        certificate = HERE.parent / "tests" / "certificates" / "server.pem"
        done = subprocess.run(
            [folder / "bin/python", "-W", "error", program, certificate],
            env=bare(folder),
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=1200,  # it takes half a minute, on a machine that does nothing else
        )
        require(done.returncode == 0, f"it does not serve: {done.stdout[-2000:]}{done.stderr[-4000:]}")


def check(package: Path, pythons: dict[str, str], first: str) -> str:
    if package.suffix != ".whl":
        check_installed(package, first, only=False)
        return f"{package.stat().st_size / 1000:,.0f} KB, builds in an empty directory"
    said = check_file(package)
    if "musllinux" in package.name or platform.machine() not in package.name:
        return f"{said}; not run, because it is not for this machine"
    tag = re.search(r"-cp3(\d+t?)-(?!cp)", package.name)
    minor = f"3.{tag[1]}" if tag else "?"
    require(minor in pythons, f"there is no Python {minor} here to try it")
    check_installed(package, pythons[minor], only=True)
    return said


def main() -> None:
    folder, *pairs = sys.argv[1:]
    pythons = dict(pair.split("=", 1) for pair in pairs)
    packages = sorted(Path(folder).resolve().glob("proact-*"))
    if not any(package.suffix == ".whl" for package in packages):
        raise SystemExit(f"there is no wheel in {folder}: make wheels")
    failed = False
    subprocess.run([sys.executable, "-m", "twine", "check", "--strict", *packages], check=True)
    for package in packages:
        try:
            print(
                f"ok      {package.name}: {check(package, pythons, next(iter(pythons.values())))}", flush=True
            )
        except (WrongError, subprocess.TimeoutExpired) as problem:
            failed = True
            print(f"FAILED  {package.name}: {problem}", flush=True)
    sys.exit(failed)


if __name__ == "__main__":
    main()

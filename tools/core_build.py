"""Compiles core/ into afafilter/_core: which compiler, which levels, which flags.

Used by setup.py, by the build backend beside this file and by `make sanitize`. What has not changed
since its last compilation is not compiled again (build/core holds the objects).

Environment
    CXX                  the compiler; otherwise g++, c++ or clang++ from PATH, else PyPI's ziglang
    AFAFILTER_LEVELS     levels to build, as in "v2 v3 v4" or "sanitize"; by default all levels
                         for a wheel and this machine's level for a build that stays here
    AFAFILTER_STRICT     warnings are shown, as errors
"""

from __future__ import annotations

import importlib.util
import os
import platform
import shlex
import shutil
import subprocess
import sys
import sysconfig
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SOURCES = ROOT / "core"
FEATURES = {
    "v2": "cx16 sahf popcnt sse3 ssse3 sse4.1 sse4.2",
    "v3": "avx avx2 bmi bmi2 f16c fma lzcnt movbe xsave",
    "v4": "avx512f avx512bw avx512cd avx512dq avx512vl",
}
"""What each x86-64 level adds to the one before it (System V ABI, x86-64 supplement, 3.1.1)."""
X86_LEVELS = tuple(FEATURES)
NO_RUNTIME = (
    "-fno-exceptions",
    "-fno-rtti",
    "-fno-asynchronous-unwind-tables",
    "-fno-threadsafe-statics",
)
GROUPS = {
    "series": ("bind_flat", "bind_likelihood", "bind_mixture"),
    "lanes": ("bind_lanes",),
    "adaptive": ("bind_adaptive",),
    "kalman": ("bind_kalman", "bind_models"),
    "attention": ("bind_attention", "bind"),
}
"""Sources that are compiled as one: what they share is read and compiled once. Long ones first."""
PLAIN = "v2"
"""The level of processors of before 2013: all its sources as one, without instances of small
dimensions and at -Og: compiled in half the time of -O1, up to 2.4 times slower (AFA)."""
WHOLE = {"whole": tuple(member for members in GROUPS.values() for member in members)}
LENT = {("v4", "series"): "v3", ("v4", "kalman"): "v3"}
"""Groups that a level takes from another, so that they are not compiled once more: small states, a
series at a time, leave registers of 512 bits half empty."""
PAYS = ("lanes",)
"""Groups that -O3 makes faster (paths side by side: 1.1 to 1.4 times); others only grow by it."""
LANGUAGE = ("-std=c++17", "-fpeel-loops", "-DNDEBUG", "-fPIC", "-fvisibility=hidden")
ARITHMETIC = ("-fno-math-errno", "-fno-trapping-math", "-ffp-contract=fast", *NO_RUNTIME)
WARNINGS = ("-Wall", "-Wextra", "-Wconversion", "-Wno-psabi")
SANITIZERS = {"sanitize": "address,undefined", "threads": "thread"}


class BuildError(RuntimeError):
    """The core cannot be compiled; the message says what to do."""


def system_compiler() -> list[str] | None:
    """The compiler that is there, as the beginning of a command line."""
    if given := os.environ.get("CXX"):
        return shlex.split(given)
    for name in ("g++", "c++", "clang++", "clang-cl" if os.name == "nt" else "g++"):
        if path := shutil.which(name):
            return [path]
    return None


def compiler() -> list[str]:
    """`system_compiler`, or the one inside the PyPI package ziglang."""
    if found := system_compiler():
        return found
    if importlib.util.find_spec("ziglang") is not None:
        return [sys.executable, "-m", "ziglang", "c++"]
    raise BuildError(
        "afafilter: no C++ compiler found (looked for CXX, g++, c++, clang++ and the package "
        "ziglang); install one of them, for instance by `pip install ziglang`, and try again"
    )


def is_x86() -> bool:
    """Whether this machine speaks x86-64."""
    return platform.machine().lower() in ("x86_64", "amd64")


def levels(wheel: bool) -> tuple[str, ...]:
    """Builds to make: all levels for a wheel, else this machine's, `generic` off x86-64."""
    if given := os.environ.get("AFAFILTER_LEVELS"):
        return tuple(given.split())
    if not is_x86():
        return ("generic",)
    return X86_LEVELS if wheel else (machine_level(),)


def machine_level() -> str:
    """The highest level that this processor reaches, asked of it by a little program's build."""
    out = build_directory() / "probe"
    out.mkdir(parents=True, exist_ok=True)
    program = out / ("probe.exe" if os.name == "nt" else "probe")
    command = [*_linker(), "-std=c++17", "-O1", "-DAFA_PROGRAM", str(SOURCES / "probe.cpp")]
    _run([*command, f"-I{sysconfig.get_path('include')}", "-o", str(program)])
    level = int(subprocess.run([program], capture_output=True, check=True, text=True).stdout)
    if level < 2:
        raise BuildError(
            "afafilter: this processor lacks SSE4.2 and POPCNT (x86-64-v2), which the core needs"
        )
    return f"v{min(level, 4)}"


def build_directory() -> Path:
    return Path(os.environ.get("AFAFILTER_BUILD", ROOT / "build" / "core"))


def flags(level: str) -> list[str]:
    """Flags for one level."""
    common = [*LANGUAGE, *ARITHMETIC, *_warnings()]
    if level in SANITIZERS:
        kinds = SANITIZERS[level]
        common += ["-g", f"-fsanitize={kinds}", "-fno-omit-frame-pointer"]
        if "undefined" in kinds:
            common.append("-fno-sanitize-recover=undefined")
        level = "v3" if is_x86() else "generic"
    if level in X86_LEVELS:
        common += [f"-march=x86_64_{level}"] if _is_zig() else _features(level)
    return common


def _features(level: str) -> list[str]:
    """A level's instructions by name: GCC knows -march=x86-64-v3 since 11 only."""
    upto = X86_LEVELS[: X86_LEVELS.index(level) + 1]
    return [f"-m{name}" for each in upto for name in FEATURES[each].split()]


def _warnings() -> list[str]:
    return [*WARNINGS, "-Werror"] if os.environ.get("AFAFILTER_STRICT") else ["-w"]


def _is_zig() -> bool:
    return "ziglang" in compiler()


def compile_modules(targets: dict[str, Path]) -> None:
    """Build each level's module, and the probe, into its target; all objects side by side."""
    parts = {
        level: [(LENT.get((level, group), level), group) for group in _groups(level)]
        for level in targets
    }
    if "probe" in targets:
        parts["probe"] = [("probe", "probe")]
    names = ("probe", *WHOLE, *GROUPS)
    jobs = sorted({job for of in parts.values() for job in of}, key=lambda job: names.index(job[1]))
    made = {level for level, _ in jobs}
    for level in made:
        _prepare(level)
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        list(pool.map(lambda job: _compile(*job), jobs))
    for level in made:
        (build_directory() / level / "command.txt").write_text(_said(level))
    for level, target in targets.items():
        objects = [_object(*part) for part in parts[level]]
        target.parent.mkdir(parents=True, exist_ok=True)
        scratch = target.with_suffix(".part")
        _run([*_linker(), *_linking(level), *map(str, objects), "-o", str(scratch)])
        os.replace(scratch, target)


def _groups(level: str) -> dict[str, tuple[str, ...]]:
    return WHOLE if level == PLAIN else GROUPS


def _optimisation(level: str, group: str) -> str:
    if level in SANITIZERS:
        return "-O1"
    if level == PLAIN:
        return "-Og"
    return "-O3" if group in PAYS else "-O2"


def _command(level: str) -> list[str]:
    if level == "probe":
        options = ["-std=c++17", "-fPIC", *_warnings()]
    else:
        options = [*flags(level), f"-DAFA_LEVEL={level}", f"-I{SOURCES}"]
    return [*compiler(), *options, f"-I{sysconfig.get_path('include')}"]


def _said(level: str) -> str:
    return shlex.join(
        [*_command(level), *[_optimisation(level, group) for group in _groups(level)]]
    )


def _object(level: str, name: str) -> Path:
    return build_directory() / level / f"{name}.o"


def _prepare(level: str) -> None:
    """Forget objects that another command made."""
    stamp = build_directory() / level / "command.txt"
    if not (stamp.exists() and stamp.read_text() == _said(level)):
        shutil.rmtree(stamp.parent, ignore_errors=True)
    stamp.parent.mkdir(parents=True, exist_ok=True)


def _compile(level: str, name: str) -> None:
    """One object, unless it is newer than all that it is made from."""
    out = _object(level, name)
    if _is_current(out):
        return
    source = SOURCES / f"{name}.cpp"
    if level != "probe":
        source = out.with_suffix(".cpp")
        source.write_text("".join(f'#include "{member}.cpp"\n' for member in _groups(level)[name]))
    _run([*_command(level), _optimisation(level, name), "-MMD", "-c", str(source), "-o", str(out)])


def _is_current(out: Path) -> bool:
    """Whether an object is newer than everything that it was made from."""
    made_from = out.with_suffix(".d")
    if not (out.exists() and made_from.exists()):
        return False
    names = shlex.split(made_from.read_text().replace("\\\n", " "))[1:]
    made = out.stat().st_mtime
    return all(Path(name).exists() and Path(name).stat().st_mtime <= made for name in names)


def _linker() -> list[str]:
    """The compiler; zig's for C, which does not build a C++ library that nothing here needs."""
    return [*compiler()[:-1], "cc"] if _is_zig() else compiler()


def _linking(level: str) -> list[str]:
    options = ["-shared"]
    if sys.platform == "darwin":
        options += ["-undefined", "dynamic_lookup"]
    elif not _is_zig() and "clang" not in compiler()[0]:
        options += ["-static-libgcc", "-static-libstdc++"]
    if level in SANITIZERS:
        return ["-shared", f"-fsanitize={SANITIZERS[level]}"]
    return [*options, "-s"] if sys.platform.startswith("linux") else options


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        said = done.stderr[-4000:]
        raise BuildError(f"afafilter: compiling failed\n{shlex.join(command)}\n{said}")
    if done.stderr.strip():
        print(done.stderr, file=sys.stderr)

"""The build of the wheel. With EDGEPROXY_COMPILED=1 it compiles the modules of edgeproxy/compiled.txt.

Without it the wheel is pure, and needs no compiler. A module that does not compile ends the build, because a wheel with
some compiled modules is useless (docs/start/compiled.md).
"""

import os
import sys
import tomllib
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_py import build_py

COMPILED = os.environ.get("EDGEPROXY_COMPILED") == "1"

DIRECTIVES = {
    "language_level": 3,
    "annotation_typing": False,  # an annotation is no promise: only names that a .pxd declares have a type of C
    "nonecheck": True,  # without it, an attribute of None is read off None
    "boundscheck": True,
    "wraparound": True,
    "initializedcheck": True,
    "cdivision": False,
    "binding": False,
    "auto_pickle": False,
    "embedsignature": False,
}


def compile_modules() -> list[Extension]:
    """Return the modules as C, compiled from the .py files with the .pxd files beside them."""
    from Cython.Build import cythonize

    sources = Path("edgeproxy/compiled.txt").read_text().split()
    modules = [
        Extension(source.removesuffix(".py").replace("/", "."), [source], extra_compile_args=["-O2", "-g0", "-w"])
        for source in sources
    ]
    extensions: list[Extension] = cythonize(modules, build_dir="build/cython", compiler_directives=DIRECTIVES)
    return extensions


class BuildWithExamples(build_py):
    """A build with the files of config/ beside the demonstration, which reads them."""

    def run(self) -> None:
        super().run()
        if self.editable_mode:
            return  # There the demonstration reads config/ itself.
        for file in sorted((*Path("config").glob("*.yaml"), *Path("config/prometheus").glob("*.yml"))):
            copy = Path(self.build_lib, "edgeproxy/demo", file)
            self.mkpath(str(copy.parent))
            self.copy_file(str(file), str(copy))


if COMPILED:
    sets = tomllib.loads(Path("pyproject.toml").read_text())["project"]["optional-dependencies"]
    # pip runs `egg_info` before it has installed the requirements of a build.
    modules = [] if "egg_info" in sys.argv else compile_modules()
    setup(
        ext_modules=modules,
        setup_requires=sets["compiled"],
        cmdclass={"build_py": BuildWithExamples},
        options={"build_ext": {"parallel": os.cpu_count() or 1}},  # One compiler at a time takes minutes.
    )
else:
    setup(cmdclass={"build_py": BuildWithExamples})

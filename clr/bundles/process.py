"""A process that runs one bundle's code and no other's."""

import os
import sys
import traceback
from importlib.util import find_spec
from pathlib import Path

from clr.bundles.requirements import Policy, unpacked
from clr.errors import BrokenTask, ClrError
from clr.tasks.reference import Trainee, load
from clr.training.task import Task

SHOWN = 20
"""Names that an error lists at most."""


def load_from(bundle: str, data: bytes | None, folder: Path, policy: Policy, trainee: Trainee) -> Task:
    """Make the task of a bundle, in a process that has run no other bundle.

    Args:
        bundle: its digest.
        data: its bytes; None where this machine has unpacked it before.
        folder: where this machine keeps bundles.
        policy: what becomes of a ``requirements.txt``.
        trainee: the task ``module:function``, which must be the bundle's own; its arguments, whose paths may lie in
            the bundle too; its optimizer and batch size.

    Raises:
        BrokenTask: the bundle or its code is at fault; the message names the user's file and line.
    """
    root = folder.resolve() / bundle
    if str(root) not in sys.path:
        _enter(root, data, policy)
    folders = trainee["reach"]["folders"] if trainee["reach"] else ["/"]
    try:
        return load(trainee | {"reach": {"folders": [str(root), *folders], "modules": _own_modules(root)}})
    except (Exception, SystemExit) as error:
        raise BrokenTask(_sentence(error, root, trainee["task"])) from error


def _enter(root: Path, data: bytes | None, policy: Policy) -> None:
    """Make this process the bundle's own."""
    installed = unpacked(root, data, policy)
    if installed is not None and installed not in sys.path:
        sys.path.append(installed)
    _check_names(root)
    sys.path.insert(0, str(root))
    os.chdir(root)  # a relative path means the same here as where the bundle was written


def _check_names(root: Path) -> None:
    """A module that is loaded already would be imported in the place of the bundle's own."""
    for path in root.iterdir():
        if path.stem in sys.modules and (path.suffix == ".py" or (path / "__init__.py").exists()):
            raise BrokenTask(f"code: {path.name} has the name of a module that clr itself uses; rename it")


def _own_modules(root: Path) -> list[str]:
    """What an import at the top level finds in the bundle itself. Nothing is imported to know it."""
    return sorted(name for path in root.iterdir() if (name := path.stem).isidentifier() and _is_own(root, name))


def _is_own(root: Path, name: str) -> bool:
    spec = find_spec(name)
    places = [] if spec is None else list(spec.submodule_search_locations or []) or [str(spec.origin)]
    return bool(places) and all(Path(place).is_relative_to(root) for place in places)


def _sentence(error: BaseException, root: Path, task: str) -> str:
    cause = error.__cause__ or error
    rule = str(error) if isinstance(error, ClrError) else f"{type(error).__name__}: {_message(error)}"
    place = _place(cause, root) or _definition(root, task)
    return " ".join(f"{rule} ({place})".split())


def _message(error: BaseException) -> str:
    return str(error.msg) if isinstance(error, SyntaxError) else str(error)


def _place(error: BaseException, root: Path) -> str | None:
    """File and line of the bundle's code that the error came from; None where it came from elsewhere."""
    steps = [(frame.filename, frame.lineno) for frame in traceback.extract_tb(error.__traceback__)]
    if isinstance(error, SyntaxError):
        steps.append((error.filename or "", error.lineno))
    own = [(Path(file), line) for file, line in steps if Path(file).is_relative_to(root)]
    return None if not own else f"{own[-1][0].relative_to(root)}, line {own[-1][1]}"


def _definition(root: Path, task: str) -> str:
    """File and line of the function ``module:function``; of what is missing, what there is instead."""
    name, _, function = task.partition(":")
    file = Path(getattr(sys.modules.get(name), "__file__", None) or root)
    if root not in file.parents:
        names = sorted(path.name for path in root.iterdir())
        return f"there are {', '.join(names[:SHOWN])}"
    code = getattr(getattr(sys.modules[name], function, None), "__code__", None)
    return f"{file.relative_to(root)}, line {code.co_firstlineno}" if code else str(file.relative_to(root))

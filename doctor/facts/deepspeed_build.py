"""DeepSpeed's own rule for mixing CUDA versions, read out of the installed op_builder/builder.py.

The rule changed nine times between 0.3.1 and 0.19.5, in what it accepts and in where it is applied. The
installed source says it exactly, so no table of versions is kept. docs/deepspeed-cuda-rule.md has
what this reader finds in every release.
"""

from __future__ import annotations

import ast
import os.path

from llm_doctor.host import Host, Unavailable
from llm_doctor.model import BuildRule, DeepSpeedBuild, Packages

SOURCE = "deepspeed/ops/op_builder/builder.py"

_ASSERTION = "assert_no_cuda_mismatch"
_SKIP_VARIABLE = "DS_SKIP_CUDA_CHECK"


def read(host: Host, packages: Packages) -> DeepSpeedBuild:
    """The rule. Raises Unavailable where DeepSpeed is absent or keeps it elsewhere."""
    init = packages.modules.get("deepspeed")
    if init is None:
        raise Unavailable("DeepSpeed is not installed")
    package = os.path.dirname(init)
    # An editable install has the builders beside the package.
    for path in ("ops/op_builder/builder.py", "../op_builder/builder.py"):
        builder = os.path.normpath(os.path.join(package, path))
        if host.exists(builder):
            return rule(packages.installed.get("deepspeed", "unknown"), host.read(builder))
    raise Unavailable(f"{package} has no op_builder/builder.py")


def rule(version: str, source: str) -> DeepSpeedBuild:
    """The rule that builder.py's text holds. Raises Unavailable where it has none."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError) as error:
        raise Unavailable(f"{SOURCE} cannot be read: {error}") from error
    functions = {node.name: node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
    assertion = functions.get(_ASSERTION)
    if assertion is None:
        raise Unavailable(f"{SOURCE} has no {_ASSERTION}")
    return DeepSpeedBuild(
        version=version,
        accepted_minors=_accepted_minors(tree),
        honours_skip_variable=any(
            isinstance(node, ast.Constant) and node.value == _SKIP_VARIABLE for node in ast.walk(assertion)
        ),
        # builder() of CUDAOpBuilder, the last one in the file, is the pre-compiled build.
        when_precompiled=_applied(functions.get("builder")),
        when_jit=_applied(functions.get("jit_load")),
    )


def _accepted_minors(tree: ast.Module) -> dict[str, tuple[str, ...]]:
    for statement in tree.body:
        if isinstance(statement, ast.Assign) and any(
            isinstance(target, ast.Name) and target.id == "cuda_minor_mismatch_ok"
            for target in statement.targets
        ):
            try:
                table = ast.literal_eval(statement.value)
                return {str(major): tuple(map(str, minors)) for major, minors in table.items()}
            except (ValueError, TypeError, AttributeError) as error:
                raise Unavailable(f"{SOURCE}: its table of versions is no literal") from error
    return {}  # before 0.4.0: equal versions only


def _applied(function: ast.FunctionDef | None) -> BuildRule:
    if function is None or not _calls_assertion(function):
        return "not-checked"
    for node in ast.walk(function):
        if not isinstance(node, ast.Try) or not any(map(_calls_assertion, node.body)):
            continue
        if any(map(_catches_everything, node.handlers)):
            return "builds-for-cpu"
    return "raises"


def _catches_everything(handler: ast.ExceptHandler) -> bool:
    if handler.type is None:
        return True
    names = {node.id for node in ast.walk(handler.type) if isinstance(node, ast.Name)}
    return bool({"BaseException", "Exception"} & names)


def _calls_assertion(node: ast.AST) -> bool:
    return any(
        isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == _ASSERTION
        for call in ast.walk(node)
    )

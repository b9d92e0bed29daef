"""The house rules as checks over syntax trees. Each returns what breaks its rule, as "file:line: what to do"; see test_architecture."""

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from contracts.topics import TOPICS

REPOSITORY = Path(__file__).parents[2]
SERVICES = frozenset({"intake", "routing", "dept_adapter", "sync", "notify"})
OURS = SERVICES | {"contracts", "chassis", "sandbox", "xinfu_local", "xinfu"}
MAY_IMPORT = {"contracts": {"contracts"}, "chassis": {"chassis", "contracts"}} | {
    service: {service, "chassis", "contracts"} for service in SERVICES
}

PURE_LIBRARIES = frozenset(
    [
        "__future__",
        "abc",
        "base64",
        "bisect",
        "calendar",
        "collections",
        "contracts",
        "copy",
        "dataclasses",
        "datetime",
        "decimal",
        "enum",
        "fractions",
        "functools",
        "hashlib",
        "heapq",
        "hmac",
        "itertools",
        "json",
        "math",
        "operator",
        "re",
        "statistics",
        "string",
        "textwrap",
        "types",
        "typing",
        "unicodedata",
        "uuid",
        "zlib",
        "chinese_calendar",
        "pydantic",
    ]
)
"""What a domain may import. Add to it only what does no I/O and has neither clock nor randomness."""

IMPURE_BUILTINS = frozenset(["open", "input", "print", "exec", "eval", "compile", "__import__", "breakpoint"])
IMPURE_FUNCTIONS = frozenset({"uuid1", "uuid4", "getnode", "load_catalogue"})
"""Impure functions of modules that a domain may import."""
CLOCKS = frozenset({"now", "utcnow", "today"})
LOSSY_ACK_POLICIES = frozenset({"ACK_FIRST", "ACK", "REJECT_ON_ERROR"})
TOPIC_NAMES = frozenset(topic.name for topic in TOPICS if not topic.per_department)
TOPIC_PREFIXES = tuple(topic.name.partition("{")[0] for topic in TOPICS if topic.per_department)
TAKES_TOPICS = frozenset(
    [
        "subscriber",
        "publisher",
        "publish",
        "publish_batch",
        "send",
        "send_and_wait",
        "send_batch",
        "ConsumerSpec",
        "Topic",
        "NewTopic",
        "TopicPartition",
    ]
)
NAMES_INSTRUMENTS = frozenset({"get_tracer", "get_meter", "get_logger", "getLogger"})


@dataclass(frozen=True)
class Module:
    """One source file. ``name`` is its dotted name; a package has the name of its directory."""

    name: str
    tree: ast.Module

    @staticmethod
    def parse(name: str, source: str) -> "Module":
        return Module(name, ast.parse(source))

    @property
    def root(self) -> str:
        return self.name.partition(".")[0]

    def at(self, node: ast.AST, problem: str) -> str:
        return f"{self.name}:{getattr(node, 'lineno', 0)}: {problem}"


def package_modules(directory: Path) -> dict[str, Module]:
    """Every module of the package in ``directory``, by dotted name."""
    found = {}
    for path in sorted(directory.rglob("*.py")):
        parts = (directory.name, *path.relative_to(directory).with_suffix("").parts)
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        found[name] = Module.parse(name, path.read_text(encoding="utf-8"))
    return found


def imports(module: Module, *, is_package: bool = False) -> Iterator[tuple[ast.AST, str]]:
    """(node, dotted name) of everything imported; for ``from a import b`` both a and a.b, as b may be a module."""
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Import):
            yield from ((node, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parts = module.name.split(".")
                parent = parts[: len(parts) - node.level + is_package]
                base = ".".join([*parent, base] if base else parent)
            yield node, base
            yield from ((node, f"{base}.{alias.name}") for alias in node.names)
        elif isinstance(node, ast.Call) and _called(node) in {"import_module", "__import__"} and node.args:
            first = node.args[0]
            # a name computed at run time cannot be checked: it is nobody's
            yield node, str(first.value) if isinstance(first, ast.Constant) else "<computed>"


def _called(node: ast.Call) -> str:
    match node.func:
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return name
    return ""


def foreign_imports(module: Module) -> list[str]:
    """Services import contracts and chassis, chassis imports contracts, contracts nothing of ours."""
    allowed = MAY_IMPORT[module.root]
    problems = []
    for node, name in imports(module):
        root = name.partition(".")[0]
        if root == "<computed>":
            problems.append(module.at(node, "import by a computed name: write the import out"))
        elif root in OURS - allowed:
            problems.append(
                module.at(node, f"{module.root} imports {name}: only {sorted(allowed)} are allowed")
            )
    return sorted(set(problems))


def impurities(modules: Mapping[str, Module], start: str) -> list[str]:
    """I/O, clock or randomness in the module ``start`` or in what it imports of its own package, however indirectly."""
    problems: list[str] = []
    waiting, seen = [start], set()
    while waiting:
        name = waiting.pop()
        if name in seen or name not in modules:
            continue
        seen.add(name)
        module = modules[name]
        is_package = any(other.startswith(f"{name}.") for other in modules)
        for node, imported in imports(module, is_package=is_package):
            root = imported.partition(".")[0]
            if root == module.root:
                waiting.append(imported)
            elif root not in PURE_LIBRARIES:
                problems.append(
                    module.at(node, f"a domain imports {imported}: hand the result in as an argument")
                )
        problems += [module.at(node, what) for node, what in _impure_nodes(module.tree)]
    return sorted(set(problems))


def _impure_nodes(tree: ast.Module) -> Iterator[tuple[ast.AST, str]]:
    for node in ast.walk(tree):
        match node:
            case ast.Name(id=name) if name in IMPURE_BUILTINS | IMPURE_FUNCTIONS:
                yield node, f"a domain uses {name}"
            case ast.Attribute(attr=name) | ast.alias(name=name) if name in IMPURE_FUNCTIONS:
                yield node, f"a domain uses {name}"
            # any .now() is a clock; a field called now is not
            case ast.Call(func=ast.Attribute(attr=name)) if name in CLOCKS:
                yield node, f"a domain reads the clock ({name}): take the time as an argument"
            case ast.Attribute(
                value=ast.Name(id="datetime" | "date") | ast.Attribute(attr="datetime" | "date"), attr=name
            ) if name in CLOCKS:
                yield node, f"a domain holds a clock ({name}): take the time as an argument"
            case ast.AsyncFunctionDef() | ast.Await():
                yield node, "a domain is not asynchronous: it has nothing to wait for"


def motor_imports(module: Module) -> list[str]:
    """motor lives in chassis.db and nowhere else (docs/decisions/0002)."""
    if module.name == "chassis.db":
        return []
    found = {
        module.at(node, f"{name}: use chassis.db, the only module that knows the driver")
        for node, name in imports(module)
        if name.partition(".")[0] == "motor"
    }
    return sorted(found)


def lossy_subscribers(module: Module) -> list[str]:
    """FastStream's default for Kafka is at-most-once, and ACK and REJECT_ON_ERROR commit past a failed message."""
    problems = []
    for node in ast.walk(module.tree):
        if not isinstance(node, ast.Call) or _called(node) != "subscriber":
            continue
        policy = next((keyword.value for keyword in node.keywords if keyword.arg == "ack_policy"), None)
        if policy is None:
            problems.append(module.at(node, "subscriber without ack_policy loses messages: set it"))
        elif isinstance(policy, ast.Attribute) and policy.attr in LOSSY_ACK_POLICIES:
            problems.append(module.at(node, f"ack_policy {policy.attr} skips failed messages"))
    return problems


def threaded_calls(module: Module) -> list[str]:
    """FastAPI sends what is not async, route or dependency, through a pool of threads: dear where nothing in it blocks."""
    plain = {node.name: node for node in ast.walk(module.tree) if isinstance(node, ast.FunctionDef)}
    named = {
        argument.id
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Call) and _called(node) == "Depends"
        for argument in node.args
        if isinstance(argument, ast.Name)
    }
    served = {
        name
        for name, node in plain.items()
        for call in node.decorator_list
        if isinstance(call, ast.Call)
        and isinstance(call.func, ast.Attribute)
        and isinstance(call.func.value, ast.Name)
        and call.func.value.id in ("router", "api", "app")
        and call.func.attr in ("get", "post", "put", "patch", "delete")
    }
    return sorted(
        module.at(plain[name], f"{name} goes through a thread: make it async")
        for name in plain.keys() & (named | served)
    )


def _starts_of_text(node: ast.AST) -> Iterator[tuple[ast.AST, str, bool]]:
    """(node, text, whole): string literals, and how f-strings begin."""
    inside = {
        id(value) for each in ast.walk(node) if isinstance(each, ast.JoinedStr) for value in each.values
    }
    for each in ast.walk(node):
        if isinstance(each, ast.JoinedStr):
            if each.values and isinstance(each.values[0], ast.Constant):
                yield each, str(each.values[0].value), False
        elif isinstance(each, ast.Constant) and isinstance(each.value, str) and id(each) not in inside:
            yield each, each.value, True


def undeclared_topics(module: Module) -> list[str]:
    """Topics are named in contracts.topics alone."""
    problems = set()
    exempt: set[int] = set()
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            exempt.add(id(node.value))  # a docstring
        if not isinstance(node, ast.Call):
            continue
        arguments = [*node.args, *(keyword.value for keyword in node.keywords)]
        if _called(node) in NAMES_INSTRUMENTS:
            exempt |= {id(argument) for argument in arguments}
        if _called(node) in TAKES_TOPICS:
            problems |= {
                module.at(literal, f"topic {text!r}: take its name from contracts.topics")
                for argument in arguments
                for literal, text, _ in _starts_of_text(argument)
                if text.startswith("xinfu.")
            }
    for literal, text, whole in _starts_of_text(module.tree):
        named = (whole and text in TOPIC_NAMES) or text.startswith(TOPIC_PREFIXES)
        if named and id(literal) not in exempt:
            problems.add(module.at(literal, f"topic {text!r}: take its name from contracts.topics"))
    return sorted(problems)

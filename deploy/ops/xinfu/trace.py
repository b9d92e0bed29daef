"""`xinfu trace APPLICATION`: the tree of everything an application led to, with times, from the sandbox's OTLP store."""

from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

from rich.tree import Tree

from xinfu.client import Client


@dataclass
class Node:
    """A span with its children in order of start."""

    span: dict[str, Any]
    children: list["Node"] = field(default_factory=list)

    @property
    def name(self) -> str:
        """Service and span name."""
        return f"{self.span['service_name']}: {self.span['name']}"


async def spans_of(client: Client, sandbox_url: str, application_id: str) -> list[dict[str, Any]]:
    """All spans of the traces that speak of the application, and of some linked to them."""
    # linked batches lead to the traces of other applications: those nearest are enough
    query = f"attribute=xinfu.application_id&value={application_id}&max_traces=10&max_spans=50000"
    url = f"{sandbox_url}/otlp/traces?{query}"
    answer = await client.call("GET", url)
    return list(answer["spans"])


def forest(spans: list[dict[str, Any]]) -> list[Node]:
    """Spans as trees; a span whose parent is unknown is a root. Oldest first."""
    nodes = {span["span_id"]: Node(span) for span in sorted(spans, key=lambda s: s["start_unix_nano"])}
    roots: list[Node] = []
    for node in nodes.values():
        parent = nodes.get(node.span["parent_span_id"] or "")
        (parent.children if parent else roots).append(node)
    return roots


def submission(spans: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The spans of the one trace that begins with the POST of the application; empty when it is not there (yet)."""
    by_trace: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for span in spans:
        by_trace[span["trace_id"]].append(span)
    for found in by_trace.values():
        if any(span["name"] == "POST /v1/applications" for span in found):
            return found
    return []


def render(spans: list[dict[str, Any]], title: str) -> Tree:
    """The tree with start (ms after the first span) and duration of each span; errors in red, gaps marked."""
    begin = min((span["start_unix_nano"] for span in spans), default=0)
    tree = Tree(f"[bold]{title}[/bold] · {len(spans)} spans")

    def add(branch: Tree, node: Node) -> None:
        span = node.span
        start = (span["start_unix_nano"] - begin) / 1e6
        length = (span["end_unix_nano"] - span["start_unix_nano"]) / 1e6
        style = "red" if span["status"] == "error" else "default"
        attributes = span["attributes"]
        about = " ".join(str(attributes[k]) for k in ("xinfu.target_id", "xinfu.outcome") if k in attributes)
        line = (
            f"[dim]{start:8.0f} ms[/dim] [{style}]{node.name}[/{style}] {about} [cyan]{length:.1f} ms[/cyan]"
        )
        twig = branch.add(line)
        for child in node.children:
            add(twig, child)

    for root in forest(spans):
        add(tree, root)
    return tree

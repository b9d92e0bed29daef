"""The AsyncAPI 3.0.0 document of xinfu: read it with ``asyncapi_document``; ``contracts.generate`` builds it.

Source: AsyncAPI Specification 3.0.0; Kafka bindings 0.5.0; CloudEvents Kafka Protocol Binding 1.0.2.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from contracts.catalogue import Catalogue, Department
from contracts.envelope import CONTENT_TYPE, SPEC_VERSION, dataschema
from contracts.events import Event
from contracts.glossary import EVENT_MEANINGS, EVENT_TITLES
from contracts.schemas import event_schema
from contracts.topics import DAY_MS, INBOUND, RECORDS, TOPICS, Topic

Node = dict[str, Any]

_BINDING_VERSION = "0.5.0"
_PRODUCTION_REPLICAS = 3

_INFO = """\
**信复**（信用修复“一件事”）各环节之间的事件。读懂并接入，只需本文档和任一 Kafka 客户端；不需要我们的代码。
Events of xinfu, one-stop credit repair. This document and any Kafka client are all an integrator needs.

**方向** 本文档从平台的角度书写：操作 `send` 由平台发布，您可以订阅；操作 `receive` 由平台接收，您可以发布（`xinfu.records`；直连的认定单位还有自己的 `xinfu.inbound.*`）。

**消息格式** CloudEvents 1.0，Kafka 绑定，binary 模式：属性在 `ce_*` 消息头中，消息值是 UTF-8 JSON，媒体类型在 `content-type` 中。\
链路追踪用 W3C Trace Context（`traceparent`、`tracestate`）。一条消息的值不超过 900,000 字节。

**键与顺序** 每个主题只有一种键，写在各消息的 Kafka 绑定里，与 `ce_subject` 相同。同一键的事件在同一分区，按发生顺序排列；不同键之间、\
不同主题之间没有顺序保证。发布时分区器须为 murmur2（Java 客户端的默认；librdkafka 请设 `partitioner=murmur2_random`），否则同一键会落到两个分区。

**至少一次** 同一事件可能收到多次（重试、故障后重放）。请按 (`ce_source`, `ce_id`) 去重，且去重记录与业务变更在同一事务中保存；平台自己保留\
60 天。重放后同一事件的标识不变。

**处理失败** 平台的每个消费方对暂时处理不了的键先挂起再重试，不让后来的同键事件越过它，也不耽误其他键；永远无法处理的消息转为死信，由人处理。

**未知类型、未知字段** 请忽略：类型以 `.v1` 结尾，v1 只会增加可选字段；任何不兼容的变化都是新类型（`.v2`）。

**保留** 主题按时间清理，期限写在各通道的 Kafka 绑定里（30 天）。要更早的状态，请用 HTTP 查询。

**个人信息** 事件中没有身份证号、电话、地址、邮箱；主体只以假名 `subject_id` 出现。依法需要知道更多的，凭访问令牌向受理服务查询\
（`POST /v1/internal/subjects/lookup`，权限 `cases.read`）。
"""

_HEADERS: Node = {
    "type": "object",
    "required": ["ce_specversion", "ce_id", "ce_type", "ce_source"],
    "properties": {
        "ce_specversion": {"type": "string", "const": SPEC_VERSION, "description": "CloudEvents 版本"},
        "ce_id": {
            "type": "string",
            "minLength": 1,
            "maxLength": 200,
            "description": "事件标识；与 ce_source 一起唯一，重发、重放时不变：按这两项去重",
        },
        "ce_type": {"type": "string", "description": "事件类型及版本"},
        "ce_source": {
            "type": "string",
            "format": "uri-reference",
            "minLength": 1,
            "description": "谁发布了它，例如 /xinfu/intake",
        },
        "ce_subject": {"type": "string", "description": "事件所说的事物，与 Kafka 键相同"},
        "ce_time": {"type": "string", "format": "date-time", "description": "发生时间，RFC 3339，带时区"},
        "ce_dataschema": {"type": "string", "format": "uri", "description": "消息值的 JSON Schema 的标识"},
        "content-type": {"type": "string", "const": CONTENT_TYPE, "description": "消息值的媒体类型"},
        "traceparent": {
            "type": "string",
            "pattern": "^[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$",
            "description": "W3C Trace Context：一次申请从受理到各平台同步，在同一条链路上",
        },
        "tracestate": {"type": "string", "description": "W3C Trace Context，可无"},
    },
}


def asyncapi_document() -> bytes:
    """The committed document (JSON, UTF-8), as packed in the wheel, else ``contracts/asyncapi.json`` of the repository."""
    here = Path(__file__).resolve().parent
    packed = here / "asyncapi.json"
    return (packed if packed.is_file() else here.parent / "asyncapi.json").read_bytes()


def build(catalogue: Catalogue, examples: Mapping[str, Node]) -> Node:
    """The document. ``examples``: CloudEvents type -> ``{"headers", "key", "data"}``. Raises KeyError for a missing one."""
    schemas: dict[str, Node] = {}
    messages: dict[str, Node] = {}
    for cls in (cls for topic in TOPICS for cls in topic.events):
        payload = _hoisted(event_schema(cls))
        schemas |= payload.pop("$defs", {})
        schemas[cls.__name__] = payload
        messages[cls.__name__] = _message(cls, payload, examples[cls.TYPE])
    operations = {f"send{_camel(topic)}": _operation(topic, "send") for topic in TOPICS}
    # what others write, we do not
    del operations[f"send{_camel(INBOUND)}"]
    for topic in (RECORDS, INBOUND):
        operations[f"receive{_camel(topic)}"] = _operation(topic, "receive")
    return {
        "asyncapi": "3.0.0",
        "id": "urn:xinfu:events",
        "info": {"title": "信复 xinfu 事件接口", "version": "1.0.0", "description": _INFO},
        "defaultContentType": CONTENT_TYPE,
        "servers": _SERVERS,
        "channels": {_channel_id(topic): _channel(topic, catalogue) for topic in TOPICS},
        "operations": operations,
        "components": {
            "messages": messages,
            "messageTraits": {"cloudEvent": {"contentType": CONTENT_TYPE, "headers": _HEADERS}},
            "schemas": dict(sorted(schemas.items())),
            "securitySchemes": {
                "scramSha512": {"type": "scramSha512", "description": "SASL SCRAM-SHA-512（默认）"},
                "scramSha256": {"type": "scramSha256", "description": "SASL SCRAM-SHA-256"},
                "plain": {"type": "plain", "description": "SASL PLAIN，只可在 TLS 上使用"},
            },
        },
    }


_SERVERS: Node = {
    "production": {
        "host": "{bootstrapServers}",
        "protocol": "kafka-secure",
        "title": "生产环境",
        "description": "TLS 加 SASL。地址、账号与可读写的主题由平台运行方开通。",
        "variables": {"bootstrapServers": {"description": "Kafka 引导地址（host:port），向平台运行方索取"}},
        "security": [
            {"$ref": f"#/components/securitySchemes/{name}"}
            for name in ("scramSha512", "scramSha256", "plain")
        ],
    },
    "local": {
        "host": "127.0.0.1:{port}",
        "protocol": "kafka",
        "title": "本地栈",
        "description": "开发用，明文，无认证（deploy/local）。",
        "variables": {"port": {"description": "实际端口见 .xinfu/run/stack.json", "examples": ["9092"]}},
    },
}


def _hoisted(schema: Node) -> Node:
    """A schema whose references point into the document's components; it is of no dialect but AsyncAPI's there."""
    text = json.dumps(schema).replace('"#/$defs/', '"#/components/schemas/')
    return {k: v for k, v in json.loads(text).items() if k not in ("$schema", "$id")}


def _camel(topic: Topic) -> str:
    return _channel_id(topic).capitalize()


def _channel_id(topic: Topic) -> str:
    """``xinfu.reviews.{department}`` -> ``reviews``."""
    return topic.name.split(".")[1]


def _channel(topic: Topic, catalogue: Catalogue) -> Node:
    days = topic.retention_ms // DAY_MS
    order = "同一键的事件按顺序生效" if topic.ordered else "不保证顺序"
    channel: Node = {
        "address": topic.name,
        "title": topic.name,
        "summary": topic.description,
        "description": f"归属服务：{topic.owner}。键：`{topic.key}`，{order}。至少一次。保留 {days} 天。",
        "messages": {cls.__name__: _ref("components", "messages", cls.__name__) for cls in topic.events},
        "tags": [{"name": topic.owner, "description": "归属服务 (owner)"}],
        "bindings": {
            "kafka": {
                "partitions": topic.partitions,
                "replicas": _PRODUCTION_REPLICAS,
                "topicConfiguration": {"cleanup.policy": ["delete"], "retention.ms": topic.retention_ms},
                "bindingVersion": _BINDING_VERSION,
            }
        },
    }
    if topic.per_department:
        departments = [d for d in catalogue.departments if topic is not INBOUND or d.mode == "events"]
        channel["parameters"] = {"department": _department_parameter(departments)}
    return channel


def _department_parameter(departments: Sequence[Department]) -> Node:
    names = "、".join(f"`{d.slug}` {d.name}" for d in departments)
    slugs = [d.slug for d in departments]
    return {
        "description": f"认定单位的短标识，每个单位一个主题：{names}",
        "enum": slugs,
        "examples": slugs[:1],
    }


def _operation(topic: Topic, action: str) -> Node:
    channel = _channel_id(topic)
    if action == "send":
        title = f"平台发布：{topic.description}"
        text = f"由 {topic.owner} 发布，获准的一方可用自己的消费组订阅；不认识的类型和字段请忽略。"
    elif topic is INBOUND:
        title = f"平台接收：{topic.description}"
        text = (
            "由该认定单位自己发布，只能说自己的事项；别的单位的事项成为死信。`ce_source` 用您自己的 URI，重发同一事件时 `ce_id` 不变；"
            "请把 `ReviewRequested` 消息的 `traceparent` 原样带回。"
        )
    else:
        title = "平台接收：失信记录的公示与撤回"
        text = (
            "由认定单位或公示平台发布，受理服务 intake 接收。发布前先登记主体取得假名（`PUT /v1/internal/subjects`，权限 "
            "`records.write`）。`ce_source` 用您自己的 URI；重发同一事件时 `ce_id` 不变；更正一条记录时用同一 `record_id`、新的 `ce_id`。"
        )
    return {
        "action": action,
        "channel": _ref("channels", channel),
        "title": title,
        "summary": title,
        "description": text,
        "tags": [{"name": topic.owner}],
        "messages": [_ref("channels", channel, "messages", cls.__name__) for cls in topic.events],
    }


def _message(cls: type[Event], payload: Node, example: Node) -> Node:
    correlation = next(name for name in ("application_id", cls.KEY) if name in cls.model_fields)
    return {
        "name": cls.TYPE,
        "title": f"{EVENT_TITLES[cls.__name__]} {cls.__name__}",
        "summary": f"{EVENT_MEANINGS[cls.__name__]}（{cls.TYPE}）",
        "traits": [_ref("components", "messageTraits", "cloudEvent")],
        "headers": {
            "type": "object",
            "properties": {
                "ce_type": {"type": "string", "const": cls.TYPE},
                "ce_dataschema": {"type": "string", "const": dataschema(cls.TYPE)},
            },
        },
        "payload": _ref("components", "schemas", cls.__name__),
        "correlationId": {
            "location": f"$message.payload#/{correlation}",
            "description": "把同一申请的事件连在一起"
            if correlation == "application_id"
            else "把同一记录的事件连在一起",
        },
        "bindings": {
            "kafka": {
                "key": {**payload["properties"][cls.KEY], "description": f"消息值中的 {cls.KEY}，UTF-8 文本"},
                "bindingVersion": _BINDING_VERSION,
            }
        },
        "examples": [
            {
                "name": cls.__name__,
                "summary": f"Kafka 键：{example['key']}",
                "headers": example["headers"],
                "payload": example["data"],
            }
        ],
    }


def _ref(*path: str) -> dict[str, str]:
    return {"$ref": "#/" + "/".join(path)}

"""The local stack: embedded MongoDB and Kafka, every service a process under supervisord."""

from xinfu_local.apache_kafka import CACHE_DIR, Listener, kafka_tool
from xinfu_local.errors import StackError
from xinfu_local.kafka import Broker, broker_from_environment
from xinfu_local.ports import free_port
from xinfu_local.process import Process
from xinfu_local.running import Description, RunningStack
from xinfu_local.stack import DEFAULT_DATA_DIR, Stack

__all__ = [
    "CACHE_DIR",
    "DEFAULT_DATA_DIR",
    "Broker",
    "Description",
    "Listener",
    "Process",
    "RunningStack",
    "Stack",
    "StackError",
    "broker_from_environment",
    "free_port",
    "kafka_tool",
]

"""A few fields of protocol buffers of others, read by Google's own library without their compiled descriptions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# message -> (field name, number, type, repeated); a type that is a message's name nests it
Messages = Mapping[str, tuple[tuple[str, int, str, bool], ...]]


def message_class(package: str, messages: Messages, name: str) -> Any:
    """The class that reads the message of that name; fields that are not described are skipped.

    Raises `ImportError` where protobuf is not installed.
    """
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

    field = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name=f"{package}.proto", package=package, syntax="proto2")
    for message, entries in messages.items():
        described = file.message_type.add(name=message)
        for field_name, number, kind, repeated in entries:
            label = field.LABEL_REPEATED if repeated else field.LABEL_OPTIONAL
            added = described.field.add(name=field_name, number=number, label=label)
            if kind in messages:
                added.type, added.type_name = field.TYPE_MESSAGE, f".{package}.{kind}"
            else:
                added.type = getattr(field, f"TYPE_{kind.upper()}")
            if kind == "float":
                added.options.packed = True
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{package}.{name}"))

"""What schema registries mean by BACKWARD: Avro's own rule, as Avro's own library has it."""

from __future__ import annotations

from typing import Any, cast

import avro.compatibility
import avro.schema


def can_read(reader: str, writer: str) -> bool:
    """Whether data that was written with one schema can be read with another.

    Args:
        reader: Avro schema, as JSON text.
        writer: The same.
    """
    checker: Any = cast("Any", avro.compatibility).ReaderWriterCompatibilityChecker()
    result = checker.get_compatibility(
        reader=avro.schema.parse(reader), writer=avro.schema.parse(writer)
    )
    compatible = avro.compatibility.SchemaCompatibilityType.compatible
    return result.compatibility is compatible

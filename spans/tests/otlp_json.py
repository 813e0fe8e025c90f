"""Checks a traces.json with decoders that share no code with this project.

    pip install opentelemetry-proto
    python3 spans/tests/otlp_json.py results/.../traces.json

Strict: a field that OTLP does not know is an error. OTLP/JSON writes trace and span ids in hex, where the
generic JSON mapping of protobuf has base64, so the ids are converted first. Also checks that every parent is
there and contains its children, and prints how many traces hold both sides.
"""

import base64
import collections
import json
import sys

from google.protobuf import json_format
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest


def to_base64(message):
    for key in ("traceId", "spanId", "parentSpanId"):
        if key in message:
            message[key] = base64.b64encode(bytes.fromhex(message[key])).decode()


def decoded(path):
    with open(path) as file:
        document = json.load(file)
    for group in document["resourceSpans"]:
        for scope in group["scopeSpans"]:
            for span in scope["spans"]:
                to_base64(span)
                for link in span.get("links", []):
                    to_base64(link)
    return json_format.ParseDict(document, ExportTraceServiceRequest())


def main(path):
    traces = collections.defaultdict(dict)
    services = collections.defaultdict(set)
    for group in decoded(path).resource_spans:
        names = [a.value.string_value for a in group.resource.attributes if a.key == "service.name"]
        for scope in group.scope_spans:
            for span in scope.spans:
                assert len(span.trace_id) == 16 and len(span.span_id) == 8, span
                assert span.span_id not in traces[span.trace_id], f"sent twice: {span}"
                traces[span.trace_id][span.span_id] = span
                services[span.trace_id].update(names)
    for spans in traces.values():
        for span in spans.values():
            assert span.start_time_unix_nano <= span.end_time_unix_nano, span
            if span.parent_span_id:
                parent = spans.get(span.parent_span_id)
                assert parent is not None, f"no parent: {span}"
                assert parent.start_time_unix_nano <= span.start_time_unix_nano, f"{parent} {span}"
                assert parent.end_time_unix_nano >= span.end_time_unix_nano, f"{parent} {span}"
    total = sum(len(spans) for spans in traces.values())
    both = sum(len(names) > 1 for names in services.values())
    print(f"{path}: {len(traces)} traces, {total} spans, {both} traces with more than one service")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(sys.argv[1])

use super::*;
use crate::{Event, Identity, Kind, Link, Role, SampleRate, attr};
use serde_json::Value as Json;
use zoometry_wire::SessionId;

fn span() -> Span {
    let identity = Identity::new(0, SampleRate::ALL);
    let trace = identity.request(SessionId(0x0100_0000_0000_0000), 1);
    let mut span = Span::new(trace, trace.span(Role::Server, 1), "set\"Data\\", Kind::Server, 5, u64::MAX)
        .child_of(trace.span(Role::Client, 0))
        .with("text", "a\n\u{1}\u{1f}ä\u{1F600}".to_owned())
        .with("int", i64::MIN)
        .with("float", 0.1)
        .with("nan", f64::NAN)
        .with("below", f64::NEG_INFINITY)
        .with("flag", true);
    span.events.push(Event { name: "sent".into(), at_ns: 7, attrs: vec![attr("n", 1)] });
    span.links.push(Link { trace, span: trace.span(Role::Fsync, 1), attrs: Vec::new() });
    span.status = Status::Error("CONNECTIONLOSS".into());
    span.tracestate = "ot=th:0".into();
    span
}

#[test]
fn a_request_has_every_field_in_otlps_spelling() {
    let mut out = String::new();
    write_request(&mut out, &Resource::member("1.2", "zoo", 3), &[span(), span()]);
    let json: Json = serde_json::from_str(&out).unwrap();
    let group = &json["resourceSpans"][0];
    assert_eq!(group["resource"]["attributes"][0]["value"]["stringValue"], "zoo-3");
    assert_eq!(group["scopeSpans"][0]["scope"]["name"], "zookeeper");
    assert_eq!(group["scopeSpans"][0]["scope"]["version"], "1.2");
    let span = &group["scopeSpans"][0]["spans"][1];
    assert_eq!(span["traceId"], "0ec6151ea0a698bab47bb9842258e0d9");
    assert_eq!(span["spanId"], "0753d1244308e2f8");
    assert_eq!(span["parentSpanId"], "e8142f05b3d68c04");
    assert_eq!(span["traceState"], "ot=th:0");
    assert_eq!(span["flags"], 3);
    assert_eq!(span["name"], "set\"Data\\");
    assert_eq!(span["kind"], 2);
    assert_eq!(span["startTimeUnixNano"], "5");
    assert_eq!(span["endTimeUnixNano"], u64::MAX.to_string());
    let attributes = span["attributes"].as_array().unwrap();
    assert_eq!(attributes[0]["value"]["stringValue"], "a\n\u{1}\u{1f}ä\u{1F600}");
    assert_eq!(attributes[1]["value"]["intValue"], i64::MIN.to_string());
    assert_eq!(attributes[2]["value"]["doubleValue"], 0.1);
    assert_eq!(attributes[3]["value"]["doubleValue"], "NaN");
    assert_eq!(attributes[4]["value"]["doubleValue"], "-Infinity");
    assert_eq!(attributes[5]["value"]["boolValue"], true);
    assert_eq!(span["events"][0]["timeUnixNano"], "7");
    assert_eq!(span["links"][0]["spanId"].as_str().unwrap().len(), 16);
    assert_eq!(span["status"]["code"], 2);
}

#[test]
fn too_many_attributes_are_cut_and_counted() {
    let mut span = span();
    span.attrs = (0..200).map(|n| attr("n", n)).collect();
    let mut out = String::new();
    write_span(&mut out, &span);
    let json: Json = serde_json::from_str(&out).unwrap();
    assert_eq!(json["attributes"].as_array().unwrap().len(), MAX_PER_SPAN);
    assert_eq!(json["droppedAttributesCount"], 72);
}

#[test]
fn a_file_is_a_line_per_batch_goes_on_after_a_torn_one_and_has_a_limit() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("spans");
    let open = || SpanFile::append(&path, Resource::member("1", "zoo", 1)).unwrap();
    let mut file = open();
    file.write(&[span()]).unwrap();
    file.write(&[]).unwrap();
    let line = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, format!("{line}{}", &line[..100])).unwrap();
    let mut file = open().with_limit(line.len() as u64 * 3);
    file.write(&[span()]).unwrap();
    file.write(&[span(), span()]).unwrap();
    assert_eq!(file.dropped(), 2);
    let text = std::fs::read_to_string(&path).unwrap();
    let lines: Vec<bool> = text.lines().map(|l| serde_json::from_str::<Json>(l).is_ok()).collect();
    assert_eq!(lines, [true, false, true]);
}

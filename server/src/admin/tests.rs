//! Every command against the JSON of a running Apache ZooKeeper 3.8.0: the same fields, of the same types.

use std::collections::BTreeSet;

use serde_json::Value;

use super::*;
use crate::config::Config;
use crate::stats::ServerStats;
use crate::words::tests::{Fixture, leader, stats};

const APACHE: &str = include_str!("../../tests/data/apache-3.8.0-admin.json");
/// Fields that only make sense with TLS towards clients.
const NOT_HERE: [&str; 2] = ["non_mtlsremote_conn_count", "non_mtlslocal_conn_count"];

fn config() -> Config {
    Config::parse("dataDir=/nowhere\nclientPort=2181\nadmin.serverPort=8080", "zoo.cfg").expect("a good file")
}

fn get_from(path: &str, member: &Fixture, stats: &ServerStats) -> Answer {
    let (path, query) = path.split_once('?').unwrap_or((path, ""));
    answer(Target { path, query }, "/commands", Context { config: &config(), stats, member })
}

fn get(path: &str) -> Answer {
    get_from(path, &Fixture::default(), &stats())
}

fn fields(answer: &Answer) -> Value {
    assert_eq!((answer.status, answer.content_type), (200, "application/json"));
    serde_json::from_str(&answer.body).expect("JSON")
}

/// Field names with the types of their values; a map by ids or paths and a list count as their first entry.
fn shape(value: &Value, path: &str, out: &mut BTreeSet<String>) {
    match value {
        Value::Object(map) => {
            for (key, value) in map.iter().filter(|(key, _)| !NOT_HERE.contains(&key.as_str())) {
                let by_id = key.starts_with('/') || key.bytes().all(|byte| byte.is_ascii_digit());
                let key = if by_id { "<id>" } else { key };
                shape(value, &format!("{path}.{key}"), out);
            }
        }
        Value::Array(list) => match list.first() {
            Some(first) => shape(first, &format!("{path}[]"), out),
            // An empty list tells nothing of its entries.
            None => drop(out.insert(format!("{path}[]"))),
        },
        Value::String(_) => drop(out.insert(format!("{path}: text"))),
        Value::Number(_) => drop(out.insert(format!("{path}: number"))),
        Value::Bool(_) => drop(out.insert(format!("{path}: bool"))),
        Value::Null => drop(out.insert(format!("{path}: null"))),
    }
}

fn shape_of(value: &Value) -> BTreeSet<String> {
    let mut out = BTreeSet::new();
    shape(value, "", &mut out);
    // Lists that happened to be empty on one side.
    out.retain(|line| !line.ends_with("[]") && !line.starts_with(".digests"));
    out
}

#[test]
fn fields_are_apaches() {
    let apache: Value = serde_json::from_str(APACHE).expect("JSON");
    let apache = apache.as_object().expect("answers by command");
    assert_eq!(apache.len(), 16);
    for (name, expected) in apache {
        let path = match name.as_str() {
            "set_trace_mask" => "/commands/set_trace_mask?traceMask=306".to_string(),
            name => format!("/commands/{name}"),
        };
        assert_eq!(shape_of(&fields(&get(&path))), shape_of(expected), "{name}");
    }
}

#[test]
fn values_are_the_members() {
    let stats = fields(&get("/commands/stats"));
    assert_eq!(stats["server_stats"]["avg_latency"], 4.25);
    assert_eq!(stats["server_stats"]["last_processed_zxid"], 8);
    assert_eq!(stats["client_response"]["max_buffer_size"], 84);
    assert_eq!(stats["connections"].as_array().map(Vec::len), Some(3));
    let dump = fields(&get("/commands/dump"));
    assert_eq!(dump["session_id_to_ephemeral_paths"]["72057711178088448"], json!(["/e", "/e2"]));
    let watches = fields(&get("/commands/wchc"));
    assert_eq!(watches["session_id_to_watched_paths"]["72057711178088448"], json!(["/c/d", "/e", "/nope"]));
    assert_eq!(watches["command"], "watches", "the name, not the alias");
    let hash = fields(&get("/commands/hash"));
    assert_eq!(hash["digests"][0], json!({ "zxid": 128, "digest": 1371985504, "digestVersion": 2 }));
    let monitor = fields(&get("/commands/monitor"));
    assert_eq!((&monitor["znode_count"], &monitor["avg_latency"]), (&json!(10), &json!(4.25)));
    assert_eq!(monitor["server_state"], "standalone");
}

#[test]
fn a_leader_tells_its_proposals() {
    let member = Fixture { facts: Some(leader()), ..Fixture::default() };
    let stats = fields(&get_from("/commands/server_stats", &member, &stats()));
    assert_eq!(stats["proposal_stats"]["max_buffer_size"], 88);
}

#[test]
fn resets_reset() {
    let (member, stats) = (Fixture::default(), stats());
    get_from("/commands/crst", &member, &stats);
    assert_eq!(member.resets.load(std::sync::atomic::Ordering::Relaxed), 1);
    get_from("/commands/stat_reset", &member, &stats);
    assert_eq!(stats.collect().packets_received, 0);
    get_from("/commands/stmk?x=1&traceMask=-7", &member, &stats);
    assert_eq!(fields(&get_from("/commands/gtmk", &member, &stats))["tracemask"], -7);
}

#[test]
fn errors_are_fields() {
    let error = |path: &str| fields(&get(path))["error"].clone();
    assert_eq!(error("/commands/nosuch"), "Unknown command: nosuch");
    assert_eq!(error("/commands/set_trace_mask"), "setTraceMask requires long traceMask argument");
    assert_eq!(
        error("/commands/set_trace_mask?traceMask=x"),
        "setTraceMask requires long traceMask argument"
    );
    assert_eq!(error("/commands/ruok"), Value::Null);
}

#[test]
fn a_member_that_does_not_serve_says_so() {
    let member = Fixture { facts: None, ..Fixture::default() };
    for command in COMMANDS {
        let answer = fields(&get_from(&format!("/commands/{}", command.name), &member, &stats()));
        assert_eq!(answer["error"] == NOT_SERVING, command.needs == Needs::Serving, "{}", command.name);
    }
}

#[test]
fn other_places_are_not_there() {
    for path in ["/", "/command", "/commandsx", "/commands/a/b", "/metrics"] {
        assert_eq!(get(path).status, 404, "{path}");
    }
    for path in ["/commands", "/commands/"] {
        let list = get(path);
        assert_eq!(list.content_type, "text/html; charset=utf-8");
        assert!(list.body.contains("<a href=\"/commands/server_stats\">server_stats</a>\n<br/>\n"), "{path}");
    }
}

#[test]
fn names_are_unique() {
    let mut seen = BTreeSet::new();
    for command in COMMANDS {
        for name in command.aliases.iter().chain([&command.name]) {
            assert!(seen.insert(*name), "{name} stands twice");
        }
    }
}

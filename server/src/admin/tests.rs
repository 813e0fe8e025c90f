//! Every command against the JSON of a running Apache ZooKeeper 3.8.0: the same fields, of the same types.

use std::collections::BTreeSet;

use serde_json::Value;

use super::*;
use crate::config::Config;
use crate::stats::ServerStats;
use crate::words::tests::{Fixture, leader, stats};

const APACHE: &str = include_str!("../../tests/data/apache-3.8.0-admin.json");
/// A leader with id 2, of two participants and an observer.
const APACHE_LEADER: &str = include_str!("../../tests/data/apache-3.9.5-admin-ensemble.json");
/// Fields that only make sense with TLS towards clients.
const NOT_HERE: [&str; 2] = ["non_mtlsremote_conn_count", "non_mtlslocal_conn_count"];
/// What Apache's `zabstate` has of an address, beside the addresses: what could be reached, and parts.
const GETTERS: [&str; 8] = [
    "empty",
    "wildcard_addresses",
    "all_ports",
    "all_host_strings",
    "reachable_address",
    "all_reachable_addresses",
    "all_reachable_addresses_or_all",
    "reachable_or_one",
];

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

/// A leader of an ensemble like that of [`APACHE_LEADER`], with two snapshots.
fn get_from_leader(path: &str) -> Value {
    let home = tempfile::tempdir().expect("a directory");
    let version_2 = home.path().join("version-2");
    std::fs::create_dir(&version_2).expect("version-2");
    for name in ["snapshot.9", "snapshot.100000003.gz", "log.200000001"] {
        std::fs::write(version_2.join(name), "").expect("a file");
    }
    std::fs::write(home.path().join("myid"), "2").expect("myid");
    let text = format!(
        "dataDir={}\nclientPort=28102\ninitLimit=10\nsyncLimit=5\nserver.1=127.0.0.1:28301:28401\n\
         server.2=127.0.0.1:28302:28402\nserver.3=127.0.0.1:28303:28403:observer;28103\n",
        home.path().display()
    );
    let file = home.path().join("zoo.cfg");
    std::fs::write(&file, text).expect("zoo.cfg");
    let config = Config::load(&file).expect("a good file");
    let member = Fixture { facts: Some(leader()), ..Fixture::default() };
    let target = Target { path, query: "" };
    fields(&answer(target, "/commands", Context { config: &config, stats: &stats(), member: &member }))
}

#[test]
fn what_a_leader_says_of_its_ensemble_is_as_apaches() {
    let apache: Value = serde_json::from_str(APACHE_LEADER).expect("JSON");
    for (name, expected) in apache.as_object().expect("answers by command") {
        let mut expected = shape_of(expected);
        expected.retain(|line| !GETTERS.iter().any(|getter| line.contains(&format!(".{getter}"))));
        assert_eq!(shape_of(&get_from_leader(&format!("/commands/{name}"))), expected, "{name}");
    }
    let leader = get_from_leader("/commands/lead");
    assert_eq!((&leader["is_leader"], &leader["leader_id"]), (&json!(true), &json!(2)));
    let view = get_from_leader("/commands/voting_view")["current_config"].clone();
    assert_eq!(view, apache["voting_view"]["current_config"]);
    let state = get_from_leader("/commands/zabstate");
    for field in ["myid", "client_address", "voting", "zabstate"] {
        assert_eq!(state[field], apache["zabstate"][field], "{field}");
    }
    assert_eq!(state["election_address"]["one"], apache["zabstate"]["election_address"]["one"]);
    assert_eq!(get_from_leader("/commands/lsnp")["zxid"], "100000003");
}

#[test]
fn alone_there_is_no_ensemble_to_tell_of() {
    assert_eq!(fields(&get("/commands/leader"))["error"], "a standalone server has no leader");
    assert_eq!(fields(&get("/commands/voting_view"))["current_config"], json!({}));
    assert_eq!(fields(&get("/commands/zabstate"))["voting"], false);
    let nothing = fields(&get("/commands/last_snapshot"))["error"].clone();
    assert!(nothing.as_str().is_some_and(|error| error.contains("/nowhere")), "{nothing}");
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

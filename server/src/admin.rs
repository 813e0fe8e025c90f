//! The admin endpoint: commands over HTTP, answered in JSON, as Apache's AdminServer does.
//!
//! Off unless `admin.serverPort` is set: Apache's default is on at 8080, where the second member on a machine
//! would find the port taken. No TLS, no authentication: the commands here tell and reset, as the four-letter
//! words do, and nothing more; bind it to loopback with `admin.serverAddress=127.0.0.1` where that matters.
//!
//! Rules (reference §11.2): every answer has `command` and `error`; status 200 also for an unknown command
//! and for a member that does not serve. Commands that need a JVM or write access (`snapshot`, `restore`) are not
//! there, nor is `observers`, which tells of single observers' links.

mod ensemble;

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde_json::{Map, Value, json};
use zoometry_wire::SessionId;

use crate::config::Ensemble;
use crate::http::{Answer, Target};
use crate::stats::{Collected, ConnView, Counter, op_word};
use crate::view::{Facts, Listing, Mode};
use crate::words::{self, Context, NOT_SERVING};

/// A command: its name, other names for it, and whether the member must serve.
struct Command {
    name: &'static str,
    aliases: &'static [&'static str],
    needs: Needs,
    run: fn(Context<'_>, &str, Option<&Facts>) -> Result<Value, String>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Needs {
    Nothing,
    Serving,
}

const COMMANDS: &[Command] = &[
    Command {
        name: "configuration",
        aliases: &["conf", "config"],
        needs: Needs::Serving,
        run: |context, _, _| Ok(configuration(context)),
    },
    Command {
        name: "connection_stat_reset",
        aliases: &["crst"],
        needs: Needs::Serving,
        run: |context, _, _| {
            context.member.reset_connections();
            Ok(json!({}))
        },
    },
    Command {
        name: "connections",
        aliases: &["cons"],
        needs: Needs::Serving,
        run: |context, _, _| {
            let connections: Vec<_> = context.member.connections().iter().map(connection).collect();
            Ok(json!({ "connections": connections, "secure_connections": [] }))
        },
    },
    Command {
        name: "dirs",
        aliases: &[],
        needs: Needs::Serving,
        run: |context, _, _| {
            let (data, log) = words::directory_sizes(context.config);
            Ok(json!({ "datadir_size": data, "logdir_size": log }))
        },
    },
    Command { name: "dump", aliases: &[], needs: Needs::Serving, run: |context, _, _| Ok(dump(context)) },
    Command {
        name: "environment",
        aliases: &["env", "envi"],
        needs: Needs::Nothing,
        run: |_, _, _| {
            let entries = words::environment_entries().into_iter();
            Ok(Value::Object(entries.map(|(key, value)| (key.to_string(), value.into())).collect()))
        },
    },
    Command {
        name: "get_trace_mask",
        aliases: &["gtmk"],
        needs: Needs::Nothing,
        run: |context, _, _| Ok(json!({ "tracemask": context.stats.trace_mask() })),
    },
    Command { name: "hash", aliases: &[], needs: Needs::Serving, run: |context, _, _| Ok(hash(context)) },
    Command {
        name: "is_read_only",
        aliases: &["isro"],
        needs: Needs::Serving,
        run: |_, _, facts| Ok(json!({ "read_only": facts.map(|facts| facts.mode) == Some(Mode::ReadOnly) })),
    },
    Command {
        name: "last_snapshot",
        aliases: &["lsnp"],
        needs: Needs::Nothing,
        run: |context, _, _| ensemble::last_snapshot(context.config),
    },
    Command {
        name: "leader",
        aliases: &["lead"],
        needs: Needs::Serving,
        run: |context, _, facts| {
            facts.map_or_else(|| Ok(json!({})), |facts| ensemble::leader(context, facts))
        },
    },
    Command {
        name: "monitor",
        aliases: &["mntr"],
        needs: Needs::Serving,
        run: |context, _, facts| Ok(facts.map_or_else(|| json!({}), |facts| monitor(context, facts))),
    },
    Command { name: "ruok", aliases: &[], needs: Needs::Nothing, run: |_, _, _| Ok(json!({})) },
    Command {
        name: "server_stats",
        aliases: &["srvr"],
        needs: Needs::Serving,
        run: |context, _, facts| Ok(facts.map_or_else(|| json!({}), |facts| stats(context, facts, None))),
    },
    Command { name: "set_trace_mask", aliases: &["stmk"], needs: Needs::Nothing, run: set_trace_mask },
    Command {
        name: "stat_reset",
        aliases: &["srst"],
        needs: Needs::Serving,
        run: |context, _, _| {
            context.stats.reset();
            Ok(json!({}))
        },
    },
    Command {
        name: "stats",
        aliases: &["stat"],
        needs: Needs::Serving,
        run: |context, _, facts| {
            let connections = context.member.connections();
            Ok(facts.map_or_else(|| json!({}), |facts| stats(context, facts, Some(&connections))))
        },
    },
    Command {
        name: "voting_view",
        aliases: &[],
        needs: Needs::Serving,
        run: |context, _, _| Ok(ensemble::voting_view(context)),
    },
    Command {
        name: "watch_summary",
        aliases: &["wchs"],
        needs: Needs::Serving,
        run: |_, _, facts| {
            let watches = facts.map(|facts| facts.watches).unwrap_or_default();
            Ok(json!({
                "num_connections": watches.connections,
                "num_paths": watches.paths,
                "num_total_watches": watches.data,
            }))
        },
    },
    Command {
        name: "watches",
        aliases: &["wchc"],
        needs: Needs::Serving,
        run: |context, _, _| Ok(watches_by_session(context)),
    },
    Command {
        name: "watches_by_path",
        aliases: &["wchp"],
        needs: Needs::Serving,
        run: |context, _, _| {
            let Listing { listed, left_out } = context.member.watches_by_path();
            let by_path: Map<_, _> = listed.into_iter().map(|(path, own)| (path, ids(&own))).collect();
            Ok(noting(left_out, json!({ "path_to_session_ids": by_path })))
        },
    },
    Command {
        name: "zabstate",
        aliases: &[],
        needs: Needs::Serving,
        run: |context, _, facts| {
            Ok(facts.map_or_else(|| json!({}), |facts| ensemble::zab_state(context, facts)))
        },
    },
];

/// The answer to a request: the list of commands at `url` (`admin.commandURL`), a command below it, 404
/// everywhere else.
pub fn answer(target: Target<'_>, url: &str, context: Context<'_>) -> Answer {
    let url = url.trim_end_matches('/');
    let Some(rest) = target.path.strip_prefix(url) else {
        return Answer::plain(404, &format!("there is {url}"));
    };
    match rest {
        "" | "/" => Answer::ok("text/html; charset=utf-8", links(url)),
        _ => match rest.strip_prefix('/') {
            Some(name) if !name.contains('/') => run(name, target.query, context),
            _ => Answer::plain(404, &format!("there is {url}")),
        },
    }
}

fn links(url: &str) -> String {
    let mut text = String::new();
    for Command { name, .. } in COMMANDS {
        let _ = writeln!(text, "<a href=\"{url}/{name}\">{name}</a>\n<br/>");
    }
    text
}

fn run(name: &str, query: &str, context: Context<'_>) -> Answer {
    let command = COMMANDS.iter().find(|command| command.name == name || command.aliases.contains(&name));
    let (name, result) = match command {
        None => (name, Err(format!("Unknown command: {name}"))),
        Some(command) => {
            let facts = context.member.facts();
            let result = if command.needs == Needs::Serving && facts.is_none() {
                Err(NOT_SERVING.to_string())
            } else {
                (command.run)(context, query, facts.as_ref())
            };
            (command.name, result)
        }
    };
    let (mut fields, error) = match result {
        Ok(fields) => (fields, Value::Null),
        Err(error) => (json!({}), error.into()),
    };
    fields["command"] = name.into();
    fields["error"] = error;
    Answer::ok("application/json", format!("{fields:#}"))
}

fn set_trace_mask(context: Context<'_>, query: &str, _: Option<&Facts>) -> Result<Value, String> {
    let mask = query.split('&').find_map(|pair| pair.strip_prefix("traceMask=")).map(str::parse::<i64>);
    let Some(Ok(mask)) = mask else {
        return Err("setTraceMask requires long traceMask argument".into());
    };
    context.stats.set_trace_mask(mask);
    Ok(json!({ "tracemask": mask }))
}

fn configuration(context: Context<'_>) -> Value {
    let config = context.config;
    let server_id = match &config.ensemble {
        Ensemble::Standalone { .. } => 0,
        Ensemble::Member(membership) => membership.my_id,
    };
    json!({
        "client_port": config.client.listen.as_ref().map_or(-1, |listen| i32::from(listen.port)),
        "data_dir": config.snapshot_dir().display().to_string(),
        "data_log_dir": config.log_dir().display().to_string(),
        "tick_time": config.tick_time_ms,
        "max_client_cnxns": config.client.max_per_ip.unwrap_or(0),
        "min_session_timeout": config.sessions.min_timeout_ms,
        "max_session_timeout": config.sessions.max_timeout_ms,
        "server_id": server_id,
        "client_port_listen_backlog": config.client.backlog.map_or(-1, i64::from),
    })
}

/// What `stats` has of a connection.
fn connection_in_brief(view: &ConnView) -> Value {
    json!({
        "remote_socket_address": view.remote.to_string(),
        "interest_ops": view.interest_ops,
        "outstanding_requests": view.queued,
        "packets_received": view.received,
        "packets_sent": view.sent,
    })
}

fn connection(view: &ConnView) -> Value {
    let mut fields = connection_in_brief(view);
    if let Some(session) = &view.session {
        fields["session_id"] = session.id.0.into();
        fields["last_operation"] = session.last_op.map_or("NA", op_word).into();
        fields["established"] = session.established_ms.into();
        fields["session_timeout"] = session.timeout_ms.into();
        fields["last_cxid"] = session.last_cxid.unwrap_or(-1).into();
        fields["last_zxid"] = session.last_zxid.0.into();
        fields["last_response_time"] = session.last_response_ms.into();
        fields["last_latency"] = session.last_latency_ms.into();
        fields["min_latency"] = session.min_latency_ms.into();
        fields["avg_latency"] = session.avg_latency_ms.into();
        fields["max_latency"] = session.max_latency_ms.into();
    }
    fields
}

fn dump(context: Context<'_>) -> Value {
    let mut by_expiry: BTreeMap<i64, Vec<SessionId>> = BTreeMap::new();
    let sessions = context.member.sessions();
    for session in sessions.listed {
        by_expiry.entry(session.expires_ms).or_default().push(session.id);
    }
    let by_expiry: Map<_, _> = by_expiry
        .into_iter()
        .map(|(expires_ms, sessions)| (expires_ms.to_string(), ids(&sessions)))
        .collect();
    let Listing { listed, left_out } = context.member.ephemerals();
    let ephemerals: Map<_, _> =
        listed.into_iter().map(|(session, paths)| (session.0.to_string(), paths.into())).collect();
    let fields =
        json!({ "expiry_time_to_session_ids": by_expiry, "session_id_to_ephemeral_paths": ephemerals });
    noting(sessions.left_out + left_out, fields)
}

/// A list that is not whole says so.
fn noting(left_out: usize, mut fields: Value) -> Value {
    if left_out > 0 {
        fields["left_out"] = left_out.into();
    }
    fields
}

fn ids(sessions: &[SessionId]) -> Value {
    sessions.iter().map(|session| session.0).collect()
}

/// `digestVersion` is that of the tree's digest, which has been 2 since 3.6.
fn hash(context: Context<'_>) -> Value {
    const DIGEST_VERSION: i32 = 2;
    let digests = context.member.digests().into_iter();
    let digests: Vec<_> = digests
        .map(|(zxid, digest)| {
            json!({ "zxid": zxid.0, "digest": digest as i64, "digestVersion": DIGEST_VERSION })
        })
        .collect();
    json!({ "digests": digests })
}

/// The lines of `mntr`, without their prefix; numbers as numbers.
fn monitor(context: Context<'_>, facts: &Facts) -> Value {
    let text = crate::metrics::mntr(facts, &context.stats.collect());
    let fields = text.lines().filter_map(|line| line.split_once('\t')).map(|(name, value)| {
        let name = name.strip_prefix("zk_").unwrap_or(name).to_string();
        (name, serde_json::from_str::<serde_json::Number>(value).map_or_else(|_| value.into(), Value::Number))
    });
    Value::Object(fields.collect())
}

fn stats(context: Context<'_>, facts: &Facts, connections: Option<&[ConnView]>) -> Value {
    let collected = context.stats.collect();
    let mut fields = json!({
        "version": words::version(),
        "read_only": facts.mode == Mode::ReadOnly,
        "server_stats": server_stats(context, facts, &collected),
        "client_response": response_sizes(&collected),
        "node_count": facts.node_count,
    });
    if let Some(leader) = facts.ensemble.as_ref().and_then(|ensemble| ensemble.leader.as_ref()) {
        fields["proposal_stats"] = json!({
            "last_buffer_size": leader.last_proposal_size,
            "min_buffer_size": leader.min_proposal_size,
            "max_buffer_size": leader.max_proposal_size,
        });
    }
    if let Some(connections) = connections {
        fields["connections"] = connections.iter().map(connection_in_brief).collect();
        fields["secure_connections"] = json!([]);
    }
    fields
}

fn server_stats(context: Context<'_>, facts: &Facts, collected: &Collected) -> Value {
    let (data_bytes, log_bytes) = words::directory_sizes(context.config);
    json!({
        "packets_sent": collected.packets_sent,
        "packets_received": collected.packets_received,
        "fsync_threshold_exceed_count": collected.counter(Counter::SlowFsyncs),
        "client_response_stats": response_sizes(collected),
        "data_dir_size": data_bytes,
        "log_dir_size": log_bytes,
        "server_state": facts.mode.name(),
        "last_processed_zxid": facts.last_zxid.0,
        "outstanding_requests": collected.outstanding,
        "avg_latency": collected.latency.avg_ms(),
        "max_latency": collected.latency.max_ms(),
        "min_latency": collected.latency.min_ms(),
        "num_alive_client_connections": collected.connections,
        "uptime": collected.uptime_ms,
        "auth_failed_count": collected.counter(Counter::AuthFailures),
        "provider_null": false,
    })
}

fn response_sizes(collected: &Collected) -> Value {
    json!({
        "last_buffer_size": collected.response.last,
        "min_buffer_size": collected.response.min,
        "max_buffer_size": collected.response.max,
    })
}

fn watches_by_session(context: Context<'_>) -> Value {
    let mut by_session: BTreeMap<SessionId, Vec<String>> = BTreeMap::new();
    let watches = context.member.watches_by_path();
    for (path, sessions) in watches.listed {
        for session in sessions {
            by_session.entry(session).or_default().push(path.clone());
        }
    }
    let by_session: Map<_, _> =
        by_session.into_iter().map(|(session, paths)| (session.0.to_string(), paths.into())).collect();
    noting(watches.left_out, json!({ "session_id_to_watched_paths": by_session }))
}

#[cfg(test)]
mod tests;

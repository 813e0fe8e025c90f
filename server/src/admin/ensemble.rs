//! The commands about the ensemble: who leads, who votes, where this member stands.
//!
//! Apache's `zabstate` prints its address objects with every getter; here are the addresses, without what could be
//! reached at that moment. Source: `S/admin/Commands.java`; reference §11.2.

use std::time::UNIX_EPOCH;

use serde_json::{Map, Value, json};
use zoometry_replica::storage::names::parse_snapshot;

use crate::config::{Config, Endpoint, Ensemble, Member, MemberAddress, MemberRole, Membership};
use crate::view::{Facts, Mode};
use crate::words::Context;

/// `leader`: whether it is this one, and else which.
pub(super) fn leader(context: Context<'_>, facts: &Facts) -> Result<Value, String> {
    let Ensemble::Member(membership) = &context.config.ensemble else {
        return Err("a standalone server has no leader".into());
    };
    let leader = facts.ensemble.as_ref().and_then(|ensemble| ensemble.leader_id);
    let Some(leader) = leader else {
        return Err("this member follows nobody at the moment".into());
    };
    let host = membership.members.get(&leader).and_then(|member| member.addresses.first());
    Ok(json!({
        "is_leader": facts.mode == Mode::Leader,
        "leader_id": leader,
        "leader_ip": host.map_or("", |address| address.host.as_str()),
    }))
}

/// `voting_view`: the members that vote.
pub(super) fn voting_view(context: Context<'_>) -> Value {
    let Ensemble::Member(membership) = &context.config.ensemble else {
        return json!({ "current_config": {} });
    };
    let view: Map<_, _> = membership
        .participants()
        .map(|member| {
            let entry = json!({
                "server_addresses": addresses(member, |address| address.quorum_port),
                "election_addresses": addresses(member, |address| address.election_port),
                "client_address": client_address(context.config, membership, member),
                "learner_type": MemberRole::Participant.name(),
            });
            (member.id.to_string(), entry)
        })
        .collect();
    json!({ "current_config": view })
}

/// `zabstate`: this member's part.
pub(super) fn zab_state(context: Context<'_>, facts: &Facts) -> Value {
    let Ensemble::Member(membership) = &context.config.ensemble else {
        return json!({ "voting": false, "zabstate": "" });
    };
    let Some(own) = membership.members.get(&membership.my_id) else {
        return json!({ "voting": false, "zabstate": "" });
    };
    let place = |port: fn(&MemberAddress) -> u16| {
        let all = addresses(own, port);
        json!({ "one": all.first(), "all_addresses": all })
    };
    // A member that serves has nothing else to do; one that serves reads alone still looks for a leader.
    let state = if facts.mode == Mode::ReadOnly { "election" } else { "broadcast" };
    json!({
        "myid": membership.my_id,
        "is_leader": facts.mode == Mode::Leader,
        "quorum_address": place(|address| address.quorum_port),
        "election_address": place(|address| address.election_port),
        "client_address": client_address(context.config, membership, own),
        "voting": own.role == MemberRole::Participant,
        "last_zxid": facts.last_zxid.to_string(),
        "zab_epoch": facts.last_zxid.epoch(),
        "zab_counter": facts.last_zxid.counter(),
        "zabstate": state,
    })
}

/// `last_snapshot`: the newest snapshot file's zxid (hexadecimal) and time (s since the Unix epoch).
pub(super) fn last_snapshot(config: &Config) -> Result<Value, String> {
    let directory = config.snapshot_dir();
    let entries = std::fs::read_dir(&directory);
    let entries = entries.map_err(|error| format!("cannot list {}: {error}", directory.display()))?;
    let newest = entries
        .flatten()
        .filter_map(|entry| Some((parse_snapshot(entry.file_name().to_str()?)?.0, entry)))
        .max_by_key(|(zxid, _)| *zxid);
    let Some((zxid, entry)) = newest else {
        return Err(format!("there is no snapshot in {}", directory.display()));
    };
    let written = entry.metadata().and_then(|data| data.modified());
    let written = written.map_err(|error| format!("cannot read {}: {error}", entry.path().display()))?;
    let timestamp_s = written.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    Ok(json!({ "zxid": format!("{:x}", zxid.0), "timestamp": timestamp_s }))
}

fn addresses(member: &Member, port: impl Fn(&MemberAddress) -> u16) -> Vec<String> {
    let endpoint = |address: &MemberAddress| Endpoint { host: address.host.clone(), port: port(address) };
    member.addresses.iter().map(|address| endpoint(address).to_string()).collect()
}

/// As its server line has it; this member knows its own in any case.
fn client_address(config: &Config, membership: &Membership, member: &Member) -> String {
    let own = config.client.listen.as_ref().filter(|_| member.id == membership.my_id);
    own.or(member.client.as_ref()).map(Endpoint::to_string).unwrap_or_default()
}

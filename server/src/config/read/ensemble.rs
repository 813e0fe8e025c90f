//! The keys about peers: server lines, `myid`, the dynamic file, and what follows from them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::super::properties::Property;
use super::super::servers::{Member, MemberRole, parse_member};
use super::super::{ClientPort, ConfigError, Endpoint, Ensemble, Membership};
use super::{Entries, ReadFile, Result};

/// Everything about peers, read before it is decided whether there are any.
pub(super) fn ensemble(
    entries: &mut Entries,
    data_dir: &Path,
    client: &mut ClientPort,
    read_file: ReadFile<'_>,
) -> Result<Ensemble> {
    let peer_type = entries.parsed("peerType", "participant or observer", MemberRole::from_name)?;
    entries.parsed("electionAlg", "3, the only election algorithm there is", |text| {
        text.parse::<i32>().ok().filter(|algorithm| *algorithm == 3)
    })?;
    let (membership, limits) = membership(entries, read_file)?;
    let participants = membership.participants().count();
    if participants == 0 && !membership.members.is_empty() {
        return Err(entries.about(
            "server.N",
            "every server line is an observer, expected at least one participant; remove :observer from one",
        ));
    }
    let alone = membership.members.is_empty() || (participants == 1 && membership.standalone_enabled);
    if alone && membership.members.len() > participants {
        return Err(entries.about(
            "server.N",
            "one participant with observers is no ensemble while standaloneEnabled is true; \
             add participants or set standaloneEnabled=false",
        ));
    }
    let my_id = my_id(entries, data_dir, read_file)?;
    if let Some(id) = my_id {
        client_from_line(entries, &membership, id, client)?;
    }
    if alone {
        // A lone server line needs no myid; with a client part it is this server's all the same.
        if my_id.is_none()
            && let Some(only) = membership.members.keys().next()
        {
            client_from_line(entries, &membership, *only, client)?;
        }
        let server_id = my_id.or(membership.members.keys().next().copied()).unwrap_or(0);
        return Ok(Ensemble::Standalone {
            server_id: if membership.members.is_empty() { 0 } else { server_id },
        });
    }
    member(entries, membership, my_id, data_dir, limits, peer_type)
}

/// How many ticks a follower may take: keys that an ensemble needs, with what they say.
type Limits = [(&'static str, Option<u32>); 2];

/// Who belongs to the ensemble and how they deal with each other; nothing is checked yet, and who this member is comes
/// later.
fn membership(entries: &mut Entries, read_file: ReadFile<'_>) -> Result<(Membership, Limits)> {
    // Alone nobody asks for them; 0 means "not set" to Apache too.
    let mut ticks = |key| {
        Ok(entries.integer(key)?.and_then(|ticks| u32::try_from(ticks).ok()).filter(|ticks| *ticks > 0))
    };
    let (init_limit, sync_limit) = (ticks("initLimit")?, ticks("syncLimit")?);
    let dynamic = entries.take("dynamicConfigFile");
    let lines = match &dynamic {
        None => Lines::take(entries)?,
        Some(entry) => dynamic_lines(entries, entry, read_file)?,
    };
    let membership = Membership {
        my_id: 0,
        init_limit: init_limit.unwrap_or(0),
        sync_limit: sync_limit.unwrap_or(0),
        connect_limit: entries.integer("connectToLearnerMasterLimit")?.unwrap_or(0).max(0) as u32,
        leader_serves: !entries.is_word("leaderServes", "no"),
        listen_on_all: entries.switch("quorumListenOnAllIPs", false)?,
        connect_timeout_ms: entries.number_or("cnxTimeout", 1, i32::MAX as u64, 5000)?,
        min_notification_ms: entries.property("fastleader.minNotificationInterval", 1)?.unwrap_or(200) as u64,
        max_notification_ms: entries.property("fastleader.maxNotificationInterval", 1)?.unwrap_or(60_000)
            as u64,
        observer_master_port: entries
            .parsed("observerMasterPort", "a port up to 65535, 0 or less for none", |text| {
                text.parse::<i32>().ok().filter(|port| *port <= u16::MAX.into())
            })?
            .and_then(|port| u16::try_from(port).ok())
            .filter(|port| *port != 0),
        reconfig_enabled: entries.switch("reconfigEnabled", false)?,
        standalone_enabled: entries.switch("standaloneEnabled", true)?,
        dynamic_config_file: dynamic.as_ref().map(|entry| PathBuf::from(&entry.value)),
        members: lines.members,
        groups: lines.groups,
        weights: lines.weights,
        version: lines.version,
    };
    Ok((membership, [("initLimit", init_limit), ("syncLimit", sync_limit)]))
}

fn member(
    entries: &mut Entries,
    mut membership: Membership,
    my_id: Option<u64>,
    data_dir: &Path,
    limits: Limits,
    peer_type: Option<MemberRole>,
) -> Result<Ensemble> {
    for (key, value) in limits {
        if value.is_none() {
            return Err(entries.about(
                key,
                "is missing, an ensemble needs it: ticks that a follower may take; add initLimit=10 and syncLimit=5",
            ));
        }
    }
    distinct_session_ids(entries, &membership)?;
    let myid_path = data_dir.join("myid");
    let Some(my_id) = my_id else {
        return Err(ConfigError {
            path: myid_path,
            line: None,
            key: None,
            problem: "is missing, expected a file with this server's number; write N of this server's \
                      server.N line into it"
                .into(),
        });
    };
    let Some(me) = membership.members.get(&my_id) else {
        let known: Vec<String> = membership.members.keys().map(|id| format!("server.{id}")).collect();
        return Err(ConfigError {
            path: myid_path,
            line: None,
            key: None,
            problem: format!(
                "My id {my_id} not in the peer list: {} has {}; correct myid or add server.{my_id}",
                entries.path.display(),
                known.join(", ")
            ),
        });
    };
    if let Some(peer_type) = peer_type
        && peer_type != me.role
    {
        entries.warnings.push(format!(
            "peerType={} but server.{my_id} says {}; the server line counts",
            peer_type.name(),
            me.role.name()
        ));
    }
    let participants = membership.participants().count();
    if participants <= 2 {
        entries.warnings.push(format!(
            "{participants} participant{} cannot survive any failure; three is the smallest useful ensemble",
            if participants == 1 { "" } else { "s" }
        ));
    } else if participants.is_multiple_of(2) {
        entries.warnings.push(format!(
            "{participants} participants survive no more failures than {}; an odd number is better",
            participants - 1
        ));
    }
    membership.my_id = my_id;
    Ok(Ensemble::Member(Box::new(membership)))
}

/// What server lines and their companions say, from either file.
struct Lines {
    members: BTreeMap<u64, Member>,
    groups: BTreeMap<u64, Vec<u64>>,
    weights: BTreeMap<u64, u64>,
    version: i64,
}

impl Lines {
    fn take(entries: &mut Entries) -> Result<Self> {
        let mut lines =
            Self { members: BTreeMap::new(), groups: BTreeMap::new(), weights: BTreeMap::new(), version: 0 };
        let multi_address = entries.switch("multiAddress.enabled", false)?;
        for (id, entry) in entries.numbered("server.")? {
            let member = parse_member(id, &entry.value).map_err(|why| entries.error(&entry, why))?;
            if member.addresses.len() > 1 && !multi_address {
                return Err(entries.error(
                    &entry,
                    "has several addresses; set multiAddress.enabled=true, on every member, or keep one",
                ));
            }
            if let Some(other) = lines.members.values().find(|other| shares_port(other, &member)) {
                return Err(entries.error(
                    &entry,
                    format!("has an address and port of server.{}; give each member its own", other.id),
                ));
            }
            lines.members.insert(id, member);
        }
        for (group, entry) in entries.numbered("group.")? {
            let ids: Option<Vec<u64>> = entry.value.split(':').map(|id| id.trim().parse().ok()).collect();
            let ids = ids.ok_or_else(|| {
                entries.error(
                    &entry,
                    format!("{:?} is no group, expected server ids such as 1:2:3", entry.value),
                )
            })?;
            if let Some(stranger) = ids.iter().find(|id| !lines.members.contains_key(id)) {
                return Err(entries.error(
                    &entry,
                    format!("names server {stranger}, which has no server line; add server.{stranger}"),
                ));
            }
            if let Some(twice) =
                ids.iter().find(|id| lines.groups.values().flatten().any(|other| other == *id))
            {
                return Err(entries.error(&entry, format!("server {twice} is in two groups; keep it in one")));
            }
            lines.groups.insert(group, ids);
        }
        for (id, entry) in entries.numbered("weight.")? {
            let weight = entry.value.parse().map_err(|_| {
                entries
                    .error(&entry, format!("{:?} is no weight, expected a whole number from 0", entry.value))
            })?;
            lines.weights.insert(id, weight);
        }
        if !lines.groups.is_empty()
            && let Some(lost) = lines.members.values().find(|member| {
                member.role == MemberRole::Participant
                    && !lines.groups.values().flatten().any(|id| *id == member.id)
            })
        {
            return Err(entries.about(
                "group.N",
                &format!("server {} is in no group though there are groups; add it to one", lost.id),
            ));
        }
        Ok(lines)
    }
}

/// Whether two members want the same port of the same host.
fn shares_port(one: &Member, other: &Member) -> bool {
    let ports = |member: &Member| -> Vec<(String, u16)> {
        let peers = member.addresses.iter();
        peers
            .flat_map(|address| {
                [address.quorum_port, address.election_port].map(|port| (address.host.clone(), port))
            })
            .collect()
    };
    let taken = ports(one);
    ports(other).iter().any(|port| taken.contains(port))
}

/// The dynamic file: `server.`, `group.`, `weight.` and `version`, and nothing else.
fn dynamic_lines(entries: &mut Entries, entry: &Property, read_file: ReadFile<'_>) -> Result<Lines> {
    let static_lines = Lines::take(entries)?;
    if let Some(id) = static_lines.members.keys().next() {
        return Err(entries.error(
            entry,
            format!(
                "is set, but server.{id} stands in this file; move every server line to the dynamic file"
            ),
        ));
    }
    let path = PathBuf::from(&entry.value);
    let text = read_file(&path).map_err(|error| {
        entries.error(
            entry,
            format!("{} cannot be read ({error}); correct the path or remove the line", path.display()),
        )
    })?;
    let mut dynamic = Entries::new(&text, &path)?;
    let hexadecimal = "a hexadecimal number, as the server writes it";
    let version = dynamic.parsed("version", hexadecimal, |text| i64::from_str_radix(text, 16).ok())?;
    if let Some(multi) = entries.found.get("multiAddress.enabled") {
        dynamic.found.insert("multiAddress.enabled".into(), multi.clone());
    }
    let mut lines = Lines::take(&mut dynamic)?;
    if let Some(stranger) = dynamic.found.values().next() {
        return Err(dynamic.error(
            stranger,
            "has no place in a dynamic file, expected server.N, group.N, weight.N or version; move it to zoo.cfg",
        ));
    }
    // The file's name carries the version when the line is missing: zoo.cfg.dynamic.100000000.
    let by_name = path.extension().and_then(|text| i64::from_str_radix(&text.to_string_lossy(), 16).ok());
    lines.version = version.or(by_name).unwrap_or(0);
    Ok(lines)
}

fn my_id(entries: &Entries, data_dir: &Path, read_file: ReadFile<'_>) -> Result<Option<u64>> {
    let path = data_dir.join("myid");
    let fail = |line, problem| ConfigError { path: path.clone(), line, key: None, problem };
    let text = match read_file(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(fail(None, format!("cannot be read ({error}); check its permissions"))),
    };
    // Of larger ids the last byte alone stands in session ids; 255 there would be taken for a TTL.
    let extended = entries.found.get("extendedTypesEnabled");
    let limit = match extended.is_some_and(|entry| entry.value.eq_ignore_ascii_case("true")) {
        true => 254,
        false => i64::MAX as u64,
    };
    let first = text.lines().next().unwrap_or("").trim();
    match first.parse::<u64>() {
        Ok(id) if id <= limit => Ok(Some(id)),
        _ => Err(fail(
            Some(1),
            format!("{first:?} is no server id, expected one number from 0 to {limit}; correct the file"),
        )),
    }
}

/// Apache takes any ids, and two members whose ids end in the same byte could give the same id to two sessions.
fn distinct_session_ids(entries: &Entries, membership: &Membership) -> Result<()> {
    let mut seen: BTreeMap<u8, u64> = BTreeMap::new();
    for id in membership.members.keys() {
        if let Some(other) = seen.insert(*id as u8, *id) {
            return Err(entries.about(
                &format!("server.{id}"),
                &format!("ends in the same byte as server.{other}, and both could open the same session; take another number"),
            ));
        }
    }
    Ok(())
}

/// The client part of this server's own line, which must not contradict `clientPort`.
fn client_from_line(
    entries: &Entries,
    membership: &Membership,
    id: u64,
    client: &mut ClientPort,
) -> Result<()> {
    let Some(from_line) = membership.members.get(&id).and_then(|member| member.client.clone()) else {
        return Ok(());
    };
    if let Some(from_key) = &client.listen
        && *from_key != from_line
        // Apache compares the wildcard with the wildcard only; a port without an address means the same.
        && !(from_key.host == Endpoint::ANY && from_key.port == from_line.port)
    {
        return Err(entries.about(
            "clientPort",
            &format!("says {from_key} but server.{id} says {from_line} behind its ;; remove clientPort and clientPortAddress"),
        ));
    }
    client.listen = Some(from_line);
    Ok(())
}

//! Server lines: `server.N=host:quorumPort:electionPort[:role][;[clientAddress:]clientPort]`.
//!
//! Several addresses are joined with `|`; an IPv6 address stands in brackets. Source: Apache's
//! `QuorumPeer.QuorumServer`.

use super::Endpoint;

/// Whether a member votes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum MemberRole {
    /// It votes and may lead.
    #[default]
    Participant,
    /// It follows without a vote.
    Observer,
}

impl MemberRole {
    /// As it stands in server lines.
    pub fn name(self) -> &'static str {
        match self {
            Self::Participant => "participant",
            Self::Observer => "observer",
        }
    }

    /// Reads `participant` or `observer`, upper or lower case.
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Participant, Self::Observer].into_iter().find(|role| role.name().eq_ignore_ascii_case(name))
    }
}

/// One address of a member, for its peers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberAddress {
    /// Host name or address, without brackets.
    pub host: String,
    /// Where followers reach it while it leads.
    pub quorum_port: u16,
    /// Where votes go.
    pub election_port: u16,
}

/// One server line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// N in `server.N`.
    pub id: u64,
    /// At least one.
    pub addresses: Vec<MemberAddress>,
    /// Whether it votes.
    pub role: MemberRole,
    /// The part behind `;`.
    pub client: Option<Endpoint>,
}

impl std::fmt::Display for Member {
    /// The value of the line as Apache writes it back: always with the role.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (index, address) in self.addresses.iter().enumerate() {
            if index > 0 {
                f.write_str("|")?;
            }
            let endpoint = Endpoint { host: address.host.clone(), port: address.quorum_port };
            write!(f, "{endpoint}:{}:{}", address.election_port, self.role.name())?;
        }
        if let Some(client) = &self.client {
            write!(f, ";{client}")?;
        }
        Ok(())
    }
}

/// Reads the value of `server.<id>`. The error says what was expected.
pub fn parse_member(id: u64, value: &str) -> Result<Member, String> {
    const FORM: &str = "expected host:quorumPort:electionPort[:participant|observer][;[clientAddress:]clientPort], \
                        for example 10.0.0.1:2888:3888:participant;2181";
    let (peers, client) = match value.split_once(';') {
        Some((peers, client)) => (peers, Some(client)),
        None => (value, None),
    };
    // Java's split drops what is empty at the end.
    let client = client.map(str::trim).filter(|text| !text.is_empty()).map(parse_client).transpose()?;
    let mut addresses = Vec::new();
    let mut role: Option<MemberRole> = None;
    for part in peers.split('|') {
        let (address, named) = parse_address(part.trim()).map_err(|why| format!("{why}; {FORM}"))?;
        if let (Some(old), Some(new)) = (role, named)
            && old != new
        {
            return Err(format!("names two roles, {} and {}; write one", old.name(), new.name()));
        }
        role = role.or(named);
        addresses.push(address);
    }
    Ok(Member { id, addresses, role: role.unwrap_or_default(), client })
}

/// Splits at colons, but not at those inside brackets.
fn split_colons(text: &str) -> Result<Vec<&str>, String> {
    let Some(rest) = text.strip_prefix('[') else {
        return Ok(text.split(':').collect());
    };
    let (host, rest) = rest.split_once(']').ok_or("a [ without a ]")?;
    let mut parts = vec![host];
    match rest.strip_prefix(':') {
        Some(rest) => parts.extend(rest.split(':')),
        None if rest.is_empty() => {}
        None => return Err("something between ] and :".into()),
    }
    Ok(parts)
}

fn parse_port(text: &str) -> Result<u16, String> {
    match text.trim().parse::<u16>() {
        Ok(0) | Err(_) => Err(format!("{text:?} is no port, expected a number from 1 to 65535")),
        Ok(port) => Ok(port),
    }
}

fn parse_address(text: &str) -> Result<(MemberAddress, Option<MemberRole>), String> {
    let parts = split_colons(text)?;
    let (host, quorum, election, role) = match parts[..] {
        [host, quorum, election] => (host, quorum, election, None),
        [host, quorum, election, role] => (host, quorum, election, Some(role)),
        _ => return Err(format!("{text:?} has {} parts", parts.len())),
    };
    if host.is_empty() {
        return Err("the host is missing".into());
    }
    let role = match role {
        None => None,
        Some(name) => Some(
            MemberRole::from_name(name.trim())
                .ok_or_else(|| format!("{name:?} is no role, expected participant or observer"))?,
        ),
    };
    let address = MemberAddress {
        host: host.to_string(),
        quorum_port: parse_port(quorum)?,
        election_port: parse_port(election)?,
    };
    if address.quorum_port == address.election_port {
        return Err(format!("both ports are {}; quorum and election port must differ", address.quorum_port));
    }
    Ok((address, role))
}

fn parse_client(text: &str) -> Result<Endpoint, String> {
    const FORM: &str = "behind the ; expected [clientAddress:]clientPort";
    if text.contains(';') {
        return Err(format!("two ; in one line; {FORM}"));
    }
    match split_colons(text).map_err(|why| format!("{why}; {FORM}"))?[..] {
        [port] => Ok(Endpoint { host: Endpoint::ANY.into(), port: parse_port(port)? }),
        [host, port] if !host.is_empty() => Ok(Endpoint { host: host.into(), port: parse_port(port)? }),
        _ => Err(format!("{text:?} is no client address; {FORM}")),
    }
}

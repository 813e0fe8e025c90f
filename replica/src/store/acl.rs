//! Who may do what. Source: `ZooKeeperServer.checkACL`, `PrepRequestProcessor.fixupACL`, `server/auth/*`;
//! reference §7.
//!
//! An entry matches when it grants *any* of the wanted bits and its id is one of the caller's; an empty list
//! forbids nothing; an identity of the scheme `super` may do everything.

use std::net::IpAddr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use sha1::{Digest as _, Sha1};
use zoometry_wire::{Acl, ErrorCode, Id};

/// Whether a caller with these identities has one of the `wanted` permission bits.
pub fn allows(acl: &[Acl], wanted: i32, ids: &[Id]) -> bool {
    if acl.is_empty() || ids.iter().any(|id| id.scheme == "super") {
        return true;
    }
    acl.iter().filter(|entry| entry.perms & wanted != 0).any(|entry| {
        let Id { scheme, id } = &entry.id;
        (scheme == "world" && id == "anyone")
            || ids.iter().any(|own| own.scheme == *scheme && matches(scheme, &own.id, id))
    })
}

fn matches(scheme: &str, own: &str, entry: &str) -> bool {
    match scheme {
        "ip" => ip_matches(own, entry),
        "digest" | "x509" | "sasl" => own == entry,
        _ => false,
    }
}

/// The list as it goes into the transaction: duplicates dropped, `auth` replaced by the caller's own
/// identities, everything else checked. Refused with InvalidAcl.
pub fn fix_up(acl: &[Acl], ids: &[Id]) -> Result<Vec<Acl>, ErrorCode> {
    let mut fixed: Vec<Acl> = Vec::with_capacity(acl.len());
    let mut add = |entry: Acl| {
        if !fixed.contains(&entry) {
            fixed.push(entry);
        }
    };
    for entry in acl {
        let Id { scheme, id } = &entry.id;
        match scheme.as_str() {
            "auth" => {
                let mut own = ids.iter().filter(|id| is_authenticated(&id.scheme)).peekable();
                own.peek().ok_or(ErrorCode::InvalidAcl)?;
                own.for_each(|own| add(Acl { perms: entry.perms, id: own.clone() }));
            }
            _ if is_valid(scheme, id) => add(entry.clone()),
            _ => return Err(ErrorCode::InvalidAcl),
        }
    }
    if fixed.is_empty() { Err(ErrorCode::InvalidAcl) } else { Ok(fixed) }
}

/// Schemes whose identities say who somebody is; an address does not.
fn is_authenticated(scheme: &str) -> bool {
    matches!(scheme, "digest" | "x509" | "sasl")
}

fn is_valid(scheme: &str, id: &str) -> bool {
    match scheme {
        "world" => id == "anyone",
        "ip" => parse_network(id).is_some(),
        "digest" => id.split(':').count() == 2 && !id.ends_with(':'),
        "x509" | "sasl" => !id.is_empty(),
        _ => false,
    }
}

/// `addr` or `addr/bits`.
fn parse_network(text: &str) -> Option<(IpAddr, u32)> {
    let (addr, bits) = match text.split_once('/') {
        Some((addr, bits)) => (addr.parse::<IpAddr>().ok()?, Some(bits.parse::<u32>().ok()?)),
        None => (text.parse::<IpAddr>().ok()?, None),
    };
    let width = if addr.is_ipv4() { 32 } else { 128 };
    let bits = bits.unwrap_or(width);
    (bits <= width).then_some((addr, bits))
}

fn ip_matches(own: &str, entry: &str) -> bool {
    let (Ok(own), Some((network, bits))) = (own.parse::<IpAddr>(), parse_network(entry)) else {
        return false;
    };
    match (own, network) {
        (IpAddr::V4(own), IpAddr::V4(network)) => {
            let mask = u32::MAX.checked_shl(32 - bits).unwrap_or(0);
            (own.to_bits() ^ network.to_bits()) & mask == 0
        }
        (IpAddr::V6(own), IpAddr::V6(network)) => {
            let mask = u128::MAX.checked_shl(128 - bits).unwrap_or(0);
            (own.to_bits() ^ network.to_bits()) & mask == 0
        }
        _ => false,
    }
}

/// The id that `user:password` gives its holder: `user:base64(SHA-1("user:password"))`. `None` when there
/// is no user. Source: `DigestAuthenticationProvider.generateDigest`.
pub fn digest_id(credentials: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(credentials);
    let user = text.split(':').next().filter(|user| !user.is_empty())?;
    let hash = Sha1::digest(text.as_bytes());
    Some(format!("{user}:{}", BASE64.encode(hash)))
}

/// The identities that an auth packet adds to its connection; AuthFailed closes it.
///
/// `address` is the connection's own, which the scheme `ip` adds again; `super_digest` is
/// `zookeeper.DigestAuthenticationProvider.superDigest`.
pub fn authenticate(
    scheme: &str,
    auth: &[u8],
    address: &str,
    super_digest: Option<&str>,
) -> Result<Vec<Id>, ErrorCode> {
    match scheme {
        "ip" => Ok(vec![Id { scheme: "ip".into(), id: address.into() }]),
        "digest" => {
            let id = digest_id(auth).ok_or(ErrorCode::AuthFailed)?;
            let is_super = super_digest == Some(id.as_str());
            let superuser = is_super.then(|| Id { scheme: "super".into(), id: String::new() });
            Ok(superuser.into_iter().chain([Id { scheme: "digest".into(), id }]).collect())
        }
        _ => Err(ErrorCode::AuthFailed),
    }
}

/// What may be shown of an identity: of a digest the part before the colon.
pub fn display_name(id: &Id) -> &str {
    match id.scheme.as_str() {
        "digest" => id.id.split(':').next().unwrap_or_default(),
        _ => &id.id,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(scheme: &str, id: &str) -> Id {
        Id { scheme: scheme.into(), id: id.into() }
    }

    fn acl(perms: i32, scheme: &str, name: &str) -> Acl {
        Acl { perms, id: id(scheme, name) }
    }

    #[test]
    fn digests_are_apaches() {
        assert_eq!(digest_id(b"u:p").unwrap(), "u:Jq7wMyA/w2Vd5WIDAKdu4OIIFEQ=");
        assert_eq!(digest_id(b"super:secret").unwrap(), "super:lK75jTNcA+U9vtVEw5vB51mj/w4=");
        assert_eq!(digest_id(b":p"), None);
    }

    #[test]
    fn matching() {
        let cases: &[(&str, &str, i32, i32, Id, bool)] = &[
            ("world", "anyone", 1, 1, id("ip", "10.0.0.1"), true),
            ("world", "anyone", 1, 2, id("ip", "10.0.0.1"), false),
            ("world", "anyone", 17, 1 | 16, id("ip", "10.0.0.1"), true),
            ("ip", "10.0.0.0/8", 31, 4, id("ip", "10.9.9.9"), true),
            ("ip", "10.0.0.0/8", 31, 4, id("ip", "11.9.9.9"), false),
            ("ip", "0.0.0.0/0", 31, 4, id("ip", "11.9.9.9"), true),
            ("ip", "10.0.0.1", 31, 4, id("ip", "10.0.0.1"), true),
            ("ip", "fe80::/10", 31, 4, id("ip", "fe80::1"), true),
            ("digest", "u:x", 31, 4, id("digest", "u:x"), true),
            ("digest", "u:x", 31, 4, id("digest", "u:y"), false),
            ("digest", "u:x", 31, 4, id("super", ""), true),
            ("nonsense", "u", 31, 4, id("nonsense", "u"), false),
        ];
        for (scheme, name, perms, wanted, own, expected) in cases {
            let list = [acl(*perms, scheme, name)];
            assert_eq!(allows(&list, *wanted, std::slice::from_ref(own)), *expected, "{scheme}:{name}");
        }
        assert!(allows(&[], 31, &[]), "an empty list forbids nothing");
    }

    #[test]
    fn fix_up_expands_checks_and_drops_duplicates() {
        let caller = [id("ip", "1.2.3.4"), id("digest", "u:x"), id("digest", "v:y")];
        assert_eq!(
            fix_up(&[acl(3, "auth", ""), acl(3, "digest", "u:x")], &caller).unwrap(),
            [acl(3, "digest", "u:x"), acl(3, "digest", "v:y")]
        );
        assert_eq!(fix_up(&[acl(3, "auth", "")], &caller[..1]), Err(ErrorCode::InvalidAcl));
        for bad in [
            acl(31, "world", "someone"),
            acl(31, "", ""),
            acl(31, "ip", "300.1.1.1"),
            acl(31, "ip", "1.1.1.1/33"),
            acl(31, "digest", "u"),
            acl(31, "digest", "u:x:y"),
            acl(31, "nope", "x"),
        ] {
            assert_eq!(fix_up(std::slice::from_ref(&bad), &caller), Err(ErrorCode::InvalidAcl), "{bad:?}");
        }
        assert_eq!(fix_up(&[], &caller), Err(ErrorCode::InvalidAcl));
    }

    #[test]
    fn the_super_digest_opens_everything() {
        let super_digest = "super:lK75jTNcA+U9vtVEw5vB51mj/w4=";
        let ids = authenticate("digest", b"super:secret", "::1", Some(super_digest)).unwrap();
        assert_eq!(ids[0].scheme, "super");
        assert_eq!(authenticate("digest", b"super:wrong", "::1", Some(super_digest)).unwrap().len(), 1);
        assert_eq!(authenticate("kerberos", b"", "::1", None), Err(ErrorCode::AuthFailed));
    }
}

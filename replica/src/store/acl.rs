//! Who may do what. Source: `ZooKeeperServer.checkACL`, `PrepRequestProcessor.fixupACL`, `server/auth/*`;
//! reference §7.
//!
//! An entry matches when it grants *any* of the wanted bits and its id is one of the caller's; an empty list
//! forbids nothing; an identity of the scheme `super` may do everything.

use std::collections::BTreeSet;
use std::net::IpAddr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use sha1::{Digest as _, Sha1};
use sha2::{Sha224, Sha256, Sha384, Sha512, Sha512_224, Sha512_256};
use zoometry_wire::{Acl, ErrorCode, Id};

/// Entries of one znode's ACL, duplicates dropped and `auth` replaced. A longer list is refused with InvalidAcl:
/// every permission check looks through the list. (Apache's server has no limit.)
pub const ACL_ENTRIES_MAX: usize = 4096;

/// Identities of one connection; a further one is refused with AuthFailed. Each goes along with every write that
/// a learner forwards. (Apache's server has no limit.)
pub const IDS_PER_CONNECTION_MAX: usize = 1024;

/// Their bytes, schemes included, likewise: what a peer takes of identities in one packet is limited, too.
pub const ID_BYTES_PER_CONNECTION_MAX: usize = 256 << 10;

/// With so many identities, or entries, each is compared with each; with more of both the identities are put in
/// order first.
const FEW: usize = 8;

/// Whether a caller with these identities has one of the `wanted` permission bits.
pub fn allows(acl: &[Acl], wanted: i32, ids: &[Id]) -> bool {
    if acl.is_empty() || ids.iter().any(|id| id.scheme == "super") {
        return true;
    }
    let mut granting = acl.iter().filter(|entry| entry.perms & wanted != 0);
    if acl.len() <= FEW || ids.len() <= FEW {
        return granting.any(|entry| is_anyone(&entry.id) || ids.iter().any(|own| matches(own, &entry.id)));
    }
    let (addresses, mut names): (Vec<&Id>, Vec<&Id>) = ids.iter().partition(|id| id.scheme == "ip");
    names.sort_unstable();
    granting.any(|entry| match entry.id.scheme.as_str() {
        "ip" => addresses.iter().any(|own| ip_matches(&own.id, &entry.id.id)),
        scheme if is_authenticated(scheme) => names.binary_search(&&entry.id).is_ok(),
        _ => is_anyone(&entry.id),
    })
}

fn is_anyone(Id { scheme, id }: &Id) -> bool {
    scheme == "world" && id == "anyone"
}

fn matches(own: &Id, entry: &Id) -> bool {
    own.scheme == entry.scheme
        && match entry.scheme.as_str() {
            "ip" => ip_matches(&own.id, &entry.id),
            scheme => is_authenticated(scheme) && own.id == entry.id,
        }
}

/// The list as it goes into the transaction: duplicates dropped, `auth` replaced by the caller's own
/// identities, everything else checked. Refused with InvalidAcl, also if that is more than
/// [`ACL_ENTRIES_MAX`] entries.
pub fn fix_up(acl: &[Acl], ids: &[Id]) -> Result<Vec<Acl>, ErrorCode> {
    let is_short = acl.len() <= FEW && ids.len() <= FEW;
    let mut fixed = Fixed { list: Vec::new(), seen: (!is_short).then(BTreeSet::new) };
    // One `auth` is as good as many with the same permissions.
    let mut expanded: BTreeSet<i32> = BTreeSet::new();
    for entry in acl {
        let Id { scheme, id } = &entry.id;
        match scheme.as_str() {
            "auth" => {
                let mut own = ids.iter().filter(|id| is_authenticated(&id.scheme)).peekable();
                own.peek().ok_or(ErrorCode::InvalidAcl)?;
                if expanded.insert(entry.perms) {
                    own.try_for_each(|own| fixed.add(entry.perms, own))?;
                }
            }
            _ if is_valid(scheme, id) => fixed.add(entry.perms, &entry.id)?,
            _ => return Err(ErrorCode::InvalidAcl),
        }
    }
    if fixed.list.is_empty() { Err(ErrorCode::InvalidAcl) } else { Ok(fixed.list) }
}

/// A list without duplicates, in the order in which its entries came.
struct Fixed<'a> {
    list: Vec<Acl>,
    /// What is in the list, in order; a short one is looked through instead.
    seen: Option<BTreeSet<(i32, &'a Id)>>,
}

impl<'a> Fixed<'a> {
    fn add(&mut self, perms: i32, id: &'a Id) -> Result<(), ErrorCode> {
        let is_new = match &mut self.seen {
            Some(seen) => seen.insert((perms, id)),
            None => !self.list.iter().any(|entry| entry.perms == perms && entry.id == *id),
        };
        if !is_new {
            return Ok(());
        }
        if self.list.len() == ACL_ENTRIES_MAX {
            return Err(ErrorCode::InvalidAcl);
        }
        self.list.push(Acl { perms, id: id.clone() });
        Ok(())
    }
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

/// How the scheme `digest` makes an identity of a user and a password: `DigestAuthenticationProvider.digestAlg`, the
/// same on every member. What Java's own providers have beyond these (MD2, MD5, SHA-3) is not offered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DigestAlgorithm {
    /// Apache's default.
    #[default]
    Sha1,
    /// SHA-2 with 224 bits.
    Sha224,
    /// SHA-2 with 256 bits.
    Sha256,
    /// SHA-2 with 384 bits.
    Sha384,
    /// SHA-2 with 512 bits.
    Sha512,
    /// SHA-512 cut to 224 bits.
    Sha512To224,
    /// SHA-512 cut to 256 bits.
    Sha512To256,
}

impl DigestAlgorithm {
    /// Every one.
    pub const ALL: &[Self] = &[
        Self::Sha1,
        Self::Sha224,
        Self::Sha256,
        Self::Sha384,
        Self::Sha512,
        Self::Sha512To224,
        Self::Sha512To256,
    ];

    /// The name in Java (`MessageDigest`).
    pub fn name(self) -> &'static str {
        match self {
            Self::Sha1 => "SHA1",
            Self::Sha224 => "SHA-224",
            Self::Sha256 => "SHA-256",
            Self::Sha384 => "SHA-384",
            Self::Sha512 => "SHA-512",
            Self::Sha512To224 => "SHA-512/224",
            Self::Sha512To256 => "SHA-512/256",
        }
    }

    /// The algorithm with this name, in either case as Java has it.
    pub fn from_name(name: &str) -> Option<Self> {
        let is_alias = ["SHA", "SHA-1"].iter().any(|alias| alias.eq_ignore_ascii_case(name));
        let named = Self::ALL.iter().find(|algorithm| algorithm.name().eq_ignore_ascii_case(name)).copied();
        named.or(is_alias.then_some(Self::Sha1))
    }

    fn base64_of(self, text: &[u8]) -> String {
        match self {
            Self::Sha1 => BASE64.encode(Sha1::digest(text)),
            Self::Sha224 => BASE64.encode(Sha224::digest(text)),
            Self::Sha256 => BASE64.encode(Sha256::digest(text)),
            Self::Sha384 => BASE64.encode(Sha384::digest(text)),
            Self::Sha512 => BASE64.encode(Sha512::digest(text)),
            Self::Sha512To224 => BASE64.encode(Sha512_224::digest(text)),
            Self::Sha512To256 => BASE64.encode(Sha512_256::digest(text)),
        }
    }
}

/// The id that `user:password` gives its holder: `user:base64(hash("user:password"))`. The user may be empty, and so
/// may everything. Source: `DigestAuthenticationProvider.generateDigest`.
pub fn digest_id(algorithm: DigestAlgorithm, credentials: &[u8]) -> String {
    let text = String::from_utf8_lossy(credentials);
    let user = text.split(':').next().unwrap_or_default();
    format!("{user}:{}", algorithm.base64_of(text.as_bytes()))
}

/// How a member takes credentials of the scheme `digest`.
#[derive(Debug, Clone, Copy)]
pub struct DigestScheme<'a> {
    /// `DigestAuthenticationProvider.enabled`; without it nobody gets in by it.
    pub enabled: bool,
    /// `DigestAuthenticationProvider.digestAlg`.
    pub algorithm: DigestAlgorithm,
    /// `DigestAuthenticationProvider.superDigest`: the id that may do everything, if there is one.
    pub super_digest: Option<&'a str>,
}

/// The identities that an auth packet adds to its connection; AuthFailed closes it. `auth` is what the packet
/// carries, which may be null; `address` is the connection's own, which the scheme `ip` adds again.
pub fn authenticate(
    scheme: &str,
    auth: Option<&[u8]>,
    address: &str,
    digest: DigestScheme<'_>,
) -> Result<Vec<Id>, ErrorCode> {
    match scheme {
        "ip" => Ok(vec![Id { scheme: "ip".into(), id: address.into() }]),
        "digest" if digest.enabled => {
            let id = digest_id(digest.algorithm, auth.ok_or(ErrorCode::AuthFailed)?);
            let is_super = digest.super_digest == Some(id.as_str());
            let superuser = is_super.then(|| Id { scheme: "super".into(), id: String::new() });
            Ok(superuser.into_iter().chain([Id { scheme: "digest".into(), id }]).collect())
        }
        _ => Err(ErrorCode::AuthFailed),
    }
}

/// The identities of a connection with what an auth packet adds to them; `None` if they are there already.
/// AuthFailed if that would be more than [`IDS_PER_CONNECTION_MAX`] or [`ID_BYTES_PER_CONNECTION_MAX`].
pub fn with_ids(ids: &[Id], added: Vec<Id>) -> Result<Option<Vec<Id>>, ErrorCode> {
    let fresh: Vec<Id> = added.into_iter().filter(|id| !ids.contains(id)).collect();
    if fresh.is_empty() {
        return Ok(None);
    }
    let all: Vec<Id> = ids.iter().cloned().chain(fresh).collect();
    let bytes: usize = all.iter().map(|id| id.scheme.len() + id.id.len()).sum();
    if all.len() > IDS_PER_CONNECTION_MAX || bytes > ID_BYTES_PER_CONNECTION_MAX {
        return Err(ErrorCode::AuthFailed);
    }
    Ok(Some(all))
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

    /// As `DigestAuthenticationProvider.main` of 3.8.0 prints them.
    #[test]
    fn digests_are_apaches() {
        use DigestAlgorithm::*;
        for (algorithm, credentials, expected) in [
            (Sha1, "u:p", "u:Jq7wMyA/w2Vd5WIDAKdu4OIIFEQ="),
            (Sha1, "super:secret", "super:lK75jTNcA+U9vtVEw5vB51mj/w4="),
            (Sha1, "", ":2jmj7l5rSw0yVb/vlWAYkK/YBwk="),
            (Sha1, ":p", ":LlDE5iroUDDm9zdvmLsfjkUvn0k="),
            (Sha224, "u:p", "u:buY2RDLG1qb161QWn3zO7zdHv1Jw5JzOzvoq8w=="),
            (Sha256, "u:p", "u:/Y8xRBngpX5duYn15uUqIRaIaCviy5TEwSk419hCwuA="),
            (Sha384, "u:p", "u:joW9fAMExHHjPTquSoLHR7yNt+hmUQSWOdXLQ1YgEw4t89oJD5tqLNcOJbpOm3hr"),
            (
                Sha512,
                "u:p",
                "u:JuOwXdmk4f1omXNJj7k4ILDOHOlc+8PMyEaxl9nrWl6OmV83jKYivSqJWsp5PsMTda6BtnipueoU1r5DtBd7CA==",
            ),
            (Sha512To224, "u:p", "u:uQhd9bjKXP6GHJndVVZ2qIjzcJFAYrjzPmzxOg=="),
            (Sha512To256, "u:p", "u:GahcuEqKVDomB4u/ebwuUp9/SoZ9jjQVdblytNb5wPo="),
        ] {
            assert_eq!(
                digest_id(algorithm, credentials.as_bytes()),
                expected,
                "{algorithm:?} {credentials:?}"
            );
        }
        for (name, algorithm) in
            [("sha-1", Some(Sha1)), ("SHA", Some(Sha1)), ("sha-512/256", Some(Sha512To256))]
        {
            assert_eq!(DigestAlgorithm::from_name(name), algorithm, "{name}");
        }
        assert_eq!(DigestAlgorithm::from_name("MD5"), None);
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

    fn names(count: usize) -> Vec<Id> {
        (0..count).map(|number| id("digest", &format!("u{number}:x"))).collect()
    }

    /// To compare each entry with each would be some 10^10 steps.
    #[test]
    fn a_long_list_is_fixed_up_in_no_time() {
        let long: Vec<Acl> = names(200_000).iter().map(|id| acl(31, &id.scheme, &id.id)).collect();
        assert_eq!(fix_up(&long, &[]), Err(ErrorCode::InvalidAcl));
        assert_eq!(fix_up(&long[..ACL_ENTRIES_MAX], &[]).as_deref(), Ok(&long[..ACL_ENTRIES_MAX]));
        assert_eq!(fix_up(&long[..=ACL_ENTRIES_MAX], &[]), Err(ErrorCode::InvalidAcl));
        let twice: Vec<Acl> = long[..3000].iter().flat_map(|entry| [entry.clone(), entry.clone()]).collect();
        assert_eq!(fix_up(&twice, &[]).as_deref(), Ok(&long[..3000]));
        let same = vec![long[0].clone(); 200_000];
        assert_eq!(fix_up(&same, &[]).as_deref(), Ok(&long[..1]));
    }

    /// Neither may many `auth` entries of a caller with many identities: both are the client's to choose.
    #[test]
    fn auth_is_expanded_once_for_each_set_of_permissions() {
        let ids = names(IDS_PER_CONNECTION_MAX);
        let expanded = fix_up(&vec![acl(31, "auth", ""); 100_000], &ids).expect("a list");
        assert_eq!(expanded.len(), ids.len());
        let all_kinds: Vec<Acl> = (0..100_000).map(|perms| acl(perms, "auth", "")).collect();
        assert_eq!(fix_up(&all_kinds, &ids), Err(ErrorCode::InvalidAcl));
    }

    #[test]
    fn many_identities_match_as_few_do() {
        let mut ids = names(500);
        ids.extend([id("ip", "10.0.0.1"), id("nonsense", "u")]);
        let others: Vec<Acl> = (0..500).map(|number| acl(31, "digest", &format!("v{number}:x"))).collect();
        for (entry, expected) in [
            (acl(31, "digest", "u499:x"), true),
            (acl(1, "digest", "u499:x"), false),
            (acl(31, "sasl", "u499:x"), false),
            (acl(31, "ip", "10.0.0.0/24"), true),
            (acl(31, "ip", "10.0.1.0/24"), false),
            (acl(31, "nonsense", "u"), false),
            (acl(31, "world", "anyone"), true),
        ] {
            let list: Vec<Acl> = others.iter().cloned().chain([entry.clone()]).collect();
            assert_eq!(allows(&list, 4, &ids), expected, "{entry:?} among many");
            assert_eq!(allows(std::slice::from_ref(&entry), 4, &ids), expected, "{entry:?} alone");
        }
    }

    #[test]
    fn a_connection_has_so_many_identities_and_no_more() {
        let ids = names(IDS_PER_CONNECTION_MAX);
        assert_eq!(
            with_ids(&ids[1..], vec![ids[0].clone()]).map(|all| all.map(|all| all.len())),
            Ok(Some(1024))
        );
        assert_eq!(with_ids(&ids, vec![ids[7].clone()]), Ok(None), "it is there already");
        assert_eq!(with_ids(&ids, vec![id("digest", "one:more")]), Err(ErrorCode::AuthFailed));
        let long = id("digest", &"u".repeat(ID_BYTES_PER_CONNECTION_MAX));
        assert_eq!(with_ids(&[], vec![long]), Err(ErrorCode::AuthFailed));
    }

    #[test]
    fn auth_packets() {
        let digest = DigestScheme {
            enabled: true,
            algorithm: DigestAlgorithm::Sha1,
            super_digest: Some("super:lK75jTNcA+U9vtVEw5vB51mj/w4="),
        };
        let ids = authenticate("digest", Some(b"super:secret"), "::1", digest).unwrap();
        assert_eq!((ids[0].scheme.as_str(), ids.len()), ("super", 2));
        assert_eq!(authenticate("digest", Some(b"super:wrong"), "::1", digest).unwrap().len(), 1);
        assert_eq!(authenticate("digest", Some(b""), "::1", digest).unwrap().len(), 1, "nothing is somebody");
        assert_eq!(authenticate("ip", None, "::1", digest).unwrap(), [id("ip", "::1")]);
        let off = DigestScheme { enabled: false, ..digest };
        for (scheme, auth, digest) in [
            ("digest", None, digest),
            ("digest", Some(&b"u:p"[..]), off),
            ("kerberos", Some(b""), digest),
            ("world", Some(b"anyone"), digest),
        ] {
            assert_eq!(authenticate(scheme, auth, "::1", digest), Err(ErrorCode::AuthFailed), "{scheme}");
        }
    }
}

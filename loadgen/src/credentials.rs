//! Who the sessions of a run are: `addauth` of ZooKeeper's clients, for clusters whose znodes are not open to everybody.
//!
//! A credential is `SCHEME:SECRET`, nearly always `digest:user:password`. Every session of a run gives all of them on each of its
//! connections, right behind the connect request. What is secret is never shown: not in the manifest, not in the recorded command,
//! not in debug output.

use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use zoometry_wire::OpCode;
use zoometry_wire::frame;
use zoometry_wire::jute::Record;
use zoometry_wire::records::{AuthPacket, RequestHeader, xid};

/// The environment variable that holds credentials, one a line.
pub const VARIABLE: &str = "ZOOMETRY_AUTH";
/// Longest file of credentials read.
const FILE_MAX_BYTES: u64 = 1 << 16;
/// Most credentials that a session gives: servers limit what they keep per connection.
pub const CREDENTIALS_MAX: usize = 16;
/// What stands in place of a secret.
const HIDDEN: &str = "***";
const EXPECTED: &str = "expected SCHEME:SECRET, such as digest:user:password";

/// What a session says it is; nothing by default. Cheap to clone.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Credentials(Arc<[Credential]>);

#[derive(Clone, PartialEq, Eq)]
struct Credential {
    scheme: String,
    secret: String,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.0.iter().map(|one| format!("{}:{HIDDEN}", one.scheme))).finish()
    }
}

impl Credentials {
    /// From the command line, a file, and the environment, together.
    ///
    /// # Errors
    /// What is no credential, by where it stands and never by what it says; a file that cannot be read, or that others may read.
    pub fn collect(
        arguments: &[String],
        file: Option<&Path>,
        variable: Option<&OsStr>,
    ) -> Result<Credentials, String> {
        let mut all = Vec::new();
        for argument in arguments {
            all.push(parse(argument).ok_or_else(|| format!("--auth: {EXPECTED}"))?);
        }
        if let Some(file) = file {
            all.extend(lines(&read(file)?, &format!("--auth-file {}", file.display()))?);
        }
        if let Some(variable) = variable {
            let text = variable.to_str().ok_or_else(|| format!("{VARIABLE}: it is not UTF-8"))?;
            all.extend(lines(text, VARIABLE)?);
        }
        match all.len() {
            0..=CREDENTIALS_MAX => Ok(Credentials(all.into())),
            many => Err(format!("{many} credentials are too many; the limit is {CREDENTIALS_MAX}")),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Appends one auth request for each.
    pub(crate) fn put(&self, out: &mut BytesMut) {
        for one in self.0.iter() {
            let packet = AuthPacket {
                kind: 0,
                scheme: one.scheme.clone(),
                auth: Some(Bytes::copy_from_slice(one.secret.as_bytes())),
            };
            frame::put(out, |out| {
                RequestHeader { xid: xid::AUTH, op: OpCode::Auth.code() }.encode(out);
                packet.encode(out);
            });
        }
    }
}

fn parse(text: &str) -> Option<Credential> {
    let (scheme, secret) = text.split_once(':')?;
    let whole = !scheme.is_empty() && !secret.is_empty() && (scheme != "digest" || secret.contains(':'));
    whole.then(|| Credential { scheme: scheme.to_owned(), secret: secret.to_owned() })
}

/// One credential a line; empty lines and those that begin with # are left out.
fn lines(text: &str, place: &str) -> Result<Vec<Credential>, String> {
    let lines = text.lines().map(str::trim).enumerate();
    let meant = lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
    meant
        .map(|(at, line)| parse(line).ok_or_else(|| format!("{place}, line {}: {EXPECTED}", at + 1)))
        .collect()
}

fn read(file: &Path) -> Result<String, String> {
    use std::os::unix::fs::PermissionsExt;
    let shown = file.display();
    let unreadable = |error: std::io::Error| format!("--auth-file {shown}: cannot be read: {error}");
    let about = std::fs::metadata(file).map_err(unreadable)?;
    if about.len() > FILE_MAX_BYTES {
        return Err(format!("--auth-file {shown}: {} bytes, expected at most {FILE_MAX_BYTES}", about.len()));
    }
    if about.is_file() && about.permissions().mode() & 0o077 != 0 {
        return Err(format!("--auth-file {shown}: other users may read it; do chmod 600 {shown}"));
    }
    std::fs::read_to_string(file).map_err(unreadable)
}

/// A command line whose secrets are hidden: the scheme and, of a digest, the user are kept.
pub fn hide(arguments: impl Iterator<Item = OsString>) -> impl Iterator<Item = OsString> {
    let mut follows = false;
    arguments.map(move |argument| {
        let text = argument.to_string_lossy().into_owned();
        let is_secret = std::mem::replace(&mut follows, text == "--auth");
        match text.strip_prefix("--auth=") {
            _ if is_secret => hidden(&text).into(),
            Some(secret) => format!("--auth={}", hidden(secret)).into(),
            None => argument,
        }
    })
}

fn hidden(text: &str) -> String {
    let kept: Vec<&str> = match text.split(':').collect::<Vec<_>>()[..] {
        ["digest", user, _, ..] => vec!["digest", user],
        [scheme, _, ..] => vec![scheme],
        _ => Vec::new(),
    };
    kept.into_iter().chain([HIDDEN]).collect::<Vec<_>>().join(":")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn credentials_come_from_three_places() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("auth");
        std::fs::write(&file, "# for the lab\n\ndigest:bob:se:cret\n").unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
        let arguments = ["digest:ann:pw".to_owned()];
        let all =
            Credentials::collect(&arguments, Some(&file), Some(OsStr::new("x509:cn\ndigest::"))).unwrap();
        let secrets: Vec<&str> = all.0.iter().map(|one| one.secret.as_str()).collect();
        assert_eq!(secrets, ["ann:pw", "bob:se:cret", "cn", ":"]);
        assert!(Credentials::collect(&[], None, None).unwrap().is_empty());
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o640)).unwrap();
        let error = Credentials::collect(&[], Some(&file), None).unwrap_err();
        assert!(error.contains("other users may read it") && error.contains("chmod 600"), "{error}");
    }

    #[test]
    fn no_complaint_says_a_secret() {
        for text in ["hunter2", "digest:hunter2", ":hunter2", "digest:"] {
            for result in [
                Credentials::collect(&[text.to_owned()], None, None),
                Credentials::collect(&[], None, Some(OsStr::new(text))),
            ] {
                let error = result.unwrap_err();
                assert!(error.contains(EXPECTED) && !error.contains("hunter2"), "{error}");
            }
        }
        let some = Credentials::collect(&["digest:ann:hunter2".to_owned()], None, None).unwrap();
        assert!(!format!("{some:?}").contains("hunter2"));
    }

    #[test]
    fn a_recorded_command_hides_secrets() {
        let told = |arguments: &[&str]| -> Vec<String> {
            let arguments: Vec<OsString> = arguments.iter().map(OsString::from).collect();
            hide(arguments.into_iter()).map(|argument| argument.to_string_lossy().into_owned()).collect()
        };
        assert_eq!(
            told(&[
                "zoometry",
                "--auth",
                "digest:ann:hun:ter2",
                "--auth=digest:bob:x",
                "--auth-file",
                "f",
                "--auth",
                "odd"
            ]),
            [
                "zoometry",
                "--auth",
                "digest:ann:***",
                "--auth=digest:bob:***",
                "--auth-file",
                "f",
                "--auth",
                "***"
            ]
        );
    }
}

//! A cluster that is already there, with the commands that break its members: `--cluster FILE.toml`.
//!
//! ```toml
//! [[member]]
//! address = "zk1:2181"
//! kill = "ssh zk1 systemctl kill -s KILL zookeeper"
//! restart = "ssh zk1 systemctl start zookeeper"
//! stop = "ssh zk1 systemctl kill -s STOP zookeeper"
//! continue = "ssh zk1 systemctl kill -s CONT zookeeper"
//! ```
//!
//! Commands are run by `sh -c`; one that fails, or takes longer than [`COMMAND_LIMIT`], ends the run. `restart` starts a member that
//! was killed, and starts one anew that runs. Only the commands that a workload's faults need must be there.

use super::{Chroot, Deed};
use anyhow::{Context, Result, bail};
use serde::Deserialize;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

/// A command gets this long.
pub(super) const COMMAND_LIMIT: Duration = Duration::from_secs(30);
/// Longest cluster file read.
const FILE_MAX_BYTES: u64 = 1 << 20;
/// In the environment of a `slow-disk` command: by how many milliseconds each sync is to take longer.
const DELAY_MS: &str = "ZOOMETRY_DELAY_MS";
/// Of a failed command's output this much is shown.
const SHOWN_BYTES: usize = 2000;

/// What a cluster file says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterFile {
    /// The file.
    pub path: PathBuf,
    /// The file's name without its extension.
    pub name: String,
    /// At least one.
    pub members: Vec<FileMember>,
    /// `chroot`: the znode below which everything is to happen.
    pub chroot: Chroot,
}

/// One member in a cluster file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileMember {
    /// `host:port` of its client port.
    pub address: String,
    /// What breaks it.
    pub commands: Commands,
}

/// The commands that break a member and mend it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Commands {
    /// Ends it as SIGKILL does.
    pub kill: Option<String>,
    /// Starts it again.
    pub restart: Option<String>,
    /// Stops it as SIGSTOP does.
    pub stop: Option<String>,
    /// Lets it go on.
    pub resume: Option<String>,
    /// Cuts it off from the other members.
    pub cut: Option<String>,
    /// Lets it talk to them again.
    pub heal: Option<String>,
    /// Makes its disk slow; the environment variable [`DELAY_MS`] says by how much.
    pub slow_disk: Option<String>,
    /// Lets its disk be as fast as it is.
    pub fast_disk: Option<String>,
}

impl Commands {
    /// The command that does this; none ends a member: the one that starts it does that first.
    pub fn of(&self, deed: Deed) -> Option<&str> {
        let Commands { kill, restart, stop, resume, cut, heal, slow_disk, fast_disk } = self;
        let command = match deed {
            Deed::Kill => kill,
            Deed::End => &None,
            Deed::Start => restart,
            Deed::Stop => stop,
            Deed::Continue => resume,
            Deed::Cut => cut,
            Deed::Heal => heal,
            Deed::SlowDisk { .. } => slow_disk,
            Deed::FastDisk => fast_disk,
        };
        command.as_deref()
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    #[serde(default)]
    chroot: String,
    #[serde(default)]
    member: Vec<toml::Spanned<toml::Table>>,
}

impl ClusterFile {
    /// Reads a cluster file.
    ///
    /// # Errors
    /// What is wrong with it, and where.
    pub fn load(path: &Path) -> Result<ClusterFile, String> {
        let shown = path.display();
        let unreadable = |error: std::io::Error| format!("{shown} cannot be read: {error}");
        let length = std::fs::metadata(path).map_err(unreadable)?.len();
        if length > FILE_MAX_BYTES {
            return Err(format!(
                "{shown} has {length} bytes; expected a cluster file of at most {FILE_MAX_BYTES}"
            ));
        }
        let text = std::fs::read_to_string(path).map_err(unreadable)?;
        ClusterFile::parse(path, &text).map_err(|why| format!("{shown}: {why}"))
    }

    fn parse(path: &Path, text: &str) -> Result<ClusterFile, String> {
        let document: Document = toml::from_str(text).map_err(|error| error.to_string().trim().to_owned())?;
        let chroot: Chroot = document.chroot.parse().map_err(|why| format!("chroot: {why}"))?;
        let mut members: Vec<FileMember> = Vec::new();
        for table in document.member {
            let line = text[..table.span().start].matches('\n').count() + 1;
            let member =
                member(table.into_inner()).map_err(|why| format!("[[member]] at line {line}: {why}"))?;
            if members.iter().any(|other| other.address == member.address) {
                let address = member.address;
                return Err(format!(
                    "[[member]] at line {line}: '{address}' is there twice; name every member once"
                ));
            }
            members.push(member);
        }
        if members.is_empty() {
            return Err("there is no [[member]] with an address".into());
        }
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        Ok(ClusterFile { path: path.to_owned(), name, members, chroot })
    }
}

fn member(table: toml::Table) -> Result<FileMember, String> {
    let known = ["address", "kill", "restart", "stop", "continue", "cut", "heal", "slow-disk", "fast-disk"];
    if let Some(key) = table.keys().find(|key| !known.contains(&key.as_str())) {
        return Err(format!("unknown key `{key}`{}", crate::spec::hint(key, &known)));
    }
    let text = |key: &str| match table.get(key) {
        None => Ok(None),
        Some(toml::Value::String(text)) if !text.trim().is_empty() => Ok(Some(text.clone())),
        Some(_) => Err(format!("{key}: expected a string that is not empty")),
    };
    let address = text("address")?.ok_or("it has no address: expected address = \"host:port\"")?;
    super::check_address(&address)?;
    let commands = Commands {
        kill: text("kill")?,
        restart: text("restart")?,
        stop: text("stop")?,
        resume: text("continue")?,
        cut: text("cut")?,
        heal: text("heal")?,
        slow_disk: text("slow-disk")?,
        fast_disk: text("fast-disk")?,
    };
    Ok(FileMember { address, commands })
}

/// Runs a deed's command to its end.
///
/// # Errors
/// The command, and what it said: it failed, or has not ended after [`COMMAND_LIMIT`].
pub async fn run(command: &str, deed: Deed) -> Result<()> {
    let delay_ms = match deed {
        Deed::SlowDisk { delay_ns } => Some(delay_ns as f64 / 1e6),
        _ => None,
    };
    let child = tokio::process::Command::new("/bin/sh")
        .args(["-c", command])
        .envs(delay_ms.map(|ms| (DELAY_MS, ms.to_string())))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .with_context(|| format!("run `{command}`"))?;
    let output = tokio::time::timeout(COMMAND_LIMIT, child.wait_with_output())
        .await
        .with_context(|| format!("`{command}` has not ended after {COMMAND_LIMIT:?}"))?
        .with_context(|| format!("run `{command}`"))?;
    if !output.status.success() {
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said[said.len().saturating_sub(SHOWN_BYTES)..]).trim().to_owned();
        bail!("`{command}` failed ({}): {said}", output.status);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cluster_file_names_members_and_their_commands() {
        let text = "chroot = \"/app\"\n[[member]]\naddress = \"zk1:2181\"\nkill = \"kill -9 7\"\ncontinue = \"kill -CONT 7\"\n\n\
                    [[member]]\naddress = \"zk2:2181\"\n";
        let file = ClusterFile::parse(Path::new("lab.toml"), text).unwrap();
        assert_eq!(file.chroot, "/app".parse().unwrap());
        assert_eq!(file.members[0].commands.kill.as_deref(), Some("kill -9 7"));
        assert_eq!(file.members[0].commands.resume.as_deref(), Some("kill -CONT 7"));
        assert_eq!(file.members[1], FileMember { address: "zk2:2181".into(), commands: Commands::default() });
    }

    #[test]
    fn the_documented_cluster_file_is_one() {
        let readme = include_str!("../../../workloads/README.md");
        let example =
            readme.split("```toml\n").nth(2).and_then(|rest| rest.split("```").next()).expect("an example");
        let file = ClusterFile::parse(Path::new("lab.toml"), example).unwrap();
        let Commands { kill, restart, stop, resume, cut, heal, slow_disk, fast_disk } =
            &file.members[0].commands;
        let all = [kill, restart, stop, resume, cut, heal, slow_disk, fast_disk];
        assert!(all.iter().all(|command| command.is_some()));
    }

    #[test]
    fn mistakes_in_a_cluster_file_are_named() {
        for (text, complaint) in [
            ("", "there is no [[member]]"),
            (
                "[[member]]\naddress = \"a:1\"\n[[member]]\naddress = \"a:1\"\n",
                "[[member]] at line 3: 'a:1' is there twice",
            ),
            ("member = []", "there is no [[member]]"),
            ("[[member]]\nkill = \"x\"\n", "[[member]] at line 1: it has no address"),
            ("\n[[member]]\naddress = \"zk1\"\n", "[[member]] at line 2: 'zk1' has no port"),
            ("[[member]]\naddress = \"a:1\"\nkil = \"x\"\n", "unknown key `kil`; did you mean `kill`?"),
            ("[[member]]\naddress = \"a:1\"\nkill = 9\n", "kill: expected a string"),
            (
                "chroot = \"app\"\n[[member]]\naddress = \"a:1\"\n",
                "chroot: 'app' behind the hosts is no path",
            ),
            ("[[server]]\naddress = \"a:1\"\n", "server"),
        ] {
            let error = ClusterFile::parse(Path::new("lab.toml"), text).unwrap_err();
            assert!(error.contains(complaint), "{text}: {error}");
        }
    }

    #[tokio::test]
    async fn a_command_that_fails_says_what_it_said() {
        run("true", Deed::Kill).await.unwrap();
        let error = run("echo no such host >&2; exit 3", Deed::Kill).await.unwrap_err().to_string();
        assert!(error.contains("no such host") && error.contains("exit 3"), "{error}");
    }
    #[tokio::test]
    async fn a_command_that_slows_a_disk_is_told_by_how_much() {
        run(r#"test "$ZOOMETRY_DELAY_MS" = 0.5"#, Deed::SlowDisk { delay_ns: 500_000 }).await.unwrap();
        run(r#"test -z "$ZOOMETRY_DELAY_MS""#, Deed::FastDisk).await.unwrap();
    }
}

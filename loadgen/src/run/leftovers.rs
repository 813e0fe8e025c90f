//! What runs that were killed left below a data root, and how a run that lives is told from these.
//!
//! The znode of a run has a name and a value of its own form, and while the run lives an ephemeral child, the *mark*, whose value
//! says where the run is. Its session is that which prepared the run. When that is lost a new one leaves its mark within
//! the time for which the old one's still stands, so a run that lives always has one. A znode with the form and
//! without a mark is a leftover. Nothing else below the root is looked into or touched.

use super::{OWN_TIMEOUT_MS, say};
use crate::cluster::{Cluster, Wanted};
use crate::credentials::Credentials;
use crate::driver::mark::{self, MARK};
use crate::driver::{self, Client, MADE_BY, Made, Places};
use anyhow::{Result, bail};
use std::time::{Duration, Instant};
use tokio::sync::oneshot;
use zoometry_wire::request::{PathVersion, PathWatch};
use zoometry_wire::{ErrorCode, Request, Response};

/// How a run's znode is named: this, when it began, and its process, both hexadecimal.
const RUN: &str = "run-";
/// Between two looks at what seems dead: a run that begins has no mark for a moment.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// Between two attempts to leave a mark again.
const AGAIN: Duration = Duration::from_millis(500);
/// A cluster must let `clean` open a session within this time.
const REACH_LIMIT: Duration = Duration::from_secs(15);
/// So many leftovers are named; of more, their number.
const NAMED: usize = 3;

/// The znode of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Found {
    /// Its path.
    path: String,
    /// What its mark says, if it lives.
    mark: Option<String>,
}

fn is_run(name: &str) -> bool {
    let hexadecimal = |part: &str| !part.is_empty() && part.chars().all(|c| c.is_ascii_hexdigit());
    name.strip_prefix(RUN)
        .and_then(|rest| rest.split_once('-'))
        .is_some_and(|(began, process)| hexadecimal(began) && hexadecimal(process))
}

/// The runs below a root, those that live and those that do not.
pub(super) async fn found(client: &mut Client, root: &str) -> Result<Vec<Found>> {
    let mut found = Vec::new();
    for name in children(client, root).await?.iter().filter(|name| is_run(name)) {
        let path = format!("{root}/{name}");
        if !data(client, &path).await?.starts_with(MADE_BY) {
            continue;
        }
        let names = children(client, &path).await?;
        let mark = match names.iter().find(|name| name.starts_with(MARK)) {
            Some(mark) => Some(data(client, &format!("{path}/{mark}")).await?),
            None => None,
        };
        found.push(Found { path, mark });
    }
    Ok(found)
}

/// The names below a znode; none where there is none, or where we may not look.
async fn children(client: &mut Client, path: &str) -> Result<Vec<String>> {
    let request = Request::GetChildren(PathWatch { path: path.to_owned(), watch: false });
    match client.call(&request).await? {
        Ok(Response::Children(mut names)) => {
            names.sort_unstable();
            Ok(names)
        }
        _ => Ok(Vec::new()),
    }
}

/// A znode's value as text; empty where there is none, or where we may not look.
async fn data(client: &mut Client, path: &str) -> Result<String> {
    let request = Request::GetData(PathWatch { path: path.to_owned(), watch: false });
    match client.call(&request).await? {
        Ok(Response::Data(data, _)) => Ok(String::from_utf8_lossy(&data.unwrap_or_default()).into_owned()),
        _ => Ok(String::new()),
    }
}

/// Names what killed runs left, for somebody who starts another.
pub(super) fn told(found: &[Found], cluster: &Wanted) -> Option<String> {
    let dead: Vec<&str> =
        found.iter().filter(|found| found.mark.is_none()).map(|found| found.path.as_str()).collect();
    let named = dead.iter().take(NAMED).copied().collect::<Vec<_>>().join(", ");
    let more = dead.len().saturating_sub(NAMED);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    (!dead.is_empty()).then(|| {
        format!(
            "note: runs that were killed left {named}{more} behind; `zoometry clean {cluster}` removes that"
        )
    })
}

/// Keeps the mark of a run that lives; the mark is gone when this is taken away, or soon after it is dropped.
pub(super) struct Mark {
    stop: oneshot::Sender<()>,
    task: tokio::task::JoinHandle<()>,
}

impl Mark {
    /// Keeps the mark that the session left which prepared the run, and leaves another when that is lost.
    pub(super) fn keep(mut client: Client, cluster: &Cluster, run: &str) -> Mark {
        let (stop, mut stopped) = oneshot::channel();
        let (members, credentials, run) = (cluster.addresses(), cluster.credentials.clone(), run.to_owned());
        let task = tokio::spawn(async move {
            loop {
                tokio::select! {
                    _ = &mut stopped => return client.close().await,
                    _ = client.stay() => {}
                }
                client = tokio::select! {
                    _ = &mut stopped => return,
                    client = again(&members, &credentials, &run) => client,
                };
            }
        });
        Mark { stop, task }
    }

    /// Takes the mark away.
    pub(super) async fn take_away(self) {
        let _ = self.stop.send(());
        let _ = self.task.await;
    }
}

/// A new session with a mark of its own, as soon as there can be one.
async fn again(members: &[std::net::SocketAddr], credentials: &Credentials, run: &str) -> Client {
    loop {
        if let Ok(mut client) = Client::connect(members, OWN_TIMEOUT_MS, Instant::now(), credentials).await
            && mark::put(&mut client, run).await.is_ok()
        {
            return client;
        }
        tokio::time::sleep(AGAIN).await;
    }
}

/// Removes what killed runs left below `root`, and the znodes above them that runs had made and that are empty then.
///
/// # Errors
/// A cluster that is started for runs, or cannot be reached; what could not be deleted.
pub fn clean(wanted: &Wanted, root: &str, credentials: &Credentials) -> Result<()> {
    if wanted.is_started_here() {
        bail!(
            "{wanted} is started for a run and is gone with it; name a cluster that is there: host:port,host:port"
        );
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let cluster = Cluster::hosts(wanted)?.with_credentials(credentials.clone());
        let mut client = cluster.client(OWN_TIMEOUT_MS, Instant::now() + REACH_LIMIT).await?;
        let root = format!("{}{root}", wanted.chroot());
        let before = found(&mut client, &root).await?;
        tokio::time::sleep(LOOK_AGAIN).await;
        let mut found = found(&mut client, &root).await?;
        found.retain(|found| before.iter().any(|before| before.path == found.path));
        for found in &found {
            match &found.mark {
                Some(mark) => say(&format!("in use   {} ({mark})\n", found.path)),
                None => {
                    let id = found.path.rsplit('/').next().unwrap_or_default();
                    let made = Made { own: true, parents: Vec::new() };
                    driver::clean_up(&mut client, &Places::new(&root, id), &made).await?;
                    say(&format!("removed  {}\n", found.path));
                }
            }
        }
        match (found.is_empty(), found.iter().any(|found| found.mark.is_some())) {
            (true, _) => say(&format!("below {root} nothing is left of any run\n")),
            (_, true) => say(
                "What is in use stays. The mark of a run that was killed a moment ago goes within half a minute.\n",
            ),
            (_, false) => remove_empty(&mut client, &root).await?,
        }
        client.close().await;
        Ok(())
    })
}

/// Deletes `root` and the znodes above it that a run made, as long as nothing is in them.
async fn remove_empty(client: &mut Client, root: &str) -> Result<()> {
    let mut path = root;
    while !path.is_empty() && data(client, path).await? == driver::MADE_FOR_RUNS {
        let delete = PathVersion { path: path.to_owned(), version: -1 };
        match client.call(&Request::Delete(delete)).await? {
            Ok(_) => say(&format!("removed  {path}\n")),
            Err(err) if err == ErrorCode::NotEmpty.code() => break,
            Err(err) => bail!("delete {path}: {}", driver::error_name(err)),
        }
        path = &path[..path.rfind('/').unwrap_or(0)];
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_runs() {
        for (name, is) in [
            ("run-19a4f3-3e8", true),
            ("run-19a4f3", false),
            ("run--3e8", false),
            ("run-19a4f3-", false),
            ("run-now-3e8", false),
            ("rune-19a4f3-3e8", false),
        ] {
            assert_eq!(is_run(name), is, "{name}");
        }
    }

    #[test]
    fn only_what_is_dead_is_told() {
        let found = |n: u32, mark: Option<&str>| Found {
            path: format!("/z/run-1-{n}"),
            mark: mark.map(str::to_owned),
        };
        let cluster: Wanted = "zk1:2181".parse().unwrap();
        assert_eq!(told(&[found(1, Some("process 7 on here"))], &cluster), None);
        let many: Vec<Found> = (1..=5).map(|n| found(n, (n == 1).then_some("here"))).collect();
        assert_eq!(
            told(&many, &cluster).unwrap(),
            "note: runs that were killed left /z/run-1-2, /z/run-1-3, /z/run-1-4 and 1 more behind; `zoometry clean \
             zk1:2181` removes that"
        );
    }
}

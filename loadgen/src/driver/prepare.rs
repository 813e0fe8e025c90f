//! Before and after the load: the run's own znodes made, and taken away again.
//!
//! Everything of a run lies below one znode of its own, `<data root>/<run id>`: `data` holds the keys, `scratch` one znode per
//! session for what the load creates. A run never writes into a znode that it did not make: if its own is already there, it
//! refuses. Afterwards the whole subtree is deleted, and that it is gone is checked.

use super::client::{Client, Refused, error_name};
use super::encode::{self, Filler, WRITER_PREPARE};
use super::mark;
use super::views::Writer;
use crate::keys::KeySpace;
use crate::plan::Plan;
use crate::spec::Spec;
use anyhow::{Result, bail};
use bytes::{Bytes, BytesMut};
use zoometry_wire::jute::Record;
use zoometry_wire::request::CreateMode;
use zoometry_wire::{ErrorCode, OpCode, Request, Zxid};

/// How the value of a run's znode begins.
pub(crate) const MADE_BY: &str = "zoometry workload ";
/// The value of znodes above it that had to be made.
pub(crate) const MADE_FOR_RUNS: &str = "made by zoometry for its runs";

/// Where a run's znodes are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Places {
    /// The run's own znode; everything else is below it.
    pub run: String,
    /// The data root: the keys.
    pub data: String,
    /// One child per session, for creates.
    pub scratch: String,
}

impl Places {
    /// Below the workload's root, named by the run.
    pub fn new(root: &str, run_id: &str) -> Places {
        let run = format!("{root}/{run_id}");
        Places { data: format!("{run}/data"), scratch: format!("{run}/scratch"), run }
    }

    /// The spec with its data root moved into the run's own znode.
    pub fn keys(&self, spec: &Spec) -> KeySpace {
        KeySpace::new(&crate::spec::Data { root: self.data.clone(), ..spec.data.clone() })
    }
}

/// Whether any phase creates or deletes znodes, so that sessions need scratch places.
fn needs_scratch(spec: &Spec) -> bool {
    spec.phases.iter().any(|phase| phase.mix.iter().any(|(op, _)| op.is_scratch()))
}

/// What a run has made on the cluster, and has to take away again.
#[derive(Debug, Clone, Default)]
pub(crate) struct Made {
    /// The znodes above the run's own that had to be made too, topmost first.
    pub(crate) parents: Vec<String>,
    /// The run's own znode: made, or asked for without an answer yet.
    pub(crate) own: bool,
}

/// Makes the run's znodes and says as of when all are there. `made` is right at any time, also when this fails or is dropped.
/// `progress` hears how many of how many are there.
pub(crate) async fn prepare(
    client: &mut Client,
    spec: &Spec,
    plan: &Plan,
    places: &Places,
    keys: &KeySpace,
    made: &mut Made,
    mut progress: impl FnMut(u64, u64),
) -> Result<Zxid> {
    let (root, _) = places.run.rsplit_once('/').expect("an absolute path");
    make_parents(client, root, &mut made.parents).await?;
    let described = Bytes::from(format!("{MADE_BY}{}", spec.name));
    made.own = true;
    let created = client.create(&places.run, &described).await;
    // An answer that is lost leaves it open.
    made.own = !matches!(&created, Ok(false)) && !matches!(&created, Err(error) if error.is::<Refused>());
    if !created? {
        bail!(
            "{} is already there, and a run writes only into a znode of its own: \
             remove it (zkCli.sh: deleteall {}) or choose another data root",
            places.run,
            places.run
        );
    }
    mark::put(client, &places.run).await?;
    client.create(&places.data, &Bytes::new()).await?;
    client.create(&places.scratch, &Bytes::new()).await?;
    let inner: Vec<String> = keys.inner_paths().collect();
    let scratch = if needs_scratch(spec) { u64::from(spec.sessions.count) } else { 0 };
    let filler = Filler::of(spec);
    let leaves = keys.len();
    let total = inner.len() as u64 + scratch + leaves;
    let mut path = String::new();
    let writer = Writer::new(WRITER_PREPARE, 1);
    let make = |index: u64, out: &mut BytesMut| {
        path.clear();
        let inner_count = inner.len() as u64;
        if index < inner_count {
            path.push_str(&inner[index as usize]);
        } else if index < inner_count + scratch {
            use std::fmt::Write as _;
            let _ = write!(path, "{}/{}", places.scratch, index - inner_count);
        } else {
            let key = index - inner_count - scratch;
            keys.push_path(key, &mut path);
            let size = plan.initial_value_bytes(key);
            encode::create(out, &path, CreateMode::Persistent, |out| filler.put(out, size, key, writer));
            return OpCode::Create;
        }
        encode::create(out, &path, CreateMode::Persistent, |out| filler.put(out, 0, 0, writer));
        OpCode::Create
    };
    let mut done = 0;
    client
        .pipeline(total, make, |index, err, _| {
            if err != 0 {
                let what = format!("creating znode {index} of {total} below {}", places.run);
                return Err(Refused { what, code: err }.into());
            }
            done += 1;
            progress(done, total);
            Ok(())
        })
        .await?;
    Ok(client.last_zxid())
}

async fn make_parents(client: &mut Client, root: &str, made: &mut Vec<String>) -> Result<()> {
    for end in root.match_indices('/').map(|(at, _)| at).skip(1).chain([root.len()]) {
        // Looked for first: what is there need not be in a place where we may make it.
        if client.stat(&root[..end]).await?.is_none()
            && client.create(&root[..end], &Bytes::from(MADE_FOR_RUNS)).await?
        {
            made.push(root[..end].to_owned());
        }
    }
    Ok(())
}

/// Deletes what a run made: its subtree, and checks that it is gone; then the znodes above it, if they are empty.
pub(crate) async fn clean_up(client: &mut Client, places: &Places, made: &Made) -> Result<()> {
    if made.own {
        delete_subtree(client, places).await?;
    }
    for parent in made.parents.iter().rev() {
        let delete = zoometry_wire::request::PathVersion { path: parent.clone(), version: -1 };
        // Somebody else may use it by now: then it stays.
        if client.call(&Request::Delete(delete)).await?.is_err() {
            break;
        }
    }
    Ok(())
}

async fn delete_subtree(client: &mut Client, places: &Places) -> Result<()> {
    // Breadth first, a level at a time: the reverse of the order found is a legal order to delete in.
    let mut found = vec![places.run.clone()];
    let mut level = 0..1;
    while !level.is_empty() {
        let mut below = Vec::new();
        let paths = &found[level.clone()];
        client
            .pipeline(
                paths.len() as u64,
                |index, out| {
                    encode::path_watch(out, &paths[index as usize], false);
                    OpCode::GetChildren
                },
                |index, err, body| {
                    // A znode that vanished (an ephemeral) needs no deleting.
                    if err == 0 {
                        let parent = &paths[index as usize];
                        let names = Vec::<String>::from_bytes(body)?;
                        below.extend(names.into_iter().map(|name| format!("{parent}/{name}")));
                    }
                    Ok(())
                },
            )
            .await?;
        level = found.len()..found.len() + below.len();
        found.extend(below);
    }
    found.reverse();
    client
        .pipeline(
            found.len() as u64,
            |index, out| {
                encode::path_number(out, &found[index as usize], -1);
                OpCode::Delete
            },
            |index, err, _| {
                if err != 0 && err != ErrorCode::NoNode.code() {
                    bail!("delete {}: {}", found[index as usize], error_name(err));
                }
                Ok(())
            },
        )
        .await?;
    if client.stat(&places.run).await?.is_some() {
        bail!("{} is still there after it was deleted", places.run);
    }
    Ok(())
}

//! The mark of a run that lives: an ephemeral child of the run's znode, so that nobody takes it for what a killed run left.

use super::client::{Client, Refused};
use anyhow::Result;
use zoometry_wire::request::{CreateMode, CreateRequest};
use zoometry_wire::{Acl, Request};

/// How a mark's name begins; its session follows.
pub(crate) const MARK: &str = "alive-";

/// Leaves the mark of a client's session.
pub(crate) async fn put(client: &mut Client, run: &str) -> Result<()> {
    let path = format!("{run}/{MARK}{:x}", client.session().0);
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let said = format!("process {} on {}", std::process::id(), host.trim());
    let flags = CreateMode::Ephemeral as i32;
    let create = CreateRequest { path: path.clone(), data: Some(said.into()), acl: Acl::open(), flags };
    match client.call(&Request::Create(create)).await? {
        Ok(_) => Ok(()),
        Err(code) => Err(Refused { what: format!("create {path}"), code }.into()),
    }
}

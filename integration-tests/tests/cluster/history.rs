//! What etcd remembers of every revision, read with etcd's own tool.

use anyhow::{Context, Result};
use flotilla_integration_tests::Cluster;
use flotilla_registry::keys::{Key, Keys};

/// What one transaction changed.
pub(crate) struct Revision {
    pub(crate) number: i64,
    pub(crate) writes: Vec<Write>,
}

/// One change.
pub(crate) enum Write {
    Put(Key, String),
    Delete(Key),
}

/// Everything since the cluster began, in order.
pub(crate) fn history(cluster: &Cluster) -> Result<Vec<Revision>> {
    let keys = Keys::default();
    parse(&keys, &cluster.etcd_history()?)
}

/// Reads lines of `"Name" : value`, of which `Type` begins a change and `Value` ends it.
fn parse(keys: &Keys, text: &str) -> Result<Vec<Revision>> {
    let mut found: Vec<Revision> = Vec::new();
    let (mut kind, mut key, mut number) = ("", String::new(), 0);
    for line in text.lines() {
        let Some((name, value)) = line.split_once(" : ") else { continue };
        match name.trim_matches('"') {
            "Type" => kind = value,
            "Key" => key = serde_json::from_str(value).with_context(|| format!("reading {line}"))?,
            "ModRevision" => number = value.parse().with_context(|| format!("reading {line}"))?,
            "Value" => {
                let Some(key) = keys.read(&key) else { continue };
                // What is not text is a unit file's, which nobody asks for here.
                let text = serde_json::from_str(value).unwrap_or_default();
                let write = if kind == "PUT" { Write::Put(key, text) } else { Write::Delete(key) };
                match found.last_mut().filter(|last| last.number == number) {
                    Some(last) => last.writes.push(write),
                    None => found.push(Revision { number, writes: vec![write] }),
                }
            }
            _ => {}
        }
    }
    Ok(found)
}

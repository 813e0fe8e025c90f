//! A snapshot that arrives: the stream behind a SNAP packet becomes a new store.
//!
//! The bytes are read here and handed, through a channel of a few chunks, to a thread that decodes and loads:
//! memory is bounded by the store itself and one item. Where the stream ends is known only to that thread, so
//! the bytes behind it, which are packets again, come back from it.

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::sync::mpsc;
use zoometry_replica::storage::snapshot::{ItemDecoder, SnapshotItem};
use zoometry_replica::store::{LoadError, Store, StoreConfig};
use zoometry_wire::Zxid;

use super::outbox::{Outbox, SIGNATURE};

/// Chunks between the socket and the loader.
const CHUNKS_MAX: usize = 8;
/// Most bytes of a chunk.
const CHUNK_BYTES: usize = 64 << 10;
/// Longest session, ACL list or znode of a stream. Far above any `jute.maxbuffer`.
const ITEM_BYTES_MAX: usize = 64 << 20;

/// What the loader returns.
type Loaded = Result<(Store, BytesMut), String>;

/// Reads a stream to its end. `first` are bytes of it that have been read already; the bytes behind it are
/// returned with the store.
pub(super) async fn receive(
    config: StoreConfig,
    zxid: Zxid,
    first: BytesMut,
    reader: &mut (impl AsyncRead + Unpin),
    link: &Outbox,
) -> anyhow::Result<(Store, BytesMut)> {
    let (chunks, waiting) = mpsc::channel(CHUNKS_MAX);
    let mut loader = tokio::task::spawn_blocking(move || load(config, zxid, waiting));
    let mut next = first;
    link.set_loads(true);
    let loaded = loop {
        if next.is_empty() {
            next.reserve(CHUNK_BYTES);
            link.set_loads(false);
            let read = tokio::select! {
                loaded = &mut loader => break loaded,
                read = reader.read_buf(&mut next) => read?,
            };
            link.set_loads(true);
            link.moved(read);
            if read == 0 {
                // The loader notices that there is no more, and says where that was.
                drop(chunks);
                break loader.await;
            }
        }
        let room = tokio::select! {
            loaded = &mut loader => break loaded,
            room = chunks.reserve() => room,
        };
        // No wait between getting room and using it: the loader may be waiting for just that.
        match room {
            Ok(room) => room.send(next.split()),
            Err(_) => break loader.await,
        }
    };
    link.set_loads(false);
    let (store, mut rest) = loaded?.map_err(|problem| anyhow::anyhow!("its snapshot: {problem}"))?;
    rest.unsplit(next);
    Ok((store, rest))
}

/// On a thread of its own.
fn load(config: StoreConfig, zxid: Zxid, mut chunks: mpsc::Receiver<BytesMut>) -> Loaded {
    let mut decoder = ItemDecoder::new();
    let items = std::iter::from_fn(|| next_item(&mut decoder, &mut chunks).transpose());
    let store = Store::load(config, items, zxid).map_err(|error| match error {
        LoadError::Source(problem) => problem,
        other => other.to_string(),
    })?;
    let mut rest = BytesMut::from(decoder.rest());
    let expected = signature();
    while rest.len() < expected.len() {
        let chunk = chunks.blocking_recv().ok_or("the connection ended before the end signature")?;
        rest.extend_from_slice(&chunk);
    }
    if rest.split_to(expected.len()) != expected {
        return Err(format!("expected {SIGNATURE:?} behind the last znode"));
    }
    chunks.close();
    while let Some(chunk) = chunks.blocking_recv() {
        rest.extend_from_slice(&chunk);
    }
    Ok((store, rest))
}

fn next_item(
    decoder: &mut ItemDecoder,
    chunks: &mut mpsc::Receiver<BytesMut>,
) -> Result<Option<SnapshotItem>, String> {
    loop {
        if let Some(item) = decoder.next_item().map_err(|error| error.to_string())? {
            return Ok(Some(item));
        }
        if decoder.is_done() {
            return Ok(None);
        }
        if decoder.rest().len() > ITEM_BYTES_MAX {
            return Err(format!(
                "an item at offset {} is longer than {ITEM_BYTES_MAX} bytes",
                decoder.offset()
            ));
        }
        let chunk = chunks.blocking_recv();
        let chunk = chunk.ok_or_else(|| format!("the connection ended at offset {}", decoder.offset()))?;
        decoder.push(&chunk);
    }
}

fn signature() -> Vec<u8> {
    let mut bytes = BytesMut::new();
    zoometry_wire::jute::put_str(&mut bytes, SIGNATURE);
    bytes.to_vec()
}

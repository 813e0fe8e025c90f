use super::*;
use crate::storage::disk::mem::MemDisk;
use crate::storage::history::{all_upto, write_snapshot};
use bytes::Buf;
use proptest::prelude::*;
use std::io::Read;
use zoometry_wire::Id;

fn node(path: &str, data: Option<&[u8]>) -> SnapshotNode {
    let stat = StatPersisted { czxid: Zxid(7), version: 3, ..StatPersisted::default() };
    SnapshotNode { path: path.into(), data: data.map(Bytes::copy_from_slice), acl: 1, stat }
}

fn items() -> Vec<SnapshotItem> {
    let digest = Acl { perms: 31, id: Id { scheme: "digest".into(), id: "u:x=".into() } };
    vec![
        SnapshotItem::Session(SessionId(0x0100_0000_0000_0005), 30_000),
        SnapshotItem::Session(SessionId(-1), 4_000),
        SnapshotItem::Acl(1, Acl::open().into()),
        SnapshotItem::Acl(2, [digest, Acl::default()].into()),
        SnapshotItem::Node(node("", Some(b""))),
        SnapshotItem::Node(node("/a", None)),
        SnapshotItem::Node(node("/a/b", Some(&[9; 700]))),
    ]
}

fn write(disk: &MemDisk, items: &[SnapshotItem], end: SnapshotEnd) -> String {
    write_packed(disk, items, end, Compression::None)
}

fn write_packed(
    disk: &MemDisk,
    items: &[SnapshotItem],
    end: SnapshotEnd,
    compression: Compression,
) -> String {
    let (head, nodes): (Vec<_>, Vec<_>) =
        items.iter().cloned().partition(|item| !matches!(item, SnapshotItem::Node(_)));
    let mut writer = SnapshotWriter::create(disk.clone(), Zxid(5), compression, &head).expect("create");
    for item in &nodes {
        let SnapshotItem::Node(node) = item else { unreachable!("partitioned") };
        writer.node(node);
        writer.flush().expect("flush");
    }
    let (name, bytes) = writer.finish(end).expect("finish");
    assert_eq!(disk.contents(Dir::Snap, &name).expect("the file").len() as u64, bytes);
    name
}

fn read(disk: &MemDisk, name: &str) -> Result<(Vec<SnapshotItem>, SnapshotEnd), StorageError> {
    let mut reader = SnapshotReader::open(disk, name)?;
    let items = reader.by_ref().collect::<Result<Vec<_>, _>>()?;
    Ok((items, reader.end().expect("an end without an error")))
}

fn both() -> SnapshotEnd {
    SnapshotEnd { digest: Some(digest_block(Zxid(6), 0x51c6_d660)), last_zxid: Some(Zxid(9)) }
}

#[test]
fn what_is_written_is_read_with_and_without_the_optional_blocks() {
    for end in [SnapshotEnd::default(), SnapshotEnd { last_zxid: None, ..both() }, both()] {
        let disk = MemDisk::new();
        let name = write(&disk, &items(), end);
        assert_eq!(name, "snapshot.5");
        assert_eq!(read(&disk, &name).expect("read"), (items(), end));
    }
}

/// The bytes of an empty tree's file, put together by hand from the reference's §9.4.
#[test]
fn a_small_snapshot_byte_by_byte() {
    let disk = MemDisk::new();
    let root =
        SnapshotNode { path: String::new(), data: Some(Bytes::new()), acl: -1, stat: Default::default() };
    let end = SnapshotEnd { digest: Some(digest_block(Zxid(5), 0x0412_8908)), last_zxid: None };
    let name = write(&disk, &[SnapshotItem::Node(root)], end);
    let mut expected = b"ZKSN\0\0\0\x02\xff\xff\xff\xff\xff\xff\xff\xff".to_vec();
    expected.extend([0; 8]); // no sessions, no ACLs
    expected.extend([0; 8]); // path "", data of no bytes
    expected.extend([0xff; 8]); // the open ACL
    expected.extend([0; 60]);
    expected.extend(b"\0\0\0\x01/");
    let seal = |bytes: &mut Vec<u8>| {
        let adler = simd_adler32::adler32(&bytes.as_slice());
        bytes.extend(u64::from(adler).to_be_bytes());
        bytes.extend(b"\0\0\0\x01/");
    };
    seal(&mut expected);
    expected.extend(5u64.to_be_bytes());
    expected.extend(2u32.to_be_bytes());
    expected.extend(0x0412_8908u64.to_be_bytes());
    seal(&mut expected);
    assert_eq!(disk.contents(Dir::Snap, &name).expect("the file"), expected);
}

/// 3.9 with digests switched off writes the zxid block alone; we never do, and read it.
#[test]
fn the_zxid_block_alone_is_read() {
    let disk = MemDisk::new();
    let name = write(&disk, &items(), SnapshotEnd::default());
    disk.edit(Dir::Snap, &name, |bytes| {
        bytes.extend(8u64.to_be_bytes());
        let adler = simd_adler32::adler32(&bytes.as_slice());
        bytes.extend(u64::from(adler).to_be_bytes());
        bytes.extend(b"\0\0\0\x01/");
    });
    let (_, end) = read(&disk, &name).expect("read");
    assert_eq!(end, SnapshotEnd { digest: None, last_zxid: Some(Zxid(8)) });
}

/// Digests before version 2 are strings; they are skipped.
#[test]
fn an_old_digest_is_skipped() {
    let disk = MemDisk::new();
    let name = write(&disk, &items(), SnapshotEnd::default());
    disk.edit(Dir::Snap, &name, |bytes| {
        bytes.extend(8u64.to_be_bytes());
        bytes.extend(1u32.to_be_bytes());
        bytes.extend(b"\0\0\0\x081234abcd");
        let adler = simd_adler32::adler32(&bytes.as_slice());
        bytes.extend(u64::from(adler).to_be_bytes());
        bytes.extend(b"\0\0\0\x01/");
    });
    assert_eq!(read(&disk, &name).expect("read"), (items(), SnapshotEnd::default()));
}

const PACKED: [(Compression, &str); 2] =
    [(Compression::Gzip, "snapshot.5.gz"), (Compression::Snappy, "snapshot.5.snappy")];

/// Enough for several blocks, compressible and not.
fn many_items() -> Vec<SnapshotItem> {
    let mut state = 1u32;
    let mut noise = |len: usize| -> Vec<u8> {
        let step = |_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        };
        (0..len).map(step).collect()
    };
    let mut items = items();
    for n in 0..200 {
        let data = if n % 2 == 0 { noise(3000) } else { vec![n as u8; 5000] };
        items.push(SnapshotItem::Node(node(&format!("/n{n}"), Some(&data))));
    }
    items
}

#[test]
fn what_is_packed_is_unpacked() {
    for (compression, expected) in PACKED {
        for items in [items(), many_items()] {
            let disk = MemDisk::new();
            let name = write_packed(&disk, &items, both(), compression);
            assert_eq!(name, expected);
            assert_eq!(read(&disk, &name).expect("read"), (items, both()));
            let found = list(&disk).expect("list").remove(0);
            assert!(found.compression == compression && looks_whole(&disk, &found).expect("look"));
        }
    }
}

/// However it is packed, it is the same file inside.
#[test]
fn what_is_inside_is_a_plain_snapshot() {
    let disk = MemDisk::new();
    let plain = write(&disk, &items(), both());
    let gzip = write_packed(&disk, &items(), both(), Compression::Gzip);
    let packed = disk.contents(Dir::Snap, &gzip).expect("the file");
    let mut unpacked = Vec::new();
    flate2::read::GzDecoder::new(packed.as_slice()).read_to_end(&mut unpacked).expect("gzip");
    assert_eq!(Some(unpacked), disk.contents(Dir::Snap, &plain));
}

#[test]
fn every_cut_of_a_packed_file_is_an_error_with_its_name() {
    for (compression, name) in PACKED {
        let disk = MemDisk::new();
        write_packed(&disk, &items(), both(), compression);
        let whole = disk.contents(Dir::Snap, name).expect("the file");
        for cut in 0..whole.len() {
            disk.edit(Dir::Snap, name, |bytes| *bytes = whole[..cut].to_vec());
            match read(&disk, name) {
                Err(StorageError::CorruptSnapshot { file, .. }) => assert!(file.contains(name)),
                // All but gzip's own checksum is there.
                Ok(whole) => assert!(compression == Compression::Gzip && whole == (items(), both())),
                other => panic!("cut at {cut}: {other:?}"),
            }
        }
    }
}

/// A file that promises more than it holds costs no more than it holds.
#[test]
fn blocks_that_cannot_be_are_refused() {
    let name = "snapshot.5.snappy";
    let head = b"\x82SNAPPY\0\0\0\0\x01\0\0\0\x01";
    for (block, complaint) in [
        (&b"\xff\xff\xff\xff"[..], "at most"),
        (b"\x03\xff\xff\xff", "unexpected end of file"),
        (b"\0\0\0\x05\xff\xff\xff\xff\x0f", "claims to hold"),
        (b"\0\0\0\x02\x05a", "snappy"),
        (b"\0\0", "unexpected end of file"),
    ] {
        let disk = MemDisk::new();
        write_packed(&disk, &items(), both(), Compression::Snappy);
        disk.edit(Dir::Snap, name, |bytes| *bytes = [&head[..], block].concat());
        let error = read(&disk, name).expect_err("nonsense").to_string();
        assert!(error.contains(complaint), "{block:?}: {error}");
    }
}

#[test]
fn every_truncation_is_an_error_with_file_and_place() {
    let disk = MemDisk::new();
    let name = write(&disk, &items(), both());
    let whole = disk.contents(Dir::Snap, &name).expect("the file");
    let body = whole.len() - 54 - 13;
    for cut in 0..whole.len() {
        disk.edit(Dir::Snap, "snapshot.9", |bytes| *bytes = whole[..cut].to_vec());
        let result = read(&disk, "snapshot.9");
        // Cut right behind a seal it is a file of an older version.
        if cut == whole.len() - 21 || cut == whole.len() - 54 {
            assert!(result.is_ok(), "cut at {cut}: {result:?}");
            continue;
        }
        let error = result.expect_err("cut").to_string();
        assert!(error.contains("mem/snapshot.9 is damaged at byte"), "cut at {cut}: {error}");
        let found = Found { zxid: Zxid(9), name: "snapshot.9".into(), compression: Compression::None };
        if (1..body).contains(&cut) && looks_whole(&disk, &found).expect("look") {
            panic!("cut at {cut} looks whole");
        }
    }
}

#[test]
fn every_changed_byte_is_noticed() {
    let disk = MemDisk::new();
    let name = write(&disk, &items(), both());
    let whole = disk.contents(Dir::Snap, &name).expect("the file");
    for at in 0..whole.len() {
        disk.edit(Dir::Snap, "snapshot.9", |bytes| {
            *bytes = whole.clone();
            bytes[at] ^= 0x41;
        });
        let error = read(&disk, "snapshot.9").expect_err("changed").to_string();
        assert!(error.contains("mem/snapshot.9"), "byte {at}: {error}");
    }
}

#[test]
fn a_hostile_length_is_an_error_and_costs_no_memory() {
    let head = b"ZKSN\0\0\0\x02\xff\xff\xff\xff\xff\xff\xff\xff";
    let cases: [&[u8]; 5] = [
        b"\xff\xff\xff\xfe",                                           // sessions: −2
        b"\0\0\0\0\x7f\xff\xff\xff\0\0\0\0\0\0\0\x01\x7f\xff\xff\xff", // an ACL list of 2^31 entries
        b"\0\0\0\0\0\0\0\0\x7f\xff\xff\xff",                           // a path of 2 GB
        b"\0\0\0\0\0\0\0\0\0\0\0\x01/x\0\0\0\0",                       // the end mark, no seal
        b"\0\0\0\0\0\0\0\0\0\0\0\0\xff\xff\xff\xf0",                   // data of −16 bytes
    ];
    let disk = MemDisk::new();
    for case in cases {
        disk.edit(Dir::Snap, "snapshot.1", |bytes| *bytes = [head, case].concat());
        let error = read(&disk, "snapshot.1").expect_err("hostile").to_string();
        assert!(error.contains("mem/snapshot.1 is damaged"), "{error}");
    }
}

#[test]
fn the_stream_alone_is_decoded_from_pieces_of_any_size() {
    let mut stream = BytesMut::new();
    let (head, nodes) = (items()[..4].to_vec(), items()[4..].to_vec());
    encode_head(&head, &mut stream);
    for item in &nodes {
        if let SnapshotItem::Node(node) = item {
            encode_node(node, &mut stream);
        }
    }
    encode_end(&mut stream);
    stream.extend_from_slice(b"more");
    for piece in 1..90 {
        let (mut rest, mut decoder, mut decoded) = (stream.clone().freeze(), ItemDecoder::new(), Vec::new());
        while rest.has_remaining() {
            decoder.push(&rest.split_to(piece.min(rest.len())));
            while let Some(item) = decoder.next_item().expect("well-formed") {
                decoded.push(item);
            }
        }
        assert_eq!(decoded, items());
        assert!(decoder.is_done());
        assert_eq!(decoder.rest(), b"more");
    }
}

#[test]
fn large_snapshots_stream() {
    let disk = MemDisk::new();
    let many: Vec<_> =
        (0..3000).map(|n| SnapshotItem::Node(node(&format!("/{n}"), Some(&[n as u8; 300])))).collect();
    let name = write(&disk, &many, both());
    assert_eq!(read(&disk, &name).expect("read"), (many, both()));
}

#[test]
fn a_name_appears_only_when_the_file_is_durable() {
    let disk = MemDisk::new();
    let operations = {
        let trial = disk.fork();
        write_snapshot(&trial, &all_upto(40)).expect("snapshot");
        trial.operations()
    };
    for operation in 0..operations {
        for seed in 0..8 {
            let trial = disk.fork();
            trial.freeze_after(operation);
            assert!(write_snapshot(&trial, &all_upto(40)).is_err());
            trial.crash(seed);
            for found in list(&trial).expect("list") {
                read(&trial, &found.name).expect("a whole name means a whole file");
            }
        }
    }
}

#[test]
fn an_abandoned_snapshot_leaves_nothing() {
    let disk = MemDisk::new();
    SnapshotWriter::create(disk.clone(), Zxid(3), Compression::None, &[]).expect("create").abandon();
    assert_eq!(disk.list(Dir::Snap).expect("list"), Vec::<String>::new());
}

proptest! {
    /// Whatever the bytes, reading ends with items or an error.
    #[test]
    fn noise_never_panics(noise in proptest::collection::vec(any::<u8>(), 0..300), small in any::<bool>()) {
        let disk = MemDisk::new();
        disk.edit(Dir::Snap, "snapshot.1", |bytes| {
            bytes.extend(b"ZKSN\0\0\0\x02\xff\xff\xff\xff\xff\xff\xff\xff");
            // Small values make plausible counts and lengths.
            bytes.extend(noise.iter().map(|byte| if small { byte % 3 } else { *byte }));
        });
        prop_assert!(read(&disk, "snapshot.1").is_err());
    }
}

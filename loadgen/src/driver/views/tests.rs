//! What may be concluded from a reply, and what must not.

use super::super::encode::MARK;
use super::*;
use bytes::BytesMut;
use zoometry_wire::Stat;
use zoometry_wire::jute::Record;

const KEY: u64 = 5;

fn asker(seen: i64) -> Asker {
    Asker { session: 1, member: 0, seen: Zxid(seen) }
}

fn stat(mzxid: i64, version: i32, length: usize) -> BytesMut {
    let mut out = BytesMut::new();
    Stat { mzxid: Zxid(mzxid), version, data_length: length as i32, ..Default::default() }.encode(&mut out);
    out
}

/// The reply to getData of a value that `writer` wrote.
fn value(filler: &Filler, writer: Writer, length: u32, mzxid: i64, version: i32) -> BytesMut {
    let mut out = BytesMut::new();
    filler.put(&mut out, length, KEY, writer);
    out.extend_from_slice(&stat(mzxid, version, length as usize));
    out
}

fn views() -> Views {
    Views::new(10, Zxid(3))
}

#[track_caller]
fn broken(views: &Views, expected: &[(Promise, u64)]) {
    let found: Vec<(Promise, u64)> =
        views.promises.broken().map(|(promise, record)| (promise, record.broken)).collect();
    assert_eq!(found, expected, "{:?}", views.promises);
}

#[test]
fn a_session_that_has_not_seen_so_far_may_read_an_older_state() {
    let mut views = views();
    views.acknowledged(KEY, &stat(20, 2, 0), Writer::new(9, 1), 0, asker(10));
    views.stat(KEY, &stat(15, 1, 0), Writer::NONE, asker(19));
    broken(&views, &[]);
    views.stat(KEY, &stat(15, 1, 0), Writer::NONE, asker(20));
    broken(&views, &[(Promise::StaleRead, 1)]);
    assert!(views.promises.of(Promise::StaleRead).first.as_ref().unwrap().contains("of session 9, xid 1"));
}

#[test]
fn acknowledgements_may_arrive_in_any_order() {
    let mut views = views();
    views.acknowledged(KEY, &stat(21, 3, 8), Writer::new(2, 1), 8, asker(20));
    views.acknowledged(KEY, &stat(20, 2, 8), Writer::new(1, 1), 8, asker(19));
    broken(&views, &[]);
    views.acknowledged(KEY, &stat(19, 3, 8), Writer::new(1, 2), 8, asker(18));
    broken(&views, &[(Promise::WrongValue, 1)]);
}

#[test]
fn a_version_is_given_once() {
    let mut views = views();
    views.acknowledged(KEY, &stat(20, 2, 8), Writer::new(2, 1), 8, asker(10));
    views.acknowledged(KEY, &stat(21, 2, 8), Writer::new(1, 1), 8, asker(10));
    broken(&views, &[(Promise::WrongValue, 1)]);
}

#[test]
fn a_version_has_one_writer_and_one_length() {
    let filler = Filler::new(1, 100);
    let (one, other) = (Writer::new(1, 7), Writer::new(2, 7));
    let mut views = views();
    views.acknowledged(KEY, &stat(20, 2, 100), one, 100, asker(10));
    views.value(KEY, &value(&filler, one, 100, 20, 2), &filler, asker(20));
    views.stat(KEY, &stat(20, 2, 100), Writer::NONE, asker(20));
    broken(&views, &[]);
    views.value(KEY, &value(&filler, other, 100, 20, 2), &filler, asker(20));
    views.value(KEY, &value(&filler, one, 99, 20, 2), &filler, asker(20));
    views.acknowledged(KEY, &stat(21, 3, 99), one, 100, asker(20));
    broken(&views, &[(Promise::WrongValue, 3)]);
}

#[test]
fn a_write_without_an_answer_proves_nothing() {
    let filler = Filler::new(1, 100);
    let mut views = views();
    views.acknowledged(KEY, &stat(20, 2, 100), Writer::new(1, 7), 100, asker(10));
    // Session 3's write took effect, and was read before and after the next one.
    views.value(KEY, &value(&filler, Writer::new(3, 1), 100, 22, 3), &filler, asker(21));
    views.acknowledged(KEY, &stat(24, 4, 100), Writer::new(1, 8), 100, asker(23));
    views.value(KEY, &value(&filler, Writer::new(3, 1), 100, 22, 3), &filler, asker(22));
    broken(&views, &[]);
}

#[test]
fn values_too_short_for_a_mark_are_told_by_length() {
    let filler = Filler::new(1, 100);
    let short = MARK as u32 - 1;
    let mut views = views();
    views.acknowledged(KEY, &stat(20, 2, short as usize), Writer::new(1, 7), short, asker(10));
    views.value(KEY, &value(&filler, Writer::new(2, 2), short, 20, 2), &filler, asker(20));
    broken(&views, &[]);
    assert_eq!(views.promises.short_values, 1);
    views.value(KEY, &value(&filler, Writer::new(1, 7), short - 1, 20, 2), &filler, asker(20));
    broken(&views, &[(Promise::WrongValue, 1)]);
}

#[test]
fn a_znode_that_a_member_does_not_have_yet_is_not_gone() {
    let mut views = views();
    views.no_node(KEY, asker(2));
    broken(&views, &[]);
    views.no_node(KEY, asker(3));
    broken(&views, &[(Promise::StaleRead, 1)]);
}

#[test]
fn workers_must_have_been_shown_the_same() {
    let merged = |mine: (i64, i32), theirs: (i64, i32)| {
        let (mut views, mut other) = (views(), views());
        views.stat(KEY, &stat(mine.0, mine.1, 8), Writer::NONE, asker(5));
        other.stat(KEY, &stat(theirs.0, theirs.1, 8), Writer::NONE, asker(5));
        views.merge(other);
        assert_eq!(views.promises.of(Promise::StaleRead).checked, 2);
        views.promises.of(Promise::WrongValue).broken
    };
    assert_eq!(merged((20, 2), (21, 3)), 0);
    assert_eq!(merged((21, 3), (20, 2)), 0);
    assert_eq!(merged((21, 3), (21, 3)), 0);
    assert_eq!(merged((21, 3), (21, 2)), 1);
    assert_eq!(merged((21, 3), (20, 4)), 1);
}

fn list(names: &[&str], in_stat: i32) -> BytesMut {
    let mut out = BytesMut::new();
    names.iter().map(|name| name.to_string()).collect::<Vec<_>>().encode(&mut out);
    Stat { num_children: in_stat, ..Default::default() }.encode(&mut out);
    out
}

#[test]
fn lists_name_every_key_once() {
    assert_eq!(whole_list(&list(&["k02", "k00", "k01"], 3), 3, 3), Ok(()));
    for (names, in_stat) in [
        (&["k02", "k00"][..], 3),
        (&["k02", "k00"], 2),
        (&["k02", "k00", "k01", "k03"], 4),
        (&["k02", "k00", "k00"], 3),
        (&["k02", "k00", "k03"], 3),
        (&["k02", "k00", "x01"], 3),
        (&["k02", "k00", "k1"], 3),
        (&["k02", "k00", "k01"], 2),
    ] {
        whole_list(&list(names, in_stat), 3, 3).expect_err("it is not the list");
    }
    whole_list(&[0; 70], 0, 3).expect_err("no list");
    let mut views = views();
    views.children(KEY, &list(&["k0"], 1), (2, 2), asker(2));
    broken(&views, &[]);
    views.children(KEY, &list(&["k0"], 1), (2, 2), asker(3));
    broken(&views, &[(Promise::WrongList, 1)]);
}

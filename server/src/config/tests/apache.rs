//! What Apache starts with, this program starts with, or says why not.

use super::*;

/// Each line of the table, verified with a running Apache: see its head.
#[test]
fn what_apache_starts_with_is_accepted_or_refused_with_a_reason() {
    let lines = include_str!("../apache.txt").lines().filter(|line| !line.starts_with('#'));
    let mut counted = 0;
    for line in lines {
        let (verdict, line) = line.split_once(' ').expect("a verdict and a line");
        let (line, reason) =
            line.split_once(" | ").map_or((line, None), |(line, reason)| (line, Some(reason)));
        let property = line.strip_prefix("-D").unwrap_or(line);
        let base = if property.starts_with("clientPort=") { "" } else { "clientPort=2181\n" };
        let outcome = read(&format!("dataDir=/d\n{base}{property}"), &[]);
        match (verdict, reason, outcome) {
            ("starts", None, outcome) => drop(outcome.unwrap_or_else(|error| panic!("{line}: {error}"))),
            ("starts", Some(reason), Ok(_)) => panic!("{line} is accepted, not refused with {reason:?}"),
            ("starts", Some(reason), Err(error)) => {
                assert!(error.to_string().contains(reason), "{line}: {error}")
            }
            ("stops", None, _) => {}
            other => panic!("{line}: what does {other:?} mean?"),
        }
        counted += 1;
    }
    assert!(counted > 100, "the table has gone");
}

/// The same value means the same: what is odd in one program is odd in the other.
#[test]
fn odd_values_mean_what_they_mean_to_apache() {
    let table: &[Reads<'_>] = &[
        ("maxClientCnxns=-1", |c| c.client.max_per_ip.is_none()),
        ("maxCnxns=-1", |c| c.client.max_total.is_none()),
        ("maxCnxns=0x10", |c| c.client.max_total == Some(16)),
        ("autopurge.purgeInterval=-1", |c| c.storage.purge_interval_h.is_none()),
        ("autopurge.snapRetainCount=-1", |c| c.storage.purge_retain == 3),
        ("preAllocSize=64M", |c| c.storage.pre_alloc_bytes == 64 << 20 && c.warnings.len() == 1),
        ("preAllocSize=-1", |c| c.storage.pre_alloc_bytes == 0 && c.warnings.len() == 1),
        ("jute.maxbuffer=2147483647", |c| c.requests.max_frame_bytes == 0x7fff_ffff),
        ("jute.maxbuffer=04000000", |c| c.requests.max_frame_bytes == 1 << 20),
        ("snapCount=-1", |c| c.storage.snap_count == 2),
        ("snapCount=0x100", |c| c.storage.snap_count == 256),
        ("commitLogCount=-1", |c| c.storage.commit_log_count == 500),
        ("maxBatchSize=0", |c| c.storage.max_batch == u32::MAX),
        ("globalOutstandingLimit=-1", |c| c.requests.global_outstanding_limit == 1),
        ("minSessionTimeout=-5", |c| c.sessions.min_timeout_ms == 0),
        ("tickTime=02000", |c| c.tick_time_ms == 2000),
        // Only these two words do anything, and going on as asked for would be dangerous.
        ("forceSync=false", |c| {
            c.storage.force_sync && c.warnings[0].contains("forceSync=no is what it looks")
        }),
        ("skipACL=true", |c| !c.requests.skip_acl && c.warnings[0].contains("skipACL=yes is what it looks")),
        ("digest.enabled=1", |c| !c.storage.digest && c.warnings[0].contains("neither true nor false")),
        ("readonlymode.enabled=yes", |c| !c.requests.read_only_mode && c.warnings.len() == 1),
        ("admin.enableServer=FALSE\nadmin.serverPort=8080", |c| c.admin.is_some()),
        ("4lw.commands.whitelist=ruok", |c| c.words.allows("srvr") && !c.words.allows("stat")),
        ("DigestAuthenticationProvider.digestAlg=sha-256", |c| {
            c.auth.digest_algorithm == DigestAlgorithm::Sha256
        }),
        ("enableEagerACLCheck=true", |c| c.requests.eager_acl_check),
        ("localSessionsEnabled=true", |c| c.warnings[0].contains("sessions are global")),
    ];
    for (lines, holds) in table {
        let config = standalone(lines);
        assert!(holds(&config), "{lines:?} gave {config:#?}");
    }
}

/// An ensemble 0, 1, 2 is a usual one, and larger ids than a byte's are Apache's too.
#[test]
fn server_ids() {
    let lines = |ids: [u64; 3]| {
        let servers: String = ids.iter().map(|id| format!("server.{id}=h{id}:1:2\n")).collect();
        format!("dataDir=/d\nclientPort=2181\ninitLimit=9\nsyncLimit=9\n{servers}")
    };
    for ids in [[0, 1, 2], [255, 1, 2], [1000, 1001, 1002]] {
        let ensemble = membership(&lines(ids), &[("/d/myid", &ids[0].to_string())]);
        assert_eq!(ensemble.my_id, ids[0]);
    }
    for (text, my_id, words) in [
        (lines([1, 257, 2]), "1", "server.257: ends in the same byte as server.1"),
        (lines([1, 2, 3]), "-1", "from 0 to 9223372036854775807"),
        (format!("{}extendedTypesEnabled=TRUE", lines([1, 2, 255])), "255", "from 0 to 254"),
    ] {
        let error = read(&text, &[("/d/myid", my_id)]).expect_err(words);
        assert!(error.to_string().contains(words), "{error}");
    }
}

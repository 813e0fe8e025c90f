//! Tables of what zoo.cfg files mean, and of how wrong ones are refused.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use super::*;

mod apache;

/// Other files: path and text.
type Files<'a> = &'a [(&'a str, &'a str)];
/// Lines of zoo.cfg and what must hold of the configuration.
type Reads<'a> = (&'a str, fn(&Config) -> bool);
/// Line, key and value of an entry.
type Entry<'a> = (usize, &'a str, &'a str);

/// Reads `text` as `zoo.cfg`, with other files by path.
fn read(text: &str, files: Files<'_>) -> Result<Config, ConfigError> {
    let files: BTreeMap<PathBuf, String> =
        files.iter().map(|(path, text)| (PathBuf::from(path), text.to_string())).collect();
    Config::parse_with(text, Path::new("zoo.cfg"), &mut |path| {
        files.get(path).cloned().ok_or_else(|| io::ErrorKind::NotFound.into())
    })
}

fn standalone(lines: &str) -> Config {
    read(&format!("dataDir=/d\nclientPort=2181\n{lines}"), &[]).expect("a good file")
}

fn entries(text: &str) -> Vec<(usize, String, String)> {
    properties(text).expect("good properties").into_iter().map(|p| (p.line, p.key, p.value)).collect()
}

#[test]
fn properties_follow_java() {
    let table: &[(&str, &[Entry<'_>])] = &[
        ("", &[]),
        ("a=b", &[(1, "a", "b")]),
        ("a = b", &[(1, "a", "b")]),
        ("a:b", &[(1, "a", "b")]),
        ("a : b", &[(1, "a", "b")]),
        ("a b", &[(1, "a", "b")]),
        ("a\tb", &[(1, "a", "b")]),
        ("  a  =  b", &[(1, "a", "b")]),
        ("a", &[(1, "a", "")]),
        ("a=", &[(1, "a", "")]),
        ("a==b", &[(1, "a", "=b")]),
        ("a = = b", &[(1, "a", "= b")]),
        ("a=b ", &[(1, "a", "b ")]),
        ("a b=c", &[(1, "a", "b=c")]),
        ("server.1=h:1:2;3", &[(1, "server.1", "h:1:2;3")]),
        ("# a=b\n! c=d\n  # e=f\ng=h", &[(4, "g", "h")]),
        ("a=b # no comment", &[(1, "a", "b # no comment")]),
        ("a=b\r\nc=d\re=f", &[(1, "a", "b"), (2, "c", "d"), (3, "e", "f")]),
        ("a=one,\\\n    two\nb=c", &[(1, "a", "one,two"), (3, "b", "c")]),
        ("a=b\\\\\nc=d", &[(1, "a", "b\\"), (2, "c", "d")]),
        ("a=b\\", &[(1, "a", "b")]),
        ("a=b\\\n# still b", &[(1, "a", "b# still b")]),
        ("a\\=b=c", &[(1, "a=b", "c")]),
        ("a\\ b c", &[(1, "a b", "c")]),
        ("a\\:b:c", &[(1, "a:b", "c")]),
        ("a=\\t\\n\\r\\f\\x\\\"", &[(1, "a", "\t\n\r\u{c}x\"")]),
        ("a=\\u0041\\u00e9", &[(1, "a", "Aé")]),
        ("a=\\ud83d\\ude00", &[(1, "a", "😀")]),
        ("a=ö", &[(1, "a", "ö")]),
        ("=b", &[(1, "", "b")]),
        ("a=1\na=2", &[(1, "a", "1"), (2, "a", "2")]),
    ];
    for (text, expected) in table {
        let expected: Vec<_> =
            expected.iter().map(|(line, key, value)| (*line, key.to_string(), value.to_string())).collect();
        assert_eq!(entries(text), expected, "{text:?}");
    }
}

#[test]
fn a_wrong_unicode_escape_is_refused_with_its_line() {
    for text in ["x=y\na=\\u12", "x=y\na=\\u12g4", "x=y\n\\u=b", "x=y\na=\\u+123"] {
        let (line, why) = properties(text).expect_err(text);
        assert_eq!(line, 2, "{text:?}");
        assert!(why.contains("hexadecimal"), "{why}");
    }
}

#[test]
fn the_smallest_file_has_apaches_defaults() {
    let config = standalone("");
    assert_eq!(config.tick_time_ms, 3000);
    assert_eq!((config.sessions.min_timeout_ms, config.sessions.max_timeout_ms), (6000, 60_000));
    assert_eq!(config.data_dir, PathBuf::from("/d"));
    assert_eq!(config.log_dir(), PathBuf::from("/d/version-2"));
    assert_eq!(config.client.listen, Some(Endpoint { host: "0.0.0.0".into(), port: 2181 }));
    assert_eq!((config.client.max_per_ip, config.client.max_total), (Some(60), None));
    assert_eq!(config.requests.max_frame_bytes, 1_048_575);
    assert_eq!(config.requests.global_outstanding_limit, 1000);
    assert_eq!(config.storage.snap_count, 100_000);
    assert_eq!(config.storage.snap_size_limit_bytes, Some(4 << 30));
    assert_eq!(config.storage.pre_alloc_bytes, 64 << 20);
    assert_eq!(config.storage.log_size_limit_bytes, None);
    assert!(config.storage.force_sync && config.storage.digest);
    assert_eq!((config.storage.purge_retain, config.storage.purge_interval_h), (3, None));
    assert_eq!(config.words, Whitelist::Listed(vec![]));
    assert!(config.words.allows("srvr"));
    assert_eq!(config.ensemble, Ensemble::Standalone { server_id: 0 });
    assert_eq!(config.session_server_id(), 1);
    assert_eq!((config.admin, config.metrics), (None, None));
    assert_eq!((config.other.len(), config.warnings.len()), (0, 0));
}

#[test]
fn values_are_read_where_they_belong() {
    let table: &[Reads<'_>] = &[
        ("tickTime=2000", |c| c.tick_time_ms == 2000 && c.sessions.max_timeout_ms == 40_000),
        ("dataLogDir=/l", |c| c.data_log_dir == Path::new("/l") && c.data_dir == Path::new("/d")),
        ("clientPortAddress=127.0.0.1", |c| c.client.listen.as_ref().is_some_and(|e| e.host == "127.0.0.1")),
        ("clientPortAddress=[::1]", |c| {
            c.client.listen.as_ref().is_some_and(|e| e.host == "::1" && e.to_string() == "[::1]:2181")
        }),
        ("maxClientCnxns=0", |c| c.client.max_per_ip.is_none()),
        ("maxCnxns=7", |c| c.client.max_total == Some(7)),
        ("minSessionTimeout=-1\nmaxSessionTimeout=-1", |c| c.sessions.min_timeout_ms == 6000),
        ("minSessionTimeout=1\nmaxSessionTimeout=9", |c| c.sessions.max_timeout_ms == 9),
        ("snapCount=1", |c| c.storage.snap_count == 2),
        ("", |c| c.storage.commit_log_count == 500),
        ("commitLogCount=20", |c| c.storage.commit_log_count == 500),
        ("commitLogCount=2000", |c| c.storage.commit_log_count == 2000),
        ("preAllocSize=1", |c| c.storage.pre_alloc_bytes == 1024),
        ("snapSizeLimitInKb=-1", |c| c.storage.snap_size_limit_bytes.is_none()),
        ("snapshotSizeFactor=-1", |c| c.storage.snapshot_size_factor == -1.0),
        ("snapshotSizeFactor=2.5", |c| c.storage.snapshot_size_factor == 2.5),
        ("txnLogSizeLimitInKb=2", |c| c.storage.log_size_limit_bytes == Some(2048)),
        ("forceSync=no", |c| !c.storage.force_sync && c.warnings.len() == 1),
        ("zookeeper.forceSync=no", |c| !c.storage.force_sync),
        ("skipACL=yes", |c| c.requests.skip_acl && c.warnings.len() == 1),
        ("jute.maxbuffer=0xfffff", |c| c.requests.max_frame_bytes == 1_048_575),
        ("jute.maxbuffer=2097152", |c| c.requests.max_frame_bytes == 2_097_152),
        ("jute.maxbuffer=2097152", |c| c.requests.max_txn_bytes() == 4_194_304),
        ("jute.maxbuffer.extrasize=5000", |c| c.requests.max_txn_bytes() == 1_048_575 + 5000),
        ("jute.maxbuffer.extrasize=0", |c| c.requests.max_txn_bytes() == 1_048_575 + 1024),
        ("jute.maxbuffer=1073741824", |c| c.requests.max_txn_bytes() == 32 << 20),
        ("autopurge.purgeInterval=24\nautopurge.snapRetainCount=5", |c| {
            (c.storage.purge_interval_h, c.storage.purge_retain) == (Some(24), 5)
        }),
        ("autopurge.snapRetainCount=1", |c| c.storage.purge_retain == 3 && c.warnings.len() == 1),
        ("snapshot.compression.method=gz", |c| c.storage.snapshot_compression == Compression::Gzip),
        ("snapshot.compression.method=", |c| c.storage.snapshot_compression == Compression::None),
        ("4lw.commands.whitelist=*", |c| c.words == Whitelist::All),
        ("4lw.commands.whitelist=stat, ruok ,", |c| {
            c.words.allows("stat") && c.words.allows("ruok") && !c.words.allows("mntr")
        }),
        ("readonlymode.enabled=true", |c| c.words.allows("isro") && c.words.allows("srvr")),
        ("DigestAuthenticationProvider.superDigest=super:x=", |c| {
            c.auth.super_digest.as_deref() == Some("super:x=")
        }),
        ("enforce.auth.enabled=true\nenforce.auth.schemes=digest, ip", |c| {
            c.auth.enforced_schemes == ["digest", "ip"]
        }),
        ("enforce.auth.schemes=sasl", |c| c.auth.enforced_schemes.is_empty()),
        ("DigestAuthenticationProvider.digestAlg=SHA1", |c| c.auth.digest_enabled),
        ("authProvider.1=org.example.X", |c| c.auth.providers["1"] == "org.example.X"),
        ("extendedTypesEnabled=TRUE", |c| c.requests.extended_types),
        ("znode.container.checkIntervalMs=5", |c| c.requests.container_check_interval_ms == 5),
        ("admin.serverPort=8080", |c| c.admin.as_ref().is_some_and(|a| a.command_url == "/commands")),
        ("admin.serverPort=8080\nadmin.enableServer=false", |c| c.admin.is_none()),
        ("admin.enableServer=true", |c| c.admin.is_none()),
        (
            "metricsProvider.className=org.apache.zookeeper.metrics.prometheus.PrometheusMetricsProvider",
            |c| c.metrics.as_ref().is_some_and(|m| m.listen.port == 7000 && m.export_process_info),
        ),
        (
            "metricsProvider.className=org.apache.zookeeper.metrics.prometheus.PrometheusMetricsProvider\n\
             metricsProvider.httpHost=127.0.0.1\nmetricsProvider.httpPort=7001\nmetricsProvider.exportJvmInfo=false",
            |c| {
                c.metrics
                    .as_ref()
                    .is_some_and(|m| m.listen.to_string() == "127.0.0.1:7001" && !m.export_process_info)
            },
        ),
        ("metricsProvider.httpPort=7001", |c| c.metrics.is_none() && c.other.is_empty()),
        ("metricsProvider.className=org.example.Other", |c| c.metrics.is_none() && c.warnings.len() == 1),
        ("zoometry.metricsPort=7002", |c| c.metrics.as_ref().is_some_and(|m| m.listen.port == 7002)),
        ("zoometry.traceSample=0.25\nzoometry.traceFile=/t\nzoometry.traceSlowMs=1.5", |c| {
            c.own.trace_sample == 0.25
                && (c.own.trace_slowest, c.own.trace_parent, c.own.trace_salt) == (0, false, 0)
                && c.own.trace_file == Some("/t".into())
                && c.own.trace_slow_ms == Some(1.5)
        }),
        ("zoometry.workerThreads=3\nzoometry.maxPipelined=9\nzoometry.maxOutboxBytes=65536", |c| {
            (c.own.worker_threads, c.own.max_pipelined, c.own.max_outbox_bytes) == (Some(3), 9, 65_536)
        }),
        (
            "zoometry.traceSlowest=9\nzoometry.traceParent=true\nzoometry.traceSalt=18446744073709551615",
            |c| (c.own.trace_slowest, c.own.trace_parent, c.own.trace_salt) == (9, true, u64::MAX),
        ),
        ("zoometry.leaderSilenceMs=400", |c| c.own.leader_silence_ms == Some(400)),
        ("zoometry.log=warn", |c| !c.own.accept_damaged_log),
        ("zoometry.acceptDamagedLog=true", |c| c.own.accept_damaged_log && c.warnings.len() == 1),
        ("zoometry.syncDelayFile=/tmp/slow", |c| {
            c.own.sync_delay_file.as_deref() == Some(Path::new("/tmp/slow")) && c.warnings.len() == 1
        }),
        ("zoometry.serviceName=zk-a\nzoometry.log=debug", |c| {
            c.own.service_name.as_deref() == Some("zk-a") && c.own.log == "debug"
        }),
        ("zoometry.tracesample=1", |c| {
            c.own.trace_sample == 0.001 && c.warnings[0].contains("zoometry.traceSample")
        }),
        ("electionAlg=3", |c| c.other.is_empty()),
        ("my.own.key=1\nnio.numSelectorThreads=2", |c| c.other.len() == 2 && c.other["my.own.key"] == "1"),
        ("maxCnxns=7\nmaxCnxns=8", |c| {
            c.client.max_total == Some(8) && c.warnings[0].contains("first on line 3")
        }),
    ];
    for (lines, holds) in table {
        let config = standalone(lines);
        assert!(holds(&config), "{lines:?} gave {config:#?}");
    }
}

#[test]
fn wrong_values_are_refused_with_file_line_key_and_what_to_do() {
    // (lines behind dataDir on line 1 and clientPort on line 2, line and key blamed, words of the text)
    let table: &[(&str, usize, &str, &str)] = &[
        ("tickTime=abc", 3, "tickTime", "a whole number from 1"),
        ("tickTime=0", 3, "tickTime", "a whole number from 1"),
        ("tickTime=-5", 3, "tickTime", "a whole number from 1"),
        ("tickTime=99999999999", 3, "tickTime", "to 2147483647"),
        ("zookeeper.tickTime=abc", 3, "zookeeper.tickTime", "correct the value or remove the line"),
        ("\n\nsnapCount=many", 5, "snapCount", "a whole number"),
        ("clientPort=70000", 3, "clientPort", "a port from 1 to 65535"),
        ("secureClientPortAddress=localhost", 3, "secureClientPortAddress", "add secureClientPort=<port>"),
        ("maxClientCnxns=many", 3, "maxClientCnxns", "a whole number from -2147483648"),
        ("minSessionTimeout=70000", 3, "minSessionTimeout", "raise maxSessionTimeout"),
        ("jute.maxbuffer=1M", 3, "jute.maxbuffer", "a whole number from 1024"),
        ("jute.maxbuffer=99999999999", 3, "jute.maxbuffer", "2147483647"),
        ("reconfigEnabled=maybe", 3, "reconfigEnabled", "true or false"),
        ("snapshot.compression.method=zip", 3, "snapshot.compression.method", "gz or snappy"),
        (
            "enforce.auth.schemes=digest,sasl\nenforce.auth.enabled=true",
            3,
            "enforce.auth.schemes",
            "sasl is not",
        ),
        ("sessionRequireClientSASLAuth=true", 3, "sessionRequireClientSASLAuth", "SASL is not offered"),
        (
            "DigestAuthenticationProvider.digestAlg=MD5",
            3,
            "DigestAuthenticationProvider.digestAlg",
            "one of SHA1, SHA-224",
        ),
        ("electionAlg=0", 3, "electionAlg", "the only election algorithm"),
        ("peerType=leader", 3, "peerType", "participant or observer"),
        ("zoometry.traceSample=2", 3, "zoometry.traceSample", "a number from 0 to 1"),
        ("zoometry.traceSample=NaN", 3, "zoometry.traceSample", "a number from 0 to 1"),
        ("zoometry.workerThreads=0", 3, "zoometry.workerThreads", "from 1 to 1024"),
        ("zoometry.metricsPort=2181", 3, "zoometry.metricsPort", "already taken by clientPort"),
        ("admin.serverPort=2181", 3, "admin.serverPort", "already taken by clientPort"),
        ("secureClientPort=2181", 3, "secureClientPort", "already taken by clientPort"),
        ("server.x=h:1:2", 3, "server.x", "server.<number>"),
        ("server.1=h:1", 3, "server.1", "expected host:quorumPort:electionPort"),
        ("group.1=1", 3, "group.1", "no server line"),
    ];
    for (lines, line, key, words) in table {
        let error = read(&format!("dataDir=/d\nclientPort=2181\n{lines}"), &[]).expect_err(lines);
        assert_eq!((error.line, error.key.as_deref()), (Some(*line), Some(*key)), "{lines:?}: {error}");
        assert!(error.problem.contains(words), "{lines:?}: {error}");
        assert!(error.to_string().starts_with(&format!("zoo.cfg:{line}: {key}: ")), "{error}");
    }
}

#[test]
fn missing_things_are_named() {
    let table: &[(&str, Option<&str>, &str)] = &[
        ("clientPort=2181", Some("dataDir"), "add dataDir=<directory>"),
        ("dataDir=\nclientPort=2181", Some("dataDir"), "is missing"),
        ("dataDir=/d", Some("clientPort"), "add clientPort=2181"),
        ("dataDir=/d\nclientPort=0", Some("clientPort"), "add clientPort=2181"),
        ("dataDir=/d\nclientPortAddress=::1", Some("clientPortAddress"), "add clientPort=<port>"),
        ("dataDir=/d\nclientPort=1\nenforce.auth.enabled=true", Some("enforce.auth.schemes"), "add it"),
        ("a=\\u00", None, "hexadecimal"),
    ];
    for (text, key, words) in table {
        let error = read(text, &[]).expect_err(text);
        assert_eq!(error.key.as_deref(), *key, "{text:?}: {error}");
        assert!(error.problem.contains(words), "{text:?}: {error}");
    }
}

#[test]
fn an_unreadable_file_is_named() {
    let error = Config::load("/nowhere/zoo.cfg").expect_err("it is not there");
    assert_eq!(error.path, PathBuf::from("/nowhere/zoo.cfg"));
    assert!(error.to_string().contains("cannot be read"), "{error}");
}

#[test]
fn load_reads_myid_beside_the_data() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("zoo.cfg");
    std::fs::write(directory.path().join("myid"), "2\n").expect("written");
    let text = format!(
        "dataDir={}\nclientPort=2181\ninitLimit=5\nsyncLimit=2\nserver.1=a:1:2\nserver.2=b:1:2\nserver.3=c:1:2\n",
        directory.path().display()
    );
    std::fs::write(&path, text).expect("written");
    let config = Config::load(&path).expect("a good file");
    assert_eq!(config.session_server_id(), 2);
}

#[test]
fn server_lines() {
    let address = |host: &str, quorum_port, election_port| MemberAddress {
        host: host.into(),
        quorum_port,
        election_port,
    };
    let client = |host: &str, port| Some(Endpoint { host: host.into(), port });
    use MemberRole::{Observer, Participant};
    let table = [
        ("h:1:2", vec![address("h", 1, 2)], Participant, None, "h:1:2:participant"),
        ("h:1:2:observer", vec![address("h", 1, 2)], Observer, None, "h:1:2:observer"),
        ("h:1:2;", vec![address("h", 1, 2)], Participant, None, "h:1:2:participant"),
        ("h:1:2:PARTICIPANT", vec![address("h", 1, 2)], Participant, None, "h:1:2:participant"),
        (
            "h:1:2;3",
            vec![address("h", 1, 2)],
            Participant,
            client("0.0.0.0", 3),
            "h:1:2:participant;0.0.0.0:3",
        ),
        ("h:1:2;c:3", vec![address("h", 1, 2)], Participant, client("c", 3), "h:1:2:participant;c:3"),
        (
            "[::1]:1:2:observer;[::]:3",
            vec![address("::1", 1, 2)],
            Observer,
            client("::", 3),
            "[::1]:1:2:observer;[::]:3",
        ),
        (
            "a:1:2|b:3:4",
            vec![address("a", 1, 2), address("b", 3, 4)],
            Participant,
            None,
            "a:1:2:participant|b:3:4:participant",
        ),
        (
            " h:1:2 ; 3 ",
            vec![address("h", 1, 2)],
            Participant,
            client("0.0.0.0", 3),
            "h:1:2:participant;0.0.0.0:3",
        ),
    ];
    for (text, addresses, role, client, written) in table {
        let member = parse_member(1, text).unwrap_or_else(|why| panic!("{text:?}: {why}"));
        assert_eq!(member, Member { id: 1, addresses, role, client }, "{text:?}");
        assert_eq!(member.to_string(), written, "{text:?}");
        assert_eq!(parse_member(1, written), Ok(member), "{written:?} is read back as the same");
    }
}

#[test]
fn wrong_server_lines() {
    let table = [
        ("", "has 1 parts"),
        ("h", "has 1 parts"),
        ("h:1", "has 2 parts"),
        ("h:1:2:3:4", "has 5 parts"),
        (":1:2", "the host is missing"),
        ("h:x:2", "\"x\" is no port"),
        ("h:0:2", "\"0\" is no port"),
        ("h:1:65536", "\"65536\" is no port"),
        ("h:1:1", "both ports are 1"),
        ("h:1:2:voter", "\"voter\" is no role"),
        ("h:1:2;x", "\"x\" is no port"),
        ("h:1:2;:3", "no client address"),
        ("h:1:2;3;4", "two ; in one line"),
        ("[::1:1:2", "a [ without a ]"),
        ("[::1]x:1:2", "something between ] and :"),
        ("a:1:2|b:1", "has 2 parts"),
        ("a:1:2:observer|b:1:2:participant", "names two roles"),
    ];
    for (text, words) in table {
        let why = parse_member(1, text).expect_err(text);
        assert!(why.contains(words), "{text:?}: {why}");
    }
}

const THREE: &str = "dataDir=/d\nclientPort=2181\ninitLimit=10\nsyncLimit=5\n\
                     server.1=a:2888:3888\nserver.2=b:2888:3888\nserver.3=c:2888:3888\n";

fn membership(text: &str, files: Files<'_>) -> Membership {
    match read(text, files).expect("a good file").ensemble {
        Ensemble::Member(membership) => *membership,
        other => panic!("not an ensemble: {other:?}"),
    }
}

#[test]
fn an_ensemble() {
    let ensemble = membership(THREE, &[("/d/myid", "2")]);
    assert_eq!((ensemble.my_id, ensemble.init_limit, ensemble.sync_limit), (2, 10, 5));
    assert_eq!(ensemble.participants().count(), 3);
    assert_eq!(ensemble.me().addresses[0].host, "b");
    assert_eq!((ensemble.version, ensemble.leader_serves, ensemble.reconfig_enabled), (0, true, false));
}

#[test]
fn standalone_or_ensemble() {
    let one = "dataDir=/d\nclientPort=2181\nserver.7=a:1:2\n";
    let limits = "initLimit=1\nsyncLimit=1\n";
    let table: &[(String, Files<'_>, Option<usize>)] = &[
        (one.into(), &[], None),
        (format!("{one}standaloneEnabled=false\n{limits}"), &[("/d/myid", "7")], Some(1)),
        (THREE.into(), &[("/d/myid", "1")], Some(3)),
        (
            format!("{one}server.8=b:1:2:observer\nstandaloneEnabled=false\n{limits}"),
            &[("/d/myid", "8")],
            Some(1),
        ),
    ];
    for (text, files, participants) in table {
        let config = read(text, files).unwrap_or_else(|error| panic!("{text}: {error}"));
        let found = match &config.ensemble {
            Ensemble::Standalone { .. } => None,
            Ensemble::Member(membership) => Some(membership.participants().count()),
        };
        assert_eq!(found, *participants, "{text}");
    }
    assert_eq!(read(one, &[]).expect("good").ensemble, Ensemble::Standalone { server_id: 7 });
}

#[test]
fn the_client_part_of_the_own_line() {
    let line = "dataDir=/d\nserver.1=a:1:2;127.0.0.1:2182\n";
    let config = read(line, &[("/d/myid", "1")]).expect("a good file");
    assert_eq!(config.client.listen, Some(Endpoint { host: "127.0.0.1".into(), port: 2182 }));
    let alone = read(line, &[]).expect("a lone line needs no myid");
    assert_eq!(alone.client.listen, config.client.listen);
    assert!(read(&format!("{line}clientPort=2182"), &[("/d/myid", "1")]).is_ok());
    let error = read(&format!("{line}clientPort=2181"), &[("/d/myid", "1")]).expect_err("two ports");
    assert!(
        error.to_string().starts_with("zoo.cfg:3: clientPort: says 0.0.0.0:2181 but server.1"),
        "{error}"
    );
}

#[test]
fn wrong_ensembles() {
    let table: &[(String, Files<'_>, &str)] = &[
        (THREE.into(), &[], "/d/myid: is missing"),
        (THREE.into(), &[("/d/myid", "9")], "My id 9 not in the peer list"),
        (THREE.into(), &[("/d/myid", "one")], "/d/myid:1: \"one\" is no server id"),
        (THREE.into(), &[("/d/myid", "")], "/d/myid:1: \"\" is no server id"),
        (THREE.replace("initLimit=10\n", ""), &[("/d/myid", "1")], "initLimit: is missing"),
        (THREE.replace("syncLimit=5\n", ""), &[("/d/myid", "1")], "syncLimit: is missing"),
        (
            format!("{THREE}server.4=a:2888:3889"),
            &[("/d/myid", "1")],
            "zoo.cfg:8: server.4: has an address and port of server.1",
        ),
        (format!("{THREE}group.1=1:2\n"), &[("/d/myid", "1")], "server 3 is in no group"),
        (format!("{THREE}group.1=1:2\ngroup.2=2:3\n"), &[("/d/myid", "1")], "in two groups"),
        (format!("{THREE}group.1=1:x\n"), &[("/d/myid", "1")], "no group"),
        (format!("{THREE}weight.1=-1\n"), &[("/d/myid", "1")], "no weight"),
        (format!("{THREE}server.4=d:1:2|e:1:2\n"), &[("/d/myid", "1")], "multiAddress.enabled=true"),
        (THREE.replace("2181", "3888"), &[("/d/myid", "1")], "port 3888 is already taken by clientPort"),
        ("dataDir=/d\nclientPort=1\nserver.1=a:1:2:observer".into(), &[], "at least one participant"),
        (
            "dataDir=/d\nclientPort=1\nserver.1=a:3:2\nserver.2=b:3:2:observer".into(),
            &[],
            "standaloneEnabled=false",
        ),
        (
            format!("{THREE}sslQuorum=true\n"),
            &[("/d/myid", "1")],
            "zoo.cfg:8: sslQuorum: links between members",
        ),
        (format!("{THREE}quorum.auth.enableSasl=true\n"), &[("/d/myid", "1")], "neither encrypted nor"),
        (format!("{THREE}dynamicConfigFile=/dyn"), &[("/dyn", "")], "move every server line"),
    ];
    for (text, files, words) in table {
        let error = read(text, files).expect_err(words);
        assert!(error.to_string().contains(words), "{text}\n{error}");
    }
}

#[test]
fn what_an_ensemble_asks_for_in_vain_is_told() {
    let text = format!("{THREE}reconfigEnabled=true\nobserverMasterPort=2191\nsslQuorum=false\n");
    let config = read(&text, &[("/d/myid", "1")]).expect("a good file");
    for word in ["reconfigEnabled", "observerMasterPort"] {
        assert!(config.warnings.iter().any(|warning| warning.contains(word)), "{:?}", config.warnings);
    }
}

#[test]
fn a_slip_of_the_pen_is_told() {
    for (line, meant) in [
        ("ticktime=500", "tickTime"),
        ("tickTme=500", "tickTime"),
        ("zookeeper.snapCuont=500", "snapCount"),
        ("autopurge.purgeinterval=1", "autopurge.purgeInterval"),
    ] {
        let config = standalone(line);
        let told = format!("zoo.cfg:3: {} is not known", line.split('=').next().expect("a key"));
        let [only] = &config.warnings[..] else { panic!("{line}: {:?}", config.warnings) };
        assert!(only.starts_with(&told) && only.ends_with(&format!("did you mean {meant}?")), "{only}");
    }
    // What Apache hands on as a system property.
    let config = standalone("jvm.pauses=x\na=b");
    assert_eq!((config.warnings.len(), config.other.len()), (0, 2), "{:?}", config.warnings);
}

#[test]
fn what_is_not_acted_upon_is_told() {
    for line in [
        "largeRequestThreshold=1000",
        "throttled_op_wait_time=10",
        "authProvider.1=org.example.X",
        "syncEnabled=false",
    ] {
        let config = standalone(line);
        let key = line.split(['=', '.']).next().expect("a key");
        assert!(matches!(&config.warnings[..], [only] if only.starts_with(key)), "{:?}", config.warnings);
    }
}

#[test]
fn groups_weights_and_roles() {
    let text = format!(
        "{THREE}server.4=d:2888:3888:observer\nserver.5=e:2888:3888\ngroup.1=1:2\ngroup.2=3:5\nweight.3=2\npeerType=observer\n"
    );
    let config = read(&text, &[("/d/myid", "1")]).expect("a good file");
    let Ensemble::Member(ensemble) = &config.ensemble else { panic!("an ensemble") };
    assert_eq!(ensemble.groups, BTreeMap::from([(1, vec![1, 2]), (2, vec![3, 5])]));
    assert_eq!(ensemble.weights, BTreeMap::from([(3, 2)]));
    assert_eq!(ensemble.participants().count(), 4);
    assert_eq!(config.warnings.len(), 2, "peerType contradicts, and four voters: {:?}", config.warnings);
}

#[test]
fn the_dynamic_file() {
    let zoo = "dataDir=/d\ninitLimit=10\nsyncLimit=5\nreconfigEnabled=true\ndynamicConfigFile=/c/zoo.cfg.dynamic.100000000\n";
    let lines =
        "server.1=a:1:2:participant;2181\nserver.2=b:1:2:participant;2181\nserver.3=c:1:2:participant;2181\n";
    let path = "/c/zoo.cfg.dynamic.100000000";
    let by_name = membership(zoo, &[(path, lines), ("/d/myid", "3")]);
    assert_eq!((by_name.version, by_name.members.len()), (0x1_0000_0000, 3));
    let by_line = membership(zoo, &[(path, &format!("{lines}version=2ff")), ("/d/myid", "3")]);
    assert_eq!(by_line.version, 0x2ff);
    let config = read(zoo, &[(path, lines), ("/d/myid", "3")]).expect("a good file");
    assert_eq!(config.client.listen.map(|endpoint| endpoint.port), Some(2181));

    let missing = read(zoo, &[("/d/myid", "3")]).expect_err("the dynamic file is not there");
    assert!(missing.to_string().starts_with("zoo.cfg:5: dynamicConfigFile: "), "{missing}");
    let stranger =
        read(zoo, &[(path, &format!("{lines}tickTime=1")), ("/d/myid", "3")]).expect_err("a stranger");
    assert!(stranger.to_string().starts_with(&format!("{path}:4: tickTime: has no place")), "{stranger}");
    let bad = read(zoo, &[(path, "server.1=a"), ("/d/myid", "3")]).expect_err("a bad line");
    assert!(bad.to_string().starts_with(&format!("{path}:1: server.1: ")), "{bad}");
}

/// The table of our own keys is complete, and every key in it is read: a wrong value or a value shows.
#[test]
fn every_own_key_is_read() {
    for key in OWN_KEYS {
        assert!(key.name.starts_with("zoometry.") && !key.help.is_empty() && !key.default.is_empty());
        match read(&format!("dataDir=/d\nclientPort=2181\n{}=@", key.name), &[]) {
            Ok(config) => {
                let is_strange = config.warnings.iter().any(|warning| warning.contains("is not known"));
                assert!(config.other.is_empty() && !is_strange, "{} is not read", key.name);
                assert_ne!(config.own, standalone("").own, "{} does nothing", key.name);
            }
            Err(error) => assert_eq!(error.key.as_deref(), Some(key.name), "{error}"),
        }
    }
}

proptest::proptest! {
    /// Whatever the bytes, reading ends, and with a value or an error.
    #[test]
    fn any_text_is_read_or_refused(text in ".{0,200}") {
        let _ = properties(&text);
        let _ = read(&format!("dataDir=/d\nclientPort=2181\n{text}"), &[("/d/myid", &text)]);
        let _ = parse_member(1, &text);
    }
}

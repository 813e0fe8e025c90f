//! Every word against the text that Apache ZooKeeper 3.8.0 gave in the same situation (Debian's package,
//! standalone, two kazoo clients). Its hash-table order is replaced by ours, and its dates by the edges of
//! our buckets; every other character is as it came.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};

use zoometry_wire::{OpCode, Zxid};

use super::*;
use crate::stats::{Batch, ConnSession, Counter, Measure};
use crate::view::{EnsembleFacts, LeaderFacts, SessionView, WatchTotals};

/// A member with fixed values: those of the Apache server when its texts were taken.
pub(crate) struct Fixture {
    pub(crate) facts: Option<Facts>,
    pub(crate) resets: AtomicUsize,
    /// Of every list.
    pub(crate) left_out: usize,
}

impl Fixture {
    fn listing<T>(&self, listed: T) -> Listing<T> {
        Listing { listed, left_out: self.left_out }
    }
}

impl Default for Fixture {
    fn default() -> Self {
        Self { facts: Some(facts(Mode::Standalone)), resets: AtomicUsize::new(0), left_out: 0 }
    }
}

pub(crate) fn facts(mode: Mode) -> Facts {
    Facts {
        mode,
        last_zxid: Zxid(8),
        node_count: 10,
        ephemerals: 3,
        approximate_data_size: 63,
        watches: WatchTotals { connections: 2, paths: 3, data: 4, child: 0 },
        global_sessions: 2,
        local_sessions: 0,
        disk_queue: 0,
        unsent_bytes: 0,
        ensemble: None,
    }
}

pub(crate) fn leader() -> Facts {
    Facts {
        ensemble: Some(EnsembleFacts {
            peer_state: "leading - broadcast".into(),
            quorum_size: 3,
            leader_id: Some(2),
            observer_master_id: None,
            leader: Some(LeaderFacts {
                learners: 2,
                last_proposal_size: 40,
                min_proposal_size: 36,
                max_proposal_size: 88,
                ..LeaderFacts::default()
            }),
        }),
        ..facts(Mode::Leader)
    }
}

const FIRST: SessionId = SessionId(0x0100_001b_4619_0000);
const SECOND: SessionId = SessionId(0x0100_001b_4619_0001);
/// Sun Nov 22 13:56:00 UTC 2026.
const EPOCH_MS: i64 = 1_795_355_760_000;

fn conn(port: u16, reading: u8, received: u64, sent: u64, closes_ms: i64) -> ConnView {
    ConnView {
        remote: SocketAddr::from(([127, 0, 0, 1], port)),
        interest_ops: reading,
        queued: 0,
        received,
        sent,
        closes_if_silent_ms: closes_ms,
        session: None,
    }
}

impl Inspect for Fixture {
    fn facts(&self) -> Option<Facts> {
        self.facts.clone()
    }

    fn connections(&self) -> Vec<ConnView> {
        let mut second = conn(43190, 1, 3, 3, EPOCH_MS + 6_000);
        second.session = Some(ConnSession {
            id: SECOND,
            last_op: Some(OpCode::GetData),
            established_ms: 1_795_355_762_457,
            timeout_ms: 4000,
            last_cxid: Some(2),
            last_zxid: Zxid(7),
            last_response_ms: 2_460_932,
            last_latency_ms: 1,
            min_latency_ms: 0,
            avg_latency_ms: 3,
            max_latency_ms: 6,
        });
        let mut first = conn(43176, 1, 13, 14, EPOCH_MS + 12_000);
        first.session = Some(ConnSession {
            id: FIRST,
            last_op: Some(OpCode::SetData),
            established_ms: 1_795_355_762_363,
            timeout_ms: 10_000,
            last_cxid: Some(12),
            last_zxid: Zxid(8),
            last_response_ms: 2_460_940,
            last_latency_ms: 6,
            min_latency_ms: 0,
            avg_latency_ms: 4,
            max_latency_ms: 19,
        });
        vec![second, conn(43204, 0, 1, 0, EPOCH_MS + 12_500), first]
    }

    fn reset_connections(&self) {
        self.resets.fetch_add(1, Ordering::Relaxed);
    }

    fn sessions(&self) -> Listing<Vec<SessionView>> {
        self.listing(vec![
            SessionView { id: FIRST, timeout_ms: 10_000, expires_ms: EPOCH_MS + 12_000 },
            SessionView { id: SECOND, timeout_ms: 4000, expires_ms: EPOCH_MS + 6_000 },
        ])
    }

    fn ephemerals(&self) -> Listing<BTreeMap<SessionId, Vec<String>>> {
        let first = (FIRST, vec!["/e".into(), "/e2".into()]);
        self.listing(BTreeMap::from([first, (SECOND, vec!["/e3".into()])]))
    }

    fn watches_by_path(&self) -> Listing<BTreeMap<String, Vec<SessionId>>> {
        self.listing(BTreeMap::from([
            ("/e".into(), vec![FIRST, SECOND]),
            ("/c/d".into(), vec![FIRST]),
            ("/nope".into(), vec![FIRST]),
        ]))
    }

    fn digests(&self) -> Vec<(Zxid, u64)> {
        vec![(Zxid(0x80), 1371985504), (Zxid(0x1_0000_0000), u64::MAX)]
    }
}

/// Statistics with the numbers of Apache's when its texts were taken.
pub(crate) fn stats() -> ServerStats {
    let stats = ServerStats::new();
    let mut batch = Batch::default();
    (batch.packets_received, batch.packets_sent) = (22, 22);
    // Sixteen requests: least 1 ms, greatest 19 ms, 68 ms together.
    for ms in [19, 1] {
        batch.answered(OpCode::Create, ms * 1_000_000, 1);
    }
    batch.answered(OpCode::GetData, 3_400_000, 10);
    batch.answered(OpCode::GetData, 3_500_000, 4);
    batch.response(84);
    stats.record(&mut batch);
    stats.observe(Measure::FsyncTime, 3_000_000);
    stats.add(Counter::SessionsExpired, 5);
    for _ in 0..3 {
        stats.connection_opened();
    }
    stats
}

fn config(text: &str) -> Config {
    let text =
        format!("dataDir=/nowhere/data\ntickTime=500\nclientPort=28181\n4lw.commands.whitelist=*\n{text}");
    Config::parse(&text, "zoo.cfg").expect("a good file")
}

fn say(word: Word, member: &Fixture, stats: &ServerStats, config: &Config) -> String {
    answer(word, 0, Context { config, stats, member })
}

fn first_line_replaced(text: &str) -> String {
    let (first, rest) = text.split_once('\n').expect("several lines");
    assert!(first.starts_with("Zookeeper version: 3.9.5-zoometry-"), "{first}");
    format!("VERSION\n{rest}")
}

const SRVR: &str = "VERSION
Latency min/avg/max: 1/4.25/19
Received: 22
Sent: 22
Connections: 3
Outstanding: 0
Zxid: 0x8
Mode: standalone
Node count: 10
";

const STAT: &str = "VERSION
Clients:
 /127.0.0.1:43190[1](queued=0,recved=3,sent=3)
 /127.0.0.1:43204[0](queued=0,recved=1,sent=0)
 /127.0.0.1:43176[1](queued=0,recved=13,sent=14)

Latency min/avg/max: 1/4.25/19
Received: 22
Sent: 22
Connections: 3
Outstanding: 0
Zxid: 0x8
Mode: standalone
Node count: 10
";

const CONS: &str =
    " /127.0.0.1:43190[1](queued=0,recved=3,sent=3,sid=0x100001b46190001,lop=GETD,est=1795355762457,\
to=4000,lcxid=0x2,lzxid=0x7,lresp=2460932,llat=1,minlat=0,avglat=3,maxlat=6)
 /127.0.0.1:43204[0](queued=0,recved=1,sent=0)
 /127.0.0.1:43176[1](queued=0,recved=13,sent=14,sid=0x100001b46190000,lop=SETD,est=1795355762363,\
to=10000,lcxid=0xc,lzxid=0x8,lresp=2460940,llat=6,minlat=0,avglat=4,maxlat=19)

";

const DUMP: &str = "SessionTracker dump:
Session Sets (2)/(2):
1 expire at Sun Nov 22 13:56:06 UTC 2026:
\t0x100001b46190001
1 expire at Sun Nov 22 13:56:12 UTC 2026:
\t0x100001b46190000
ephemeral nodes dump:
Sessions with Ephemerals (2):
0x100001b46190000:
\t/e
\t/e2
0x100001b46190001:
\t/e3
Connections dump:
Connections Sets (2)/(3):
1 expire at Sun Nov 22 13:56:10 UTC 2026:
\tip: /127.0.0.1:43190 sessionId: 0x100001b46190001
2 expire at Sun Nov 22 13:56:20 UTC 2026:
\tip: /127.0.0.1:43204 sessionId: 0x0
\tip: /127.0.0.1:43176 sessionId: 0x100001b46190000
";

const WCHC: &str = "0x100001b46190000
\t/c/d
\t/e
\t/nope
0x100001b46190001
\t/e

";

const WCHP: &str = "/c/d
\t0x100001b46190000
/e
\t0x100001b46190000
\t0x100001b46190001
/nope
\t0x100001b46190000

";

const CONF: &str = "clientPort=28181
secureClientPort=-1
dataDir=/nowhere/data/version-2
dataDirSize=0
dataLogDir=/nowhere/data/version-2
dataLogSize=0
tickTime=500
maxClientCnxns=60
minSessionTimeout=1000
maxSessionTimeout=10000
clientPortListenBacklog=-1
serverId=0
";

#[test]
fn texts_are_apaches() {
    let table = [
        (Word::Ruok, "imok"),
        (Word::Isro, "rw"),
        (Word::Cons, CONS),
        (Word::Dump, DUMP),
        (Word::Wchs, "2 connections watching 3 paths\nTotal watches:4\n"),
        (Word::Wchc, WCHC),
        (Word::Wchp, WCHP),
        (Word::Conf, CONF),
        (Word::Dirs, "datadir_size: 0\nlogdir_size: 0\n"),
        (Word::Gtmk, "306"),
        (Word::Srst, "Server stats reset.\n"),
        (Word::Crst, "Connection stats reset.\n"),
        (Word::Hash, "80: 1371985504\n100000000: -1\n"),
    ];
    for (word, expected) in table {
        assert_eq!(say(word, &Fixture::default(), &stats(), &config("")), expected, "{}", word.name());
    }
    for (word, expected) in [(Word::Srvr, SRVR), (Word::Stat, STAT)] {
        let text = say(word, &Fixture::default(), &stats(), &config(""));
        assert_eq!(first_line_replaced(&text), expected, "{}", word.name());
    }
}

#[test]
fn conf_of_an_ensemble_has_the_membership() {
    let text = "dataDir=/nowhere\nclientPort=28281\ntickTime=500\nmaxClientCnxns=0\n4lw.commands.whitelist=*\n\
                initLimit=10\nsyncLimit=5\nserver.1=127.0.0.1:28288:28289\nstandaloneEnabled=false\n";
    let mut myid = |_: &Path| Ok("1".to_string());
    let config = Config::parse_with(text, Path::new("zoo.cfg"), &mut myid).expect("a good file");
    let answer = say(Word::Conf, &Fixture { facts: Some(leader()), ..Fixture::default() }, &stats(), &config);
    let (_, tail) =
        answer.split_once("clientPortListenBacklog=-1\n").expect("the standalone part is in front");
    assert_eq!(
        tail,
        "serverId=1\ninitLimit=10\nsyncLimit=5\nelectionAlg=3\nelectionPort=28289\nquorumPort=28288\npeerType=0\n\
         membership: \nserver.1=127.0.0.1:28288:28289:participant\nversion=0"
    );
}

#[test]
fn srvr_of_other_roles() {
    let member = Fixture { facts: Some(leader()), ..Fixture::default() };
    let text = say(Word::Srvr, &member, &stats(), &config(""));
    assert!(
        text.ends_with("Mode: leader\nNode count: 10\nProposal sizes last/min/max: 40/36/88\n"),
        "{text}"
    );
    let member = Fixture { facts: Some(facts(Mode::ReadOnly)), ..Fixture::default() };
    let text = say(Word::Srvr, &member, &stats(), &config(""));
    assert!(text.contains("\nREAD-ONLY mode; serving only read-only clients\nLatency"), "{text}");
    assert!(text.contains("Mode: read-only\n"), "{text}");
    assert_eq!(say(Word::Isro, &member, &stats(), &config("")), "ro");
}

#[test]
fn a_follower_dumps_sessions_without_deadlines() {
    let member = Fixture { facts: Some(facts(Mode::Follower)), ..Fixture::default() };
    let text = say(Word::Dump, &member, &stats(), &config(""));
    assert!(
        text.starts_with("SessionTracker dump:\nGlobal Sessions(2):\n0x100001b46190001\t4000ms\n"),
        "{text}"
    );
}

#[test]
fn words_that_are_not_listed_are_refused() {
    let config = Config::parse("dataDir=/d\nclientPort=1\n4lw.commands.whitelist=ruok", "zoo.cfg");
    let config = config.expect("a good file");
    for word in Word::ALL {
        let sentence = format!("{} is not executed because it is not in the whitelist.\n", word.name());
        // srvr is for Apache's own scripts, whatever the list says.
        let expected = (!matches!(word, Word::Srvr | Word::Ruok)).then_some(sentence);
        assert_eq!(refusal(*word, &config), expected);
    }
}

#[test]
fn words_of_a_member_that_does_not_serve() {
    let member = Fixture { facts: None, ..Fixture::default() };
    for word in Word::ALL {
        let text = say(*word, &member, &stats(), &config(""));
        match word {
            Word::Ruok => assert_eq!(text, "imok"),
            Word::Isro => assert_eq!(text, "null"),
            Word::Gtmk => assert_eq!(text, "306"),
            Word::Stmk => assert_eq!(text, "0"),
            Word::Envi => assert!(text.starts_with("Environment:\nzookeeper.version=")),
            _ => assert_eq!(text, "This ZooKeeper instance is not currently serving requests\n"),
        }
    }
}

#[test]
fn words_are_known_by_their_four_bytes() {
    for word in Word::ALL {
        let bytes: [u8; 4] = word.name().as_bytes().try_into().expect("four letters");
        assert_eq!(Word::recognise(bytes), Some(*word));
        assert_eq!(word.argument_len(), if *word == Word::Stmk { 8 } else { 0 });
    }
    for bytes in [*b"RUOK", *b"help", [0, 0, 0, 45], *b"ruo\n", *b"GET "] {
        assert_eq!(Word::recognise(bytes), None);
    }
}

#[test]
fn words_that_change_something_do() {
    let (member, stats, config) = (Fixture::default(), stats(), config(""));
    let context = Context { config: &config, stats: &stats, member: &member };
    assert_eq!(answer(Word::Stmk, -2, context), "-2");
    assert_eq!(answer(Word::Gtmk, 0, context), "-2");
    answer(Word::Crst, 0, context);
    assert_eq!(member.resets.load(Ordering::Relaxed), 1);
    answer(Word::Srst, 0, context);
    let text = answer(Word::Srvr, 0, context);
    assert!(text.contains("Latency min/avg/max: 0/0.0/0\nReceived: 0\nSent: 0\nConnections: 3\n"), "{text}");
}

/// kazoo takes the version from `(\d+)\.(\d+)\.(\d+)` in envi's or srvr's text.
#[test]
fn clients_find_the_version() {
    for word in [Word::Srvr, Word::Envi, Word::Mntr] {
        let text = say(word, &Fixture::default(), &stats(), &config(""));
        let digits = text.find(|c: char| c.is_ascii_digit()).map(|at| &text[at..]).expect("digits");
        assert!(digits.starts_with("3.9.5-zoometry-"), "{word:?}: {text}");
    }
    assert!(version().contains(", built on "));
}

#[test]
fn sizes_on_disk_are_counted() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let data = directory.path().join("version-2");
    std::fs::create_dir(&data).expect("made");
    std::fs::write(data.join("log.1"), [0; 300]).expect("written");
    std::fs::write(data.join("snapshot.0"), [0; 157]).expect("written");
    let text = format!("dataDir={}\nclientPort=1", directory.path().display());
    let config = Config::parse(&text, "zoo.cfg").expect("a good file");
    assert_eq!(directory_sizes(&config), (457, 457));
}

#[test]
fn decimals_and_dates_are_javas() {
    let decimals = [(0.0, "0.0"), (4.25, "4.25"), (10.0 / 3.0, "3.3333"), (2.0, "2.0"), (0.00004, "0.0")];
    for (value, text) in decimals {
        assert_eq!(decimal(value), text);
    }
    let dates = [
        (0, "Thu Jan 01 00:00:00 UTC 1970"),
        (-1, "Wed Dec 31 23:59:59 UTC 1969"),
        (951_782_400_000, "Tue Feb 29 00:00:00 UTC 2000"),
        (1_795_355_766_999, "Sun Nov 22 13:56:06 UTC 2026"),
        (4_107_542_399_000, "Sun Feb 28 23:59:59 UTC 2100"),
        (4_107_542_400_000, "Mon Mar 01 00:00:00 UTC 2100"),
    ];
    for (unix_ms, text) in dates {
        assert_eq!(java_date(unix_ms), text);
    }
}

#[test]
fn a_list_that_is_not_whole_says_so() {
    let member = Fixture { left_out: 7, ..Fixture::default() };
    for word in [Word::Dump, Word::Wchc, Word::Wchp] {
        let (whole, part) = (
            say(word, &Fixture::default(), &stats(), &config("")),
            say(word, &member, &stats(), &config("")),
        );
        assert!(!whole.contains("more"), "{whole}");
        assert!(part.contains("... and 7 more: at most 8388608 bytes are listed\n"), "{part}");
    }
}

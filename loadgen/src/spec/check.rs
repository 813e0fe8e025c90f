//! From a document to a [`Spec`], or to the list of everything that is wrong with it.
//!
//! Each reader notes what it does not like and goes on with nothing, so one look at a file finds all its
//! faults. A check that needs two values is made only when both were good: one mistake, one complaint.

use super::document::{Node, Origin, Source, Table, Value};
use super::quantity::{self, SHARE_FORM};
use super::readers::{Check, human_duration, number_of};
use super::*;
use crate::arrivals::Integral;
use crate::keys::KeySpace;

/// Requests and answers carry a path, a Stat and headers beside the value: so much of the frame is kept for
/// them, in bytes.
const FRAME_RESERVE: usize = 1024;
/// What a znode's name costs in the answer to getChildren beside its characters, in bytes.
const NAME_LENGTH_PREFIX: u64 = 4;
const MAX_ZNODES: u64 = 100_000_000;
const MAX_SESSIONS: u64 = 1_000_000;
const MAX_IN_FLIGHT: u64 = 100_000;
const MAX_BACKLOG: u64 = 100_000_000;
const MAX_PHASES: usize = 1000;
const MAX_STEPS: usize = 10_000;
const MAX_DEPTH: u64 = 32;
const MAX_WATCHES: u64 = 100_000_000;
const MAX_ZIPF: f64 = 10.0;
const MAX_PHASE_NS: u64 = 30 * 24 * 3600 * 1_000_000_000;
const SESSION_TIMEOUT_MS: std::ops::RangeInclusive<u64> = 100..=86_400_000;

const PHASE_KEYS: &[&str] = &["name", "duration", "warmup", "arrival", "mix", "keys", "value", "backlog"];
const ARRIVAL_FORM: &str = "\"closed\", or one of { constant = \"5000/s\" }, { poisson = \"5000/s\" }, \
                            { ramp = { from = \"0/s\", to = \"5000/s\" } }, { steps = [\"1000/s\", \"2000/s\"] }";
const KEYS_FORM: &str =
    "\"uniform\", \"sequential\", { zipf = 0.99 } or { hot = { keys = 10, share = \"90%\" } }";
const VALUE_FORM: &str = "a size such as \"100B\", a range { min = \"10B\", max = \"1KiB\" }, \
                          or a list [{ size = \"100B\", weight = 9 }, { size = \"1KiB\", weight = 1 }]";
const PLACEMENT_FORM: &str = "\"even\", \"leader\", \"followers\" or \"server.2\"";
const TARGET_FORM: &str = "\"leader\", \"follower\", \"quorum\", \"all\" or \"server.2\"";

/// How often one [[fault]] can strike.
const REPEAT_MAX: u64 = 1000;

/// What a mix can ask for; connect and notify happen by themselves.
fn mix_ops() -> impl Iterator<Item = Op> {
    Op::ALL.into_iter().filter(|op| !matches!(op, Op::Connect | Op::Notify))
}

pub(super) fn check(source: &Source<'_>, root: &Table) -> Result<Spec, SpecErrors> {
    let mut check = Check { source, errors: Vec::new() };
    let spec = check.spec(root);
    check.cross(&spec, root);
    if check.errors.is_empty() { Ok(spec) } else { Err(in_order(check.errors)) }
}

/// In the order of the file, each complaint once (a default's mistake is met in every phase).
pub(super) fn in_order(mut errors: Vec<(Origin, SpecError)>) -> SpecErrors {
    errors.sort_by(|a, b| a.0.cmp(&b.0));
    errors.dedup_by(|a, b| a.1 == b.1);
    SpecErrors(errors.into_iter().map(|(_, error)| error).collect())
}

/// The start of the file: for complaints about what is not there.
const WHOLE_FILE: Origin = Origin::File(0, 0);

impl Check<'_> {
    fn spec(&mut self, root: &Table) -> Spec {
        let known = [
            "name",
            "description",
            "seed",
            "expect",
            "data",
            "sessions",
            "defaults",
            "phase",
            "watchers",
            "fault",
        ];
        self.known(root, "a workload", &known);
        let stem = std::path::Path::new(self.source.file).file_stem().map(|stem| stem.to_string_lossy());
        let data = self.data(root);
        let phases = self.phases(root, &data);
        Spec {
            name: self.name(root, "name").unwrap_or_else(|| stem.unwrap_or_default().into_owned()),
            description: self.text(root, "description").unwrap_or_default(),
            seed: self.count(root, "seed", 0..=u64::MAX).unwrap_or(1),
            sessions: self.sessions(root),
            watchers: self.watchers(root, &data, &phases),
            faults: self.faults(root, &phases),
            expect: self.expectations(root),
            data,
            phases,
            overrides: self.source.overrides.to_vec(),
            text: self.source.text.to_string(),
        }
    }

    fn data(&mut self, root: &Table) -> Data {
        let table = self.table(root, "data").unwrap_or_default();
        self.known(&table, "[data]", &["root", "znodes", "shape", "value"]);
        let value = self.value(&table).unwrap_or(ValueSize::Constant(100));
        let path = self.text(&table, "root").unwrap_or_else(|| "/zoometry".to_string());
        if let Some(node) = table.get("root") {
            let system = zoometry_wire::path::SYSTEM_ROOT;
            match zoometry_wire::path::validate(&path) {
                Err(error) => self.bad(node, "root", &format!("the path of a znode, but {error}")),
                Ok(()) if path == "/" => {
                    self.bad(node, "root", "a znode of the run's own below /, such as \"/zoometry\"")
                }
                Ok(()) if path == system || path.starts_with(&format!("{system}/")) => {
                    self.bad(node, "root", "a path outside /zookeeper, which is the system's own");
                }
                Ok(()) => {}
            }
        }
        let znodes = self.count(&table, "znodes", 1..=MAX_ZNODES).unwrap_or(1000);
        Data { root: path, znodes, shape: self.shape(&table), value }
    }

    fn shape(&mut self, table: &Table) -> Shape {
        let Some(node) = table.get("shape") else { return Shape::Flat };
        match &node.value {
            Value::Text(text) if text == "flat" => return Shape::Flat,
            Value::Table(shape) => {
                self.known(shape, "shape", &["fanout", "depth"]);
                let fanout = self.count(shape, "fanout", 2..=u64::from(u32::MAX));
                let depth = self.count(shape, "depth", 1..=MAX_DEPTH);
                match (fanout, depth) {
                    (Some(fanout), None) => return Shape::Fanout(fanout as u32),
                    (None, Some(depth)) => return Shape::Depth(depth as u32),
                    (None, None) if !shape.entries.is_empty() => return Shape::Flat, // complained about already
                    _ => {}
                }
            }
            _ => {}
        }
        self.bad(node, "shape", "\"flat\", { fanout = 100 } or { depth = 3 }");
        Shape::Flat
    }

    fn sessions(&mut self, root: &Table) -> Sessions {
        let table = self.table(root, "sessions").unwrap_or_default();
        self.known(&table, "[sessions]", &["count", "in_flight", "timeout", "placement"]);
        let placement = table.get("placement").and_then(|node| {
            self.member(
                node,
                "placement",
                PLACEMENT_FORM,
                |word| match word {
                    "even" => Some(Placement::Even),
                    "leader" => Some(Placement::Leader),
                    "followers" => Some(Placement::Followers),
                    _ => None,
                },
                Placement::Server,
            )
        });
        let timeout_ms = self.duration(&table, "timeout").map(|ns| ns / 1_000_000).filter(|ms| {
            let fits = SESSION_TIMEOUT_MS.contains(ms);
            if !fits {
                self.bad(table.get("timeout").expect("was read"), "timeout", "100ms to 24h");
            }
            fits
        });
        Sessions {
            count: self.count(&table, "count", 1..=MAX_SESSIONS).unwrap_or(30) as u32,
            in_flight: self.count(&table, "in_flight", 1..=MAX_IN_FLIGHT).unwrap_or(1) as u32,
            timeout_ms: timeout_ms.unwrap_or(10_000) as u32,
            placement: placement.unwrap_or(Placement::Even),
        }
    }

    fn phases(&mut self, root: &Table, data: &Data) -> Vec<Phase> {
        if let Some(defaults) = self.table(root, "defaults") {
            let keys: Vec<&str> = PHASE_KEYS.iter().copied().filter(|key| *key != "name").collect();
            self.known(&defaults, "[defaults]", &keys);
            self.phase(&defaults, data); // for its complaints: also about defaults that every phase replaces
        }
        let tables = self.tables(root, "phase");
        if tables.is_empty() && root.get("phase").is_none() {
            self.complain(&WHOLE_FILE, "there is no [[phase]]: a workload needs at least one".to_string());
        }
        if let Some((origin, _)) = tables.get(MAX_PHASES) {
            self.complain(&origin.clone(), format!("more than {MAX_PHASES} phases"));
        }
        let mut phases: Vec<Phase> = Vec::new();
        for (origin, table) in &tables {
            self.known(table, "[[phase]]", PHASE_KEYS);
            let name = self.name(table, "name");
            match &name {
                None if table.get("name").is_none() => {
                    self.complain(
                        origin,
                        "this [[phase]] has no name: expected name = \"steady\" or the like".to_string(),
                    );
                }
                Some(name) if name == "all" => {
                    self.bad(
                        table.get("name").expect("was read"),
                        "name",
                        "another name: `all` means all phases together",
                    );
                }
                Some(name) if phases.iter().any(|phase| phase.name == *name) => {
                    self.bad(table.get("name").expect("was read"), "name", "a name that no other phase has");
                }
                _ => {}
            }
            for (key, example) in [("duration", "\"10s\""), ("mix", "{ get = 10, set = 1 }")] {
                if table.get(key).is_none() {
                    let called = name.as_deref().unwrap_or("");
                    let what = format!(
                        "phase {called} has no {key}: expected {key} = {example} here or in [defaults]"
                    );
                    self.complain(origin, what);
                }
            }
            let phase = self.phase(table, data);
            phases.push(Phase { name: name.unwrap_or_default(), ..phase });
        }
        if !phases.is_empty() && phases.iter().all(|phase| phase.warmup) {
            self.complain(&tables[0].0, "every phase is a warm-up: nothing would be measured".to_string());
        }
        phases
    }

    /// Everything of a phase but its name, from a phase's table or from the defaults.
    fn phase(&mut self, table: &Table, data: &Data) -> Phase {
        let duration_ns = self.positive_duration(table, "duration", MAX_PHASE_NS);
        let arrival = table.get("arrival").and_then(|node| self.arrival(node));
        if let (Some(Arrival::Open { rate, .. }), Some(duration_ns)) = (&arrival, duration_ns)
            && Integral::new(rate, duration_ns).total() < 1.0
        {
            let node = table.get("arrival").expect("was read");
            self.bad(node, "arrival", "a rate that makes at least one operation due within the phase");
        }
        Phase {
            name: String::new(),
            duration_ns: duration_ns.unwrap_or(1),
            warmup: self.flag(table, "warmup").unwrap_or(false),
            arrival: arrival.unwrap_or(Arrival::Closed),
            mix: self.mix(table).unwrap_or_default(),
            keys: table
                .get("keys")
                .and_then(|node| self.keys(node, data.znodes))
                .unwrap_or(KeyChoice::Uniform),
            value: self.value(table).unwrap_or_else(|| data.value.clone()),
            backlog_limit: self.count(table, "backlog", 1..=MAX_BACKLOG).unwrap_or(DEFAULT_BACKLOG_LIMIT),
        }
    }

    fn arrival(&mut self, node: &Node) -> Option<Arrival> {
        let table = match &node.value {
            Value::Text(text) if text == "closed" => return Some(Arrival::Closed),
            Value::Table(table) => table,
            _ => {
                self.bad(node, "arrival", ARRIVAL_FORM);
                return None;
            }
        };
        let faults_before = self.errors.len();
        self.known(table, "arrival", &["constant", "poisson", "ramp", "steps", "spacing"]);
        let shapes = ["constant", "poisson", "ramp", "steps"];
        let given: Vec<&str> = shapes.into_iter().filter(|shape| table.get(shape).is_some()).collect();
        let [shape] = given[..] else {
            if self.errors.len() == faults_before {
                self.bad(node, "arrival", &format!("exactly one of {ARRIVAL_FORM}"));
            }
            return None;
        };
        let spacing = table.get("spacing").map(|spacing| {
            if matches!(shape, "constant" | "poisson") {
                self.bad(spacing, "spacing", "no spacing here: it goes with ramp and steps");
            }
            self.word(spacing, "spacing", &[("even", Spacing::Even), ("poisson", Spacing::Poisson)])
        });
        let written = table.get(shape).expect("it was given");
        let (rate, spacing_by_name) = match shape {
            "constant" => (self.positive_rate(written, shape).map(Rate::Constant), Spacing::Even),
            "poisson" => (self.positive_rate(written, shape).map(Rate::Constant), Spacing::Poisson),
            "ramp" => (self.ramp(written), Spacing::Even),
            _ => (self.steps(written), Spacing::Even),
        };
        Some(Arrival::Open { rate: rate?, spacing: spacing.unwrap_or(Some(spacing_by_name))? })
    }

    fn ramp(&mut self, node: &Node) -> Option<Rate> {
        let form = "{ from = \"0/s\", to = \"5000/s\" }";
        let Value::Table(table) = &node.value else {
            self.bad(node, "ramp", form);
            return None;
        };
        self.known(table, "ramp", &["from", "to"]);
        let (Some(from), Some(to)) = (table.get("from"), table.get("to")) else {
            self.bad(node, "ramp", &format!("both ends: {form}"));
            return None;
        };
        let (from, to) = (self.rate(from, "from"), self.rate(to, "to"));
        let (from, to) = (from?, to?);
        if from + to == 0.0 {
            self.bad(node, "ramp", "a positive rate at one end at least");
            return None;
        }
        Some(Rate::Ramp { from, to })
    }

    fn steps(&mut self, node: &Node) -> Option<Rate> {
        let items = match &node.value {
            Value::List(items) if !items.is_empty() && items.len() <= MAX_STEPS => items,
            _ => {
                self.bad(node, "steps", "a list of rates such as [\"1000/s\", \"2000/s\"]");
                return None;
            }
        };
        let rates: Vec<Option<f64>> = items.iter().map(|item| self.rate(item, "steps")).collect();
        let rates: Vec<f64> = rates.into_iter().collect::<Option<_>>()?;
        if rates.iter().all(|&rate| rate == 0.0) {
            self.bad(node, "steps", "at least one positive rate");
            return None;
        }
        Some(Rate::Steps(rates))
    }

    fn mix(&mut self, table: &Table) -> Option<Vec<(Op, f64)>> {
        let node = table.get("mix")?;
        let Value::Table(weights) = &node.value else {
            self.bad(node, "mix", "weights by operation, such as { get = 10, set = 1 }");
            return None;
        };
        let names: Vec<&str> = mix_ops().map(Op::name).collect();
        let faults_before = self.errors.len();
        self.known(weights, "mix", &names);
        let mut mix = Vec::new();
        for op in mix_ops() {
            if let Some(weight) = weights.get(op.name())
                && let Some(weight) = self.weight(weight, op.name())
                && weight > 0.0
            {
                mix.push((op, weight));
            }
        }
        if self.errors.len() > faults_before {
            return None;
        }
        if mix.is_empty() {
            self.bad(node, "mix", "at least one operation with a positive weight");
            return None;
        }
        let weight_of =
            |ops: &[Op]| -> f64 { mix.iter().filter(|(op, _)| ops.contains(op)).map(|(_, w)| w).sum() };
        if weight_of(&[Op::Delete]) > weight_of(&[Op::Create, Op::CreateSequential, Op::CreateEphemeral]) {
            let expected =
                "no more delete than create: only what the run created is deleted, and that would run out";
            self.bad(node, "mix", expected);
            return None;
        }
        Some(mix)
    }

    fn keys(&mut self, node: &Node, znodes: u64) -> Option<KeyChoice> {
        let table = match &node.value {
            Value::Text(text) if text == "uniform" => return Some(KeyChoice::Uniform),
            Value::Text(text) if text == "sequential" => return Some(KeyChoice::Sequential),
            Value::Table(table) => table,
            _ => {
                self.bad(node, "keys", KEYS_FORM);
                return None;
            }
        };
        let faults_before = self.errors.len();
        self.known(table, "keys", &["zipf", "hot"]);
        match (table.get("zipf"), table.get("hot")) {
            (Some(zipf), None) => {
                let exponent = number_of(zipf).filter(|&exponent| exponent > 0.0 && exponent <= MAX_ZIPF);
                if exponent.is_none() {
                    self.bad(zipf, "zipf", &format!("an exponent above 0, up to {MAX_ZIPF}; 0.99 is usual"));
                }
                exponent.map(KeyChoice::Zipf)
            }
            (None, Some(hot)) => self.hot(hot, znodes),
            _ => {
                if self.errors.len() == faults_before {
                    self.bad(node, "keys", KEYS_FORM);
                }
                None
            }
        }
    }

    fn hot(&mut self, node: &Node, znodes: u64) -> Option<KeyChoice> {
        let Value::Table(table) = &node.value else {
            self.bad(node, "hot", "{ keys = 10, share = \"90%\" }");
            return None;
        };
        self.known(table, "hot", &["keys", "share"]);
        let (Some(keys_node), Some(share_node)) = (table.get("keys"), table.get("share")) else {
            self.bad(node, "hot", "both the number of keys and their share: { keys = 10, share = \"90%\" }");
            return None;
        };
        let keys = self.count(table, "keys", 1..=MAX_ZNODES)?;
        if keys >= znodes {
            let expected = format!("fewer hot keys than there are znodes: data.znodes is {znodes}");
            self.bad(keys_node, "keys", &expected);
            return None;
        }
        let share = match &share_node.value {
            Value::Text(text) => quantity::share(text),
            _ => number_of(share_node).filter(|&share| share <= 1.0),
        };
        if share.is_none_or(|share| share <= 0.0) {
            self.bad(share_node, "share", &format!("{SHARE_FORM}, above 0"));
            return None;
        }
        share.map(|share| KeyChoice::Hot { keys, share })
    }

    fn value(&mut self, table: &Table) -> Option<ValueSize> {
        let node = table.get("value")?;
        match &node.value {
            Value::Text(_) | Value::Integer(_) | Value::Float(_) => {
                self.size(node, "value").map(ValueSize::Constant)
            }
            Value::Table(range) => {
                self.known(range, "value", &["min", "max"]);
                let (Some(min), Some(max)) = (range.get("min"), range.get("max")) else {
                    self.bad(node, "value", VALUE_FORM);
                    return None;
                };
                let (min, max) = (self.size(min, "min"), self.size(max, "max"));
                let (min, max) = (min?, max?);
                if min > max {
                    self.bad(node, "value", "min not above max");
                    return None;
                }
                Some(ValueSize::Uniform { min, max })
            }
            Value::List(items) if !items.is_empty() => {
                let entries: Vec<Option<WeightedSize>> =
                    items.iter().map(|item| self.weighted_size(item)).collect();
                let entries: Vec<WeightedSize> = entries.into_iter().collect::<Option<_>>()?;
                if entries.iter().all(|entry| entry.weight == 0.0) {
                    self.bad(node, "value", "at least one size with a positive weight");
                    return None;
                }
                Some(ValueSize::Weighted(entries))
            }
            _ => {
                self.bad(node, "value", VALUE_FORM);
                None
            }
        }
    }

    fn weighted_size(&mut self, node: &Node) -> Option<WeightedSize> {
        let Value::Table(table) = &node.value else {
            self.bad(node, "value", "{ size = \"100B\", weight = 9 }");
            return None;
        };
        self.known(table, "value", &["size", "weight"]);
        let (Some(size), Some(weight)) = (table.get("size"), table.get("weight")) else {
            self.bad(node, "value", "both: { size = \"100B\", weight = 9 }");
            return None;
        };
        let (bytes, weight) = (self.size(size, "size"), self.weight(weight, "weight"));
        Some(WeightedSize { bytes: bytes?, weight: weight? })
    }

    fn watchers(&mut self, root: &Table, data: &Data, phases: &[Phase]) -> Vec<Watchers> {
        let tables = self.tables(root, "watchers");
        tables.iter().filter_map(|(origin, table)| self.watcher_group(origin, table, data, phases)).collect()
    }

    fn watcher_group(
        &mut self,
        origin: &Origin,
        table: &Table,
        data: &Data,
        phases: &[Phase],
    ) -> Option<Watchers> {
        self.known(table, "[[watchers]]", &["count", "sessions", "on", "kind", "phases"]);
        for key in ["count", "on", "kind"] {
            if table.get(key).is_none() {
                self.complain(origin, format!("this [[watchers]] has no {key}"));
            }
        }
        let count = self.count(table, "count", 1..=MAX_WATCHES);
        let on = table.get("on").and_then(|node| self.watch_on(node, data));
        let kinds = [
            ("one-shot", WatchKind::OneShot),
            ("persistent", WatchKind::Persistent),
            ("recursive", WatchKind::Recursive),
        ];
        let kind = table.get("kind").and_then(|node| self.word(node, "kind", &kinds));
        let armed = self.watcher_phases(table, phases);
        let (count, on, kind, armed) = (count?, on?, kind?, armed?);
        let sessions = match table.get("sessions") {
            Some(_) => self.count(table, "sessions", 1..=MAX_SESSIONS.min(count))?,
            None if count > MAX_SESSIONS => {
                self.bad(
                    table.get("count")?,
                    "count",
                    "sessions = …: a million watchers with a session each is the limit",
                );
                return None;
            }
            None => count,
        };
        if on == WatchOn::Subtree && kind != WatchKind::Recursive {
            let expected = "\"recursive\": the other kinds see one znode, not a subtree";
            self.bad(table.get("kind")?, "kind", expected);
            return None;
        }
        // A member keeps one watch per session and path: a second one would not be there.
        let different = match on {
            WatchOn::Spread => least_common_multiple(sessions, data.znodes),
            WatchOn::Znode(_) | WatchOn::Subtree => sessions,
        };
        if count > different {
            let expected = format!(
                "at most {different}: {sessions} sessions cannot leave more watches there, \
                 because a server keeps one per session and path"
            );
            self.bad(table.get("count")?, "count", &expected);
            return None;
        }
        Some(Watchers { count, sessions: sessions as u32, on, kind, phases: armed })
    }

    fn watch_on(&mut self, node: &Node, data: &Data) -> Option<WatchOn> {
        match &node.value {
            Value::Text(text) if text == "znode" => return Some(WatchOn::Spread),
            Value::Text(text) if text == "hot" => return Some(WatchOn::Znode(0)),
            Value::Text(text) if text == "subtree" => return Some(WatchOn::Subtree),
            Value::Table(table) if table.get("znode").is_some() => {
                self.known(table, "on", &["znode"]);
                return self.count(table, "znode", 0..=data.znodes - 1).map(WatchOn::Znode);
            }
            _ => {}
        }
        self.bad(node, "on", "\"hot\" (all on key 0), \"znode\" (one each), \"subtree\", or { znode = 17 }");
        None
    }

    /// Indices of the phases in which watchers are armed: all, unless `phases` names some.
    fn watcher_phases(&mut self, table: &Table, phases: &[Phase]) -> Option<Vec<u16>> {
        let Some(node) = table.get("phases") else { return Some((0..phases.len() as u16).collect()) };
        let names: Vec<&str> = phases.iter().map(|phase| phase.name.as_str()).collect();
        let items = match &node.value {
            Value::List(items) if !items.is_empty() => items,
            _ => {
                self.bad(node, "phases", "a list of phase names");
                return None;
            }
        };
        let mut armed = Vec::new();
        for item in items {
            let known = match &item.value {
                Value::Text(text) => names.iter().position(|name| name == text),
                _ => None,
            };
            match known {
                Some(n) => armed.push(n as u16),
                None => {
                    let word = if let Value::Text(text) = &item.value { text.as_str() } else { "" };
                    self.bad(item, "phases", &format!("the name of a phase{}", hint(word, &names)));
                    return None;
                }
            }
        }
        armed.sort_unstable();
        armed.dedup();
        Some(armed)
    }

    fn faults(&mut self, root: &Table, phases: &[Phase]) -> Vec<Fault> {
        let end_ns = phases.iter().fold(0u64, |sum, phase| sum.saturating_add(phase.duration_ns));
        let tables = self.tables(root, "fault");
        let mut faults: Vec<Fault> =
            tables.iter().flat_map(|(origin, table)| self.fault(origin, table, end_ns)).flatten().collect();
        faults.sort_by_key(|fault| fault.at_ns);
        faults
    }

    /// One table; several faults if it repeats.
    fn fault(&mut self, origin: &Origin, table: &Table, end_ns: u64) -> Option<Vec<Fault>> {
        self.known(table, "[[fault]]", &["at", "kind", "target", "for", "delay", "repeat", "every"]);
        for key in ["at", "kind", "target"] {
            if table.get(key).is_none() {
                self.complain(origin, format!("this [[fault]] has no {key}"));
            }
        }
        let at_ns = self.duration(table, "at");
        let for_ns = self.positive_duration(table, "for", MAX_PHASE_NS);
        let target = table.get("target").and_then(|node| {
            self.member(
                node,
                "target",
                TARGET_FORM,
                |word| match word {
                    "leader" => Some(FaultTarget::Leader),
                    "follower" => Some(FaultTarget::Follower),
                    "quorum" => Some(FaultTarget::Quorum),
                    "all" => Some(FaultTarget::All),
                    _ => None,
                },
                FaultTarget::Server,
            )
        });
        let kind = self.fault_kind(table)?;
        let repeat = self.count(table, "repeat", 1..=REPEAT_MAX).unwrap_or(1);
        let every_ns = self.positive_duration(table, "every", MAX_PHASE_NS);
        if table.get("repeat").is_some() != table.get("every").is_some() {
            let node = table.get("repeat").or(table.get("every"))?;
            self.bad(node, "repeat", "repeat and every together: repeat = 20, every = \"8s\"");
            return None;
        }
        if let (Some(every_ns), Some(for_ns), Some(node)) = (every_ns, for_ns, table.get("every"))
            && every_ns <= for_ns
        {
            self.bad(node, "every", "more than for: a fault ends before it strikes again");
        }
        let at_ns = at_ns?;
        let every_ns = every_ns.unwrap_or(0);
        let last_ns = at_ns.saturating_add(every_ns.saturating_mul(repeat - 1));
        if last_ns >= end_ns {
            let end = human_duration(end_ns);
            let key = if at_ns >= end_ns { "at" } else { "repeat" };
            let expected = match key {
                "at" => format!("a time before the run's end ({end})"),
                _ => format!(
                    "fewer: the last would strike at {}, the run ends at {end}",
                    human_duration(last_ns)
                ),
            };
            self.bad(table.get(key)?, key, &expected);
        }
        let (target, place) = (target?, self.source.place(origin));
        let fault =
            |n: u64| Fault { at_ns: at_ns + every_ns * n, kind, target, for_ns, place: place.clone() };
        Some((0..repeat).map(fault).collect())
    }

    /// What happens to the member, and whether that has the figures it needs.
    fn fault_kind(&mut self, table: &Table) -> Option<FaultKind> {
        let delay_ns = self.positive_duration(table, "delay", 3600 * 1_000_000_000);
        let node = table.get("kind")?;
        let slow = FaultKind::SlowDisk { delay_ns: delay_ns.unwrap_or(0) };
        let kinds = [
            ("kill", FaultKind::Kill),
            ("stop", FaultKind::Stop),
            ("restart", FaultKind::Restart),
            ("cut", FaultKind::Cut),
            ("slow-disk", slow),
        ];
        let kind = self.word(node, "kind", &kinds)?;
        let is_slow = matches!(kind, FaultKind::SlowDisk { .. });
        if is_slow != table.get("delay").is_some() {
            let what = "a delay with slow-disk, and only with it: delay = \"100ms\" is added to every sync";
            self.bad(table.get("delay").unwrap_or(node), if is_slow { "kind" } else { "delay" }, what);
        }
        let ends = matches!(kind, FaultKind::Stop | FaultKind::Cut) || is_slow;
        if ends && table.get("for").is_none() {
            self.bad(node, "kind", "a length with it: for = \"5s\"");
        }
        Some(kind)
    }

    fn expectations(&mut self, root: &Table) -> Vec<Expectation> {
        let Some(node) = root.get("expect") else { return Vec::new() };
        let Value::List(items) = &node.value else {
            self.bad(node, "expect", "a list such as [\"response.get.p99 < 5ms\"]");
            return Vec::new();
        };
        let mut expectations = Vec::new();
        for item in items {
            match &item.value {
                Value::Text(text) => match Expectation::parse(text) {
                    Ok(expectation) => expectations.push(expectation),
                    Err(why) => self.complain(&item.origin, format!("expectation `{text}`: {why}")),
                },
                _ => self.bad(item, "expect", "a string such as \"response.get.p99 < 5ms\""),
            }
        }
        expectations
    }

    /// Checks that need several sections; made when the sections themselves are in order.
    fn cross(&mut self, spec: &Spec, root: &Table) {
        if !self.errors.is_empty() {
            return;
        }
        let space = KeySpace::new(&spec.data);
        let room = zoometry_wire::frame::DEFAULT_MAX_FRAME - FRAME_RESERVE - space.path_bytes();
        let check_value = |check: &mut Self, table: &Table, value: &ValueSize| {
            if let Some(node) = table.get("value").filter(|_| value.largest() as usize > room) {
                let limit = zoometry_wire::frame::DEFAULT_MAX_FRAME;
                let expected =
                    format!("at most {room} bytes: jute.maxbuffer ({limit}) less path and headers");
                check.bad(node, "value", &expected);
            }
        };
        if let Some(table) = self.table(root, "data") {
            check_value(self, &table, &spec.data.value);
        }
        let tables = self.tables(root, "phase");
        for (phase, (_, table)) in spec.phases.iter().zip(&tables) {
            check_value(self, table, &phase.value);
            let listing =
                space.widest() * (space.name_bytes() as u64 + NAME_LENGTH_PREFIX) + FRAME_RESERVE as u64;
            if phase.issues(Op::Children) && listing > zoometry_wire::frame::DEFAULT_MAX_FRAME as u64 {
                let expected = format!(
                    "no children with {} znodes under one parent: the answer ({listing} bytes) exceeds jute.maxbuffer; \
                     use data.shape = {{ fanout = 1000 }}",
                    space.widest()
                );
                self.bad(table.get("mix").expect("required"), "mix", &expected);
            }
        }
        let Some(Node { value: Value::List(items), .. }) = root.get("expect") else { return };
        for (expectation, item) in spec.expect.iter().zip(items) {
            if let Err(why) = expectation.check(spec) {
                self.complain(&item.origin, format!("expectation `{}`: {why}", expectation.text));
            }
        }
    }
}

fn least_common_multiple(a: u64, b: u64) -> u64 {
    let (mut x, mut y) = (a, b);
    while y != 0 {
        (x, y) = (y, x % y);
    }
    (a / x).saturating_mul(b)
}

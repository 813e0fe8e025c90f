//! A TOML document whose every key and value remembers where it came from: a place in the file, or a
//! `--set`.
//!
//! Overrides are written into the tree before anybody looks at it, so they go through the same checks as
//! the file, and a complaint about one names the `--set`. The `[defaults]` of phases are merged here as
//! well. Nothing here knows what the keys mean, except that tables in an array are addressed by their
//! `name`.

use std::ops::Range;

use toml::de::{DeTable, DeValue};

use super::{SpecError, nearest};

/// A file that is no TOML at all has a fault on every line; so many are told.
const SYNTAX_TOLD: usize = 5;

/// The file as read, and the overrides; turns origins into places.
#[derive(Debug)]
pub(super) struct Source<'a> {
    pub(super) file: &'a str,
    pub(super) text: &'a str,
    pub(super) overrides: &'a [String],
}

/// Where a key or value was written.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Origin {
    /// Bytes from here to there of the file.
    File(usize, usize),
    /// The n-th override.
    Set(usize),
}

#[derive(Debug, Clone)]
pub(super) struct Node {
    pub(super) origin: Origin,
    pub(super) value: Value,
}

#[derive(Debug, Clone)]
pub(super) enum Value {
    Text(String),
    Integer(i128),
    Float(f64),
    Boolean(bool),
    /// Dates and times: TOML has them, no key wants them.
    Date,
    List(Vec<Node>),
    Table(Table),
}

/// Keys in the order of the file, then those that only overrides brought.
#[derive(Debug, Clone, Default)]
pub(super) struct Table {
    pub(super) entries: Vec<(Key, Node)>,
}

#[derive(Debug, Clone)]
pub(super) struct Key {
    pub(super) origin: Origin,
    pub(super) name: String,
}

impl Source<'_> {
    /// `file:line:column` (both from 1, columns in characters), or `--set key=value`.
    pub(super) fn place(&self, origin: &Origin) -> String {
        match *origin {
            Origin::Set(n) => format!("--set {}", self.overrides[n]),
            Origin::File(start, _) => {
                let before = self.text.get(..start).unwrap_or(self.text);
                let line_start = before.rfind('\n').map_or(0, |at| at + 1);
                let line = before.matches('\n').count() + 1;
                format!("{}:{line}:{}", self.file, before[line_start..].chars().count() + 1)
            }
        }
    }

    /// A complaint about what stands at `origin`.
    pub(super) fn error(&self, origin: &Origin, what: String) -> (Origin, SpecError) {
        (origin.clone(), SpecError { place: self.place(origin), what })
    }

    /// The document with overrides and phase defaults applied, or everything that keeps it from being read.
    pub(super) fn read(&self) -> Result<Table, Vec<(Origin, SpecError)>> {
        let (document, syntax) = DeTable::parse_recoverable(self.text);
        if !syntax.is_empty() {
            let mut told: Vec<_> =
                syntax.iter().take(SYNTAX_TOLD).map(|error| self.syntax_error(error)).collect();
            if let (Some((_, last)), more @ 1..) = (told.last_mut(), syntax.len().saturating_sub(SYNTAX_TOLD))
            {
                last.what.push_str(&format!("; and {more} more: expected a workload file"));
            }
            return Err(told);
        }
        let mut root = table(document.into_inner(), &|span| Origin::File(span.start, span.end));
        let mut errors = Vec::new();
        // Defaults reach the phases between overriding the former and overriding the latter: `--set
        // phase.x.mix.get=5` must find the mix that the phase has by default.
        for of_defaults in [true, false] {
            for (n, text) in self.overrides.iter().enumerate() {
                if text.trim_start().starts_with("defaults.") == of_defaults
                    && let Err(what) = apply(&mut root, text, n)
                {
                    errors.push(self.error(&Origin::Set(n), what));
                }
            }
            if of_defaults {
                merge_defaults(&mut root);
            }
        }
        if errors.is_empty() { Ok(root) } else { Err(errors) }
    }

    fn syntax_error(&self, error: &toml::de::Error) -> (Origin, SpecError) {
        let span = error.span().unwrap_or(0..0);
        let line = self.text.get(span.start..).and_then(|rest| rest.lines().next()).unwrap_or("");
        let near = if line.is_empty() { String::new() } else { format!(" at `{}`", shortened(line)) };
        self.error(&Origin::File(span.start, span.end), format!("not TOML{near}: {}", error.message()))
    }

    /// What stands there, as written, on one line.
    pub(super) fn written(&self, node: &Node) -> String {
        match (&node.origin, &node.value) {
            (&Origin::File(start, end), _) => shortened(self.text.get(start..end).unwrap_or("")),
            (Origin::Set(_), Value::Text(text)) => format!("\"{}\"", shortened(text)),
            (Origin::Set(_), Value::Integer(number)) => number.to_string(),
            (Origin::Set(_), Value::Float(number)) => number.to_string(),
            (Origin::Set(_), Value::Boolean(flag)) => flag.to_string(),
            (&Origin::Set(n), _) => {
                shortened(self.overrides[n].split_once('=').map_or("", |(_, value)| value.trim()))
            }
        }
    }
}

/// The first line, at most 60 characters of it.
fn shortened(text: &str) -> String {
    let line = text.lines().next().unwrap_or("");
    let mut short: String = line.chars().take(60).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    short
}

impl Table {
    pub(super) fn get(&self, name: &str) -> Option<&Node> {
        self.entries.iter().find(|(key, _)| key.name == name).map(|(_, node)| node)
    }

    fn entry(&mut self, name: &str, origin: Origin, missing: Value) -> &mut Node {
        let found = self.entries.iter().position(|(key, _)| key.name == name);
        let at = found.unwrap_or_else(|| {
            let key = Key { origin: origin.clone(), name: name.to_string() };
            self.entries.push((key, Node { origin, value: missing }));
            self.entries.len() - 1
        });
        &mut self.entries[at].1
    }
}

impl Node {
    /// What it is, for complaints: "the string", "a table".
    pub(super) fn kind(&self) -> &'static str {
        match self.value {
            Value::Text(_) => "a string",
            Value::Integer(_) | Value::Float(_) => "a number",
            Value::Boolean(_) => "true or false",
            Value::Date => "a date",
            Value::List(_) => "a list",
            Value::Table(_) => "a table",
        }
    }
}

fn table(from: DeTable<'_>, origin: &dyn Fn(Range<usize>) -> Origin) -> Table {
    let mut entries: Vec<(Key, Node)> = from
        .into_iter()
        .map(|(key, value)| {
            let key_origin = origin(key.span());
            (Key { origin: key_origin, name: key.into_inner().into_owned() }, node(value, origin))
        })
        .collect();
    entries.sort_by(|(a, _), (b, _)| a.origin.cmp(&b.origin));
    Table { entries }
}

fn node(from: toml::Spanned<DeValue<'_>>, origin: &dyn Fn(Range<usize>) -> Origin) -> Node {
    let origin_here = origin(from.span());
    let value = match from.into_inner() {
        DeValue::String(text) => Value::Text(text.into_owned()),
        DeValue::Integer(integer) => match i128::from_str_radix(integer.as_str(), integer.radix()) {
            Ok(integer) => Value::Integer(integer),
            Err(_) => Value::Float(f64::NAN), // longer than any number that a key takes: refused by its range
        },
        DeValue::Float(float) => Value::Float(float.as_str().parse().unwrap_or(f64::NAN)),
        DeValue::Boolean(flag) => Value::Boolean(flag),
        DeValue::Datetime(_) => Value::Date,
        DeValue::Array(list) => Value::List(list.into_iter().map(|item| node(item, origin)).collect()),
        DeValue::Table(entries) => Value::Table(table(entries, origin)),
    };
    Node { origin: origin_here, value }
}

/// Copies what `[defaults]` says into every phase that does not say it itself. A key is taken whole: a
/// phase's `mix` replaces the default one, it is not mixed with it.
fn merge_defaults(root: &mut Table) {
    let Some(Node { value: Value::Table(defaults), .. }) = root.get("defaults") else { return };
    let defaults = defaults.clone();
    let phases = root.entries.iter_mut().find(|(key, _)| key.name == "phase");
    let Some((_, Node { value: Value::List(phases), .. })) = phases else { return };
    for phase in phases {
        if let Value::Table(phase) = &mut phase.value {
            for (key, node) in &defaults.entries {
                if phase.get(&key.name).is_none() {
                    phase.entries.push((key.clone(), node.clone()));
                }
            }
        }
    }
}

/// Writes the n-th override into the tree.
fn apply(root: &mut Table, text: &str, n: usize) -> Result<(), String> {
    let Some((path, value)) = text.split_once('=') else {
        return Err("expected KEY=VALUE, such as phase.steady.duration=5s".to_string());
    };
    let value = override_value(value.trim(), n)?;
    let steps: Vec<&str> = path.trim().split('.').map(str::trim).collect();
    if steps.iter().any(|step| step.is_empty()) {
        return Err(format!("`{}` is no key: expected names with dots between them", path.trim()));
    }
    set_in_table(root, &steps, &value, n, "")
}

/// TOML where it is TOML, a string otherwise: `5s` needs no quotes.
fn override_value(text: &str, n: usize) -> Result<Node, String> {
    match DeValue::parse(text) {
        Ok(value) => Ok(node(value, &|_| Origin::Set(n))),
        Err(error) if text.starts_with(['{', '[', '"', '\'']) => {
            Err(format!("not TOML: {}", error.message()))
        }
        Err(_) => Ok(Node { origin: Origin::Set(n), value: Value::Text(text.to_string()) }),
    }
}

fn set_in_table(
    table: &mut Table,
    steps: &[&str],
    value: &Node,
    n: usize,
    so_far: &str,
) -> Result<(), String> {
    let (step, rest) = (steps[0], &steps[1..]);
    let here = if so_far.is_empty() { step.to_string() } else { format!("{so_far}.{step}") };
    if rest.is_empty() {
        *table.entry(step, Origin::Set(n), Value::Boolean(false)) = value.clone();
        // Whatever the key's own place was, a complaint about it now is one about the override.
        if let Some((key, _)) = table.entries.iter_mut().find(|(key, _)| key.name == step) {
            key.origin = Origin::Set(n);
        }
        return Ok(());
    }
    match &mut table.entry(step, Origin::Set(n), Value::Table(Table::default())).value {
        Value::Table(inner) => set_in_table(inner, rest, value, n, &here),
        Value::List(items) => set_in_list(items, rest, value, n, &here),
        _ => Err(format!("`{here}` is a single value; it has no `{}` in it", rest[0])),
    }
}

/// An element of a list, or what is in it: by its name, by its number from 1, or all of them with `*`.
fn set_in_list(
    items: &mut [Node],
    steps: &[&str],
    value: &Node,
    n: usize,
    so_far: &str,
) -> Result<(), String> {
    let (step, rest) = (steps[0], &steps[1..]);
    let names: Vec<String> = items.iter().map(|item| name_of(item).unwrap_or_default().to_string()).collect();
    let chosen: Vec<usize> = match step {
        "*" => (0..items.len()).collect(),
        _ => names
            .iter()
            .position(|name| name == step)
            .or_else(|| step.parse::<usize>().ok()?.checked_sub(1).filter(|&at| at < items.len()))
            .into_iter()
            .collect(),
    };
    if chosen.is_empty() {
        let known: Vec<&str> = names.iter().map(String::as_str).filter(|name| !name.is_empty()).collect();
        let hint = nearest(step, &known).map_or_else(
            || match known.is_empty() {
                true => format!("; there are {}, numbered from 1", items.len()),
                false => format!("; there is {}", known.join(", ")),
            },
            |near| format!("; did you mean `{near}`?"),
        );
        return Err(format!("there is no {so_far} `{step}`{hint}"));
    }
    for at in chosen {
        match &mut items[at].value {
            Value::Table(table) if !rest.is_empty() => {
                set_in_table(table, rest, value, n, &format!("{so_far}.{step}"))?;
            }
            Value::Table(_) | Value::List(_) => {
                return Err(format!(
                    "expected a key inside {so_far}.{step}, such as {so_far}.{step}.duration"
                ));
            }
            _ if rest.is_empty() => items[at] = value.clone(),
            _ => {
                return Err(format!("`{so_far}.{step}` is a single value; it has no `{}` in it", rest[0]));
            }
        }
    }
    Ok(())
}

fn name_of(node: &Node) -> Option<&str> {
    let Value::Table(table) = &node.value else { return None };
    match &table.get("name")?.value {
        Value::Text(name) => Some(name),
        _ => None,
    }
}

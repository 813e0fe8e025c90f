//! Readers of single values: a count, a duration, a rate, a word out of a list. Each takes a key from a
//! table and gives `None` for what is not there, or was not as expected and has been complained about.

use super::document::{Node, Origin, Source, Table, Value};
use super::quantity::{self, DURATION_FORM, RATE_FORM, SIZE_FORM};
use super::{SpecError, hint, near_hint};

const MAX_SERVERS: u64 = 255;
const MAX_RATE: f64 = 1e9;

/// Collects complaints while a document is read.
pub(super) struct Check<'a> {
    pub(super) source: &'a Source<'a>,
    pub(super) errors: Vec<(Origin, SpecError)>,
}

impl Check<'_> {
    pub(super) fn complain(&mut self, origin: &Origin, what: String) {
        self.errors.push(self.source.error(origin, what));
    }

    /// `duration = "5x": expected a duration …`
    pub(super) fn bad(&mut self, node: &Node, key: &str, expected: &str) {
        let written = self.source.written(node);
        self.complain(&node.origin, format!("{key} = {written}: expected {expected}"));
    }

    pub(super) fn known(&mut self, table: &Table, what: &str, known: &[&str]) {
        for (key, _) in &table.entries {
            if !known.contains(&key.name.as_str()) {
                let hint = hint(&key.name, known);
                self.complain(&key.origin, format!("unknown key `{}` in {what}{hint}", key.name));
            }
        }
    }

    pub(super) fn table(&mut self, from: &Table, key: &str) -> Option<Table> {
        let node = from.get(key)?;
        match &node.value {
            Value::Table(table) => Some(table.clone()),
            _ => {
                self.bad(node, key, &format!("a table: [{key}]"));
                None
            }
        }
    }

    pub(super) fn tables(&mut self, from: &Table, key: &str) -> Vec<(Origin, Table)> {
        let Some(node) = from.get(key) else { return Vec::new() };
        let items = match &node.value {
            Value::List(items) => items,
            _ => {
                self.complain(
                    &node.origin,
                    format!("{key} is {}: expected [[{key}]], with two brackets", node.kind()),
                );
                return Vec::new();
            }
        };
        let mut tables = Vec::new();
        for item in items {
            match &item.value {
                Value::Table(table) => tables.push((item.origin.clone(), table.clone())),
                _ => self.bad(item, key, &format!("a table: [[{key}]]")),
            }
        }
        tables
    }

    pub(super) fn text(&mut self, table: &Table, key: &str) -> Option<String> {
        let node = table.get(key)?;
        match &node.value {
            Value::Text(text) => Some(text.clone()),
            // `--set name=7` means the string.
            Value::Integer(number) if matches!(node.origin, Origin::Set(_)) => Some(number.to_string()),
            _ => {
                self.bad(node, key, &format!("a string, found {}", node.kind()));
                None
            }
        }
    }

    pub(super) fn name(&mut self, table: &Table, key: &str) -> Option<String> {
        let name = self.text(table, key)?;
        let good = !name.is_empty() && name.len() <= 64 && !name.starts_with('-');
        if !good || !name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_') {
            let expected = "a name of letters, digits, - and _ (up to 64): it becomes part of file names";
            self.bad(table.get(key).expect("was read"), key, expected);
            return None;
        }
        Some(name)
    }

    pub(super) fn flag(&mut self, table: &Table, key: &str) -> Option<bool> {
        let node = table.get(key)?;
        if let Value::Boolean(flag) = node.value {
            return Some(flag);
        }
        self.bad(node, key, "true or false");
        None
    }

    pub(super) fn count(
        &mut self,
        table: &Table,
        key: &str,
        range: std::ops::RangeInclusive<u64>,
    ) -> Option<u64> {
        let node = table.get(key)?;
        let count = match node.value {
            Value::Integer(number) => u64::try_from(number).ok(),
            _ => None,
        };
        let good = count.filter(|count| range.contains(count));
        if good.is_none() {
            self.bad(node, key, &format!("a whole number from {} to {}", range.start(), range.end()));
        }
        good
    }

    pub(super) fn duration(&mut self, table: &Table, key: &str) -> Option<u64> {
        let node = table.get(key)?;
        let duration_ns = match &node.value {
            Value::Text(text) => quantity::duration_ns(text),
            _ => None,
        };
        if duration_ns.is_none() {
            self.bad(node, key, DURATION_FORM);
        }
        duration_ns
    }

    pub(super) fn positive_duration(&mut self, table: &Table, key: &str, limit_ns: u64) -> Option<u64> {
        let duration_ns = self.duration(table, key)?;
        if duration_ns == 0 || duration_ns > limit_ns {
            let expected = format!("a duration above zero, up to {}", human_duration(limit_ns));
            self.bad(table.get(key).expect("was read"), key, &expected);
            return None;
        }
        Some(duration_ns)
    }

    pub(super) fn rate(&mut self, node: &Node, key: &str) -> Option<f64> {
        let rate = match &node.value {
            Value::Text(text) => quantity::rate_per_s(text),
            _ => number_of(node),
        };
        let good = rate.filter(|&rate| rate <= MAX_RATE);
        if good.is_none() {
            self.bad(node, key, &format!("{RATE_FORM}, up to {MAX_RATE}/s"));
        }
        good
    }

    pub(super) fn positive_rate(&mut self, node: &Node, key: &str) -> Option<f64> {
        let rate = self.rate(node, key)?;
        if rate == 0.0 {
            self.bad(node, key, "a rate above zero");
            return None;
        }
        Some(rate)
    }

    pub(super) fn size(&mut self, node: &Node, key: &str) -> Option<u32> {
        let bytes = match &node.value {
            Value::Text(text) => quantity::size_bytes(text),
            Value::Integer(number) => u64::try_from(*number).ok(),
            _ => None,
        };
        let good = bytes.and_then(|bytes| u32::try_from(bytes).ok());
        if good.is_none() {
            self.bad(node, key, SIZE_FORM);
        }
        good
    }

    pub(super) fn weight(&mut self, node: &Node, key: &str) -> Option<f64> {
        let weight = number_of(node).filter(|&weight| weight <= 1e12);
        if weight.is_none() {
            self.bad(node, key, "a weight: a number from 0 up");
        }
        weight
    }

    pub(super) fn word<T: Copy>(&mut self, node: &Node, key: &str, words: &[(&str, T)]) -> Option<T> {
        let names: Vec<&str> = words.iter().map(|&(name, _)| name).collect();
        let text = if let Value::Text(text) = &node.value { text.as_str() } else { "" };
        let found = words.iter().find(|&&(name, _)| name == text).map(|&(_, value)| value);
        if found.is_none() {
            self.bad(node, key, &format!("one of {}{}", names.join(", "), near_hint(text, &names)));
        }
        found
    }

    /// A word, or `server.n` (`server n` before).
    pub(super) fn member<T>(
        &mut self,
        node: &Node,
        key: &str,
        form: &str,
        word: impl Fn(&str) -> Option<T>,
        server: impl Fn(u32) -> T,
    ) -> Option<T> {
        let text = if let Value::Text(text) = &node.value { text.as_str() } else { "" };
        let numbered = || {
            let n: u64 = text.strip_prefix("server")?.strip_prefix(['.', ' '])?.trim().parse().ok()?;
            (1..=MAX_SERVERS).contains(&n).then(|| server(n as u32))
        };
        let found = word(text).or_else(numbered);
        if found.is_none() {
            self.bad(node, key, form);
        }
        found
    }
}

/// A number from 0 up, whole or not.
pub(super) fn number_of(node: &Node) -> Option<f64> {
    let number = match node.value {
        Value::Integer(number) => number as f64,
        Value::Float(number) => number,
        _ => return None,
    };
    (number.is_finite() && number >= 0.0).then_some(number)
}

pub(super) fn human_duration(ns: u64) -> String {
    humantime::format_duration(std::time::Duration::from_nanos(ns)).to_string()
}

//! Who spans come from: OpenTelemetry's resource.
//!
//! `service.name` tells members apart (`zoometry-1`, `zoometry-2`), because Jaeger names, colours and groups
//! by nothing else. `OTEL_SERVICE_NAME` and `OTEL_RESOURCE_ATTRIBUTES` have the last word, as the
//! specification says. Whoever starts members as child processes must not hand `OTEL_SERVICE_NAME` down.

use crate::span::{Attr, Value};
use std::borrow::Cow;

/// Attributes of the process that spans come from.
#[derive(Debug, Clone, PartialEq)]
pub struct Resource {
    attrs: Vec<Attr>,
}

impl Resource {
    /// The load generator, in this run.
    pub fn load_generator(version: &'static str, run: &str) -> Self {
        Self::process("zoometry-load", run, version)
    }

    /// A member of an ensemble.
    pub fn member(version: &'static str, ensemble: &str, myid: u64) -> Self {
        let mut resource = Self::process(&format!("{ensemble}-{myid}"), &myid.to_string(), version);
        resource.set("service.namespace", ensemble.to_owned().into());
        resource
    }

    fn process(service: &str, instance: &str, version: &'static str) -> Self {
        let mut resource = Self { attrs: Vec::with_capacity(8) };
        resource.set("service.name", service.to_owned().into());
        resource.set("service.instance.id", instance.to_owned().into());
        resource.set("service.version", version.into());
        resource.set("process.pid", i64::from(std::process::id()).into());
        if let Some(name) = first_line("/proc/sys/kernel/hostname") {
            resource.set("host.name", name.into());
        }
        if let Some(id) = first_line("/etc/machine-id") {
            resource.set("host.id", id.into());
        }
        resource
    }

    /// The same, under another `service.name`.
    pub fn named(mut self, service: &str) -> Self {
        self.set("service.name", service.to_owned().into());
        self
    }

    /// With what the environment says on top: `OTEL_RESOURCE_ATTRIBUTES`, then `OTEL_SERVICE_NAME`.
    pub fn with_env(self) -> Self {
        self.with_variables(|name| std::env::var(name).ok())
    }

    pub(crate) fn with_variables(mut self, variable: impl Fn(&str) -> Option<String>) -> Self {
        for pair in variable("OTEL_RESOURCE_ATTRIBUTES").unwrap_or_default().split(',') {
            if let Some((key, value)) = pair.split_once('=')
                && !key.trim().is_empty()
            {
                let value = percent_decoded(value.trim());
                self.set(key.trim().to_owned(), value.into());
            }
        }
        if let Some(name) = variable("OTEL_SERVICE_NAME").filter(|name| !name.is_empty()) {
            self.set("service.name", name.into());
        }
        self
    }

    /// The attributes.
    pub fn attrs(&self) -> &[Attr] {
        &self.attrs
    }

    /// `service.name`.
    pub fn service_name(&self) -> &str {
        self.text("service.name")
    }

    /// `service.version`.
    pub fn service_version(&self) -> &str {
        self.text("service.version")
    }

    fn text(&self, key: &str) -> &str {
        match self.attrs.iter().find(|attr| attr.key == key).map(|attr| &attr.value) {
            Some(Value::Str(text)) => text,
            _ => "",
        }
    }

    fn set(&mut self, key: impl Into<Cow<'static, str>>, value: Value) {
        let key = key.into();
        match self.attrs.iter_mut().find(|attr| attr.key == key) {
            Some(attr) => attr.value = value,
            None => self.attrs.push(Attr { key, value }),
        }
    }
}

fn first_line(path: &str) -> Option<String> {
    let text = std::fs::read_to_string(path).ok()?;
    text.lines().next().map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned)
}

/// `%2C` and the like, as W3C Baggage writes them; a broken escape stays as it is.
pub(crate) fn percent_decoded(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let escaped = (bytes[at] == b'%')
            .then(|| text.get(at + 1..at + 3).and_then(|hex| u8::from_str_radix(hex, 16).ok()))
            .flatten();
        out.push(escaped.unwrap_or(bytes[at]));
        at += if escaped.is_some() { 3 } else { 1 };
    }
    String::from_utf8(out).unwrap_or_else(|_| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environment_has_the_last_word() {
        let resource = Resource::member("1.0", "zoo", 3).with_variables(|name| match name {
            "OTEL_RESOURCE_ATTRIBUTES" => Some("team=a%2Cb, service.name=no ,broken,=x,pct=50%".into()),
            "OTEL_SERVICE_NAME" => Some("animals".into()),
            _ => None,
        });
        assert_eq!(resource.service_name(), "animals");
        assert_eq!(resource.text("team"), "a,b");
        assert_eq!(resource.text("pct"), "50%");
        assert_eq!(resource.text("service.namespace"), "zoo");
        assert_eq!(resource.attrs().iter().filter(|a| a.key == "service.name").count(), 1);
    }

    #[test]
    fn members_have_names_of_their_own() {
        assert_eq!(Resource::member("1.0", "zoo", 3).service_name(), "zoo-3");
        assert_eq!(Resource::load_generator("1.0", "r1").service_name(), "zoometry-load");
    }
}

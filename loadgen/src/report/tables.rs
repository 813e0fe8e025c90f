//! The report's tables.

use std::fmt::Write;

use crate::charts::escape;
use crate::figures;
use crate::promises::{Promise, Promises, Record};
use crate::results::{Manifest, RunData};
use crate::summary::{Latency, OpSummary, PhaseSummary, Summary};
use crate::verdict::{Grade, Verdict};

/// The verdict with its reasons.
pub(super) fn verdict(verdict: &Verdict) -> String {
    let meaning = match verdict.grade {
        Grade::Valid => "Nothing was found that would distort these figures.",
        Grade::Suspect => "Something may have coloured these figures:",
        Grade::Invalid => "These figures do not describe the cluster under the load that was asked for:",
    };
    let mut html = format!(
        "<div class=\"verdict {}\"><div class=grade>{}</div><div><p>{meaning}</p>",
        verdict.grade.to_string().to_lowercase(),
        verdict.grade
    );
    if !verdict.reasons.is_empty() {
        html.push_str("<ul>");
        for reason in &verdict.reasons {
            let phase = if reason.phase.is_empty() { String::new() } else { format!(" in {}", reason.phase) };
            let note = if reason.grade == Grade::Valid { " class=minor" } else { "" };
            let _ = write!(
                html,
                "<li{note}><b>{}{}</b>: {}</li>",
                escape(&reason.check),
                escape(&phase),
                escape(&reason.text)
            );
        }
        html.push_str("</ul>");
    }
    html.push_str("</div></div>");
    html
}

/// What the workload expected.
pub(super) fn expectations(manifest: &Manifest) -> String {
    if manifest.expectations.is_empty() {
        return String::new();
    }
    let mut html = "<h3>Expectations</h3><div class=scroll><table class=plain><tbody>".to_string();
    for expectation in &manifest.expectations {
        let (class, word) = if expectation.met { ("met", "met") } else { ("failed", "FAILED") };
        let _ = write!(
            html,
            "<tr><td class={class}>{word}</td><td><code>{}</code></td><td>{}</td></tr>",
            escape(&expectation.text),
            escape(&expectation.detail)
        );
    }
    html.push_str("</tbody></table></div>");
    html
}

/// How often a promise was looked at and broken, and what could not be looked at.
fn promise_row(promises: &Promises, promise: Promise, record: &Record) -> String {
    let mut text = format!("{} {} checked", figures::count(record.checked), promise.checked_are());
    let less = match promise {
        Promise::WrongValue if promises.short_values > 0 => Some((
            promises.short_values,
            "of them too short for a mark (16 bytes), checked by version, length and filling alone",
        )),
        Promise::StaleRead if promises.untracked_reads > 0 => {
            Some((promises.untracked_reads, "more of keys beyond the table of versions, not compared"))
        }
        _ => None,
    };
    if let Some((n, what)) = less {
        let _ = write!(text, ", {} {what}", figures::count(n));
    }
    if let Some(first) = &record.first {
        let times = figures::count(record.broken);
        let _ = write!(text, "; {times} times broken ({}); first: {first}", promise.name());
    }
    text
}

/// What the cluster had promised, and whether it was so.
pub(super) fn promises(manifest: &Manifest) -> String {
    let mut rows: Vec<(&str, bool, String)> = Vec::new();
    if let Some(writes) = manifest.checked_writes {
        let text = format!(
            "{} looked up at the end, {} lost",
            figures::count(writes.checked),
            figures::count(writes.lost)
        );
        rows.push(("acknowledged writes", writes.lost == 0, text));
    }
    if let Some(checks) = &manifest.checks {
        if let Some(first) = &checks.first_lost {
            rows.push(("first lost write", false, first.clone()));
        }
        let watches = &checks.watches;
        if watches.armed > 0 {
            let mut parts = vec![
                format!("{} armed", figures::count(watches.armed)),
                format!("{} events delivered", figures::count(watches.delivered)),
                format!("{} dropped", figures::count(watches.missing)),
                format!("{} doubled", figures::count(watches.duplicate)),
                format!("{} never asked for", figures::count(watches.unasked)),
            ];
            for (n, what) in [
                (watches.coalesced, "changes not told (watch not armed at that moment)"),
                (watches.while_away, "changes while a watcher was away"),
                (watches.unarmed, "watches given up, as arming them was refused"),
            ] {
                if n > 0 {
                    parts.push(format!("{} {what}", figures::count(n)));
                }
            }
            let kept = watches.missing + watches.duplicate + watches.unasked == 0;
            rows.push(("watches", kept, parts.join(", ")));
        }
        let ephemerals = &checks.ephemerals;
        if ephemerals.checked + ephemerals.expired > 0 {
            let mut text = format!(
                "{} looked for by their sessions at the end, {} lost",
                figures::count(ephemerals.checked),
                figures::count(ephemerals.lost)
            );
            if ephemerals.expired > 0 {
                let _ = write!(text, "; {} gone with expired sessions", figures::count(ephemerals.expired));
            }
            rows.push(("ephemerals of living sessions", ephemerals.lost == 0, text));
        }
        rows.extend(checks.promises.iter().filter(|(_, record)| record.checked + record.broken > 0).map(
            |(promise, record)| {
                (promise.promised(), record.broken == 0, promise_row(&checks.promises, promise, record))
            },
        ));
        let left: Vec<String> = [
            (checks.unknown, "writes of unknown outcome"),
            (checks.given_up, "operations without an answer when the run ended"),
            (checks.unsent, "operations due but not sent, as the run was cut short"),
        ]
        .into_iter()
        .filter(|(n, _)| *n > 0)
        .map(|(n, what)| format!("{} {what}", figures::count(n)))
        .collect();
        if !left.is_empty() {
            rows.push(("left open", true, left.join(", ")));
        }
    }
    if rows.is_empty() {
        return String::new();
    }
    let mut html = "<h3>Promises</h3><div class=scroll><table class=plain><tbody>".to_string();
    for (what, kept, text) in rows {
        let (class, word) = if kept { ("met", "kept") } else { ("failed", "BROKEN") };
        let word = if what == "left open" { "" } else { word };
        let _ =
            write!(html, "<tr><td class={class}>{word}</td><td>{what}</td><td>{}</td></tr>", escape(&text));
    }
    html.push_str("</tbody></table></div>");
    html
}

/// A clock's name, what it measures, and where a summary has it.
type Clock = (&'static str, &'static str, fn(&OpSummary) -> &Latency);

const CLOCKS: [Clock; 3] = [
    ("response", "due to answer: what a user waits", |op| &op.response),
    ("service", "sent to answer: what the cluster took", |op| &op.service),
    ("lag", "due to sent: what the generator and its queue took", |op| &op.lag),
];

/// Per phase and kind of operation, one table per clock, of which one is shown.
pub(super) fn summary(summary: &Summary) -> String {
    let mut html = "<div class=clocks role=group aria-label=\"which times to show\">".to_string();
    for (name, about, _) in CLOCKS {
        let _ = write!(html, "<button data-clock={name} title=\"{about}\">{name}</button>");
    }
    html.push_str("<span class=clock-about></span></div>");
    for (name, about, of) in CLOCKS {
        let _ = write!(
            html,
            "<div class=\"scroll clock\" data-clock={name}><table class=sortable><caption>{} time, {about}</caption>\
             <thead><tr><th class=text>phase</th><th class=text>operation</th><th>per second</th><th>succeeded</th>\
             <th>failed</th><th>mean</th><th>p50</th><th>p90</th><th>p99</th><th>p99.9</th>\
             <th>p99.99</th><th>max</th></tr></thead><tbody>",
            capital(name)
        );
        for phase in summary.phases.iter() {
            rows(&mut html, phase, of);
        }
        if summary.measured().count() > 1 {
            rows(&mut html, &summary.whole, of);
        }
        html.push_str("</tbody></table></div>");
    }
    html.push_str(
        "<p class=note>Times are of operations that succeeded. Rates count answers within the phase only. A dash: \
         fewer than ten samples lie above that percentile. Failed: answered with an error, lost, or never sent \
         because the backlog was full or the run over; hover for the codes.</p>",
    );
    html.push_str(&use_table(summary));
    html
}

fn rows(html: &mut String, phase: &PhaseSummary, of: fn(&OpSummary) -> &Latency) {
    let grouped = phase.ops.len() > 1;
    let name = match (phase.name.as_str(), phase.warmup) {
        ("all", _) => "all measured".to_string(),
        (name, true) if !name.contains("warm") => format!("{name} (warm-up)"),
        (name, _) => name.to_string(),
    };
    for op in phase.ops.iter().chain(phase.groups.iter().filter(|_| grouped)) {
        let group = phase.groups.iter().any(|g| g.op == op.op);
        let class = match (phase.warmup, group, phase.name.as_str()) {
            (true, ..) => " class=warmup",
            (_, true, _) => " class=group",
            (_, _, "all") => " class=whole",
            _ => "",
        };
        let latency = of(op);
        let mut codes: Vec<String> =
            op.errors_by_code.iter().map(|(code, n)| format!("{n} {code}")).collect();
        if op.missed > 0 {
            codes.push(format!("{} never sent", op.missed));
        }
        let _ = write!(
            html,
            "<tr{class}><td class=text>{}</td><td class=text>{}</td>{}{}<td data-v={} title=\"{}\">{}</td>",
            escape(&name),
            escape(&op.op),
            cell(op.rate, &figures::rate(op.rate)),
            cell(op.count as f64, &figures::count(op.count)),
            op.errors + op.missed,
            escape(&codes.join(", ")),
            figures::count(op.errors + op.missed),
        );
        let some = |us: f64| (latency.count > 0).then_some(us);
        for us in [
            some(latency.mean_us),
            latency.p50_us,
            latency.p90_us,
            latency.p99_us,
            latency.p999_us,
            latency.p9999_us,
            some(latency.max_us),
        ] {
            html.push_str(&cell(us.unwrap_or(-1.0), &figures::time_us_or_dash(us)));
        }
        html.push_str("</tr>");
    }
}

/// A number as people read it, with the number by which to sort.
fn cell(value: f64, shown: &str) -> String {
    format!("<td data-v={value}>{}</td>", escape(shown).replace(' ', "&nbsp;"))
}

fn capital(word: &str) -> String {
    let mut letters = word.chars();
    letters.next().map_or(String::new(), |first| first.to_uppercase().collect::<String>() + letters.as_str())
}

/// What the phases cost, and what they were.
fn use_table(summary: &Summary) -> String {
    let mut html = "<h3>Phases and what they cost</h3><div class=scroll><table class=sortable><thead><tr>\
                    <th class=text>phase</th><th class=text>arrivals</th><th>length</th><th>offered</th>\
                    <th>servers’ CPU per op</th><th>cores in use</th><th>generator’s CPU per op</th>\
                    <th>busiest worker</th><th class=text>longest without success</th></tr></thead><tbody>"
        .to_string();
    for phase in &summary.phases {
        let offered = phase.all().map_or(0.0, |all| all.offered as f64 / phase.seconds.max(1e-9));
        let cores: f64 = phase.servers.cores.values().sum();
        let gaps = phase
            .gaps
            .iter()
            .map(|gap| format!("{} {}", gap.class, figures::time_us((gap.to_ns - gap.from_ns) as f64 / 1e3)));
        let cpu = |us: Option<f64>| cell(us.unwrap_or(-1.0), &figures::time_us_or_dash(us));
        let _ = write!(
            html,
            "<tr{}><td class=text>{}</td><td class=text>{}</td>{}{}{}{}{}{}<td class=text>{}</td></tr>",
            if phase.warmup { " class=warmup" } else { "" },
            escape(&phase.name),
            escape(&phase.arrival_text),
            cell(phase.seconds, &figures::seconds(phase.seconds)),
            cell(offered, &format!("{}/s", figures::rate(offered))),
            cpu(phase.servers.cpu_us_per_op),
            cell(
                cores,
                &if phase.servers.cores.is_empty() { "-".to_string() } else { figures::digits(cores) }
            ),
            cpu(phase.generator.cpu_us_per_op),
            cell(phase.generator.busiest, &figures::percent(phase.generator.busiest)),
            escape(&gaps.collect::<Vec<_>>().join(", "))
        );
    }
    html.push_str("</tbody></table></div>");
    html
}

/// Faults, elections and gaps.
pub(super) fn events(run: &RunData) -> String {
    if run.events.is_empty() {
        return String::new();
    }
    let mut html =
        "<details><summary>Events (faults, roles, gaps)</summary><div class=scroll><table class=plain>\
                    <thead><tr><th>at</th><th>for</th><th class=text>kind</th><th class=text>target</th>\
                    <th class=text>what</th></tr></thead><tbody>"
            .to_string();
    for event in &run.events {
        let length = match event.duration_ns {
            0 => String::new(),
            ns => figures::time_us(ns as f64 / 1e3),
        };
        let _ = write!(
            html,
            "<tr><td>{:.3}&nbsp;s</td><td>{}</td><td class=text>{}</td><td class=text>{}</td>\
             <td class=text>{}</td></tr>",
            run.manifest.seconds(event.at_ns),
            length.replace(' ', "&nbsp;"),
            escape(&event.kind),
            escape(&event.target),
            escape(&event.detail)
        );
    }
    html.push_str("</tbody></table></div></details>");
    html
}

/// The machine, the members, the generator.
pub(super) fn environment(run: &RunData) -> String {
    let manifest = &run.manifest;
    let environment = &manifest.environment;
    let mut rows: Vec<(&str, String)> = vec![
        ("host", format!("{}, {}", environment.host, environment.kernel)),
        ("CPU", format!("{}, {} cores", environment.cpu_model, environment.cores)),
        ("memory", figures::bytes(environment.memory_bytes as f64)),
    ];
    if !environment.governor.is_empty() {
        rows.push(("frequency governor", environment.governor.clone()));
    }
    let mut limits = Vec::new();
    limits.extend(environment.cgroup_cpu_cores.map(|cores| format!("{} cores", figures::digits(cores))));
    limits.extend(environment.cgroup_memory_bytes.map(|bytes| figures::bytes(bytes as f64)));
    if !limits.is_empty() {
        rows.push(("limits of the control group", limits.join(", ")));
    }
    rows.push((
        "clock",
        format!(
            "{}, steps of {} ns, {} ns to read",
            environment.clock_source, environment.clock_step_ns, environment.clock_read_ns
        ),
    ));
    if let Some(kind) = &environment.data_filesystem {
        rows.push(("servers' data on", kind.clone()));
    }
    let place = if environment.colocated { "on this machine, sharing its cores" } else { "elsewhere" };
    rows.push(("servers", place.to_string()));
    rows.push((
        "generator",
        format!(
            "zoometry {}{}, {} workers, backlog limit {}, session timeout {} ms{}",
            manifest.version,
            manifest.revision.as_ref().map(|r| format!(" ({r})")).unwrap_or_default(),
            manifest.workers,
            figures::count(manifest.backlog_limit),
            manifest.session_timeout_ms,
            match manifest.request_timeout_ms {
                0 => String::new(),
                ms => format!(", request timeout {ms} ms"),
            }
        ),
    ));
    let mut html = "<div class=scroll><table class=plain><tbody>".to_string();
    for (name, value) in rows {
        let _ = write!(
            html,
            "<tr><th class=text>{}</th><td class=text>{}</td></tr>",
            escape(name),
            escape(&value)
        );
    }
    html.push_str("</tbody></table></div>");
    html.push_str(&members(manifest));
    html
}

fn members(manifest: &Manifest) -> String {
    if manifest.members.is_empty() {
        return String::new();
    }
    let mut html = "<div class=scroll><table class=plain><thead><tr><th class=text>member</th><th class=text>address</th><th class=text>role at \
                    start</th><th class=text>version</th><th>sessions</th><th class=text>settings</th></tr></thead>\
                    <tbody>"
        .to_string();
    for member in &manifest.members {
        let settings: Vec<String> = member.settings.iter().map(|(k, v)| format!("{k}={v}")).collect();
        let sessions = manifest.connections.get(member.key()).map_or("-".to_string(), |n| n.to_string());
        let _ = write!(
            html,
            "<tr><td class=text>{}</td><td class=text>{}</td><td class=text>{}</td><td class=text>{}</td>\
             <td>{sessions}</td>\
             <td class=\"text small\">{}</td></tr>",
            escape(member.key()),
            escape(&member.address),
            escape(&member.role),
            escape(&member.version),
            escape(&settings.join(" "))
        );
    }
    html.push_str("</tbody></table></div>");
    html
}

/// The workload itself and how to run it again.
pub(super) fn workload(manifest: &Manifest) -> String {
    let mut html = format!("<h3>To repeat it</h3><pre class=command>{}</pre>", escape(&manifest.command));
    if !manifest.overrides.is_empty() {
        let list: Vec<String> =
            manifest.overrides.iter().map(|text| format!("<code>{}</code>", escape(text))).collect();
        let _ = write!(html, "<p>Overrides: {}</p>", list.join(", "));
    }
    let _ = write!(
        html,
        "<details><summary>The workload file (hash {})</summary><pre>{}</pre></details>",
        escape(&manifest.workload_hash),
        escape(&manifest.workload_text)
    );
    html
}

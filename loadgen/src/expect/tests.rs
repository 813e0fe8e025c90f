//! Every kind of expectation once met and once failed, and everything that must never count as met.

use super::*;
use crate::spec::Spec;

/// A run of which a few numbers are known.
#[derive(Default)]
struct Run(Vec<(Option<&'static str>, Metric, f64, u64)>);

impl Measurements for Run {
    fn measured(&self, phase: Option<&str>, metric: &Metric) -> Option<Measured> {
        let known = self.0.iter().find(|(in_phase, of, ..)| *in_phase == phase && of == metric);
        known.map(|&(_, _, value, samples)| Measured { value, samples })
    }
}

/// Two measured phases after a warm-up; only the second writes. The first is a closed loop.
fn workload() -> Spec {
    let text = "[defaults]\nduration = \"10s\"\n\
                [[phase]]\nname = \"warm\"\nwarmup = true\nmix = { get = 1, set = 1 }\n\
                [[phase]]\nname = \"quiet\"\nmix = { get = 1 }\n\
                [[phase]]\nname = \"steady\"\nmix = { get = 1, set = 1, create-ephemeral = 1 }\narrival = { poisson = 1000 }\n\
                [[watchers]]\ncount = 1\non = \"hot\"\nkind = \"one-shot\"\nphases = [\"steady\"]\n\
                [[fault]]\nat = \"25s\"\nkind = \"kill\"\ntarget = \"leader\"\n";
    Spec::parse("w.toml", text, &[]).unwrap_or_else(|errors| panic!("{errors}"))
}

fn parse(text: &str) -> Expectation {
    Expectation::parse(text).unwrap_or_else(|why| panic!("{text}: {why}"))
}

fn judge(text: &str, run: &Run) -> Judged {
    let expectation = parse(text);
    expectation.check(&workload()).unwrap_or_else(|why| panic!("{text}: {why}"));
    expectation.judge(&workload(), run)
}

const MS: f64 = 1e6;

#[test]
fn each_kind_is_met_and_fails() {
    let (steady, quiet) = (Some("steady"), Some("quiet"));
    // The expectation, the phase that is asked, the value that meets it, the value that does not, and what
    // is then said.
    let table: [(&str, Option<&'static str>, f64, f64, &str); 24] = [
        (
            "phase.steady.response.get.p99 < 5ms",
            steady,
            4.9 * MS,
            7.31 * MS,
            "measured 7.31 ms (phase steady, 120,000 samples)",
        ),
        (
            "response.set.p99.9 <= 5ms",
            steady,
            5.0 * MS,
            5.004 * MS,
            "measured 5.004 ms (phase steady, 120,000 samples)",
        ),
        ("service.set.mean < 1ms", steady, 0.5 * MS, 1.5 * MS, "measured 1.50 ms"),
        ("service.writes.max < 1s", steady, 9e8, 1.5e9, "measured 1.50 s"),
        ("response.set.min > 10us", steady, 20e3, 9.5e3, "measured 9.50 µs"),
        ("phase.steady.lag.p99 < 1ms", steady, 10.0, 2.0 * MS, "measured 2.00 ms"),
        ("phase.steady.response.p50 < 500ns", steady, 400.0, 500.0, "measured 500 ns"),
        ("notify.p99 < 50ms", steady, 49.0 * MS, 51.0 * MS, "measured 51.00 ms"),
        ("phase.quiet.response.reads.p90 < 5ms", quiet, 4.0 * MS, 5.0 * MS, "measured 5.00 ms (phase quiet"),
        ("rate.set > 10000/s", steady, 10000.5, 9999.96, "measured 9999.96/s (phase steady"),
        ("phase.steady.rate >= 400/s", steady, 400.0, 399.0, "measured 399.0/s"),
        ("errors.total = 0", None, 0.0, 3.0, "measured 3 (whole run, 120,000 samples)"),
        (
            "phase.steady.errors.set.total <= 2",
            steady,
            2.0,
            3.0,
            "measured 3 (phase steady, 120,000 samples)",
        ),
        ("phase.steady.errors.share < 0.1%", steady, 0.0009, 0.001, "measured 0.10% (phase steady"),
        ("errors.set.share < 0.1%", steady, 0.0, 0.0123, "measured 1.23%"),
        ("missed.total = 0", None, 0.0, 17.0, "measured 17 (whole run"),
        ("missed.set.share < 1%", steady, 0.0, 0.5, "measured 50.00% (phase steady"),
        ("lost_acknowledged_writes = 0", None, 0.0, 1.0, "measured 1 (whole run"),
        ("failover.write_gap < 200ms", None, 150.0 * MS, 350.0 * MS, "measured 350.00 ms (whole run"),
        ("failover.write_gap.median < 100ms", None, 90.0 * MS, 110.0 * MS, "measured 110.00 ms (whole run"),
        ("failover.read_gap.worst < 200ms", None, 150.0 * MS, 350.0 * MS, "measured 350.00 ms (whole run"),
        ("failover.recovery < 1s", None, 900.0 * MS, 1100.0 * MS, "measured 1.10 s (whole run"),
        ("sessions_expired = 0", None, 0.0, 2.0, "measured 2 (whole run"),
        ("ephemerals_lost = 0", None, 0.0, 1.0, "measured 1 (whole run"),
    ];
    for (text, phase, meets, fails, said) in table {
        let run = |value| Run(vec![(phase, parse(text).metric, value, 120_000)]);
        let met = judge(text, &run(meets));
        assert!(met.met && met.to_string().starts_with(&format!("met {text}: measured ")), "{met}");
        let failed = judge(text, &run(fails));
        assert!(!failed.met && failed.to_string().starts_with(&format!("FAILED {text}: {said}")), "{failed}");
    }
}

#[test]
fn the_line_as_people_see_it() {
    let text = "response.get.p99 < 5ms";
    let metric = parse(text).metric;
    let run = Run(vec![
        (Some("quiet"), metric, 2.0 * MS, 5000),
        (Some("steady"), metric, 7.31 * MS, 120_000),
        (Some("warm"), metric, 900.0 * MS, 5000),
    ]);
    assert_eq!(
        judge(text, &run).to_string(),
        "FAILED response.get.p99 < 5ms: measured 7.31 ms (phase steady, 120,000 samples)"
    );
}

#[test]
fn every_phase_must_hold_and_the_worst_is_told() {
    let run = |text: &str, quiet: f64, steady: f64| {
        let metric = parse(text).metric;
        judge(text, &Run(vec![(Some("quiet"), metric, quiet, 5000), (Some("steady"), metric, steady, 5000)]))
    };
    let met = run("response.get.p99 < 5ms", 2.0 * MS, 3.0 * MS);
    assert_eq!((met.met, met.detail.as_str()), (true, "measured 3.00 ms (phase steady, 5,000 samples)"));
    let one = run("response.get.p99 < 5ms", 9.0 * MS, 3.0 * MS);
    assert_eq!((one.met, one.detail.as_str()), (false, "measured 9.00 ms (phase quiet, 5,000 samples)"));
    let both = run("rate.get > 100/s", 9.0, 3.0);
    assert!(!both.met);
    assert_eq!(
        both.detail,
        "measured 3.00/s (phase steady, 5,000 samples); fails in 2 of 2 phases, this is the worst"
            .replace("3.00/s", "3.0/s")
    );
}

#[test]
fn missing_data_is_a_failure() {
    let text = "response.get.p99 < 5ms";
    let metric = parse(text).metric;
    let said = |run: &Run| {
        let judged = judge(text, run);
        assert!(!judged.met);
        judged.detail
    };
    assert_eq!(said(&Run::default()), "nothing was measured (phase quiet)");
    // One good phase does not make up for another without data.
    assert_eq!(said(&Run(vec![(Some("quiet"), metric, 1.0, 5000)])), "nothing was measured (phase steady)");
    let zero = Run(vec![(Some("quiet"), metric, 0.0, 0), (Some("steady"), metric, 1.0, 5000)]);
    assert_eq!(said(&zero), "no operation was answered (phase quiet)");
    let few = Run(vec![(Some("quiet"), metric, 1.0, 999), (Some("steady"), metric, 1.0, 5000)]);
    assert_eq!(said(&few), "p99 needs 1000 samples, there are 999 (phase quiet)");
    let nan = Run(vec![(Some("quiet"), metric, f64::NAN, 5000), (Some("steady"), metric, 1.0, 5000)]);
    assert_eq!(said(&nan), "the measured value is NaN (phase quiet)");
}

#[test]
fn no_samples_fail_counts_too() {
    for (text, said) in [
        ("errors.total = 0", "no operation ended (whole run)"),
        ("missed.total = 0", "no operation was due (whole run)"),
        ("lost_acknowledged_writes = 0", "no acknowledged write was checked (whole run)"),
        ("failover.write_gap < 1s", "no fault was measured (or not every one) (whole run)"),
        ("sessions_expired = 0", "no session was opened (whole run)"),
    ] {
        let judged = judge(text, &Run(vec![(None, parse(text).metric, 0.0, 0)]));
        assert_eq!((judged.met, judged.detail.as_str()), (false, said), "{text}");
    }
    let rate =
        judge("rate.set < 100/s", &Run(vec![(Some("steady"), Metric::Rate(Ops::One(Op::Set)), 0.0, 0)]));
    assert!(!rate.met, "an upper bound on a rate is not met by silence: {rate}");
}

#[test]
fn what_is_no_expectation() {
    let table = [
        ("", "expected a metric, a relation"),
        ("response.get.p99", "expected a metric, a relation"),
        ("response.get.p99 < ", "bound ``: expected a duration"),
        ("response.get.p99 < 5", "bound `5`: expected a duration"),
        ("response.get.p99 ~ 5ms", "expected a metric, a relation"),
        ("rate.get > 5ms", "bound `5ms`: expected a rate"),
        ("errors.share < 5/s", "bound `5/s`: expected a share"),
        ("errors.total = none", "bound `none`: expected a number"),
        ("errors.total == 0", "bound `= 0`: expected a number"),
        ("errors.get = 0", "`get` in `errors.get`: expected errors.total or errors.share"),
        ("error.total = 0", "unknown metric `error.total`; did you mean `errors`?"),
        ("latency.p99 < 5ms", "unknown metric `latency.p99`; expected the like of response.get.p99"),
        ("response.get.p100 < 5ms", "`p100` after `get`: expected min, mean, max or a percentile"),
        ("response.get.p0 < 5ms", "`p0` after `get`"),
        ("response.get.median < 5ms", "`median` after `get`"),
        ("response.get < 5ms", "`` after `get`"),
        ("response.writs.p99 < 5ms", "unknown operation `writs`; did you mean `writes`?"),
        ("notify.get.p99 < 5ms", "`get.p99` after notify"),
        ("phase.steady < 5ms", "expected phase.NAME.METRIC"),
        ("phase.steady.lost_acknowledged_writes = 0", "about the whole run"),
    ];
    for (text, expected) in table {
        let why = Expectation::parse(text).expect_err(text);
        assert!(why.contains(expected), "{text} gave {why}");
    }
}

#[test]
fn what_could_not_fail_is_refused() {
    let table = [
        ("response.exists.p99 < 5ms", "no phase issues such operations"),
        ("phase.quiet.response.set.p99 < 5ms", "phase quiet never issues such operations"),
        ("phase.warm.response.get.p99 < 5ms", "phase warm is a warm-up"),
        ("phase.loud.rate > 1", "there is no phase `loud`"),
        ("phase.quiet.missed.total = 0", "in a closed loop nothing is ever late or missed"),
        ("phase.quiet.lag.p99 < 1ms", "in a closed loop"),
        ("phase.quiet.notify.p99 < 1s", "never issues such operations, or watches for them"),
    ];
    for (text, expected) in table {
        let why = parse(text).check(&workload()).expect_err(text);
        assert!(why.contains(expected), "{text} gave {why}");
    }
}

#[test]
fn what_holds_always_or_never_is_refused() {
    let always = [
        "errors.total >= 0",
        "phase.steady.errors.set.total >= 0",
        "missed.total >= 0",
        "missed.share <= 100%",
        "errors.get.share >= 0%",
        "lag.max >= 0us",
        "response.get.p99 >= 0ms",
        "response.get.p99 > 0ms",
        "service.mean > 0ns",
        "response.max < 1h",
        "notify.p99 >= 0ms",
        "rate.get >= 0/s",
        "lost_acknowledged_writes >= 0",
        "sessions_expired >= 0",
        "ephemerals_lost >= 0",
        "failover.write_gap >= 0s",
        "failover.read_gap.median > 0s",
    ];
    let never = [
        "errors.total < 0",
        "errors.total = 0.5",
        "missed.share > 100%",
        "errors.share < 0%",
        "response.get.p99 <= 0ms",
        "response.get.p99 = 0ms",
        "lag.p50 < 0ms",
        "response.get.max > 1h",
        "rate < 0/s",
        "sessions_expired < 0",
        "failover.write_gap <= 0s",
    ];
    for (texts, expected) in [(&always[..], "could not fail"), (&never[..], "could never hold")] {
        for text in texts {
            let why = Expectation::parse(text).expect_err(text);
            assert!(why.contains(expected), "{text} gave {why}");
        }
    }
    // The nearest that say something.
    for text in [
        "errors.total >= 1",
        "errors.total < 0.5",
        "missed.share < 100%",
        "missed.share >= 100%",
        "lag.max > 0us",
        "lag.max <= 0us",
        "response.max < 9m",
        "rate > 0/s",
        "rate <= 0/s",
        "sessions_expired <= 0",
    ] {
        Expectation::parse(text).unwrap_or_else(|why| panic!("{text}: {why}"));
    }
}

#[test]
fn samples_needed_leave_ten_beyond() {
    for (percentile, samples) in [(50.0, 20), (90.0, 100), (99.0, 1000), (99.9, 10_000), (99.99, 100_000)] {
        assert_eq!(samples_needed(percentile), samples, "p{percentile}");
    }
}

//! Writes the charts and reports of made-up runs, to look at them: `cargo run --example sample-report -- DIR`.

#[path = "../tests/synthetic/mod.rs"]
mod synthetic;

use anyhow::Result;
use synthetic::{Made, Phase};
use zoometry::{report, results, summary};

fn main() -> Result<()> {
    let root = std::env::args().nth(1).unwrap_or_else(|| "target/sample-report".to_string());
    let root = std::path::Path::new(&root);
    let sweep = Made {
        workload: "read-ratio",
        phases: [1.0, 0.9, 0.75, 0.5, 0.25, 0.1, 0.0]
            .iter()
            .zip(["reads-100", "reads-90", "reads-75", "reads-50", "reads-25", "reads-10", "reads-0"])
            .map(|(share, name)| Phase { write_share: 1.0 - share, ..Phase::open(name, 3_000.0, 8.0) })
            .collect(),
        ..Made::default()
    };
    for (name, made) in [("failover", Made::default()), ("sweep", sweep)] {
        let dir = root.join(name);
        let run = made.run();
        let summary = summary::Summary::of(&run);
        results::write(&dir, &run, &summary)?;
        let report = report::write(&dir)?;
        print!("{}", summary::table(&run.manifest, &summary, summary::Style::of_stdout()));
        println!("\n{}", report.display());
    }
    Ok(())
}
